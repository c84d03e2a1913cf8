"""Whether each committed step was allowed, judged from the rows before it and the command that caused it.

Here belong the order in which rules are asked, and the comparison of what they expect with what was written. The
rules are in `rules`. What is stored is the truth that every reply is held against (`witness`).

A new command needs: a rule in `RULES` under the kind of its result; its reply in `witness.Witness.answered` if it
tells something; a turn of a client in `workers` or `clients`; its rows, if they are new, in `rows` and `book`.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.sim.book import Book
from tests.sim.case import Case, Check, Memory
from tests.sim.rows import Step
from tests.sim.rules import expiry, jobs, locks, receiving, sending, settling, transfers, turning

Rule = Callable[[Case], None]

RULES: dict[str, Rule] = {
    "send": sending.judge_send,
    "cancel_scheduled": sending.judge_cancel_scheduled,
    "accept": locks.judge_accept,
    "receive": receiving.judge_receive,
    "receive_deferred": receiving.judge_receive_deferred,
    "settle": settling.judge_settle,
    "state": settling.judge_state,
    "turn": turning.judge_turn,
    "job": jobs.judge_start,
    "release": locks.judge_release,
    "break_lock": locks.judge_break_lock,
    "cancelled": locks.judge_cancel,
}
WITHOUT_EFFECT_ON_MESSAGES = ("nothing", "create", "update", "delete")
ALWAYS: tuple[Rule, ...] = (
    sending.judge_chunks,
    locks.judge_grants,
    settling.judge_states,
    transfers.judge_holds,
)


class Referee:
    """Judges the steps of all partitions.

    Attributes:
        memory: What it remembers of the whole history.
    """

    def __init__(self, check: Check, grace_ms: int, partitions: int) -> None:
        self._check = check
        self._grace_ms = grace_ms
        self.memory = Memory(partitions)

    def judge_moves(self, book: Book, step: Step) -> None:
        """Check what a step enqueued again; the book takes that over before anything else is judged."""
        sending.judge_moves(self._case(book, step))

    def judge(self, book: Book, step: Step) -> Case:
        """Check one step against the book as it was before, but for what moved."""
        case = self._case(book, step)
        self._judge_counters(case)
        self._judge_call(case)
        for rule in ALWAYS:
            rule(case)
        if case.kind is None and step.jobs:
            jobs.judge_progress(case)
        elif case.step.arrivals:
            is_alone = case.kind is None
            self._check(is_alone, "RSB-2: an arrival beside what a call does", case.kind)
            transfers.judge_arrival(case)
        elif case.kind is None:
            locks.judge_expired(case, self._grace_ms)
            locks.judge_delays(case)
        elif case.kind not in WITHOUT_EFFECT_ON_MESSAGES:
            assert case.kind in RULES, f"no rule for what {case.kind} does"
            RULES[case.kind](case)
        self._compare(case)
        return case

    def confirm(self, case: Case) -> None:
        """Check what the step has left, once the book has taken it over."""
        for place in dict.fromkeys((*case.hands, *case.step.sessions)):
            hand = set(case.book.hand(case.book.sessions.get(place)))
            if place not in case.hands or place[0] not in case.book.entities:
                continue
            self._check(
                hand == case.hands[place], "SES-30: in hand", place, hand, case.hands[place]
            )
        for place in case.step.forgotten:
            left = [w for w, m in case.book.messages.items() if (w[0], m.session_id) == place]
            left = [w for w in left if not case.book.messages[w].dead]
            self._check(not left, "SES-2: a session with messages was forgotten", place, left)

    def _case(self, book: Book, step: Step) -> Case:
        kind, result, command = None, [], None
        if step.request is not None:
            kind, *result = json.loads(step.request.result)
            key = (step.request.client_id, step.request.counter, step.request.fingerprint)
            command = self.memory.commands.get(key)
        return Case(book, step, kind, result, command, self._check, self.memory)

    def _judge_counters(self, case: Case) -> None:
        before, after = case.book.partition, case.step.partition
        assert after is not None
        self._check(after.last_time_ms >= before.last_time_ms, "RACE-18: time went back")
        self._check(after.last_grant >= before.last_grant, "SES-26: grants went back")
        self._check(after.last_chunk >= before.last_chunk, "I-7: chunks went back")
        for row in case.step.entities:
            known = case.book.entities.get(row.entity)
            self._check(known is None or known.revision < row.revision, "ADD-12: an older revision")

    def _judge_call(self, case: Case) -> None:
        """ADD-3: a call has one result, so none has an effect twice, or after it was answered with nothing."""
        if case.kind is None:
            return
        before = case.book.result_of(case.key)[0]
        is_first = before in ("none", "cancelled") or case.kind == "cancelled"
        if before == "cancelled" and case.kind != "cancelled":
            is_first = case.key in case.book.undone
        self._check(is_first, "ADD-3: executed twice", case.key, before, case.kind)
        if case.kind in ("accept", "receive"):
            is_open = (case.book.number, *case.call_key) not in self.memory.answered_nothing
            self._check(is_open, "ADD-3: took effect after its answer", case.command)

    def _compare(self, case: Case) -> None:
        """Check that the step did what the rules expect, and beyond it only collected what had expired."""
        step = case.step
        dead = {(row.entity, row.sequence): row.reason for row in step.dead}
        swept = ({*step.gone, *dead} - case.gone) - case.dead.keys()
        expiry.judge_sweep(case, swept)
        for where in swept:
            message = case.book.messages.get(where)
            if message is not None and message.grant is not None:
                case.aside[where] = None
            if where in case.delays or (message is not None and message.later_ms):
                case.delays[where] = None
        gone, buried = step.gone - swept, {w: r for w, r in dead.items() if w not in swept}
        self._check(
            gone == case.gone, "I-1: gone", sorted(gone), "not", sorted(case.gone), case.kind
        )
        is_right = buried.keys() == case.dead.keys() and all(
            case.dead[where] in (None, reason) for where, reason in buried.items()
        )
        self._check(is_right, "DCN-6: dead letters", buried, "not", case.dead, case.kind)
        is_counted = step.counts == case.counts
        self._check(is_counted, "DCN-4, I-5: counted", step.counts, "not", case.counts, case.kind)
        is_delayed = step.delays == case.delays
        self._check(is_delayed, "ADD-6: delayed", step.delays, "not", case.delays, case.kind)
        self._compare_traces(case)
        is_aside = step.aside == case.aside
        self._check(is_aside, "DEF-1: deferred", step.aside, "not", case.aside, case.kind)

    def _compare_traces(self, case: Case) -> None:
        """Check what is changed about messages, and that who leaves takes count and changes along."""
        step, wanted = case.step, dict(case.amended)
        leaving = {where: case.book.messages[where] for where in step.gone}
        leaving |= {old: message for old, _, message in step.renumbered}
        for where in leaving:
            if where in wanted or where in case.book.amendments:
                wanted[where] = None
        is_amended = step.amended == wanted
        self._check(is_amended, "MSG-8, RSB-4: changed", step.amended, "not", wanted, case.kind)
        undead = case.revived | {where for where, message in leaving.items() if message.dead}
        is_revived = step.undead == undead
        self._check(is_revived, "RSB-2: dead letters no more", step.undead, "not", undead)
        leaving |= {where: case.book.messages[where] for where in case.revived}
        counted = {w for w, message in leaving.items() if w in step.counts or message.deliveries}
        is_uncounted = step.uncounted == counted
        self._check(is_uncounted, "RSB-3: counts dropped", step.uncounted, "not", counted)
