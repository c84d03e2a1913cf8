"""The calls of the admin service about work on dead letters.

Here belongs their way from the wire to a partition and back. Never here: rules.
"""

from __future__ import annotations

from lockstep.core.commands import CancelJob, ListJobs
from lockstep.core.replies import JobIs, JobsAre
from lockstep.frontend.router import Router
from lockstep.runtime.ids import IdSource
from lockstep.v1 import admin_service_pb2 as admin
from lockstep.wire.jobs import job_message, job_queue, start_command


class JobCalls:
    """Answers those calls. Errors are raised; the server sends them."""

    def __init__(self, router: Router, ids: IdSource) -> None:
        self._router = router
        self._ids = ids

    async def start(
        self, request: admin.StartDeadLetterJobRequest
    ) -> admin.StartDeadLetterJobResponse:
        """Begin a job (RSB-1, ADD-11)."""
        command = start_command(request, self._ids.uid())
        reply = (await self._router.call_home(command, command.entity)).reply
        assert isinstance(reply, JobIs)
        return admin.StartDeadLetterJobResponse(job=job_message(reply.job, command.entity.name))

    async def get(self, request: admin.GetDeadLetterJobRequest) -> admin.GetDeadLetterJobResponse:
        """Show how a job stands."""
        entity = job_queue(request.namespace, request.queue)
        # Number 0, which means "all" to the core, is no job.
        reply = (await self._router.call_home(ListJobs(entity, request.number or -1), entity)).reply
        assert isinstance(reply, JobsAre)
        return admin.GetDeadLetterJobResponse(job=job_message(reply.jobs[0], entity.name))

    async def list(
        self, request: admin.ListDeadLetterJobsRequest
    ) -> admin.ListDeadLetterJobsResponse:
        """List the last jobs of a queue."""
        entity = job_queue(request.namespace, request.queue)
        reply = (await self._router.call_home(ListJobs(entity), entity)).reply
        assert isinstance(reply, JobsAre)
        return admin.ListDeadLetterJobsResponse(
            jobs=[job_message(job, entity.name) for job in reply.jobs]
        )

    async def cancel(
        self, request: admin.CancelDeadLetterJobRequest
    ) -> admin.CancelDeadLetterJobResponse:
        """Let a job end where it is."""
        entity = job_queue(request.namespace, request.queue)
        reply = (await self._router.call_home(CancelJob(entity, request.number), entity)).reply
        assert isinstance(reply, JobIs)
        return admin.CancelDeadLetterJobResponse(job=job_message(reply.job, entity.name))
