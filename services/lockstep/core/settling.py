"""What a partition does when receivers decide about messages.

Here belongs settlement (sections 4.2 and 4.3 of the contract). Never here: what happens by time (`expiry`). The laws: a
message is settled under the lock it was delivered under or not at all; each message of a call succeeds or fails for
itself (BAT-10).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from lockstep.core.amendments import UNCHANGED
from lockstep.core.commands import Outcome, Settle, Settlement
from lockstep.core.decision import Event, Wake
from lockstep.core.deferral import defer, settle_deferred
from lockstep.core.delaying import delay
from lockstep.core.errors import (
    InvalidOperation,
    InvalidRequest,
    LimitExceeded,
    LockstepError,
)
from lockstep.core.expiring import expire_in_session, is_over, return_or_expire
from lockstep.core.ids import GrantNumber, SessionId
from lockstep.core.limits import (
    ABANDON_DELAY_MS_MAX,
    REASON_CHARS_MAX,
    check_at_most,
    check_duration_between,
)
from lockstep.core.locks import find_held, message_lock_lost
from lockstep.core.message import as_ranges, of_ranges
from lockstep.core.replies import DeadLetterInfo, NotSettled, Settled
from lockstep.core.session import Session

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue, Step

_ABANDONED = "the receiver abandoned it"
_GIVING_BACK = (Outcome.ABANDON, Outcome.RELEASE)


# --- settlement --------------------------------------------------------------------------------------


def on_settle(partition: Partition, command: Settle, step: Step) -> Settled:
    """Settle messages; replies with the failures (BAT-10, LCK-3)."""
    queue = partition.queue(command.entity)
    _check(partition, queue, command)
    found = partition.repeated(command.request, command.fingerprint, "settle")
    if found is not None:
        return Settled(
            tuple(
                _failed_before(partition, queue, grant, sequence, *why)
                for grant, parts, *why in found[1]
                for sequence in of_ranges(parts)
            )
        )
    failures: list[NotSettled] = []
    if command.session is not None:
        session = find_held(partition, queue, command.session)
        session.hear_of_holder()
        for settlement in command.settlements:
            failures.extend(settle_in_session(partition, queue, session, settlement, step))
        if any(settlement.outcome in _GIVING_BACK for settlement in command.settlements):
            queue.store_session(session, step)
    else:
        stale: dict[GrantNumber, None] = {}
        for settlement in command.settlements:
            failed_now = _settle_plain(
                partition, queue, settlement, step, dead_letter=command.dead_letter
            )
            failures.extend(failed_now)
            if len(failed_now) < len(settlement.sequences) and _makes_stale(
                queue, command, settlement
            ):
                stale[settlement.grant] = None
        for grant in stale:
            queue.store_lock(grant, step, dead_letter=command.dead_letter)
    partition.remember(command.request, command.fingerprint, ("settle", _ranges_of(failures)), step)
    return Settled(tuple(failures))


def _check(partition: Partition, queue: Queue, command: Settle) -> None:
    sessions_needed = queue.definition.settings.requires_session and not command.dead_letter
    if sessions_needed and command.session is None:
        raise InvalidOperation(
            f"{queue.path} requires sessions: settle with the session and its lock token (LCK-5).",
            details={"entity": queue.path},
        )
    if command.session is not None and not sessions_needed:
        raise InvalidOperation(
            f"{queue.path} is settled without a session here.", details={"entity": queue.path}
        )
    total = sum(len(settlement.sequences) for settlement in command.settlements)
    check_at_most(
        total, partition.limits.settle_messages_max, "messages in one call", "Settle fewer."
    )
    for settlement in command.settlements:
        if command.dead_letter and settlement.outcome is Outcome.DEAD_LETTER:
            raise InvalidOperation(
                f"A dead letter of {queue.path} cannot be dead-lettered again (DLQ-3). Complete or abandon it.",
                details={"entity": queue.path},
            )
        check_at_most(len(settlement.reason), REASON_CHARS_MAX, "reason characters", "Shorten it.")
        check_at_most(
            len(settlement.description), REASON_CHARS_MAX, "description characters", "Shorten it."
        )
        _check_extras(settlement)


def _check_extras(settlement: Settlement) -> None:
    outcome = settlement.outcome
    if settlement.delay_ms and outcome is not Outcome.ABANDON:
        raise InvalidRequest("Only an abandon may have a delay (ADD-6).")
    check_duration_between(settlement.delay_ms, 0, ABANDON_DELAY_MS_MAX, "delay")
    if settlement.properties and outcome in (Outcome.COMPLETE, Outcome.RELEASE):
        raise InvalidRequest(
            f"Messages that are {outcome.value} cannot get properties; abandon, defer or dead-letter them (MSG-8)."
        )


def _ranges_of(failures: Sequence[NotSettled]) -> list[tuple[Any, ...]]:
    """Return failures in their order, as short as their numbers allow; why, where it is not that the lock is lost."""
    return [
        (grant, as_ranges([failure.sequence for failure in alike]), *why)
        for (grant, why), alike in groupby(failures, key=lambda f: (f.grant, _why(f.error)))
    ]


def _why(error: LockstepError) -> tuple[Any, ...]:
    if isinstance(error, LimitExceeded):
        return error.message, tuple(error.details.items())
    return ()


def _makes_stale(queue: Queue, command: Settle, settlement: Settlement) -> bool:
    """Whether the row of a lock must be written again; it may name completed messages, so not for these."""
    is_over = settlement.grant not in queue.plain(dead_letter=command.dead_letter).grants
    return is_over or settlement.outcome is not Outcome.COMPLETE


def _failed_before(
    partition: Partition,
    queue: Queue,
    grant: int,
    sequence: int,
    over_limit: str = "",
    details: Sequence[tuple[str, str]] = (),
) -> NotSettled:
    error: LockstepError
    if over_limit:
        error = LimitExceeded(over_limit, details=dict(details))
    else:
        error = message_lock_lost(partition, queue, grant, sequence)
    return NotSettled(GrantNumber(grant), sequence, error)


def settle_in_session(
    partition: Partition, queue: Queue, session: Session, settlement: Settlement, step: Step
) -> list[NotSettled]:
    """Settle messages of a held session, each for itself; return those that were not settled."""
    failures: list[NotSettled] = []
    taken: Sequence[int] = settlement.sequences
    if settlement.properties:
        settlement = _amend(queue, settlement, _is_in_hand_of(session, settlement), failures, step)
        taken = settlement.sequences
    if session.deferred_hand and settlement.grant == session.grant:
        taken = _settle_deferred_of_session(queue, session, settlement, step)
        settlement = replace(settlement, sequences=taken)
    if settlement.grant != session.grant or not session.has_in_hand(taken):
        mine: set[int] = set()
        for sequence in settlement.sequences:
            is_mine = settlement.grant == session.grant and session.is_in_hand(sequence)
            if is_mine and sequence not in mine:
                mine.add(sequence)
            else:
                failures.append(_failed_before(partition, queue, settlement.grant, sequence))
        taken = sorted(mine)
    if taken:
        _count_settled(queue, settlement, taken, step)
        _settle_hand(partition, queue, session, taken, settlement, step)
    return failures


def _settle_hand(
    partition: Partition,
    queue: Queue,
    session: Session,
    taken: Sequence[int],
    settlement: Settlement,
    step: Step,
) -> None:
    """Settle messages that are in the holder's hand and not deferred, rising."""
    match settlement.outcome:
        case Outcome.COMPLETE:
            session.remove(taken)
            queue.forget(taken, step)
        case Outcome.DEAD_LETTER:
            session.remove(taken)
            _dead_letter(queue, session.session_id, taken, settlement, step)
        case Outcome.DEFER:
            session.remove(taken)
            defer(queue, taken, session, step, counts=True)
        case Outcome.ABANDON | Outcome.RELEASE:
            _give_back_to_session(partition, queue, session, taken, settlement, step)


