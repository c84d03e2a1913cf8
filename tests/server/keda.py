"""KEDA for tests: it asks through its own proto, and counts pods as it and the autoscaler of Kubernetes do."""

from __future__ import annotations

import math

from lockstep.externalscaler import externalscaler_pb2 as keda
from lockstep.externalscaler import externalscaler_pb2_grpc as keda_grpc
from tests.server.server_process import CALL_S, Stubs


class Keda:
    """What KEDA asks for one ScaledObject, and how many pods it would have run."""

    def __init__(self, stubs: Stubs, **metadata: str) -> None:
        self.stub = keda_grpc.ExternalScalerStub(stubs.channel)
        self.trigger = keda.ScaledObjectRef(
            name="workers",
            namespace="default",
            scalerMetadata={"scalerAddress": "lockstep:7700", **metadata},
        )

    def pods(self) -> int:
        """Return the pods, as KEDA and the autoscaler count them: none without activity, else what fills the shares.

        Each metric is read as an average value (KEDA's default), so the pods are the whole metric over the target,
        rounded up; zero pods is KEDA's alone to decide.
        """
        [spec] = self.stub.GetMetricSpec(self.trigger, timeout=CALL_S).metricSpecs
        request = keda.GetMetricsRequest(scaledObjectRef=self.trigger, metricName=spec.metricName)
        [found] = self.stub.GetMetrics(request, timeout=CALL_S).metricValues
        if not self.stub.IsActive(self.trigger, timeout=CALL_S).result:
            return 0
        target = spec.targetSizeFloat or spec.targetSize
        value = found.metricValueFloat or found.metricValue
        return max(1, math.ceil(value / target))
