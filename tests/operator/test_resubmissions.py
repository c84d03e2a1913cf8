"""DeadLetterResubmission objects: a job of the broker, started once, told of on an API server (RSB-1, ADD-11)."""

from __future__ import annotations

from typing import Any

import lockstep.aio as client
from tests.kube.client import RESUBMISSION, Refused
from tests.operator.running import Body, Site, condition, until


async def dead_letters(site: Site, count: int, queue: str = "orders") -> None:
    """Have so many dead letters in a queue."""
    async with site.admin() as admin, site.client() as talking:
        await admin.create_queue(queue)
        async with talking.get_queue_sender(queue) as sender:
            await sender.send_messages([client.Message(b"%d" % n) for n in range(count)])
        async with talking.get_queue_receiver(queue) as receiver:
            left = count
            while left:
                for message in await receiver.receive_messages(max_message_count=left):
                    await receiver.dead_letter_message(message, reason="tried")
                    left -= 1


async def resubmit(site: Site, name: str = "again", **spec: Any) -> Body:
    return await site.kube.apply(
        {
            "apiVersion": "lockstep.dev/v1alpha1",
            "kind": "DeadLetterResubmission",
            "metadata": {"name": name, "namespace": site.namespace},
            "spec": {"source": {"kind": "Queue", "name": "orders"}, **spec},
        }
    )


async def in_phase(site: Site, phase: str, name: str = "again") -> Body:
    async def look() -> Body | None:
        found = await site.kube.get(RESUBMISSION, name, site.namespace)
        return found if (found.get("status") or {}).get("phase") == phase else None

    found: Body = await until(look, f"{name} is {phase}")
    return found


async def held(site: Site) -> tuple[int, int]:
    """Return how many messages and dead letters the queue has."""
    async with site.admin() as admin:
        one = await admin.get_queue_runtime_properties("orders")
    return one.active_message_count, one.dead_letter_message_count


async def test_dead_letters_go_back_and_the_object_says_so(site: Site) -> None:
    await dead_letters(site, 20)
    await site.start()

    await resubmit(site, maxMessages=15)
    body = await in_phase(site, "Complete")

    assert await held(site) == (15, 5)
    status = body["status"]
    assert (status["matched"], status["moved"], status["skipped"]) == (15, 15, 0)
    assert status["entityPath"] == f"{site.namespace}/orders"
    assert status["startTime"] <= status["completionTime"]
    assert (condition(body, "Complete") or {})["status"] == "True"
    async with site.admin() as admin:
        (job,) = await admin.list_dead_letter_jobs("orders")
    assert job.requested_by.startswith(f"{site.namespace}/again ")
    await site.event("Complete")


async def test_a_dry_run_moves_nothing(site: Site) -> None:
    await dead_letters(site, 3)
    await site.start()

    await resubmit(site, dryRun=True)
    status = (await in_phase(site, "Complete"))["status"]

    assert (status["matched"], status["moved"]) == (3, 0)
    assert await held(site) == (0, 3)


async def test_what_is_suspended_stands_still_and_goes_on_with_the_rest(site: Site) -> None:
    await dead_letters(site, 10)
    await site.start()
    await resubmit(site, maxMessages=8, ratePerSecond=1)

    async def began() -> bool:
        return (await held(site))[0] > 0

    await in_phase(site, "Running")
    await until(began, "the job began")
    await site.kube.patch(RESUBMISSION, "again", site.namespace, {"spec": {"suspend": True}})
    body = await in_phase(site, "Suspended")
    stood_at = await held(site)
    assert body["status"]["moved"] == stood_at[0]

    change = {"spec": {"suspend": False, "ratePerSecond": None}}
    await site.kube.patch(RESUBMISSION, "again", site.namespace, change)
    status = (await in_phase(site, "Complete"))["status"]

    assert status["moved"] == 8
    assert await held(site) == (8, 2)


async def test_another_operator_goes_on_where_one_was_killed(site: Site) -> None:
    await dead_letters(site, 5)
    first = await site.start()
    await resubmit(site, ratePerSecond=1)
    await in_phase(site, "Running")
    await first.end()

    await site.start()
    await site.kube.patch(RESUBMISSION, "again", site.namespace, {"spec": {"ratePerSecond": 1000}})
    status = (await in_phase(site, "Complete"))["status"]

    assert status["moved"] == 5
    assert await held(site) == (5, 0)


async def test_a_queue_that_is_not_there_is_told(site: Site) -> None:
    await site.start()

    await resubmit(site)
    body = await in_phase(site, "Failed")

    assert "orders" in body["status"]["error"]
    assert (condition(body, "Failed") or {})["reason"] == "EntityMissing"


async def test_an_object_that_ended_is_removed_after_its_time(site: Site) -> None:
    await dead_letters(site, 1)
    await site.start()

    await resubmit(site, ttlSecondsAfterFinished=0)

    async def gone() -> bool:
        try:
            await site.kube.get(RESUBMISSION, "again", site.namespace)
        except Refused as error:
            return error.code == 404
        return False

    await until(gone, "the object is gone")
    assert await held(site) == (1, 0)


async def test_the_job_of_an_object_that_was_deleted_ends(site: Site) -> None:
    await dead_letters(site, 5)
    await site.start()
    await resubmit(site, ratePerSecond=1)
    await in_phase(site, "Running")

    await site.kube.delete(RESUBMISSION, "again", site.namespace)

    async def ended() -> bool:
        async with site.admin() as admin:
            (job,) = await admin.list_dead_letter_jobs("orders")
        return not job.is_running

    await until(ended, "the job ended")
