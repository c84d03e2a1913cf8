"""Listing with filters and figures (SES-50, SES-52, ADD-9), and explanations (ADD-10, SND-3)."""

from __future__ import annotations

import pytest

from lockstep.core.commands import Outcome, SessionFilter
from lockstep.core.errors import InvalidRequest
from lockstep.core.replies import Cause
from tests.spec.core_driver import CoreBroker
from tests.spec.driver import (
    Broker,
    DeadLetters,
    Plain,
    bodies,
    complete,
    dead_letter,
    defer,
    needs_clock,
    needs_restart,
    numbered,
)

PLAIN, DEAD = Plain("orders"), DeadLetters("orders")
MINUTE_MS = 60_000


async def with_sessions_of_each_kind(broker: Broker) -> int:
    """Make a queue with one session in each state that a filter knows; return the number of a message that is gone."""
    await broker.create_queue("orders", requires_session=True, lock_duration_ms=5 * MINUTE_MS)
    for name in ("dead", "deferred", "delayed", "held", "runnable"):
        await broker.send("orders", b"x", session=name)
    (gone,) = await broker.send("orders", b"x", session="with-state")
    await broker.send(
        "orders", b"x", session="scheduled", due_ms=[broker.now_ms() + 10 * MINUTE_MS]
    )
    await broker.accept("orders", "held", holder="worker-1")
    for name in ("dead", "deferred", "delayed", "with-state"):
        held = await broker.accept("orders", name)
        got = await broker.receive(held)
        if name == "dead":
            await dead_letter(broker, held, got, reason="broken")
        elif name == "deferred":
            await defer(broker, held, got)
        elif name == "delayed":
            await broker.settle(held, Outcome.ABANDON, got, delay_ms=MINUTE_MS)
        else:
            await broker.set_state(held, b"state")
            await complete(broker, held, got)
        await broker.release_session(held)
    return gone


# --- listing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (
            SessionFilter.ALL,
            ["deferred", "delayed", "held", "runnable", "scheduled", "with-state"],
        ),
        (SessionFilter.HELD, ["held"]),
        (SessionFilter.RUNNABLE, ["runnable"]),
        (SessionFilter.WAITING, ["deferred", "delayed", "scheduled"]),
        (SessionFilter.WITH_DEAD_LETTERS, ["dead"]),
        (SessionFilter.STATE_ONLY, ["with-state"]),
    ],
)
@pytest.mark.parametrize("after_a_restart", [False, pytest.param(True, marks=needs_restart)])
async def test_add_9_a_filter_leaves_what_it_names(
    broker: Broker, shown: SessionFilter, expected: list[str], after_a_restart: bool
) -> None:
    await with_sessions_of_each_kind(broker)
    if after_a_restart:
        await broker.restart()
    found = await broker.filtered("orders", shown)
    assert [view.session_id for view in found] == expected


