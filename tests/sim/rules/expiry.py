"""What expires, and where it goes (section 7 of the contract)."""

from __future__ import annotations

from tests.sim.case import EXPIRED, Case
from tests.sim.rows import Place, Where

WHOLE_SESSION = "whole_session"


def judge_sweep(case: Case, swept: set[Where]) -> None:
    """Check what the step collected as expired: no more, no less, and to the right place (TTL-3 to TTL-9)."""
    dead: dict[Where, str] = {(row.entity, row.sequence): row.reason for row in case.step.dead}
    sessions: dict[Place, None] = dict.fromkeys(sorted(case.looked))
    for where in sorted(swept):
        message = case.message(where)
        if message is None:
            return
        settings = case.settings(where[0])
        goes_to_dead = where in dead
        is_right = goes_to_dead == settings.dead_lettering_on_message_expiration
        case.check(is_right, "TTL-3: expired to the wrong place", where, goes_to_dead)
        is_said = not goes_to_dead or dead[where] == EXPIRED
        case.check(is_said, "TTL-3: another reason", where, dead.get(where))
        may_go = not message.dead and not message.due_ms
        case.check(may_go, "I-1: gone unasked", where, message.status, case.kind)
        is_over = message.is_over(case.now_ms)
        if message.grant is not None:
            is_asked_for = is_over and not message.grant
            case.check(is_asked_for, "TTL-9: a deferred message expired", where, message)
        elif settings.requires_session and message.session_id is not None:
            sessions[where[0], message.session_id] = None
        else:
            case.check(is_over, "I-1: gone unasked", where, message.status, case.kind)
            held = where in case.back or where[1] in case.book.ready(where[0], dead_letter=False)
            case.check(held, "TTL-5: taken from who has it in hand", where)
    for where in case.back:
        message = case.book.messages[where]
        is_kept = where not in swept and not message.dead and message.is_over(case.now_ms)
        case.check(not is_kept, "TTL-5: came back after its expiry", where)
    for place in sessions:
        if place[0] in case.book.entities:
            _judge_session(case, place, {s for e, s in swept if e == place[0]})


def _judge_session(case: Case, place: Place, swept: set[int]) -> None:
    """TTL-6, TTL-7: with one expired message its session goes, but for what is in its holder's hand."""
    messages = case.book.messages
    active = case.book.active(*place)
    over = {s for s in active if messages[place[0], s].is_over(case.now_ms)}
    hand = case.hand(place)
    is_whole = case.settings(place[0]).session_expiry == WHOLE_SESSION
    going = swept.intersection(active)
    case.check(not going or over, "TTL-7: a session expired without cause", place, going)
    case.check(is_whole or going <= over, "TTL-7: expired with another", place, going, over)
    case.check(not going & hand, "TTL-5: taken from who has it in hand", place, going & hand)
    removed = {s for e, s in (*case.gone, *case.dead, *case.aside) if e == place[0]}
    left = set(active) - removed - going
    if place in case.looked or going:
        kept = left - hand if is_whole and left & over else (left & over) - hand
        case.check(not kept, "TTL-6: the session did not expire", place, kept, over)


def deliverable(case: Case, place: Place) -> list[int]:
    """Return what a receive of a session's holder can get, rising: nothing that has expired (I-8)."""
    messages = case.book.messages
    active = case.book.active(*place)
    hand = set(case.book.hand(case.book.sessions.get(place)))
    over = {s for s in active if messages[place[0], s].is_over(case.now_ms)}
    if over and case.settings(place[0]).session_expiry == WHOLE_SESSION:
        return []
    waiting = [s for s in active if messages[place[0], s].later_ms and s not in over]
    end = waiting[0] if waiting else None  # ADD-6: the session waits with its first delayed message
    ready = [s for s in active if s not in hand and s not in over]
    return [s for s in ready if end is None or s < end]
