"""Sending (section 3 of the contract, ADD-2)."""

from __future__ import annotations

import pytest

from lockstep.core.errors import (
    EntityNotFound,
    InvalidOperation,
    InvalidRequest,
    LimitExceeded,
    MessageSizeExceeded,
    QuotaExceeded,
    StoreUnavailable,
)
from tests.spec.driver import (
    Broker,
    DeadLetters,
    Plain,
    bodies,
    complete,
    counters,
    dead_letter,
    hold,
    needs_clock,
    needs_faults,
    needs_restart,
    needs_wire,
    numbered,
)

KIB = 1024
LARGE = bytes(300 * KIB)


async def test_snd_4_sending_to_a_missing_queue_is_not_found(broker: Broker) -> None:
    with pytest.raises(EntityNotFound) as refused:
        await broker.send("missing", b"1")

    assert refused.value.details["entity"] == "default/missing"


async def test_snd_5_one_bad_message_refuses_the_whole_batch(broker: Broker) -> None:
    """SND-5, ADD-2: all messages are stored or none."""
    await broker.create_queue("orders", max_message_size_in_kilobytes=1)

    with pytest.raises(MessageSizeExceeded):
        await broker.send("orders", b"1", bytes(2 * KIB), b"3")

    assert await broker.receive(Plain("orders")) == []
    assert counters(await broker.send("orders", b"4")) == [1]


async def test_snd_8_a_message_without_session_is_refused_by_a_session_queue(
    broker: Broker,
) -> None:
    await broker.create_queue("orders", requires_session=True)

    with pytest.raises(InvalidOperation) as refused:
        await broker.send("orders", b"1")

    assert refused.value.details["entity"] == "default/orders"
    assert (await broker.runtime("orders")).active == 0


async def test_snd_8_one_message_without_session_refuses_the_whole_batch(broker: Broker) -> None:
    """ADD-2: a batch is validated whole before anything is stored."""
    await broker.create_queue("orders", requires_session=True)

    with pytest.raises(InvalidOperation) as refused:
        await broker.send("orders", b"1", b"2", b"3", sessions=("a", "b", None))

    assert refused.value.details["index"] == "2"
    assert await broker.sessions("orders") == []


async def test_c32_snd_10_a_plain_queue_keeps_the_session_id_and_does_not_act_on_it(
    broker: Broker,
) -> None:
    """C32: message with id to Q → accepted; received with id preserved. MSG-3."""
    await broker.create_queue("orders")

    await broker.send("orders", b"1", b"2", b"3", sessions=("a", None, ""))
    got = await broker.receive(Plain("orders"))

    assert [(message.body, message.session_id) for message in got] == [
        (b"1", "a"),
        (b"2", None),
        (b"3", ""),
    ]


async def test_c28_a_session_id_has_at_most_128_characters(broker: Broker) -> None:
    """C28: 129 → error; 128 works. Characters, not bytes."""
    await broker.create_queue("orders", requires_session=True)
    longest = "ö" * 128

    with pytest.raises(LimitExceeded) as refused:
        await broker.send("orders", b"1", session=longest + "x")
    await broker.send("orders", b"1", session=longest)

    assert refused.value.details["configured"] == "128"
    assert refused.value.details["observed"] == "129"
    held = await broker.accept("orders", longest)
    assert bodies(await broker.receive(held)) == [b"1"]


async def test_c28_the_limit_holds_for_each_message_of_a_batch_and_on_plain_queues(
    broker: Broker,
) -> None:
    await broker.create_queue("orders")

    with pytest.raises(LimitExceeded):
        await broker.send("orders", b"1", b"2", sessions=("a", "x" * 129))

    assert await broker.receive(Plain("orders")) == []


async def test_snd_12_sequence_numbers_start_at_1_and_rise_in_acceptance_order(
    broker: Broker,
) -> None:
    """SND-12, MSG-4, section 2.2: the first one is 1 in a fresh queue, in the lower 48 bits (ADD-1)."""
    await broker.create_queue("orders")

    first = await broker.send("orders", b"1", b"2")
    second = await broker.send("orders", b"3")
    third = await broker.send("orders", b"4", b"5")

    assert counters(first + second + third) == [1, 2, 3, 4, 5]
    got = await broker.receive(Plain("orders"))
    assert [message.sequence for message in got] == first + second + third
    assert bodies(got) == numbered(5)


async def test_snd_12_each_queue_counts_for_itself(broker: Broker) -> None:
    await broker.create_queue("a")
    await broker.create_queue("b")
    await broker.send("a", *numbered(3))

    assert counters(await broker.send("b", b"1")) == [1]


