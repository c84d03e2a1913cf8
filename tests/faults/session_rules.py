"""What holds for sessions: one holder at a time, its messages in order, exact counts, a linearizable state."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

from tests.faults.book import (
    SLACK_MS,
    Book,
    Handled,
    MessageKey,
    SessionKey,
    Violation,
    extends,
)
from tests.faults.draining import Ending
from tests.faults.history import NEVER_MS, Kind, Operation, Outcome

_TAKES = (Kind.RECEIVE, Kind.RECEIVE_DEFERRED)
_COUNTED = (Kind.ABANDON, Kind.DEFER)


def interleaved_holders(book: Book, _ending: Ending) -> Iterator[Violation]:
    """I-3, I-4: grants rise, are given once, and nothing succeeds under one after the next was given."""
    for session, grants in book.grants.items():
        accepts = [o for grant in sorted(grants) for o in grants[grant] if o.kind is Kind.ACCEPT]
        for earlier, later in pairwise(accepts):
            if earlier.grant == later.grant or later.ended_ms < earlier.invoked_ms:
                yield Violation("interleaved", f"{session}: {earlier} and {later}")
        for grant, operations in grants.items():
            overtaken_ms = min((o.ended_ms for o in accepts if o.grant > grant), default=None)
            for one in operations:
                # A release finds out by itself that nothing is held any more.
                is_effect = one.is_ok and one.kind is not Kind.RELEASE
                if is_effect and overtaken_ms is not None and one.invoked_ms > overtaken_ms:
                    yield Violation("interleaved", f"{one}, overtaken at {overtaken_ms}")


def seized_sessions(book: Book, _ending: Ending) -> Iterator[Violation]:
    """SES-18, ADD-4: nobody gets a session while its holder's lock lasts."""
    for session, grants in book.grants.items():
        accepts = [o for grant in sorted(grants) for o in grants[grant] if o.kind is Kind.ACCEPT]
        for accept in accepts:
            for grant, operations in grants.items():
                if grant >= accept.grant or _may_be_released(operations, accept.ended_ms):
                    continue
                until_ms = book.held_until_ms(operations)
                if accept.ended_ms < until_ms - SLACK_MS:
                    told = f"{accept}, while grant {grant} holds until {until_ms}"
                    yield Violation("seized", f"{session}: {told}")


def _may_be_released(operations: Sequence[Operation], by_ms: int) -> bool:
    return any(o.kind is Kind.RELEASE and o.invoked_ms <= by_ms for o in operations)


def lost_locks(book: Book, _ending: Ending) -> Iterator[Violation]:
    """ADD-4, RACE-17: an outage takes no lock away before its time."""
    for _, _, operations in book.all_grants():
        for one in operations:
            if one.reason == "SESSION_LOCK_LOST":
                until_ms = book.held_until_ms(operations, one)
                if book.was_in_time(one, until_ms):
                    yield Violation("lock lost", f"{one}, held until {until_ms}")


def misordered_deliveries(book: Book, _ending: Ending) -> Iterator[Violation]:
    """I-2, SES-27, SES-28: a holder gets what is there in order, none is left out, none comes twice."""
    for session, _, operations in book.all_grants():
        hand: set[int] = set()  # all that the holder has, or may have
        is_blind = False  # whether something may have been delivered that nobody saw
        for one in operations:
            if one.kind is Kind.RECEIVE and one.outcome is Outcome.UNKNOWN:
                is_blind = True
            elif one.kind is Kind.RECEIVE and one.is_ok:
                numbers = [item.sequence for item in one.items]
                if numbers != sorted(set(numbers)) or (hand & set(numbers) and not is_blind):
                    yield Violation("misordered", f"{numbers} while it has {sorted(hand)}, {one}")
                if numbers and not is_blind:
                    yield from _left_out(book, session, one, hand | set(numbers))
                hand |= set(numbers)
            elif one.kind is Kind.ABANDON and one.may_have_happened:
                is_blind |= not one.is_ok
                hand -= {item.sequence for item in one.items}


def _left_out(
    book: Book, session: SessionKey, receive: Operation, had: set[int]
) -> Iterator[Violation]:
    last = max(item.sequence for item in receive.items)
    for send, item in book.numbered[session]:
        if item.sequence >= last or item.sequence in had or send.ended_ms >= receive.invoked_ms:
            continue
        key = MessageKey(session.queue, item.sequence)
        if not book.may_be_gone(key, receive.ended_ms):
            yield Violation("misordered", f"{item} was passed over by {receive}")


def miscounted_deliveries(book: Book, _ending: Ending) -> Iterator[Violation]:
    """DCN-2 to DCN-5, I-5: the count of a delivery is that of the deliveries before it that failed."""
    for key, handled in book.delivered.items():
        rule = _counts_in_session if handled[0].operation.grant else _counts_in_plain_queue
        yield from rule(book, key, handled)


def _counts_in_session(
    book: Book, key: MessageKey, handled: Sequence[Handled]
) -> Iterator[Violation]:
    session = SessionKey(key.queue, handled[0].item.session_id)
    counts = {id(one.operation): one.item.count for one in handled}
    low = high = 0
    for grant in sorted(book.grants[session]):
        operations = book.grants[session][grant]
        is_held = is_certain = False
        for one in operations:
            seen = counts.get(id(one))
            if seen is not None:
                if not low <= seen <= high:
                    told = f"{low}" if low == high else f"{low} to {high}"
                    yield Violation("miscounted", f"{key} is {seen}, expected {told}, {one}")
                low = high = seen
                is_held = is_certain = True
            elif one.kind in _TAKES and not one.is_ok:  # its first try may have got something
                is_held = True
            elif one.kind in _COUNTED and _concerns(one, key) and one.may_have_happened:
                low, high = low + one.is_ok, high + 1
                is_held = is_certain = False
        if is_held and not _was_closed(book, operations):
            high += 1
            low += book.is_calm and is_certain and _surely_ran_out(book, operations)


