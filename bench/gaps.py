"""How long partitions give no answer, as programs see it that use them all the time.

Here belong a light load on every partition, the times of its successes, and the check that nothing was lost. Never
here: what happens to the cluster meanwhile (`cluster_faults`). The laws: a call counts when it succeeded, with all
retries of the client; what was acknowledged must come, in order, and not again once its completion was acknowledged.
"""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import count, pairwise

from bench.ledger import Violation
from lockstep import Message, ReceivedMessage
from lockstep.aio import LockstepClient, QueueReceiver
from lockstep.core.errors import LockstepError
from lockstep.core.ids import EntityKey
from lockstep.core.placement import partition_of_session

QUEUE = "gaps"
CYCLES_A_LOCK = 50
"""After so many cycles a session is given back and accepted again, so that its lock need not be renewed."""
DRAIN_WAIT_SECONDS = 2.0


class Track:
    """What one session on one partition was sent and gave back, and when its calls succeeded.

    Attributes:
        successes: When calls succeeded, by the monotonic clock, in order.
        failures: Why calls failed at last, and when.
    """

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.successes = array("d")
        self.failures: list[tuple[float, str]] = []
        self.acknowledged: set[int] = set()
        self._came: set[int] = set()
        self._completed: set[int] = set()
        self._last = -1

    def succeeded(self) -> None:
        """Note that a call succeeded now."""
        self.successes.append(time.perf_counter())

    def failed(self, reason: str) -> None:
        """Note that a call failed now, after all its retries."""
        self.failures.append((time.perf_counter(), reason))

    def came(self, numbers: Iterable[int]) -> None:
        """Check what was delivered.

        Raises:
            Violation: DUPLICATE, when its completion was acknowledged; ORDER, when it comes for the first time after a
                later one, although the broker had it before.
        """
        for number in numbers:
            if number in self._completed:
                raise Violation(
                    "DUPLICATE", f"{self.session_id}: {number} came after it was completed"
                )
            if number not in self._came and number < self._last and number in self.acknowledged:
                raise Violation("ORDER", f"{self.session_id}: {number} came after {self._last}")
            self._last = max(self._last, number)
            self._came.add(number)

    def completed(self, numbers: Iterable[int]) -> None:
        """Note that a completion was acknowledged."""
        self._completed.update(numbers)

    def check_nothing_lost(self) -> None:
        """Compare what came with what was acknowledged.

        Raises:
            Violation: LOSS.
        """
        if lost := sorted(self.acknowledged - self._came):
            raise Violation(
                "LOSS", f"{self.session_id}: {len(lost)} acknowledged messages never came: {lost}"
            )

    def successes_since(self, moment: float) -> int:
        """Return how many calls have succeeded since a moment."""
        return len(self.successes) - bisect_right(self.successes, moment)

    def gap(self, begin: float, end: float) -> float:
        """Return the longest time without a success that has a part between two moments, in seconds."""
        first = max(bisect_right(self.successes, begin) - 1, 0)
        last = bisect_left(self.successes, end)
        times = self.successes[first : last + 1]
        return max((after - before for before, after in pairwise(times)), default=math.nan)


class LightLoad:
    """One program for each partition: it sends a message, receives it and completes it, at a pace."""

    def __init__(
        self, client: LockstepClient, *, partitions: int, pace_seconds: float, body_bytes: int
    ) -> None:
        """Find a session for each partition.

        Args:
            client: Makes the calls, with its own retries.
            partitions: How many the cluster has.
            pace_seconds: How long a program rests after a cycle.
            body_bytes: The length of a message.
        """
        self._client = client
        self._sender = client.get_queue_sender(QUEUE)
        self._pace_seconds = pace_seconds
        self._padding = bytes(body_bytes)
        self._over = asyncio.Event()
        self.tracks = [Track(session_id) for session_id in sessions_of(partitions)]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Load every partition for the time of the block, then take what is left and find nothing lost.

        Raises:
            Violation: A promise was broken; also in the middle of the block, among the errors of a group.
        """
        async with asyncio.TaskGroup() as tasks:
            for track in self.tracks:
                tasks.create_task(self._use(track))
            try:
                yield
            finally:
                self._over.set()
        for track in self.tracks:
            await self._drain(track)
            track.check_nothing_lost()

    async def _use(self, track: Track) -> None:
        numbers = count()
        while not self._over.is_set():
            try:
                async with self._client.get_queue_receiver(
                    QUEUE, session_id=track.session_id
                ) as receiver:
                    track.succeeded()
                    for _ in range(CYCLES_A_LOCK):
                        if self._over.is_set():
                            break
                        await self._cycle(track, receiver, next(numbers))
                        await self._rest()
                track.succeeded()
            except LockstepError as error:
                track.failed(error.reason)
                await self._rest()

    async def _rest(self) -> None:
        await asyncio.sleep(self._pace_seconds)

    async def _cycle(self, track: Track, receiver: QueueReceiver, number: int) -> None:
        body = number.to_bytes(8) + self._padding
        try:
            await self._sender.send_messages(Message(body, session_id=track.session_id))
        except LockstepError as error:
            track.failed(error.reason)
        else:
            track.acknowledged.add(number)
            track.succeeded()
        await self._take(track, receiver, wait_seconds=0)

    async def _take(self, track: Track, receiver: QueueReceiver, wait_seconds: float) -> int:
        messages = await receiver.receive_messages(
            max_message_count=100, max_wait_time=wait_seconds
        )
        track.succeeded()
        if not messages:
            return 0
        numbers = [number_of(message) for message in messages]
        track.came(numbers)
        failures = await receiver.complete_messages(messages)
        if failures:
            track.failed(failures[0].reason)
        else:
            track.completed(numbers)
            track.succeeded()
        return len(messages)

    async def _drain(self, track: Track) -> None:
        async with self._client.get_queue_receiver(QUEUE, session_id=track.session_id) as receiver:
            while await self._take(track, receiver, DRAIN_WAIT_SECONDS):
                pass

    def failures_between(self, begin: float, end: float) -> Counter[str]:
        """Return why calls failed between two moments, and how many."""
        found = (failure for track in self.tracks for failure in track.failures)
        return Counter(reason for moment, reason in found if begin <= moment <= end)

    @property
    def acknowledged(self) -> int:
        """How many messages the broker said it has."""
        return sum(len(track.acknowledged) for track in self.tracks)


def number_of(message: ReceivedMessage) -> int:
    """Return which message of its session it is."""
    return int.from_bytes((message.body or b"")[:8])


def sessions_of(partitions: int) -> list[str]:
    """Return a session of the queue for each partition, in their order."""
    entity, found = EntityKey("default", QUEUE), dict[int, str]()
    for number in count():
        session_id = f"session-{number}"
        found.setdefault(partition_of_session(entity, session_id, partitions), session_id)
        if len(found) == partitions:
            break
    return [found[partition] for partition in range(partitions)]


def distribution(seconds: Sequence[float]) -> dict[str, float]:
    """Return lowest, median, p95 and highest of gaps, by the nearest rank, in seconds."""
    ranked = sorted(seconds)
    ranks = {"min": 0.0, "median": 0.5, "p95": 0.95, "max": 1.0}
    return {name: ranked[max(math.ceil(rank * len(ranked)) - 1, 0)] for name, rank in ranks.items()}
