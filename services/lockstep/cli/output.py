"""What a command prints: tables and sentences for people, JSON for programs, failures for both.

Here belong the streams, colours and layouts. Never here: what a queue or a message looks like (the
commands know that). The law: results go to standard output, everything else to standard error, and
with --json standard output holds JSON and nothing else.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from lockstep.cli.exits import CommandFailed, ExitCode, Failure
from lockstep.cli.values import printable

# Wide enough that a sentence is not folded when nobody looks: a pipe has no edge.
_PIPE_WIDTH = 100_000
_GAP = "  "


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        heading: What stands above it.
        is_number: Whether its cells line up on the right.
        is_label: Whether its cells name what stands beside them.
    """

    heading: str
    is_number: bool = False
    is_label: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a frame: a sentence, and a table under it.

    Attributes:
        sentence: What stands above the table; empty = nothing.
        columns: The columns of the table; empty = there is none.
        rows: Its rows.
    """

    sentence: str
    columns: Sequence[Column] = ()
    rows: Sequence[Sequence[str]] = ()


class _RateColumn(ProgressColumn):
    """Messages per second, as far as it is known."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


class Output:
    """Where a command prints."""

    def __init__(self, *, is_json: bool = False, has_color: bool = True) -> None:
        """Bind to standard output and standard error as they are now.

        Args:
            is_json: Print JSON for programs instead of text for people.
            has_color: Use colours where the terminal has them.
        """
        self.is_json = is_json
        self._out = _console(sys.stdout, has_color=has_color)
        self._err = _console(sys.stderr, has_color=has_color)
        self._has_edge = _has_edge(sys.stdout)

    def data(self, value: object) -> None:
        """Print one JSON document on one line, at once. For JSON output only."""
        with _writing():
            sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
            sys.stdout.flush()

    def raw(self, data: bytes) -> None:
        """Print bytes as they are, at once."""
        with _writing():
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    def say(self, sentence: str) -> None:
        """Tell a person the result."""
        if not self.is_json:
            with _writing():
                self._out.print(Text(printable(sentence)), soft_wrap=True)

    def note(self, sentence: str) -> None:
        """Tell a person something beside the result, on standard error."""
        if not self.is_json:
            self._err.print(Text(printable(sentence), style="dim"), soft_wrap=True)

    def table(
        self,
        columns: Sequence[Column],
        rows: Iterable[Sequence[str]],
        *,
        has_headings: bool = True,
    ) -> None:
        """Print a table, at once. Cells hold any text; what would steer a terminal is escaped.

        On a screen, long cells are folded. In a pipe each row is one line, whatever its length, and
        a newline in a cell is printed as an escape.
        """
        printed = [[printable(cell) for cell in row] for row in rows]
        with _writing():
            # On a screen that is too narrow Rich would leave columns out; so the terminal breaks the lines.
            if self._has_edge and _narrowest(columns, printed) <= self._out.width:
                self._out.print(_screen_table(columns, printed, has_headings=has_headings))
            else:
                lines = _pipe_lines(columns, [[column.heading for column in columns], *printed])
                sys.stdout.writelines(islice(lines, 0 if has_headings else 1, None))
            sys.stdout.flush()

    @property
    def is_screen(self) -> bool:
        """Whether standard output is a terminal that can be drawn on."""
        return self._out.is_terminal and not self._out.is_dumb_terminal

    def parts(self, parts: Iterable[Part]) -> None:
        """Print a frame, at once, and an empty line after it."""
        for part in parts:
            if part.sentence:
                self.say(part.sentence)
            if part.columns:
                self.table(part.columns, part.rows)
        self.say("")

    @contextmanager
    def screen(self) -> Iterator[Callable[[Iterable[Part]], None]]:
        """Take the screen while the block runs; it is as it was before when the block ends, however that is.

        Yields:
            A function that draws a frame over the last one. What does not fit is cut off.
        """
        with (
            _writing(),
            Live(console=self._out, screen=True, auto_refresh=False, redirect_stderr=False) as live,
        ):
            yield lambda parts: live.update(_screen_frame(parts), refresh=True)

    def facts(self, facts: Iterable[tuple[str, str]]) -> None:
        """Print labels and values, one pair a line."""
        self.table((Column("", is_label=True), Column("")), facts, has_headings=False)

    def failure(self, failure: Failure) -> None:
        """Print why the command failed, on standard error: a sentence and its reason, or JSON."""
        if self.is_json:
            error = {
                "reason": failure.reason,
                "message": failure.message,
                "details": dict(failure.details),
            }
            sys.stderr.write(json.dumps({"error": error}, ensure_ascii=False) + "\n")
            return
        line = Text()
        if failure.code is not ExitCode.NOTHING_THERE:
            line.append("error: ", style="bold red")
        line.append(printable(failure.message))
        line.append(f" ({failure.reason})", style="dim")
        self._err.print(line, soft_wrap=True)

    @contextmanager
    def progress(
        self, label: str, *, total: int | None, is_long: bool
    ) -> Iterator[Callable[[int], None]]:
        """Show count, rate and time left while the block runs, if standard error is a terminal.

        Args:
            label: What is going on.
            total: How many steps there are; None = not known, so there is no time left to show.
            is_long: Whether the work takes long enough to be worth a bar.

        Yields:
            A function to call with the number of further steps that are done.
        """
        if not (is_long and self._err.is_terminal):
            yield lambda _: None
            return
        columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn("{task.description}")]
        if total is not None:
            columns.append(BarColumn())
        columns += [MofNCompleteColumn(), _RateColumn()]
        if total is not None:
            columns.append(TimeRemainingColumn())
        with Progress(*columns, console=self._err, transient=True) as progress:
            task = progress.add_task(label, total=total)
            yield lambda steps: progress.update(task, advance=steps)


