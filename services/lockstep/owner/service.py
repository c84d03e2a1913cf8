"""What an owner serves to front ends in other processes.

Here belongs the way of a call from the internal API to the partitions of this process and back. Never here: what a
partition does. The law: an answer says under which epoch it was made, so that a front end can tell one that was
overtaken.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from lockstep.cluster.port import OwnerChannel
from lockstep.cluster.standing import OwnerStanding
from lockstep.core.errors import InvalidOperation, Moved
from lockstep.core.ids import EntityKey, PartitionEpoch, PartitionId
from lockstep.internal.v1 import owner_service_pb2 as wire
from lockstep.wire.owner_calls import decode_command, encode_reply
from lockstep.wire.server import Method, Service, StreamMethod
from lockstep.wire.status import error_for_reason


class Owner(OwnerChannel, Protocol):
    """The partitions of this process."""

    def epoch_of(self, partition: PartitionId) -> PartitionEpoch:
        """Return under which epoch a partition is open here.

        Raises:
            Moved: It is not.
        """

    def standing(self) -> OwnerStanding:
        """Return how the partitions of this process stand."""


class OwnerService:
    """Answers the calls of lockstep.internal.v1.OwnerService. Errors are raised; the server sends them."""

    def __init__(self, partitions: int) -> None:
        """Serve nothing until `serve`.

        Args:
            partitions: How many the cluster has, so that a front end that believes otherwise is refused.
        """
        self._partitions = partitions
        self._served: Owner | None = None

    def serve(self, owner: Owner) -> None:
        """Answer from now on."""
        self._served = owner

    @property
    def _owner(self) -> Owner:
        if self._served is None:
            raise Moved("This process is starting. Try again.")
        return self._served

    async def call(self, request: wire.CallRequest) -> wire.CallResponse:
        """Carry out a command."""
        partition = PartitionId(request.partition)
        if request.partitions != self._partitions:
            raise InvalidOperation(
                f"This front end was started for {request.partitions} partitions, and the cluster has"
                f" {self._partitions}. Nothing was done. Start it with --partitions {self._partitions}.",
                details={"observed": str(request.partitions), "configured": str(self._partitions)},
            )
        command = decode_command(request.command, request.fields)
        answer = await self._owner.call(
            partition,
            command,
            wait_ms=request.wait_ms,
            placement=request.placement or None,
        )
        name, fields = encode_reply(answer.reply)
        response = wire.CallResponse(
            reply=name, fields=fields, messages=answer.messages, state=answer.state
        )
        epoch = self._owner.epoch_of(partition)
        response.epoch.generation, response.epoch.revision = epoch[:2]
        return response

    async def follow_hints(
        self, payloads: AsyncIterator[bytes], send: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """Tell hints until the partition moves or the front end goes."""
        async for payload in payloads:
            partition = PartitionId(wire.FollowHintsRequest.FromString(payload).partition)
            async for hints in self._owner.follow_hints(partition):
                response = wire.FollowHintsResponse()
                for hint in hints:
                    response.hints.add(
                        namespace=hint.entity.namespace,
                        queue=hint.entity.name,
                        dead_letter=hint.dead_letter,
                        count=hint.count,
                    )
                await send(response.SerializeToString())

    async def note_refused_send(
        self, request: wire.NoteRefusedSendRequest
    ) -> wire.NoteRefusedSendResponse:
        """Count messages that a front end refused (SND-2)."""
        entity = EntityKey(request.namespace, request.queue)
        error = error_for_reason(request.reason, "")
        self._owner.note_refused_send(
            PartitionId(request.partition), entity, request.messages, error
        )
        return wire.NoteRefusedSendResponse()

    async def describe(self, _request: wire.DescribeOwnerRequest) -> wire.DescribeOwnerResponse:
        """Tell how the partitions here stand; an owner that starts has none."""
        if self._served is None:
            return wire.DescribeOwnerResponse()
        standing = self._served.standing()
        response = wire.DescribeOwnerResponse(catalogue_revision=standing.catalogue)
        for one in standing.partitions:
            owned = response.partitions.add(
                partition=one.partition,
                state=one.state,
                why=one.why,
                open_ms=one.open_ms,
                messages=one.messages,
                ready_messages=one.ready_messages,
                ready_sessions=one.ready_sessions,
                waiting_commands=one.waiting_commands,
                definitions_revision=one.definitions,
            )
            owned.epoch.generation, owned.epoch.revision = one.epoch[:2]
        return response

    def methods(self) -> Service:
        """Return the service for a server."""
        return Service(
            "lockstep.internal.v1.OwnerService",
            (
                Method("Call", self.call, wire.CallRequest, is_reserved=True),
                Method("NoteRefusedSend", self.note_refused_send, wire.NoteRefusedSendRequest),
                Method("DescribeOwner", self.describe, wire.DescribeOwnerRequest, is_reserved=True),
            ),
            (StreamMethod("FollowHints", self.follow_hints, is_reserved=True),),
        )
