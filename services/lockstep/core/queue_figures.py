"""Why a queue delivers nothing, told by figures that add up over the partitions it is spread over (ADD-10, ENT-11).

Here belong the figures of one partition, their sum, and what they say. Never here: a single session or message
(`explaining`). The law: what is said of the sum is what would be said of one partition that held everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from operator import attrgetter
from typing import TYPE_CHECKING

from lockstep.core.entity import RECEIVING_FORBIDDEN, SENDING_FORBIDDEN
from lockstep.core.expiring import earliest, expired_of_session, is_over
from lockstep.core.limits import duration_text
from lockstep.core.locks import time_text
from lockstep.core.looking import runtime_of
from lockstep.core.replies import Cause, Explained, QueueFigures, Runtime
from lockstep.core.wording import are, counted, have

if TYPE_CHECKING:
    from lockstep.core.queue import Queue
    from lockstep.core.session import Session

START_A_RECEIVER = "Start a receiver, or look why the one that should run does not."
LIVE_LONGER = "Send it again, with a longer time to live, and have a receiver run in time."

# How figures of several partitions become one; all others are sums.
_EARLIEST = ("locked_until_ms", "delayed_until_ms", "scheduled_until_ms", "expired_ms")
_LATEST = ("sent_ms",)
_THE_SAME = ("path", "status", "updated_ms", "accept_next", "size_bytes_max", "keeps_expired")

# At most so many messages of a partition are looked at for whether they have expired; others count as ready.
_LOOKED_AT_MAX = 10_000


def figures_of(queue: Queue, waiting: int, now_ms: int) -> QueueFigures:
    """Return what one partition knows of a queue; `waiting` receivers wait on it there."""
    settings, activity = queue.definition.settings, queue.activity
    has_sessions = settings.requires_session
    delays = [d.until_ms for s, d in queue.delays.items() if s not in queue.dead_order]
    locks = [min(held.values()) for held in queue.main.grants.values()]
    ready = len(queue.runnable) if has_sessions else queue.main.ready_count
    away, gone_sessions = _expired(queue, now_ms)
    return QueueFigures(
        path=queue.path,
        status=settings.status,
        updated_ms=queue.definition.updated_ms,
        accept_next=settings.accept_next if has_sessions else "",
        size_bytes_max=queue.size_bytes_max,
        runtime=runtime_of(queue),
        waiting=waiting,
        ready=ready - (gone_sessions if has_sessions else len(away)),
        held=sum(1 for s in queue.sessions.values() if _keeps_busy(s)),
        locked_until_ms=min(locks, default=0),
        delays=len(delays),
        delayed_until_ms=min(delays, default=0),
        scheduled_until_ms=min((m.due_ms for m in queue.scheduled.values()), default=0),
        expired=len(away),
        expired_ms=earliest(queue.log.expiries(away)),
        keeps_expired=settings.dead_lettering_on_message_expiration,
        sent_ms=activity.sent_ms,
        delivered_ms=activity.delivered_ms,
        receiver=activity.receiver,
    )


def _keeps_busy(session: Session) -> bool:
    """Whether somebody holds a session and has a message of it, or could get one now."""
    return session.is_held and bool(session.in_hand_count or session.oldest_deliverable)


def _expired(queue: Queue, now_ms: int) -> tuple[Sequence[int], int]:
    """Return messages that are not ready because they have expired, and how many free sessions have no other."""
    if not queue.log.has_expiries:
        return (), 0
    if not queue.definition.settings.requires_session:
        ready = queue.main.peek_ready(_LOOKED_AT_MAX)
        return [s for s in ready if is_over(queue, s, now_ms)], 0
    away: list[int] = []
    sessions, left = 0, _LOOKED_AT_MAX
    for session in queue.sessions.values():
        if not 0 < session.expires_ms <= now_ms or session.active_count > left:
            continue
        left -= session.active_count
        _, going = expired_of_session(queue, session, now_ms)
        away += going
        sessions += bool(going) and session.is_runnable and not deliverable_of(session, going)
    return away, sessions


def deliverable_of(session: Session, going: Sequence[int]) -> int:
    """Return how many messages of a session are deliverable once the expired ones are gone."""
    if not going:
        return session.deliverable_count
    away = set(going)
    return sum(s not in away for s in session.peek_deliverable(session.active_count))


def joined_runtime(parts: Sequence[Runtime]) -> Runtime:
    """Return what the partitions of a queue hold together, used last when one of them was, oldest where it is."""
    sums = {f.name: sum(map(attrgetter(f.name), parts)) for f in fields(Runtime)}
    return replace(
        Runtime(**sums),
        used_ms=max((part.used_ms for part in parts), default=0),
        oldest_ms=min((part.oldest_ms for part in parts if part.oldest_ms), default=0),
    )


def joined_figures(parts: Sequence[QueueFigures]) -> QueueFigures:
    """Return what is known of a queue that several partitions hold; there is one at least."""
    last = max(parts, key=attrgetter("delivered_ms"))
    values: dict[str, object] = {
        "runtime": joined_runtime([part.runtime for part in parts]),
        "delivered_ms": last.delivered_ms,
        "receiver": last.receiver,
    }
    for name in (field.name for field in fields(QueueFigures)):
        of_each = [getattr(part, name) for part in parts]
        if name in _EARLIEST:
            values[name] = min(filter(None, of_each), default=0)
        elif name in _LATEST:
            values[name] = max(of_each)
        elif name not in _THE_SAME and name not in values:
            values[name] = sum(of_each)
    return replace(parts[0], **values)  # type: ignore[arg-type]  # each of the type of its field


def explained(figures: QueueFigures, now_ms: int) -> Explained:
    """Say why nothing comes.

    The first that applies of: status, ready, held, expired, delayed, scheduled, deferred, nothing may be sent, full.
    """
    found = disabled(figures.path, figures.status, figures.updated_ms) or _of_contents(
        figures, now_ms
    )
    if found.cause is Cause.EMPTY and figures.status in SENDING_FORBIDDEN:
        found = closed(figures.path, figures.status, figures.updated_ms, found.sentence)
    elif found.cause is Cause.EMPTY and figures.runtime.size_bytes >= figures.size_bytes_max:
        found = Explained(
            Cause.QUOTA,
            f"{figures.path} is full with dead letters and states: {figures.runtime.size_bytes} of"
            f" {figures.size_bytes_max} bytes, so sends are refused.",
            "Receive, resubmit or purge dead letters, purge states, or raise max_size_in_megabytes.",
        )
    return replace(found, facts=_facts(figures), figures=figures)


def unreachable(path: str, why: Sequence[str], figures: QueueFigures | None) -> Explained:
    """Say that some partitions of a queue cannot be asked; `figures` are those of the others."""
    return Explained(
        Cause.NO_OWNER,
        f"{counted(len(why), 'partition')} of {path} cannot be asked now, so nothing there is delivered:"
        f" {' '.join(why)}",
        "They are opened again, here or elsewhere; the log of the owners says why they are not.",
        facts=() if figures is None else _facts(figures),
    )


def disabled(path: str, status: str, updated_ms: int) -> Explained | None:
    """Say that the status of a queue forbids receiving; None = it does not."""
    if status not in RECEIVING_FORBIDDEN:
        return None
    return Explained(
        Cause.DISABLED,
        f"{path} has the status {status}, which forbids receiving.",
        "Set its status to active.",
        since_ms=updated_ms,
    )


def closed(path: str, status: str, updated_ms: int, empty: str) -> Explained:
    """Say of what is empty that the status of its queue lets nothing come."""
    return Explained(
        Cause.DISABLED,
        f"{empty} {path} has the status {status}, which forbids sending.",
        "Set its status to active.",
        since_ms=updated_ms,
    )


def fate(*, keeps_expired: bool) -> str:
    """Say what becomes of expired messages, and when."""
    return f"{'dead-lettered' if keeps_expired else 'dropped'} when a receiver asks next"


def _of_contents(figures: QueueFigures, now_ms: int) -> Explained:
    ready, locked = figures.ready, figures.runtime.locked
    what = "Free sessions with messages" if figures.accept_next else "Ready messages"
    if ready and figures.waiting:
        return Explained(
            Cause.DELIVERABLE,
            f"{what}: {ready}. Receivers that wait: {figures.waiting}; they get them now.",
            "Nothing; ask again.",
        )
    if ready:
        return Explained(
            Cause.NO_RECEIVER,
            f"{what}: {ready}. No receiver waits. {_last_delivery(figures)}",
            START_A_RECEIVER,
        )
    if figures.held:
        return Explained(
            Cause.HELD,
            f"{counted(figures.held, 'session')} with messages {are(figures.held)} held by receivers, and no other"
            " session has a message to deliver.",
            "Their receivers receive, give them back, or lose them; list the held sessions to see whose they are.",
        )
    if locked:
        return Explained(
            Cause.HELD,
            f"{counted(locked, 'message')} {are(locked)} locked by receivers, and no other can be delivered.",
            "They are settled, or their locks run out.",
            until_ms=figures.locked_until_ms,
        )
    return _of_the_rest(figures, now_ms)


def _of_the_rest(figures: QueueFigures, now_ms: int) -> Explained:
    """Explain a queue of which nothing is ready and nothing locked."""
    runtime = figures.runtime
    if figures.expired:
        return Explained(
            Cause.EXPIRED,
            f"{counted(figures.expired, 'message')} {have(figures.expired)} expired, the first at"
            f" {time_text(figures.expired_ms)}, and no other can be delivered. What has expired is"
            f" {fate(keeps_expired=figures.keeps_expired)}. {_last_delivery(figures)}",
            LIVE_LONGER,
            since_ms=figures.expired_ms,
        )
    if figures.delays:
        return Explained(
            Cause.DELAYED,
            f"Messages that wait for the delay of an abandon: {figures.delays}.",
            "The delay ends.",
            until_ms=figures.delayed_until_ms,
        )
    if runtime.scheduled:
        until = figures.scheduled_until_ms
        return Explained(
            Cause.SCHEDULED,
            f"{counted(runtime.scheduled, 'message')} {are(runtime.scheduled)} scheduled; the first is due in"
            f" {duration_text(until - now_ms)}.",
            "Its time comes.",
            until_ms=until,
        )
    if runtime.deferred:
        return Explained(
            Cause.DEFERRED,
            f"Only {counted(runtime.deferred, 'deferred message')} {are(runtime.deferred)} left.",
            "Somebody receives them by their sequence numbers.",
        )
    sent = figures.sent_ms
    when = (
        f"the last message came at {time_text(sent)}" if sent else "none came since it was opened"
    )
    count = runtime.dead_letters
    dead = f" It has {counted(count, 'dead letter')}." if count else ""
    return Explained(
        Cause.EMPTY,
        f"{figures.path} has no message to deliver; {when}.{dead} {_last_delivery(figures)}",
        f"Send to exactly {figures.path}; check the path that the sender uses.",
        since_ms=figures.delivered_ms,
    )


def _last_delivery(figures: QueueFigures) -> str:
    if not figures.delivered_ms:
        return "Nobody has received from it since it was opened."
    whom = f" to '{figures.receiver}'" if figures.receiver else ""
    return f"The last delivery was at {time_text(figures.delivered_ms)}{whom}."


def _facts(figures: QueueFigures) -> tuple[tuple[str, str], ...]:
    runtime = figures.runtime
    values: dict[str, object] = {
        "path": figures.path,
        "status": figures.status,
        "waiting_receivers": figures.waiting,
        "active": runtime.active,
        "locked": runtime.locked,
        "expired": figures.expired,
        "delayed": runtime.delayed,
        "scheduled": runtime.scheduled,
        "deferred": runtime.deferred,
        "dead_letters": runtime.dead_letters,
        "held_sessions": runtime.locked_sessions,
        "free_sessions": runtime.runnable_sessions,
        "size_bytes": f"{runtime.size_bytes} of {figures.size_bytes_max}",
        "last_sent": time_text(figures.sent_ms) if figures.sent_ms else "",
        "last_delivered": time_text(figures.delivered_ms) if figures.delivered_ms else "",
        "last_receiver": figures.receiver,
        "accept_next": figures.accept_next,
    }
    return tuple((name, str(value)) for name, value in values.items() if value != "")