@contextmanager
def _writing() -> Iterator[None]:
    """Translate what happens when standard output takes no more.

    Raises:
        CommandFailed: The disk is full, for example. A reader that went away is no failure: Typer ends the command.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        message = f"Standard output cannot be written: {error.strerror or error}."
        raise CommandFailed(Failure("OUTPUT_FAILED", message, ExitCode.FAILED)) from error


def _narrowest(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> int:
    """Return how many characters wide a screen must be for a table whose long cells are folded."""
    widths = [len(column.heading) + len(_GAP) for column in columns]
    for place, column in enumerate(columns):
        if column.is_number or column.is_label:
            widths[place] = max([widths[place], *(len(row[place]) + len(_GAP) for row in rows)])
    return sum(widths)


def _screen_table(
    columns: Sequence[Column], rows: Iterable[Sequence[str]], *, has_headings: bool
) -> Table:
    """Lay out a table for a screen."""
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, len(_GAP), 0, 0),
        header_style="bold",
        show_header=has_headings,
    )
    for column in columns:
        table.add_column(
            column.heading,
            justify="right" if column.is_number else "left",
            min_width=len(column.heading),
            no_wrap=column.is_number or column.is_label,
            style="bold" if column.is_label else "",
            overflow="fold",
        )
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _screen_frame(parts: Iterable[Part]) -> Group:
    """Lay out a frame for a screen, with an empty line between its parts."""
    shown: list[Text | Table] = []
    for part in parts:
        if shown:
            shown.append(Text(""))
        if part.sentence:
            shown.append(Text(printable(part.sentence), style="bold"))
        if part.columns:
            rows = [[printable(cell).replace("\n", "\\n") for cell in row] for row in part.rows]
            shown.append(_screen_table(part.columns, rows, has_headings=True))
    return Group(*shown)


def _pipe_lines(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lay out a table, headings first, for a pipe: one line a row, aligned but for the last column."""
    escaped = [[cell.replace("\n", "\\n") for cell in row] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(*escaped, strict=True)]
    for row in escaped:
        cells = [
            cell.rjust(width) if column.is_number else cell.ljust(width)
            for column, cell, width in zip(columns[:-1], row, widths, strict=False)
        ]
        last = row[-1].rjust(widths[-1]) if columns[-1].is_number else row[-1]
        yield _GAP.join([*cells, last]).rstrip() + "\n"


def _has_edge(stream: TextIO) -> bool:
    # Rich reads COLUMNS and NO_COLOR itself.
    return stream.isatty() or "COLUMNS" in os.environ


def _console(stream: TextIO, *, has_color: bool) -> Console:
    return Console(
        file=stream,
        no_color=None if has_color else True,
        highlight=False,
        emoji=False,
        markup=False,
        width=None if _has_edge(stream) else _PIPE_WIDTH,
    )
