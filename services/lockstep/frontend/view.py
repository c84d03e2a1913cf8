"""What a front end knows of the cluster, told to people.

Here belong the service that tells it and the call that asks for it. Never here: how it is known (`cluster.directory`).
The law: what is told is what calls are routed by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import grpc
import grpc.aio

from lockstep.cluster.standing import ViewStanding
from lockstep.core.ids import PartitionEpoch, PartitionId
from lockstep.internal.v1 import frontend_service_pb2 as wire
from lockstep.wire.server import Method, Service
from lockstep.wire.status import from_rpc_error

_NAME: Final = "lockstep.internal.v1.FrontendService"


def view_service(view: Callable[[], ViewStanding]) -> Service:
    """Return the service that tells what `view` returns."""

    async def describe(_request: wire.DescribeViewRequest) -> wire.DescribeViewResponse:
        standing = view()
        response = wire.DescribeViewResponse(
            heard_ms=standing.heard_ms, revision=standing.revision, problem=standing.problem
        )
        for partition, epoch in sorted(standing.epochs.items()):
            known = response.partitions.add(partition=partition)
            known.epoch.generation, known.epoch.revision = epoch[:2]
        return response

    return Service(_NAME, (Method("DescribeView", describe, wire.DescribeViewRequest),))


async def ask_view(address: str, *, within_ms: int) -> ViewStanding:
    """Return what the front end at an address knows.

    Raises:
        LockstepError: It does not answer in time, or it is no front end.
    """
    async with grpc.aio.insecure_channel(address) as channel:
        describe: Any = channel.unary_unary(
            f"/{_NAME}/DescribeView",
            request_serializer=wire.DescribeViewRequest.SerializeToString,
            response_deserializer=wire.DescribeViewResponse.FromString,
        )
        try:
            response: wire.DescribeViewResponse = await describe(
                wire.DescribeViewRequest(), timeout=within_ms / 1000
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
    epochs = {
        PartitionId(one.partition): PartitionEpoch(one.epoch.generation, one.epoch.revision, 0)
        for one in response.partitions
    }
    heard_ms = response.heard_ms if response.HasField("heard_ms") else None
    return ViewStanding(heard_ms, response.revision, response.problem, epochs)
