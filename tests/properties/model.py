"""The model of a queue: what the contract says, in the plainest Python that says it.

It takes the same commands as a partition and answers with plain tuples, or raises `Refused`. It shares
no rule with the core: it knows neither cursors nor heaps, columns, chunks or rows. A refused command
leaves it untouched.
"""

from __future__ import annotations

from typing import Any

from lockstep.core.entity import QueueDefinition
from lockstep.core.ids import SessionLock
from lockstep.core.limits import Limits
from tests.properties.calls import Refused, RememberedCalls, shown
from tests.properties.rules import MAX_DELIVERY, RULES, Facts
from tests.properties.session_book import SessionBook, SessionModel
from tests.properties.shelf import Message, Shelf


class QueueModel:
    """One queue of one partition, its dead letters, and the calls that are remembered."""

    def __init__(
        self, definition: QueueDefinition, limits: Limits, base: int, *, others: int
    ) -> None:
        """Make an empty queue in a partition that holds so many messages of other queues."""
        self.others = others
        self.definition = definition
        self.limits = limits
        self.last_sequence = base
        self.last_grant = 0
        self.calls = RememberedCalls(limits)
        self.book = SessionBook(limits.losses_remembered_max)
        self.main = Shelf()
        self.dead = Shelf()

    def successor(self, definition: QueueDefinition, base: int) -> QueueModel:
        """Return another queue of the same name: of this one, only the partition's memory is left."""
        model = QueueModel(definition, self.limits, base, others=self.others)
        model.last_grant = self.last_grant
        model.calls = self.calls
        model.book.losses = self.book.losses
        model.book.granted = self.book.granted
        deleted = {
            session.holder.grant: "entity_deleted"
            for session in self.book.sessions.values()
            if session.holder is not None
        }
        for grant, cause in deleted.items():
            model.book.note_loss(grant, cause)
        return model

    # --- figures -------------------------------------------------------------------------------------

    @property
    def settings(self) -> Any:
        """The settings of the queue."""
        return self.definition.settings

    def shelf(self, *, dead_letter: bool) -> Shelf:
        """The store that a call without a session speaks of."""
        return self.dead if dead_letter else self.main

    def active(self) -> list[Message]:
        """All messages that are no dead letters."""
        in_sessions = [m for s in self.book.sessions.values() for m in s.messages]
        return in_sessions + self.main.messages

    def stored(self) -> list[Message]:
        """All messages."""
        return self.active() + self.dead.messages

    def size_bytes(self) -> int:
        """What counts toward the quota."""
        states = sum(len(s.state) for s in self.book.sessions.values() if s.state is not None)
        return states + sum(len(m["payload"]) for m in self.stored())

    # --- carrying out --------------------------------------------------------------------------------

    def perform(self, command: Any, now_ms: int) -> Facts:
        """Carry out a command and return the facts of its reply."""
        if command.entity != self.definition.key:
            raise Refused("ENTITY_NOT_FOUND")
        facts = RULES[type(command)](self, command, now_ms)
        self.book.forget_empty()
        return facts

    def new_grant(self) -> int:
        """Give out a grant."""
        self.last_grant += 1
        return self.last_grant

    def held(self, lock: SessionLock) -> SessionModel:
        """Return the session that a lock holds."""
        session = self.book.held(*lock)
        if session is None:
            raise Refused(
                "SESSION_LOCK_LOST", details=self.book.loss(*lock, last_grant=self.last_grant)
            )
        return session

    def bury(self, message: Message, why: tuple[str, str]) -> None:
        """Put a message behind all other dead letters; it keeps what it has."""
        self.dead.messages.append({**message, "why": why})

    def fail(self, message: Message) -> bool:
        """Count a failed delivery and return whether it was the last that is allowed (DCN-6)."""
        message["count"] += 1
        return bool(message["count"] >= self.settings.max_delivery_count)

    def chosen(self, ready: list[Message], most: int) -> tuple[list[Message], str]:
        """Return what one response carries, and why it is not more (BAT-2, BAT-6)."""
        candidates = ready[:most]
        fitting = [
            m
            for place, m in enumerate(candidates)
            if not place
            or sum(len(f["payload"]) for f in candidates[: place + 1])
            <= self.limits.response_bytes_max
        ]
        if len(fitting) < len(candidates):
            return fitting, "RESPONSE_SIZE"
        return fitting, "NO" if len(fitting) == most else "NO_MORE_MESSAGES"

    # --- time ----------------------------------------------------------------------------------------

    def expire(self, now_ms: int, session_order: list[str], dead_order: dict[int, int]) -> None:
        """End every lock whose time has come; the orders say which of them the partition ended first."""
        due = self.book.due(now_ms)
        assert sorted(due) == sorted(session_order), f"locks ended: {session_order}, not {due}"
        for session_id in session_order:
            holder = self.book.sessions[session_id].holder
            assert holder is not None
            heard = holder.is_heard
            hand = self.book.end_grant(session_id, "expired" if heard else "grace_ended")
            for message in hand if heard else ():
                if self.fail(message):
                    self.book.sessions[session_id].messages.remove(message)
                    self.bury(message, MAX_DELIVERY)
        self.book.forget_empty()
        for _, sequence in self.dead.due(now_ms):
            self._unlock_due(self.dead, sequence)
        exceeded = []
        for grant, sequence in self.main.due(now_ms):
            heard = grant not in self.main.unheard
            self._unlock_due(self.main, sequence)
            if heard and self.fail(self.main.find(sequence)):
                exceeded.append(sequence)
        for sequence in sorted(exceeded, key=lambda sequence: dead_order.get(sequence, 0)):
            self.bury(self.main.remove(sequence), MAX_DELIVERY)

    @staticmethod
    def _unlock_due(shelf: Shelf, sequence: int) -> None:
        for held in shelf.locks.values():
            held.pop(sequence, None)
        shelf.locks = {grant: held for grant, held in shelf.locks.items() if held}
        shelf.unheard &= set(shelf.locks)

    def reopen(self, now_ms: int) -> None:
        """What an outage leaves: everything, and a grace for every lock (ADD-4)."""
        grace_until_ms = now_ms + self.limits.outage_grace_ms
        self.book.reopen(grace_until_ms)
        self.main.reopen(grace_until_ms)
        self.dead.reopen(grace_until_ms)
        self.calls.reopen(now_ms)

    def next_end_ms(self) -> int | None:
        """When the next lock ends."""
        untils = [s.holder.until_ms for s in self.book.sessions.values() if s.holder]
        for shelf in (self.main, self.dead):
            untils += [until for held in shelf.locks.values() for until in held.values()]
        return min(untils, default=None)

    # --- looking -------------------------------------------------------------------------------------

    def view(self) -> dict[str, Any]:
        """Everything that can be seen of the queue, in the shape of `Rig.view`."""
        stored = self.stored()
        return {
            "sessions": self.book.view(),
            "main": self.main.view(),
            "dead": self.dead.view(),
            "why": [(m["sequence"], m["why"]) for m in self.dead.messages],
            "counts": {m["sequence"]: m["count"] for m in stored if m["count"]},
            "stored": sorted(
                (m["sequence"], m["enqueued_ms"], shown(m["payload"])) for m in stored
            ),
            "next": self.book.runnable(),
            "last": (self.last_sequence, self.last_grant),
        }

    def runtime(self) -> dict[str, int]:
        """The counters of the queue (CNT-1, CNT-2)."""
        sessions = self.book.sessions.values()
        return {
            "active": len(self.active()),
            "locked": sum(len(s.hand) for s in sessions) + len(self.main.locked()),
            "scheduled": 0,
            "deferred": 0,
            "dead_letters": len(self.dead.messages),
            "size_bytes": self.size_bytes(),
            "sessions": len(sessions),
            "locked_sessions": sum(s.holder is not None for s in sessions),
            "runnable_sessions": len(self.book.runnable()),
            "idle_sessions_with_state": sum(not s.messages and not s.holder for s in sessions),
        }

    def waiting(self) -> dict[Any, set[Any]]:
        """What could be had now, by who could be waiting for it."""
        could: dict[Any, set[Any]] = {
            "next": set(self.book.runnable()),
            "main": {m["sequence"] for m in self.main.ready()},
            "dead": {m["sequence"] for m in self.dead.ready()},
        }
        for session_id, session in self.book.sessions.items():
            if session.holder is not None:
                key = (session_id, session.holder.grant)
                could[key] = {m["sequence"] for m in session.deliverable}
        return could
