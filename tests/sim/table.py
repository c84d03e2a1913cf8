"""How often each command met each fault, as a table for people."""

from __future__ import annotations

from collections import Counter

_COLUMNS = {
    "sent": "sent",
    "lost": "lost",
    "reply lost": "reply\nlost",
    "repeated": "twice",
    "reordered": "late",
    "straggling": "very\nlate",
    "hung_up": "hung\nup",
    "zombie owner": "zombie\nowner",
    "commit_failed": "commit\nfailed",
    "commit_unknown": "commit\nunknown",
    "commit fenced": "commit\nfenced",
    "commit_slow": "commit\nslow",
    "crash before commit": "crash\nbefore",
    "crash after commit": "crash\nafter",
    "owner killed": "owner\nkilled",
}


def fault_table(met: Counter[tuple[str, str]]) -> str:
    """Return a line for each command and a column for each fault.

    Commands that change nothing are in no commit. "crash before" and "crash after" are about the commit that a
    command's effect was in; "owner killed" counts every call that an owner had not answered when it was killed.
    """
    commands = sorted({command for command, _ in met if command != "NoneType"})
    width = max(map(len, commands), default=0)
    tops = [name.partition("\n")[0] for name in _COLUMNS.values()]
    bottoms = [name.partition("\n")[2] for name in _COLUMNS.values()]
    lines = [_line("", tops, width), _line("", bottoms, width)]
    for command in commands:
        cells = [str(met[command, fault] or ".") for fault in _COLUMNS]
        lines.append(_line(command, cells, width))
    return "\n".join(lines)


def _line(first: str, cells: list[str], width: int) -> str:
    return first.ljust(width) + "".join(cell.rjust(8) for cell in cells)
