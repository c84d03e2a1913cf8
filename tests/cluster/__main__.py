"""`make cluster`: a whole cluster here, to try things with; it ends with Ctrl-C and leaves nothing behind.

Here belongs what hears signals from the first moment on. Never here: what is started (`trying`). The law: a signal
interrupts nothing, it is asked for between two steps; so nothing is forgotten that was just started.
"""

from __future__ import annotations

import os
import signal
import sys


class Signals:
    """Notes that the program was asked to end."""

    def __init__(self) -> None:
        self.have_come = False
        self._ear, self._mouth = os.pipe()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, _number: int, _frame: object) -> None:
        if not self.have_come:
            self.have_come = True
            os.write(self._mouth, b"!")

    def wait(self) -> None:
        """Return when a signal has come; one that came before counts."""
        os.read(self._ear, 1)


def main() -> int:
    """Hear signals, then do the rest."""
    signals = Signals()
    from tests.cluster.trying import run  # half a second, in which a signal may come

    return run(sys.argv[1:], signals)


if __name__ == "__main__":
    sys.exit(main())
