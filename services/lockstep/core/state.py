"""What a partition does with the states of sessions (section 5.5 of the contract).

Here belong reads and writes by a holder. Never here: states that nobody uses (`idling`). The law: a write is refused
whole or done whole, and what was acknowledged is read by the next holder (SES-42, SES-43).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockstep.core.changes import Drop, StateRow
from lockstep.core.commands import GetState, SetState
from lockstep.core.errors import MessageSizeExceeded, StateConflict
from lockstep.core.idling import watch_state
from lockstep.core.limits import KIB
from lockstep.core.locks import find_held
from lockstep.core.replies import StateIs, StateSet

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue, Step
    from lockstep.core.session import Session


def on_get_state(partition: Partition, command: GetState, _step: Step) -> StateIs:
    """Say which state a held session has (SES-40, SES-41)."""
    queue = partition.queue(command.entity)
    session = find_held(partition, queue, command.session)
    session.hear_of_holder()
    return StateIs(
        queue.number, session.session_id, session.state_bytes is not None, session.state_version
    )


def on_set_state(partition: Partition, command: SetState, step: Step) -> StateSet:
    """Set or clear the state of a held session (SES-39, SES-41, SES-43)."""
    queue = partition.queue(command.entity)
    found = partition.repeated(command.request, command.fingerprint, "state")
    if found is not None:
        return StateSet(found[1])
    session = find_held(partition, queue, command.session)
    check_state(queue, session, command.value, command.if_version)
    session.hear_of_holder()
    write_state(partition, queue, session, command.value, step)
    partition.remember(command.request, command.fingerprint, ("state", session.state_version), step)
    return StateSet(session.state_version)


def check_state(
    queue: Queue, session: Session, value: bytes | None, if_version: int | None
) -> None:
    """Refuse a state that may not be written.

    Raises:
        MessageSizeExceeded: It is too large.
        StateConflict: The state there has another version (ADD-7).
    """
    size = 0 if value is None else len(value)
    most = queue.definition.settings.max_session_state_size_in_kilobytes * KIB
    if size > most:
        raise MessageSizeExceeded(
            f"{queue.path} allows {most} bytes of session state; {size} were given. The state is unchanged."
            " Store less, or a pointer to a record elsewhere.",
            details={
                "limit": "max_session_state_size_in_kilobytes",
                "configured": str(most),
                "observed": str(size),
            },
        )
    if if_version is not None and if_version != session.state_version:
        raise StateConflict(
            f"The state of session '{session.session_id}' of {queue.path} has version {session.state_version}, not"
            f" {if_version}. The state is unchanged. Read it again, then decide.",
            details={
                "version": str(session.state_version),
                "observed": str(if_version),
                "session_id": session.session_id,
            },
        )


def write_state(
    partition: Partition, queue: Queue, session: Session, value: bytes | None, step: Step
) -> None:
    """Write a state that may be written; None clears it."""
    size = None if value is None else len(value)
    queue.states_bytes += (size or 0) - (session.state_bytes or 0)
    queue.states_count += (size is not None) - (session.state_bytes is not None)
    session.state_bytes = size
    session.state_version = partition.next_state_version()
    session.state_set_ms = step.now_ms
    key = (queue.number, session.session_id)
    if value is None:
        step.changes.append(Drop(StateRow, key))
    else:
        step.changes.append(StateRow(*key, len(value), value))
    queue.store_session(session, step)
    watch_state(partition, queue, session, step.now_ms)
