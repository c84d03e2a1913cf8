"""What becomes of a stream's session when its partition moves as the stream ends (SES-20, RACE-19)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from lockstep.cluster.port import Answer, Hint, OwnerChannel
from lockstep.core.commands import Command, Disconnect, ReleaseSession
from lockstep.core.errors import LockstepError, Moved
from lockstep.core.ids import EntityKey, PartitionId, SessionId
from lockstep.frontend.router import Router
from lockstep.frontend.streaming import MessageStream
from lockstep.frontend.taking import Taker
from lockstep.frontend.waits import Waits
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.unit.frontend.cluster_rig import ORDERS, PARTITIONS, Cluster, running_cluster, session_on

HOME = 1
NAME = session_on(HOME)


class MovingOwner:
    """The owners, of which the first call of some kinds finds its partition moving."""

    def __init__(self, owner: OwnerChannel, *kinds: type[Command]) -> None:
        self.partitions = PARTITIONS
        self._owner = owner
        self._kinds = kinds
        self.refused = 0

    def owner_of(self, _partition: PartitionId) -> OwnerChannel:
        return self

    async def call(
        self,
        partition: PartitionId,
        command: Command,
        *,
        wait_ms: int = 0,
        placement: str | None = None,
    ) -> Answer:
        if isinstance(command, self._kinds) and not self.refused:
            self.refused += 1
            raise Moved("Partition 1 is moving. Try again.")
        return await self._owner.call(partition, command, wait_ms=wait_ms, placement=placement)

    def follow_hints(self, partition: PartitionId) -> AsyncIterator[Sequence[Hint]]:
        return self._owner.follow_hints(partition)

    def note_refused_send(
        self, partition: PartitionId, entity: EntityKey, messages: int, error: LockstepError
    ) -> None:
        self._owner.note_refused_send(partition, entity, messages, error)


class OpenStream:
    """A stream that has accepted a session, and its caller's side."""

    def __init__(self, cluster: Cluster, owners: MovingOwner) -> None:
        router = Router(owners, cluster.clock)
        self._requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._stream = MessageStream(router, Taker(router), Waits(), self._take, "stream")
        self.kinds: list[str | None] = []

    async def serve(self) -> None:
        choice = messaging.SessionChoice(session_id=NAME)
        opening = messaging.StreamOpen(entity=ORDERS.name, session=choice, receiver_client_id="me")
        request = messaging.StreamMessagesRequest(open=opening)
        self._requests.put_nowait(request.SerializeToString())
        await self._stream.serve(self._asked())

    async def _asked(self) -> AsyncIterator[bytes]:
        while (payload := await self._requests.get()) is not None:
            yield payload

    async def _take(self, payload: bytes) -> None:
        response = messaging.StreamMessagesResponse.FromString(payload)
        self.kinds.append(response.WhichOneof("response"))

    def close(self) -> None:
        self._requests.put_nowait(None)


def is_held(cluster: Cluster) -> bool:
    partition = cluster.supervisor._actor(PartitionId(HOME)).partition
    session = partition.queues[ORDERS].sessions.get(SessionId(NAME))
    return session is not None and session.is_held


@pytest.mark.parametrize("is_broken", [False, True])
async def test_a_stream_that_ends_while_its_partition_moves_gives_its_session_back(
    *, is_broken: bool
) -> None:
    async with running_cluster() as cluster:
        await cluster.create(release_on_disconnect=True)
        owners = MovingOwner(cluster.supervisor, ReleaseSession, Disconnect)
        stream = OpenStream(cluster, owners)
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(stream.serve())
            await cluster.pass_time(0)
            assert stream.kinds == ["opened"]
            assert is_held(cluster)

            if is_broken:
                serving.cancel()
            stream.close()
            await cluster.pass_time(1_000)

        assert owners.refused == 1
        assert not is_held(cluster)
