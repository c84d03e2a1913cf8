"""What administrators ask to see, between protobuf and the core.

Here belong the filters of listings, the purge of states and explanations. Never here: rules (`core.looking`,
`core.explaining`).
"""

from __future__ import annotations

from lockstep.core.commands import ClearStates, Explain, ListSessions, SessionFilter
from lockstep.core.errors import InvalidRequest
from lockstep.core.ids import EntityKey, SessionId
from lockstep.core.limits import ID_CHARS_MAX, TTL_MS_MAX, check_at_most, check_duration_between
from lockstep.core.replies import Cause, Explained
from lockstep.v1 import admin_service_pb2 as admin
from lockstep.wire.times import duration_ms, timestamp, timestamp_ms

_FILTERS = {
    admin.SESSION_FILTER_UNSPECIFIED: SessionFilter.ALL,
    admin.SESSION_FILTER_ALL: SessionFilter.ALL,
    admin.SESSION_FILTER_HELD: SessionFilter.HELD,
    admin.SESSION_FILTER_RUNNABLE: SessionFilter.RUNNABLE,
    admin.SESSION_FILTER_WAITING: SessionFilter.WAITING,
    admin.SESSION_FILTER_WITH_DEAD_LETTERS: SessionFilter.WITH_DEAD_LETTERS,
    admin.SESSION_FILTER_STATE_ONLY: SessionFilter.STATE_ONLY,
}


def list_command(
    request: admin.ListSessionsRequest, entity: EntityKey, maximum: int, after: str | None
) -> ListSessions:
    """Return the command of a listing of sessions."""
    shown = _FILTERS.get(request.filter)
    if shown is None:
        raise InvalidRequest(
            f"{request.filter} is no filter of sessions.", details={"observed": str(request.filter)}
        )
    since = request.state_updated_since
    since_ms = timestamp_ms(since) if request.HasField("state_updated_since") else 0
    return ListSessions(entity, maximum, after, shown, since_ms)


def clear_command(request: admin.ClearSessionStatesRequest, entity: EntityKey) -> ClearStates:
    """Return the command of a purge of states."""
    if request.HasField("session_id"):
        check_at_most(len(request.session_id), ID_CHARS_MAX, "session id characters", "Check it.")
        return ClearStates(entity, SessionId(request.session_id))
    idle_ms = duration_ms(request.idle_for)
    check_duration_between(idle_ms, 0, TTL_MS_MAX, "idle_for")
    return ClearStates(entity, None, idle_ms)


def explain_command(request: admin.ExplainDeliveryRequest, entity: EntityKey) -> Explain:
    """Return the command of an explanation."""
    sequence = 0
    if request.HasField("sequence_number"):
        sequence = request.sequence_number
        if sequence < 1:
            raise InvalidRequest(f"Sequence numbers begin at 1; {sequence} was given.")
    session_id = None
    if request.HasField("session_id"):
        check_at_most(len(request.session_id), ID_CHARS_MAX, "session id characters", "Check it.")
        session_id = SessionId(request.session_id)
    return Explain(entity, session_id, sequence)


def explained_message(explained: Explained, release: str) -> admin.ExplainDeliveryResponse:
    """Return an explanation as callers see it, with the release of the server among its facts (SND-3)."""
    message = admin.ExplainDeliveryResponse(
        cause=admin.DeliveryCause.Value(f"DELIVERY_CAUSE_{explained.cause.name}"),
        sentence=explained.sentence,
        remedy=explained.remedy,
        facts={**dict(explained.facts), "server_release": release},
    )
    if explained.since_ms:
        message.since.CopyFrom(timestamp(explained.since_ms))
    if explained.until_ms:
        message.until.CopyFrom(timestamp(explained.until_ms))
    return message


def no_owner(partition: int, why: str) -> Explained:
    """Return the explanation where the partition cannot be asked."""
    return Explained(
        Cause.NO_OWNER,
        f"Partition {partition} cannot be asked now: {why}",
        "It is opened again, here or elsewhere; the log of the owners says why it is not.",
    )
