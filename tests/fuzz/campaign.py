"""One fuzz from its seed to its verdict: what is done next, and what must hold at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from google.protobuf.message import Message

from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import message_pb2
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.fuzz import players
from tests.fuzz.api import METHODS, PATH_OF_REQUEST, parsed
from tests.fuzz.broker import Fuzzed
from tests.fuzz.building import Builder
from tests.fuzz.driver import Driver, Failure, Outcome
from tests.fuzz.knowledge import Knowledge
from tests.fuzz.mangling import mangled, random_bytes
from tests.fuzz.players import Player
from tests.fuzz.steps import Advance, Call, Calls, GiveUp, Journal, Restart, Step

_PLAYERS = ("ada", "bob", "cleo")
_RECENT = 40
_CHECK_EVERY = 50
_SPANS_MS = (*(1, 10, 500, 2000, 5000) * 3, 20_000, 20_000, 61_000, 600_000, 3_600_000, 86_400_000)
_LEARNED_BYTES_MAX = 20_000
_AGAIN_BYTES_MAX = 1_000_000
GROWTH_BYTES_MAX = 256 * 1024 * 1024
"""By how much the memory of the broker's process may grow in a fuzz, in which it grows by less than 100 MiB."""


class Campaign:
    """One fuzz of one broker."""

    def __init__(self, seed: int, broker: Fuzzed, journal: Journal) -> None:
        self.driver = Driver(broker, journal)
        self._broker = broker
        self._random = Random(seed)
        self._knowledge = Knowledge(self._random)
        self._builder = Builder(self._random, self._knowledge, broker.now_ms)
        self._players = {
            name: Player(name, self._random, self._knowledge, broker.now_ms) for name in _PLAYERS
        }
        self._recent: list[Call] = []
        # Whose a call is, of those that a player made and nobody changed.
        self._owners: dict[Call, tuple[Player, Message]] = {}

    async def run(self, goes_on: Callable[[int], bool]) -> None:
        """Fuzz for as long as it goes on, asked with the number of calls made, then look at everything.

        Raises:
            Failure: Something happened that must never happen.
        """
        grown_from = self._broker.resident_bytes()
        await self._take(_QUEUES)
        steps = 0
        while goes_on(self.driver.calls):
            await self._take(self._next())
            steps += 1
            if steps % _CHECK_EVERY == 0:
                await self.driver.check()
        await self.end(grown_from)

    async def end(self, grown_from: int) -> None:
        """Check that the broker is whole and does ordinary work, before and after it was started anew.

        Raises:
            Failure: It does not.
        """
        await self.driver.check()
        await self._take(Restart())
        await self._work("before")
        await self._take(Restart())
        await self._work("after")
        await self.driver.check()
        grown = self._broker.resident_bytes() - grown_from
        if grown > GROWTH_BYTES_MAX:
            raise Failure(f"the memory grew by {grown} bytes, more than {GROWTH_BYTES_MAX}", None)

    async def _take(self, step: Step) -> list[Outcome]:
        outcomes = await self.driver.take(step)
        for outcome in outcomes:
            self._learn(outcome)
        return outcomes

    # --- what comes next ---------------------------------------------------------------------------

    def _next(self) -> Step:
        kind = self._random.random()
        if kind < 0.03:
            return Advance(self._random.choice(_SPANS_MS))
        if kind < 0.04:
            return GiveUp()
        if kind < 0.042:
            return Restart()
        if kind < 0.06:
            return _QUEUES  # those that were deleted are made again
        if kind < 0.1:
            count = self._random.choice((2, 3, 6))
            return Calls(tuple(self._next_call() for _ in range(count)))
        return Calls((self._next_call(),))

    def _next_call(self) -> Call:
        random, kind = self._random, self._random.random()
        if kind < 0.5:
            call = self._played()
        elif kind < 0.8:
            call = self._built()
        elif kind < 0.95 or not self._recent:
            call = self._built() if random.random() < 0.3 or not self._recent else self._again()
            call = Call(call.path, mangled(random, call.payload))
        elif kind < 0.98:
            return self._again()  # as a retry does
        else:
            return Call(random.choice((*METHODS,)), random_bytes(random))
        if len(call.payload) <= _AGAIN_BYTES_MAX:
            self._recent = [*self._recent[-_RECENT:], call]
        return call

    def _again(self) -> Call:
        return self._random.choice(self._recent)

    def _built(self) -> Call:
        method = METHODS[self._random.choice((*METHODS,))]
        request = self._builder.build(method.request, care=self._random.choice((0.2, 0.8, 0.95)))
        return Call(method.path, request.SerializeToString(deterministic=True))

    def _played(self) -> Call:
        player = self._players[self._random.choice(_PLAYERS)]
        request = player.next()
        if self._random.random() < 0.2:
            return _call(self._builder.corrupt(request))
        call = _call(request)
        self._owners[call] = (player, request)
        return call

    def _learn(self, outcome: Outcome) -> None:
        owner = self._owners.pop(outcome.call, None)
        if outcome.response is None or len(outcome.call.payload) > _LEARNED_BYTES_MAX:
            return
        if outcome.response.ByteSize() > _LEARNED_BYTES_MAX:
            return
        request = parsed(METHODS[outcome.call.path].request, outcome.call.payload)
        if request is not None:
            self._knowledge.learn(request)
        self._knowledge.learn(outcome.response)
        if owner is not None:
            owner[0].learn(owner[1], outcome.response)

    # --- the end -----------------------------------------------------------------------------------

    async def _work(self, name: str) -> None:
        """Send, receive and complete on new queues, as if nothing had happened."""
        for session in (None, "s"):
            queue = f"ordinary-{name}-{session}"
            created = admin.CreateQueueRequest(name=queue)
            created.settings.requires_session = session is not None
            await self._must(created)
            sent = [message_pb2.Message(body=b"%d" % n, session_id=session) for n in range(3)]
            await self._must(messaging.SendMessagesRequest(entity=queue, messages=sent))
            receive = messaging.ReceiveMessagesRequest(entity=queue, max_messages=9)
            settle = messaging.SettleMessagesRequest(entity=queue)
            if session is not None:
                accepted = await self._must(
                    messaging.AcceptSessionRequest(entity=queue, session_id=session)
                )
                receive.session.CopyFrom(accepted.session)
                settle.session.CopyFrom(accepted.session)
            got = await self._must(receive)
            if [one.body for one in got.messages] != [b"0", b"1", b"2"]:
                raise Failure(f"an ordinary receive gave {got}", None)
            tokens = [got.lock_token_prefix + n.to_bytes(8, "big") for n in got.sequence_numbers]
            done = settle.settlements.add(lock_tokens=tokens)
            done.complete.SetInParent()
            if (await self._must(settle)).failures:
                raise Failure("ordinary messages were not completed", None)
            runtime = (await self._must(admin.GetQueueRequest(name=queue))).runtime
            if runtime.total_messages:
                raise Failure(f"completed messages are still there: {runtime}", None)
            await self._must(admin.DeleteQueueRequest(name=queue))

    async def _must(self, request: Message) -> Any:
        (outcome,) = await self._take(Calls((_call(request),)))
        if outcome.response is None:
            raise Failure("an ordinary call was refused", outcome.call)
        return outcome.response


def _call(request: Message) -> Call:
    path = PATH_OF_REQUEST[request.DESCRIPTOR.full_name]
    return Call(path, request.SerializeToString(deterministic=True))


_QUEUES = Calls(tuple(map(_call, players.queues())))


async def replay(steps: Sequence[Step], broker: Fuzzed) -> None:
    """Carry out steps that were written down, then look at everything.

    Raises:
        Failure: Something happened that must never happen.
    """
    driver = Driver(broker)
    for number, step in enumerate(steps, 1):
        await driver.take(step)
        if number % _CHECK_EVERY == 0 or number == len(steps):
            await driver.check()
