"""What the benchmark of the operator measures, part by part.

Here belong the courses of events and their figures. Never here: what runs (`operator_site`), or what figures should be
(`operator`). The laws: times are from a change of an object until a watch tells that it is Ready at that generation;
each part begins with everything Ready, and makes what it lacks.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.measure import (
    Figures,
    cpu_seconds,
    family_cpu_seconds,
    peak_memory_mib,
    percentiles,
)
from bench.operator_site import WITHIN_SECONDS, Lab, OperatorProcess, WrongState, since
from tests.kube.client import QUEUE

# The least that the operator takes, and short enough to wait for.
DRIFT_SECONDS = 10
COUNTS_SECONDS = 5
SETTLE_SECONDS = 2 * COUNTS_SECONDS + 2
POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything.

    Attributes:
        singles: Objects that are applied one after the other.
        queues: Objects that there are.
        many: Objects that there are where memory is measured.
        pending: Objects that are changed while the broker is away.
        outage_seconds: How long the broker is away.
        times: Restarts, and hand-overs of each kind.
    """

    singles: int
    queues: int
    many: int
    pending: int
    outage_seconds: float
    times: int


def spread(prefix: str, seconds: list[float]) -> Figures:
    """Return the middle and the ends of what was seen."""
    ranks = percentiles(seconds)
    return {f"{prefix}.{rank}_s": ranks[rank] for rank in ("p50", "p99", "max")}


def writes_of(found: Counter[str], objects: int) -> Figures:
    """Return the writes for each object, by kind of target. Events are told apart: they tell, and come later."""
    kinds = ("object", "status", "event")
    each = {f"writes.{kind}_per_object": found[kind] / objects for kind in kinds}
    return {"writes.per_object": (found["object"] + found["status"]) / objects, **each}


async def _one(lab: Lab, name: str, **spec: int) -> float:
    """Apply an object, and return how many seconds passed until it was seen Ready."""
    began = time.time()
    return await lab.watched.until(await lab.declare(name, **spec)) - began


# --- applying ---------------------------------------------------------------------------------------------


async def singles(lab: Lab, sizes: Sizes) -> Figures:
    """Apply objects one after the other, then change each."""
    await lab.leading()
    names = lab.new_names(sizes.singles)
    new = [await _one(lab, name) for name in names]
    changed = [await _one(lab, name, maxDeliveryCount=11) for name in names]
    return spread("new", new) | spread("changed", changed)


async def mass(lab: Lab, sizes: Sizes) -> Figures:
    """Apply many objects at once."""
    operator = await lab.leading()
    names = lab.new_names(sizes.queues)
    before, used = await operator.metrics(), cpu_seconds(operator.pid)
    all_used = family_cpu_seconds(os.getpid())
    began = time.time()
    wanted = await lab.declare_all(names)
    applied = time.time()
    ready = await lab.watched.until(wanted)
    after, used = await operator.metrics(), cpu_seconds(operator.pid) - used
    calls = after.total("broker_requests_total") - before.total("broker_requests_total")
    return {
        "applied_s": applied - began,
        "all_ready_s": ready - began,
        **writes_of(since(before.writes(), after.writes()), sizes.queues),
        "broker_calls_per_object": calls / sizes.queues,
        "cpu.operator_ms_per_object": used / sizes.queues * 1e3,
        "cpu.all_ms_per_object": (family_cpu_seconds(os.getpid()) - all_used) / sizes.queues * 1e3,
    }


async def resync(lab: Lab, sizes: Sizes) -> Figures:
    """Change every queue behind the operator's back, and apply new objects while it sets them back."""
    names = await lab.have(sizes.queues)
    await lab.rest()
    async with lab.site.admin() as admin:
        for name in names:
            await admin.update_queue(name, max_delivery_count=99)
    operator = lab.leader = lab.new_operator(driftIntervalSeconds=DRIFT_SECONDS)
    began = await operator.leads()
    seconds: list[float] = []
    while await _corrected(operator) < 1:  # noqa: ASYNC110 - it is another process
        await asyncio.sleep(POLL_SECONDS)
    while (corrected := await _corrected(operator)) < len(names):
        if time.time() - began > WITHIN_SECONDS:
            raise WrongState(f"only {corrected:g} of {len(names)} queues were set back")
        seconds.append(await _one(lab, lab.new_names(1)[0]))
    took = time.time() - began
    await lab.rest()
    return {**spread("new", seconds), "new.count": len(seconds), "resync_s": took}


async def _corrected(operator: OperatorProcess) -> float:
    return (await operator.metrics()).total("drift_corrections_total")


# --- starting -----------------------------------------------------------------------------------------------


async def restart(lab: Lab, sizes: Sizes) -> Figures:
    """Restart the operator while one new object waits for it; everything else is as it should be."""
    await lab.have(sizes.queues)
    found: dict[str, list[float]] = {}
    for _ in range(sizes.times):
        for name, value in (await _restart(lab)).items():
            found.setdefault(name, []).append(value)
    await lab.rest()
    return {name: max(values) for name, values in found.items()}


