"""The messaging service of the public API.

Here belongs the way of each call from the wire to a partition and back. Never here: rules. The law: what
a sender wrote is not decoded and encoded again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from lockstep.core.errors import LockstepError
from lockstep.core.replies import (
    Accepted,
    Browsed,
    Cancelled,
    Delivered,
    Released,
    Renewed,
    Sent,
    Settled,
    StateIs,
    StateSet,
    TurnTaken,
)
from lockstep.frontend.router import Router
from lockstep.frontend.streaming import MessageStream
from lockstep.v1 import messaging_service_pb2 as messaging
from lockstep.v1 import session_pb2
from lockstep.wire import convert, sends
from lockstep.wire.server import caller
from lockstep.wire.times import timestamp


class MessagingService:
    """Answers the calls of lockstep.v1.MessagingService. Errors are raised; the server sends them."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def send_messages(self, payload: bytes) -> messaging.SendMessagesResponse:
        """Store messages; the request comes as its bytes (SND-1)."""
        try:
            command = sends.send_command(payload)
        except LockstepError as error:
            self.note_refused_send(payload, error)
            raise
        session_id = command.session_ids[0] if command.session_ids else None
        partition = self._router.partition_of(command.entity, session_id)
        reply = (await self._router.call(partition, command)).reply
        assert isinstance(reply, Sent)
        return messaging.SendMessagesResponse(
            sequence_numbers=reply.numbers, duplicate_indexes=reply.duplicates
        )

    def note_refused_send(self, payload: bytes, error: LockstepError) -> None:
        """Have a send counted that no partition saw (SND-2)."""
        addressed = sends.addressed(payload)
        if addressed is not None:
            self._router.note_refused_send(*addressed, error)

    async def cancel_scheduled_messages(
        self, request: messaging.CancelScheduledMessagesRequest
    ) -> messaging.CancelScheduledMessagesResponse:
        """Take scheduled messages back, all or none (SCH-5)."""
        command = sends.cancel_scheduled_command(request)
        partition = self._router.partition_of(command.entity, None)
        await self._router.call(partition, command)
        return messaging.CancelScheduledMessagesResponse()

    async def accept_session(
        self, request: messaging.AcceptSessionRequest
    ) -> messaging.AcceptSessionResponse:
        """Take the lock of a session (SES-7 … SES-15)."""
        command = convert.accept_command(request, caller.get())
        wait_ms = convert.wait_ms(request) if command.session_id is None else 0
        partition = self._router.partition_of(command.entity, command.session_id)
        answer = await self._router.call(partition, command, wait_ms=wait_ms)
        assert isinstance(answer.reply, Accepted)
        return convert.accept_response(answer.reply, answer.state)

    async def receive_messages(self, request: messaging.ReceiveMessagesRequest) -> bytes:
        """Deliver messages under a lock (BAT-1 … BAT-7)."""
        command = convert.receive_command(request)
        wait_ms = convert.wait_ms(request)
        session_id = command.session.session_id if command.session else None
        partition = self._router.partition_of(command.entity, session_id)
        answer = await self._router.call(partition, command, wait_ms=wait_ms)
        assert isinstance(answer.reply, Delivered)
        return convert.receive_response(answer.reply, answer.messages)

    async def receive_deferred_messages(
        self, request: messaging.ReceiveDeferredMessagesRequest
    ) -> bytes:
        """Deliver deferred messages by number (DEF-2)."""
        command = convert.receive_deferred_command(request)
        session_id = command.session.session_id if command.session else None
        partition = self._router.partition_of(command.entity, session_id)
        answer = await self._router.call(partition, command)
        assert isinstance(answer.reply, Delivered)
        return convert.receive_response(answer.reply, answer.messages)

    async def peek_messages(self, request: messaging.PeekMessagesRequest) -> bytes:
        """Show messages without locking them (PEK-1 … PEK-7)."""
        command = convert.browse_command(request)
        partition = self._router.partition_of(command.entity, command.session_id)
        answer = await self._router.call(partition, command)
        assert isinstance(answer.reply, Browsed)
        return convert.browse_response(answer.reply, answer.messages)

    async def settle_messages(self, payload: bytes) -> messaging.SettleMessagesResponse:
        """Decide about delivered messages; the request comes as its bytes (BAT-10)."""
        command = convert.settle_command(payload)
        session_id = command.session.session_id if command.session else None
        partition = self._router.partition_of(command.entity, session_id)
        reply = (await self._router.call(partition, command)).reply
        assert isinstance(reply, Settled)
        return messaging.SettleMessagesResponse(failures=convert.failures(reply.failures))

    async def renew_message_locks(
        self, request: messaging.RenewMessageLocksRequest
    ) -> messaging.RenewMessageLocksResponse:
        """Move message locks to now + lock duration."""
        command = convert.renew_messages_command(request)
        partition = self._router.partition_of(command.entity, None)
        reply = (await self._router.call(partition, command)).reply
        assert isinstance(reply, Renewed)
        return messaging.RenewMessageLocksResponse(
            locked_until=timestamp(reply.locked_until_ms), failures=convert.failures(reply.failures)
        )

    async def renew_session_lock(
        self, request: messaging.RenewSessionLockRequest
    ) -> messaging.RenewSessionLockResponse:
        """Move a session's lock to now + lock duration (SES-18)."""
        command = convert.renew_session_command(request)
        partition = self._router.partition_of(command.entity, command.session.session_id)
        reply = (await self._router.call(partition, command)).reply
        assert isinstance(reply, Renewed)
        return messaging.RenewSessionLockResponse(locked_until=timestamp(reply.locked_until_ms))

    async def release_session(
        self, request: messaging.ReleaseSessionRequest
    ) -> messaging.ReleaseSessionResponse:
        """Give a session back (SES-20)."""
        command = convert.release_command(request)
        partition = self._router.partition_of(command.entity, command.session.session_id)
        reply = (await self._router.call(partition, command)).reply
        assert isinstance(reply, Released)
        return messaging.ReleaseSessionResponse(returned_messages=reply.returned)

    async def get_session_state(
        self, request: messaging.GetSessionStateRequest
    ) -> messaging.GetSessionStateResponse:
        """Read the state of a held session (SES-40)."""
        command = convert.get_state_command(request)
        partition = self._router.partition_of(command.entity, command.session.session_id)
        answer = await self._router.call(partition, command)
        assert isinstance(answer.reply, StateIs)
        state = session_pb2.SessionState(value=answer.state, version=answer.reply.version)
        return messaging.GetSessionStateResponse(state=state)

    async def set_session_state(
        self, request: messaging.SetSessionStateRequest
    ) -> messaging.SetSessionStateResponse:
        """Set or clear the state of a held session (SES-40, SES-41)."""
        command = convert.set_state_command(request)
        partition = self._router.partition_of(command.entity, command.session.session_id)
        reply = (await self._router.call(partition, command)).reply
        assert isinstance(reply, StateSet)
        return messaging.SetSessionStateResponse(version=reply.version)

    async def commit_turn(self, payload: bytes) -> messaging.CommitTurnResponse:
        """Complete, set the state and send, in one commit; the request comes as its bytes (ADD-8)."""
        command = sends.turn_command(payload)
        partition = self._router.partition_of(command.entity, command.session.session_id)
        reply = (await self._router.call(partition, command)).reply
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
        await MessageStream(self._router, send).serve(payloads)

    async def cancel_request(
        self, request: messaging.CancelRequestRequest
    ) -> messaging.CancelRequestResponse:
        """Undo an accept or a receive whose reply did not arrive (BAT-9)."""
        command = convert.cancel_command(request)
        session_id = request.session_id if request.HasField("session_id") else None
        partition = self._router.partition_of(command.entity, session_id)
        reply = (await self._router.call(partition, command)).reply
        assert isinstance(reply, Cancelled)
        return messaging.CancelRequestResponse(undone=reply.undone)
