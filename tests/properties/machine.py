"""What the machines of all queues share: clients that send, lock, settle, repeat; time; crashes.

Each rule makes one command, asks the model what must come of it, lets the partition carry it out and
compares. After each rule everything that can be seen is compared too, and what the store holds.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import currently_in_test_context, note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lockstep.core import commands as c
from lockstep.core import replies
from lockstep.core.decision import Decision, Wake
from lockstep.core.errors import LockstepError
from lockstep.core.ids import RequestId, sequence_base
from lockstep.core.invariants import check_partition
from tests.properties import idling_rules
from tests.properties.calls import Refused, assert_same, fingerprint, short
from tests.properties.dump import everything
from tests.properties.model import ACTIVATION, QueueModel
from tests.properties.promises import Promises
from tests.properties.rig import BYSTANDERS, PARTITION, START_MS, Rig, define
from tests.properties.vocabulary import (
    CLIENTS,
    FIXED,
    HISTORY_MOST,
    LIMITS,
    Drawn,
    clients,
    fixed_drawn,
    picks,
    settings_drawn,
)


class BrokerMachine(RuleBasedStateMachine):
    """One queue, its model, the time, and what the clients remember."""

    rig_class: type[Rig] = Rig
    requires_session = False
    session_ids: tuple[str | None, ...] = (None, "a", "b")

    def __init__(self) -> None:
        super().__init__()
        self.revision = 1000
        self.number = 7
        self.chosen_at_creation: dict[str, Any] = {}
        self.now_ms = START_MS
        definition = self._definition(lock_duration_ms=30_000, max_delivery_count=2)
        self.rig = self.rig_class(definition, LIMITS)
        self.model = QueueModel(definition, LIMITS, sequence_base(PARTITION), others=BYSTANDERS)
        self.model.last_grant = self.rig.partition.last_grant
        self.promises = Promises()
        self.committed = (self.model, self.promises)
        self.is_gathering = False
        self.history: list[Any] = []
        self.counters = dict.fromkeys(CLIENTS, 0)
        self.skipped: dict[str, list[int]] = {client: [] for client in CLIENTS}
        self.tokens: list[tuple[int, int]] = []
        self.payloads = 0

    def _definition(self, **settings: Any) -> Any:
        fixed = {"requires_session": self.requires_session, **FIXED, **self.chosen_at_creation}
        return define(self.number, self.revision, **fixed, **settings)

    @initialize(fixed=fixed_drawn, drawn=settings_drawn)
    def create(self, fixed: dict[str, Any], drawn: dict[str, Any]) -> None:
        """Begin with a queue of any kind."""
        self.chosen_at_creation = fixed
        self.recreate(is_deleted_first=False)
        self.apply(**{**drawn, "status": "active"})

    def teardown(self) -> None:
        self.rig.close()

    # --- carrying out --------------------------------------------------------------------------------

    def tell(self, what: str) -> None:
        """Say what happens next, for the report of a failing history."""
        if currently_in_test_context():
            note(f"{self.now_ms}: {what}")

    def do(self, command: Any) -> Decision | None:
        """Carry out a command and compare what comes of it; return the decision, None = refused."""
        self.tell(short(command))
        self._begin()
        before = self.model.waiting()
        try:
            expected = self.model.perform(command, self.now_ms)
        except Refused as refused:
            self._expect_refusal(command, refused)
            return None
        decision = self.rig.step(command, self.now_ms)
        facts = self.rig.facts(decision.reply)
        assert facts == expected, f"answered {facts}, not {expected}"
        self.promises.keep(command, decision.reply, self._state_in(decision.reply), self.now_ms)
        self._check_wakes(before, decision)
        self.model.calls.reconcile(self.rig.partition.requests.rows(), self.now_ms)
        idling_rules.note_alone(self.model, self.now_ms)
        return decision

    def _state_in(self, reply: Any) -> bytes | None:
        """Return the state that an answer carries to its caller."""
        match reply:
            case replies.Accepted(lock, _, True):
                return self.rig.state(lock.session_id)
            case replies.StateIs(_, session_id, True):
                return self.rig.state(session_id)
        return None

    def _expect_refusal(self, command: Any, refused: Refused) -> None:
        before = everything(self.rig.partition)
        with pytest.raises(LockstepError) as raised:
            self.rig.step(command, self.now_ms)
        assert everything(self.rig.partition) == before, f"refused, but changed: {command}"
        assert raised.value.reason in refused.reasons
        if raised.value.reason in ("SESSION_LOCK_LOST", "SESSION_CANNOT_BE_LOCKED"):
            told = raised.value.details
            assert {k: told.get(k) for k in refused.details} == refused.details
            lost = self.model.book.losses.get(int(refused.details.get("grant", 0)))
            assert not lost or lost[2] in raised.value.message, "ADD-5: who broke the lock"

    def _begin(self) -> None:
        if self.is_gathering and not self.rig.pending:
            self.committed = copy.deepcopy((self.model, self.promises))

    def _check_wakes(self, before: dict[Any, set[Any]], decision: Decision) -> None:
        """Whoever may be waiting for something that can be had since this step must be woken."""
        number = self.rig.queue.number
        after = self.model.waiting()
        owed = set()
        for key, could in after.items():
            if not could - before.get(key, set()):
                continue
            if key == "dead":
                owed.add(Wake(number, dead_letter=True))
            elif key in ("main", "next"):
                owed.add(Wake(number))
            elif key in before:
                owed.add(Wake(number, key[0]))
        for key in before.keys() - after.keys():
            owed.add(Wake(number, key[0], lost=True))
        assert owed <= set(decision.wake), f"not woken: {owed - set(decision.wake)}"

    def request(self, drawn: Drawn) -> RequestId | None:
        """Make a request id: the next one, one later, or (0) one that was left out before."""
        if drawn is None:
            return None
        client, step = drawn
        left_out = self.skipped[client]
        if not step and left_out:
            return RequestId(client, left_out.pop(0))
        left_out.extend(range(self.counters[client] + 1, self.counters[client] + step))
        self.counters[client] += max(step, 1)
        return RequestId(client, self.counters[client])

    def call(self, command: Any, drawn: Drawn) -> Decision | None:
        """Carry out a command under a request id."""
        request = self.request(drawn)
        if request is not None:
            command = replace(command, request=request, fingerprint=fingerprint(command))
            self.keep_in_history(command)
        return self.do(command)

    def keep_in_history(self, command: Any) -> None:
        """Keep a command that may be sent again."""
        self.history = [*self.history, command][-HISTORY_MOST:]

    # --- what the machines of queues know how to do --------------------------------------------------

    def fill_hands(self, which: int) -> None:
        """See to it that somebody has messages in hand."""
        raise NotImplementedError

    def settle_one(self) -> None:
        """Settle one of the messages that are in hand."""
        raise NotImplementedError

    def take(self, which: int, request: Drawn) -> None:
        """Make a call that can be undone."""
        raise NotImplementedError

    def earlier(self, which: int, *kinds: type) -> Any:
        """Return a command that was sent before, the last one first; of these kinds, if there is one."""
        known = [i for i in self.history if isinstance(i, kinds)] if kinds else []
        known = known or self.history
        return known[-1 - which % len(known)]

    # --- time, storage, definitions ------------------------------------------------------------------

    @rule(which=picks, early_ms=st.sampled_from([0, 0, 0, 1]), is_walk=st.booleans())
    def work_until_the_end(self, which: int, early_ms: int, is_walk: bool) -> None:
        """Hold messages until the first lock ends, or nearly so."""
        self.fill_hands(which)
        self.go_to(self.moment("lock") - early_ms, is_walk=is_walk)

    @rule(
        kind=st.sampled_from(["life", "schedule", "window", "life", "schedule", "delay", "delay"]),
        last=st.booleans(),
        early_ms=st.sampled_from([0, 0, 1, -1]),
        is_walk=st.booleans(),
    )
    def wait_for(self, kind: str, last: bool, early_ms: int, is_walk: bool) -> None:
        """Let time pass until a message expires, becomes active or comes back, or an id is forgotten; or nearly so."""
        self.go_to(self.moment(kind, last=last) - early_ms, is_walk=is_walk)

    def moment(self, kind: str, *, last: bool = False) -> int:
        """Return when something of a kind happens, the first or the last of them; 0 = never."""
        moments = [0, *(ms for ms in self.model.moments(kind) if ms > self.now_ms)]
        return moments[-1] if last else moments[:2][-1]

    @rule(client=clients, early_ms=st.sampled_from([0, 1, 300_000]))
    def be_silent(self, client: str, early_ms: int) -> None:
        """Let a client be silent until its results may be forgotten, or nearly so."""
        seen_ms = self.model.calls.seen_ms.get(client, 0)
        self.go_to(seen_ms + LIMITS.request_retention_ms - early_ms, is_walk=True)

    @rule(
        how_far=st.sampled_from(["to the end", "just before", "to the next look"])
        | st.sampled_from([1, 100, 5_000, 10_000, 29_999, 30_000, 61_000, 600_000, 3_700_000]),
        is_walk=st.booleans(),
    )
    def advance(self, how_far: str | int, is_walk: bool) -> None:
        if isinstance(how_far, int):
            self.go_to(self.now_ms + how_far, is_walk=is_walk)
        elif how_far == "to the next look":
            self.go_to(self.rig.partition.next_deadline_ms or 0, is_walk=False)
        else:
            self.go_to(self.moment("lock") - (how_far == "just before"), is_walk=is_walk)

    def go_to(self, end_ms: int, *, is_walk: bool) -> None:
        """Let time pass until then, at once or with every tick on time."""
        while is_walk and (self.rig.partition.next_deadline_ms or end_ms) < end_ms:
            self.now_ms = max(self.now_ms, self.rig.partition.next_deadline_ms or 0)
            self._tick()
        # What a delay's end does, and what ends before, depend on their order, so neither is jumped over.
        while self.now_ms < self.moment("delay") <= end_ms:
            until_ms = self.moment("delay")
            for moment_ms in (until_ms - 1, until_ms):
                self.now_ms = max(self.now_ms, moment_ms)
                self._tick()
        self.now_ms = max(self.now_ms, end_ms)
        self._tick()

    def wait(self, ms: int) -> None:
        """Let time pass."""
        self.go_to(self.now_ms + ms, is_walk=False)

    def _tick(self) -> None:
        if not self.rig.partition.is_due(self.now_ms):
            return
        self.tell("Tick")
        self._begin()
        before = self.model.waiting()
        decision = self.rig.step(c.Tick(), self.now_ms)
        self.model.pass_time(self.now_ms, _order(decision), self.rig.queue.dead_order)
        self._follow_idle_states()
        self._check_wakes(before, decision)
        self.model.calls.reconcile(self.rig.partition.requests.rows(), self.now_ms)
        assert not self.rig.partition.is_due(self.now_ms)

    def _follow_idle_states(self) -> None:
        with_state = [i for i, s in self.rig.queue.sessions.items() if s.state_bytes is not None]
        for session_id in idling_rules.follow(self.model, with_state, self.now_ms):
            self.promises.states[session_id] = None
        idling_rules.note_alone(self.model, self.now_ms)

    @rule(
        later_ms=st.sampled_from([0, 1, 5_000, 40_000]),
        is_crash=st.booleans(),
        is_busy=st.booleans(),
        first_call=picks,
        silent_ms=st.sampled_from([0, 0, 10_000, 60_000]),
    )
    def reopen(
        self, later_ms: int, is_crash: bool, is_busy: bool, first_call: int, silent_ms: int
    ) -> None:
        """Open the partition anew; in a crash what no commit stored is lost, and nobody saw it."""
        if is_busy and first_call > 8:
            self.take(1, (CLIENTS[0], 1))
        elif is_busy:
            self.fill_hands(later_ms)
        self.restart(later_ms, is_crash=is_crash)
        if first_call > 8 and self.history:
            self.do(self.earlier(0, c.Receive))
        elif first_call > 6:
            self.settle_one()
        self.wait(silent_ms)

    def restart(self, later_ms: int = 0, *, is_crash: bool = False) -> None:
        """Lose the partition and open it again."""
        self.tell(f"reopened {later_ms} ms later, after a crash: {is_crash}")
        if self.rig.pending and self.is_gathering and is_crash:
            self.model, self.promises = self.committed
            self.number = self.model.definition.number
        else:
            self.rig.commit()
        self.now_ms += later_ms
        self.is_gathering = False
        self.rig.reopen(self.now_ms)
        self.model.reopen(self.now_ms)
        idling_rules.note_alone(self.model, self.now_ms, anew=True)
        if not self.rig.partition.is_due(self.now_ms):
            self.agrees_with_the_model()
        self.wait(0)

    @rule(is_gathering=st.booleans())
    def gather_changes(self, is_gathering: bool) -> None:
        """Let several steps share one commit."""
        self.is_gathering = is_gathering

    @rule(drawn=settings_drawn, is_call_repeated=st.booleans())
    def redefine(self, drawn: dict[str, Any], is_call_repeated: bool) -> None:
        self.apply(**drawn)
        if is_call_repeated and self.history:
            self.do(self.earlier(0, c.Accept))

    def apply(self, **settings: Any) -> None:
        """Change the definition of the queue."""
        self._begin()
        self.revision += 1
        definition = self._definition(**settings)
        self.tell(f"redefined {settings}")
        self.rig.step(c.ApplyDefinition(definition), self.now_ms)
        self.model.definition = definition
        idling_rules.note_alone(self.model, self.now_ms, anew=True)
        self.wait(1)  # a shorter window of duplicate detection holds from then on (DUP-4)

    @rule(is_deleted_first=st.booleans())
    def recreate(self, is_deleted_first: bool) -> None:
        """Replace the queue by another of the same name, which shares nothing with it (ADD-12)."""
        self._begin()
        self.tell(f"created anew, deleted first: {is_deleted_first}")
        before = self.rig.queue.definition
        wake = Wake(before.number, lost=True)
        if is_deleted_first:
            self.revision += 1
            deletion = c.ApplyDeletion(before.number, self.revision)
            assert wake in self.rig.step(deletion, self.now_ms).wake
            assert self.rig.step(deletion, self.now_ms).changes == ()
            assert self.rig.step(c.ApplyDefinition(before), self.now_ms).changes == ()
        self.revision += 1
        self.number = self.revision
        definition = self._definition(lock_duration_ms=30_000, max_delivery_count=2)
        created = self.rig.step(c.ApplyDefinition(definition), self.now_ms)
        assert is_deleted_first or wake in created.wake
        assert self.rig.step(c.ApplyDefinition(before), self.now_ms).changes == ()
        self.model = self.model.successor(definition, sequence_base(PARTITION), self.now_ms)
        self.promises = Promises(self.promises.answered)

    # --- what must hold after each rule --------------------------------------------------------------

    @invariant()
    def agrees_with_the_model(self) -> None:
        check_partition(self.rig.partition)
        self.rig.check_counts()
        seen = self.rig.view(self.now_ms)
        assert_same(seen, self.model.view())
        assert_same(self.rig.runtime(self.now_ms), self.model.runtime())
        ever = range(self.model.first_sequence, self.model.last_sequence + 1)
        there = {*seen["messages"], *(number for number, *_ in seen["dead letters"])}
        assert there.isdisjoint(self.model.gone), "I-1: a message that is gone is there"
        assert there.union(self.model.gone) == set(ever), "I-1: a message was lost"

    @invariant()
    def everything_is_stored(self) -> None:
        if not self.is_gathering:
            self.rig.commit()
            self.rig.check_store(self.now_ms)


def _order(decision: Decision) -> list[str]:
    """Return which sessions' locks ended in a tick, and where among them scheduled messages became active."""
    ended = iter([str(wake.session_id) for wake in decision.wake if wake.lost])
    order = []
    for event in decision.events:
        if (event.name, event.label) == ("enqueued", "scheduled"):
            order.append(ACTIVATION)
        elif event.name == "locks_released" and event.label.startswith("session:"):
            order.append(next(ended))
    return [*order, *ended]
