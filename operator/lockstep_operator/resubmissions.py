"""DeadLetterResubmission objects: a job of the broker, started once and told of.

Here belongs what becomes of such an object. Never here: the job itself; it runs in the broker and goes on without the
operator. The laws: the jobs of an object are found in the broker by its uid, so a restart neither repeats nor forgets
one; an object that ended is not looked at again but for its removal.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from lockstep.core import errors
from lockstep.core.errors import LockstepError
from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import dead_letter_job_pb2 as wire
from lockstep_operator.declared import PAUSED
from lockstep_operator.kube import RESUBMISSIONS, KubeError
from lockstep_operator.looks import Parts, Result
from lockstep_operator.objects import Body, Key
from lockstep_operator.plan import Event
from lockstep_operator.status import time_text

log = logging.getLogger(__name__)

_WATCH_MS = 2_000
_REQUESTED_BY_CHARS = 84
_ENDED = frozenset({"Complete", "Failed"})
_RUNNING = wire.DEAD_LETTER_JOB_STATUS_RUNNING


@dataclass(slots=True)
class _Told:
    """What the status says of an object after a look.

    Attributes:
        phase: Pending, Running, Suspended, Complete or Failed.
        reason: Why, for machines.
        message: Why, for people.
        figures: Other fields of the status.
    """

    phase: str
    reason: str
    message: str
    figures: dict[str, Any] = field(default_factory=dict)


class Resubmissions:
    """Looks at DeadLetterResubmission objects."""

    def __init__(self, parts: Parts) -> None:
        """Look with `parts`."""
        self._parts = parts
        self._running: dict[Key, tuple[str, str, int]] = {}

    async def look_at(self, key: Key) -> Result:
        """Do what is to be done about an object.

        Raises:
            KubeError: Kubernetes does not answer.
        """
        body = self._parts.objects.get(key)
        if body is None:
            return await self._gone(key)
        if not self._parts.around.is_ours(body) or _is_going(body):
            return Result(outcome="noop")
        if (body.get("status") or {}).get("phase") in _ENDED:
            return await self._ended(key, body)
        if (body["metadata"].get("annotations") or {}).get(PAUSED) == "true":
            return Result(outcome="noop")
        if self._parts.breaker.is_open:
            return Result(outcome="retry", is_retried=True)
        if not self._parts.around.allows_ours(key.namespace):
            text = f"The Broker takes no objects of namespace {key.namespace}; add it to its spec.allowedNamespaces."
            return await self._tell(key, body, _Told("Failed", "NotAllowedNamespace", text))
        try:
            told = await self._carry_on(key, body)
        except errors.EntityNotFound as error:
            told = _Told("Failed", "EntityMissing", str(error))
        except errors.InvalidRequest as error:
            told = _Told("Failed", "InvalidSpec", str(error))
        except LockstepError as error:
            self._parts.breaker.failed(error)
            log.info("resubmission.refused", extra={"object": str(key), "reason": error.reason})
            return Result(outcome="retry", is_retried=True)
        return await self._tell(key, body, told)

    # --- the job -----------------------------------------------------------------------------------

    async def _carry_on(self, key: Key, body: Body) -> _Told:
        spec = body["spec"]
        namespace = self._parts.around.broker_namespace(key.namespace)
        queue = _source(body)
        tag = _tag(key, body)
        jobs = [
            one
            for one in await self._parts.broker.jobs(namespace, queue)
            if one.requested_by == tag
        ]
        if not jobs and (body.get("status") or {}).get("jobNumber"):
            text = "The broker does not remember the job. What it did stays done; make a new object to go on."
            return _Told("Failed", "JobForgotten", text)
        running = next((one for one in jobs if one.status == _RUNNING), None)
        stop = self._why_stop(body, spec, running)
        if running is not None and stop is not None:
            ended = await self._parts.broker.cancel_job(namespace, queue, running.number)
            jobs = [ended if one.number == ended.number else one for one in jobs]
            running = None
        taken = sum(one.matched_messages for one in jobs)
        if running is None and stop is None and _is_to_start(body, spec, jobs, taken):
            request = _request(namespace, body, tag, taken)
            running = await self._parts.broker.start_job(request)
            jobs.insert(0, running)
            started = Event("Normal", "Started", f"Job {running.number} of queue {queue} began.")
            self._parts.events.tell(key, body, started)
        if running is not None:
            self._running[key] = (namespace, queue, running.number)
        else:
            self._running.pop(key, None)
        return _told(spec, jobs, stop)

    def _why_stop(
        self, body: Body, spec: Mapping[str, Any], running: wire.DeadLetterJob | None
    ) -> _Told | None:
        """Return why no job is to run now; None = one may."""
        if spec.get("suspend"):
            return _Told(
                "Suspended", "Suspended", "spec.suspend is true; set it to false to go on."
            )
        started = (body.get("status") or {}).get("startTime")
        deadline_s = spec.get("activeDeadlineSeconds", 3600)
        if started and self._age_s(started) > deadline_s:
            text = f"It took longer than activeDeadlineSeconds, {deadline_s} s. What it did stays done."
            return _Told("Failed", "DeadlineExceeded", text)
        if running is not None and running.options.messages_per_second != spec.get(
            "ratePerSecond", 0
        ):
            return _Told("Pending", "RateChanged", "The job is started again at the new rate.")
        return None

    def _age_s(self, text: str) -> float:
        at = Timestamp()
        at.FromJsonString(text)
        return (self._parts.clock.now_ms() - at.ToMilliseconds()) / 1000

    async def _gone(self, key: Key) -> Result:
        """End the job of an object that was deleted while it ran."""
        known = self._running.pop(key, None)
        if known is None:
            return Result(outcome="noop")
        namespace, queue, number = known
        try:
            await self._parts.broker.cancel_job(namespace, queue, number)
        except errors.NotFound:
            log.info("resubmission.gone_already", extra={"object": str(key)})
        except LockstepError as error:
            self._parts.breaker.failed(error)
            self._running[key] = known
            return Result(outcome="retry", is_retried=True)
        return Result(outcome="success")

    async def _ended(self, key: Key, body: Body) -> Result:
        """Remove an object that ended long enough ago."""
        status = body.get("status") or {}
        keep_s = (body.get("spec") or {}).get("ttlSecondsAfterFinished")
        if keep_s is None or not status.get("completionTime"):
            return Result(outcome="noop")
        left_s = keep_s - self._age_s(status["completionTime"])
        if left_s > 0:
            return Result(outcome="noop", again_ms=round(left_s * 1000) + 1)
        try:
            await self._parts.kube.delete(
                RESUBMISSIONS, key.namespace, key.name, uid=body["metadata"]["uid"]
            )
        except KubeError as error:
            if not error.is_gone and not error.is_conflict:
                raise
        return Result(outcome="success")

    # --- telling -----------------------------------------------------------------------------------

    async def _tell(self, key: Key, body: Body, told: _Told) -> Result:
        status = body.get("status") or {}
        now = time_text(self._parts.clock.now_ms())
        wanted: dict[str, Any] = {
            "observedGeneration": body["metadata"].get("generation", 0),
            "phase": told.phase,
            "startTime": status.get("startTime") or now,
            "entityPath": f"{self._parts.around.broker_namespace(key.namespace)}/{_source(body)}",
            **told.figures,
            "conditions": _conditions(status, told, body, now),
        }
        if told.phase == "Failed":
            wanted["error"] = told.message
        if told.phase in _ENDED:
            wanted["completionTime"] = now
            kind = "Normal" if told.phase == "Complete" else "Warning"
            self._parts.events.tell(key, body, Event(kind, told.phase, told.message))
        change = {name: value for name, value in wanted.items() if status.get(name) != value}
        if change:
            newer = await self._parts.kube.patch(
                RESUBMISSIONS, key.namespace, key.name, {"status": change}, subresource="status"
            )
            self._parts.objects.learn(key, newer)
        outcome = "stalled" if told.phase == "Failed" else "success" if change else "noop"
        again_ms = {"Suspended": 0, "Complete": 1, "Failed": 1}.get(told.phase, _WATCH_MS)
        return Result(outcome=outcome, again_ms=again_ms, is_ready=told.phase == "Complete")


def _is_going(body: Body) -> bool:
    return body["metadata"].get("deletionTimestamp") is not None


def _source(body: Body) -> str:
    return str(body["spec"]["source"]["name"])


def _tag(key: Key, body: Body) -> str:
    return f"{str(key)[:_REQUESTED_BY_CHARS]} {body['metadata']['uid']}"


def _is_to_start(
    body: Body, spec: Mapping[str, Any], jobs: list[wire.DeadLetterJob], taken: int
) -> bool:
    """Whether a job is to be started: none was, or the last was ended by us and something is left to do."""
    if not jobs:
        return True
    if jobs[0].status != wire.DEAD_LETTER_JOB_STATUS_CANCELLED or _is_used_up(spec, taken):
        return False
    was_suspended = (body.get("status") or {}).get("phase") == "Suspended"
    return was_suspended or jobs[0].options.messages_per_second != spec.get("ratePerSecond", 0)


def _is_used_up(spec: Mapping[str, Any], taken: int) -> bool:
    most = spec.get("maxMessages", 1000)
    return bool(most) and taken >= most


def _told(spec: Mapping[str, Any], jobs: list[wire.DeadLetterJob], stop: _Told | None) -> _Told:
    taken = sum(one.matched_messages for one in jobs)
    figures: dict[str, Any] = {
        "matched": taken,
        "moved": 0 if spec.get("dryRun") else taken,
        "skipped": jobs[0].skipped_messages if jobs else 0,
    }
    if jobs:
        figures["jobNumber"] = jobs[0].number
        figures["orderNote"] = jobs[0].order_note
    if stop is not None:
        return _Told(stop.phase, stop.reason, stop.message, figures)
    last = jobs[0]
    match last.status:
        case wire.DEAD_LETTER_JOB_STATUS_RUNNING:
            return _Told(
                "Running", "Running", f"Job {last.number} took {taken} messages so far.", figures
            )
        case wire.DEAD_LETTER_JOB_STATUS_DONE:
            word = "would take" if spec.get("dryRun") else "took"
            text = f"It {word} {taken} messages and left {last.skipped_messages}."
            return _Told("Complete", "Done", text, figures)
        case wire.DEAD_LETTER_JOB_STATUS_CANCELLED if _is_used_up(spec, taken):
            return _Told(
                "Complete", "Done", f"It took {taken} messages, spec.maxMessages.", figures
            )
        case wire.DEAD_LETTER_JOB_STATUS_CANCELLED:
            text = f"Somebody cancelled job {last.number}. What it did stays done; make a new object to go on."
            return _Told("Failed", "Cancelled", text, figures)
    return _Told("Failed", "JobFailed", last.error, figures)


def _conditions(
    status: Mapping[str, Any], told: _Told, body: Body, now: str
) -> list[dict[str, Any]]:
    known = {one.get("type"): one for one in status.get("conditions") or ()}
    found = []
    for kind in ("Running", "Suspended", "Complete", "Failed"):
        holds = "True" if told.phase == kind else "False"
        old = known.get(kind) or {}
        if holds == "False" and not old:
            continue
        same = old.get("status") == holds
        found.append(
            {
                "type": kind,
                "status": holds,
                "observedGeneration": body["metadata"].get("generation", 0),
                "lastTransitionTime": old["lastTransitionTime"] if same else now,
                "reason": told.reason if holds == "True" else told.phase,
                "message": told.message if holds == "True" else "",
            }
        )
    return found


# --- what the broker is asked ------------------------------------------------------------------------


def _request(namespace: str, body: Body, tag: str, taken: int) -> admin.StartDeadLetterJobRequest:
    spec = body["spec"]
    source = _source(body)
    target = (spec.get("target") or {}).get("name") or source
    moves = target.lower() != source.lower()
    kind = wire.DEAD_LETTER_JOB_KIND_MOVE if moves else wire.DEAD_LETTER_JOB_KIND_RESUBMIT
    options = wire.DeadLetterJobOptions(
        target=target if moves else "",
        new_message_id=spec.get("messageIdPolicy") == "Regenerate",
        at_head=spec.get("sessionOrder") == "OldPlaces",
        max_resubmits=spec.get("maxResubmits", 0),
        messages_per_second=spec.get("ratePerSecond", 0),
        dry_run=bool(spec.get("dryRun")),
    )
    return admin.StartDeadLetterJobRequest(
        namespace=namespace,
        queue=source,
        kind=kind,
        selector=_selector(spec, taken),
        options=options,
        requested_by=tag,
    )


def _selector(spec: Mapping[str, Any], taken: int) -> wire.DeadLetterSelector:
    given = spec.get("selector") or {}
    selector = wire.DeadLetterSelector(sequence_numbers=given.get("sequenceNumbers") or ())
    if given.get("reasons"):
        selector.reason = given["reasons"][0]
    if given.get("sessionIds"):
        selector.session_id = given["sessionIds"][0]
    for name, moment in (
        ("deadLetteredSince", selector.dead_lettered_since),
        ("deadLetteredUntil", selector.dead_lettered_until),
    ):
        if given.get(name):
            moment.FromJsonString(given[name])
    most = spec.get("maxMessages", 1000)
    selector.max_count = max(most - taken, 0) if most else 0
    return selector
