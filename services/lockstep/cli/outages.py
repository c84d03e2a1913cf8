"""What a command that waits says while the server is away.

Here belongs the way from events of the client to sentences. Never here: waiting. The law: only while the block runs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from lockstep.cli.output import Output

_SENTENCES = {
    "client.server_away": "The server is away; waiting for it to come back.",
    "client.server_back": "The server is back.",
}


class _Notes(logging.Handler):
    """Prints events as notes."""

    def __init__(self, output: Output) -> None:
        super().__init__(logging.INFO)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Print one event; what has no sentence is printed as it is."""
        event = record.getMessage()
        if event in _SENTENCES or record.levelno >= logging.WARNING:
            self._output.note(_SENTENCES.get(event, event))


@contextmanager
def told(output: Output) -> Iterator[None]:
    """Say while the block runs that the server is away, and that it is back."""
    log = logging.getLogger("lockstep.client")
    notes, level, propagates = _Notes(output), log.level, log.propagate
    log.addHandler(notes)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(notes)
        log.setLevel(level)
        log.propagate = propagates
