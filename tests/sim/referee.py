"""Whether each committed step was allowed, judged from the rows before it and the command that caused it.

The invariants I-1 to I-5 and I-7, the delivery counts of DCN-4, the order of delivery and the grace of ADD-4
are checked here, at the moment of the commit: what is stored is the truth that every reply is held against.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from lockstep.core.changes import SessionRow
from lockstep.core.commands import Accept, Command, Outcome, Receive, Send, SetState, Settle
from lockstep.core.ids import SessionLock
from tests.sim.book import Book, Step, Where

Check = Callable[..., None]


class Referee:
    """Judges the steps of all partitions."""

    def __init__(self, check: Check, grace_ms: int) -> None:
        self._check = check
        self._grace_ms = grace_ms
        self.bodies: dict[bytes, Where] = {}
        self.commands: dict[tuple[str, int], Command] = {}
        self.cancelled: set[tuple[str, int]] = set()  # by their own clients
        self.answered_nothing: set[tuple[str, int]] = (
            set()
        )  # accepts and receives that found nothing
        self.completed_in_order: dict[tuple[int, str], int] = {}
        self.first_delivered: dict[tuple[int, str], int] = {}

    def judge(self, book: Book, step: Step) -> None:
        """Check one step against the book as it was before."""
        self._judge_counters(book, step)
        expected_counts: dict[Where, int] = {}
        expected_gone: set[Where] = set()
        expected_dead: set[Where] = set()
        kind, result, command = self._cause(step)
        if kind == "settle" and isinstance(command, Settle):
            self._judge_settle(book, step, command, result, expected_gone, expected_dead)
            for where in self._abandoned(book, command, result):
                expected_counts[where] = book.messages[where].deliveries + 1
        elif kind is None:
            for where in self._expired(book, step):
                expected_counts[where] = book.messages[where].deliveries + 1
        if kind == "cancelled" and step.request is not None:
            key = (step.request.client_id, step.request.counter)
            self._check(key in self.cancelled, "SES-18: taken from its holder", key, command)
        self._judge_lateness(step, kind, command)
        self._judge_grants(book, step, kind, result, command)
        self._judge_receive(book, step, kind, result, command)
        self._judge_send(book, step, kind, command)
        self._judge_states(book, step, kind, command)
        for (entity, sequence), count in expected_counts.items():
            if count >= book.entities[entity].settings.max_delivery_count:
                expected_dead.add((entity, sequence))
        counts = {(row.entity, row.sequence): row.deliveries for row in step.counts}
        self._check(
            counts == expected_counts, "DCN-4, I-5: counted", counts, "not", expected_counts, kind
        )
        self._check(
            step.gone == expected_gone, "I-1: gone", sorted(step.gone), "not", sorted(expected_gone)
        )
        dead = {(row.entity, row.sequence) for row in step.dead}
        self._check(
            dead == expected_dead, "DCN-6: dead letters", sorted(dead), "not", sorted(expected_dead)
        )

    def _cause(self, step: Step) -> tuple[str | None, list[Any], Command | None]:
        if step.request is None:
            return None, [], None
        kind, *result = json.loads(step.request.result)
        return kind, result, self.commands.get((step.request.client_id, step.request.counter))

    def _judge_counters(self, book: Book, step: Step) -> None:
        before, after = book.partition, step.partition
        assert after is not None
        self._check(after.last_time_ms >= before.last_time_ms, "RACE-18: time went back")
        self._check(after.last_grant >= before.last_grant, "SES-26: grants went back")
        self._check(after.last_chunk >= before.last_chunk, "I-7: chunks went back")
        for row in step.entities:
            known = book.entities.get(row.entity)
            self._check(known is None or known.revision < row.revision, "ADD-12: an older revision")

    def _judge_lateness(self, step: Step, kind: str | None, command: Command | None) -> None:
        """ADD-3: a call has one result, so one that found nothing has no effect afterwards."""
        if step.request is None or kind not in ("accept", "receive"):
            return
        key = (step.request.client_id, step.request.counter)
        is_new = key not in self.answered_nothing
        self._check(is_new, "ADD-3: took effect after its answer", command)

    # --- settlement --------------------------------------------------------------------------------

    def _judge_settle(
        self,
        book: Book,
        step: Step,
        command: Settle,
        result: list[Any],
        gone: set[Where],
        dead: set[Where],
    ) -> None:
        number = book.number_of(command.entity)
        assert number is not None
        for outcome, grant, sequence in taken(command, result):
            where = (number, sequence)
            self._check(where in book.messages, "I-1: settled what is not stored", where)
            self._check(
                self._holds(book, number, command, grant, sequence),
                "I-4: settled under a lock that is not held",
                command.session,
                grant,
                sequence,
            )
            if outcome is Outcome.COMPLETE:
                gone.add(where)
                self._note_completed(number, book, sequence)
            elif outcome is Outcome.DEAD_LETTER:
                dead.add(where)

    def _holds(self, book: Book, number: int, command: Settle, grant: int, sequence: int) -> bool:
        if command.session is None:
            row = book.locks.get((number, grant))
            is_here = row is not None and bool(row.dead_letter) == command.dead_letter
            return is_here and sequence in book.locked(number, grant)
        held = book.sessions.get((number, command.session.session_id))
        return (
            held is not None
            and held.grant == command.session.grant == grant
            and sequence in book.hand(held)
        )

    def _abandoned(self, book: Book, command: Settle, result: list[Any]) -> list[Where]:
        number = book.number_of(command.entity)
        if command.dead_letter or number is None:
            return []
        return [
            (number, s)
            for outcome, _, s in taken(command, result)
            if outcome is Outcome.ABANDON and (number, s) in book.messages
        ]

    def _note_completed(self, number: int, book: Book, sequence: int) -> None:
        message = book.messages.get((number, sequence))
        if message is None or message.dead or not (message.session_id or "").startswith("orderly"):
            return
        place = (number, message.session_id or "")
        last = self.completed_in_order.get(place, 0)
        self._check(sequence > last, "I-2: completed out of order", place, last, sequence)
        self.completed_in_order[place] = sequence

    # --- locks -------------------------------------------------------------------------------------

    def _judge_grants(
        self, book: Book, step: Step, kind: str | None, result: list[Any], command: Command | None
    ) -> None:
        for row in step.sessions:
            before = book.sessions.get((row.entity, row.session_id))
            was_held = before is not None and before.locked_until_ms != 0
            if not was_held and row.locked_until_ms:
                is_accepted = kind == "accept" and result == [row.session_id, row.grant]
                self._check(is_accepted, "I-3: granted without an accept", row.session_id)
                self._check(row.grant > book.partition.last_grant, "SES-26: an old grant number")
            elif before is not None and was_held and row.locked_until_ms:
                self._check(row.grant == before.grant, "I-3: two holders", before, row)
                is_later = row.locked_until_ms >= before.locked_until_ms
                self._check(is_later, "SES-18: a lock was shortened", before, row)
            elif before is not None and was_held and step.request is not None:
                self._judge_close(step, before, kind, command)

    def _judge_close(
        self, step: Step, before: SessionRow, kind: str | None, command: Command | None
    ) -> None:
        assert step.request is not None
        key = (step.request.client_id, step.request.counter)
        if kind == "release":
            lock: SessionLock | None = getattr(command, "session", None)
            is_own = lock == (before.session_id, before.grant)
            self._check(is_own, "I-4: closed under a grant that is over", lock, before.grant)
        else:
            is_asked = kind == "cancelled" and isinstance(command, Accept)
            self._check(is_asked, "SES-20: a session was closed by", kind, command, key)

    def _expired(self, book: Book, step: Step) -> list[Where]:
        """Return the messages whose delivery failed because their lock ran out."""
        counted: set[Where] = {(row.entity, row.sequence) for row in step.counts}
        failed: list[Where] = []
        for row in step.sessions:
            before = book.sessions.get((row.entity, row.session_id))
            if before is None or not before.locked_until_ms or row.locked_until_ms:
                continue
            hand: list[Where] = [(row.entity, s) for s in book.hand(before)]
            if self._counts(book, step, before.grant, before.locked_until_ms, counted, hand):
                failed.extend(hand)
        for (entity, grant), lock in step.locks.items():
            held = book.locked(entity, grant)
            left = book.locked(entity, grant, lock) if lock else {}
            ended = [s for s in held if s not in left]
            if not ended or book.locks[entity, grant].dead_letter:
                continue
            until = max(held[s] for s in ended)
            wheres: list[Where] = [(entity, s) for s in ended]
            if self._counts(book, step, grant, until, counted, wheres):
                failed.extend(wheres)
        return failed

    def _counts(
        self,
        book: Book,
        step: Step,
        grant: int,
        until_ms: int,
        counted: set[Where],
        hand: list[Where],
    ) -> bool:
        """Check that a lock did not end early; return whether its end counts (DCN-4, ADD-4)."""
        self._check(step.now_ms >= until_ms, "SES-18: expired early", grant, step.now_ms, until_ms)
        told = book.told_ms.get(grant, 0)
        self._check(step.now_ms >= told, "SES-24: expired before", told, "grant", grant)
        if grant not in book.graced or grant in book.heard:
            return True
        if grant in book.maybe_heard:
            return any(where in counted for where in hand)
        end = book.opened_ms + self._grace_ms
        self._check(step.now_ms >= end, "ADD-4: no grace for", grant, step.now_ms, end)
        return False

    # --- receive, send, state ----------------------------------------------------------------------

    def _judge_receive(
        self, book: Book, step: Step, kind: str | None, result: list[Any], command: Command | None
    ) -> None:
        if kind != "receive" or not isinstance(command, Receive):
            return
        session_id, grant, ranges = result
        sequences = [s for first, last in ranges for s in range(first, last + 1)]
        number = book.number_of(command.entity)
        assert number is not None
        if command.session is None:
            ready = book.ready(number, dead_letter=command.dead_letter)
            self._check(
                sequences == ready[: len(sequences)], "BAT: delivered", sequences, "of", ready
            )
            return
        before = book.sessions.get((number, session_id))
        is_held = before is not None and before.locked_until_ms and before.grant == grant
        self._check(is_held and command.session == (session_id, grant), "I-4: received", command)
        hand = set(book.hand(before))
        ready = [s for s in book.active(number, session_id) if s not in hand]
        self._check(
            sequences == ready[: len(sequences)], "SES-27: delivered", sequences, "of", ready
        )

    def _judge_send(
        self, book: Book, step: Step, kind: str | None, command: Command | None
    ) -> None:
        for row in step.chunks:
            sent = command.messages if kind == "send" and isinstance(command, Send) else None
            self._check(row.messages == sent, "I-1: stored unasked", row)
            last = book.last_sequence.get(row.entity, 0)
            self._check(row.first_sequence > last, "I-7: sequence", row.first_sequence, last)
            for at, body in enumerate(row.messages):
                where = (row.entity, row.first_sequence + at)
                self._check(body not in self.bodies, "ADD-3: stored twice", body, where)
                self.bodies[body] = where

    def _judge_states(
        self, book: Book, step: Step, kind: str | None, command: Command | None
    ) -> None:
        for place in step.states:
            if kind != "state" or not isinstance(command, SetState):
                self._check(place in step.forgotten, "I-6: a state changed by", kind, place)
                continue
            held = book.sessions.get(place)
            is_held = held is not None and held.locked_until_ms != 0
            lock = (place[1], held.grant if held else 0)
            self._check(is_held and command.session == lock, "I-4: state under", command.session)


def taken(command: Settle, result: list[Any]) -> list[tuple[Outcome, int, int]]:
    """Return what a settle call settled: outcome, grant and sequence number of each message."""
    failed = {
        (grant, sequence)
        for grant, parts in result[0]
        for first, last in parts
        for sequence in range(first, last + 1)
    }
    return [
        (settlement.outcome, settlement.grant, sequence)
        for settlement in command.settlements
        for sequence in settlement.sequences
        if (settlement.grant, sequence) not in failed
    ]
