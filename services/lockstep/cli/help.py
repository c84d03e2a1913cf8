"""How help looks.

Here belong the classes of commands and groups, which differ from Typer's in the layout of help only.
Never here: texts. The law: the lines of an epilog stay lines, because they are examples to copy.
"""

from __future__ import annotations

import inspect
from typing import Any

from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command whose epilog is printed as it was written, and whose required arguments stand bare."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what follows the name in the line of usage: `[OPTIONS] QUEUE`, not `{QUEUE}`."""
        pieces: list[str] = super().collect_usage_pieces(ctx)
        return [piece.strip("{}") for piece in pieces]

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - given by the base
        """Write the epilog."""
        formatter.write(_lines(self.epilog))


class Group(TyperGroup):
    """A group of commands whose epilog is printed as it was written."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - given by the base
        """Write the epilog."""
        formatter.write(_lines(self.epilog))


def _lines(epilog: str | None) -> str:
    return f"\n{inspect.cleandoc(epilog)}\n" if epilog else ""