def _concerns(operation: Operation, key: MessageKey) -> bool:
    return any(item.sequence == key.sequence for item in operation.items)


def _was_closed(book: Book, operations: Sequence[Operation]) -> bool:
    """Whether a grant ended, without a doubt, by being given back: nothing is counted then (DCN-4)."""
    until_ms = book.held_until_ms(operations) - SLACK_MS
    return any(o.kind is Kind.RELEASE and o.is_ok and o.ended_ms < until_ms for o in operations)


def _surely_ran_out(book: Book, operations: Sequence[Operation]) -> bool:
    extended_ms = max(
        o.ended_ms for o in operations if extends(o) or (o.kind in _TAKES and o.may_have_happened)
    )
    surely_ms = extended_ms + book.lock_ms + SLACK_MS
    return all(o.invoked_ms > surely_ms for o in operations if o.kind is Kind.RELEASE)


def _may_have_missed(book: Book, receive: Operation) -> bool:
    """Whether a receive may have got messages that its client never saw, until their locks ran out.

    Also one that was tried again for so long that nothing was locked any more, and found nothing then.
    """
    took_ms = receive.ended_ms - receive.invoked_ms
    return receive.outcome is Outcome.UNKNOWN or took_ms >= book.lock_ms - SLACK_MS


def _counts_in_plain_queue(
    book: Book, key: MessageKey, handled: Sequence[Handled]
) -> Iterator[Violation]:
    blind_ms = [
        one.invoked_ms
        for one in book.history
        if one.queue == key.queue and one.kind is Kind.RECEIVE and _may_have_missed(book, one)
    ]
    low = high = 0
    until_ms = [later.operation.ended_ms for later in handled[1:]]
    for (operation, item), next_ms in zip(handled, [*until_ms, NEVER_MS], strict=True):
        doubts = sum(ms <= operation.ended_ms for ms in blind_ms)
        if not low <= item.count <= high + doubts:
            told = f"expected {low} to {high + doubts}"
            yield Violation("miscounted", f"{key} is {item.count}, {told}, {operation}")
        is_abandoned = any(
            one.kind is Kind.ABANDON
            and one.is_ok
            and one.worker == operation.worker
            and operation.ended_ms <= one.invoked_ms < next_ms
            for one in book.settled[key]
        )
        low, high = item.count + is_abandoned, item.count + 1  # else its lock may have run out


def broken_states(book: Book, _ending: Ending) -> Iterator[Violation]:
    """SES-42, SES-43, ADD-7, I-6: the state of a session is a register; each write follows on the one before."""
    for session, grants in book.grants.items():
        operations = sorted(
            (o for some in grants.values() for o in some if o.writes >= 0),
            key=lambda o: o.invoked_ms,
        )
        writes = [o for o in operations if o.kind is Kind.SET_STATE and o.may_have_happened]
        reads = [o for o in operations if o.kind is not Kind.SET_STATE and o.is_ok]
        seen = {o.value for o in reads}
        effective = [o for o in writes if o.is_ok or o.value in seen]
        yield from _written_over(session, effective)
        yield from _read_but_not_written(writes, reads)
        yield from _out_of_time(session, sorted([*effective, *reads], key=lambda o: o.invoked_ms))
        yield from _moved_below_its_holder(grants.values())


def _written_over(session: SessionKey, writes: Sequence[Operation]) -> Iterator[Violation]:
    in_order = sorted(writes, key=lambda o: o.writes)
    for first, second in pairwise(in_order):
        if first.writes == second.writes:
            yield Violation("state", f"{session}: both {first} and {second} are {first.writes}")
    for first, second in pairwise(o for o in in_order if o.version):
        if first.version >= second.version:
            told = f"{second.version} after {first.version}"
            yield Violation("state", f"{session}: {second} got version {told}")


def _read_but_not_written(
    writes: Sequence[Operation], reads: Sequence[Operation]
) -> Iterator[Violation]:
    written_ms = {write.value: write.invoked_ms for write in writes}
    for read in reads:
        if read.value and not written_ms.get(read.value, read.ended_ms + 1) <= read.ended_ms:
            yield Violation("state", f"{read} saw {read.value}, which nobody had written")


def _out_of_time(session: SessionKey, operations: Sequence[Operation]) -> Iterator[Violation]:
    """What began after another one had ended sees it, and what came of it."""
    ended: list[tuple[int, int]] = []
    latest = 0
    for one in operations:
        while ended and ended[0][0] < one.invoked_ms:
            latest = max(latest, heapq.heappop(ended)[1])
        heapq.heappush(ended, (one.ended_ms, one.writes))
        if one.writes < latest or (one.kind is Kind.SET_STATE and one.writes == latest):
            yield Violation("state", f"{session}: {one} has {one.writes} writes after {latest}")


def _moved_below_its_holder(grants: Iterable[Sequence[Operation]]) -> Iterator[Violation]:
    """A holder that knows the state is refused only if it may have written itself meanwhile."""
    for operations in grants:
        for number, one in enumerate(operations):
            before = operations[:number]
            doubts = [o for o in before if o.kind is Kind.SET_STATE and not o.is_ok]
            if one.reason == "STATE_CONFLICT" and not doubts:
                yield Violation("state", f"{one}: somebody else wrote to it")


SESSION_RULES: tuple[Callable[[Book, Ending], Iterator[Violation]], ...] = (
    interleaved_holders,
    seized_sessions,
    lost_locks,
    misordered_deliveries,
    miscounted_deliveries,
    broken_states,
)
