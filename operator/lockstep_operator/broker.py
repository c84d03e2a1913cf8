"""The broker, as the operator needs it: its public administration service and nothing else.

Here belong calls and their conversion. Never here: what is called when (`plan`, `reconciler`). The laws: an error
arrives as the class that left the broker, by its reason and never by its text; every call is counted and has an end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from lockstep.client.queue_properties import queue_from_wire, settings_of, settings_to_wire
from lockstep.core.errors import LockstepError, OperationTimeout, Unavailable
from lockstep.runtime.clock import Clock
from lockstep.runtime.ids import IdSource
from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import admin_service_pb2_grpc as admin_grpc
from lockstep.v1 import dead_letter_job_pb2, entity_pb2, request_pb2
from lockstep.wire.status import from_rpc_error
from lockstep_operator.plan import MANAGER, Entity

_CALL_S = 30
_PAGE = 500
_CHANNEL = (
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 20_000),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a queue held when it was asked.

    Attributes:
        active: Messages in the queue proper.
        dead_letters: Dead letters.
        scheduled: Messages that become active later.
        size_bytes: What counts toward its quota.
        sessions: Sessions that nobody held.
        locked_sessions: Sessions that a receiver held.
        accessed_ms: When it was used last, since the epoch.
    """

    active: int = 0
    dead_letters: int = 0
    scheduled: int = 0
    size_bytes: int = 0
    sessions: int = 0
    locked_sessions: int = 0
    accessed_ms: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """A queue of the broker.

    Attributes:
        namespace: The broker namespace.
        name: As it was created.
        entity: Its definition.
        figures: What it held.
    """

    namespace: str
    name: str
    entity: Entity
    figures: Figures


@dataclass(frozen=True, slots=True)
class Keeper:
    """The object that keeps a queue.

    Attributes:
        source: `namespace/name`.
        uid: Its uid.
        generation: Its generation.
    """

    source: str
    uid: str
    generation: int


class _Call(Protocol):
    def __call__(self, request: Any, *, timeout: float) -> Any: ...


@dataclass(frozen=True, slots=True)
class Cluster:
    """How the broker itself is.

    Attributes:
        release: Of the front end that told.
        nodes_ready: Owners that may get partitions.
        partitions_owned: Partitions that have an owner.
        partitions_total: All.
    """

    release: str
    nodes_ready: int
    partitions_owned: int
    partitions_total: int