@needs_restart
async def test_i_7_sequence_numbers_are_never_used_again(broker: Broker) -> None:
    await broker.create_queue("orders")
    await broker.send("orders", *numbered(3))
    await complete(broker, Plain("orders"), await broker.receive(Plain("orders")))

    await broker.restart()

    assert await broker.send("orders", b"4") == [4]


@needs_clock
async def test_enqueued_time_is_the_moment_of_acceptance(broker: Broker) -> None:
    """Section 2.2."""
    await broker.create_queue("orders")
    await broker.send("orders", b"1")
    sent_ms = broker.now_ms()
    await broker.advance(1_500)
    await broker.send("orders", b"2")

    got = await broker.receive(Plain("orders"))

    assert [message.enqueued_ms for message in got] == [sent_ms, sent_ms + 1_500]


@needs_wire
async def test_snd_14_sending_to_the_dead_letter_path_is_refused(broker: Broker) -> None:
    await broker.create_queue("orders")

    with pytest.raises(InvalidRequest):
        await broker.send("orders/$DeadLetterQueue", b"1")


async def test_snd_14_no_queue_name_leads_into_a_dead_letter_store(broker: Broker) -> None:
    """The name of the store is not the name of a queue, so a send cannot name it."""
    await broker.create_queue("orders")

    with pytest.raises(InvalidRequest):
        await broker.create_queue("orders/$deadletterqueue")

    assert await broker.receive(DeadLetters("orders")) == []


async def test_snd_11_a_full_queue_refuses_sends_and_says_how_full_it_is(broker: Broker) -> None:
    await broker.create_queue("orders", max_size_in_megabytes=1)
    for _ in range(3):
        await broker.send("orders", LARGE)

    with pytest.raises(QuotaExceeded) as refused:
        await broker.send("orders", b"1", LARGE)

    assert refused.value.details["limit"] == "max_size_in_megabytes"
    assert refused.value.details["configured"] == str(KIB * KIB)
    assert int(refused.value.details["observed"]) > KIB * KIB
    assert (await broker.runtime("orders")).active == 3


async def test_snd_11_a_full_queue_still_serves_receivers_and_is_free_again_afterwards(
    broker: Broker,
) -> None:
    await broker.create_queue("orders", max_size_in_megabytes=1)
    for _ in range(3):
        await broker.send("orders", LARGE)

    got = await broker.receive(Plain("orders"))
    await complete(broker, Plain("orders"), got[:1])

    assert len(got) == 3
    await broker.send("orders", LARGE)


async def test_snd_11_dead_letters_count_toward_the_quota_until_they_are_completed(
    broker: Broker,
) -> None:
    await broker.create_queue("orders", max_size_in_megabytes=1)
    for _ in range(3):
        await broker.send("orders", LARGE)
    await dead_letter(broker, Plain("orders"), await broker.receive(Plain("orders")))

    with pytest.raises(QuotaExceeded):
        await broker.send("orders", LARGE)
    await complete(broker, DeadLetters("orders"), await broker.receive(DeadLetters("orders"), 1))

    await broker.send("orders", LARGE)


async def test_snd_11_ses_44_session_states_count_toward_the_quota(broker: Broker) -> None:
    held = await hold(broker, max_size_in_megabytes=1)
    await broker.set_state(held, bytes(900 * KIB))

    with pytest.raises(QuotaExceeded):
        await broker.send("orders", LARGE, session="s")
    await broker.set_state(held, None)

    await broker.send("orders", LARGE, session="s")


async def test_a_queue_may_be_filled_to_the_last_byte(broker: Broker) -> None:
    await broker.create_queue("orders", max_size_in_megabytes=1)
    await broker.send("orders", bytes(500_000))
    stored = (await broker.runtime("orders")).size_bytes
    around = stored - 500_000  # what each message of about this size has around its body
    left = KIB * KIB - stored

    with pytest.raises(QuotaExceeded):
        await broker.send("orders", bytes(left - around + 1))
    await broker.send("orders", bytes(left - around))

    assert (await broker.runtime("orders")).size_bytes == KIB * KIB


async def test_lim_1_a_message_that_is_too_large_is_refused_with_its_size(broker: Broker) -> None:
    await broker.create_queue("orders", max_message_size_in_kilobytes=4)

    with pytest.raises(MessageSizeExceeded) as refused:
        await broker.send("orders", b"1", bytes(5 * KIB))

    assert refused.value.details["limit"] == "max_message_size_in_kilobytes"
    assert refused.value.details["configured"] == str(4 * KIB)
    assert int(refused.value.details["observed"]) >= 5 * KIB
    await broker.send("orders", bytes(4 * KIB - 100))


