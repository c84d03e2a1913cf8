"""Who takes dead letters to the other partition, and meddles with what is on its way (RSB-2, ADR 0009)."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from lockstep.core.commands import (
    ListJobs,
    Outcome,
    Receive,
    RenewMessages,
    Settle,
    Settlement,
)
from lockstep.core.ids import EntityKey, GrantNumber, PartitionId, SessionId
from lockstep.core.jobs import JobKind, Selector
from lockstep.core.replies import Delivered, JobsAre
from tests.sim.administrators import Administrator
from tests.sim.clients import EXTRA, JOBS, ORDERS, SESSIONS, World, home_of
from tests.sim.letters import Letters
from tests.sim.menders import Mender
from tests.sim.workers import LOST

_KINDS = (JobKind.MOVE, JobKind.RESUBMIT)


class Mover(Mender):
    """Sends messages, makes dead letters of them, and moves those, most of them to the other partition."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self._letters = Letters(self)
        self._administrator = Administrator(world, f"{name}'s")

    async def run(self) -> None:
        """Move until the calm."""
        turns: dict[Callable[[], Awaitable[None]], int] = {
            self._move_plain: 3,
            self._move_session: 3,
            self._replace_extra: 1,
            self._meddle: 1,
            self._cancel: 1,
        }
        while not self.world.is_calm:
            with contextlib.suppress(*LOST):
                await self.random.choices(list(turns), list(turns.values()))[0]()
            await self.pause(100, 3000)

    async def _move_plain(self) -> None:
        """Move what was received from a plain queue and found wanting."""
        entity = EXTRA if not self.world.extra_has_sessions and self.chance(0.3) else JOBS
        home = home_of(entity, None)
        send = self._letters.send(entity, (None,), self.random.randint(1, 6), self.request())
        await self.ask(home, send, tries=4)
        receive = Receive(entity, False, None, 6, self.request())
        got = (await self.ask(home, receive, tries=2)).reply
        assert isinstance(got, Delivered)
        if not got.sequences:
            return
        outcome, delay_ms = Outcome.DEAD_LETTER, 0
        if self.chance(
            0.2
        ):  # it thinks for so long that messages expire, and leaves them to others
            await self.pause(300, 2500)
            outcome, delay_ms = Outcome.ABANDON, self.random.choice((200, 2000, 6000))
        found = Settlement(
            outcome, got.grant, list(got.sequences), "because", "", delay_ms=delay_ms
        )
        await self.ask(home, Settle(entity, False, None, (found,), self.request()), tries=4)
        await self._begin_there(entity, home)

    async def _move_session(self) -> None:
        """Move what a session has."""
        session_id = SessionId(self.random.choice(SESSIONS))
        home, count = home_of(ORDERS, session_id), self.random.randint(1, 4)
        send = self._letters.send(ORDERS, (session_id,), count, self.request())
        await self.ask(home, send, tries=4)
        selector = Selector(session_id=session_id)
        await self._begin(ORDERS, home, JobKind.DEAD_LETTER, selector)
        await self.pause(20, 400)
        await self._begin_there(ORDERS, home)

    async def _replace_extra(self) -> None:
        """Delete the queue that others come from or go to, at about the time when they do."""
        if self.chance(0.5):
            with contextlib.suppress(*LOST):
                await self._move_plain()
            await self.pause(1, 60)
        if self.chance(0.6):
            await self._administrator.delete_extra()
        await self._administrator.create_extra()

    async def _begin_there(self, entity: EntityKey, partition: PartitionId) -> None:
        shown = await self._browse(partition, entity)
        kind = self.random.choices(_KINDS, (2, 1))[0]
        selector = self._selector(shown) if self.chance(0.3) else Selector()
        await self._begin(entity, partition, kind, selector)

    async def _meddle(self) -> None:
        """Settle and renew what is on its way to another partition: nothing may come of it (RSB-2)."""
        entity, partition = self._queue()
        answer = await self.ask(partition, ListJobs(entity, 0), tries=2)
        assert isinstance(answer.reply, JobsAre)
        grants = [GrantNumber(t.grant) for job in answer.reply.jobs for t in job.transfers]
        shown = await self._browse(partition, entity) if grants else []
        for grant in grants if shown else ():
            self.trial.count("a transfer was meddled with")
            outcome = self.random.choice((Outcome.COMPLETE, Outcome.ABANDON, Outcome.DEFER))
            taken = (Settlement(outcome, grant, shown),)
            await self.ask(partition, Settle(entity, True, None, taken, self.request()), tries=2)
            tokens = tuple((grant, sequence) for sequence in shown)
            await self.ask(partition, RenewMessages(entity, True, tokens), tries=1)
