"""The way to an owner in another process.

Here belongs one connection to an owner service. Never here: which owner has which partition (`cluster`). The laws: what
the owner said stays as it is; where nobody spoke but gRPC the partition counts as moved, because a lost owner is found
again through the directory; an answer of an epoch that was overtaken is not passed on (design law 3).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

import grpc
import grpc.aio

from lockstep.cluster.port import Answer, Hint
from lockstep.cluster.standing import OwnerStanding, PartitionStanding
from lockstep.core.commands import Command
from lockstep.core.errors import ConnectionFailed, LockstepError, Moved, OperationTimeout
from lockstep.core.ids import EntityKey, PartitionEpoch, PartitionId
from lockstep.internal.v1 import owner_service_pb2 as wire
from lockstep.wire.owner_calls import decode_reply, encode_command
from lockstep.wire.status import from_rpc_error

log = logging.getLogger(__name__)

_SERVICE: Final = "/lockstep.internal.v1.OwnerService/"
_ANSWER_MS: Final = 30_000
PING_MS: Final = 2_000
"""How often a connection is asked whether it is alive; owners must put up with that."""
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A process that stands still, or a host that vanished, is noticed in 4 s, well before a lease of 10 s ends.
    ("grpc.keepalive_time_ms", PING_MS),
    ("grpc.keepalive_timeout_ms", 2_000),
    # Without it a silent connection was not found within 30 s.
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)


def connection_to(address: str) -> grpc.aio.Channel:
    """Return a connection to the owner service at host:port; the first call opens it."""
    return grpc.aio.insecure_channel(address, options=_OPTIONS)


class RemoteOwner:
    """An `OwnerChannel` over gRPC."""

    def __init__(
        self,
        address: str,
        channel: grpc.aio.Channel,
        *,
        partitions: int,
        overtaken: Callable[[PartitionId, PartitionEpoch], bool],
    ) -> None:
        """Name the owner.

        Args:
            address: Where its owner service listens, as host:port.
            channel: The connection to it; closed by `close`.
            partitions: How many this process believes that the cluster has.
            overtaken: Whether a partition is known to be owned under a higher epoch than this one.
        """
        self.address = address
        self._partitions = partitions
        self._overtaken = overtaken
        self._channel = channel
        self._call: Any = self._channel.unary_unary(
            _SERVICE + "Call",
            request_serializer=wire.CallRequest.SerializeToString,
            response_deserializer=wire.CallResponse.FromString,
        )
        self._hints: Any = self._channel.stream_stream(
            _SERVICE + "FollowHints",
            request_serializer=wire.FollowHintsRequest.SerializeToString,
            response_deserializer=wire.FollowHintsResponse.FromString,
        )
        self._refused: Any = self._channel.unary_unary(
            _SERVICE + "NoteRefusedSend",
            request_serializer=wire.NoteRefusedSendRequest.SerializeToString,
            response_deserializer=wire.NoteRefusedSendResponse.FromString,
        )

    async def call(
        self,
        partition: PartitionId,
        command: Command,
        *,
        wait_ms: int = 0,
        placement: str | None = None,
    ) -> Answer:
        """As `OwnerChannel` says."""
        name, fields = encode_command(command)
        request = wire.CallRequest(
            partition=partition,
            placement=placement or "",
            wait_ms=wait_ms,
            command=name,
            fields=fields,
            partitions=self._partitions,
        )
        timeout_s = (max(wait_ms, 0) + _ANSWER_MS) / 1000
        try:
            response: wire.CallResponse = await self._call(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise self._told(error) from error
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            raise self._gone() from error
        epoch = PartitionEpoch(response.epoch.generation, response.epoch.revision, 0)
        if self._overtaken(partition, epoch):
            raise Moved(
                f"The answer of the owner at {self.address} came after partition {partition} had moved. Try again."
            )
        state = response.state if response.HasField("state") else None
        return Answer(decode_reply(response.reply, response.fields), response.messages, state)

    async def standing(self, *, within_ms: int) -> OwnerStanding:
        """Return how the owner's partitions stand, as it says.

        Raises:
            LockstepError: It does not answer in time.
        """
        describe: Any = self._channel.unary_unary(
            _SERVICE + "DescribeOwner",
            request_serializer=wire.DescribeOwnerRequest.SerializeToString,
            response_deserializer=wire.DescribeOwnerResponse.FromString,
        )
        try:
            response: wire.DescribeOwnerResponse = await describe(
                wire.DescribeOwnerRequest(), timeout=within_ms / 1000
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        is_catalogue = response.HasField("catalogue_revision")
        return OwnerStanding(
            tuple(map(_partition_standing, response.partitions)),
            response.catalogue_revision if is_catalogue else None,
        )

    async def follow_hints(self, partition: PartitionId) -> AsyncIterator[Sequence[Hint]]:
        """As `OwnerChannel` says."""
        call = self._hints()
        try:
            await call.write(wire.FollowHintsRequest(partition=partition))
            await call.done_writing()
            async for response in call:
                yield [
                    Hint(EntityKey(hint.namespace, hint.queue), hint.dead_letter, hint.count)
                    for hint in response.hints
                ]
        except grpc.aio.AioRpcError as error:
            raise self._told(error) from error
        except asyncio.InvalidStateError as error:
            raise self._gone() from error
        except asyncio.CancelledError as error:
            # Whoever follows would end as if it was asked to, which nobody notices.
            if _is_cancelled():
                raise
            raise self._gone() from error
        finally:
            call.cancel()
        raise Moved(f"The owner at {self.address} ended its hints. Try again.")

    def note_refused_send(
        self, partition: PartitionId, entity: EntityKey, messages: int, error: LockstepError
    ) -> None:
        """As `OwnerChannel` says; nobody waits for it, and what is lost is a count."""
        self._refused(
            wire.NoteRefusedSendRequest(
                partition=partition,
                namespace=entity.namespace,
                queue=entity.name,
                messages=messages,
                reason=error.reason,
            ),
            timeout=_ANSWER_MS / 1000,
        )

    async def close(self) -> None:
        """Let go of the connection; calls under way raise Moved."""
        await self._channel.close()

    def _gone(self) -> Moved:
        return Moved(f"The owner at {self.address} has gone. Try again.")

    def _told(self, error: grpc.aio.AioRpcError) -> LockstepError:
        told = from_rpc_error(error)
        is_grpc = "grpc_code" in told.details and "reason" not in told.details
        if is_grpc and isinstance(told, ConnectionFailed | OperationTimeout):
            return Moved(f"The owner at {self.address} gave no answer: {told.message}. Try again.")
        return told


def _partition_standing(owned: wire.OwnedPartition) -> PartitionStanding:
    return PartitionStanding(
        PartitionId(owned.partition),
        owned.state,
        owned.why,
        PartitionEpoch(owned.epoch.generation, owned.epoch.revision, 0),
        open_ms=owned.open_ms,
        messages=owned.messages,
        ready_messages=owned.ready_messages,
        ready_sessions=owned.ready_sessions,
        waiting_commands=owned.waiting_commands,
        definitions=owned.definitions_revision,
    )


def _is_cancelled() -> bool:
    """Whether the task that runs was cancelled, and not only its call, because the channel was closed."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
