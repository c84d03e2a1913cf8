"""Delivery over a stream with credit.

Here belongs the life of one stream: its requests in their order, its credit, its end. Never here: what a message or a
lock is (`core`). The laws: a caller without credit holds nothing (PRE-5); what is delivered never exceeds the credit; a
stream that the caller closed gives back what it accepted, one that ended otherwise, as with this process, leaves it to
the core (RACE-19).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from google.protobuf.message import DecodeError

from lockstep.cluster.port import Answer
from lockstep.core.commands import (
    Accept,
    Cancel,
    Disconnect,
    Receive,
    ReleaseSession,
    RenewMessages,
    RenewSession,
    Settle,
)
from lockstep.core.errors import (
    InvalidRequest,
    LockstepError,
    MessageLockLost,
    ServerBusy,
    SessionLockLost,
    ShuttingDown,
)
from lockstep.core.ids import GrantNumber, RequestId, SessionLock
from lockstep.core.limits import check_between
from lockstep.core.replies import Accepted, Delivered, Renewed
from lockstep.frontend.router import Router
from lockstep.frontend.settling import renew, settle
from lockstep.frontend.splitting import tokens_by_partition
from lockstep.frontend.taking import Taker
from lockstep.frontend.waits import Waits
from lockstep.runtime.tasks import together
from lockstep.v1 import messaging_service_pb2 as messaging
from lockstep.wire import convert
from lockstep.wire.server import caller
from lockstep.wire.streams import Opening, opening_of, stream_settlements
from lockstep.wire.times import timestamp

Send = Callable[[bytes], Awaitable[None]]
_WAIT_MS = 30_000  # of one receive; the stream asks again
_CREDIT_MAX = 4096
_BUSY_MS = 100
_HAND_MAX = 8192


class MessageStream:
    """One stream, from its opening to its end."""

    def __init__(self, router: Router, taker: Taker, waits: Waits, send: Send, name: str) -> None:
        """Prepare.

        Args:
            router: The way to the partitions.
            taker: Takes where no session is named.
            waits: Ends the stream when the front end stops.
            send: Sends one response, as it is on the wire.
            name: A new client id, so that what the stream asks can be asked again when its partition has moved (ADD-3).
        """
        self._router = router
        self._taker = taker
        self._waits = waits
        self._write = send
        self._name = name
        self._asked = itertools.count(1)
        self._pending: RequestId | None = (
            None  # an accept or a receive that may have locked something
        )
        self._writing = asyncio.Lock()
        self._credit = 0
        self._given = asyncio.Event()
        self._opening: Opening | None = None
        self._lock: SessionLock | None = None
        self._hand: dict[tuple[GrantNumber, int], None] = {}  # without a session only

    async def serve(self, payloads: AsyncIterator[bytes]) -> None:
        """Serve requests until the caller closes its side.

        Raises:
            LockstepError: The stream cannot go on; the caller is told why.
        """
        requests = _decoded(payloads)
        is_broken = True
        try:
            first = await self._waits.wait(partial(anext, requests, None))
            if first is None:
                return
            await self._open(first)
            async with asyncio.TaskGroup() as tasks:
                delivery = tasks.create_task(self._deliver())
                try:
                    await self._read(requests)
                except ShuttingDown:
                    async with self._writing:  # what was written is delivered before the end
                        delivery.cancel()
                    raise
                async with self._writing:  # a write that is cut short would break the stream
                    delivery.cancel()
            # A stream that broke ends its requests too, but takes no response any more.
            await self._send(messaging.StreamMessagesResponse(closing=messaging.StreamClosing()))
            is_broken = False
        except ExceptionGroup as group:
            raise _first(group) from group
        finally:
            await asyncio.shield(self._end(is_broken=is_broken))

    # --- requests --------------------------------------------------------------------------------

    async def _open(self, request: messaging.StreamMessagesRequest) -> None:
        opening = opening_of(request, caller.get())
        self._opening = opening
        opened = messaging.StreamOpened()
        if isinstance(opening.accept, Accept):
            accept = replace(opening.accept, request=opening.accept.request or self._new_request())
            self._pending = accept.request
            if accept.session_id is None:
                take = partial(self._taker.take, accept, wait_ms=opening.wait_ms)
                _, answer = await self._waits.wait(take)
            else:
                answer = await self._router.call_home(accept, accept.entity, accept.session_id)
            assert isinstance(answer.reply, Accepted)
            self._lock = answer.reply.session
            opened.session.CopyFrom(convert.accept_response(answer.reply, answer.state))
        await self._send(messaging.StreamMessagesResponse(opened=opened))
        self._pending = None

    async def _read(self, requests: AsyncIterator[messaging.StreamMessagesRequest]) -> None:
        coming = partial(anext, requests, None)
        while (request := await self._waits.wait(coming)) is not None:
            match request.WhichOneof("request"):
                case "add_credit":
                    check_between(request.add_credit, 1, _CREDIT_MAX, "add_credit")
                    check_between(self._credit + request.add_credit, 1, _CREDIT_MAX, "credit")
                    self._credit += request.add_credit
                    self._given.set()
                case "settle":
                    await self._settle(request.settle)
                case "renew":
                    await self._renew()
                case "drain":
                    await self._drain()
                case other:
                    what = "an empty request" if other is None else f"{other!r} once more"
                    raise InvalidRequest(f"This stream is open and takes no {what}.")

    async def _settle(self, request: messaging.StreamSettle) -> None:
        assert self._opening is not None
        settlements = stream_settlements(request, self._lock)
        opening = self._opening
        command = Settle(
            opening.entity,
            opening.dead_letter,
            self._lock,
            settlements,
            request=self._new_request(),
        )
        failures = await settle(self._router, command)
        is_lost = (MessageLockLost, SessionLockLost)
        kept = {(f.grant, f.sequence) for f in failures if not isinstance(f.error, is_lost)}
        for settlement in settlements:
            for sequence in settlement.sequences:
                if (settlement.grant, sequence) not in kept:
                    self._hand.pop((settlement.grant, sequence), None)
        settled = messaging.StreamSettled(id=request.id, failures=convert.failures(failures))
        await self._send(messaging.StreamMessagesResponse(settled=settled))

    async def _renew(self) -> None:
        assert self._opening is not None
        if self._lock is not None:
            reply = (await self._call(RenewSession(self._opening.entity, self._lock))).reply
            assert isinstance(reply, Renewed)
        else:
            hand = tuple(self._hand)
            command = RenewMessages(self._opening.entity, self._opening.dead_letter, hand)
            reply = await renew(self._router, command)
        for failure in reply.failures:
            self._hand.pop((failure.grant, failure.sequence), None)
        renewed = messaging.StreamRenewed(failures=convert.failures(reply.failures))
        renewed.locked_until.CopyFrom(timestamp(reply.locked_until_ms))
        await self._send(messaging.StreamMessagesResponse(renewed=renewed))

    async def _drain(self) -> None:
        # Held while the answer goes out, so that a delivery under way stands before it, or finds no credit.
        async with self._writing:
            returned, self._credit = self._credit, 0
            drained = messaging.StreamDrained(returned_credit=returned)
            response = messaging.StreamMessagesResponse(drained=drained)
            await self._write(response.SerializeToString())

    # --- delivery --------------------------------------------------------------------------------

    async def _deliver(self) -> None:
        assert self._opening is not None
        opening = self._opening
        while True:
            while not self._credit:
                self._given.clear()
                await self._given.wait()
            command = Receive(
                opening.entity,
                opening.dead_letter,
                self._lock,
                self._credit,
                request=self._new_request(),
                receiver=opening.receiver,
            )
            self._pending = command.request
            try:
                answer = await self._receive(command)
            except ServerBusy as busy:  # load alone must not cost the caller its stream
                await self._router.pause(busy.retry_after_ms or _BUSY_MS)
                continue
            assert isinstance(answer.reply, Delivered)
            self._pending = None
            if answer.reply.sequences:
                await self._hand_over(answer.reply, answer.messages)

    async def _receive(self, command: Receive) -> Answer:
        if self._lock is None:
            _, answer = await self._taker.take(command, wait_ms=_WAIT_MS)
            return answer
        return await self._router.call_home(
            command, command.entity, self._lock.session_id, wait_ms=_WAIT_MS
        )

    async def _hand_over(self, reply: Delivered, messages: Sequence[bytes]) -> None:
        """Write delivered messages, or give them back where a drain or the end of the stream came first."""
        is_written = False
        try:
            async with self._writing:
                if len(reply.sequences) <= self._credit:
                    is_written = True
                    self._credit -= len(reply.sequences)
                    if self._lock is None:
                        self._note_hand(reply)
                    response = convert.receive_response(reply, messages)
                    await self._write(convert.stream_messages(response))
        finally:
            if not is_written:
                await asyncio.shield(self._release(reply))

    def _note_hand(self, reply: Delivered) -> None:
        """Note what the caller has; of very many the oldest are likely settled by other calls, and are forgotten."""
        self._hand.update(dict.fromkeys((reply.grant, s) for s in reply.sequences))
        for oldest in list(itertools.islice(self._hand, max(0, len(self._hand) - _HAND_MAX))):
            del self._hand[oldest]

    async def _release(self, reply: Delivered) -> None:
        """Give back what the caller may not get any more; nothing is counted."""
        assert self._opening is not None
        settlement = convert.release_of(reply)
        opening = self._opening
        await settle(
            self._router,
            Settle(
                opening.entity,
                opening.dead_letter,
                self._lock,
                (settlement,),
                request=self._new_request(),
            ),
        )

    # --- the end ---------------------------------------------------------------------------------

    async def _end(self, *, is_broken: bool) -> None:
        if self._opening is None:
            return
        opening = self._opening
        if self._pending is not None:  # nobody heard what it locked, if anything (BAT-9)
            await self._undo(opening, self._pending)
        if self._lock is None and not self._hand:
            return
        with contextlib.suppress(LockstepError):  # the lock is over already, or runs out by itself
            if is_broken and self._lock is None:
                hand = tokens_by_partition(tuple(self._hand), len(self._router.partitions))
                gone = Disconnect(opening.entity, opening.dead_letter, None)
                calls = [
                    self._router.call(partition, replace(gone, tokens=tokens))
                    for partition, tokens in hand.items()
                ]
                await together(calls)
            elif is_broken:
                await self._call(Disconnect(opening.entity, opening.dead_letter, self._lock))
            elif self._lock is not None:
                request = self._new_request()
                await self._call(ReleaseSession(opening.entity, self._lock, request=request))

    async def _undo(self, opening: Opening, request: RequestId) -> None:
        named = opening.accept.session_id if opening.accept is not None else None
        session_id = self._lock.session_id if self._lock is not None else named
        cancel = Cancel(opening.entity, request)
        with contextlib.suppress(LockstepError):  # what it locked runs out by itself
            if session_id is not None:
                await self._router.call_home(cancel, opening.entity, session_id)
            else:
                await self._router.call_all(cancel, opening.entity)

    def _new_request(self) -> RequestId:
        return RequestId(self._name, next(self._asked))

    async def _call(self, command: RenewSession | Disconnect | ReleaseSession) -> Answer:
        """Make a call of the session that is held."""
        assert self._lock is not None
        return await self._router.call_home(command, command.entity, self._lock.session_id)

    async def _send(self, response: messaging.StreamMessagesResponse) -> None:
        async with self._writing:
            await self._write(response.SerializeToString())


async def _decoded(
    payloads: AsyncIterator[bytes],
) -> AsyncIterator[messaging.StreamMessagesRequest]:
    async for payload in payloads:
        try:
            yield messaging.StreamMessagesRequest.FromString(payload)
        except DecodeError as error:
            raise InvalidRequest(
                f"This is no StreamMessagesRequest: {error}. Check the client's protos."
            ) from error


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """Return the exception that ended a stream; of several one that the caller can read."""
    told, others = group.split(LockstepError)
    first = (told or others or group).exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first
