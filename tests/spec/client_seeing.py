"""What administrators ask to see, through the public client, for `client_driver`.

Here belongs the translation between what tests ask and the names of the client. Never here: rules.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from lockstep.aio import (
    AdministrationClient,
    DeliveryCause,
    DeliveryExplanation,
    SessionFilter,
    SessionProperties,
)
from lockstep.core import commands
from lockstep.core.ids import SessionId
from lockstep.core.replies import Cause, Explained, SessionView

# Of the server, and not of the core that the suite judges.
_SERVERS_OWN: Final = ("server_release",)


async def filtered(
    admin: AdministrationClient,
    queue: str,
    shown: commands.SessionFilter = commands.SessionFilter.ALL,
    state_since_ms: int = 0,
) -> list[SessionView]:
    """List the sessions that a filter leaves."""
    since = datetime.fromtimestamp(state_since_ms / 1000, UTC) if state_since_ms else None
    listing = admin.list_sessions(
        queue, filter=SessionFilter[shown.name], state_updated_since=since
    )
    return [view(session) async for session in listing]


async def explain(
    admin: AdministrationClient, queue: str, session_id: str | None, sequence: int
) -> Explained:
    """Say why the next message is not delivered."""
    shown = await admin.explain(
        queue, session_id=session_id, sequence_number=sequence if sequence else None
    )
    return _explained(shown)


async def clear_states(
    admin: AdministrationClient, queue: str, session_id: str | None, idle_ms: int
) -> int:
    """Clear states and return how many."""
    idle_for = timedelta(milliseconds=idle_ms) if idle_ms else None
    return await admin.clear_session_states(queue, session_id, idle_for=idle_for)


def view(session: SessionProperties) -> SessionView:
    """Return a session as the core would."""
    return SessionView(
        session_id=SessionId(session.session_id),
        active=session.active_message_count,
        locked=session.locked_message_count,
        holder=session.holder_client_id or "",
        locked_until_ms=_to_ms(session.locked_until_utc),
        grant=session.grant,
        state_bytes=session.state_size_in_bytes,
        state_version=session.state_version,
        scheduled=session.scheduled_message_count,
        deferred=session.deferred_message_count,
        dead_letters=session.dead_letter_message_count,
        first_enqueued_ms=_to_ms(session.first_enqueued_at_utc),
        oldest_deliverable_ms=_to_ms(session.oldest_deliverable_at_utc),
        delayed_until_ms=_to_ms(session.delayed_until_utc),
        address=session.holder_address or "",
        granted_ms=_to_ms(session.granted_at_utc),
        renewals=session.renewal_count,
        last_loss=session.last_loss_cause or "",
        released_ms=_to_ms(session.released_at_utc),
        state_set_ms=_to_ms(session.state_updated_at_utc),
    )


def _explained(shown: DeliveryExplanation) -> Explained:
    assert {cause.name for cause in DeliveryCause} == {cause.name for cause in Cause}
    return Explained(
        Cause[shown.cause.name],
        shown.sentence,
        shown.remedy,
        _to_ms(shown.since_utc),
        _to_ms(shown.until_utc),
        tuple(fact for fact in shown.facts.items() if fact[0] not in _SERVERS_OWN),
    )


def _to_ms(moment: datetime | None) -> int:
    return 0 if moment is None else round(moment.timestamp() * 1000)
