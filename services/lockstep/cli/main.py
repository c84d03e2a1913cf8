"""The command `lockstep`: its global options, its commands, and how it ends.

Here belong the root command and the one place that turns what was raised into an exit code. Never
here: what a command does. The law: a user sees one sentence and an exit code, never a traceback,
unless the bug is ours.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version as installed_version
from typing import Annotated, Any, NoReturn

import typer

from lockstep.cli.commands import (
    cluster,
    dead_letters,
    explain,
    export,
    peek,
    queue,
    receive,
    repair,
    schedule,
    send,
    serve,
    session_state,
    sessions,
    top,
)
from lockstep.cli.context import (
    DEFAULT_NAMESPACE,
    DEFAULT_SERVER,
    DISTRIBUTION,
    CommandLine,
)
from lockstep.cli.exits import EXIT_CODES_HELP, CommandFailed, ExitCode, Failure, failure_of
from lockstep.cli.help import Command, Group
from lockstep.cli.output import Output
from lockstep.core.errors import LockstepError

_EPILOG = "\n".join(
    [
        "Examples:",
        "  lockstep serve",
        "  lockstep queue create orders --session",
        "  lockstep send orders --session A 'first' 'second'",
        "  lockstep receive orders",
        "  lockstep peek orders --session A",
        "  lockstep dlq resubmit orders",
        "  lockstep explain orders --session A",
        "  lockstep top orders",
        "  lockstep export > queues.yaml",
        "  lockstep --server broker.example:7700 queue list --json",
        "",
        "Global options may stand before or after the command.",
        "",
        "Exit codes:",
        *(f"  {code.value:<4} {meaning}" for code, meaning in EXIT_CODES_HELP),
    ]
)

_SWITCHES = ("--json", "--no-color")
_VALUED = ("--server", "--namespace")


def split_global_options(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take the global options out of a command line, wherever they stand before a `--`.

    Returns:
        The global options with their values, and everything else, each in its order.
    """
    found: list[str] = []
    rest: list[str] = []
    pending = iter(words)
    for word in pending:
        if word == "--":
            rest += [word, *pending]
        elif word in _SWITCHES or word.startswith(tuple(f"{name}=" for name in _VALUED)):
            found.append(word)
        elif word in _VALUED:
            found += [word, *_next_of(pending)]
        else:
            rest.append(word)
    return found, rest


def _next_of(words: Iterator[str]) -> list[str]:
    following = next(words, None)
    return [] if following is None else [following]


class RootGroup(Group):
    """The root command: takes global options anywhere and ends every run in one place."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: ARG002, FBT001, FBT002 - the signature of the base class
        windows_expand_args: bool = True,  # noqa: FBT001, FBT002 - the signature of the base class
        **extra: Any,
    ) -> NoReturn:
        """Run one command line and leave the process with its exit code."""
        found, rest = split_global_options(sys.argv[1:] if args is None else args)
        output = Output(is_json="--json" in found, has_color="--no-color" not in found)
        try:
            code = super().main(
                [*found, *rest],
                prog_name,
                complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )
        except CommandFailed as error:
            failure = error.failure
        except typer.TyperException as error:
            failure = _failure_of_usage(error)
        except typer.Abort:
            failure = Failure("ABORTED", "Nothing was done.", ExitCode.FAILED)
        else:
            sys.exit(code if isinstance(code, int) else ExitCode.FINE)
        output.failure(failure)
        sys.exit(failure.code)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what the client raises becomes the end of the command."""
        try:
            return super().invoke(ctx)
        except LockstepError as error:
            raise CommandFailed(failure_of(error)) from error


def _failure_of_usage(error: typer.TyperException) -> Failure:
    """Describe a command line that could not be understood."""
    # "Value error" is how pydantic begins what a check of a value said.
    message = error.format_message().replace(": Value error, ", ": ")
    context = getattr(error, "ctx", None)
    if context is not None:
        # Where Typer has a suggestion, it ends with "?.".
        sentence = message.rstrip(".")
        stop = "" if sentence.endswith("?") else "."
        message = f"{sentence}{stop} See `{context.command_path} --help`."
    code = ExitCode.USAGE if error.exit_code == ExitCode.USAGE else ExitCode.FAILED
    return Failure("USAGE", message, code)


app = typer.Typer(
    name="lockstep",
    cls=RootGroup,
    epilog=_EPILOG,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    pretty_exceptions_enable=False,
    invoke_without_command=True,
)
app.command("serve", cls=Command, epilog=serve.EPILOG)(serve.serve)
app.command("owner", cls=Command, epilog=cluster.OWNER_EPILOG)(cluster.owner)
app.command("frontend", cls=Command, epilog=cluster.FRONTEND_EPILOG)(cluster.frontend)
app.add_typer(cluster.app, name="cluster")
app.add_typer(queue.app, name="queue")
app.command("send", cls=Command, epilog=send.EPILOG)(send.send)
app.command("receive", cls=Command, epilog=receive.EPILOG)(receive.receive)
app.command("peek", cls=Command, epilog=peek.EPILOG)(peek.peek)
app.command("explain", cls=Command, epilog=explain.EPILOG)(explain.explain)
app.command("export", cls=Command, epilog=export.EPILOG)(export.export)
app.command("top", cls=Command, epilog=top.EPILOG)(top.top)
app.add_typer(schedule.app, name="schedule")
sessions.app.add_typer(session_state.app, name="state")
sessions.app.command("dead-letter", cls=Command, epilog=repair.DEAD_LETTER_SESSION)(
    repair.dead_letter_session
)
app.add_typer(sessions.app, name="sessions")
app.add_typer(dead_letters.app, name="dlq")


def _show_version(is_wanted: bool) -> None:  # noqa: FBT001 - Typer calls it with the option's value
    if is_wanted:
        typer.echo(f"lockstep {installed_version(DISTRIBUTION)}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    *,
    server: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", envvar="LOCKSTEP_SERVER", help="The server to talk to."),
    ] = DEFAULT_SERVER,
    namespace: Annotated[
        str,
        typer.Option(
            metavar="NAME", envvar="LOCKSTEP_NAMESPACE", help="The broker namespace of the queues."
        ),
    ] = DEFAULT_NAMESPACE,
    is_json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON for programs; errors too, on standard error."),
    ] = False,
    has_no_color: Annotated[
        bool, typer.Option("--no-color", help="Print without colours; NO_COLOR=1 does the same.")
    ] = False,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Lockstep: a message broker with real session locks.

    Messages that share a session id are received in order by one holder at a time, under a lock that
    can be renewed and cannot be stolen. `lockstep serve` runs a broker; the other commands talk to
    one.
    """
    output = Output(is_json=is_json, has_color=not has_no_color)
    ctx.obj = CommandLine(server=server, namespace=namespace, output=output)
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit(ExitCode.USAGE)


def main() -> None:
    """Run the command line of this process."""
    if sys.stdout is None or sys.stderr is None:
        sys.exit("error: Standard output or standard error is closed; /dev/null would do. (USAGE)")
    # Whoever stops a command with SIGTERM gets the order of Ctrl-C: sessions are given back at once.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app(prog_name="lockstep")