@needs_clock
async def test_c44_ses_50_states_are_listed_by_when_they_were_set(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    for name in ("a", "b"):
        held = await broker.accept("orders", name)
        await broker.set_state(held, b"state")
        await broker.release_session(held)
        await broker.advance(1_000)
    await broker.send("orders", b"x", session="no-state")

    since = broker.now_ms() - 1_000
    found = await broker.filtered("orders", SessionFilter.ALL, state_since_ms=since)
    assert [view.session_id for view in found] == ["b"]


@needs_clock
async def test_add_9_a_session_shows_its_holder_and_its_oldest_message(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    sent_ms = broker.now_ms()
    await broker.send("orders", b"1", session="s")
    await broker.advance(1_000)
    await broker.send("orders", b"2", session="s")
    held = await broker.accept("orders", "s", holder="worker-1")
    await broker.receive(held, 1)
    await broker.renew(held)

    view = await broker.session("orders", "s")
    assert (view.holder, view.renewals, view.granted_ms) == ("worker-1", 1, sent_ms + 1_000)
    assert (view.first_enqueued_ms, view.oldest_deliverable_ms) == (sent_ms, sent_ms + 1_000)
    await broker.release_session(held)
    view = await broker.session("orders", "s")
    assert (view.holder, view.last_loss, view.released_ms) == ("", "closed", sent_ms + 1_000)
    assert view.oldest_deliverable_ms == sent_ms


async def test_pek_dead_letters_are_seen_by_session_and_reason(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    for session in ("s", "t"):
        await broker.send("orders", *numbered(2), session=session)
        held = await broker.accept("orders", session)
        got = await broker.receive(held)
        await dead_letter(broker, held, got[:1], reason="broken")
        await dead_letter(broker, held, got[1:], reason="late")
        await broker.release_session(held)

    seen = await broker.browse(DEAD, session_id="t")
    assert [(m.session_id, m.reason) for m in seen] == [("t", "broken"), ("t", "late")]
    seen = await broker.browse(DEAD, reason="late")
    assert [(m.session_id, m.reason) for m in seen] == [("s", "late"), ("t", "late")]
    with pytest.raises(InvalidRequest):
        await broker.browse(PLAIN, reason="late")


async def test_pek_2_a_look_at_a_session_shows_its_deferred_messages(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    await broker.send("orders", *numbered(3), session="s")
    held = await broker.accept("orders", "s")
    await defer(broker, held, (await broker.receive(held))[:1])

    assert bodies(await broker.browse(PLAIN, session_id="s")) == numbered(3)


# --- explanations ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("session", "cause", "words"),
    [
        ("held", Cause.HELD, "worker-1"),
        ("runnable", Cause.NO_RECEIVER, "no receiver waits"),
        ("delayed", Cause.DELAYED, "abandoned with a delay"),
        pytest.param("delayed", Cause.DELAYED, "of which 1m are left", marks=needs_clock),
        ("deferred", Cause.DEFERRED, "only 1 deferred"),
        ("scheduled", Cause.SCHEDULED, "1 scheduled message;"),
        pytest.param("scheduled", Cause.SCHEDULED, "due in 10m", marks=needs_clock),
        ("with-state", Cause.EMPTY, "a state of 5 bytes"),
        ("dead", Cause.EMPTY, "It has 1 dead letter."),
        ("Runnable", Cause.EMPTY, "no message and no state"),
    ],
)
async def test_add_10_a_session_is_explained(
    broker: Broker, session: str, cause: Cause, words: str
) -> None:
    await with_sessions_of_each_kind(broker)
    explained = await broker.explain("orders", session_id=session)
    assert explained.cause is cause
    assert words in explained.sentence
    assert explained.remedy


async def test_add_10_a_message_is_explained(broker: Broker) -> None:
    completed = await with_sessions_of_each_kind(broker)
    causes = {}
    for message in [*await broker.browse(PLAIN), *await broker.browse(DEAD)]:
        explained = await broker.explain("orders", sequence=message.sequence)
        causes[message.session_id] = explained.cause
    assert causes == {
        "dead": Cause.DEAD_LETTERED,
        "deferred": Cause.DEFERRED,
        "delayed": Cause.DELAYED,
        "held": Cause.HELD,
        "runnable": Cause.NO_RECEIVER,
        "scheduled": Cause.SCHEDULED,
    }
    never = completed + 99
    for sequence, words in (
        (completed, "stored no more"),
        (never, "never sent: the last number is"),
    ):
        gone = await broker.explain("orders", sequence=sequence)
        assert gone.cause is Cause.GONE
        assert words in gone.sentence


async def test_add_10_a_message_behind_others_says_how_many(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    last = (await broker.send("orders", *numbered(4), session="s"))[-1]
    explained = await broker.explain("orders", sequence=last)
    assert explained.cause is Cause.BEHIND
    assert "behind 3 older messages of session 's'" in explained.sentence
    assert "no receiver waits" in explained.sentence


async def test_add_10_a_locked_message_of_a_plain_queue_says_until_when(broker: Broker) -> None:
    await broker.create_queue("orders")
    await broker.send("orders", *numbered(2))
    (got,) = await broker.receive(PLAIN, 1)
    explained = await broker.explain("orders", sequence=got.sequence)
    assert (explained.cause, explained.until_ms) == (Cause.HELD, got.locked_until_ms)
    assert (await broker.explain("orders")).cause is Cause.NO_RECEIVER


@needs_clock
@pytest.mark.parametrize("has_sessions", [True, False])
async def test_add_10_snd_3_a_queue_is_explained(broker: Broker, has_sessions: bool) -> None:
    await broker.create_queue("orders", requires_session=has_sessions)
    session = "s" if has_sessions else None
    empty = await broker.explain("orders")
    assert empty.cause is Cause.EMPTY
    assert "none came since it was opened" in empty.sentence
    assert "default/orders" in empty.remedy

    await broker.send("orders", b"1", session=session)
    assert (await broker.explain("orders")).cause is Cause.NO_RECEIVER
    assert isinstance(broker, CoreBroker)  # it has a clock
    assert (await broker.explain("orders", waiting=1)).cause is Cause.DELIVERABLE
    source = await broker.accept("orders", "s", holder="drain") if has_sessions else PLAIN
    got = await broker.receive(source)
    assert (await broker.explain("orders")).cause is Cause.HELD
    await complete(broker, source, got)
    drained = await broker.explain("orders")
    assert drained.cause is Cause.EMPTY
    assert "The last delivery was at" in drained.sentence
    facts = dict(drained.facts)
    assert facts["path"] == "default/orders"
    assert facts.get("last_receiver", "") == ("drain" if has_sessions else "")

    await broker.send("orders", b"2", session=session, due_ms=[broker.now_ms() + MINUTE_MS])
    scheduled = await broker.explain("orders")
    assert (scheduled.cause, scheduled.until_ms) == (Cause.SCHEDULED, broker.now_ms() + MINUTE_MS)
    await broker.update_queue("orders", status="receive_disabled")
    assert (await broker.explain("orders")).cause is Cause.DISABLED


@needs_clock
@pytest.mark.parametrize("keeps", [False, True])
async def test_add_10_expired_messages_of_a_plain_queue_are_not_told_as_ready(
    broker: Broker, keeps: bool
) -> None:
    """TTL-4: they wait until a receiver asks."""
    await broker.create_queue("orders", dead_lettering_on_message_expiration=keeps)
    over = await broker.send("orders", b"1", b"2", ttls_ms=[MINUTE_MS])
    expired_ms = broker.now_ms() + MINUTE_MS
    await broker.advance(2 * MINUTE_MS)

    for explained in (
        await broker.explain("orders"),
        await broker.explain("orders", sequence=over[0]),
    ):
        assert (explained.cause, explained.since_ms) == (Cause.EXPIRED, expired_ms)
        assert ("dead-lettered" if keeps else "dropped") in explained.sentence
    assert dict((await broker.explain("orders")).facts)["expired"] == "2"
    (good,) = await broker.send("orders", b"3")
    assert (await broker.explain("orders", sequence=good)).cause is Cause.NO_RECEIVER
    assert "Ready messages: 1." in (await broker.explain("orders")).sentence


@needs_clock
@pytest.mark.parametrize("expiry", ["whole_session", "per_message"])
async def test_add_10_expired_messages_of_a_session_are_not_told_as_ready(
    broker: Broker, expiry: str
) -> None:
    """TTL-6, TTL-7: with one message goes its whole session, unless the queue says otherwise."""
    await broker.create_queue("orders", requires_session=True, session_expiry=expiry)
    over, kept = await broker.send("orders", b"1", b"2", session="s", ttls_ms=[MINUTE_MS, 0])
    await broker.advance(MINUTE_MS)

    causes = [
        (await broker.explain("orders")).cause,
        (await broker.explain("orders", session_id="s")).cause,
        (await broker.explain("orders", sequence=over)).cause,
        (await broker.explain("orders", sequence=kept)).cause,
    ]

    is_whole = expiry == "whole_session"
    others = Cause.EXPIRED if is_whole else Cause.NO_RECEIVER
    assert causes == [others, others, Cause.EXPIRED, others]
    if is_whole:
        told = await broker.explain("orders", sequence=kept)
        assert f"goes with message {over} of its session" in told.sentence


@needs_clock
async def test_add_10_what_expired_behind_a_holder_is_told(broker: Broker) -> None:
    """TTL-5: what is in hand stays with its holder."""
    await broker.create_queue("orders", requires_session=True, lock_duration_ms=5 * MINUTE_MS)
    first, second = await broker.send("orders", b"1", b"2", session="s", ttls_ms=[MINUTE_MS])
    held = await broker.accept("orders", "s", holder="worker-1")
    await broker.receive(held, 1)
    await broker.advance(MINUTE_MS)

    assert (await broker.explain("orders", sequence=first)).cause is Cause.HELD
    assert (await broker.explain("orders", sequence=second)).cause is Cause.EXPIRED
    session = await broker.explain("orders", session_id="s")
    assert session.cause is Cause.HELD
    assert "it can still receive 0" in session.sentence


@needs_clock
async def test_add_10_an_expired_deferred_message_is_told(broker: Broker) -> None:
    """TTL-9: it stays until somebody asks for it, and is not there then."""
    await broker.create_queue("orders")
    await broker.send("orders", b"1", ttls_ms=[MINUTE_MS])
    (number,) = await defer(broker, PLAIN, await broker.receive(PLAIN))
    await broker.advance(MINUTE_MS)

    assert (await broker.explain("orders", sequence=number)).cause is Cause.EXPIRED


@needs_clock
async def test_add_10_a_delay_in_a_held_session_is_told_with_its_holder(broker: Broker) -> None:
    """ADD-6: a broken lock would end nothing."""
    await broker.create_queue("orders", requires_session=True, lock_duration_ms=5 * MINUTE_MS)
    numbers = await broker.send("orders", *numbered(3), session="s")
    held = await broker.accept("orders", "s", holder="worker-1")
    got = await broker.receive(held, 2)
    await broker.settle(held, Outcome.ABANDON, got[1:], delay_ms=MINUTE_MS)
    until_ms = broker.now_ms() + MINUTE_MS

    session = await broker.explain("orders", session_id="s")
    behind = await broker.explain("orders", sequence=numbers[2])
    for told in (session, behind):
        assert (told.cause, told.until_ms) == (Cause.DELAYED, until_ms)
        assert "'worker-1'" in told.sentence
    assert (await broker.explain("orders", sequence=numbers[0])).cause is Cause.HELD
    assert (await broker.explain("orders")).cause is Cause.HELD  # of what is in hand
    await complete(broker, held, got[:1])
    queue = await broker.explain("orders")
    assert (queue.cause, queue.until_ms) == (Cause.DELAYED, until_ms)


@pytest.mark.parametrize("has_sessions", [True, False])
async def test_add_10_an_empty_queue_that_takes_nothing_says_so(
    broker: Broker, has_sessions: bool
) -> None:
    await broker.create_queue("orders", requires_session=has_sessions)
    await broker.update_queue("orders", status="send_disabled")

    told = [await broker.explain("orders")]
    if has_sessions:
        told.append(await broker.explain("orders", session_id="s"))

    for explained in told:
        assert explained.cause is Cause.DISABLED
        assert "send_disabled" in explained.sentence
    await broker.update_queue("orders", status="active")
    await broker.send("orders", b"1", session="s" if has_sessions else None)
    await broker.update_queue("orders", status="send_disabled")
    assert (await broker.explain("orders")).cause is Cause.NO_RECEIVER


async def test_add_10_a_queue_that_is_full_of_dead_letters_says_so(broker: Broker) -> None:
    await broker.create_queue("orders", max_size_in_megabytes=1)
    await broker.send("orders", bytes(524_284), bytes(524_284))
    await dead_letter(broker, PLAIN, await broker.receive(PLAIN))
    explained = await broker.explain("orders")
    assert explained.cause is Cause.QUOTA
    assert "1048576 of 1048576 bytes" in explained.sentence


async def test_add_10_a_session_and_a_message_are_not_explained_together(
    broker: Broker,
) -> None:
    await broker.create_queue("orders", requires_session=True)
    with pytest.raises(InvalidRequest):
        await broker.explain("orders", session_id="s", sequence=1)
