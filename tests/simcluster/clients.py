"""What every simulated client is made of: calls to front ends, tried again as the real client does.

Here belong requests, retries, and what a client may believe. Never here: what clients want (`people`).
"""

from __future__ import annotations

import itertools
from typing import Any, TypeVar

from google.protobuf.message import Message

from lockstep.core.errors import ConnectionFailed, LockstepError, Moved, Unavailable
from lockstep.core.ids import EntityKey, PartitionId, partition_of
from lockstep.core.placement import partition_of_entity, partition_of_session
from lockstep.v1 import messaging_service_pb2 as messaging
from lockstep.v1 import request_pb2
from tests.simcluster.network import Broken, Call
from tests.simcluster.nodes import PARTITIONS, World, front_of
from tests.simcluster.processes import Process, sleep_ms

ORDERS = EntityKey("default", "orders")  # with sessions, over all partitions
JOBS = EntityKey("default", "jobs")  # without, on one
_RETRY_MS = (20, 400)
_PATIENCE_MS = (800, 3000, 12_000)
_Response = TypeVar("_Response", bound=Message)


class GaveUp(Exception):
    """The client does not know whether its call had an effect, and asks no more."""


def home_of(entity: EntityKey, session_id: str | None) -> PartitionId:
    """Return where a session, or a queue without sessions, lives."""
    if session_id is None:
        return partition_of_entity(entity, PARTITIONS)
    return partition_of_session(entity, session_id, PARTITIONS)


def sessions_of(entity: EntityKey, each: int) -> list[str]:
    """Return names of sessions, so many on each partition."""
    found: dict[PartitionId, list[str]] = {}
    for number in itertools.count():
        name = f"s{number}"
        there = found.setdefault(home_of(entity, name), [])
        if len(there) < each:
            there.append(name)
        if len(found) == PARTITIONS and all(len(names) == each for names in found.values()):
            return sorted(name for names in found.values() for name in names)
    raise AssertionError


SESSIONS = sessions_of(ORDERS, 2)


