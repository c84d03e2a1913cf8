"""The messaging service of the public API.

Here belongs the way of each call from the wire to a partition and back. Never here: rules. The law: what
a sender wrote is not decoded and encoded again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from lockstep.cluster.port import Answer
from lockstep.core.commands import (
    CancelScheduled,
    Receive,
    ReceiveDeferred,
    ReleaseSession,
    RenewSession,
    Send,
    SetState,
)
from lockstep.core.entity import SPREAD
from lockstep.core.errors import InvalidOperation, LockstepError, MessageNotFound, Misplaced
from lockstep.core.ids import PartitionId
from lockstep.core.replies import (
    Accepted,
    Cancelled,
    Delivered,
    Released,
    Renewed,
    Reply,
    Sent,
    StateIs,
    StateSet,
    TurnTaken,
)
from lockstep.core.sending import part_of
from lockstep.frontend.browsing import browse
from lockstep.frontend.router import Router
from lockstep.frontend.settling import renew, settle
from lockstep.frontend.splitting import by_partition, check_of, joined_send, places_by_partition
from lockstep.frontend.streaming import MessageStream
from lockstep.frontend.taking import Taker
from lockstep.frontend.waits import Waits
from lockstep.runtime.ids import IdSource
from lockstep.runtime.tasks import together
from lockstep.v1 import messaging_service_pb2 as messaging
from lockstep.v1 import session_pb2
from lockstep.wire import convert, sends
from lockstep.wire.server import caller
from lockstep.wire.times import timestamp


class MessagingService:
    """Answers the calls of lockstep.v1.MessagingService. Errors are raised; the server sends them."""

    def __init__(
        self, router: Router, taker: Taker, waits: Waits, ids: IdSource, response_bytes_max: int
    ) -> None:
        self._router = router
        self._ids = ids
        self._response_bytes_max = response_bytes_max
        self._taker = taker
        self._waits = waits

    async def send_messages(self, payload: bytes) -> messaging.SendMessagesResponse:
        """Store messages; the request comes as its bytes (SND-1)."""
        try:
            command = sends.send_command(payload)
        except LockstepError as error:
            self.note_refused_send(payload, error)
            raise
        router = self._router

        async def send(placement: str | None) -> messaging.SendMessagesResponse:
            if placement == SPREAD and len(command.session_ids) > 1:
                return await self._send_spread(command, payload)
            session_id = command.session_ids[0] if command.session_ids else None
            home = router.home(command.entity, session_id, placement)
            reply = (await router.call(home, command, placement=placement)).reply
            assert isinstance(reply, Sent)
            return messaging.SendMessagesResponse(
                sequence_numbers=reply.numbers, duplicate_indexes=reply.duplicates
            )

        return await router.placed(command.entity, send)

    async def _send_spread(self, command: Send, payload: bytes) -> messaging.SendMessagesResponse:
        """Store a batch whose sessions live on several partitions, perhaps (ADD-2)."""
        router = self._router
        parts = places_by_partition(
            command, lambda session_id: router.home(command.entity, session_id, SPREAD)
        )
        if len(parts) > 1:
            if sends.wants_atomic(payload):
                raise InvalidOperation(
                    f"This batch spans {len(parts)} partitions, and require_atomic is set. Nothing was stored. Send"
                    " the messages of each session in a batch of their own.",
                    details={"partitions": str(len(parts))},
                )
            await router.call(next(iter(parts)), check_of(command), placement=SPREAD)

        async def store(partition: PartitionId, places: list[int]) -> Sent | LockstepError:
            try:
                part = part_of(command, places)
                reply = (await router.call(partition, part, placement=SPREAD)).reply
            except Misplaced:
                raise
            except LockstepError as error:
                return error
            assert isinstance(reply, Sent)
            return reply

        results = await together([store(*item) for item in parts.items()])
        failures = [result for result in results if isinstance(result, LockstepError)]
        if len(failures) == len(results):
            raise failures[0]
        return joined_send(len(command.messages), zip(parts.values(), results, strict=True))

    def note_refused_send(self, payload: bytes, error: LockstepError) -> None:
        """Have a send counted that no partition saw (SND-2)."""
        addressed = sends.addressed(payload)
        if addressed is not None:
            self._router.note_refused_send(*addressed, error)

    async def cancel_scheduled_messages(
        self, request: messaging.CancelScheduledMessagesRequest
    ) -> messaging.CancelScheduledMessagesResponse:
        """Take scheduled messages back, all or none (SCH-5).

        Where they are on several partitions, all are looked for before any is taken back.
        """
        command = sends.cancel_scheduled_command(request)
        parts = by_partition(command.sequences, len(self._router.partitions))
        if len(parts) > 1:
            await self._cancel_in(parts, replace(command, checks_only=True))
            try:
                await self._cancel_in(parts, command)
            except MessageNotFound as error:  # one became active between the two
                raise MessageNotFound(
                    "Some of these messages became active, or were cancelled by somebody else, at this moment; those on"
                    f" other partitions are cancelled. {error.message.replace('Nothing was', 'None of them was')}",
                    details=error.details,
                ) from error
        else:
            await self._call_first(parts, command)
        return messaging.CancelScheduledMessagesResponse()

    async def _cancel_in(
        self, parts: Mapping[PartitionId, Sequence[int]], command: CancelScheduled
    ) -> None:
        await together(
            [
                self._router.call(partition, replace(command, sequences=numbers))
                for partition, numbers in parts.items()
            ]
        )

    async def accept_session(
        self, request: messaging.AcceptSessionRequest
    ) -> messaging.AcceptSessionResponse:
        """Take the lock of a session (SES-7 … SES-15)."""
        command = convert.accept_command(request, caller.get())
        if command.session_id is None:
            wait_ms = convert.wait_ms(request)
            is_retry = request.request_id.attempt > 0
            take = partial(self._taker.take, command, wait_ms=wait_ms, is_retry=is_retry)
            _, answer = await (self._waits.wait(take) if wait_ms else take())
        else:
            answer = await self._router.call_home(command, command.entity, command.session_id)
        assert isinstance(answer.reply, Accepted)
        return convert.accept_response(answer.reply, answer.state)

    async def receive_messages(self, request: messaging.ReceiveMessagesRequest) -> bytes:
        """Deliver messages under a lock (BAT-1 … BAT-7)."""
        command = convert.receive_command(request)
        wait_ms = convert.wait_ms(request)
        is_retry = request.request_id.attempt > 0
        receive = partial(self._receive, command, wait_ms, is_retry=is_retry)
        answer = await (self._waits.wait(receive) if wait_ms else receive())
        assert isinstance(answer.reply, Delivered)
        return convert.receive_response(answer.reply, answer.messages)

    async def _receive(self, command: Receive, wait_ms: int, *, is_retry: bool) -> Answer:
        if command.session is None:
            return (await self._taker.take(command, wait_ms=wait_ms, is_retry=is_retry))[1]
        session_id = command.session.session_id
        return await self._router.call_home(command, command.entity, session_id, wait_ms=wait_ms)

    async def receive_deferred_messages(
        self, request: messaging.ReceiveDeferredMessagesRequest
    ) -> bytes:
        """Deliver deferred messages by number (DEF-2)."""
        command = convert.receive_deferred_command(request)
        if command.session is not None:
            session_id = command.session.session_id
            answer = await self._router.call_home(command, command.entity, session_id)
        else:
            parts = by_partition(command.sequences, len(self._router.partitions))
            if len(parts) > 1:
                raise InvalidOperation(
                    f"These messages lie on {len(parts)} partitions, and one receive has one lock token. Nothing was"
                    " locked. Receive the deferred messages of each session by themselves.",
                    details={"partitions": str(len(parts))},
                )
            answer = await self._call_first(parts, command)
        assert isinstance(answer.reply, Delivered)
        return convert.receive_response(answer.reply, answer.messages)

    async def peek_messages(self, request: messaging.PeekMessagesRequest) -> bytes:
        """Show messages without locking them (PEK-1 … PEK-7)."""
        command = convert.browse_command(request)
        most = self._response_bytes_max
        seen = await browse(self._router, command, request.cursor, bytes_max=most)
        return convert.browse_response(seen.browsed, seen.messages, seen.cursor)

    async def settle_messages(self, payload: bytes) -> messaging.SettleMessagesResponse:
        """Decide about delivered messages; the request comes as its bytes (BAT-10)."""
        command = convert.settle_command(payload)
        failures = await settle(self._router, command)
        return messaging.SettleMessagesResponse(failures=convert.failures(failures))

    async def renew_message_locks(
        self, request: messaging.RenewMessageLocksRequest
    ) -> messaging.RenewMessageLocksResponse:
        """Move message locks to now + lock duration."""
        reply = await renew(self._router, convert.renew_messages_command(request))
        return messaging.RenewMessageLocksResponse(
            locked_until=timestamp(reply.locked_until_ms), failures=convert.failures(reply.failures)
        )

    async def renew_session_lock(
        self, request: messaging.RenewSessionLockRequest
    ) -> messaging.RenewSessionLockResponse:
        """Move a session's lock to now + lock duration (SES-18)."""
        command = convert.renew_session_command(request)
        reply = await self._with_session(command)
        assert isinstance(reply, Renewed)
        return messaging.RenewSessionLockResponse(locked_until=timestamp(reply.locked_until_ms))

    async def release_session(
        self, request: messaging.ReleaseSessionRequest
    ) -> messaging.ReleaseSessionResponse:
        """Give a session back (SES-20)."""
        command = convert.release_command(request)
        reply = await self._with_session(command)
        assert isinstance(reply, Released)
        return messaging.ReleaseSessionResponse(returned_messages=reply.returned)

    async def get_session_state(
        self, request: messaging.GetSessionStateRequest
    ) -> messaging.GetSessionStateResponse:
        """Read the state of a held session (SES-40)."""
        command = convert.get_state_command(request)
        answer = await self._router.call_home(command, command.entity, command.session.session_id)
        assert isinstance(answer.reply, StateIs)
        state = session_pb2.SessionState(value=answer.state, version=answer.reply.version)
        return messaging.GetSessionStateResponse(state=state)

    async def set_session_state(
        self, request: messaging.SetSessionStateRequest
    ) -> messaging.SetSessionStateResponse:
        """Set or clear the state of a held session (SES-40, SES-41)."""
        command = convert.set_state_command(request)
        reply = await self._with_session(command)
        assert isinstance(reply, StateSet)
        return messaging.SetSessionStateResponse(version=reply.version)

    async def commit_turn(self, payload: bytes) -> messaging.CommitTurnResponse:
        """Complete, set the state and send, in one commit; the request comes as its bytes (ADD-8)."""
        command = sends.turn_command(payload)
        router, session_id = self._router, command.session.session_id

        async def take(placement: str | None) -> Reply:
            home = router.home(command.entity, session_id, placement)
            if command.outputs is not None:
                for output in command.outputs.session_ids:
                    if router.home(command.entity, output, placement) != home:
                        raise InvalidOperation(
                            f"A turn can send to sessions on the partition of its own session only (ADD-8):"
                            f" '{output}' lives on another one than '{session_id}'. Nothing was done. Send to it with"
                            " a call of its own, before the turn."
                        )
            return (await router.call(home, command, placement=placement)).reply

        reply = await router.placed(command.entity, take)
        assert isinstance(reply, TurnTaken)
        return messaging.CommitTurnResponse(
            sequence_numbers=reply.sent.numbers if reply.sent is not None else (),
            duplicate_indexes=reply.sent.duplicates if reply.sent is not None else (),
            state_version=reply.state_version,
        )

    async def stream_messages(
        self, payloads: AsyncIterator[bytes], send: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """Serve one stream of messages (PRE-5, RACE-19)."""
        name = self._ids.client_id()
        await MessageStream(self._router, self._taker, self._waits, send, name).serve(payloads)

    async def cancel_request(
        self, request: messaging.CancelRequestRequest
    ) -> messaging.CancelRequestResponse:
        """Undo an accept or a receive whose reply did not arrive (BAT-9)."""
        command = convert.cancel_command(request)
        session_id = request.session_id if request.HasField("session_id") else None
        if session_id is not None:
            answers = [await self._router.call_home(command, command.entity, session_id)]
        else:  # whichever partition granted it
            answers = [answer for _, answer in await self._router.call_all(command, command.entity)]
        undone = [isinstance(one.reply, Cancelled) and one.reply.undone for one in answers]
        return messaging.CancelRequestResponse(undone=any(undone))

    async def _with_session(self, command: RenewSession | ReleaseSession | SetState) -> Reply:
        answer = await self._router.call_home(command, command.entity, command.session.session_id)
        return answer.reply

    async def _call_first(
        self, parts: Mapping[PartitionId, object], command: ReceiveDeferred | CancelScheduled
    ) -> Answer:
        """Have a command carried out by the only partition that its messages are on; without any, at home."""
        for partition in parts:
            return await self._router.call(partition, command)
        return await self._router.call_home(command, command.entity)
