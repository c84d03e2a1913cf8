"""What administrators ask to see, whether it blocks or not: sessions by a filter, states to clear, explanations.

Here belong the values, their conversion and the calls. Never here: the public classes (`aio`, `blocking`), why
something is not delivered (the server says that). The law: a cause is one of a closed list, so that programs can
branch on it; the sentences are for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from lockstep.client.connection import Connection
from lockstep.client.queue_properties import SessionProperties, session_from_wire
from lockstep.client.transport import CLEAR_SESSION_STATES, EXPLAIN_DELIVERY, LIST_SESSIONS
from lockstep.client.values import (
    NamedChoice,
    check_id,
    datetime_to_timestamp,
    parse_duration,
    timedelta_to_duration,
    timestamp_to_datetime,
)
from lockstep.core.errors import InternalError, InvalidRequest
from lockstep.v1 import admin_service_pb2 as admin


class SessionFilter(NamedChoice):
    """Which sessions a listing shows (ADD-9)."""

    ALL = "all"
    """Those that have messages or a state, or are held."""
    HELD = "held"
    """Those that a receiver holds."""
    RUNNABLE = "runnable"
    """Those that the next receiver can have: nobody holds them and they have a message to deliver."""
    WAITING = "waiting"
    """Those that nobody holds and whose messages are all delayed, scheduled or deferred."""
    WITH_DEAD_LETTERS = "with_dead_letters"
    """Those that have dead letters, also if they have nothing else."""
    STATE_ONLY = "state_only"
    """Those that have a state and nothing else."""


class DeliveryCause(NamedChoice):
    """Why the next message is not being delivered: the whole list (ADD-10)."""

    DELIVERABLE = "deliverable"
    """Nothing keeps it: a receiver waits and gets it."""
    NO_RECEIVER = "no_receiver"
    """It is ready and no receiver waits."""
    HELD = "held"
    """A receiver holds the session, or has locked the message."""
    BEHIND = "behind"
    """Older messages of its session go first."""
    DELAYED = "delayed"
    """It, or an older message of its session, was abandoned with a delay."""
    EXPIRED = "expired"
    """It has expired, and is taken away when a receiver asks next."""
    SCHEDULED = "scheduled"
    """It becomes active later."""
    DEFERRED = "deferred"
    """It is deferred, or only deferred messages are left."""
    DEAD_LETTERED = "dead_lettered"
    """It is a dead letter."""
    DISABLED = "disabled"
    """The status of the queue forbids receiving; or nothing is there, and it forbids sending."""
    QUOTA = "quota"
    """The queue is full, so nothing new comes."""
    EMPTY = "empty"
    """There is no message."""
    GONE = "gone"
    """The message is stored no more, or never was."""
    NO_OWNER = "no_owner"
    """Nobody owns the partition now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryExplanation:
    """Why the next message of a queue or session, or a certain message, is not being delivered.

    Attributes:
        cause: The first thing that keeps it.
        sentence: The same for people, with names.
        remedy: What ends it.
        since_utc: Since when; None = not known.
        until_utc: When it ends by itself; None = it does not, or nobody knows.
        facts: What else may help, by name: of a queue its counts, the exact path, the last send, the last delivery and
            to whom; of everything the release of the server.
    """

    cause: DeliveryCause
    sentence: str
    remedy: str
    since_utc: datetime | None
    until_utc: datetime | None
    facts: Mapping[str, str]


# The most that a server gives: each page costs it a look at all sessions, however few it shows.
_PAGE_SIZE: Final = 1000
_CAUSES: Final = {
    number: DeliveryCause[name.removeprefix("DELIVERY_CAUSE_")]
    for name, number in admin.DeliveryCause.items()
    if number
}


class Seeing:
    """Looks at the sessions of one broker namespace, and asks for explanations."""

    def __init__(self, connection: Connection) -> None:
        """Ask over `connection`."""
        self._connection = connection
        self._calls = connection.calls
        self._namespace = connection.namespace

    async def list_sessions(
        self,
        queue: str,
        shown: SessionFilter | str,
        state_updated_since: datetime | None,
        page_token: str,
    ) -> tuple[list[SessionProperties], str]:
        """Return one page of sessions, in the order of their ids, and the token of the next page.

        Raises:
            EntityNotFound: There is no such queue.
            InvalidOperation: The queue has no sessions.
            InvalidRequest: There is no such filter.
        """
        self._connection.check_open()
        request = admin.ListSessionsRequest(
            namespace=self._namespace,
            queue=queue,
            page_size=_PAGE_SIZE,
            page_token=page_token,
            filter=admin.SessionFilter.Value(f"SESSION_FILTER_{SessionFilter.parse(shown).name}"),
        )
        if state_updated_since is not None:
            request.state_updated_since.CopyFrom(datetime_to_timestamp(state_updated_since))
        response = await self._calls.call(LIST_SESSIONS, request)
        return list(map(session_from_wire, response.sessions)), response.next_page_token

    async def clear_states(
        self, queue: str, session_id: str | None, idle_for: timedelta | str | None
    ) -> int:
        """Clear the state of a session, or of all that have nothing else, and return how many were (SES-44).

        Raises:
            EntityNotFound: There is no such queue.
            InvalidOperation: The queue has no sessions.
            SessionCannotBeLocked: Somebody holds the session that was named.
            InvalidRequest: A session and an idle time were given, or the time is refused.
        """
        check_id(session_id, "session_id")
        if session_id is not None and idle_for is not None:
            raise InvalidRequest(
                "idle_for is for all sessions; a session that is named is cleared."
            )
        self._connection.check_open()
        request = admin.ClearSessionStatesRequest(
            namespace=self._namespace, queue=queue, session_id=session_id
        )
        if idle_for is not None:
            request.idle_for.CopyFrom(timedelta_to_duration(parse_duration(idle_for)))
        return (await self._calls.call(CLEAR_SESSION_STATES, request)).cleared_states

    async def explain(
        self, queue: str, session_id: str | None, sequence_number: int | None
    ) -> DeliveryExplanation:
        """Say why the next message of a queue or session, or a certain message, is not being delivered (ADD-10).

        Raises:
            EntityNotFound: There is no such queue.
            InvalidRequest: A session and a message were given, or the queue has no sessions.
        """
        check_id(session_id, "session_id")
        self._connection.check_open()
        try:
            request = admin.ExplainDeliveryRequest(
                namespace=self._namespace,
                queue=queue,
                session_id=session_id,
                sequence_number=sequence_number,
            )
        except ValueError as error:
            raise InvalidRequest(f"{sequence_number} is no sequence number.") from error
        return explanation_from_wire(await self._calls.call(EXPLAIN_DELIVERY, request))


def explanation_from_wire(response: admin.ExplainDeliveryResponse) -> DeliveryExplanation:
    """Return an explanation as it was given.

    Raises:
        InternalError: Its cause is one of a later release.
    """
    cause = _CAUSES.get(response.cause)
    if cause is None:
        raise InternalError(
            f"The server names a cause {response.cause} that this client does not know; use a newer client. It says:"
            f" {response.sentence}",
            details={"observed": str(response.cause)},
        )
    has_since, has_until = response.HasField("since"), response.HasField("until")
    return DeliveryExplanation(
        cause=cause,
        sentence=response.sentence,
        remedy=response.remedy,
        since_utc=timestamp_to_datetime(response.since) if has_since else None,
        until_utc=timestamp_to_datetime(response.until) if has_until else None,
        facts=dict(response.facts),
    )
