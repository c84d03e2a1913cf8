"""What KEDA is told of a queue that is spread over partitions, on a clock that stands still."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from lockstep.core.commands import (
    Accept,
    DeleteQueue,
    Outcome,
    Receive,
    Send,
    Settle,
    Settlement,
    UpdateQueue,
)
from lockstep.core.errors import ClusterUnavailable, EntityNotFound, InvalidRequest
from lockstep.core.ids import SessionId
from lockstep.core.replies import Accepted, Delivered
from lockstep.externalscaler import externalscaler_pb2 as keda
from lockstep.frontend.scaler import ScalerService
from lockstep.frontend.waits import Waits
from tests.unit.frontend.cluster_rig import (
    ORDERS,
    PARTITIONS,
    Cluster,
    running_cluster,
    session_on,
)

ALL = range(PARTITIONS)
SESSIONS, MESSAGES = "lockstep-readySessions", "lockstep-activeMessages"
AGE = "lockstep-oldestAgeSeconds"


def trigger(**metadata: str) -> keda.ScaledObjectRef:
    """Return a trigger on the queue of the rig."""
    return keda.ScaledObjectRef(
        name="workers", namespace="default", scalerMetadata={"entity": "orders", **metadata}
    )


async def value(scaler: ScalerService, name: str, **metadata: str) -> float:
    request = keda.GetMetricsRequest(scaledObjectRef=trigger(**metadata), metricName=name)
    [found] = (await scaler.get_metrics(request)).metricValues
    assert (found.metricName, found.metricValue) == (name, found.metricValueFloat)
    return found.metricValueFloat


async def is_active(scaler: ScalerService, **metadata: str) -> bool:
    return (await scaler.is_active(trigger(**metadata))).result


async def send(cluster: Cluster, partition: int, count: int = 1) -> str:
    """Send messages to a session that lives on a partition, and return it."""
    name = session_on(partition)
    await cluster.call(partition, Send(ORDERS, (b"x",) * count, (name,)), object)
    return name


async def test_p_15_sessions_of_all_partitions_count_once_each() -> None:
    async with running_cluster() as cluster:
        scaler = ScalerService(cluster.router, Waits())
        await cluster.create()
        for partition in ALL:
            await send(cluster, partition, count=3)

        [spec] = (await scaler.get_metric_spec(trigger(sessionsPerPod="2"))).metricSpecs

        assert spec == keda.MetricSpec(metricName=SESSIONS, targetSize=2, targetSizeFloat=2)
        assert await value(scaler, SESSIONS) == PARTITIONS


async def test_p_15_a_session_counts_until_its_holder_gives_it_back() -> None:
    async with running_cluster() as cluster:
        scaler = ScalerService(cluster.router, Waits())
        await cluster.create()
        name = SessionId(await send(cluster, 1))
        lock = (await cluster.call(1, Accept(ORDERS, name, "pod"), Accepted)).session
        held = await value(scaler, SESSIONS)
        got = await cluster.call(1, Receive(ORDERS, False, lock, 1), Delivered)
        done = Settlement(Outcome.COMPLETE, got.grant, tuple(got.sequences))
        await cluster.call(1, Settle(ORDERS, False, lock, (done,)), object)

        after_its_last_message = await value(scaler, SESSIONS)
        await cluster.pass_time(61_000)  # the holder went without a word

        assert (held, after_its_last_message) == (1, 1)
        assert await value(scaler, SESSIONS) == 0
        assert not await is_active(scaler)


async def test_messages_that_nobody_can_receive_are_no_work() -> None:
    async with running_cluster() as cluster:
        scaler = ScalerService(cluster.router, Waits())
        await cluster.create(requires_session=False)
        home = cluster.router.home(ORDERS, None, "single")
        await cluster.call(home, Send(ORDERS, (b"x",) * 5, (None,)), object)
        got = await cluster.call(home, Receive(ORDERS, False, None, 3), Delivered)
        first, second, _ = got.sequences
        aside = (
            Settlement(Outcome.DEFER, got.grant, (first,)),
            Settlement(Outcome.ABANDON, got.grant, (second,), delay_ms=60_000),
        )
        await cluster.call(home, Settle(ORDERS, False, None, aside), object)

        found = await value(scaler, MESSAGES, targetValue="1")

        assert found == 3  # one is locked, two are ready
        assert (await cluster.runtime()).active == 5


@pytest.mark.parametrize("has_sessions", [True, False])
async def test_the_oldest_message_of_all_partitions_says_for_how_long_it_waits(
    has_sessions: bool,
) -> None:
    async with running_cluster() as cluster:
        scaler = ScalerService(cluster.router, Waits())
        await cluster.create(requires_session=has_sessions, placement="spread")
        wanted = {"metric": "oldestAgeSeconds", "targetValue": "30"}
        empty = await value(scaler, AGE, **wanted)
        for partition in (2, 0):
            name = session_on(partition) if has_sessions else None
            await cluster.call(partition, Send(ORDERS, (b"x",), (name,)), object)
            await cluster.pass_time(15_000)

        assert (empty, await value(scaler, AGE, **wanted)) == (0, 30)
        assert await is_active(scaler, activationValue="29", **wanted)
        assert not await is_active(scaler, activationValue="30", **wanted)


async def test_a_message_that_is_in_hand_does_not_wait() -> None:
    async with running_cluster() as cluster:
        scaler = ScalerService(cluster.router, Waits())
        await cluster.create(requires_session=False)
        home = cluster.router.home(ORDERS, None, "single")
        await cluster.call(home, Send(ORDERS, (b"x",), (None,)), object)
        await cluster.pass_time(5_000)
        await cluster.call(home, Send(ORDERS, (b"y",), (None,)), object)
        await cluster.pass_time(5_000)
        await cluster.call(home, Receive(ORDERS, False, None, 1), Delivered)

        assert await value(scaler, AGE, metric="oldestAgeSeconds", targetValue="1") == 5


async def test_a_queue_that_needs_more_than_a_little_work_to_wake_sleeps_until_then() -> None:
    async with running_cluster() as cluster:
        scaler = ScalerService(cluster.router, Waits())
        await cluster.create()
        await send(cluster, 0)
        one = await is_active(scaler, activationValue="1")
        await send(cluster, 1)

        two = await is_active(scaler, activationValue="1")

        assert (one, two) == (False, True)


@pytest.mark.parametrize("status", ["receive_disabled", "disabled", "send_disabled"])
async def test_a_queue_that_forbids_receiving_has_work_for_nobody(status: str) -> None:
    async with running_cluster() as cluster:
        scaler = ScalerService(cluster.router, Waits())
        await cluster.create()
        await send(cluster, 0)
        await cluster.call(0, UpdateQueue(ORDERS, {"status": status}), object)

        found = await is_active(scaler), await value(scaler, SESSIONS)

        assert found == ((True, 1) if status == "send_disabled" else (False, 0))


async def test_a_partition_that_cannot_be_asked_is_an_error_and_not_less_work() -> None:
    async with running_cluster() as cluster:
        scaler = ScalerService(cluster.router, Waits())
        await cluster.create()
        await cluster.runtime()  # which tells where the queue's parts are
        cluster.paths.closed = {PARTITIONS - 1}

        found, _ = await asyncio.gather(
            is_active(scaler), cluster.pass_time(10_000), return_exceptions=True
        )
        cluster.paths.closed = set()

        assert isinstance(found, ClusterUnavailable)


async def test_a_queue_that_is_missing_is_named() -> None:
    async with running_cluster() as cluster:
        scaler = ScalerService(cluster.router, Waits())

        for call in (scaler.is_active, scaler.get_metric_spec):
            with pytest.raises(EntityNotFound, match="There is no queue default/orders"):
                await call(trigger())


async def test_a_metric_of_an_earlier_trigger_is_refused() -> None:
    async with running_cluster() as cluster:
        scaler = ScalerService(cluster.router, Waits())
        await cluster.create()

        with pytest.raises(InvalidRequest, match=f"scaled by {SESSIONS}; {MESSAGES} was asked"):
            await value(scaler, MESSAGES)


# --- streams -----------------------------------------------------------------------------------------


class Stream:
    """One stream of KEDA; `told` is what it was told."""

    def __init__(self, scaler: ScalerService, **metadata: str) -> None:
        self.told: list[bool] = []
        self._scaler = scaler
        self._metadata = metadata

    async def run(self) -> None:
        await self._scaler.stream_is_active(self._requests(), self._send)

    async def _requests(self) -> AsyncIterator[bytes]:
        yield trigger(**self._metadata).SerializeToString()

    async def _send(self, response: bytes) -> None:
        self.told.append(keda.IsActiveResponse.FromString(response).result)


async def test_a_stream_tells_at_once_and_then_what_changes_until_the_front_end_stops() -> None:
    async with running_cluster() as cluster:
        waits = Waits()
        stream = Stream(ScalerService(cluster.router, waits), streamIntervalSeconds="10")
        await cluster.create()

        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(stream.run())
            await cluster.pass_time(1)
            at_once = list(stream.told)
            await cluster.pass_time(50_000)
            quiet = list(stream.told)
            await send(cluster, 2)
            await cluster.pass_time(10_000)
            waits.send_away()

        assert (at_once, quiet, stream.told) == ([False], [False], [False, True])
        assert running.exception() is None


async def test_a_stream_fails_when_its_queue_goes() -> None:
    async with running_cluster() as cluster:
        stream = Stream(ScalerService(cluster.router, Waits()))
        await cluster.create()

        async def delete() -> None:
            await cluster.pass_time(1)
            await cluster.call(0, DeleteQueue(ORDERS), object)
            await cluster.pass_time(10_000)

        failed, _ = await asyncio.gather(stream.run(), delete(), return_exceptions=True)

        assert stream.told == [False]
        assert isinstance(failed, EntityNotFound)


async def test_a_stream_without_a_trigger_is_refused() -> None:
    async with running_cluster() as cluster:
        scaler = ScalerService(cluster.router, Waits())

        async def requests(*payloads: bytes) -> AsyncIterator[bytes]:
            for payload in payloads:
                yield payload

        async def send(response: bytes) -> None:
            raise AssertionError("answered")

        for given in (requests(), requests(b"\xff")):
            with pytest.raises(InvalidRequest, match="ScaledObjectRef"):
                await scaler.stream_is_active(given, send)
