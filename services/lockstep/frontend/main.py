"""The front end, put together: which method of the public API is answered by what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass

from lockstep.cluster.port import Directory, Member
from lockstep.core.limits import Limits
from lockstep.externalscaler import externalscaler_pb2 as keda
from lockstep.frontend.admin import AdminService
from lockstep.frontend.idle_queues import delete_idle_queues
from lockstep.frontend.jobs import JobCalls
from lockstep.frontend.messaging import MessagingService
from lockstep.frontend.router import RETRY_FOR_MS, Router
from lockstep.frontend.scaler import ScalerService
from lockstep.frontend.spread_jobs import SpreadJobs
from lockstep.frontend.taking import Taker
from lockstep.frontend.waits import Waits
from lockstep.runtime.clock import Clock
from lockstep.runtime.ids import IdSource
from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import messaging_service_pb2 as messaging
from lockstep.wire.server import Method, Service, StreamMethod

_ALONE = "lockstep"


@dataclass(frozen=True, slots=True)
class Services:
    """The public API.

    Attributes:
        messaging: What services use.
        admin: What people and operators use.
        scaler: What KEDA asks.
        waits: The calls that wait here, to be sent away when the process stops.
        run: Follows what owners tell, tends jobs and looks for idle queues, until cancelled; runs beside the services.
    """

    messaging: Service
    admin: Service
    scaler: Service
    waits: Waits
    run: Callable[[], Coroutine[None, None, None]]

    @property
    def all(self) -> list[Service]:
        """All of them."""
        return [self.messaging, self.admin, self.scaler]


def build_services(
    directory: Directory,
    *,
    clock: Clock,
    limits: Limits,
    ids: IdSource,
    release: str,
    retry_for_ms: int = RETRY_FOR_MS,
    note_retry: Callable[[str], None] = lambda _reason: None,
    members: Callable[[], Sequence[Member]] | None = None,
) -> Services:
    """Return the services of the public API over the owners of a directory.

    Args:
        directory: The way to the owners.
        clock: For deadlines.
        limits: Those of the owners.
        ids: Makes the ids of queues and jobs.
        release: The release that runs, for explanations.
        retry_for_ms: How long a call is made again that found no owner, or lost it.
        note_retry: Told the reason each time.
        members: Tells who may own partitions; None = this process, and nobody else.
    """
    router = Router(directory, clock, retry_for_ms, note_retry)
    taker = Taker(router)
    jobs = SpreadJobs(router)
    waits = Waits()
    alone = Member(_ALONE, release, is_leaving=False, partitions=directory.partitions)
    tell_members = members or (lambda: (alone,))
    messages = MessagingService(router, taker, waits, ids, limits.response_bytes_max)

    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(taker.run())
            tasks.create_task(jobs.run())
            tasks.create_task(delete_idle_queues(router))

    return Services(
        messaging=_messaging(messages),
        admin=_admin(
            AdminService(router, ids, release, taker.waiting, limits, tell_members),
            JobCalls(jobs, ids),
        ),
        scaler=_scaler(ScalerService(router, waits)),
        waits=waits,
        run=run,
    )


def _messaging(service: MessagingService) -> Service:
    return Service(
        "lockstep.v1.MessagingService",
        (
            Method("SendMessages", service.send_messages, refused=service.note_refused_send),
            Method(
                "CancelScheduledMessages",
                service.cancel_scheduled_messages,
                messaging.CancelScheduledMessagesRequest,
            ),
            Method(
                "AcceptSession",
                service.accept_session,
                messaging.AcceptSessionRequest,
                wants_caller=True,
            ),
            Method("ReceiveMessages", service.receive_messages, messaging.ReceiveMessagesRequest),
            Method(
                "ReceiveDeferredMessages",
                service.receive_deferred_messages,
                messaging.ReceiveDeferredMessagesRequest,
            ),
            Method("PeekMessages", service.peek_messages, messaging.PeekMessagesRequest),
            Method("SettleMessages", service.settle_messages, is_reserved=True),
            Method(
                "RenewMessageLocks",
                service.renew_message_locks,
                messaging.RenewMessageLocksRequest,
                is_reserved=True,
            ),
            Method(
                "RenewSessionLock",
                service.renew_session_lock,
                messaging.RenewSessionLockRequest,
                is_reserved=True,
            ),
            Method(
                "ReleaseSession",
                service.release_session,
                messaging.ReleaseSessionRequest,
                is_reserved=True,
            ),
            Method(
                "GetSessionState",
                service.get_session_state,
                messaging.GetSessionStateRequest,
                is_reserved=True,
            ),
            Method(
                "SetSessionState",
                service.set_session_state,
                messaging.SetSessionStateRequest,
                is_reserved=True,
            ),
            Method("CommitTurn", service.commit_turn, is_reserved=True),
            Method(
                "CancelRequest",
                service.cancel_request,
                messaging.CancelRequestRequest,
                is_reserved=True,
            ),
        ),
        (StreamMethod("StreamMessages", service.stream_messages),),
    )


def _admin(service: AdminService, jobs: JobCalls) -> Service:
    return Service(
        "lockstep.v1.AdminService",
        (
            Method("CreateQueue", service.create_queue, admin.CreateQueueRequest),
            Method("GetQueue", service.get_queue, admin.GetQueueRequest),
            Method("ListQueues", service.list_queues, admin.ListQueuesRequest),
            Method("UpdateQueue", service.update_queue, admin.UpdateQueueRequest),
            Method("DeleteQueue", service.delete_queue, admin.DeleteQueueRequest),
            Method("GetSession", service.get_session, admin.GetSessionRequest),
            Method("ListSessions", service.list_sessions, admin.ListSessionsRequest),
            Method("BreakSessionLock", service.break_session_lock, admin.BreakSessionLockRequest),
            Method(
                "ClearSessionStates", service.clear_session_states, admin.ClearSessionStatesRequest
            ),
            Method("ExplainDelivery", service.explain_delivery, admin.ExplainDeliveryRequest),
            Method("StartDeadLetterJob", jobs.start, admin.StartDeadLetterJobRequest),
            Method("GetDeadLetterJob", jobs.get, admin.GetDeadLetterJobRequest),
            Method("ListDeadLetterJobs", jobs.list, admin.ListDeadLetterJobsRequest),
            Method("CancelDeadLetterJob", jobs.cancel, admin.CancelDeadLetterJobRequest),
            Method("GetCluster", service.get_cluster, admin.GetClusterRequest),
        ),
    )


def _scaler(service: ScalerService) -> Service:
    return Service(
        "externalscaler.ExternalScaler",
        (
            Method("IsActive", service.is_active, keda.ScaledObjectRef),
            Method("GetMetricSpec", service.get_metric_spec, keda.ScaledObjectRef),
            Method("GetMetrics", service.get_metrics, keda.GetMetricsRequest),
        ),
        (StreamMethod("StreamIsActive", service.stream_is_active),),
    )
