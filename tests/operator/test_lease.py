"""Who works, of several operators, when Kubernetes is slow, silent or gone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from lockstep.runtime.clock import ManualClock
from lockstep_operator.kube import KubeError, Resource
from lockstep_operator.lease import Lease
from lockstep_operator.settings import LeaseSettings

SETTINGS = LeaseSettings("lockstep-operator", "lockstep")


class StoredLease:
    """A Lease object of an API server that may fall silent.

    Attributes:
        spec: What is stored; None = there is none.
        is_silent: Whether requests are never answered.
        error: What requests are answered with; None = as they should be.
    """

    def __init__(self) -> None:
        self.spec: dict[str, Any] | None = None
        self.version = 0
        self.is_silent = False
        self.error: KubeError | None = None

    async def get(self, resource: Resource, namespace: str | None, name: str) -> dict[str, Any]:
        await self._answer()
        if self.spec is None:
            raise KubeError(404, "NotFound", "no lease")
        return {"metadata": {"resourceVersion": str(self.version)}, "spec": dict(self.spec)}

    async def create(
        self, resource: Resource, namespace: str | None, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        await self._answer()
        if self.spec is not None:
            raise KubeError(409, "AlreadyExists", "there is one")
        return self._store(body)

    async def replace(
        self, resource: Resource, namespace: str | None, name: str, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        await self._answer()
        if body["metadata"]["resourceVersion"] != str(self.version):
            raise KubeError(409, "Conflict", "it changed")
        return self._store(body)

    def _store(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self.spec, self.version = dict(body["spec"]), self.version + 1
        return {"metadata": {"resourceVersion": str(self.version)}, "spec": dict(self.spec)}

    async def _answer(self) -> None:
        if self.is_silent:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error

    @property
    def holder(self) -> str:
        return str((self.spec or {}).get("holderIdentity"))


async def held_for(clock: ManualClock, holding: asyncio.Task[None], most_s: int) -> int:
    """Return after how many seconds a holder stopped; fail if it has not after `most_s`."""
    for second in range(most_s):
        if holding.done():
            return second
        await clock.advance_stepwise(1_000)
    raise AssertionError(f"it holds the lease still, {most_s} s after it was renewed last")


async def test_a_holder_that_kubernetes_does_not_answer_stops_before_another_may_take_over() -> (
    None
):
    clock, stored = ManualClock(), StoredLease()
    lease = Lease(stored, SETTINGS, "a", clock)
    await lease.acquire()
    async with asyncio.TaskGroup() as group:
        holding = group.create_task(lease.hold())
        await clock.advance_stepwise(60_000)
        assert not holding.done()

        stored.is_silent = True
        stopped_after_s = await held_for(clock, holding, 60)

    assert stopped_after_s < SETTINGS.duration_s


async def test_a_holder_that_kubernetes_refuses_stops_before_another_may_take_over() -> None:
    clock, stored = ManualClock(), StoredLease()
    lease = Lease(stored, SETTINGS, "a", clock)
    await lease.acquire()
    stored.error = KubeError(500, "InternalError", "no leader")
    async with asyncio.TaskGroup() as group:
        holding = group.create_task(lease.hold())
        stopped_after_s = await held_for(clock, holding, 60)
    assert stopped_after_s < SETTINGS.duration_s


async def test_a_renewal_that_failed_is_tried_again_within_a_second_or_two() -> None:
    """Or two failures in a row would use up the time that there is."""
    clock, stored = ManualClock(), StoredLease()
    lease = Lease(stored, SETTINGS, "a", clock)
    await lease.acquire()
    before = stored.version
    async with asyncio.TaskGroup() as group:
        holding = group.create_task(lease.hold())
        stored.error = KubeError(500, "InternalError", "no leader")
        await clock.advance_stepwise(SETTINGS.renew_s * 1000 + 500)
        assert stored.version == before
        stored.error = None
        await clock.advance_stepwise(2_000)
        assert stored.version == before + 1
        holding.cancel()


async def test_a_lease_is_taken_from_a_holder_that_was_silent_for_its_whole_duration() -> None:
    clock, stored = ManualClock(), StoredLease()
    await Lease(stored, SETTINGS, "dead", clock).acquire()
    second = Lease(stored, SETTINGS, "b", clock)
    async with asyncio.TaskGroup() as group:
        group.create_task(second.acquire())
        await clock.advance_stepwise(SETTINGS.duration_s * 1000 - 1_000)
        assert stored.holder == "dead"
        await clock.advance_stepwise(2_000)
    assert stored.holder == "b"


async def test_a_lease_that_was_given_back_is_taken_at_once() -> None:
    clock, stored = ManualClock(), StoredLease()
    first = Lease(stored, SETTINGS, "a", clock)
    await first.acquire()
    await first.release()
    await Lease(stored, SETTINGS, "b", clock).acquire()
    assert stored.holder == "b"


async def test_nobody_gives_back_what_another_one_has() -> None:
    clock, stored = ManualClock(), StoredLease()
    await Lease(stored, SETTINGS, "a", clock).acquire()
    await Lease(stored, SETTINGS, "b", clock).release()
    assert stored.holder == "a"


async def test_who_takes_the_operator_away_keeps_the_lease_for_as_long_as_that_takes() -> None:
    """An operator that came back meanwhile would put back each finalizer that was taken out."""
    clock, stored = ManualClock(), StoredLease()
    await Lease(stored, SETTINGS, "operator", clock).acquire()
    returning = Lease(stored, SETTINGS, "operator again", clock)
    goes_on, is_over = asyncio.Event(), asyncio.Event()

    async def take_away() -> None:
        async with Lease(stored, SETTINGS, "hook", clock).seized():
            await goes_on.wait()
        is_over.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(take_away())
        group.create_task(returning.acquire())
        await clock.advance_stepwise(300_000)
        assert stored.holder == "hook"

        goes_on.set()
        await is_over.wait()
        await clock.advance_stepwise(29_000)
        assert stored.holder == "hook"
        await clock.advance_stepwise(5_000)
    assert stored.holder == "operator again"


async def test_an_error_of_who_takes_the_operator_away_is_told_as_it_is() -> None:
    clock, stored = ManualClock(), StoredLease()
    with pytest.raises(KubeError, match="forbidden"):
        async with Lease(stored, SETTINGS, "hook", clock).seized():
            raise KubeError(403, "Forbidden", "forbidden")