class Broker:
    """Calls the administration of a broker."""

    def __init__(
        self,
        address: str,
        *,
        clock: Clock,
        ids: IdSource,
        counted: Callable[[str, str, float], None] | None = None,
    ) -> None:
        """Make a client; the first call connects.

        Args:
            address: `host:port`.
            clock: Measures calls.
            ids: Makes the name of this client, unique in the world.
            counted: Told of each call: its name, the gRPC code, its seconds.
        """
        self._channel = grpc.aio.insecure_channel(address, options=_CHANNEL)
        self._stub = admin_grpc.AdminServiceStub(self._channel)
        self._clock = clock
        self._counted = counted
        self._client = f"{MANAGER}-{ids.client_id()}"
        self._calls = 0

    async def close(self) -> None:
        """End the connection."""
        await self._channel.close()

    # --- queues ------------------------------------------------------------------------------------

    async def answers(self) -> None:
        """Ask for next to nothing.

        Raises:
            LockstepError: It does not answer.
        """
        await self._list(1, "")

    async def cluster(self) -> Cluster:
        """Return how the broker itself is.

        Raises:
            LockstepError: It does not answer, or is of a release that does not tell.
        """
        told = await self._call("GetCluster", admin.GetClusterRequest())
        return Cluster(
            release=told.release,
            nodes_ready=sum(1 for node in told.nodes if not node.is_leaving),
            partitions_owned=told.partitions_owned,
            partitions_total=told.partitions_total,
        )

    async def queues(self) -> AsyncIterator[Found]:
        """Yield the queues of all namespaces, with what they hold.

        Raises:
            LockstepError: The broker refused or does not answer.
        """
        token = ""
        while True:
            page = await self._list(_PAGE, token)
            for queue, runtime in zip(page.queues, page.runtimes, strict=True):
                yield _found(queue, runtime)
            token = page.next_page_token
            if not token:
                return

    async def _list(self, size: int, token: str) -> admin.ListQueuesResponse:
        request = admin.ListQueuesRequest(all_namespaces=True, page_size=size, page_token=token)
        response: admin.ListQueuesResponse = await self._call("ListQueues", request)
        return response

    async def queue(self, namespace: str, name: str) -> Found:
        """Return a queue.

        Raises:
            EntityNotFound: It is not there.
            LockstepError: The broker refused or does not answer.
        """
        request = admin.GetQueueRequest(namespace=namespace, name=name)
        response = await self._call("GetQueue", request)
        return _found(response.queue, response.runtime)

    async def create(
        self, namespace: str, name: str, settings: Mapping[str, Any], keeper: Keeper
    ) -> Found:
        """Create a queue that an object keeps.

        Raises:
            EntityAlreadyExists: It is there.
            LockstepError: The broker refused or does not answer.
        """
        request = admin.CreateQueueRequest(
            namespace=namespace,
            name=name,
            settings=settings_to_wire(settings),
            manager=_manager(keeper),
            request_id=self._request_id(),
        )
        return _found((await self._call("CreateQueue", request)).queue)

    async def update(
        self,
        namespace: str,
        name: str,
        settings: Mapping[str, Any],
        keeper: Keeper,
        *,
        take_over: bool,
    ) -> Found:
        """Give a queue these settings, and its defaults where they say nothing.

        Raises:
            EntityNotFound: It is not there.
            EntityManaged: Another object keeps it, and it is not to be taken over.
            RevisionConflict: A later generation of the same object was applied already, and `take_over` is not set.
            LockstepError: The broker refused or does not answer.
        """
        request = admin.UpdateQueueRequest(
            namespace=namespace,
            name=name,
            settings=settings_to_wire(settings),
            manager=_manager(keeper),
            take_over=take_over,
            replace_settings=True,
            request_id=self._request_id(),
        )
        return _found((await self._call("UpdateQueue", request)).queue)

    async def delete(
        self, namespace: str, name: str, *, uid: str, manager_uid: str, if_empty: bool
    ) -> None:
        """Delete the queue with a uid.

        Raises:
            EntityNotFound: It is not there.
            EntityNotEmpty: It holds something, and was to be empty.
            EntityManaged: Another object keeps it.
            LockstepError: The broker refused or does not answer.
        """
        request = admin.DeleteQueueRequest(
            namespace=namespace,
            name=name,
            if_empty=if_empty,
            if_uid=uid,
            if_manager_uid=manager_uid,
            request_id=self._request_id(),
        )
        await self._call("DeleteQueue", request)

    # --- jobs --------------------------------------------------------------------------------------

    async def jobs(self, namespace: str, queue: str) -> list[dead_letter_job_pb2.DeadLetterJob]:
        """Return the jobs of a queue that the broker remembers, the newest first.

        Raises:
            EntityNotFound: There is no such queue.
            LockstepError: The broker refused or does not answer.
        """
        request = admin.ListDeadLetterJobsRequest(namespace=namespace, queue=queue)
        return list((await self._call("ListDeadLetterJobs", request)).jobs)

    async def start_job(
        self, request: admin.StartDeadLetterJobRequest
    ) -> dead_letter_job_pb2.DeadLetterJob:
        """Start a job.

        Raises:
            EntityNotFound: There is no such queue.
            LockstepError: The broker refused or does not answer.
        """
        request.request_id.CopyFrom(self._request_id())
        response: admin.StartDeadLetterJobResponse = await self._call("StartDeadLetterJob", request)
        return response.job

    async def job(
        self, namespace: str, queue: str, number: int
    ) -> dead_letter_job_pb2.DeadLetterJob:
        """Return a job.

        Raises:
            EntityNotFound: There is no such queue.
            JobNotFound: The broker does not remember it.
            LockstepError: The broker refused or does not answer.
        """
        request = admin.GetDeadLetterJobRequest(namespace=namespace, queue=queue, number=number)
        response: admin.GetDeadLetterJobResponse = await self._call("GetDeadLetterJob", request)
        return response.job

    async def cancel_job(
        self, namespace: str, queue: str, number: int
    ) -> dead_letter_job_pb2.DeadLetterJob:
        """End a job and return it; one that has ended stays as it is.

        Raises:
            EntityNotFound: There is no such queue.
            JobNotFound: The broker does not remember it.
            LockstepError: The broker refused or does not answer.
        """
        request = admin.CancelDeadLetterJobRequest(namespace=namespace, queue=queue, number=number)
        response: admin.CancelDeadLetterJobResponse = await self._call(
            "CancelDeadLetterJob", request
        )
        return response.job

    # --- how ---------------------------------------------------------------------------------------

    def _request_id(self) -> request_pb2.RequestId:
        self._calls += 1
        return request_pb2.RequestId(client_id=self._client, counter=self._calls)

    async def _call(self, name: str, request: Any) -> Any:
        call: _Call = getattr(self._stub, name)
        started = self._clock.monotonic_ms()
        code = "OK"
        try:
            return await call(request, timeout=_CALL_S)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            raise from_rpc_error(error) from error
        finally:
            if self._counted is not None:
                self._counted(name, code, (self._clock.monotonic_ms() - started) / 1000)


def is_unreachable(error: LockstepError) -> bool:
    """Whether an error says that the broker, or what it stores in, does not answer: others will meet it too."""
    return isinstance(error, Unavailable | OperationTimeout)


def _manager(keeper: Keeper) -> entity_pb2.Manager:
    return entity_pb2.Manager(
        name=MANAGER,
        source=keeper.source,
        source_uid=keeper.uid,
        generation=keeper.generation,
    )


def _found(queue: entity_pb2.Queue, runtime: entity_pb2.QueueRuntime | None = None) -> Found:
    properties = queue_from_wire(queue)
    settings = {
        name: getattr(value, "value", value) for name, value in settings_of(properties).items()
    }
    return Found(
        namespace=queue.namespace,
        name=queue.name,
        entity=Entity(
            uid=queue.uid,
            revision=queue.revision,
            settings=settings,
            manager_uid=queue.manager.source_uid,
            manager_source=queue.manager.source,
            manager_generation=queue.manager.generation,
            manager_name=queue.manager.name,
        ),
        figures=Figures() if runtime is None else _figures(runtime),
    )


def _figures(runtime: entity_pb2.QueueRuntime) -> Figures:
    return Figures(
        active=runtime.active_messages,
        dead_letters=runtime.dead_letter_messages,
        scheduled=runtime.scheduled_messages,
        size_bytes=runtime.size_bytes,
        sessions=max(runtime.sessions - runtime.locked_sessions, 0),
        locked_sessions=runtime.locked_sessions,
        accessed_ms=runtime.access_time.ToMilliseconds() if runtime.HasField("access_time") else 0,
    )
