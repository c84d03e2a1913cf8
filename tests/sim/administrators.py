"""Who makes, changes and deletes queues, stops and starts them, and breaks locks."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from lockstep.core.commands import (
    BreakLock,
    ClearStates,
    CreateQueue,
    DeleteQueue,
    UpdateQueue,
)
from lockstep.core.entity import SettingValue
from lockstep.core.ids import EntityKey, PartitionId, SessionId
from tests.sim.clients import EXTRA, JOBS, ORDERS, SESSIONS, home_of
from tests.sim.cluster import PARTITIONS
from tests.sim.workers import LOST, Onlooker

CATALOGUE = PartitionId(0)
_STATUSES = ("disabled", "send_disabled", "receive_disabled")


class Administrator(Onlooker):
    """Makes, changes and deletes a queue, stops and starts all, breaks locks, and looks."""

    async def run(self) -> None:
        """Administer until the calm."""
        turns: dict[Callable[[], Awaitable[None]], int] = {
            self.delete_extra: 2,
            self.create_extra: 4,
            self._change: 2,
            self._stop_and_start: 2,
            self._break_lock: 3,
            self._clear_states: 2,
            self.look: 4,
        }
        while not self.world.is_calm:
            with contextlib.suppress(*LOST):
                await self.random.choices(list(turns), list(turns.values()))[0]()
            await self.pause(500, 5000)

    async def delete_extra(self) -> None:
        """Delete the extra queue."""
        await self.ask(CATALOGUE, DeleteQueue(EXTRA, self.request()), tries=6)

    async def create_extra(self) -> None:
        """Make the extra queue, unless it is there, with settings of its own."""
        self.world.extra_has_sessions = self.chance(0.5)
        settings: dict[str, SettingValue] = {
            "requires_session": self.world.extra_has_sessions,
            "max_delivery_count": self.random.randint(1, 4),
            "max_message_size_in_kilobytes": self.random.choice((1, 1024)),
            "lock_duration_ms": 5000,
            "requires_duplicate_detection": self.chance(0.5),
            "dead_lettering_on_message_expiration": self.chance(0.5),
            "release_on_disconnect": self.trial.stream("streams").random() < 0.5,
        }
        request = self.request()
        uid = f"uid-{request.counter}"
        create = CreateQueue("default", "extra", settings, uid, request)
        await self.ask(CATALOGUE, create, tries=6)

    async def _change(self) -> None:
        changes: list[tuple[EntityKey, dict[str, SettingValue]]] = [
            (EXTRA, {"max_delivery_count": self.random.randint(1, 9)}),
            (ORDERS, {"dead_lettering_on_message_expiration": self.chance(0.5)}),
            (ORDERS, {"session_expiry": self.random.choice(("whole_session", "per_message"))}),
        ]
        if self.world.has_ttls:
            most = self.random.choice((None, 4000, 60_000))
            changes.append((JOBS, {"default_message_time_to_live_ms": most}))
        entity, settings = self.random.choice(changes)
        await self.ask(CATALOGUE, UpdateQueue(entity, settings, 0, self.request()), tries=6)

    async def _stop_and_start(self) -> None:
        """Stop a queue for a while (section 16.1)."""
        entity = self.random.choice((EXTRA, ORDERS, JOBS))
        status = self.random.choice(_STATUSES)
        stop = UpdateQueue(entity, {"status": status}, 0, self.request())
        await self.ask(CATALOGUE, stop, tries=6)
        await self.pause(200, 3000)
        start = UpdateQueue(entity, {"status": "active"}, 0, self.request())
        await self.ask(CATALOGUE, start, tries=12)

    async def _clear_states(self) -> None:
        """Clear the state of a session, or of those that have nothing else (SES-44)."""
        chosen = SessionId(self.random.choice(SESSIONS))
        idle_ms = self.random.choice((0, 3000))
        number = PartitionId(self.random.randrange(PARTITIONS))
        command = ClearStates(ORDERS, None, idle_ms)
        if self.chance(0.5):
            number, command = home_of(ORDERS, chosen), ClearStates(ORDERS, chosen)
        await self.ask(number, command, tries=4)

    async def _break_lock(self) -> None:
        session_id = SessionId(self.random.choice(SESSIONS))
        command = BreakLock(ORDERS, session_id, self.name, self.request())
        await self.ask(home_of(ORDERS, session_id), command, tries=4)