async def _restart(lab: Lab) -> Figures:
    await lab.rest()
    wanted = await lab.declare_all(lab.new_names(1))
    before = await lab.versions()
    began = time.time()
    operator = lab.leader = lab.new_operator(countsRefreshSeconds=COUNTS_SECONDS)
    leads = await operator.leads()
    ready = await lab.watched.until(wanted)
    await asyncio.sleep(SETTLE_SECONDS)  # a comparison and two looks at the counts
    after = await lab.versions()
    changed = [one for one, version in after.items() if before[one] != version]
    return {
        "start_to_leader_s": leads - began,
        "leader_to_first_ready_s": ready - leads,
        "unchanged_objects_written": len(changed) - 1,
        "process_cpu_s": cpu_seconds(operator.pid),
    }


async def handover(lab: Lab, sizes: Sizes) -> Figures:
    """End the operator that works in order, and let another one follow."""
    return await _hand_over(lab, sizes, with_kill=False)


async def kill(lab: Lab, sizes: Sizes) -> Figures:
    """Kill the operator that works, and let another one follow."""
    return await _hand_over(lab, sizes, with_kill=True)


async def _hand_over(lab: Lab, sizes: Sizes, *, with_kill: bool) -> Figures:
    await lab.have(sizes.queues)
    leader, works, ready = await lab.leading(), list[float](), list[float]()
    for _ in range(sizes.times):
        follower = lab.new_operator()
        await follower.stands_by()
        began = time.time()
        leader.end(with_kill=with_kill)
        wanted = await lab.declare_all(lab.new_names(1))
        works.append(await follower.leads() - began)
        ready.append(await lab.watched.until(wanted) - began)
        await leader.ended()
        leader = lab.leader = follower
    return {
        "other_leads.p50_s": percentiles(works)["p50"],
        "other_leads.max_s": max(works),
        "object_ready.max_s": max(ready),
    }


# --- a broker that is away ------------------------------------------------------------------------------------


async def outage(lab: Lab, sizes: Sizes) -> Figures:
    """Kill the broker, declare new queues and change others, and start it again."""
    names = await lab.have(sizes.queues)
    operator, server = await lab.leading(), lab.site.server
    await _settled(operator)
    changed = names[: sizes.pending // 2]
    new = lab.new_names(sizes.pending - len(changed))
    before, versions = await operator.metrics(), await lab.versions()
    lab.watched.lost.clear()
    server.kill()
    began = time.time()
    wanted = await lab.declare_all(changed, maxDeliveryCount=12) | await lab.declare_all(new)
    await asyncio.sleep(max(0.0, began + sizes.outage_seconds - time.time()))
    during = since(before.writes(), (await operator.metrics()).writes())
    others = await _written(lab, versions, but=wanted)
    back = time.time()
    await asyncio.to_thread(server.start)
    serves = time.time()
    ready = await lab.watched.until(wanted)
    await _settled(operator)
    return {
        "during.status_writes": during["status"],
        "during.object_writes": during["object"],
        "during.event_writes": during["event"],
        "during.other_objects_written": others,
        "away_s": serves - began,
        "start_to_all_ready_s": ready - back,
        "serving_to_all_ready_s": max(0.0, ready - serves),
        "others_not_ready": len(lab.watched.lost - wanted.keys()),
        "other_objects_written": await _written(lab, versions, but=wanted),
    }


async def _written(lab: Lab, before: Mapping[str, str], *, but: Mapping[str, int]) -> int:
    after = await lab.versions()
    return sum(1 for name, old in before.items() if name not in but and after[name] != old)


async def _settled(operator: OperatorProcess) -> None:
    """Wait until two samples, which the operator takes every 5 s, show that nothing waits."""
    quiet = 0
    while quiet < 2:
        await asyncio.sleep(COUNTS_SECONDS)
        metrics = await operator.metrics()
        quiet = quiet + 1 if not metrics.total("workqueue_depth") else 0


# --- memory -------------------------------------------------------------------------------------------------


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise WrongState(f"process {pid} shows no VmRSS")


async def memory(lab: Lab, sizes: Sizes) -> Figures:
    """Measure the memory of an operator that made all queues, and of one that found them."""
    return await _memory(lab, sizes.queues)


async def many(lab: Lab, sizes: Sizes) -> Figures:
    """The same with more objects."""
    return await _memory(lab, sizes.many)


async def _memory(lab: Lab, queues: int) -> Figures:
    await lab.have(queues)
    maker = await lab.leading()
    await _settled(maker)
    made = {
        "maker.resident_mib": resident_mib(maker.pid),
        "maker.peak_mib": peak_memory_mib(maker.pid),
    }
    await lab.rest()
    finder = await lab.leading()
    await _settled(finder)
    objects = await lab.site.kube.list_all(QUEUE, lab.site.namespace)
    return {
        "objects": len(objects),
        **made,
        "finder.resident_mib": resident_mib(finder.pid),
        "finder.peak_mib": peak_memory_mib(finder.pid),
    }


Part = Callable[[Lab, Sizes], Awaitable[Figures]]
PARTS: Mapping[str, Part] = {
    one.__name__: one
    for one in (singles, mass, resync, restart, outage, memory, handover, kill, many)
}
