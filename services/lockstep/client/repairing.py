"""Work on dead letters, whether it blocks or not.

Here belongs what both administration clients do about jobs. Never here: the public classes (`aio`, `blocking`), the
values (`dead_letter_jobs`). The laws: a start carries a request id, so a retry begins no second job; a wait looks from
time to time, and what it waits for goes on without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from lockstep.client.connection import Connection
from lockstep.client.dead_letter_jobs import (
    DeadLetterJob,
    DeadLetterJobKind,
    DeadLetterSelector,
    job_from_wire,
    kind_number,
    selector_to_wire,
)
from lockstep.client.transport import (
    CANCEL_DEAD_LETTER_JOB,
    GET_DEAD_LETTER_JOB,
    LIST_DEAD_LETTER_JOBS,
    START_DEAD_LETTER_JOB,
    StandingTime,
)
from lockstep.client.values import PropertyValue, check_id, property_values, seconds_to_ms
from lockstep.core.errors import InvalidRequest, OperationTimeout
from lockstep.core.wording import counted
from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import dead_letter_job_pb2 as wire

OnProgress = Callable[[DeadLetterJob], object]
"""Called with a job as often as it was looked at, the last time when it has ended."""

_FIRST_PAUSE_MS: Final = 20
_PAUSE_MS_MAX: Final = 500
_LOOK_MS_MIN: Final = 1_000  # for the last look of a wait that is over
# Where time stands still, a job that went no further in so many looks waits for time.
_LOOKS_MAX: Final = 40


def job_options(  # noqa: PLR0913 - a parameter for each option
    *,
    target: str = "",
    to_session_id: str | None = None,
    application_properties: Mapping[str, PropertyValue] | None = None,
    new_message_id: bool = False,
    at_head: bool = False,
    max_resubmits: int = 0,
    messages_per_second: int = 0,
    dry_run: bool = False,
    reason: str = "",
) -> wire.DeadLetterJobOptions:
    """Return what a job does on the way as a protobuf value.

    Raises:
        TypeError: A value is of a wrong type.
        LimitExceeded: The session id is too long.
        InvalidRequest: A number does not fit its type.
    """
    check_id(to_session_id, "to_session_id")
    try:
        return wire.DeadLetterJobOptions(
            target=target,
            session_id=to_session_id,
            properties=property_values(application_properties),
            new_message_id=new_message_id,
            at_head=at_head,
            max_resubmits=max_resubmits,
            messages_per_second=messages_per_second,
            dry_run=dry_run,
            reason=reason,
        )
    except ValueError as error:
        raise InvalidRequest(f"An option is out of range: {error}.") from error


class Repairing:
    """Starts and watches jobs on the dead letters of one broker namespace."""

    def __init__(self, connection: Connection) -> None:
        """Work over `connection`."""
        self._connection = connection
        self._calls = connection.calls
        self._namespace = connection.namespace

    async def start(
        self,
        queue: str,
        kind: DeadLetterJobKind,
        selector: DeadLetterSelector | None,
        options: wire.DeadLetterJobOptions,
        requested_by: str,
    ) -> DeadLetterJob:
        """Begin a job and return it; it goes on by itself (RSB-1, ADD-11).

        Raises:
            LockstepError: As the server says; see `AdministrationClient.resubmit_dead_letters`.
        """
        self._connection.check_open()
        request = admin.StartDeadLetterJobRequest(
            namespace=self._namespace,
            queue=queue,
            kind=kind_number(kind),
            selector=selector_to_wire(selector or DeadLetterSelector()),
            options=options,
            requested_by=requested_by,
            request_id=self._calls.new_request_id(),
        )
        return job_from_wire((await self._calls.call(START_DEAD_LETTER_JOB, request)).job)

    async def get(
        self, queue: str, number: int, *, patience_ms: int | None = 0, budget_ms: int | None = None
    ) -> DeadLetterJob:
        """Return how a job stands.

        Args:
            queue: The queue.
            number: The job.
            patience_ms: For how long an outage is sat out; None = for ever.
            budget_ms: How long all tries together may take; None = as long as the policy lets them.

        Raises:
            EntityNotFound: There is no such queue.
            JobNotFound: The queue has no such job, or has forgotten it.
        """
        self._connection.check_open()
        request = admin.GetDeadLetterJobRequest(
            namespace=self._namespace, queue=queue, number=number
        )
        response = await self._calls.call(
            GET_DEAD_LETTER_JOB, request, patience_ms=patience_ms, budget_ms=budget_ms
        )
        return job_from_wire(response.job)

    async def list(self, queue: str) -> list[DeadLetterJob]:
        """Return the last jobs of a queue, the newest first.

        Raises:
            EntityNotFound: There is no such queue.
        """
        self._connection.check_open()
        request = admin.ListDeadLetterJobsRequest(namespace=self._namespace, queue=queue)
        response = await self._calls.call(LIST_DEAD_LETTER_JOBS, request)
        return list(map(job_from_wire, response.jobs))

    async def cancel(self, queue: str, number: int) -> DeadLetterJob:
        """Let a job end where it is, and return it; one that has ended stays as it is.

        Raises:
            EntityNotFound: There is no such queue.
            JobNotFound: The queue has no such job, or has forgotten it.
        """
        self._connection.check_open()
        request = admin.CancelDeadLetterJobRequest(
            namespace=self._namespace, queue=queue, number=number
        )
        return job_from_wire((await self._calls.call(CANCEL_DEAD_LETTER_JOB, request)).job)

    async def wait(
        self, job: DeadLetterJob, on_progress: OnProgress | None, wait_s: float | None
    ) -> DeadLetterJob:
        """Wait for the end of a job and return it as it ended, whatever its status then is.

        An outage of the server is sat out. The first look is at once, then the pauses grow to half a second.

        Raises:
            OperationTimeout: It still runs after `wait_s` seconds, and goes on.
            EntityNotFound: The queue was deleted.
            JobNotFound: The queue has forgotten the job.
        """
        pauses = _Pauses(self._connection, wait_s)
        while True:
            seen = job
            left_ms = pauses.left_ms
            budget_ms = None if left_ms is None else max(left_ms, _LOOK_MS_MIN)
            job = await self.get(job.queue, job.number, patience_ms=left_ms, budget_ms=budget_ms)
            if on_progress is not None:
                on_progress(job)
            if not job.is_running:
                return job
            if left_ms == 0:
                raise OperationTimeout(
                    f"Job {job.number} of {job.queue} still runs after {wait_s} s, with"
                    f" {counted(job.matched_message_count, 'message')} taken. It goes on; wait again, or cancel it."
                )
            await pauses.pause(went_on=job != seen)


class _Pauses:
    """The pauses between the looks of one wait."""

    def __init__(self, connection: Connection, wait_s: float | None) -> None:
        self._transport = connection.transport
        self._ends_ms = None
        if wait_s is not None:
            self._ends_ms = self._transport.monotonic_ms() + seconds_to_ms(wait_s, "timeout")
        self._next_ms = _FIRST_PAUSE_MS
        self._looks = 0

    @property
    def left_ms(self) -> int | None:
        """How much of the wait is left; None = it has no end."""
        if self._ends_ms is None:
            return None
        return max(0, self._ends_ms - self._transport.monotonic_ms())

    async def pause(self, *, went_on: bool) -> None:
        """Wait until the next look is due."""
        if isinstance(self._transport, StandingTime):
            self._looks = 0 if went_on else self._looks + 1
            if self._looks < _LOOKS_MAX:
                await self._transport.settle()
                return
        left_ms = self.left_ms
        await self._transport.sleep(
            self._next_ms if left_ms is None else min(self._next_ms, left_ms)
        )
        self._next_ms = min(2 * self._next_ms, _PAUSE_MS_MAX)