class Client:
    """A client with an id of its own and its calls."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.trial = world.trial
        self.random = world.trial.stream(name)
        self.name = name
        self.process = Process(name, world.loop)
        self.attempts = 0  # of the last call
        self._counter = itertools.count(1)

    def chance(self, probability: float) -> bool:
        """Draw: whether something of this probability happens."""
        return self.random.random() < probability

    def request_id(self) -> request_pb2.RequestId:
        """Return the id of a new call."""
        return request_pb2.RequestId(client_id=self.name, counter=next(self._counter))

    async def pause(self, least_ms: float, most_ms: float) -> None:
        """Wait for a while."""
        await sleep_ms(self.random.uniform(least_ms, most_ms))

    async def ask(
        self,
        method: str,
        request: Any,
        response: type[_Response],
        *,
        wait_ms: int = 0,
        tries: int = 5,
        patience_ms: float | None = None,
        at: str | None = None,
    ) -> _Response:
        """Make a call, again with the same id as long as it makes sense.

        Args:
            method: Of either service.
            request: The request; its attempt is counted here.
            response: The class of the response.
            wait_ms: How long the broker may let it wait.
            tries: How often at most.
            patience_ms: How long to wait for one answer, besides; None = as it comes.
            at: Which front end to ask; None = any.

        Raises:
            GaveUp: Whether it had an effect is not known.
            LockstepError: It was refused.
        """
        self.trial.count(f"command {method}")
        timeout_ms = wait_ms + (patience_ms or self.random.choice(_PATIENCE_MS))
        counts = method in ("AcceptSession", "ReceiveMessages")  # as `client.calls` does
        for attempt in range(tries):
            if counts:
                request.request_id.attempt = attempt
            self.attempts = attempt + 1
            sent = type(request).FromString(request.SerializeToString())
            front = at or self.random.choice(sorted(self.world.frontends))
            call = Call(
                self.world.network,
                self.process,
                front,
                lambda process, sent=sent: front_of(process).answer(method, sent),  # type: ignore[misc]  # bound now
                prefix="client_",
            )
            try:
                answer = await call.made(timeout_ms)
            except (Broken, ConnectionFailed, Moved, Unavailable) as error:
                self.trial.note(self.name, method, "failed with", type(error).__name__)
                await self.pause(*_RETRY_MS)
            except LockstepError as error:
                self.trial.note(self.name, method, "refused", type(error).__name__)
                raise
            else:
                self.trial.note(self.name, method, "answered", attempt)
                return response.FromString(answer)
        raise GaveUp

    async def send(
        self, entity: EntityKey, messages: list[Any], *, tries: int = 6, at: str | None = None
    ) -> None:
        """Send a batch until all of it is stored, and see that what was acknowledged is.

        Raises:
            GaveUp: Not everything may be stored.
            LockstepError: It was refused.
        """
        request = messaging.SendMessagesRequest(
            entity=entity.name, request_id=self.request_id(), messages=messages
        )
        for _ in range(3):
            response = await self.ask(
                "SendMessages", request, messaging.SendMessagesResponse, tries=tries, at=at
            )
            self._check_sent(entity, request, response)
            if not response.failures:
                return
            self.trial.count("a batch was stored in part (ADD-2)")
            await self.pause(*_RETRY_MS)
        raise GaveUp

    def _check_sent(self, entity: EntityKey, request: Any, response: Any) -> None:
        """I-1, ADD-1, ADD-2: what was acknowledged is stored, under its number, where its session lives."""
        failed = {failure.index for failure in response.failures}
        for place, message in enumerate(request.messages):
            if place in failed:
                continue
            number = response.sequence_numbers[place]
            session_id = message.session_id if message.HasField("session_id") else None
            home = home_of(entity, session_id)
            self.trial.check(partition_of(number) == home, "ADD-1: stored elsewhere", number, home)
            ledger = self.world.courts[home].ledger
            queue = ledger.books[home].number_of(entity)
            stored = ledger.bodies.get((queue if queue is not None else -1, number))
            is_there = stored == message.SerializeToString()
            self.trial.check(is_there, "I-1: acknowledged, but not stored", number, stored)

    def accept_request(
        self, entity: EntityKey, session_id: str | None, wait_ms: int
    ) -> messaging.AcceptSessionRequest:
        """Return the request for a session, or for the next one."""
        request = messaging.AcceptSessionRequest(
            entity=entity.name, request_id=self.request_id(), holder_client_id=self.name
        )
        if session_id is not None:
            request.session_id = session_id
        request.max_wait.FromMilliseconds(wait_ms)
        return request

    async def accept(
        self,
        entity: EntityKey,
        session_id: str | None = None,
        *,
        wait_ms: int = 0,
        tries: int = 4,
        at: str | None = None,
    ) -> messaging.AcceptSessionResponse:
        """Take a session.

        Raises:
            GaveUp: Perhaps it was taken.
            LockstepError: It was not.
        """
        request = self.accept_request(entity, session_id, wait_ms)
        key = (self.name, request.request_id.counter)
        try:
            response = await self.ask(
                "AcceptSession",
                request,
                messaging.AcceptSessionResponse,
                wait_ms=wait_ms,
                tries=tries,
                at=at,
            )
        except GaveUp:
            if self.chance(0.6):
                await self._cancel(entity, request)
            raise
        if self.attempts == 1 and session_id is None:
            self._check_granted_once(home_of(entity, response.session.session_id), key)
        return response

    def _check_granted_once(self, home: PartitionId, key: tuple[str, int]) -> None:
        """Design section 5: before another partition is asked, it is known what the first one did."""
        for number, court in enumerate(self.world.courts):
            kind = court.ledger.books[number].result_of(key)[0]
            is_twice = number != home and kind == "accept" and court.arrivals[key] == 1
            self.trial.check(not is_twice, "granted on two partitions:", key, number, home)

    async def _cancel(self, entity: EntityKey, request: messaging.AcceptSessionRequest) -> None:
        cancel = messaging.CancelRequestRequest(entity=entity.name, request_id=request.request_id)
        if request.HasField("session_id"):
            cancel.session_id = request.session_id
        try:
            await self.ask("CancelRequest", cancel, messaging.CancelRequestResponse, tries=2)
        except (GaveUp, LockstepError):
            return
