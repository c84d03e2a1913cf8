"""The operations of one client of the public library, each of them recorded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, TypeVar

from lockstep.aio import (
    NEXT_AVAILABLE_SESSION,
    LockstepClient,
    Message,
    QueueReceiver,
    ReceivedMessage,
    SettlementFailure,
    TurnResult,
)
from lockstep.errors import (
    Conflict,
    InvalidRequest,
    LockstepError,
    NoSessionAvailable,
    NotFound,
    QuotaExceeded,
)
from tests.faults.history import Item, Kind, Operation, Outcome, Recorder

# What says that a call had no effect and never will have one.
_CERTAIN = (InvalidRequest, NotFound, Conflict, NoSessionAvailable, QuotaExceeded)
_Result = TypeVar("_Result")
Facts = Mapping[str, Any]


class RecordedClient:
    """Does what a program does, and notes it. Errors are raised after they were noted."""

    def __init__(self, client: LockstepClient, recorder: Recorder, worker: str) -> None:
        self.client = client
        self.worker = worker
        self._recorder = recorder

    async def do(
        self,
        kind: Kind,
        queue: str,
        call: Awaitable[_Result],
        told: Callable[[_Result], Facts] = lambda _result: {},
        **facts: Any,
    ) -> _Result:
        """Make a call, and note what `told` makes of its result."""
        operation = self._recorder.begin(self.worker, kind, queue, **facts)
        try:
            result = await call
        except LockstepError as error:
            outcome = Outcome.FAILED if isinstance(error, _CERTAIN) else Outcome.UNKNOWN
            self._note_failure(operation, outcome, error)
            raise
        except BaseException as error:
            self._recorder.end(operation, Outcome.UNKNOWN, reason=type(error).__name__)
            raise
        self._recorder.end(operation, Outcome.OK, **told(result))
        return result

    def _note_failure(self, operation: Operation, outcome: Outcome, error: LockstepError) -> None:
        places = error.details.get("not_stored_indexes")
        if places is None:
            self._recorder.end(operation, outcome, reason=error.reason)
            return
        # A batch over several partitions of which some are stored (ADD-2); whether the others are is not known.
        missing = set(_places(places))
        stored = [item for n, item in enumerate(operation.items) if n not in missing]
        others = [item for n, item in enumerate(operation.items) if n in missing]
        self._recorder.end_in_part(operation, stored, others, error.reason)

    # --- sending ---------------------------------------------------------------------------------

    async def send(self, queue: str, items: Sequence[Item], kind: Kind = Kind.SEND) -> None:
        """Send one batch."""
        messages = [Message(item.body, session_id=item.session_id or None) for item in items]

        def told(numbers: Sequence[int]) -> Facts:
            numbered = zip(items, numbers, strict=True)
            return {"items": tuple(replace(item, sequence=number) for item, number in numbered)}

        sender = self.client.get_queue_sender(queue)
        await self.do(kind, queue, sender.send_messages(messages), told, items=tuple(items))

    # --- plain queues ----------------------------------------------------------------------------

    def receiver(self, queue: str) -> QueueReceiver:
        return self.client.get_queue_receiver(queue, client_identifier=self.worker)

    async def receive(
        self, receiver: QueueReceiver, queue: str, count: int, wait_s: float, **facts: Any
    ) -> list[ReceivedMessage]:
        call = receiver.receive_messages(count, wait_s)
        return await self.do(Kind.RECEIVE, queue, call, _delivered, **facts)

    async def settle(
        self,
        kind: Kind,
        queue: str,
        call: Awaitable[list[SettlementFailure]],
        messages: Iterable[ReceivedMessage],
        **facts: Any,
    ) -> bool:
        """Complete, abandon or defer; return whether all of it was done."""
        items = items_of(messages)
        operation = self._recorder.begin(self.worker, kind, queue, items=items, **facts)
        try:
            failures = await call
        except LockstepError as error:
            outcome = Outcome.FAILED if isinstance(error, _CERTAIN) else Outcome.UNKNOWN
            self._recorder.end(operation, outcome, reason=error.reason)
            raise
        except BaseException as error:
            self._recorder.end(operation, Outcome.UNKNOWN, reason=type(error).__name__)
            raise
        reasons = {failure.message.sequence_number: failure.reason for failure in failures}
        done = tuple(item for item in items if item.sequence not in reasons)
        self._recorder.end(operation, Outcome.OK, items=done)
        for item in items:
            if item.sequence in reasons:
                self._recorder.note_refused(operation, item, reasons[item.sequence])
        return not failures

    # --- sessions --------------------------------------------------------------------------------

    async def take_turn(
        self,
        queue: str,
        call: Awaitable[TurnResult],
        done: Sequence[Item],
        outputs: Sequence[Item],
        state: Facts,
        held: Facts,
    ) -> int:
        """Note a turn as its parts, and return the version of the state after it."""
        of_turn = {**held, "turn": self._recorder.new_turn()}
        written, completed, sent = [
            self._recorder.begin(self.worker, kind, queue, **facts, **of_turn)
            for kind, facts in (
                (Kind.SET_STATE, state),
                (Kind.COMPLETE, {"items": tuple(done)}),
                (Kind.SEND, {"items": tuple(outputs)}),
            )
        ]
        try:
            result = await call
        except LockstepError as error:
            outcome = Outcome.FAILED if isinstance(error, _CERTAIN) else Outcome.UNKNOWN
            for part in (written, completed, sent):
                self._recorder.end(part, outcome, reason=error.reason)
            raise
        numbered = zip(outputs, result.sequence_numbers, strict=True)
        stored = tuple(replace(item, sequence=number) for item, number in numbered)
        self._recorder.end(written, Outcome.OK, version=result.state_version)
        self._recorder.end(completed, Outcome.OK)
        self._recorder.end(sent, Outcome.OK, items=stored)
        return result.state_version

    async def accept(self, queue: str, session_id: str | None, wait_s: float) -> HeldByUs:
        """Accept a session, the next available one without an id."""
        wanted = NEXT_AVAILABLE_SESSION if session_id is None else session_id
        receiver = self.client.get_queue_receiver(
            queue, session_id=wanted, max_wait_time=wait_s, client_identifier=self.worker
        )
        stack = AsyncExitStack()
        call = stack.enter_async_context(receiver)
        facts = {} if session_id is None else {"session_id": session_id}
        await self.do(Kind.ACCEPT, queue, call, _granted, **facts)
        stack.pop_all()  # whoever holds it releases it
        return HeldByUs(self, receiver, queue)


class HeldByUs:
    """A session that a recorded client holds."""

    def __init__(self, us: RecordedClient, receiver: QueueReceiver, queue: str) -> None:
        self._us = us
        self._queue = queue
        self.receiver = receiver
        self.session_id = receiver.session.session_id
        self._facts: dict[str, Any] = {
            "session_id": self.session_id,
            "grant": receiver.session.grant,
        }
        self._writes, _ = read_state(receiver.session.state)
        self._version = receiver.session.state_version

    async def receive(self, count: int, wait_s: float) -> list[ReceivedMessage]:
        return await self._us.receive(self.receiver, self._queue, count, wait_s, **self._facts)

    async def receive_deferred(self, sequences: Sequence[int]) -> list[ReceivedMessage]:
        call = self.receiver.receive_deferred_messages(sequences)
        wanted = tuple(Item("", self.session_id, number) for number in sequences)
        return await self._us.do(
            Kind.RECEIVE_DEFERRED, self._queue, call, _delivered, items=wanted, **self._facts
        )

    async def complete(self, messages: Sequence[ReceivedMessage]) -> bool:
        return await self._settle(
            Kind.COMPLETE, self.receiver.complete_messages(messages), messages
        )

    async def abandon(self, messages: Sequence[ReceivedMessage]) -> bool:
        return await self._settle(Kind.ABANDON, self.receiver.abandon_messages(messages), messages)

    async def defer(self, messages: Sequence[ReceivedMessage]) -> bool:
        return await self._settle(Kind.DEFER, self.receiver.defer_messages(messages), messages)

    async def _settle(
        self,
        kind: Kind,
        call: Awaitable[list[SettlementFailure]],
        messages: Sequence[ReceivedMessage],
    ) -> bool:
        return await self._us.settle(kind, self._queue, call, messages, **self._facts)

    async def count_up(self, mark: str) -> None:
        """Write the next state, on top of what was inherited, or of our own last one (ADD-7)."""
        writes = self._writes + 1
        value = f"{writes}:{mark}"
        call = self.receiver.session.set_state(value, if_version=self._version)
        self._version = await self._us.do(
            Kind.SET_STATE,
            self._queue,
            call,
            lambda version: {"version": version},
            writes=writes,
            value=value,
            **self._facts,
        )
        self._writes = writes

    async def take_turn(
        self, done: Sequence[ReceivedMessage], outputs: Sequence[Item], mark: str
    ) -> None:
        """Complete, write the next state and send to the session itself, in one commit (ADD-8)."""
        writes = self._writes + 1
        value = f"{writes}:{mark}"
        call = self.receiver.commit_turn(
            complete=done,
            send=[Message(item.body, session_id=item.session_id) for item in outputs],
            state=value,
            if_version=self._version,
        )
        self._version = await self._us.take_turn(
            self._queue,
            call,
            items_of(done),
            outputs,
            {"writes": writes, "value": value},
            self._facts,
        )
        self._writes = writes

    async def look_at_state(self) -> None:
        call = self.receiver.session.get_state()
        await self._us.do(Kind.GET_STATE, self._queue, call, _seen, **self._facts)

    async def renew(self) -> None:
        call = self.receiver.session.renew_lock()
        await self._us.do(Kind.RENEW, self._queue, call, **self._facts)

    async def release(self) -> None:
        await self._us.do(Kind.RELEASE, self._queue, self.receiver.close(), **self._facts)


def read_state(state: bytes | None) -> tuple[int, str]:
    """Return how many writes made a state that `count_up` wrote, and the state as text."""
    text = (state or b"").decode()
    return int(text.partition(":")[0] or 0), text


def items_of(messages: Iterable[ReceivedMessage]) -> tuple[Item, ...]:
    return tuple(
        Item(str(one), one.session_id or "", one.sequence_number, one.delivery_count)
        for one in messages
    )


def _delivered(messages: Iterable[ReceivedMessage]) -> Facts:
    return {"items": items_of(messages)}


def _granted(receiver: QueueReceiver) -> Facts:
    session = receiver.session
    writes, value = read_state(session.state)
    return {
        "session_id": session.session_id,
        "grant": session.grant,
        "writes": writes,
        "value": value,
    }


def _seen(state: bytes | None) -> Facts:
    writes, value = read_state(state)
    return {"writes": writes, "value": value}


def _places(text: str) -> Iterable[int]:
    """Read what the client writes in short: `0-3,7`."""
    for part in text.split(","):
        low, _, high = part.partition("-")
        yield from range(int(low), int(high or low) + 1)
