"""What clients of any queue do: send, receive, settle, repeat, take back; and what they must not do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from lockstep.core import commands as c
from lockstep.core import replies
from lockstep.core.commands import Outcome
from lockstep.core.decision import Decision
from lockstep.core.ids import EntityKey, GrantNumber, SessionId, SessionLock
from tests.properties.machine import BrokerMachine
from tests.properties.message import EXPIRED, MAX_DELIVERY, State
from tests.properties.vocabulary import (
    BIG,
    HISTORY_MOST,
    KEY,
    WRONG_SENDS,
    Drawn,
    changes,
    choices,
    clients,
    delays,
    deletions,
    lives,
    mosts,
    names,
    picks,
    requests,
    settlement,
    settlements,
    sizes,
    slips,
)


class ClientMachine(BrokerMachine):
    """The rules that session queues and plain queues share."""

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
        life=lives,
        delay=delays,
        name=names,
        request=requests,
    )
    def send(
        self,
        which: list[int],
        size: list[int],
        how: str,
        life: list[int] | None,
        delay: list[int] | None,
        name: list[str] | None,
        request: Drawn,
    ) -> None:
        """Send messages of any kind: with a time to live, for later, with an id that may be known."""
        if how == "big":
            which, size = which[:1] * 2, [len(BIG)] * 2
        count = len(which)
        ids = tuple(self.session_ids[i % len(self.session_ids)] for i in which)
        command = c.Send(
            KEY,
            tuple(self.payload(s) for s in size[:count]),
            ids if how == "mixed" else ids[:1],
            ttls_ms=tuple(life or ())[: count if how == "mixed" else 1],
            due_ms=tuple(self.now_ms + ms if ms else 0 for ms in (delay or ())[:count]),
            message_ids=tuple(name or ())[:count],
        )
        self.call(command, request)

    @rule(
        which=picks,
        life_ms=st.sampled_from([0, 1, 1_000, 20_000]),
        delay_ms=st.sampled_from([0, 0, 1_000, 40_000]),
    )
    def send_for_a_while(self, which: int, life_ms: int, delay_ms: int) -> None:
        """Send three messages to one session, the one in the middle with a short life (C76)."""
        payloads = tuple(self.payload(3) for _ in range(3))
        due_ms = (self.now_ms + delay_ms,) if delay_ms else ()
        session_id = self.session_ids[which % len(self.session_ids)] or "a"
        self.do(c.Send(KEY, payloads, (session_id,), ttls_ms=(0, life_ms, 0), due_ms=due_ms))

    @rule(chosen=st.none() | st.lists(picks, max_size=4), request=requests)
    def cancel_scheduled(self, chosen: list[int] | None, request: Drawn) -> None:
        """Cancel one schedule, or some, others than scheduled messages among them."""
        later = [m.sequence for m in self.model.messages if m.due_ms]
        if not later:
            self.do(c.Send(KEY, (self.payload(3),), ("a",), due_ms=(self.now_ms + 30_000,)))
            later = [m.sequence for m in self.model.messages if m.due_ms]
        any_number = self.model.stored()[-1].sequence if self.model.stored() else 1
        pool = [*later, *later, *later, any_number]
        wanted = later[-1:] if chosen is None else [pool[i % len(pool)] for i in chosen]
        self.call(c.CancelScheduled(KEY, wanted), request)

    def send_some(self, session_id: str | None) -> None:
        """Send three messages, so that a rule that needs messages has some."""
        messages = tuple(self.payload(3) for _ in range(3))
        self.do(c.Send(KEY, messages, (session_id,)))

    # --- messages that are locked one by one ---------------------------------------------------------

    @rule(dead_letter=st.booleans(), most=mosts, deletes=deletions, request=requests)
    def receive_plain(self, dead_letter: bool, most: int, deletes: bool, request: Drawn) -> None:
        dead_letter = dead_letter or self.requires_session
        if most > 1 and not self.model.shelf(dead_letter=dead_letter):
            self.bury_some() if dead_letter else self.send_some(None)
        self.receive_from(dead_letter, most, request, deletes=deletes)

    def receive_from(
        self, dead_letter: bool, most: int, request: Drawn, *, deletes: bool = False
    ) -> None:
        """Receive from the plain store or from the dead letters, and keep the tokens."""
        decision = self.call(c.Receive(KEY, dead_letter, None, most, deletes=deletes), request)
        self.keep_tokens(decision)

    def keep_tokens(self, decision: Decision | None) -> None:
        """Keep the tokens of what was received, to use them later."""
        if decision is not None and isinstance(decision.reply, replies.Delivered):
            reply = decision.reply
            self.tokens += [(reply.grant, sequence) for sequence in reply.sequences]
            self.tokens = self.tokens[-HISTORY_MOST:]

    @rule(
        dead_letter=st.booleans(),
        chosen=st.none() | st.lists(picks, min_size=1, max_size=4),
        deletes=deletions,
        request=requests,
    )
    def receive_deferred_plain(
        self, dead_letter: bool, chosen: list[int] | None, deletes: bool, request: Drawn
    ) -> None:
        dead_letter = dead_letter or self.requires_session
        if chosen is None and not self.aside(dead_letter=dead_letter):
            grant, numbers = self.chosen_tokens(None, 0, dead_letter=dead_letter)
            deferred = c.Settlement(Outcome.DEFER, GrantNumber(grant), numbers[:2])
            self.do(c.Settle(KEY, dead_letter, None, (deferred,)))
        numbers = self.deferred_numbers(self.aside(dead_letter=dead_letter), chosen)
        command = c.ReceiveDeferred(KEY, dead_letter, None, numbers, deletes=deletes)
        self.keep_tokens(self.call(command, request))

    @rule(which=picks, early_ms=st.sampled_from([0, 0, 1]), request=requests)
    def ask_for_an_expired_one(self, which: int, early_ms: int, request: Drawn) -> None:
        """Defer a message with a short life, and ask for it when that is over, or nearly so (TTL-9)."""
        lock = self.source(which)
        session_id = lock.session_id if lock is not None else None
        self.do(c.Send(KEY, (self.payload(3),), (session_id,), ttls_ms=(1_000,)))
        received = self.do(c.Receive(KEY, False, lock, 6))
        if received is None:
            return
        reply: Any = received.reply
        deferred = c.Settlement(Outcome.DEFER, reply.grant, list(reply.sequences))
        self.do(c.Settle(KEY, False, lock, (deferred,)))
        self.wait(1_000 - early_ms)
        self.call(c.ReceiveDeferred(KEY, False, lock, list(reply.sequences)[-3:]), request)

    def source(self, which: int) -> SessionLock | None:
        """Return the lock to receive under; None = there are no sessions."""
        return None

    def aside(self, *, dead_letter: bool) -> list[int]:
        """Return the numbers of deferred messages."""
        shelf = self.model.shelf(dead_letter=dead_letter)
        return [m.sequence for m in shelf if m.state is State.DEFERRED]

    def deferred_numbers(self, known: list[int], chosen: list[int] | None) -> list[int]:
        """Return which deferred messages to ask for: the first two, or any, others than deferred ones among them."""
        if chosen is None or not known:
            return known[:2] or [self.model.last_sequence]
        other = self.model.stored()[0].sequence
        pool = [*known, *known, *known, *known, other]
        return [pool[i % len(pool)] for i in chosen]

    @rule(
        dead_letter=st.booleans(),
        session_id=st.sampled_from([None, None, "a", "b", "nobody"]),
        reason=st.sampled_from([None, None, "R", MAX_DELIVERY[0], EXPIRED]),
        place=picks,
        most=mosts,
    )
    def browse(
        self,
        dead_letter: bool,
        session_id: str | None,
        reason: str | None,
        place: int,
        most: int,
    ) -> None:
        """Look at messages from somewhere on."""
        if not self.requires_session:
            session_id = None
        shelf = self.model.shelf(dead_letter=dead_letter)
        if not shelf and not dead_letter:
            self.send_some("a")
        known = [m.sequence for m in shelf if session_id in (None, m.session_id)]
        numbers = [*sorted(known), 0]
        first = numbers[place % len(numbers)] + (place > 8)
        wanted = SessionId(session_id) if session_id is not None else None
        self.do(c.Browse(KEY, dead_letter, wanted, first, most, reason if dead_letter else None))

    def lock_some(self, *, dead_letter: bool) -> None:
        """See to it that a store has locked messages."""
        if not self.model.ready(dead_letter=dead_letter):
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
        if not self.locked(dead_letter=dead_letter):
            self.lock_some(dead_letter=dead_letter)
        known = self.locked(dead_letter=dead_letter) or self.tokens
        if not known:
            return self.model.last_grant + slip, [self.model.last_sequence]
        grant = known[sum(chosen or ()) % len(known)][0]
        mine = [s for g, s in known if g == grant]
        if chosen is None:
            return grant + slip, mine
        pool = mine * 3 + [s for _, s in [*known, *self.tokens]][:3]
        return grant + slip, [pool[i % len(pool)] for i in chosen]

    def locked(self, *, dead_letter: bool) -> list[tuple[int, int]]:
        """Return (grant, sequence) of every message that has a lock of its own."""
        shelf = self.model.shelf(dead_letter=dead_letter)
        return sorted((m.grant, m.sequence) for m in shelf if m.until_ms)

    @rule(dead_letter=st.booleans(), drawn=settlements, request=requests)
    def settle_plain(self, dead_letter: bool, drawn: list[Any], request: Drawn) -> None:
        dead_letter = dead_letter or self.requires_session
        made = []
        for outcome, chosen, slip, extra in drawn:
            allowed = Outcome.RELEASE if dead_letter and outcome is Outcome.DEAD_LETTER else outcome
            grant, numbers = self.chosen_tokens(chosen, slip, dead_letter=dead_letter)
            made.append(settlement(allowed, grant, numbers, extra))
        self.call(c.Settle(KEY, dead_letter, None, tuple(made)), request)

    def settle_one(self) -> None:
        """Settle one of the messages that are in hand."""
        grant, numbers = self.chosen_tokens(None, 0, dead_letter=False)
        released = c.Settlement(Outcome.RELEASE, GrantNumber(grant), numbers[:1])
        self.do(c.Settle(KEY, False, None, (released,)))

    @rule(which=picks, most=mosts, delay_ms=st.sampled_from([1_003, 20_017, 70_031]))
    def put_off(self, which: int, most: int, delay_ms: int) -> None:
        """Abandon the first message of a hand for a while (ADD-6)."""
        lock = self.abandon_first(which, {"delay_ms": delay_ms})
        self.do(c.Receive(KEY, lock is None and which > 8, lock, most))

    @rule(which=picks, first=changes, second=changes)
    def change_twice(self, which: int, first: dict[str, int], second: dict[str, int]) -> None:
        """Abandon a message with properties, and again with others (MSG-8)."""
        for properties in (first, second):
            self.abandon_first(which, {"properties": properties})

    def abandon_first(self, which: int, extra: dict[str, Any]) -> SessionLock | None:
        """Abandon the first message of a hand, and return the lock it was received under."""
        lock = self.source(which)
        if lock is None:
            grant, numbers = self.chosen_tokens(None, 0, dead_letter=which > 8)
        else:
            self.fill_hands(which % 8)
            grant = lock.grant
            numbers = sorted(m.sequence for m in self.model.hand(lock.session_id))
        abandoned = settlement(Outcome.ABANDON, grant, numbers[:1], extra)
        self.do(c.Settle(KEY, lock is None and which > 8, lock, (abandoned,)))
        return lock

    @rule(dead_letter=st.booleans())
    def drain(self, dead_letter: bool) -> None:
        """Complete what is there."""
        dead_letter = dead_letter or self.requires_session
        self.receive_from(dead_letter, 6, None)
        locked = self.locked(dead_letter=dead_letter)
        for grant in dict.fromkeys(grant for grant, _ in locked):
            mine = [sequence for of_grant, sequence in locked if of_grant == grant]
            done = c.Settlement(Outcome.COMPLETE, GrantNumber(grant), mine)
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
        kind = "accept" if isinstance(command, c.Accept) else "receive"
        self.do(c.GiveUp(KEY, command.request, command.fingerprint, kind))

    @rule(request=st.tuples(clients, st.sampled_from([0, 1])))
    def cancel_too_early(self, request: tuple[str, int]) -> None:
        """The cancellation overtakes its call."""
        made = self.request(request)
        assert made is not None
        self.do(c.Cancel(KEY, made))
        self.keep_in_history(c.Send(KEY, (b"late",), ("a",), made, 1))

    @rule(which=st.integers(0, 36))
    def ask_nonsense(self, which: int) -> None:
        """Ask for what no partition may do; it must say so and stay as it is."""
        lock = SessionLock("a", GrantNumber(self.model.last_grant))
        nonsense = (*WRONG_SENDS, *self.wrong_locks(lock), *self.wrong_settlements(lock))
        self.do(nonsense[which % len(nonsense)])

    def wrong_locks(self, lock: SessionLock) -> tuple[Any, ...]:
        """Calls that name a wrong lock, or none where they must, and others that cannot be."""
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
                else (
                    c.ListSessions(KEY, 1),
                    c.GetSession(KEY, lock[0]),
                    c.TakeTurn(KEY, lock, [1]),
                )
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
            *(
                c.Settle(
                    KEY, False, session, (replace(bury, outcome=outcome, properties={"p": b""}),)
                )
                for outcome in (Outcome.COMPLETE, Outcome.RELEASE)
            ),
            c.Settle(KEY, False, session, (replace(bury, delay_ms=1),)),
            *(
                c.Settle(
                    KEY, False, session, (replace(bury, outcome=Outcome.ABANDON, delay_ms=ms),)
                )
                for ms in (-1, 7 * 24 * 3_600_000 + 1)
            ),
        )
