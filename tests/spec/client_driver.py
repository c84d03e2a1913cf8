"""A running server behind the public client, as a broker under test.

Here belongs the translation of what tests ask into calls of `lockstep.aio`, and which tests a program
cannot act out through it. Never here: the server (`conftest`). The law: nothing but the public names of
the client, so that what the suite promises is what programs get.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, ClassVar, Final, assert_never

from lockstep.aio import (
    KEEP_STATE,
    NEXT_AVAILABLE_SESSION,
    AdministrationClient,
    LockstepClient,
    Message,
    QueueProperties,
    QueueReceiver,
    ReceivedMessage,
    SettlementFailure,
    SubQueue,
)
from lockstep.client.values import ReceiveMode
from lockstep.core.commands import Outcome, SessionFilter
from lockstep.core.entity import QueueDefinition, QueueSettings, SettingValue
from lockstep.core.ids import EntityNumber, GrantNumber, RequestId, lock_token
from lockstep.core.jobs import Job, JobKind, JobOptions, Selector
from lockstep.core.replies import Explained, Runtime, SessionView
from lockstep.errors import LockstepError
from lockstep.runtime.clock import SystemClock
from tests.spec import client_jobs, client_seeing
from tests.spec.driver import Ability, DeadLetters, Failed, Got, Held, Plain, Source

_OF_DEAD_LETTERS: Final = ("DeadLetterReason", "DeadLetterErrorDescription")
"""Tests that ask for what a program cannot do through the client, and why."""


class ClientBroker:
    """A server, driven through the client in a broker namespace of the test's own."""

    name: ClassVar[str] = "client"
    lacks: ClassVar[frozenset[Ability]] = frozenset(Ability) - {Ability.WIRE}

    def __init__(self, address: str, namespace: str) -> None:
        """Prepare; the first call connects."""
        self._client = LockstepClient(address, namespace=namespace, retry_total=0)
        self._clock = SystemClock()
        self._waiting = 0
        self._sources: dict[Plain | DeadLetters, QueueReceiver] = {}
        self._holders: dict[tuple[str, str, bytes], QueueReceiver] = {}
        # As they came, so that the broker and not the client judges a second settlement.
        self._messages: dict[bytes, ReceivedMessage] = {}

    @property
    def _admin(self) -> AdministrationClient:
        return self._client.get_administration_client()

    # --- administration ------------------------------------------------------------------------

    async def create_queue(self, queue: str, **settings: SettingValue) -> QueueDefinition:
        return _definition(await self._admin.create_queue(queue, **_to_client(settings)))

    async def update_queue(
        self, queue: str, *, if_revision: int = 0, **settings: SettingValue
    ) -> QueueDefinition:
        assert not if_revision, "the client shows revisions in the properties that it read"
        return _definition(await self._admin.update_queue(queue, **_to_client(settings)))

    async def delete_queue(self, queue: str) -> None:
        await self._admin.delete_queue(queue)

    async def get_queue(self, queue: str) -> QueueDefinition:
        return _definition(await self._admin.get_queue(queue))

    # --- messages --------------------------------------------------------------------------------

    async def send(
        self,
        queue: str,
        *bodies: bytes,
        session: str | None = None,
        sessions: Sequence[str | None] = (),
        request: RequestId | None = None,
        ttls_ms: Sequence[int] = (),
        due_ms: Sequence[int] = (),
        ids: Sequence[str] = (),
    ) -> list[int]:
        assert request is None, "request ids are the client's own"
        of_each = tuple(sessions) or (session,) * len(bodies)
        count = len(bodies)
        more = zip(
            ttls_ms or (0,) * count, due_ms or (0,) * count, ids or ("",) * count, strict=True
        )
        messages = [
            Message(
                body,
                session_id=name,
                message_id=message_id or None,
                time_to_live=timedelta(milliseconds=ttl) if ttl else None,
                scheduled_enqueue_time_utc=datetime.fromtimestamp(due / 1000, UTC) if due else None,
            )
            for body, name, (ttl, due, message_id) in zip(bodies, of_each, more, strict=True)
        ]
        return await self._client.get_queue_sender(queue).send_messages(messages)

    async def cancel_scheduled(self, queue: str, sequences: Sequence[int]) -> None:
        await self._client.get_queue_sender(queue).cancel_scheduled_messages(sequences)

    async def accept(
        self,
        queue: str,
        session_id: str | None = None,
        *,
        wait_ms: int = 0,
        holder: str = "receiver",
        request: RequestId | None = None,
    ) -> Held:
        assert request is None, "request ids are the client's own"
        receiver = self._client.get_queue_receiver(
            queue,
            session_id=NEXT_AVAILABLE_SESSION if session_id is None else session_id,
            max_wait_time=wait_ms / 1000,
            client_identifier=holder,
        )
        async with self._counted(wait_ms):
            await receiver.__aenter__()
        session = receiver.session
        token = lock_token(GrantNumber(session.grant))
        self._holders[queue, session.session_id, token] = receiver
        return Held(
            queue,
            session.session_id,
            token,
            _to_ms(session.locked_until_utc),
            session.state,
            session.state_version,
        )

    async def receive(
        self,
        source: Source,
        max_messages: int = 100,
        *,
        wait_ms: int = 0,
        request: RequestId | None = None,
        deletes: bool = False,
    ) -> list[Got]:
        assert request is None, "request ids are the client's own"
        receiver = self._deleting(source) if deletes else self._receiver(source)
        async with self._counted(wait_ms):
            messages = await receiver.receive_messages(max_messages, wait_ms / 1000)
        return [self._got(receiver, message) for message in messages]

    def _deleting(self, source: Source) -> QueueReceiver:
        """Return a receiver that receives and deletes; of a held session there is none beside its holder."""
        assert not isinstance(source, Held), "a session's receiver has one mode"
        sub_queue = "deadletter" if isinstance(source, DeadLetters) else None
        mode = ReceiveMode.RECEIVE_AND_DELETE
        return self._client.get_queue_receiver(source.queue, sub_queue=sub_queue, receive_mode=mode)

    def _got(self, receiver: QueueReceiver, message: ReceivedMessage) -> Got:
        token = message.lock_token or b""
        until = datetime.fromtimestamp(0, UTC)
        if token:
            self._messages[token] = copy(message)
            until = message.locked_until_utc or receiver.session.locked_until_utc
        return Got(
            sequence=message.sequence_number,
            body=message.body or b"",
            session_id=message.session_id,
            count=message.delivery_count,
            token=token,
            locked_until_ms=_to_ms(until),
            enqueued_ms=_to_ms(message.enqueued_time_utc),
            expires_ms=_to_ms(message.expires_at_utc) if message.expires_at_utc else 0,
            reason=message.dead_letter_reason or "",
            description=message.dead_letter_error_description or "",
            properties={
                name: value
                for name, value in message.application_properties.items()
                if name not in _OF_DEAD_LETTERS
            },
            resubmits=message.resubmit_count,
            original=message.original_sequence_number or 0,
        )

    async def settle(
        self,
        source: Source,
        outcome: Outcome,
        messages: Iterable[Got],
        *,
        reason: str = "",
        description: str = "",
        properties: Mapping[str, str] | None = None,
        delay_ms: int = 0,
        request: RequestId | None = None,
    ) -> list[Failed]:
        assert request is None, "request ids are the client's own"
        receiver = self._receiver(source)
        received = [copy(self._messages[got.token]) for got in messages]
        match outcome:
            case Outcome.COMPLETE:
                failures = await receiver.complete_messages(received)
            case Outcome.ABANDON:
                failures = await receiver.abandon_messages(
                    received,
                    properties=properties,
                    delay=timedelta(milliseconds=delay_ms) if delay_ms else None,
                )
            case Outcome.RELEASE:
                failures = await receiver.release_messages(received)
            case Outcome.DEFER:
                failures = await receiver.defer_messages(received, properties=properties)
            case Outcome.DEAD_LETTER:
                failures = await receiver.dead_letter_messages(
                    received,
                    reason=reason,
                    error_description=description,
                    properties=properties,
                )
            case _:
                assert_never(outcome)
        return list(map(_failed, failures))

    async def renew_messages(
        self, source: Source, messages: Iterable[Got]
    ) -> tuple[int, list[Failed]]:
        receiver, until_ms = self._receiver(source), 0
        failures = []
        for got in messages:
            try:
                until = await receiver.renew_message_lock(copy(self._messages[got.token]))
                until_ms = _to_ms(until)
            except LockstepError as error:
                failures.append(Failed(got.sequence, error))
        return until_ms, failures

    # --- sessions --------------------------------------------------------------------------------

    async def renew(self, held: Held) -> int:
        return _to_ms(await self._receiver(held).session.renew_lock())

    async def release_session(self, held: Held, *, request: RequestId | None = None) -> int:
        assert request is None, "request ids are the client's own"
        locked = (await self._admin.get_session(held.queue, held.session_id)).locked_message_count
        await self._receiver(held).close()
        return locked

    async def get_state(self, held: Held) -> tuple[bytes | None, int]:
        session = self._receiver(held).session
        return await session.get_state(), session.state_version

    async def set_state(
        self,
        held: Held,
        value: bytes | None,
        *,
        request: RequestId | None = None,
        if_version: int | None = None,
    ) -> int:
        assert request is None, "request ids are the client's own"
        return await self._receiver(held).session.set_state(value, if_version=if_version)

    async def commit_turn(
        self,
        held: Held,
        complete: Iterable[Got] = (),
        *sent: bytes,
        session: str | None = None,
        ids: Sequence[str] = (),
        state: bytes | None = None,
        sets_state: bool = False,
        if_version: int | None = None,
        request: RequestId | None = None,
    ) -> tuple[list[int], int]:
        assert request is None, "request ids are the client's own"
        names = ids or [""] * len(sent)
        done = await self._receiver(held).commit_turn(
            complete=[copy(self._messages[got.token]) for got in complete],
            send=[
                Message(body, session_id=session, message_id=name or None)
                for body, name in zip(sent, names, strict=True)
            ],
            state=state if sets_state else KEEP_STATE,
            if_version=if_version,
        )
        return list(done.sequence_numbers), done.state_version

    async def receive_deferred(
        self, source: Source, sequences: Sequence[int], *, request: RequestId | None = None
    ) -> list[Got]:
        assert request is None, "request ids are the client's own"
        receiver = self._receiver(source)
        messages = await receiver.receive_deferred_messages(sequences)
        return [self._got(receiver, message) for message in messages]

    async def break_lock(self, queue: str, session_id: str, *, by: str = "") -> bool:
        return await self._admin.break_session_lock(queue, session_id, requested_by=by)

    async def browse(
        self,
        source: Plain | DeadLetters,
        maximum: int = 100,
        *,
        first: int = 1,
        session_id: str | None = None,
        reason: str | None = None,
    ) -> list[Got]:
        is_dead = isinstance(source, DeadLetters)
        receiver = self._client.get_queue_receiver(
            source.queue,
            session_id=None if is_dead else session_id,
            sub_queue=SubQueue.DEAD_LETTER if is_dead else None,
        )
        messages = await receiver.peek_messages(
            maximum,
            sequence_number=first,
            session_id=session_id if is_dead else None,
            dead_letter_reason=reason,
        )
        return [self._got(receiver, message) for message in messages]

    async def look_on(
        self, source: Plain | DeadLetters, maximum: int, cursor: str = ""
    ) -> tuple[list[Got], str]:
        sub_queue = SubQueue.DEAD_LETTER if isinstance(source, DeadLetters) else None
        receiver = self._client.get_queue_receiver(source.queue, sub_queue=sub_queue)
        messages = await receiver.peek_messages(maximum, cursor=cursor)
        return [self._got(receiver, message) for message in messages], receiver.peek_cursor

    # --- jobs ------------------------------------------------------------------------------------

    async def start_job(
        self,
        queue: str,
        kind: JobKind,
        selector: Selector | None = None,
        options: JobOptions | None = None,
        *,
        by: str = "",
    ) -> Job:
        return await client_jobs.start_job(
            self._admin, queue, kind, selector or Selector(), options or JobOptions(), by
        )

    async def finish_job(self, queue: str, number: int, *, batch: int = 512) -> Job:
        return await client_jobs.finish_job(self._admin, queue, number)

    async def cancel(self, queue: str, request: RequestId) -> bool:
        raise AssertionError("request ids are the client's own")

    async def sessions(
        self, queue: str, *, after: str | None = None, maximum: int = 100
    ) -> list[SessionView]:
        views = await client_seeing.filtered(self._admin, queue)
        return [view for view in views if after is None or view.session_id > after][:maximum]

    async def session(self, queue: str, session_id: str) -> SessionView:
        return client_seeing.view(await self._admin.get_session(queue, session_id))

    async def filtered(
        self, queue: str, shown: SessionFilter, *, state_since_ms: int = 0
    ) -> list[SessionView]:
        return await client_seeing.filtered(self._admin, queue, shown, state_since_ms)

    async def explain(
        self, queue: str, *, session_id: str | None = None, sequence: int = 0
    ) -> Explained:
        return await client_seeing.explain(self._admin, queue, session_id, sequence)

    async def clear_states(
        self, queue: str, session_id: str | None = None, *, idle_ms: int = 0
    ) -> int:
        return await client_seeing.clear_states(self._admin, queue, session_id, idle_ms)

    async def runtime(self, queue: str) -> Runtime:
        shown = await self._admin.get_queue_runtime_properties(queue)
        is_sessionful = (await self._admin.get_queue(queue)).requires_session
        views = await self.sessions(queue, maximum=1_000_000) if is_sessionful else []
        idle = [view for view in views if not view.holder]
        return Runtime(
            active=shown.active_message_count,
            locked=shown.locked_message_count,
            scheduled=shown.scheduled_message_count,
            deferred=shown.deferred_message_count,
            dead_letters=shown.dead_letter_message_count,
            size_bytes=shown.size_in_bytes,
            sessions=shown.session_count,
            locked_sessions=shown.locked_session_count,
            runnable_sessions=sum(view.active > 0 for view in idle),
            idle_sessions_with_state=sum(
                view.active == 0 and view.state_bytes is not None for view in idle
            ),
            delayed=shown.delayed_message_count,
        )

    # --- the test's own -----------------------------------------------------------------------------

    def now_ms(self) -> int:
        return self._clock.now_ms()

    def new_request(self) -> RequestId:
        raise AssertionError("request ids are the client's own")

    async def parked(self, waiting: int = 1) -> None:
        """Return when so many calls are with the server: they go out in order, over one connection."""
        while self._waiting < waiting:
            await self._clock.sleep(1)
        async for _ in self._admin.list_queues():
            pass

    async def advance(self, ms: int) -> None:
        raise AssertionError("the server's clock cannot be turned")

    async def restart(self, *, after_ms: int = 0) -> None:
        raise AssertionError("the server is shared by all tests")

    def fail_next_commit(self, *, is_stored: bool) -> None:
        raise AssertionError("the server's disk does not fail at will")

    async def aclose(self) -> None:
        for receiver in [*self._sources.values(), *self._holders.values()]:
            with contextlib.suppress(LockstepError):
                await receiver.close()
        await self._client.close()

    @contextlib.asynccontextmanager
    async def _counted(self, wait_ms: int) -> AsyncIterator[None]:
        self._waiting += wait_ms > 0
        try:
            yield
        finally:
            self._waiting -= wait_ms > 0

    def _receiver(self, source: Source) -> QueueReceiver:
        if isinstance(source, Held):
            return self._holders[source.queue, source.session_id, source.token]
        if source not in self._sources:
            sub_queue = SubQueue.DEAD_LETTER if isinstance(source, DeadLetters) else None
            self._sources[source] = self._client.get_queue_receiver(
                source.queue, sub_queue=sub_queue
            )
        return self._sources[source]


def _failed(failure: SettlementFailure) -> Failed:
    return Failed(failure.message.sequence_number, failure.error)


def _to_client(settings: Mapping[str, SettingValue]) -> dict[str, Any]:
    return {
        name.removesuffix("_ms"): timedelta(milliseconds=value)
        if name.endswith("_ms") and isinstance(value, int)
        else value
        for name, value in settings.items()
    }


def _definition(queue: QueueProperties) -> QueueDefinition:
    settings = {}
    for field in fields(QueueSettings):
        value = getattr(queue, field.name.removesuffix("_ms"))
        if isinstance(value, timedelta):
            value = value // timedelta(milliseconds=1)
        settings[field.name] = value.value if isinstance(value, Enum) else value
    return QueueDefinition(
        queue.namespace,
        queue.name,
        EntityNumber(0),
        queue.uid,
        queue.revision,
        QueueSettings(**settings),
        _to_ms(queue.created_at_utc),
        _to_ms(queue.updated_at_utc),
    )


def _to_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
