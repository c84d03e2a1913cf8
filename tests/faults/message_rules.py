"""What holds for messages: none is lost, invented, revived or doubled; their numbers rise; counters tell the truth."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from tests.faults.book import DRAIN, SLACK_MS, Book, Handled, MessageKey, Violation
from tests.faults.draining import DRAIN_MS, Counts, Ending
from tests.faults.history import NEVER_MS, Kind, Operation, Outcome

_EXPECTED_FAILURES = {
    "NO_SESSION_AVAILABLE",
    "SESSION_CANNOT_BE_LOCKED",
    "SESSION_LOCK_LOST",  # judged by `session_rules.lost_locks`
    "MESSAGE_LOCK_LOST",  # judged by `lost_message_locks`
    "STATE_CONFLICT",  # judged by `session_rules.broken_states`
}
_NO_SUCH_QUEUE = {"ENTITY_NOT_FOUND"}
_EXPECTED_DOUBTS = {
    "",  # its process ended
    "CancelledError",
    "CLUSTER_UNAVAILABLE",
    "CONNECTION_FAILED",
    "FENCED",
    "OPERATION_TIMEOUT",
    "PARTITION_MOVED",
    "SERVER_BUSY",
    "SHUTTING_DOWN",
    "STORE_UNAVAILABLE",
    "UNAVAILABLE",
}
_DOUBTS_WITHOUT_FAULTS = {"", "CancelledError"}  # a client that ends leaves calls behind


def lost_messages(book: Book, ending: Ending) -> Iterator[Violation]:
    """I-1: what was acknowledged was completed, or is still there."""
    for (queue, body), sends in book.sends.items():
        for send in sends:
            if not send.is_ok:
                continue
            told = next(item.sequence for item in send.items if item.body == body)
            numbers = {told} if told else book.sequences[queue, body]
            if not any(_is_accounted_for(book, ending, MessageKey(queue, n)) for n in numbers):
                yield Violation("lost", f"{body} (number {told}), acknowledged by {send}")


def _is_accounted_for(book: Book, ending: Ending, key: MessageKey) -> bool:
    if any(one.kind is Kind.COMPLETE and one.may_have_happened for one in book.settled[key]):
        return True
    if ending.drained_ms != NEVER_MS:
        return False
    return any(item.sequence == key.sequence for item in ending.before[key.queue].items)


def invented_messages(book: Book, _ending: Ending) -> Iterator[Violation]:
    """What is delivered was sent, to this queue and this session, and is one message by its number."""
    for key, handled in book.delivered.items():
        bodies = {one.item.body for one in handled}
        if len(bodies) > 1:
            yield Violation("invented", f"number {key.sequence} of {key.queue} is {sorted(bodies)}")
        for operation, item in handled:
            sends = book.sends.get((key.queue, item.body), ())
            sent_to = {
                sent.session_id
                for send in sends
                if send.may_have_happened and send.invoked_ms <= operation.ended_ms
                for sent in send.items
                if sent.body == item.body
            }
            if item.session_id not in sent_to:
                yield Violation("invented", f"{item} by {operation}, sent to {sorted(sent_to)}")


def revived_messages(book: Book, _ending: Ending) -> Iterator[Violation]:
    """What was completed is not delivered any more (RACE-1, RACE-2)."""
    for key, handled in book.delivered.items():
        ended_ms = min(
            (o.ended_ms for o in book.settled[key] if o.kind is Kind.COMPLETE and o.is_ok),
            default=NEVER_MS,
        )
        for operation, item in handled:
            if operation.invoked_ms > ended_ms:
                yield Violation("revived", f"{item} by {operation}, completed at {ended_ms}")


def doubled_messages(book: Book, _ending: Ending) -> Iterator[Violation]:
    """A message is stored once for each call that sent it, whatever was tried again meanwhile (ADD-3)."""
    for (queue, body), numbers in book.sequences.items():
        calls = sum(send.may_have_happened for send in book.sends.get((queue, body), ()))
        if len(numbers) > max(calls, 1):
            yield Violation("doubled", f"{body} was sent by {calls} calls and is {sorted(numbers)}")


def misnumbered_messages(book: Book, _ending: Ending) -> Iterator[Violation]:
    """I-7: numbers are unique, and rise in the order in which sends were acknowledged (SND-12)."""
    for key, handled in book.numbered.items():
        ended: list[tuple[int, int]] = []  # (when, the highest number of the send)
        highest, seen = 0, dict[int, str]()
        for send, numbers in _sends_of(handled):
            while ended and ended[0][0] < send.invoked_ms:
                highest = max(highest, heapq.heappop(ended)[1])
            heapq.heappush(ended, (send.ended_ms, max(numbers)))
            if numbers[0] <= highest or numbers != sorted(numbers):
                yield Violation("misnumbered", f"{numbers} after {highest} in {key} by {send}")
        for send, item in handled:
            if seen.setdefault(item.sequence, item.body) != item.body:
                yield Violation("misnumbered", f"{item} by {send} has the number of another one")


def _sends_of(handled: Iterable[Handled]) -> Iterator[tuple[Operation, list[int]]]:
    """All sends, with the numbers of their messages in one session."""
    numbers: dict[int, tuple[Operation, list[int]]] = {}
    for send, item in handled:
        numbers.setdefault(id(send), (send, []))[1].append(item.sequence)
    yield from numbers.values()


def shared_messages(book: Book, _ending: Ending) -> Iterator[Violation]:
    """RCV-4: while a message of a plain queue is locked, nobody else gets it."""
    for key, handled in book.delivered.items():
        for first, second in pairwise(handled):
            if first.operation.grant or second.operation.grant:
                continue
            until_ms = first.operation.invoked_ms + book.lock_ms - SLACK_MS
            if second.operation.ended_ms < until_ms and not _was_given_back(
                book, key, *_both(first, second)
            ):
                yield Violation(
                    "shared", f"{first.item} by {first.operation} and {second.operation}"
                )


def _both(first: Handled, second: Handled) -> tuple[Operation, Operation]:
    return first.operation, second.operation


def _was_given_back(book: Book, key: MessageKey, first: Operation, second: Operation) -> bool:
    return any(
        one.kind is Kind.ABANDON
        and one.may_have_happened
        and one.worker == first.worker
        and first.invoked_ms <= one.invoked_ms <= second.ended_ms
        for one in book.settled[key]
    )


def lost_message_locks(book: Book, _ending: Ending) -> Iterator[Violation]:
    """ADD-4: an outage takes no lock away before its time."""
    for key, settlements in book.settled.items():
        for one in settlements:
            if one.reason != "MESSAGE_LOCK_LOST" or one.grant:
                continue
            held_ms = [
                operation.invoked_ms
                for operation, _ in book.delivered[key]
                if operation.worker == one.worker and operation.ended_ms <= one.invoked_ms
            ]
            if held_ms and book.was_in_time(one, max(held_ms) + book.lock_ms):
                yield Violation(
                    "lock lost", f"{one} of {key}, which was delivered at {max(held_ms)}"
                )


def unexpected_errors(book: Book, _ending: Ending) -> Iterator[Violation]:
    """Faults make calls fail in passing, and let locks run out. Nothing else; and without faults nothing does."""
    doubts = _DOUBTS_WITHOUT_FAULTS if book.is_calm else _EXPECTED_DOUBTS
    for operation in book.history:
        expected = _EXPECTED_FAILURES if operation.outcome is Outcome.FAILED else doubts
        is_of_definitions = operation.kind in (Kind.USE, Kind.MISS)
        if is_of_definitions and operation.reason in _NO_SUCH_QUEUE:
            continue  # judged by `wrong_definitions`
        if not operation.is_ok and operation.reason not in expected:
            yield Violation("unexpected error", f"{operation}")


def wrong_definitions(book: Book, _ending: Ending) -> Iterator[Violation]:
    """ADD-12: a queue that was defined is everywhere, one that was dropped nowhere."""
    for operation in book.history:
        if operation.kind is Kind.MISS and operation.is_ok:
            yield Violation("definitions", f"{operation} found what was dropped")
        elif operation.kind is Kind.USE and operation.reason in _NO_SUCH_QUEUE:
            yield Violation("definitions", f"{operation} did not find what was defined")


def wrong_counters(book: Book, ending: Ending) -> Iterator[Violation]:
    """I-9: at rest, counters say how many messages there are, and these are the ones that should be."""
    for queue, contents in ending.before.items():
        numbers = [item.sequence for item in contents.items]
        seen = Counts(len(numbers), len(contents.deferred), 0, len(numbers))
        if contents.counts != seen:
            yield Violation("counters", f"{queue} says {contents.counts}, a look shows {seen}")
        if len(set(numbers)) != len(numbers):
            yield Violation("counters", f"a look at {queue} shows messages twice")
        for number in numbers:
            done = [o for o in book.settled[MessageKey(queue, number)] if _is_load(o) and o.is_ok]
            if any(one.kind is Kind.COMPLETE for one in done):
                yield Violation(
                    "counters", f"a look at {queue} shows {number}, which was completed"
                )
        for body in _certainly_left(book, queue, set(numbers)):
            yield Violation("counters", f"a look at {queue} does not show {body}")


def _certainly_left(book: Book, queue: str, shown: set[int]) -> Iterator[str]:
    """All that was acknowledged, that nobody may have completed before the drain, and that is not shown."""
    for (where, body), sends in book.sends.items():
        if where != queue or not any(send.is_ok for send in sends):
            continue
        numbers = book.sequences[queue, body]
        done = [o for n in numbers for o in book.settled[MessageKey(queue, n)] if _is_load(o)]
        is_left = not any(o.kind is Kind.COMPLETE and o.may_have_happened for o in done)
        if is_left and not numbers & shown:
            yield body


def _is_load(operation: Operation) -> bool:
    return not operation.worker.startswith(DRAIN)


def late_drain(_book: Book, ending: Ending) -> Iterator[Violation]:
    """After the last fault everything can be received within 30 s, and then nothing is left."""
    left = {queue: counts for queue, counts in ending.after.items() if counts != Counts()}
    if ending.drained_ms == NEVER_MS or left:
        yield Violation("not drained", f"{left} is left {DRAIN_MS // 1000} s after the last fault")
    elif ending.drained_ms - ending.healed_ms > DRAIN_MS:
        took_ms = ending.drained_ms - ending.healed_ms
        yield Violation("not drained", f"it took {took_ms} ms after the last fault")


MESSAGE_RULES: tuple[Callable[[Book, Ending], Iterator[Violation]], ...] = (
    lost_messages,
    invented_messages,
    revived_messages,
    doubled_messages,
    misnumbered_messages,
    shared_messages,
    lost_message_locks,
    unexpected_errors,
    wrong_definitions,
    wrong_counters,
    late_drain,
)
