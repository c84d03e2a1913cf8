"""What must not be torn ends before Ctrl-C has its effect."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence

import pytest

from lockstep.cli.interrupts import held_back

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def work_through(signals: Sequence[signal.Signals], done: list[str]) -> None:
    with held_back():
        for number in signals:
            signal.raise_signal(number)
        done.append("the rest of the block")


@pytest.mark.parametrize("number", SIGNALS)
def test_the_block_ends_before_a_signal_has_its_effect(number: signal.Signals) -> None:
    done: list[str] = []

    with pytest.raises(KeyboardInterrupt):
        work_through([number], done)

    assert done == ["the rest of the block"]


def test_a_second_signal_ends_the_block_at_once() -> None:
    done: list[str] = []

    with pytest.raises(KeyboardInterrupt):
        work_through(SIGNALS, done)

    assert done == []


def test_signals_do_afterwards_what_they_did_before() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]

    with held_back():
        assert [signal.getsignal(number) for number in SIGNALS] != before

    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_another_thread_is_left_alone() -> None:
    found = []

    def hold() -> None:
        with held_back():
            found.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()

    assert found == [before]
