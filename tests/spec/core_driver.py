"""The bare core on a store, as a broker under test.

Here belongs the translation of what tests ask into commands, and of replies into what tests see. Never
here: stepping and waiting (`shell`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, TypeVar

import xxhash

from lockstep.client.values import property_values, read_properties
from lockstep.core import commands as c
from lockstep.core import replies
from lockstep.core.commands import Outcome
from lockstep.core.entity import (
    DEFAULT_NAMESPACE,
    QueueDefinition,
    SettingValue,
)
from lockstep.core.errors import EntityNotFound, MessageNotFound
from lockstep.core.ids import (
    GrantNumber,
    RequestId,
    SessionId,
    SessionLock,
    lock_token,
    split_lock_token,
)
from lockstep.core.limits import Limits
from lockstep.core.partition import Partition
from lockstep.core.replies import Runtime, SessionView
from lockstep.storage.port import PartitionStore
from lockstep.v1.message_pb2 import Message
from lockstep.wire.amending import amended, encoded_properties
from lockstep.wire.amending import trails as trails_of
from tests.spec.admin_driver import AdminPart, key_of, outputs_of
from tests.spec.driver import Ability, DeadLetters, Failed, Got, Held, Plain, Source
from tests.spec.shell import PARTITION, Shell

Mutating = TypeVar(
    "Mutating",
    c.Send,
    c.Accept,
    c.Receive,
    c.Settle,
    c.ReleaseSession,
    c.SetState,
    c.TakeTurn,
    c.CancelScheduled,
    c.BreakLock,
    c.ReceiveDeferred,
)


class CoreBroker(AdminPart):
    """One partition of the core, driven by the test."""

    name: ClassVar[str] = "core"
    lacks: ClassVar[frozenset[Ability]] = frozenset({Ability.WIRE})

    def __init__(
        self, open_store: Callable[[], PartitionStore], limits: Limits, *, compare_always: bool
    ) -> None:
        """Prepare; `start` opens the partition.

        Args:
            open_store: Returns the store, anew after each restart.
            limits: The limits of the partition.
            compare_always: Compare with the store after every commit, not only at restarts.
        """
        self._shell = Shell(open_store, limits, compare_always=compare_always)
        self._requests = 0

    @property
    def partition(self) -> Partition:
        """The open partition, for tests that look inside."""
        return self._shell.partition

    async def start(self) -> None:
        """Open the partition."""
        await self._shell.open()

    async def _call(self, command: c.Command) -> replies.Reply:
        return await self._shell.call(command)

    # --- administration ------------------------------------------------------------------------

    async def create_queue(self, queue: str, **settings: SettingValue) -> QueueDefinition:
        self._requests += 1
        command = c.CreateQueue(DEFAULT_NAMESPACE, queue, settings, f"uid-{self._requests}")
        return await self._apply(command)

    async def update_queue(
        self, queue: str, *, if_revision: int = 0, **settings: SettingValue
    ) -> QueueDefinition:
        return await self._apply(c.UpdateQueue(key_of(queue), settings, if_revision))

    async def _apply(self, command: c.CreateQueue | c.UpdateQueue) -> QueueDefinition:
        entered = await self._call(command)
        assert isinstance(entered, replies.Catalogued)
        await self._call(c.ApplyDefinition(entered.definition))
        return entered.definition

    async def delete_queue(self, queue: str) -> None:
        gone = await self._call(c.DeleteQueue(key_of(queue)))
        assert isinstance(gone, replies.Uncatalogued)
        await self._call(c.ApplyDeletion(gone.entity, gone.revision))

    async def get_queue(self, queue: str) -> QueueDefinition:
        reply = await self._call(c.ListDefinitions())
        assert isinstance(reply, replies.Definitions)
        for definition in reply.queues:
            if definition.key == key_of(queue):
                return definition
        raise EntityNotFound(f"There is no queue {queue}.")

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
        names = tuple(sessions) or (session,)
        of_each = names * len(bodies) if len(names) == 1 else names
        messages = tuple(
            Message(body=body, session_id=name, message_id=message_id).SerializeToString()
            for body, name, message_id in zip(
                bodies, of_each, ids or [""] * len(bodies), strict=True
            )
        )
        command = c.Send(
            key_of(queue),
            messages,
            names,
            request or self.new_request(),
            ttls_ms=tuple(ttls_ms),
            due_ms=tuple(due_ms),
            message_ids=tuple(ids),
        )
        sent = await self._call(_fingerprinted(command))
        assert isinstance(sent, replies.Sent)
        return list(sent.numbers)

    async def cancel_scheduled(self, queue: str, sequences: Sequence[int]) -> None:
        command = c.CancelScheduled(key_of(queue), tuple(sequences), self.new_request())
        await self._call(_fingerprinted(command))

    async def accept(
        self,
        queue: str,
        session_id: str | None = None,
        *,
        wait_ms: int = 0,
        holder: str = "receiver",
        request: RequestId | None = None,
    ) -> Held:
        name = None if session_id is None else SessionId(session_id)
        command = c.Accept(key_of(queue), name, holder, request or self.new_request())
        reply = await self._shell.wait_for(_fingerprinted(command), wait_ms)
        assert isinstance(reply, replies.Accepted)
        key = (reply.entity, reply.session.session_id)
        states = (
            await self._shell.store.load_states(PARTITION, self._shell.epoch, [key])
            if reply.has_state
            else {}
        )
        return Held(
            queue,
            reply.session.session_id,
            lock_token(reply.session.grant),
            reply.locked_until_ms,
            states.get(key),
            reply.state_version,
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
        is_dead = isinstance(source, DeadLetters)
        command = c.Receive(
            key_of(source.queue),
            is_dead,
            _lock(source),
            max_messages,
            request or self.new_request(),
            deletes=deletes,
        )
        # What is delivered for good is read before the commit that removes it, as an owner's actor does.
        before = await self._bodies(self._deliverable(source)) if deletes else {}
        reply = await self._shell.wait_for(_fingerprinted(command), wait_ms)
        assert isinstance(reply, replies.Delivered)
        return await self._load(reply, before)

    def _deliverable(self, source: Source) -> set[int]:
        """Return the chunks of everything that a receive could get now."""
        queue = self._shell.partition.queues.get(key_of(source.queue))
        if queue is None:
            return set()
        if isinstance(source, Held):
            sequences = queue.sessions[SessionId(source.session_id)].active()
        else:
            sequences = queue.plain(dead_letter=isinstance(source, DeadLetters)).ready()
        return set(queue.log.describe(sequences).chunks)

    async def _bodies(self, chunks: Iterable[int]) -> dict[int, tuple[bytes, ...]]:
        return await self._shell.store.load_chunks(PARTITION, self._shell.epoch, sorted(chunks))

    async def _load(
        self, reply: replies.Delivered, before: dict[int, tuple[bytes, ...]]
    ) -> list[Got]:
        chunks = before | await self._bodies(set(reply.chunks) - set(before))
        got = []
        stored = [chunks[c][p] for c, p in zip(reply.chunks, reply.places, strict=True)]
        stored = amended(stored, reply.amendments)
        trails = {trail.index: trail for trail in trails_of(reply.amendments)}
        for i, sequence in enumerate(reply.sequences):
            message = Message.FromString(stored[i])
            info = reply.dead_letters[i] if reply.dead_letters else replies.DeadLetterInfo("", "")
            got.append(
                Got(
                    sequence=sequence,
                    body=message.body,
                    session_id=message.session_id if message.HasField("session_id") else None,
                    count=reply.counts[i] if reply.counts else 0,
                    token=lock_token(reply.grant, sequence) if reply.grant else b"",
                    locked_until_ms=reply.locked_until_ms,
                    enqueued_ms=reply.enqueued_ms[i],
                    expires_ms=reply.expires_ms[i] if reply.expires_ms else 0,
                    reason=info.reason,
                    description=info.description,
                    properties=read_properties(message),
                    resubmits=trails[i].resubmit_count if i in trails else 0,
                    original=trails[i].original_sequence_number if i in trails else 0,
                )
            )
        return got

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
        extras = {
            "reason": reason,
            "description": description,
            "properties": encoded_properties(property_values(properties)),
            "delay_ms": delay_ms,
        }
        by_grant: dict[int, list[int]] = {}
        for message in messages:
            grant, sequence = split_lock_token(message.token)
            by_grant.setdefault(grant, []).append(sequence)
        settlements = tuple(
            c.Settlement(outcome, GrantNumber(grant), tuple(sequences), **extras)  # type: ignore[arg-type]
            for grant, sequences in by_grant.items()
        )
        command = c.Settle(
            key_of(source.queue),
            isinstance(source, DeadLetters),
            _lock(source),
            settlements,
            request or self.new_request(),
        )
        reply = await self._call(_fingerprinted(command))
        assert isinstance(reply, replies.Settled)
        return [Failed(failure.sequence, failure.error) for failure in reply.failures]

    async def renew_messages(
        self, source: Source, messages: Iterable[Got]
    ) -> tuple[int, list[Failed]]:
        tokens = tuple(split_lock_token(message.token) for message in messages)
        is_dead = isinstance(source, DeadLetters)
        reply = await self._call(c.RenewMessages(key_of(source.queue), is_dead, tokens))
        assert isinstance(reply, replies.Renewed)
        failures = [Failed(failure.sequence, failure.error) for failure in reply.failures]
        return reply.locked_until_ms, failures

    # --- sessions --------------------------------------------------------------------------------

    async def renew(self, held: Held) -> int:
        reply = await self._call(c.RenewSession(key_of(held.queue), _held_lock(held)))
        assert isinstance(reply, replies.Renewed)
        return reply.locked_until_ms

    async def release_session(self, held: Held, *, request: RequestId | None = None) -> int:
        command = c.ReleaseSession(
            key_of(held.queue), _held_lock(held), request or self.new_request()
        )
        reply = await self._call(_fingerprinted(command))
        assert isinstance(reply, replies.Released)
        return reply.returned

    async def get_state(self, held: Held) -> tuple[bytes | None, int]:
        reply = await self._call(c.GetState(key_of(held.queue), _held_lock(held)))
        assert isinstance(reply, replies.StateIs)
        key = (reply.entity, reply.session_id)
        states = await self._shell.store.load_states(PARTITION, self._shell.epoch, [key])
        assert (key in states) == reply.has_state
        return states.get(key), reply.version

    async def set_state(
        self,
        held: Held,
        value: bytes | None,
        *,
        request: RequestId | None = None,
        if_version: int | None = None,
    ) -> int:
        command = c.SetState(
            key_of(held.queue),
            _held_lock(held),
            value,
            request or self.new_request(),
            if_version=if_version,
        )
        reply = await self._call(_fingerprinted(command))
        assert isinstance(reply, replies.StateSet)
        return reply.version

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
        outputs = None
        if sent:
            outputs = outputs_of(held.queue, sent, session, ids)
        command = c.TakeTurn(
            key_of(held.queue),
            SessionLock(SessionId(held.session_id), split_lock_token(held.token)[0]),
            tuple(message.sequence for message in complete),
            outputs,
            sets_state,
            state,
            if_version,
            request or self.new_request(),
        )
        reply = await self._call(_fingerprinted(command))
        assert isinstance(reply, replies.TurnTaken)
        return list(reply.sent.numbers) if reply.sent is not None else [], reply.state_version

    async def receive_deferred(
        self, source: Source, sequences: Sequence[int], *, request: RequestId | None = None
    ) -> list[Got]:
        command = c.ReceiveDeferred(
            key_of(source.queue),
            isinstance(source, DeadLetters),
            _lock(source),
            tuple(sequences),
            request or self.new_request(),
        )
        reply = await self._call(_fingerprinted(command))
        if isinstance(reply, replies.DeferredExpired):
            raise MessageNotFound("expired")
        assert isinstance(reply, replies.Delivered)
        return await self._load(reply, {})

    async def break_lock(self, queue: str, session_id: str, *, by: str = "") -> bool:
        command = c.BreakLock(key_of(queue), SessionId(session_id), by, self.new_request())
        reply = await self._call(_fingerprinted(command))
        assert isinstance(reply, replies.LockBroken)
        return reply.was_held

    async def browse(
        self,
        source: Plain | DeadLetters,
        maximum: int = 100,
        *,
        first: int = 1,
        session_id: str | None = None,
        reason: str | None = None,
    ) -> list[Got]:
        wanted = SessionId(session_id) if session_id is not None else None
        is_dead = isinstance(source, DeadLetters)
        reply = await self._call(
            c.Browse(key_of(source.queue), is_dead, wanted, first, maximum, reason)
        )
        assert isinstance(reply, replies.Browsed)
        return await self._load(reply.delivered, {})

    async def look_on(
        self, source: Plain | DeadLetters, maximum: int, cursor: str = ""
    ) -> tuple[list[Got], str]:
        seen = await self.browse(source, maximum, first=int(cursor or "1"))
        return seen, str(seen[-1].sequence + 1) if seen else cursor

    async def cancel(self, queue: str, request: RequestId) -> bool:
        reply = await self._call(c.Cancel(key_of(queue), request))
        assert isinstance(reply, replies.Cancelled)
        return reply.undone

    async def sessions(
        self, queue: str, *, after: str | None = None, maximum: int = 100
    ) -> list[SessionView]:
        reply = await self._call(c.ListSessions(key_of(queue), maximum, after))
        assert isinstance(reply, replies.SessionViews)
        return list(reply.sessions)

    async def session(self, queue: str, session_id: str) -> SessionView:
        reply = await self._call(c.GetSession(key_of(queue), SessionId(session_id)))
        assert isinstance(reply, replies.SessionViews)
        return reply.sessions[0]

    async def runtime(self, queue: str) -> Runtime:
        reply = await self._call(c.GetRuntime(key_of(queue)))
        assert isinstance(reply, Runtime)
        return reply

    # --- the test's own -----------------------------------------------------------------------------

    def now_ms(self) -> int:
        return self._shell.now_ms

    def new_request(self) -> RequestId:
        self._requests += 1
        return RequestId("driver", self._requests)

    async def parked(self, waiting: int = 1) -> None:
        await self._shell.parked(waiting)

    async def advance(self, ms: int) -> None:
        await self._shell.advance(ms)

    def fail_next_commit(self, *, is_stored: bool) -> None:
        self._shell.fail_next_commit(is_stored=is_stored)

    async def restart(self, *, after_ms: int = 0) -> None:
        await self._shell.restart(after_ms)

    async def aclose(self) -> None:
        await self._shell.store.close(PARTITION)


def _held_lock(held: Held) -> SessionLock:
    return SessionLock(SessionId(held.session_id), split_lock_token(held.token)[0])


def _lock(source: Source) -> SessionLock | None:
    return _held_lock(source) if isinstance(source, Held) else None


def _fingerprinted(command: Mutating) -> Mutating:
    """Return a command with the hash of its payload, which is everything but its request id."""
    payload = repr(replace(command, request=None))
    return replace(command, fingerprint=xxhash.xxh32_intdigest(payload.encode()))
