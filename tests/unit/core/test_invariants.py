"""Each invariant notices what it is there for: an invariant that cannot fail is none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lockstep.core.commands import Outcome
from lockstep.core.ids import GrantNumber, SessionId
from lockstep.core.invariants import check_partition
from lockstep.core.partition import Partition
from lockstep.core.queue import Queue
from lockstep.core.replies import DeadLetterInfo
from lockstep.core.session import Session
from lockstep.core.turns import Turn
from tests.unit.core.partition_rig import PLAIN, SESSIONS, Rig


def _good() -> Partition:
    rig = Rig()
    rig.create(SESSIONS, requires_session=True)
    rig.create(PLAIN)
    for name in ("s", "t"):
        rig.send(SESSIONS, *([b"x"] * 4), session=name)
        lock = rig.accept(name)
        got = rig.receive(lock, 3)
        rig.settle(lock, Outcome.ABANDON, got.grant, [got.sequences[1]])
    rig.send(SESSIONS, b"x", session="free")
    rig.send(PLAIN, *([b"x"] * 6))
    plain = rig.receive(None, 4)
    rig.settle(None, Outcome.DEAD_LETTER, plain.grant, [1, 2])
    return rig.partition


def _session(partition: Partition, name: str = "s") -> Session:
    return partition.queues[SESSIONS].sessions[SessionId(name)]


def _plain(partition: Partition) -> Queue:
    return partition.queues[PLAIN]


def _set(attribute: str, value: object, name: str = "s") -> Callable[[Partition], None]:
    return lambda partition: setattr(_session(partition, name), attribute, value)


def _of_queue(attribute: str, more: int) -> Callable[[Partition], None]:
    def change(partition: Partition) -> None:
        queue = partition.queues[SESSIONS]
        setattr(queue, attribute, getattr(queue, attribute) + more)

    return change


def _total(partition: Partition) -> None:
    partition.totals.messages += 1


def _size(partition: Partition) -> None:
    _plain(partition).log.size_bytes += 1


def _two_names(partition: Partition) -> None:
    del partition.queues_by_number[_plain(partition).number]


BREAKAGES: dict[str, tuple[Callable[[Partition], object], str]] = {
    "a message in two sessions": (lambda p: _session(p, "free").add([1]), "I-1|I-7"),
    "a message in no place": (lambda p: _session(p).remove([1]), "I-1"),
    "a message that is gone": (lambda p: _plain(p).log.remove([5]), "I-1"),
    "a ready message twice": (lambda p: _plain(p).main.give_back(5), "I-1"),
    "the number of messages": (_total, "totals"),
    "the bytes of messages": (_size, "I-9: size"),
    "a number that was not given out": (
        lambda p: setattr(_plain(p).log, "last_sequence", 3),
        "I-7: sequence",
    ),
    "a count of nothing": (lambda p: _plain(p).counts.update({99: 1}), "I-5"),
    "a dead letter without a reason": (lambda p: _plain(p).dead_info.clear(), "reasons"),
    "a reason without a dead letter": (
        lambda p: _plain(p).dead_info.update({5: DeadLetterInfo("", "")}),
        "reasons",
    ),
    "a grant of nothing": (lambda p: _plain(p).main.grants.update({77: {}}), "holds nothing"),
    "the number of locked messages": (
        lambda p: setattr(_plain(p).main, "locked_count", 0),
        "locked messages",
    ),
    "an order of messages": (lambda p: _session(p).add([2]), "I-1|I-7"),
    "a returned message twice": (_set("returned", [2, 2]), "returned"),
    "a returned message of another session": (_set("returned", [2, 9]), "returned"),
    "a returned message that was never delivered": (_set("returned", [2, 4]), "cursor"),
    "a free session with a hand": (_set("cursor", 3, "free"), "law 2"),
    "an offer of a held session": (_set("offered_at", Turn(0, 1, SessionId("s"))), "SES-9"),
    "a session kept for nothing": (
        lambda p: p.queues[SESSIONS].sessions.update({SessionId("x"): Session(SessionId("x"), 0)}),
        "SES-2",
    ),
    "a grant from the future": (_set("grant", 999), "I-3"),
    "one grant for two sessions": (_set("grant", GrantNumber(2)), "I-3"),
    "the number of held sessions": (_of_queue("held_count", 1), "held sessions"),
    "the number of runnable sessions": (
        lambda p: p.queues[SESSIONS].runnable.offer(Session(SessionId("x"), 0)),
        "runnable sessions",
    ),
    "the bytes of states": (_of_queue("states_bytes", 1), "state bytes"),
    "the number of states": (_of_queue("states_count", 1), "states"),
    "a queue that has no number": (_two_names, "queues by number"),
}


def test_a_good_partition_passes() -> None:
    check_partition(_good())


@pytest.mark.parametrize(("breaks", "text"), BREAKAGES.values(), ids=BREAKAGES)
def test_what_is_broken_is_noticed(breaks: Callable[[Partition], object], text: str) -> None:
    partition = _good()
    breaks(partition)

    with pytest.raises(AssertionError, match=text):
        check_partition(partition)