def _is_in_hand_of(session: Session, settlement: Settlement) -> Callable[[int], bool]:
    if settlement.grant != session.grant:
        return lambda _sequence: False
    return lambda sequence: session.is_in_hand(sequence) or sequence in session.deferred_hand


def _amend(
    queue: Queue,
    settlement: Settlement,
    is_in_hand: Callable[[int], bool],
    failures: list[NotSettled],
    step: Step,
) -> Settlement:
    """Set properties on messages in hand; return the settlement without those that would have too many (MSG-8)."""
    left = array("q")
    for sequence in settlement.sequences:
        if is_in_hand(sequence):
            amendment = queue.amendments.get(sequence, UNCHANGED)
            try:
                amended = amendment.with_properties(settlement.properties)
            except LimitExceeded as error:
                failures.append(NotSettled(settlement.grant, sequence, error))
                continue
            queue.amend(sequence, amended, step)
        left.append(sequence)
    return replace(settlement, sequences=left)


def _settle_deferred_of_session(
    queue: Queue, session: Session, settlement: Settlement, step: Step
) -> Sequence[int]:
    """Settle those of the messages that are deferred and in hand, and return the others."""
    aside = sorted(session.deferred_hand.intersection(settlement.sequences))
    if not aside:
        return settlement.sequences
    _count_settled(queue, settlement, aside, step)
    settle_deferred(queue, aside, settlement, step, dead_letter=False, why=_ABANDONED)
    once = set(aside)
    others = array("q")
    for (
        sequence
    ) in settlement.sequences:  # of one that is named twice the second mention fails (LCK-3)
        if sequence in once:
            once.remove(sequence)
        else:
            others.append(sequence)
    return others


