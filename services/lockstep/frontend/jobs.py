"""The calls of the admin service about work on dead letters.

Here belongs their way from the wire and back. Never here: rules, or the way to the partitions (`spread_jobs`).
"""

from __future__ import annotations

from lockstep.frontend.spread_jobs import SpreadJobs
from lockstep.runtime.ids import IdSource
from lockstep.v1 import admin_service_pb2 as admin
from lockstep.wire.jobs import job_message, job_queue, start_command


class JobCalls:
    """Answers those calls. Errors are raised; the server sends them."""

    def __init__(self, jobs: SpreadJobs, ids: IdSource) -> None:
        self._jobs = jobs
        self._ids = ids

    async def start(
        self, request: admin.StartDeadLetterJobRequest
    ) -> admin.StartDeadLetterJobResponse:
        """Begin a job (RSB-1, ADD-11)."""
        command = start_command(request, self._ids.uid())
        job = await self._jobs.start(command)
        return admin.StartDeadLetterJobResponse(job=job_message(job, command.entity.name))

    async def get(self, request: admin.GetDeadLetterJobRequest) -> admin.GetDeadLetterJobResponse:
        """Show how a job stands."""
        entity = job_queue(request.namespace, request.queue)
        job = await self._jobs.get(entity, request.number)
        return admin.GetDeadLetterJobResponse(job=job_message(job, entity.name))

    async def list(
        self, request: admin.ListDeadLetterJobsRequest
    ) -> admin.ListDeadLetterJobsResponse:
        """List the last jobs of a queue."""
        entity = job_queue(request.namespace, request.queue)
        jobs = await self._jobs.last(entity)
        return admin.ListDeadLetterJobsResponse(
            jobs=[job_message(job, entity.name) for job in jobs]
        )

    async def cancel(
        self, request: admin.CancelDeadLetterJobRequest
    ) -> admin.CancelDeadLetterJobResponse:
        """Let a job end where it is."""
        entity = job_queue(request.namespace, request.queue)
        job = await self._jobs.cancel(entity, request.number)
        return admin.CancelDeadLetterJobResponse(job=job_message(job, entity.name))
