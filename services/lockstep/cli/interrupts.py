"""Ctrl-C and SIGTERM, held back while something must not be torn.

Here belong signal handlers of commands. Never here: what is to be done at the end (the commands know that). The law: a
first signal waits for the block at most; a second one ends it at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_back() -> Iterator[None]:
    """Let the block end before a first signal has its effect; outside the main thread, where none arrives, do nothing.

    Raises:
        KeyboardInterrupt: A signal came: at the end of the block, or with the second one at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = False

    def note(_number: int, _frame: object) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    before = [signal.signal(number, note) for number in _SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt
