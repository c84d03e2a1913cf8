"""What is counted of jobs on dead letters, and of messages that expire."""

from __future__ import annotations

import pytest

from lockstep.core.commands import Outcome, Send, StartJob
from lockstep.core.ids import EntityKey, SessionId
from lockstep.core.jobs import JobKind, JobOptions, Selector
from lockstep.core.replies import JobIs
from lockstep.v1.message_pb2 import Message
from tests.unit.owner.owner_rig import PLAIN, SESSIONS, Owner

OTHER = EntityKey("default", "other")
SECOND_MS = 1_000


async def run(
    owner: Owner,
    key: EntityKey,
    kind: JobKind,
    selector: Selector | None = None,
    options: JobOptions | None = None,
) -> None:
    """Let a job go on to its end."""
    command = StartJob(key, kind, selector or Selector(), options or JobOptions(), "uid")
    await owner.call(command, JobIs)
    await owner.pass_time(0)


async def test_what_jobs_do_is_counted_of_the_queue_with_the_dead_letters(owner: Owner) -> None:
    await owner.create(PLAIN)
    await owner.create(OTHER)
    message = Message(body=b"x").SerializeToString()  # a move reads what it moves
    await owner.call(Send(PLAIN, (message,) * 10, (None,)), object)
    await owner.settle(PLAIN, Outcome.DEAD_LETTER, await owner.receive(PLAIN))

    dry = JobOptions(dry_run=True)
    await run(owner, PLAIN, JobKind.PURGE, options=dry)
    await run(owner, PLAIN, JobKind.RESUBMIT, Selector(max_count=1))
    await run(owner, PLAIN, JobKind.RESUBMIT, Selector(max_count=2), JobOptions(at_head=True))
    await run(owner, PLAIN, JobKind.MOVE, Selector(max_count=3), JobOptions(target=OTHER))
    await run(owner, PLAIN, JobKind.PURGE)

    assert owner.counted(PLAIN, "dead_letters_taken") == {
        ("resubmitted",): 3,
        ("moved",): 3,
        ("purged",): 4,
    }
    assert owner.counted(OTHER, "dead_letters_taken") == {}
    assert owner.counted(PLAIN, "messages_enqueued") == {("client",): 10, ("resubmit",): 3}
    assert owner.counted(OTHER, "messages_enqueued") == {("resubmit",): 3}
    assert owner.of_process("owner_dead_letters_taken_total", outcome="purged") == 4


async def test_a_session_that_was_dead_lettered_is_the_administrators_doing(owner: Owner) -> None:
    await owner.create(SESSIONS)
    await owner.send(SESSIONS, 3, "a")

    await run(owner, SESSIONS, JobKind.DEAD_LETTER, Selector(session_id=SessionId("a")))

    assert owner.counted(SESSIONS, "messages_dead_lettered") == {("administrator",): 3}


@pytest.mark.parametrize("is_kept", [False, True])
async def test_messages_that_expire_are_counted_once_dropped_or_dead(
    owner: Owner, is_kept: bool
) -> None:
    await owner.create(PLAIN, dead_lettering_on_message_expiration=is_kept)
    await owner.call(Send(PLAIN, (b"x",) * 3, (None,), ttls_ms=(SECOND_MS,)), object)

    await owner.pass_time(SECOND_MS)
    await owner.receive(PLAIN)

    assert owner.counted(PLAIN, "messages_expired") == ({} if is_kept else {(): 3})
    dead = owner.counted(PLAIN, "messages_dead_lettered")
    assert dead == ({("ttl",): 3} if is_kept else {})
