"""A session queue, its locks, states and dead letters, held against the model."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from lockstep.core import commands as c
from lockstep.core import replies
from lockstep.core.commands import Outcome
from lockstep.core.ids import EntityKey, GrantNumber, SessionId, SessionLock
from tests.properties import idling_rules
from tests.properties.clients import ClientMachine
from tests.properties.message import State
from tests.properties.vocabulary import (
    KEY,
    Drawn,
    deletions,
    mosts,
    outcomes,
    picks,
    requests,
    settlement,
    settlements,
    sizes,
)
from tests.properties.vocabulary import names as message_names

IDS = ("a", "b", "", "B")
NAMES = ("ann", "bob")
STATES = (b"s", b"", None, b"longer state", bytes(1024), bytes(1025))

names = st.sampled_from(NAMES)


class SessionQueueMachine(ClientMachine):
    """Messages are received under the lock of their session; dead letters one by one."""

    requires_session = True
    session_ids = (*IDS, *IDS, None)

    # --- the lock ------------------------------------------------------------------------------------

    @rule(which=picks, name=names, request=requests)
    def accept(self, which: int, name: str, request: Drawn) -> None:
        self.call(c.Accept(KEY, SessionId(IDS[which % len(IDS)]), name), request)

    @rule(name=names, request=requests)
    def accept_next(self, name: str, request: Drawn) -> None:
        self.call(c.Accept(KEY, None, name), request)

    def lock(self, which: int) -> SessionLock:
        """Return a lock: one that is held, for large choices an old, a foreign or an invented one."""
        known = self.model.book.granted
        if which == 9 and known:
            return SessionLock(SessionId("b"), GrantNumber(known[-1][1]))
        if which == 10 and known:
            return SessionLock(SessionId(known[0][0]), GrantNumber(known[0][1]))
        if not self.held() and which != 11:
            self.do(c.Accept(KEY, SessionId(IDS[which % 2]), "eve"))
        held = self.held()
        if which == 11 or not held:
            return SessionLock(SessionId("a"), GrantNumber(self.model.last_grant + 1))
        return held[which % len(held)]

    def source(self, which: int) -> SessionLock:
        return self.lock(which % 8)

    def held(self) -> list[SessionLock]:
        """Return every lock that is held."""
        return [
            SessionLock(SessionId(i), GrantNumber(holder.grant))
            for i, holder in self.model.book.holders().items()
        ]

    @rule(which=picks, late_ms=st.sampled_from([0, 99]))
    def renew_session(self, which: int, late_ms: int) -> None:
        lock = self.lock(which)
        self.wait(late_ms)
        self.do(c.RenewSession(KEY, lock))

    @rule(which=picks, request=requests)
    def release(self, which: int, request: Drawn) -> None:
        self.call(c.ReleaseSession(KEY, self.lock(which)), request)

    @rule(which=picks, by=names, request=requests)
    def break_lock(self, which: int, by: str, request: Drawn) -> None:
        """End a lock whoever holds it; the holder does not know."""
        session_id = SessionId(IDS[which % len(IDS)]) if which > 8 else self.lock(which).session_id
        self.call(c.BreakLock(KEY, session_id, by), request)

    # --- messages ------------------------------------------------------------------------------------

    @rule(which=picks, most=mosts, deletes=deletions, request=requests)
    def receive(self, which: int, most: int, deletes: bool, request: Drawn) -> None:
        lock = self.lock(which)
        if self.model.book.held(*lock) and not self.model.deliverable(lock.session_id):
            self.send_some(lock.session_id)
        self.call(c.Receive(KEY, False, lock, most, deletes=deletes), request)

    def fill_hand(self, lock: SessionLock) -> None:
        """See to it that a holder has something in hand."""
        if self.model.book.held(*lock) and not self.model.hand(lock.session_id):
            if not self.model.deliverable(lock.session_id):
                self.send_some(lock.session_id)
            self.do(c.Receive(KEY, False, lock, 3))

    @rule(
        which=picks,
        chosen=st.none() | st.lists(picks, max_size=4),
        deletes=deletions,
        request=requests,
    )
    def receive_deferred(
        self, which: int, chosen: list[int] | None, deletes: bool, request: Drawn
    ) -> None:
        """Ask for what was deferred, of this session or of another."""
        lock = self.lock(which)
        if not self.aside(dead_letter=False):
            self.fill_hand(lock)
            deferred = c.Settlement(Outcome.DEFER, lock.grant, self.numbers(lock, None)[:2])
            self.do(c.Settle(KEY, False, lock, (deferred,)))
        mine = [m for m in self.model.of_session(lock.session_id) if m.state is State.DEFERRED]
        known = [m.sequence for m in mine] or self.aside(dead_letter=False)
        numbers = self.deferred_numbers(known, chosen)
        self.call(c.ReceiveDeferred(KEY, False, lock, numbers, deletes=deletes), request)

    def fill_hands(self, which: int) -> None:
        self.fill_hand(self.lock(which % 8))

    def take(self, which: int, request: Drawn) -> None:
        if which % 3:
            lock = self.lock(which % 8)
            self.send_some(lock.session_id)
            self.call(c.Receive(KEY, False, lock, 2), request)
        else:
            self.call(c.Accept(KEY, SessionId(IDS[which // 3]), "eve"), request)

    def bury_some(self) -> None:
        lock = self.lock(0)
        self.fill_hand(lock)
        buried = c.Settlement(Outcome.DEAD_LETTER, lock.grant, self.numbers(lock, None), "x", "y")
        self.do(c.Settle(KEY, False, lock, (buried,)))

    def settle_one(self) -> None:
        lock = self.lock(0)
        self.fill_hand(lock)
        released = c.Settlement(Outcome.RELEASE, lock.grant, self.numbers(lock, None)[:1])
        self.do(c.Settle(KEY, False, lock, (released,)))

    def numbers(self, lock: SessionLock, chosen: list[int] | None) -> list[int]:
        """Return sequence numbers to settle: the whole hand, or any, others than the hand's among them."""
        hand = [m.sequence for m in self.model.hand(lock.session_id)]
        if chosen is None:
            return hand
        waiting = [m.sequence for m in self.model.deliverable(lock.session_id)]
        foreign = [m.sequence for m in self.model.stored() if m.sequence not in hand]
        pool = [*hand, *hand, *hand, *waiting[:1], *foreign[:1], self.model.last_sequence + 1]
        return [pool[i % len(pool)] for i in chosen]

    @rule(which=picks, drawn=settlements, request=requests)
    def settle(self, which: int, drawn: list[Any], request: Drawn) -> None:
        lock = self.lock(which)
        self.fill_hand(lock)
        made = tuple(
            settlement(outcome, lock.grant + slip, self.numbers(lock, chosen), extra)
            for outcome, chosen, slip, extra in drawn
        )
        self.call(c.Settle(KEY, False, lock, made), request)

    @rule(which=picks, count=st.integers(1, 4), beyond=st.booleans(), outcome=outcomes)
    def settle_the_oldest(self, which: int, count: int, beyond: bool, outcome: Outcome) -> None:
        """What most clients do: settle the beginning of the hand, in order; or too much, beyond it."""
        lock = self.lock(which % 8)
        if not beyond or which % 2:
            self.fill_hand(lock)
        numbers = self.numbers(lock, None)
        if beyond:
            numbers = [m.sequence for m in self.model.of_session(lock.session_id)]
        settled = c.Settlement(outcome, lock.grant, numbers[:count])
        self.do(c.Settle(KEY, False, lock, (settled,)))

    @rule(which=picks)
    def drain_session(self, which: int) -> None:
        """Complete what a session has, and give it back."""
        self.drain_and_release(self.lock(which % 8))

    def drain_and_release(self, lock: SessionLock) -> None:
        self.do(c.Receive(KEY, False, lock, 6))
        done = c.Settlement(Outcome.COMPLETE, lock.grant, self.numbers(lock, None)[:8])
        self.do(c.Settle(KEY, False, lock, (done,)))
        self.do(c.ReleaseSession(KEY, lock))

    # --- state ---------------------------------------------------------------------------------------

    @rule(which=picks, value=picks, compares=st.booleans(), request=requests)
    def set_state(self, which: int, value: int, compares: bool, request: Drawn) -> None:
        """Set a state: whatever it is, or if it has the version that is thought of."""
        lock = self.lock(which)
        version = None
        if compares:
            session = self.model.book.sessions.get(lock.session_id)
            version = max(0, (session.version if session else 0) - (which % 3 == 2))
        state = STATES[value % len(STATES)]
        self.call(c.SetState(KEY, lock, state, if_version=version), request)

    @rule(which=picks)
    def get_state(self, which: int) -> None:
        self.do(c.GetState(KEY, self.lock(which)))

    @rule(
        which=picks,
        chosen=st.none() | st.lists(picks, max_size=3, unique=True),
        value=st.none() | picks,
        version=st.sampled_from([None, None, 0, 1]),
        outputs=st.none() | st.lists(picks, max_size=3),
        size=sizes,
        name=message_names,
        delay_ms=st.sampled_from([0, 0, 20_000]),
        request=requests,
    )
    def take_turn(
        self,
        which: int,
        chosen: list[int] | None,
        value: int | None,
        version: int | None,
        outputs: list[int] | None,
        size: int,
        name: list[str] | None,
        delay_ms: int,
        request: Drawn,
    ) -> None:
        """Complete, set the state and send, all of it or some (ADD-8); `version` says how old the one meant is."""
        lock = self.lock(which)
        self.fill_hand(lock)
        session = self.model.book.sessions.get(lock.session_id)
        meant = None if version is None or session is None else max(0, session.version - version)
        sent = None
        if outputs is not None:
            ids = tuple(self.session_ids[i % len(self.session_ids)] for i in outputs)
            messages = tuple(self.payload(size) for _ in outputs)
            due_ms = (self.now_ms + delay_ms,) if delay_ms else ()
            names = tuple(name or ())[: len(outputs)]
            sent = c.Send(KEY, messages, ids, due_ms=due_ms, message_ids=names)
        turn = c.TakeTurn(
            KEY,
            lock,
            self.numbers(lock, chosen),
            sent,
            sets_state=value is not None,
            state=STATES[(value or 0) % len(STATES)],
            if_version=meant,
        )
        self.call(turn, request)

    def wrong_locks(self, lock: SessionLock) -> tuple[Any, ...]:
        elsewhere = c.Send(EntityKey("default", "bystander"), (b"x",), ("a",))
        lock = self.lock(0)
        return (
            *super().wrong_locks(lock),
            c.TakeTurn(KEY, lock),
            c.TakeTurn(KEY, lock, if_version=0),
            c.TakeTurn(KEY, lock, outputs=elsewhere, sets_state=True, state=b"x"),
            c.TakeTurn(KEY, lock, [1] * 9),
        )

    @rule(
        which=picks,
        early_ms=st.sampled_from([0, 0, 1, 100_000]),
        is_walk=st.booleans(),
        is_used=st.sampled_from([False, False, True]),
    )
    def leave_a_state(self, which: int, early_ms: int, is_walk: bool, is_used: bool) -> None:
        """Leave a session with a state and, mostly, nothing else, until the state may go, or nearly so."""
        lock = self.lock(which % 8)
        self.do(c.SetState(KEY, lock, b"left"))
        self.drain_and_release(lock)
        if is_used:
            self.send_some(lock.session_id)
        self.go_to(self.now_ms + 300_000 - early_ms, is_walk=is_walk)

    @rule(which=picks)
    def clear_one_state(self, which: int) -> None:
        self.do(c.ClearStates(KEY, SessionId(IDS[which % len(IDS)])))

    @rule(idle_ms=st.sampled_from([0, 0, 1, 10_000]), most=st.integers(1, 2))
    def clear_idle_states(self, idle_ms: int, most: int) -> None:
        """Clear states that are alone and were idle for so long; which first is not said (SES-44)."""
        self.tell(f"clear {most} states that were idle for {idle_ms} ms")
        self._begin()
        idle = idling_rules.idle_states(self.model, idle_ms, self.now_ms)
        reply = self.rig.step(c.ClearStates(KEY, None, idle_ms, most), self.now_ms).reply
        sessions = self.rig.queue.sessions
        cleared = [i for i in idle if i not in sessions]
        assert self.rig.facts(reply) == ("states cleared", len(cleared), len(idle) > most)
        assert len(cleared) == min(len(idle), most)
        for session_id in cleared:
            idling_rules.clear_state(self.model, session_id, self.now_ms)
            self.promises.states[session_id] = None

    # --- looking -------------------------------------------------------------------------------------

    @rule(after=st.sampled_from([None, "", "a", "z"]), most=st.integers(1, 3))
    def list_sessions(self, after: str | None, most: int) -> None:
        self.tell(f"list {most} sessions after {after!r}")
        reply = self.rig.step(c.ListSessions(KEY, most, after), self.now_ms).reply
        assert isinstance(reply, replies.SessionViews)
        known = sorted(i for i in self.model.book.sessions if after is None or i > after)
        assert [view.session_id for view in reply.sessions] == known[:most]

    @rule(which=picks)
    def look_at_session(self, which: int) -> None:
        session_id = SessionId(IDS[which % len(IDS)])
        reply = self.rig.step(c.GetSession(KEY, session_id), self.now_ms).reply
        assert isinstance(reply, replies.SessionViews)
        view = reply.sessions[0]
        states = [m.state for m in self.model.of_session(session_id)]
        assert view.active == states.count(State.ACTIVE)
        assert view.deferred == states.count(State.DEFERRED)
        assert view.scheduled == states.count(State.SCHEDULED)
        assert view.locked == len(self.model.hand(session_id))


TestSessionQueue = SessionQueueMachine.TestCase
