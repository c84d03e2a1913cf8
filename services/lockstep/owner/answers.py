"""From the core's replies to answers that can leave.

Here belongs what a reply names but does not carry (bodies, states), and how an answer that nobody takes is
undone. Never here: when an answer may leave (`owner.actor`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lockstep.cluster.port import Answer
from lockstep.core.changes import Change, ChunkRow, Drop, StateRow
from lockstep.core.commands import (
    Accept,
    Cancel,
    Command,
    Outcome,
    Receive,
    ReceiveDeferred,
    ReleaseSession,
    Settle,
    Settlement,
)
from lockstep.core.errors import MessageNotFound, NoSessionAvailable
from lockstep.core.message import is_run
from lockstep.core.replies import (
    Accepted,
    Browsed,
    DeferredExpired,
    Delivered,
    JobLook,
    NoneAvailable,
    Reply,
    StateIs,
    TransferIs,
)
from lockstep.owner.bodies import BodyCache

StateKey = tuple[int, str]


class Contents:
    """What the answers of one round carry, as it was at the step of each call.

    A later step of the round may remove a message or overwrite a state that an earlier reply names. So what the
    round itself writes is noted step by step, and the rest is read before the round is committed.

    Attributes:
        chunks: The messages of chunks that replies name or the round writes.
        states: The session states that were read for the round.
    """

    __slots__ = ("_bodies", "_written", "chunks", "missing_chunks", "missing_states", "states")

    def __init__(self, bodies: BodyCache) -> None:
        self._bodies = bodies
        self._written: dict[StateKey, bytes | None] = {}
        self.chunks: dict[int, Sequence[bytes]] = {}
        self.states: dict[StateKey, bytes] = {}
        self.missing_chunks: dict[int, None] = {}
        self.missing_states: dict[StateKey, None] = {}

    def want(self, reply: Reply) -> StateKey | bytes | None:
        """Note what a reply names; return the state that it carries, or the key under which it will be read."""
        match reply:
            case (
                Browsed(delivered=Delivered(chunks=named))
                | JobLook(delivered=Delivered(chunks=named))
                | TransferIs(delivered=Delivered(chunks=named))
                | Delivered(chunks=named)
            ):
                for chunk in dict.fromkeys(named):
                    self._want_chunk(chunk)
                return None
            case Accepted(has_state=True, entity=entity, session=session):
                return self._want_state((entity, session.session_id))
            case StateIs(has_state=True, entity=entity, session_id=session_id):
                return self._want_state((entity, session_id))
            case _:
                return None

    def _want_chunk(self, chunk: int) -> None:
        if chunk in self.chunks:
            return
        kept = self._bodies.get(chunk)
        if kept is None:
            self.missing_chunks[chunk] = None
        else:
            self.chunks[chunk] = kept

    def _want_state(self, key: StateKey) -> StateKey | bytes | None:
        if key in self._written:
            return self._written[key]
        self.missing_states[key] = None
        return key

    def note(self, changes: Iterable[Change]) -> None:
        """Note what a step writes."""
        for change in changes:
            if isinstance(change, ChunkRow):
                self.chunks[change.chunk] = change.messages
            elif isinstance(change, StateRow):
                self._written[change.entity, change.session_id] = change.value
            elif isinstance(change, Drop) and change.table is StateRow:
                self._written[int(change.key[0]), str(change.key[1])] = None


def answer_of(reply: Reply, state: StateKey | bytes | None, contents: Contents) -> Answer:
    """Return the answer to a call.

    Args:
        reply: What the core decided.
        state: What `Contents.want` gave for it.
        contents: What the round's answers carry, with everything that was missing read.

    Raises:
        NoSessionAvailable: The reply says so (SES-9).
        MessageNotFound: The reply says so (TTL-9).
    """
    if isinstance(reply, NoneAvailable):
        raise NoSessionAvailable("No session became available in the time that was given.")
    if isinstance(reply, DeferredExpired):
        raise MessageNotFound(
            f"Message {reply.sequences[0]} expired while it was deferred, and is gone. Nothing was received.",
            details={"sequence_number": str(reply.sequences[0])},
        )
    if isinstance(reply, Browsed | JobLook | TransferIs) and reply.delivered is not None:
        return Answer(reply, _messages(reply.delivered, contents.chunks))
    if isinstance(reply, Delivered):
        return Answer(reply, _messages(reply, contents.chunks))
    return Answer(reply, state=contents.states[state] if isinstance(state, tuple) else state)


def _messages(reply: Delivered, stored: Mapping[int, Sequence[bytes]]) -> Sequence[bytes]:
    chunks, places = reply.chunks, reply.places
    # Consecutive numbers do not tell: messages that were enqueued again lie in chunks in any order.
    if is_run(places) and chunks.count(chunks[0]) == len(chunks):
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
            return Cancel(command.entity, command.request, is_by_client=False)
        return ReleaseSession(command.entity, reply.session)
    if not isinstance(command, Receive | ReceiveDeferred):
        return None
    if isinstance(reply, Delivered) and reply.sequences:
        if command.request is not None:
            return Cancel(command.entity, command.request, is_by_client=False)
        release = Settlement(Outcome.RELEASE, reply.grant, reply.sequences)
        return Settle(command.entity, command.dead_letter, command.session, (release,))
    return None
