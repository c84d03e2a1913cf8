"""KEDA's external scaler: how many pods a queue has work for.

Here belongs what KEDA asks, answered from what a queue holds. Never here: the reading of a trigger's metadata
(`frontend.scaler_metadata`). The laws: a session counts once however many messages it has, since one receiver at a
time can have it; it counts while a receiver holds it too, or pods would be taken away for the work that they do; a
queue that forbids receiving has work for nobody.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable

from google.protobuf.message import DecodeError

from lockstep.core.entity import RECEIVING_FORBIDDEN, QueueDefinition
from lockstep.core.errors import InvalidRequest, ShuttingDown
from lockstep.core.replies import Runtime
from lockstep.externalscaler import externalscaler_pb2 as keda
from lockstep.frontend import looking
from lockstep.frontend.router import Router
from lockstep.frontend.scaler_metadata import Asked, Metric, Target, read_metadata, target_of
from lockstep.frontend.waits import Waits


class ScalerService:
    """Answers the calls of KEDA's ExternalScaler. Errors are raised; the server sends them."""

    def __init__(self, router: Router, waits: Waits) -> None:
        """Answer over the owners that `router` reaches; `waits` ends the streams when the front end stops."""
        self._router = router
        self._waits = waits

    async def is_active(self, request: keda.ScaledObjectRef) -> keda.IsActiveResponse:
        """Say whether there is work for any pod."""
        return keda.IsActiveResponse(result=await self._has_work(_asked(request)))

    async def get_metric_spec(self, request: keda.ScaledObjectRef) -> keda.GetMetricSpecResponse:
        """Say what the queue is scaled by, and one pod's share of it."""
        asked = _asked(request)
        target = target_of(asked, await looking.definition_of(self._router, asked.entity))
        spec = keda.MetricSpec(
            metricName=target.name,
            targetSize=math.ceil(target.per_pod),
            targetSizeFloat=target.per_pod,
        )
        return keda.GetMetricSpecResponse(metricSpecs=[spec])

    async def get_metrics(self, request: keda.GetMetricsRequest) -> keda.GetMetricsResponse:
        """Say how much of it there is."""
        asked = _asked(request.scaledObjectRef)
        queue = await looking.definition_of(self._router, asked.entity)
        target = target_of(asked, queue)
        if request.metricName != target.name:
            raise InvalidRequest(
                f"The queue is scaled by {target.name}; {request.metricName} was asked for. Ask GetMetricSpec again."
            )
        value = await self._value(queue, target)
        found = keda.MetricValue(
            metricName=target.name, metricValue=math.ceil(value), metricValueFloat=value
        )
        return keda.GetMetricsResponse(metricValues=[found])

    async def stream_is_active(
        self, requests: AsyncIterator[bytes], send: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """Say whether there is work for any pod, now and whenever that changes, until this front end stops.

        A stream that ends without an error is begun again by KEDA in 2 s, elsewhere.
        """
        asked = _asked(await _only(requests))

        async def follow() -> None:
            told: bool | None = None
            while True:
                has_work = await self._has_work(asked)
                if has_work is not told:
                    await send(keda.IsActiveResponse(result=has_work).SerializeToString())
                    told = has_work
                await self._router.pause(asked.stream_interval_ms)

        try:
            await self._waits.wait(follow)
        except ShuttingDown:
            return

    async def _has_work(self, asked: Asked) -> bool:
        queue = await looking.definition_of(self._router, asked.entity)
        return await self._value(queue, target_of(asked, queue)) > asked.activation

    async def _value(self, queue: QueueDefinition, target: Target) -> float:
        if queue.settings.status in RECEIVING_FORBIDDEN:
            return 0.0
        with_oldest = target.metric is Metric.OLDEST_AGE_SECONDS
        runtime = await looking.runtime_of(self._router, queue.key, with_oldest=with_oldest)
        return _measured(runtime, target.metric, self._router.clock.now_ms())


def _measured(runtime: Runtime, metric: Metric, now_ms: int) -> float:
    match metric:
        case Metric.READY_SESSIONS:
            return runtime.runnable_sessions + runtime.locked_sessions
        case Metric.ACTIVE_MESSAGES:
            # Those that nobody can receive now count as active elsewhere (CNT-2), but are no work for a pod.
            return max(0, runtime.active - runtime.deferred - runtime.delayed)
        case Metric.OLDEST_AGE_SECONDS:
            return max(0, now_ms - runtime.oldest_ms) / 1000 if runtime.oldest_ms else 0.0


def _asked(request: keda.ScaledObjectRef) -> Asked:
    return read_metadata(request.scalerMetadata, request.namespace)


async def _only(requests: AsyncIterator[bytes]) -> keda.ScaledObjectRef:
    """Return the one request of a stream.

    Raises:
        InvalidRequest: There is none, or it is no ScaledObjectRef.
    """
    async for payload in requests:
        try:
            return keda.ScaledObjectRef.FromString(payload)
        except DecodeError as error:
            raise InvalidRequest(f"This is no ScaledObjectRef: {error}.") from error
    raise InvalidRequest("StreamIsActive needs a ScaledObjectRef.")
