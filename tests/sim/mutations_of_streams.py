"""The broker with one guard taken out at a time: receivers whose streams break.

`mutations` says why our own code may be patched here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lockstep.core import receiving, undoing
from lockstep.core.commands import Disconnect
from lockstep.core.locks import DISCONNECTED
from lockstep.core.partition import _HANDLERS, Partition
from lockstep.core.queue import Queue, Step
from lockstep.core.replies import Released
from lockstep.core.session import Session
from tests.sim.mutations import Mutation, Patch


def broken_streams_always_release(patch: Patch) -> None:
    """A broken stream releases what its receiver had, whatever the queue says (RACE-19)."""
    disconnect = _HANDLERS[Disconnect]

    def release(partition: Partition, command: Disconnect, step: Step) -> Any:
        queue = partition.queue(command.entity)
        kept = queue.definition
        settings = replace(kept.settings, release_on_disconnect=True)
        queue.definition = replace(kept, settings=settings)
        try:
            return disconnect(partition, command, step)
        finally:
            queue.definition = kept

    patch.setitem(_HANDLERS, Disconnect, release)


def broken_streams_never_release(patch: Patch) -> None:
    """A broken stream is no reason to release anything, whatever the queue says (RACE-19)."""

    def keep(_partition: Partition, _command: Disconnect, _step: Step) -> Released:
        return Released(0)

    patch.setitem(_HANDLERS, Disconnect, keep)


def broken_streams_count(patch: Patch) -> None:
    """What its receiver had in hand counts as a failed delivery when a stream breaks (RACE-19, DCN-4)."""
    close = receiving.close_session

    def counted(
        partition: Partition, queue: Queue, session: Session, step: Step, *, cause: str
    ) -> int:
        if cause == DISCONNECTED:
            for sequence in session.in_hand():
                queue.count_failure(sequence, "lock_expired", step)
        return close(partition, queue, session, step, cause=cause)

    patch.setattr(undoing, "close_session", counted)


MUTATIONS: tuple[Mutation, ...] = (
    broken_streams_always_release,
    broken_streams_never_release,
    broken_streams_count,
)
