"""From the core's replies to answers that can leave.

Here belongs what a reply names but does not carry (bodies, states), and how an answer that nobody takes is
undone. Never here: when an answer may leave (`owner.actor`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lockstep.cluster.port import Answer
from lockstep.core.commands import (
    Accept,
    Accepted,
    Cancel,
    Command,
    Delivered,
    NoneAvailable,
    Outcome,
    Receive,
    ReleaseSession,
    Reply,
    Settle,
    Settlement,
    StateIs,
)
from lockstep.core.errors import NoSessionAvailable
from lockstep.core.message import is_run

StateKey = tuple[int, str]


def wanted(replies: Iterable[Reply | None]) -> tuple[list[int], list[StateKey]]:
    """Return the chunks and the session states that the answers of a round need."""
    chunks: dict[int, None] = {}
    states: dict[StateKey, None] = {}
    for reply in replies:
        match reply:
            case Delivered(chunks=named):
                chunks.update(dict.fromkeys(named))
            case Accepted(has_state=True, entity=entity, session=session):
                states[entity, session.session_id] = None
            case StateIs(has_state=True, entity=entity, session_id=session_id):
                states[entity, session_id] = None
            case _:
                pass
    return list(chunks), list(states)


def answer_of(
    reply: Reply, chunks: Mapping[int, Sequence[bytes]], states: Mapping[StateKey, bytes]
) -> Answer:
    """Return the answer to a call.

    Args:
        reply: What the core decided.
        chunks: The messages of every chunk that it names.
        states: Every session state that it names.

    Raises:
        NoSessionAvailable: The reply says so (SES-9).
    """
    match reply:
        case NoneAvailable():
            raise NoSessionAvailable("No session became available in the time that was given.")
        case Delivered():
            return Answer(reply, _messages(reply, chunks))
        case Accepted(entity=entity, session=session):
            return Answer(
                reply, state=states[entity, session.session_id] if reply.has_state else None
            )
        case StateIs(entity=entity, session_id=session_id):
            return Answer(reply, state=states[entity, session_id] if reply.has_state else None)
        case _:
            return Answer(reply)


def _messages(reply: Delivered, stored: Mapping[int, Sequence[bytes]]) -> Sequence[bytes]:
    chunks, places = reply.chunks, reply.places
    if (
        chunks and chunks[0] == chunks[-1] and is_run(reply.sequences)
    ):  # then its places are a run too
        return stored[chunks[0]][places[0] : places[-1] + 1]
    return [stored[chunk][place] for chunk, place in zip(chunks, places, strict=True)]


def found_nothing(reply: Reply | None) -> bool:
    """Whether a call found nothing, for the first time: it may wait if it wants to."""
    match reply:
        case NoneAvailable(is_final=is_final):
            return not is_final
        case Delivered(sequences=sequences, is_final=is_final):
            return not sequences and not is_final
        case _:
            return False


def undoing(command: Command, reply: Reply | None) -> Command | None:
    """Return the command that undoes an accept or a receive without counting (BAT-9, SES-15); None = nothing to."""
    if isinstance(command, Accept) and isinstance(reply, Accepted):
        if command.request is not None:
            return Cancel(command.entity, command.request)
        return ReleaseSession(command.entity, reply.session)
    if isinstance(command, Receive) and isinstance(reply, Delivered) and reply.sequences:
        if command.request is not None:
            return Cancel(command.entity, command.request)
        release = Settlement(Outcome.RELEASE, reply.grant, reply.sequences)
        return Settle(command.entity, command.dead_letter, command.session, (release,))
    return None
