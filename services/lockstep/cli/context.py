"""What every command shares: which server, which namespace, how to print.

Here belong the connection options and the way to a client. Never here: what a command does with
them. The law: a command reaches the server through `connect` and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import typer

from lockstep import LockstepClient
from lockstep.cli.output import Output

DISTRIBUTION = "lockstep-broker"
DEFAULT_SERVER = "127.0.0.1:7700"
DEFAULT_NAMESPACE = "default"
# A person waits: who mistyped an address learns it after about two seconds.
_RETRIES_MAX = 3
_RETRY_BACKOFF_S = 0.3
_FOLLOWERS_RETRIES_MAX = 12  # some 9 s: a server that is started again is back by then
_FOLLOWERS_BACKOFF_MAX_S = 1


@dataclass(frozen=True, slots=True)
class CommandLine:
    """One run of the command line.

    Attributes:
        server: The address of the server, `host:port`.
        namespace: The broker namespace that queues are looked up in.
        output: Where results go.
    """

    server: str
    namespace: str
    output: Output

    @property
    def where(self) -> str:
        """What a command that is shown for copying needs to reach the same queues; begins with a space or is empty."""
        if self.namespace == DEFAULT_NAMESPACE:
            return ""
        return f" --namespace {self.namespace}"

    def connect(self) -> LockstepClient:
        """Return a client to be used in a `with` block; the first call connects."""
        return LockstepClient(
            self.server,
            namespace=self.namespace,
            retry_total=_RETRIES_MAX,
            retry_backoff_factor=_RETRY_BACKOFF_S,
        )

    def connect_to_follow(self) -> LockstepClient:
        """Return a client whose calls that do not wait outlast a restart of the server, settlements for example."""
        return LockstepClient(
            self.server,
            namespace=self.namespace,
            retry_total=_FOLLOWERS_RETRIES_MAX,
            retry_backoff_factor=_RETRY_BACKOFF_S,
            retry_backoff_max=_FOLLOWERS_BACKOFF_MAX_S,
        )


def command_line(ctx: typer.Context) -> CommandLine:
    """Return the run that a command belongs to."""
    found = ctx.find_object(CommandLine)
    assert found is not None, "the root command sets it"
    return found
