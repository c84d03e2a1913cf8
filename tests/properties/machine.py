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
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lockstep.core import commands as c
from lockstep.core.commands import Outcome
from lockstep.core.decision import Decision, Wake
from lockstep.core.errors import LockstepError
from lockstep.core.ids import EntityKey, GrantNumber, RequestId, SessionLock, sequence_base
from lockstep.core.invariants import check_partition
from tests.properties.calls import Refused, assert_same, fingerprint, short
from tests.properties.dump import everything
from tests.properties.model import QueueModel
from tests.properties.rig import BYSTANDERS, PARTITION, START_MS, Rig, define
from tests.properties.vocabulary import (
    BIG,
    CLIENTS,
    FIXED,
    HISTORY_MOST,
    KEY,
    LIMITS,
    WRONG_SENDS,
    Drawn,
    choices,
    clients,
    mosts,
    picks,
    requests,
    settings_drawn,
    settlements,
    sizes,
    slips,
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
        self.now_ms = START_MS
        definition = self._definition(lock_duration_ms=30_000, max_delivery_count=2)
        self.rig = self.rig_class(definition, LIMITS)
        self.model = QueueModel(definition, LIMITS, sequence_base(PARTITION), others=BYSTANDERS)
        self.model.last_grant = self.rig.partition.last_grant
        self.committed = self.model
        self.is_gathering = False
        self.history: list[Any] = []
        self.counters = dict.fromkeys(CLIENTS, 0)
        self.skipped: dict[str, list[int]] = {client: [] for client in CLIENTS}
        self.tokens: list[tuple[int, int]] = []
        self.payloads = 0

    def _definition(self, **settings: Any) -> Any:
        fixed = {"requires_session": self.requires_session, **FIXED}
        return define(self.number, self.revision, **fixed, **settings)

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
        self._check_wakes(before, decision)
        self.model.calls.reconcile(self.rig.partition.requests.rows(), self.now_ms)
        return decision

    def _expect_refusal(self, command: Any, refused: Refused) -> None:
        before = everything(self.rig.partition)
        with pytest.raises(LockstepError) as raised:
            self.rig.step(command, self.now_ms)
        assert everything(self.rig.partition) == before, f"refused, but changed: {command}"
        assert raised.value.reason in refused.reasons
        if raised.value.reason in ("SESSION_LOCK_LOST", "SESSION_CANNOT_BE_LOCKED"):
            told = raised.value.details
            assert {k: told.get(k) for k in refused.details} == refused.details

    def _begin(self) -> None:
        if self.is_gathering and not self.rig.pending:
            self.committed = copy.deepcopy(self.model)

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

    # --- sending -------------------------------------------------------------------------------------

    def payload(self, size: int) -> bytes:
        """Make a payload that differs from all others, unless it is empty or big."""
        if not size or size >= len(BIG):
            return bytes(size)
        self.payloads += 1
        return f"{self.payloads:0{size}}".encode()

    @rule(
        which=st.lists(picks, min_size=1, max_size=5),
        size=st.lists(sizes, min_size=5, max_size=5),
        how=st.sampled_from(["mixed", "mixed", "one session", "one session", "big"]),
        request=requests,
    )
    def send(self, which: list[int], size: list[int], how: str, request: Drawn) -> None:
        if how == "big":
            which, size = which[:1] * 2, [len(BIG)] * 2
        ids = tuple(self.session_ids[i % len(self.session_ids)] for i in which)
        messages = tuple(self.payload(s) for _, s in zip(which, size, strict=False))
        self.call(c.Send(KEY, messages, ids if how == "mixed" else ids[:1]), request)

    def send_some(self, session_id: str | None) -> None:
        """Send three messages, so that a rule that needs messages has some."""
        messages = tuple(self.payload(3) for _ in range(3))
        self.do(c.Send(KEY, messages, (session_id,)))

    # --- messages that are locked one by one ---------------------------------------------------------

    @rule(dead_letter=st.booleans(), most=mosts, request=requests)
    def receive_plain(self, dead_letter: bool, most: int, request: Drawn) -> None:
        dead_letter = dead_letter or self.requires_session
        if most > 1 and not self.model.shelf(dead_letter=dead_letter).messages:
            self.bury_some() if dead_letter else self.send_some(None)
        self.receive_from(dead_letter, most, request)

    def receive_from(self, dead_letter: bool, most: int, request: Drawn) -> None:
        """Receive from the plain store or from the dead letters, and keep the tokens."""
        decision = self.call(c.Receive(KEY, dead_letter, None, most), request)
        if decision is not None:
            reply: Any = decision.reply
            self.tokens += [(reply.grant, sequence) for sequence in reply.sequences]
            self.tokens = self.tokens[-HISTORY_MOST:]

    def lock_some(self, *, dead_letter: bool) -> None:
        """See to it that a store has locked messages."""
        if not self.model.shelf(dead_letter=dead_letter).messages:
            self.bury_some() if dead_letter else self.send_some(None)
        self.receive_from(dead_letter, 3, None)

    def bury_some(self) -> None:
        """See to it that there are dead letters."""
        grant, numbers = self.chosen_tokens(None, 0, dead_letter=False)
        buried = c.Settlement(Outcome.DEAD_LETTER, GrantNumber(grant), numbers, "because", "so")
        self.do(c.Settle(KEY, False, None, (buried,)))

    def fill_hands(self, which: int) -> None:
        """See to it that somebody has messages in hand."""
        self.lock_some(dead_letter=which > 7)

    def chosen_tokens(self, chosen: list[int] | None, slip: int, *, dead_letter: bool) -> Any:
        """Return (grant, sequences): mostly locked ones, also settled ones, and some never given."""
        shelf = self.model.shelf(dead_letter=dead_letter)
        if not shelf.locks:
            self.lock_some(dead_letter=dead_letter)
        known = [(g, s) for g in sorted(shelf.locks) for s in shelf.locks[g]] or self.tokens
        if not known:
            return self.model.last_grant + slip, [self.model.last_sequence]
        grant = known[sum(chosen or ()) % len(known)][0]
        mine = [s for g, s in known if g == grant]
        if chosen is None:
            return grant + slip, mine
        pool = mine * 3 + [s for _, s in [*known, *self.tokens]][:3]
        return grant + slip, [pool[i % len(pool)] for i in chosen]

    @rule(dead_letter=st.booleans(), drawn=settlements, request=requests)
    def settle_plain(self, dead_letter: bool, drawn: list[Any], request: Drawn) -> None:
        dead_letter = dead_letter or self.requires_session
        made = []
        for outcome, chosen, slip in drawn:
            allowed = Outcome.RELEASE if dead_letter and outcome is Outcome.DEAD_LETTER else outcome
            grant, numbers = self.chosen_tokens(chosen, slip, dead_letter=dead_letter)
            made.append(c.Settlement(allowed, GrantNumber(grant), numbers, "R", "D"))
        self.call(c.Settle(KEY, dead_letter, None, tuple(made)), request)

    def settle_one(self) -> None:
        """Settle one of the messages that are in hand."""
        grant, numbers = self.chosen_tokens(None, 0, dead_letter=False)
        released = c.Settlement(Outcome.RELEASE, GrantNumber(grant), numbers[:1])
        self.do(c.Settle(KEY, False, None, (released,)))

    @rule(dead_letter=st.booleans())
    def drain(self, dead_letter: bool) -> None:
        """Complete what is there."""
        dead_letter = dead_letter or self.requires_session
        self.receive_from(dead_letter, 6, None)
        for grant, held in list(self.model.shelf(dead_letter=dead_letter).locks.items()):
            done = c.Settlement(Outcome.COMPLETE, GrantNumber(grant), list(held))
            self.do(c.Settle(KEY, dead_letter, None, (done,)))

    @rule(dead_letter=st.booleans(), chosen=choices, slip=slips, late_ms=st.sampled_from([0, 99]))
    def renew_messages(
        self, dead_letter: bool, chosen: list[int] | None, slip: int, late_ms: int
    ) -> None:
        dead_letter = dead_letter or self.requires_session
        grant, numbers = self.chosen_tokens(chosen, slip, dead_letter=dead_letter)
        self.wait(late_ms)
        tokens = tuple((GrantNumber(grant), sequence) for sequence in numbers)
        self.do(c.RenewMessages(KEY, dead_letter, tokens))

    # --- calls again, and undone ---------------------------------------------------------------------

    def earlier(self, which: int, *kinds: type) -> Any:
        """Return a command that was sent before, the last one first; of these kinds, if there is one."""
        known = [i for i in self.history if isinstance(i, kinds)] if kinds else []
        known = known or self.history
        return known[-1 - which % len(known)]

    @precondition(lambda self: self.history)
    @rule(which=picks, how=st.sampled_from(["same"] * 5 + ["other payload", "other call"]))
    def repeat(self, which: int, how: str) -> None:
        again = self.earlier(which)
        if how == "other payload":
            again = replace(again, fingerprint=again.fingerprint + 1)
        elif how == "other call":
            is_send = isinstance(again, c.Send)
            other = c.Receive(KEY, True, None, 1) if is_send else c.Send(KEY, (b"other",), ("a",))
            again = replace(other, request=again.request, fingerprint=again.fingerprint)
        self.do(again)

    @precondition(lambda self: self.history)
    @rule(which=picks, any_kind=st.booleans())
    def cancel(self, which: int, any_kind: bool) -> None:
        kinds = () if any_kind else (c.Accept, c.Receive)
        self.do(c.Cancel(KEY, self.earlier(which, *kinds).request))

    @rule(which=picks, request=st.tuples(clients, st.just(1)))
    def cancel_at_once(self, which: int, request: tuple[str, int]) -> None:
        """Take or lock something, lose the reply, and take it back."""
        self.take(which, request)
        self.do(c.Cancel(KEY, self.history[-1].request))

    def take(self, which: int, request: Drawn) -> None:
        """Make a call that can be undone."""
        if which % 2:
            self.send_some(None)
        self.receive_from(False, 3, request)

    @rule(which=picks, request=st.tuples(clients, st.just(1)), is_early=st.booleans())
    def give_up(self, which: int, request: tuple[str, int], is_early: bool) -> None:
        """Answer a call with nothing: one that found nothing, or one that was to wait."""
        if is_early:
            made = self.request(request)
            command = c.Receive(KEY, True, None, 2, made, 5)
            self.keep_in_history(command)
        elif self.history:
            command = self.earlier(which, c.Accept, c.Receive)
        else:
            return
        self.do(c.GiveUp(KEY, command.request, command.fingerprint))

    @rule(request=st.tuples(clients, st.sampled_from([0, 1])))
    def cancel_too_early(self, request: tuple[str, int]) -> None:
        """The cancellation overtakes its call."""
        made = self.request(request)
        assert made is not None
        self.do(c.Cancel(KEY, made))
        self.keep_in_history(c.Send(KEY, (b"late",), ("a",), made, 1))

    @rule(which=st.integers(0, 24))
    def ask_nonsense(self, which: int) -> None:
        """Ask for what no partition may do; it must say so and stay as it is."""
        lock = SessionLock("a", GrantNumber(self.model.last_grant))
        nonsense = (*WRONG_SENDS, *self._wrong_locks(lock), *self.wrong_settlements(lock))
        self.do(nonsense[which % len(nonsense)])

    def _wrong_locks(self, lock: SessionLock) -> tuple[Any, ...]:
        return (
            c.Accept(EntityKey("default", "nowhere"), "a", "h"),
            c.Accept(KEY, "i" * 129, "h"),
            c.Accept(KEY, "free", "h" * 129),
            c.Receive(KEY, False, None if self.requires_session else lock, 1),
            c.Receive(KEY, True, lock, 1),
            c.Receive(KEY, True, None, 0),
            c.RenewMessages(KEY, True, ((lock.grant, 1),) * 9),
            *(
                ()
                if self.requires_session
                else (c.ListSessions(KEY, 1), c.GetSession(KEY, lock[0]))
            ),
        )

    def wrong_settlements(self, lock: SessionLock) -> tuple[Any, ...]:
        """Settlements that break a rule whatever the queue holds."""
        bury = c.Settlement(Outcome.DEAD_LETTER, lock.grant, [1])
        session = lock if self.requires_session else None
        return (
            c.Settle(KEY, False, None if self.requires_session else lock, ()),
            c.Settle(KEY, True, lock, ()),
            c.Settle(KEY, True, None, (bury,)),
            c.Settle(KEY, False, session, (replace(bury, reason="r" * 4097),)),
            c.Settle(KEY, False, session, (replace(bury, description="d" * 4097),)),
            c.Settle(KEY, False, session, (replace(bury, sequences=[1] * 9),)),
        )

    # --- time, storage, definitions ------------------------------------------------------------------

    @rule(which=picks, early_ms=st.sampled_from([0, 0, 0, 1]), is_walk=st.booleans())
    def work_until_the_end(self, which: int, early_ms: int, is_walk: bool) -> None:
        """Hold messages until the first lock ends, or nearly so."""
        self.fill_hands(which)
        self.go_to((self.model.next_end_ms() or 0) - early_ms, is_walk=is_walk)

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
            end_ms = self.model.next_end_ms() or 0
            self.go_to(end_ms - (how_far == "just before"), is_walk=is_walk)

    def go_to(self, end_ms: int, *, is_walk: bool) -> None:
        """Let time pass until then, at once or with every tick on time."""
        while is_walk and (self.rig.partition.next_deadline_ms or end_ms) < end_ms:
            self.now_ms = max(self.now_ms, self.rig.partition.next_deadline_ms or 0)
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
        ended = [str(wake.session_id) for wake in decision.wake if wake.lost]
        self.model.expire(self.now_ms, ended, self.rig.queue.dead_order)
        self._check_wakes(before, decision)
        self.model.calls.reconcile(self.rig.partition.requests.rows(), self.now_ms)
        assert not self.rig.partition.is_due(self.now_ms)

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
        self.agrees_with_the_model()
        if first_call > 8 and self.history:
            self.do(self.earlier(0, c.Receive))
        elif first_call > 6:
            self.settle_one()
        self.wait(silent_ms)

    def restart(self, later_ms: int = 0, *, is_crash: bool = False) -> None:
        """Lose the partition and open it again."""
        self.tell(f"reopened {later_ms} ms later, after a crash: {is_crash}")
        if self.rig.pending and self.is_gathering and is_crash:
            self.model = self.committed
            self.number = self.model.definition.number
        else:
            self.rig.commit()
        self.now_ms += later_ms
        self.is_gathering = False
        self.rig.reopen(self.now_ms)
        self.model.reopen(self.now_ms)

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
        self.model = self.model.successor(definition, sequence_base(PARTITION))

    # --- what must hold after each rule --------------------------------------------------------------

    @invariant()
    def agrees_with_the_model(self) -> None:
        check_partition(self.rig.partition)
        assert_same(self.rig.view(self.now_ms), self.model.view())
        assert_same(self.rig.runtime(self.now_ms), self.model.runtime())

    @invariant()
    def everything_is_stored(self) -> None:
        if not self.is_gathering:
            self.rig.commit()
            self.rig.check_store(self.now_ms)
