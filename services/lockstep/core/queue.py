"""Everything that one partition knows of one queue.

Here belong the parts of a queue and how they hang together: its sessions and who is next, its message
log, its dead letters, its counts. Never here: what a command does with them (`sending`, `receiving`,
`settling`, `expiry`). The law: each stored message is in exactly one place: a session or the plain
store, or the dead-letter store (invariant I-1).
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence

from lockstep.core.activity import Activity
from lockstep.core.amendments import UNCHANGED, Amendment
from lockstep.core.aside import Deferred, Delay, Scheduled
from lockstep.core.changes import (
    AmendmentRow,
    Change,
    CounterRow,
    CountRow,
    DeadLetterRow,
    DeferredRow,
    DelayRow,
    Drop,
    LockRow,
    SessionRow,
)
from lockstep.core.decision import Event, Wake
from lockstep.core.entity import QueueDefinition
from lockstep.core.history import History
from lockstep.core.ids import EntityNumber, GrantNumber, SessionId
from lockstep.core.jobs import Job, Running
from lockstep.core.limits import KIB, MIB
from lockstep.core.message import Described, MessageLog, Totals
from lockstep.core.plain import PlainStore
from lockstep.core.replies import DeadLetterInfo, Delivered, Short
from lockstep.core.session import Session
from lockstep.core.shares import Share
from lockstep.core.turns import RunnableSessions
from lockstep.core.wording import counted

MAX_DELIVERY_REASON = "MaxDeliveryCountExceeded"


class Step:
    """What one step has collected so far; becomes a `Decision`."""

    __slots__ = ("changes", "events", "now_ms", "wake")

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.changes: list[Change] = []
        self.events: list[Event] = []
        self.wake: dict[Wake, None] = {}

    def count(self, queue: Queue, name: str, label: str = "", count: int = 1) -> None:
        """Note a fact for metrics."""
        self.events.append(Event(queue.number, name, label, count))


class Queue:
    """One queue in one partition.

    Attributes:
        definition: Its definition, as applied.
        number: Its number in storage.
        log: All its stored messages.
        sessions: Every session that has a message, a holder or a state.
        main: Messages outside sessions; unused in a session queue.
        dead: The dead-letter store.
        dead_info: Why each dead letter is one.
        dead_order: The order of arrival of each dead letter.
        dead_sessions: The session of each dead letter, in a session queue; `dead_in_session` counts them by session.
        last_dead_letter: The last order number that was given out.
        deferred: Messages that are delivered by their numbers only; dead letters too.
        delays: Messages that were abandoned with a delay; dead letters too.
        amendments: What was changed about messages since they were sent.
        amended_bytes: What these changes take.
        scheduled: Messages that are not active yet.
        counts: Delivery counts that are not 0.
        graced: Grants of plain messages whose holder was not heard of since the partition opened (ADD-4).
        is_going: Whether it is deleted in the catalogue, and this partition is about to hear of it.
        is_sealed: Whether uses are refused for a moment, so that none is lost when it is deleted for being idle.
        history: The message ids that it knows, where it detects duplicates.
        activity: When it was used last.
        jobs: The last jobs on its dead letters, by number; `running` are those that this partition is to carry out.
        arrivals: The last transfer of its dead letters from each other partition to this one: its number, and what was
            said of it.
        share: How much of its quota this partition may hold, where it is spread.
        turn: The last turn that was given to a released session.
        held_count: Sessions that somebody holds.
        runnable: Sessions that accept-next may hand out, in their order.
        states_bytes: Bytes of all session states.
        states_count: Sessions with a state.
    """

    __slots__ = (
        "activity",
        "amended_bytes",
        "amendments",
        "arrivals",
        "counts",
        "dead",
        "dead_in_session",
        "dead_info",
        "dead_order",
        "dead_sessions",
        "deferred",
        "definition",
        "delays",
        "graced",
        "held_count",
        "history",
        "is_going",
        "is_sealed",
        "jobs",
        "last_dead_letter",
        "log",
        "main",
        "number",
        "runnable",
        "running",
        "schedule",
        "scheduled",
        "sessions",
        "share",
        "states_bytes",
        "states_count",
        "turn",
    )

    def __init__(self, definition: QueueDefinition, sequence_base: int, totals: Totals) -> None:
        self.definition = definition
        self.number: EntityNumber = definition.number
        self.log = MessageLog(sequence_base, totals)
        self.sessions: dict[SessionId, Session] = {}
        self.main = PlainStore()
        self.dead_order: dict[int, int] = {}
        self.dead = PlainStore(self.dead_order)
        self.dead_info: dict[int, DeadLetterInfo] = {}
        self.dead_sessions: dict[int, SessionId] = {}
        self.dead_in_session: Counter[SessionId] = Counter()
        self.last_dead_letter = 0
        self.deferred: dict[int, Deferred] = {}
        self.delays: dict[int, Delay] = {}
        self.amendments: dict[int, Amendment] = {}
        self.amended_bytes = 0
        self.scheduled: dict[int, Scheduled] = {}
        self.schedule: list[
            tuple[int, int]
        ] = []  # a heap of (due_ms, sequence); some may be cancelled
        self.counts: dict[int, int] = {}
        self.graced: set[int] = set()
        self.history = History()
        self.activity = Activity()
        self.is_going = False
        self.is_sealed = False
        self.jobs: dict[int, Job] = {}
        self.running: dict[int, Running] = {}
        self.arrivals: dict[int, tuple[int, str]] = {}
        self.share = Share()
        self.turn = 0
        self.held_count = 0
        self.runnable = RunnableSessions()
        self.states_bytes = 0
        self.states_count = 0

    # --- figures -------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """How people name the queue."""
        return f"{self.definition.namespace}/{self.definition.name}"

    @property
    def size_bytes(self) -> int:
        """What counts toward the size quota: messages, dead letters and states (SND-11, SES-44)."""
        return self.log.size_bytes + self.states_bytes + self.amended_bytes

    @property
    def size_bytes_max(self) -> int:
        """The size quota."""
        return self.definition.settings.max_size_in_megabytes * MIB

    @property
    def message_bytes_max(self) -> int:
        """The most that one message may take."""
        return self.definition.settings.max_message_size_in_kilobytes * KIB

    @property
    def counter_row(self) -> CounterRow:
        """How far the queue has counted."""
        return CounterRow(self.number, self.log.last_sequence, self.last_dead_letter)

    # --- sessions ------------------------------------------------------------------------------

    def session(self, session_id: SessionId) -> Session:
        """Return a session; one that is not known yet stands behind all released ones (SES-13)."""
        session = self.sessions.get(session_id)
        if session is None:
            session = self.sessions[session_id] = Session(session_id, self.turn)
        return session

    def next_turn(self) -> int:
        """Give out the next turn: behind every other."""
        self.turn += 1
        return self.turn

    def next_runnable(self) -> Session | None:
        """Return the session that accept-next hands out now; None = none is runnable (SES-13)."""
        first = self.runnable.first()
        return self.sessions[first] if first is not None else None

    def reindex(self, session: Session, step: Step) -> None:
        """Bring the queue's books up to date after a session changed; forget it when nothing is left of it."""
        if session.is_runnable:
            if session.offered_at is None:
                self.runnable.offer(session)
            step.wake[Wake(self.number)] = None
        elif session.offered_at is not None:
            self.runnable.withdraw(session)
        if session.is_forgettable:
            del self.sessions[session.session_id]
            if session.is_stored:
                step.changes.append(Drop(SessionRow, (self.number, session.session_id)))

    def store_session(self, session: Session, step: Step) -> None:
        """Write a session's row."""
        session.is_stored = True
        step.changes.append(
            SessionRow(
                self.number,
                session.session_id,
                session.grant,
                session.holder,
                session.locked_until_ms,
                session.granted_ms,
                session.cursor,
                array("q", session.returned).tobytes() if session.returned else b"",
                session.turn,
                session.state_version,
                session.state_set_ms,
                session.released_ms,
                session.address,
                session.renewals,
                session.last_loss,
            )
        )

    # --- messages ------------------------------------------------------------------------------

    def enqueue(
        self, sequences: Sequence[int], session_ids: Sequence[str | None], step: Step
    ) -> None:
        """Add stored messages, rising and younger than all others, at the end.

        Args:
            sequences: The messages.
            session_ids: Their sessions, one for all or one each; ignored where the queue has none.
            step: The step that does it.
        """
        if not sequences:
            return
        if not self.definition.settings.requires_session:
            self.main.add(sequences)
            step.wake[Wake(self.number)] = None
            return
        by_session: dict[str, Sequence[int]] = {}
        if len(session_ids) == 1:
            by_session[session_ids[0] or ""] = sequences
        else:
            for sequence, session_id in zip(sequences, session_ids, strict=True):
                by_session.setdefault(session_id or "", array("q")).append(sequence)  # type: ignore[attr-defined]
        for session_id, numbers in by_session.items():
            session = self.session(SessionId(session_id))
            ends = self.log.expiries(numbers) if self.log.has_expiries else ()
            session.add(numbers, min(filter(None, ends), default=0))
            if session.is_held:
                step.wake[Wake(self.number, session.session_id)] = None
            self.reindex(session, step)

    def restore_job(self, job: Job) -> None:
        """Take over a job that storage remembers."""
        self.jobs[job.number] = job
        if job.is_running and not job.parts:
            self.running[job.number] = Running(job)

    def plain(self, *, dead_letter: bool) -> PlainStore:
        """Return the dead-letter store, or the plain store."""
        return self.dead if dead_letter else self.main

    def store_lock(self, grant: int, step: Step, *, dead_letter: bool) -> None:
        """Write, or drop, the row of what a receive locked."""
        held = self.plain(dead_letter=dead_letter).grants.get(grant)
        if held is None:
            self.graced.discard(grant)
            step.changes.append(Drop(LockRow, (self.number, grant)))
            return
        sequences, untils = array("q", held).tobytes(), array("q", held.values()).tobytes()
        step.changes.append(
            LockRow(self.number, GrantNumber(grant), dead_letter, sequences, untils)
        )

    def forget(self, sequences: Sequence[int], step: Step) -> None:
        """Remove messages, rising, that are in no place any more."""
        step.changes.extend(self.log.remove(sequences))
        if self.counts:
            self.forget_counts(sequences, step)
        if self.amendments:
            for sequence in sequences:
                self.amend(sequence, UNCHANGED, step)

    def forget_counts(self, sequences: Sequence[int], step: Step) -> None:
        """Let delivery counts be 0 again."""
        for sequence in sequences:
            if self.counts.pop(sequence, 0):
                step.changes.append(Drop(CountRow, (self.number, sequence)))

    def amend(self, sequence: int, amendment: Amendment, step: Step) -> None:
        """Let these be the changes of a message."""
        before = self.amendments.pop(sequence, UNCHANGED)
        if amendment is not UNCHANGED:
            self.amendments[sequence] = amendment
            self.amended_bytes += amendment.size_bytes
            row = AmendmentRow(self.number, sequence, amendment.to_text())
            step.changes.append(row)
        elif before is not UNCHANGED:
            step.changes.append(Drop(AmendmentRow, (self.number, sequence)))
        if before is not UNCHANGED:
            self.amended_bytes -= before.size_bytes

    def sizes(
        self, sequences: Sequence[int], described: Described, *, dead_letter: bool
    ) -> Sequence[int]:
        """Return what each message takes in a response, with everything that is put behind its bytes."""
        sizes: Sequence[int] = described.sizes
        if dead_letter:
            sizes = [
                size + self.dead_info[s].bytes for size, s in zip(sizes, sequences, strict=True)
            ]
        if self.amendments:
            amendments = [self.amendments.get(s) for s in sequences]
            sizes = [
                size + (a.size_bytes if a else 0) for size, a in zip(sizes, amendments, strict=True)
            ]
        return sizes

    def count_failure(self, sequence: int, cause: str, step: Step) -> bool:
        """Count one failed delivery and return whether the message may be delivered again (DCN-2, DCN-6)."""
        count = self.counts.get(sequence, 0) + 1
        self.counts[sequence] = count
        step.changes.append(CountRow(self.number, sequence, count))
        step.count(self, "delivery_count", cause)
        return count < self.definition.settings.max_delivery_count

    def note_dead(self, sequence: int, session_id: SessionId) -> None:
        """Remember which session a dead letter belongs to."""
        self.dead_sessions[sequence] = session_id
        self.dead_in_session[session_id] += 1

    def forget_dead(self, sequences: Sequence[int], step: Step) -> None:
        """Let messages be dead letters no more; they must be in no place of the dead-letter store."""
        for sequence in sequences:
            del self.dead_order[sequence]
            del self.dead_info[sequence]
            session_id = self.dead_sessions.pop(sequence, None)
            if session_id is not None:
                self.dead_in_session[session_id] -= 1
                if not self.dead_in_session[session_id]:
                    del self.dead_in_session[session_id]
            step.changes.append(Drop(DeadLetterRow, (self.number, sequence)))

    def move_to_dead_letters(
        self,
        sequences: Sequence[int],
        info: DeadLetterInfo,
        session_id: SessionId | None,
        step: Step,
        *,
        cause: str,
    ) -> None:
        """Put messages of one session that are in no place into the dead-letter store, at its end (DLQ-4, DLQ-5)."""
        for sequence in sequences:
            if session_id is not None:
                self.note_dead(sequence, session_id)
            self.last_dead_letter += 1
            self.dead_order[sequence] = self.last_dead_letter
            self.dead_info[sequence] = info
            step.changes.append(
                DeadLetterRow(
                    self.number,
                    sequence,
                    self.last_dead_letter,
                    info.reason,
                    info.description,
                    step.now_ms,
                )
            )
        self.dead.add(sequences)
        step.changes.append(self.counter_row)
        step.count(self, "dead_lettered", cause, len(sequences))
        step.wake[Wake(self.number, dead_letter=True)] = None

    def defer_again(self, sequence: int, step: Step) -> None:
        """Let a deferred message that was in somebody's hand be in nobody's."""
        deferred = self.deferred[sequence]
        deferred.grant = 0
        if deferred.session_id is not None:
            self.sessions[deferred.session_id].deferred_hand.discard(sequence)
        step.changes.append(DeferredRow(self.number, sequence, 0))

    def end_delays(self, sequences: Sequence[int], step: Step) -> None:
        """Forget the delays of messages; their session must know already (ADD-6)."""
        for sequence in sequences:
            if self.delays.pop(sequence, None) is not None:
                step.changes.append(Drop(DelayRow, (self.number, sequence)))

    def exceed_delivery_count(
        self, sequence: int, session_id: SessionId | None, cause: str, step: Step
    ) -> None:
        """Dead-letter a message that was delivered as often as the queue allows (DCN-6, DCN-7)."""
        most = self.definition.settings.max_delivery_count
        description = (
            f"The message was delivered {counted(most, 'time')}, the most that {self.path} allows, and not completed."
            f" The last delivery ended because {cause}."
        )
        info = DeadLetterInfo(MAX_DELIVERY_REASON, description, step.now_ms)
        self.move_to_dead_letters((sequence,), info, session_id, step, cause="max_delivery")

    def drop_dead_letters(self, sequences: Sequence[int], step: Step) -> None:
        """Remove dead letters that are under no lock any more, rising."""
        self.forget_dead(sequences, step)
        self.forget(sequences, step)

    def delivered(
        self,
        sequences: array[int],
        *,
        grant: int,
        locked_until_ms: int,
        short: Short,
        dead_letter: bool,
        is_final: bool = False,
    ) -> Delivered:
        """Describe messages that were just locked."""
        described = self.log.describe(sequences)
        counts: tuple[int, ...] = ()
        if self.counts:
            counts = tuple(map(self.counts.get, sequences, (0,) * len(sequences)))
            counts = counts if any(counts) else ()
        return Delivered(
            entity=self.number,
            grant=GrantNumber(grant),
            size_bytes=sum(described.sizes),
            sequences=sequences,
            chunks=described.chunks,
            places=described.places,
            enqueued_ms=described.enqueued_ms,
            counts=counts,
            locked_until_ms=locked_until_ms,
            short=short,
            dead_letters=tuple(self.dead_info[s] for s in sequences) if dead_letter else (),
            is_final=is_final,
            expires_ms=self._shown_expiries(sequences) if not dead_letter else (),
            amendments=self._shown_amendments(sequences),
        )

    def _shown_amendments(self, sequences: array[int]) -> tuple[tuple[int, Amendment], ...]:
        if not self.amendments:
            return ()
        found = ((place, self.amendments.get(s)) for place, s in enumerate(sequences))
        return tuple((place, amendment) for place, amendment in found if amendment is not None)

    def _shown_expiries(self, sequences: array[int]) -> Sequence[int]:
        if not self.log.has_expiries:
            return ()
        expiries = self.log.expiries(sequences)
        return expiries if any(expiries) else ()
