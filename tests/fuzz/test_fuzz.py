"""Short fuzzes, counted in calls, and proof that a fuzz sees what it is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from lockstep.v1 import messaging_service_pb2 as messaging
from lockstep.wire.server import Service
from tests.fuzz.api import METHODS
from tests.fuzz.broker import Fuzzed, LocalBroker, Problem
from tests.fuzz.building import Builder
from tests.fuzz.campaign import Campaign, replay
from tests.fuzz.driver import Failure
from tests.fuzz.judge import judge_refusal, judge_response
from tests.fuzz.knowledge import Knowledge
from tests.fuzz.reducing import reduced
from tests.fuzz.server import ProcessBroker
from tests.fuzz.steps import Call, Calls, Journal, Restart, Step, read_steps, write_steps
from tests.server.calls import Refusal

PEEK = "/lockstep.v1.MessagingService/PeekMessages"


async def fuzz(broker: Fuzzed, seed: int, *, calls: int, directory: Path) -> Campaign:
    """Fuzz a broker with so many calls."""
    await broker.open()
    campaign = Campaign(seed, broker, Journal(directory / "steps"))
    try:
        await campaign.run(lambda made: made < calls)
    finally:
        await broker.close()
    return campaign


async def again(broker: Fuzzed, steps: Sequence[Step]) -> None:
    await broker.open()
    try:
        await replay(steps, broker)
    finally:
        await broker.close()


# --- the broker --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_every_answer_is_a_documented_one_and_the_broker_stays_whole(
    seed: int, tmp_path: Path
) -> None:
    campaign = await fuzz(LocalBroker(tmp_path / "b"), seed, calls=900, directory=tmp_path)

    methods = {kind.partition(" ")[0] for kind in campaign.driver.seen}
    assert methods == {path.rpartition("/")[2] for path in METHODS}


@pytest.mark.slow
async def test_a_server_process_answers_as_documented_and_stops_in_order(tmp_path: Path) -> None:
    await fuzz(ProcessBroker(tmp_path / "server"), 4, calls=150, directory=tmp_path)


async def test_one_seed_makes_the_same_fuzz_each_time(tmp_path: Path) -> None:
    first = await fuzz(LocalBroker(tmp_path / "1"), 5, calls=120, directory=tmp_path)
    second = await fuzz(LocalBroker(tmp_path / "2"), 5, calls=120, directory=tmp_path)
    other = await fuzz(LocalBroker(tmp_path / "3"), 6, calls=120, directory=tmp_path)

    assert first.driver.trace == second.driver.trace
    assert first.driver.trace != other.driver.trace


# --- that it sees ------------------------------------------------------------------------------------


class Faulty(LocalBroker):
    """A broker with a bug: it fails when it shows messages."""

    def services(self) -> list[Service]:
        return [
            replace(service, methods=[replace(m, call=_failing(m.call)) for m in service.methods])
            for service in super().services()
        ]


def _failing(call: Any) -> Any:
    async def fails(request: Any) -> Any:
        response = await call(request)
        if isinstance(request, messaging.PeekMessagesRequest) and response.startswith(b"\n"):
            raise LookupError
        return response

    return fails


@pytest.mark.slow
async def test_a_planted_bug_is_found_and_brought_down_to_the_calls_it_needs(
    tmp_path: Path,
) -> None:
    made: list[Faulty] = []

    def make() -> Faulty:
        made.append(Faulty(tmp_path / f"again-{len(made)}"))
        return made[-1]

    with pytest.raises(Failure, match="INTERNAL") as caught:
        await fuzz(make(), 7, calls=1200, directory=tmp_path)
    taken = read_steps(tmp_path / "steps")
    steps = await reduced(taken, taken, caught.value, make)

    assert caught.value.call is not None
    assert caught.value.call.path == PEEK
    assert steps is not None
    assert len(steps) <= 4  # a queue, a send, a look, and perhaps time
    with pytest.raises(Failure, match="INTERNAL"):
        await again(make(), steps)
    await again(LocalBroker(tmp_path / "sound"), steps)


def test_every_field_of_every_request_is_filled() -> None:
    random = Random(1)
    builder = Builder(random, Knowledge(random), lambda: 1_700_000_000_000)
    for method in METHODS.values():
        wanted = {field.name for field in method.request.DESCRIPTOR.fields}

        filled: set[str] = set()
        for _ in range(60):
            request = builder.build(method.request, care=0.5)
            filled |= {field.name for field, _ in request.ListFields()}

        assert filled == wanted, method.path


def test_steps_are_read_as_they_were_written(tmp_path: Path) -> None:
    steps: list[Step] = [Calls((Call(PEEK, b"\x00\xff"), Call(PEEK, b""))), Restart()]

    write_steps(steps, tmp_path / "steps")

    assert read_steps(tmp_path / "steps") == steps


@pytest.mark.parametrize(
    ("code", "reason", "text"),
    [
        (grpc.StatusCode.INTERNAL, "INTERNAL", "a bug"),
        (grpc.StatusCode.UNKNOWN, "", "no reason"),
        (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", "the store failed"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", "it hangs"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "", "too large, but it was not"),
        (grpc.StatusCode.NOT_FOUND, "INVALID_ARGUMENT", "the code of another reason"),
        (grpc.StatusCode.NOT_FOUND, "ENTITY_NOT_FOUND", ""),
    ],
)
def test_an_undocumented_refusal_is_a_problem(
    code: grpc.StatusCode, reason: str, text: str
) -> None:
    with pytest.raises(Problem):
        judge_refusal(Call(PEEK, b""), Refusal(code, reason, text, {}, None))


def test_a_documented_refusal_is_none() -> None:
    code = grpc.StatusCode.NOT_FOUND

    judge_refusal(Call(PEEK, b""), Refusal(code, "ENTITY_NOT_FOUND", "There is none.", {}, None))


@pytest.mark.parametrize(
    "response",
    [
        messaging.PeekMessagesResponse(sequence_numbers=[1]),
        messaging.PeekMessagesResponse(delivery_counts=[1]),
        b"\xff",
    ],
)
def test_an_unsound_response_is_a_problem(response: Message | bytes) -> None:
    payload = response if isinstance(response, bytes) else response.SerializeToString()

    with pytest.raises(Problem):
        judge_response(Call(PEEK, b""), payload)