def _give_back_to_session(
    partition: Partition,
    queue: Queue,
    session: Session,
    taken: Sequence[int],
    settlement: Settlement,
    step: Step,
) -> None:
    for sequence in taken:
        if settlement.outcome is Outcome.ABANDON and not queue.count_failure(
            sequence, "abandoned", step
        ):
            session.remove((sequence,))
            queue.exceed_delivery_count(sequence, session.session_id, _ABANDONED, step)
        else:
            session.give_back(sequence)
            if settlement.delay_ms:
                delay(partition, queue, session, sequence, settlement.delay_ms, step)
    if queue.definition.settings.recall_on_abandon and session.returned:
        _recall(queue, session, session.returned[0], step)
    expire_in_session(queue, session, step)
    step.wake[Wake(queue.number, session.session_id)] = None


def _recall(queue: Queue, session: Session, oldest: int, step: Step) -> None:
    """Take back what is in the holder's hand and younger than what it gave back, without counting (SES-29)."""
    younger = [sequence for sequence in session.in_hand() if sequence > oldest]
    for sequence in younger:
        session.give_back(sequence)
    step.count(queue, "recalled", "", len(younger))


def _settle_plain(
    partition: Partition, queue: Queue, settlement: Settlement, step: Step, *, dead_letter: bool
) -> list[NotSettled]:
    store = queue.plain(dead_letter=dead_letter)
    failures: list[NotSettled] = []
    taken: list[int] = []
    if settlement.properties:
        is_in_hand = partial(store.is_locked, settlement.grant)
        settlement = _amend(queue, settlement, is_in_hand, failures, step)
    for sequence in settlement.sequences:
        if store.is_locked(settlement.grant, sequence):
            store.unlock(settlement.grant, sequence)
            taken.append(sequence)
        else:
            failures.append(_failed_before(partition, queue, settlement.grant, sequence))
    if not taken:
        return failures
    queue.graced.discard(settlement.grant)  # its receiver is back (ADD-4)
    taken.sort()
    _count_settled(queue, settlement, taken, step, dead_letter=dead_letter)
    step.count(queue, "locks_released", "message:settled", len(taken))
    if queue.deferred:
        aside = [sequence for sequence in taken if sequence in queue.deferred]
        settle_deferred(queue, aside, settlement, step, dead_letter=dead_letter, why=_ABANDONED)
        taken = [sequence for sequence in taken if sequence not in aside]
    _settle_ready(partition, queue, taken, settlement, step, dead_letter=dead_letter)
    return failures


def _settle_ready(
    partition: Partition,
    queue: Queue,
    taken: Sequence[int],
    settlement: Settlement,
    step: Step,
    *,
    dead_letter: bool,
) -> None:
    """Settle messages that were unlocked and are not deferred, rising."""
    if not taken:
        return
    match settlement.outcome:
        case Outcome.COMPLETE if dead_letter:
            queue.drop_dead_letters(taken, step)
        case Outcome.COMPLETE:
            queue.forget(taken, step)
        case Outcome.DEAD_LETTER:
            _dead_letter(queue, None, taken, settlement, step)
        case Outcome.DEFER:
            defer(queue, taken, None, step, counts=not dead_letter)
        case Outcome.ABANDON | Outcome.RELEASE:
            _give_back_to_plain(partition, queue, taken, settlement, step, dead_letter=dead_letter)


def _give_back_to_plain(
    partition: Partition,
    queue: Queue,
    taken: Sequence[int],
    settlement: Settlement,
    step: Step,
    *,
    dead_letter: bool,
) -> None:
    store = queue.plain(dead_letter=dead_letter)
    counts = settlement.outcome is Outcome.ABANDON and not dead_letter  # DCN-9
    for sequence in taken:
        if counts and not queue.count_failure(sequence, "abandoned", step):
            queue.exceed_delivery_count(sequence, None, _ABANDONED, step)
        elif settlement.delay_ms and (dead_letter or not is_over(queue, sequence, step.now_ms)):
            delay(partition, queue, None, sequence, settlement.delay_ms, step)
        else:
            return_or_expire(queue, store, sequence, step)
    step.wake[Wake(queue.number, dead_letter=dead_letter)] = None


def _dead_letter(
    queue: Queue,
    session_id: SessionId | None,
    taken: Sequence[int],
    settlement: Settlement,
    step: Step,
) -> None:
    info = DeadLetterInfo(settlement.reason, settlement.description, step.now_ms)
    queue.move_to_dead_letters(taken, info, session_id, step, cause="application")


def _count_settled(
    queue: Queue,
    settlement: Settlement,
    taken: Sequence[int],
    step: Step,
    *,
    dead_letter: bool = False,
) -> None:
    """Note for metrics what is about to be settled, rising; of a dead letter only how it is."""
    outcome, counts, enqueued_ms = settlement.outcome, None, array("q")
    if not dead_letter:
        counts = tuple(map(queue.counts.get, taken, (0,) * len(taken))) if queue.counts else ()
        if outcome is Outcome.COMPLETE:
            enqueued_ms = queue.log.describe(taken).enqueued_ms
    settled = Event(queue.number, "settled", outcome.value, len(taken), enqueued_ms, counts)
    step.events.append(settled)
