"""The model of a queue: what the contract says, in the plainest Python that says it.

A queue is two lists of messages, each message with its state: those that are no dead letters in the order of
their numbers, and the dead letters in the order of their arrival. The model takes the same commands as a partition
and answers with plain tuples, or raises `Refused`. It shares no rule with the core: it knows neither cursors nor
heaps, columns, chunks or rows. A refused command leaves it untouched.
"""

from __future__ import annotations

from typing import Any

from lockstep.core.entity import QueueDefinition, QueueSettings
from lockstep.core.ids import SessionLock
from lockstep.core.limits import Limits
from tests.properties.calls import Refused, RememberedCalls, shown
from tests.properties.idling_rules import state_only
from tests.properties.message import EXPIRED, MAX_DELIVERY, Message, State
from tests.properties.rules import RULES
from tests.properties.session_book import Holder, SessionBook

ACTIVATION = "activation"
Facts = tuple[Any, ...]


class QueueModel:
    """One queue of one partition, its dead letters, and the calls that are remembered.

    Attributes:
        messages: Every stored message that is no dead letter, in the order of the numbers.
        dead_letters: The dead letters, in the order of their arrival.
        gone: How each message ended that is stored no more under its number (I-1).
        known_ids: Where duplicates are detected: for each id when its first copy came, and with which number.
        unheard: Grants that an outage met, their holder silent since (ADD-4).
    """

    def __init__(
        self, definition: QueueDefinition, limits: Limits, base: int, *, others: int
    ) -> None:
        """Make an empty queue in a partition that holds so many messages of other queues."""
        self.others = others
        self.definition = definition
        self.limits = limits
        self.first_sequence = base + 1
        self.last_sequence = base
        self.last_grant = 0
        self.calls = RememberedCalls(limits)
        self.book = SessionBook(limits.losses_remembered_max)
        self.messages: list[Message] = []
        self.dead_letters: list[Message] = []
        self.gone: dict[int, str] = {}
        self.known_ids: dict[tuple[str | None, str], tuple[int, int]] = {}
        self.unheard: set[int] = set()

    def successor(self, definition: QueueDefinition, base: int, now_ms: int) -> QueueModel:
        """Return another queue of the same name: of this one, only the partition's memory is left."""
        model = QueueModel(definition, self.limits, base, others=self.others)
        model.last_grant = self.last_grant
        model.calls = self.calls
        model.book.losses = self.book.losses
        model.book.granted = self.book.granted
        for holder in self.book.holders().values():
            model.book.note_loss(holder.grant, "entity_deleted", now_ms)
        return model

    # --- what there is -------------------------------------------------------------------------------

    @property
    def settings(self) -> QueueSettings:
        """The settings of the queue."""
        return self.definition.settings

    def shelf(self, *, dead_letter: bool) -> list[Message]:
        """The messages that a call without a session speaks of."""
        return self.dead_letters if dead_letter else self.messages

    def stored(self) -> list[Message]:
        """All messages."""
        return self.messages + self.dead_letters

    def of_session(self, session_id: str) -> list[Message]:
        """The messages of a session, whatever their state."""
        return [m for m in self.messages if m.session_id == session_id]

    def active(self, session_id: str) -> list[Message]:
        """The active messages of a session, those in hand included."""
        return [m for m in self.of_session(session_id) if m.state is State.ACTIVE]

    def deliverable(self, session_id: str) -> list[Message]:
        """What a session's holder gets next: the oldest that is in no hand, so what came back goes first.

        Nothing goes before a delayed message that is younger (ADD-6).
        """
        there = self.idle(session_id)
        delayed = [m.sequence for m in there if m.delayed_until_ms]
        return [m for m in there if m.sequence < min(delayed, default=m.sequence + 1)]

    def idle(self, session_id: str) -> list[Message]:
        """The active messages of a session that are in no hand, those included that wait for a delay (ADD-6)."""
        return [m for m in self.of_session(session_id) if m.is_idle()]

    def hand(self, session_id: str) -> list[Message]:
        """What the holder of a session has in hand, deferred messages included."""
        return [m for m in self.of_session(session_id) if m.grant]

    def ready(self, *, dead_letter: bool) -> list[Message]:
        """What receives without a session get, in order."""
        return [m for m in self.shelf(dead_letter=dead_letter) if m.is_ready()]

    def under(self, grant: int) -> list[Message]:
        """The messages that a receive without a session has in hand."""
        return [m for m in self.stored() if grant and m.grant == grant]

    def runnable(self) -> list[str]:
        """All sessions that accept-next may hand out, in order (SES-12, SES-13)."""
        free = [
            i for i, s in self.book.sessions.items() if s.holder is None and self.deliverable(i)
        ]
        return sorted(free, key=lambda i: (self.book.sessions[i].place, self.active(i)[0].sequence))

    def size_bytes(self) -> int:
        """What counts toward the quota (SND-11)."""
        states = sum(len(s.state) for s in self.book.sessions.values() if s.state is not None)
        return states + sum(m.size_bytes for m in self.stored())

    # --- carrying out --------------------------------------------------------------------------------

    def perform(self, command: Any, now_ms: int) -> Facts:
        """Carry out a command and return the facts of its reply."""
        if command.entity != self.definition.key:
            raise Refused("ENTITY_NOT_FOUND")
        facts = RULES[type(command)](self, command, now_ms)
        self._forget_empty_sessions()
        return facts

    def _forget_empty_sessions(self) -> None:
        """A session of which nothing is left does not exist (SES-2)."""
        for i, session in list(self.book.sessions.items()):
            if not self.of_session(i) and session.holder is None and session.state is None:
                del self.book.sessions[i]

    def new_grant(self) -> int:
        """Give out a grant."""
        self.last_grant += 1
        return self.last_grant

    def new_version(self) -> int:
        """Give out a version of a state; no number of a grant or a version comes again (ADD-7)."""
        return self.new_grant()

    def held(self, lock: SessionLock) -> Holder:
        """Return the holder of a session's lock."""
        if not self.settings.requires_session:
            raise Refused("INVALID_OPERATION")
        holder = self.book.held(*lock)
        if holder is None:
            told = self.book.loss(*lock, last_grant=self.last_grant)
            raise Refused("SESSION_LOCK_LOST", details=told)
        return holder

    def hear(self, grant: int) -> None:
        """The holder of a grant is back (ADD-4)."""
        self.unheard.discard(grant)

    def chosen(self, ready: list[Message], most: int) -> tuple[list[Message], str]:
        """Return what one response carries, and why it is not more (BAT-2, BAT-6)."""
        candidates = ready[:most]
        fitting: list[Message] = []
        for message in candidates:
            size = sum(m.size_bytes for m in [*fitting, message])
            if fitting and size > self.limits.response_bytes_max:
                return fitting, "RESPONSE_SIZE"
            fitting.append(message)
        return fitting, "NO" if len(fitting) == most else "NO_MORE_MESSAGES"

    # --- how messages leave their place --------------------------------------------------------------

    def remove(self, message: Message, how: str) -> None:
        """Forget a message for good."""
        self.shelf(dead_letter=message.why is not None).remove(message)
        assert message.sequence not in self.gone
        self.gone[message.sequence] = how

    def bury(self, message: Message, why: tuple[str, str]) -> None:
        """Put a message behind all other dead letters; it keeps what it has (DLQ-5)."""
        self.messages.remove(message)
        self.dead_letters.append(message)
        message.free()
        message.state = State.ACTIVE
        message.delayed_until_ms = 0
        message.why = why

    def fail(self, message: Message) -> bool:
        """Count a failed delivery and return whether it was the last that is allowed (DCN-6)."""
        message.count += 1
        return message.count >= self.settings.max_delivery_count

    def collect(self, message: Message, because: str = "itself") -> None:
        """Take an expired message out of the way (TTL-3); `because` names the message that made it expire."""
        if self.settings.dead_lettering_on_message_expiration:
            self.bury(message, (EXPIRED, because))
        else:
            self.remove(message, "expired")

    def expire_session(self, session_id: str, now_ms: int) -> None:
        """Collect what has expired, and with it the rest of the session but what is in hand (TTL-6, TTL-7)."""
        over = [m for m in self.active(session_id) if m.is_over(now_ms)]
        if not over:
            return
        is_whole = self.settings.session_expiry == "whole_session"
        for message in self.idle(session_id):
            if is_whole:
                self.collect(message, str(over[0].sequence))
            elif message in over:
                self.collect(message)

    def expire_ahead(self, most: int, now_ms: int) -> None:
        """Collect the expired messages that a receive of so many from a plain queue meets (TTL-4)."""
        met = 0
        for message in self.ready(dead_letter=False):
            if met == most:
                return
            if message.is_over(now_ms):
                self.collect(message)
            else:
                met += 1

    def put_back(self, message: Message, now_ms: int) -> None:
        """Free a message that was locked by itself; one that expired meanwhile is collected (TTL-5)."""
        message.free()
        if message.state is State.ACTIVE and message.is_over(now_ms):
            self.collect(message)

    def fail_deferred(self, message: Message) -> None:
        """Count a failed delivery of a deferred message; it is deferred again, or a dead letter (DEF-8)."""
        message.free()
        if self.fail(message):
            self.bury(message, MAX_DELIVERY)

    def end_session(self, session_id: str, cause: str, now_ms: int, by: str = "") -> int:
        """Let a session's lock end; return how many active messages went back. Only expiry counts (DCN-4)."""
        self.book.end_grant(session_id, cause, now_ms, by)
        deferred = [m for m in self.hand(session_id) if m.state is State.DEFERRED]
        active = [m for m in self.hand(session_id) if m.state is State.ACTIVE]
        for message in deferred:
            if cause == "expired":
                self.fail_deferred(message)
            message.free()
        for message in active:
            message.free()
            if cause == "expired" and self.fail(message):
                self.bury(message, MAX_DELIVERY)
        self.expire_session(session_id, now_ms)
        return len(active)

    # --- time ----------------------------------------------------------------------------------------

    def pass_time(self, now_ms: int, order: list[str], dead_order: dict[int, int]) -> None:
        """Do what is due; of what is due at once, `order` and `dead_order` say what the partition did first.

        Args:
            now_ms: The time.
            order: The sessions whose locks ended, and where among them scheduled messages became active.
            dead_order: The place of each dead letter in the partition.
        """
        ends = [i for i, holder in self.book.holders().items() if holder.until_ms <= now_ms]
        later = [m for m in self.messages if 0 < m.due_ms <= now_ms]
        due = sorted([*ends, *([ACTIVATION] if later else [])])
        assert sorted(order) == due, f"was done: {order}, not {due}"
        first_due_ms = min((m.due_ms for m in later), default=0)
        for what in order:
            if what == ACTIVATION:
                self._end_delays(
                    [m for m in self._delay_over(now_ms) if m.delayed_until_ms < first_due_ms],
                    now_ms,
                )
                self._activate(later, now_ms)
            else:
                holder = self.book.holders()[what]
                is_heard = holder.grant not in self.unheard
                self.end_session(what, "expired" if is_heard else "grace_ended", now_ms)
        buried = len(self.dead_letters)
        self._end_delays(self._delay_over(now_ms), now_ms)
        self._end_message_locks(now_ms)
        among = sorted(self.dead_letters[buried:], key=lambda m: dead_order.get(m.sequence, 0))
        self.dead_letters[buried:] = among
        window_ms = self.settings.duplicate_detection_history_time_window_ms
        self.known_ids = {
            key: known for key, known in self.known_ids.items() if known[0] + window_ms > now_ms
        }
        self._forget_empty_sessions()

    def _delay_over(self, now_ms: int) -> list[Message]:
        return [m for m in self.stored() if 0 < m.delayed_until_ms <= now_ms]

    def _end_delays(self, over: list[Message], now_ms: int) -> None:
        """Let messages be delivered again, but for those that have expired meanwhile (ADD-6, TTL-5)."""
        for message in over:
            message.delayed_until_ms = 0
        for message in over:
            if message not in self.messages:
                continue  # a dead letter, or gone with one of these
            if message.session_id is None:
                self.put_back(message, now_ms)
            else:
                self.expire_session(message.session_id, now_ms)

    def _activate(self, due: list[Message], now_ms: int) -> None:
        """Enqueue messages anew, in the order of their times (SCH-3); their life begins now (TTL-2)."""
        for message in sorted(due, key=lambda m: (m.due_ms, m.sequence)):
            self.remove(message, "activated")
            self.last_sequence += 1
            message.sequence = self.last_sequence
            message.enqueued_ms = now_ms
            message.due_ms = 0
            message.state = State.ACTIVE
            self.messages.append(message)

    def _end_message_locks(self, now_ms: int) -> None:
        """End the locks of messages that have their own; only of those in use it counts (DCN-2, DCN-9, ADD-4)."""
        for message in [m for m in self.stored() if 0 < m.until_ms <= now_ms]:
            counts = message.why is None and message.grant not in self.unheard
            if counts and message.state is State.DEFERRED:
                self.fail_deferred(message)
            elif counts and self.fail(message):
                self.bury(message, MAX_DELIVERY)
            else:
                self.put_back(message, now_ms)

    def reopen(self, now_ms: int) -> None:
        """What an outage leaves: everything, and a grace for every lock (ADD-4)."""
        grace_until_ms = now_ms + self.limits.outage_grace_ms
        self.book.reopen(grace_until_ms)
        for message in self.stored():
            if message.until_ms:
                message.until_ms = max(message.until_ms, grace_until_ms)
        held = {holder.grant for holder in self.book.holders().values()}
        self.unheard = held | {m.grant for m in self.stored() if m.grant}
        self.calls.reopen(now_ms)

    def moments(self, kind: str) -> list[int]:
        """When something of a kind happens next: locks, lives, delays end, schedules are due, ids are forgotten."""
        window_ms = self.settings.duplicate_detection_history_time_window_ms
        found = {
            "lock": [
                *(holder.until_ms for holder in self.book.holders().values()),
                *(m.until_ms for m in self.stored()),
            ],
            "life": [m.expires_ms for m in self.stored()],
            "schedule": [m.due_ms for m in self.messages],
            "delay": [m.delayed_until_ms for m in self.stored()],
            "window": [at_ms + window_ms for at_ms, _ in self.known_ids.values()],
        }
        return sorted(ms for ms in found[kind] if ms)

    # --- looking -------------------------------------------------------------------------------------

    def view(self) -> dict[str, Any]:
        """Everything that can be seen of the queue, in the shape of `Rig.view`."""
        return {
            "messages": {m.sequence: _view(m) for m in self.messages},
            "dead letters": [(m.sequence, m.why, _view(m)) for m in self.dead_letters],
            "ready": [m.sequence for m in self.ready(dead_letter=False) if m.session_id is None],
            "ready dead letters": [m.sequence for m in self.ready(dead_letter=True)],
            "sessions": {i: self._session_view(i) for i in self.book.sessions},
            "next": self.runnable(),
            "last": (self.last_sequence, self.last_grant),
            "known ids": {key: number for key, (_, number) in self.known_ids.items()},
        }

    def _session_view(self, session_id: str) -> dict[str, Any]:
        session = self.book.sessions[session_id]
        holder = session.holder
        return {
            "active": [m.sequence for m in self.active(session_id)],
            "deliverable": [m.sequence for m in self.deliverable(session_id)],
            "holder": holder and (holder.name, holder.until_ms, holder.since_ms),
            "grant": session.last_grant,
            "state": None if session.state is None else len(session.state),
            "version": session.version,
        }

    def runtime(self) -> dict[str, int]:
        """The counters of the queue (CNT-1, CNT-2, ADD-13)."""
        sessions = self.book.sessions.values()
        states = [m.state for m in self.messages]
        return {
            "active": len(states) - states.count(State.SCHEDULED),
            "locked": sum(m.grant != 0 for m in self.messages),
            "delayed": sum(not self._can_be_had(m) for m in self.messages if m.is_idle()),
            "scheduled": states.count(State.SCHEDULED),
            "deferred": states.count(State.DEFERRED),
            "dead_letters": len(self.dead_letters),
            "size_bytes": self.size_bytes(),
            "sessions": len(sessions),
            "locked_sessions": len(self.book.holders()),
            "runnable_sessions": len(self.runnable()),
            "idle_sessions_with_state": len(state_only(self)),
        }

    def _can_be_had(self, message: Message) -> bool:
        """Whether no delay keeps an active message back, its own or that of an older one of its session."""
        if message.session_id is None:
            return message.is_ready()
        return message in self.deliverable(message.session_id)

    def waiting(self) -> dict[Any, set[int] | set[str]]:
        """What could be had now, by who could be waiting for it."""
        could: dict[Any, set[int] | set[str]] = {
            "next": set(self.runnable()),
            "main": {m.sequence for m in self.ready(dead_letter=False) if m.session_id is None},
            "dead": {m.sequence for m in self.ready(dead_letter=True)},
        }
        for session_id, holder in self.book.holders().items():
            could[session_id, holder.grant] = {m.sequence for m in self.deliverable(session_id)}
        return could


def _view(message: Message) -> dict[str, Any]:
    return {
        "state": message.state.value,
        "session": message.session_id,
        "hand": (message.grant, message.until_ms),
        "count": message.count,
        "enqueued": message.enqueued_ms,
        "expires": message.expires_ms,
        "due": message.due_ms,
        "delayed": message.delayed_until_ms,
        "payload": shown(message.payload),
        "properties": {name: shown(value) for name, value in message.properties.items()},
    }