async def test_a_message_may_be_as_large_as_the_limit_and_not_a_byte_larger(
    broker: Broker,
) -> None:
    await broker.create_queue("orders", max_message_size_in_kilobytes=4)
    await broker.send("orders", bytes(4000))
    around = (await broker.runtime("orders")).size_bytes - 4000

    await broker.send("orders", bytes(4 * KIB - around))
    with pytest.raises(MessageSizeExceeded):
        await broker.send("orders", bytes(4 * KIB - around + 1))


@pytest.mark.limits(send_messages_max=3)
async def test_lim_1_a_batch_of_too_many_messages_is_refused(broker: Broker) -> None:
    await broker.create_queue("orders")

    with pytest.raises(LimitExceeded) as refused:
        await broker.send("orders", *numbered(4))

    assert refused.value.details["configured"] == "3"
    assert refused.value.details["observed"] == "4"
    await broker.send("orders", *numbered(3))


@pytest.mark.limits(send_bytes_max=4 * KIB)
async def test_lim_1_a_batch_of_too_many_bytes_is_refused_but_a_single_message_goes(
    broker: Broker,
) -> None:
    await broker.create_queue("orders")

    with pytest.raises(MessageSizeExceeded) as refused:
        await broker.send("orders", bytes(3 * KIB), bytes(3 * KIB))

    assert refused.value.details["limit"] == "send_bytes_max"
    await broker.send("orders", bytes(5 * KIB))


@pytest.mark.limits(partition_messages_max=3)
async def test_a_partition_holds_a_limited_number_of_messages_over_all_its_queues(
    broker: Broker,
) -> None:
    await broker.create_queue("a")
    await broker.create_queue("b")
    await broker.send("a", b"1", b"2")

    with pytest.raises(QuotaExceeded) as refused:
        await broker.send("b", b"3", b"4")

    assert refused.value.details["limit"] == "partition_messages_max"
    await broker.send("b", b"3")
    await complete(broker, Plain("a"), await broker.receive(Plain("a"), 1))
    await broker.send("b", b"4")


@pytest.mark.limits(partition_messages_max=2)
async def test_a_deleted_queue_gives_its_share_of_the_partition_back(broker: Broker) -> None:
    await broker.create_queue("a")
    await broker.create_queue("b")
    await broker.send("a", b"1", b"2")

    await broker.delete_queue("a")

    await broker.send("b", b"1", b"2")


async def test_an_empty_batch_is_refused(broker: Broker) -> None:
    await broker.create_queue("orders")

    with pytest.raises(InvalidRequest):
        await broker.send("orders")


async def test_msg_9_bodies_of_any_bytes_come_back_unchanged(broker: Broker) -> None:
    """MSG-7, MSG-9: an empty body, all byte values, and what looks like text in another encoding."""
    await broker.create_queue("orders")
    sent = [b"", bytes(range(256)), "Grüße".encode("utf-16"), b"\x00" * 10, b"x" * 100_000]

    await broker.send("orders", *sent)

    assert bodies(await broker.receive(Plain("orders"))) == sent


async def test_snd_7_a_batch_of_mixed_sessions_keeps_each_session_s_order(broker: Broker) -> None:
    """SND-7, I-7: mixed sessions in one batch are allowed; numbers rise within each session."""
    await broker.create_queue("orders", requires_session=True)

    await broker.send(
        "orders", b"a1", b"b1", b"a2", b"c1", b"b2", sessions=("a", "b", "a", "c", "b")
    )
    await broker.send("orders", b"a3", session="a")

    for name, expected in {"a": [b"a1", b"a2", b"a3"], "b": [b"b1", b"b2"], "c": [b"c1"]}.items():
        held = await broker.accept("orders", name)
        got = await broker.receive(held)
        assert bodies(got) == expected
        assert [message.session_id for message in got] == [name] * len(expected)


@needs_faults
@pytest.mark.parametrize("is_stored", [False, True])
async def test_i_1_a_send_of_unknown_outcome_is_stored_whole_or_not_at_all(
    broker: Broker, is_stored: bool
) -> None:
    """SND-1, SND-5: the store failed at the commit, so the sender was told nothing."""
    await broker.create_queue("orders")
    broker.fail_next_commit(is_stored=is_stored)

    with pytest.raises(StoreUnavailable):
        await broker.send("orders", b"1", b"2")

    assert bodies(await broker.receive(Plain("orders"))) == ([b"1", b"2"] if is_stored else [])
