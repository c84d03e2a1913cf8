"""The programs in examples/, run as a user runs them."""

from __future__ import annotations

import re

import pytest

from lockstep import LockstepClient
from tests.examples.conftest import ROOT, Server

# An example of a test is run by pytest: tests/testing/test_pytest_plugin.py.
EXAMPLES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.glob("examples/*.py")
    if not path.name.startswith("test_")
)
FIVE = [name for name in EXAMPLES if "five" in name]
ORDERS = "examples/orders.py"
PROCESSOR = "examples/processor.py"
REPAIR = "examples/dead_letter_repair.py"
REQUEST_REPLY = "examples/request_reply.py"
STREAM = "examples/stream.py"


def assert_nothing_is_left(server: Server, queue: str) -> None:
    with LockstepClient(server.address) as client:
        administration = client.get_administration_client()
        assert administration.get_queue_runtime_properties(queue).total_message_count == 0
        assert list(administration.list_sessions(queue)) == []


def test_each_example_is_tested_here() -> None:
    assert {*FIVE, ORDERS, PROCESSOR, REPAIR, REQUEST_REPLY, STREAM} == set(EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_explains_itself(server: Server, example: str) -> None:
    ran = server.run_python(example, "--help")

    assert ran.code == 0
    assert "--server" in ran.output
    assert "127.0.0.1:7700" in ran.output


@pytest.mark.parametrize("example", FIVE)
def test_five_messages_come_in_one_call_every_time(server: Server, example: str) -> None:
    for _ in range(2):
        ran = server.run_python(example, "--server", server.address)

        assert re.sub(r"-[0-9a-f]{6}\b", "-ID", ran.output).splitlines() == [
            "Sent 5 messages of session greetings-ID.",
            "Received 5 in one call: message 1, message 2, message 3, message 4, message 5.",
            "Completed 5.",
            "Closed the session: the next receiver can have it.",
        ]
        assert ran.code == 0
        assert_nothing_is_left(server, "example-five")


def test_orders_go_through_their_steps_in_order_in_spite_of_a_crash(server: Server) -> None:
    for _ in range(2):
        ran = server.run_python(ORDERS, "--server", server.address, "--receivers", "5")

        sent, crashed, goes_on, report = ran.output.splitlines()
        assert sent == "Sent 200 steps of 20 orders, interleaved."
        crash = re.fullmatch(r"(receiver-\d) crashed after step (\d+) of (order-\S+)\.", crashed)
        assert crash is not None
        other = re.fullmatch(r"(receiver-\d) goes on with (\S+): step (\d+) is done.*", goes_on)
        assert other is not None
        assert (other[2], other[3]) == (crash[3], crash[2])
        assert other[1] != crash[1]
        assert report == "All 20 orders went through steps 1 to 10 in order, by 5 receivers."
        assert ran.code == 0
        assert_nothing_is_left(server, "example-orders")


def test_a_processor_works_on_sessions_in_order_in_spite_of_a_failure(server: Server) -> None:
    for _ in range(2):
        ran = server.run_python(PROCESSOR, "--server", server.address)

        assert ran.output.splitlines() == [
            "Sent 12 steps of 3 parcels.",
            "handler: label: the printer was out of paper; it is tried again.",
            "All 3 parcels: pack, weigh, label, ship, in this order.",
        ]
        assert ran.code == 0
        assert_nothing_is_left(server, "example-parcels")


def test_each_requester_gets_the_answers_to_its_own_requests(server: Server) -> None:
    for _ in range(2):
        ran = server.run_python(REQUEST_REPLY, "--server", server.address)

        assert ran.output.splitlines() == [
            f"{customer} asked for {fruit}: {price} cents, {customer}."
            for customer in ("Ada", "Bob")
            for fruit, price in (("apple", 30), ("pear", 45), ("plum", 15))
        ]
        assert ran.code == 0
        assert_nothing_is_left(server, "example-replies")


def test_a_stream_goes_on_where_the_one_before_ended(server: Server) -> None:
    for _ in range(2):
        ran = server.run_python(STREAM, "--server", server.address)

        assert re.sub(r"-[0-9a-f]{6}\b", "-ID", ran.output).splitlines() == [
            "Sent 100 readings of meter-ID.",
            "The first stream handled 1 to 30.",
            "The second stream handled 31 to 100.",
            "Each reading came once, in order.",
        ]
        assert ran.code == 0
        assert_nothing_is_left(server, "example-readings")


def test_dead_letters_are_repaired_and_what_fails_again_is_parked(server: Server) -> None:
    for _ in range(2):
        ran = server.run_python(REPAIR, "--server", server.address)

        assert ran.output.splitlines() == [
            "Sent 7 invoices.",
            "Handled: Ada 10 EUR, Ada 30 EUR, Bob 10 EUR, Bob 30 EUR.",
            "Dead letters: 1 NoAmount, 2 UnknownCurrency",
            "resubmit: 2 taken, 0 left.",
            "Handled: Ada 20 CHF, Bob 20 CHF.",
            "resubmit: 1 taken, 0 left.",
            "Handled: nothing.",
            "resubmit: 0 taken, 1 left.",
            "Handled: nothing.",
            "move: 1 taken, 0 left.",
            "For a person: 'EUR' of Bob, dead because of NoAmount, 1 time resubmitted.",
        ]
        assert ran.code == 0
        assert_nothing_is_left(server, "example-invoices")


def test_without_a_server_an_example_ends_with_an_error(server: Server) -> None:
    ran = server.run_python(FIVE[0], "--server", "127.0.0.1:1")

    assert ran.code == 1
    assert ran.output.startswith("error: ")
