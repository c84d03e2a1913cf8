"""Looking at messages without locking them, whether it blocks or not.

Here belong the call and the place where the next one goes on. Never here: the public classes (`aio`, `blocking`). The
law: looking changes nothing, and what was only looked at cannot be settled (PEK-1).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import count as counting
from itertools import repeat

from lockstep.client.connection import Connection
from lockstep.client.received import Delivery, ReceivedMessage, note_trails
from lockstep.client.transport import PEEK_MESSAGES
from lockstep.client.values import MessageState, check_id
from lockstep.core.errors import InvalidRequest
from lockstep.v1 import messaging_service_pb2 as messaging


class Browsing:
    """Looks at the messages of one queue, or of one session of it, from the oldest to the youngest."""

    def __init__(self, connection: Connection, entity: str) -> None:
        """Look at `entity` over `connection`."""
        self._connection = connection
        self._entity = entity
        # Where the next look goes on: for a server that tells a cursor, and for one that does not.
        self.cursor = ""
        self._next = 1

    async def peek(
        self,
        count: int,
        from_sequence: int | None,
        session_id: str | None,
        dead_letter_reason: str | None = None,
        cursor: str | None = None,
    ) -> list[ReceivedMessage]:
        """Return up to `count` messages, from a number or a cursor on, or from where the last look ended (PEK-3).

        Raises:
            TypeError: `count` is no whole number.
            InvalidRequest: `count` is not positive, there is a reason and the messages are no dead letters, or there
                are both a number and a cursor, or one that is no cursor.
            LimitExceeded: The session id is too long.
            LockstepError: As the server says.
        """
        if not isinstance(count, int):
            raise TypeError(f"max_message_count is a whole number, not {type(count).__name__}.")
        if count < 1:
            raise InvalidRequest(f"max_message_count must be 1 or more; {count} was given.")
        check_id(session_id, "session_id")
        self._connection.check_open()
        request = messaging.PeekMessagesRequest(
            namespace=self._connection.namespace,
            entity=self._entity,
            session_id=session_id,
            max_messages=count,
            dead_letter_reason=dead_letter_reason,
        )
        if cursor and from_sequence is not None:
            raise InvalidRequest("Look from a sequence number on, or from a cursor, not from both.")
        request.cursor = cursor or (self.cursor if from_sequence is None else "")
        if not request.cursor:
            request.from_sequence_number = self._next if from_sequence is None else from_sequence
        response = await self._connection.calls.call(PEEK_MESSAGES, request)
        messages = list(
            map(
                ReceivedMessage,
                response.messages,
                response.sequence_numbers,
                response.delivery_counts or repeat(0),
                response.enqueued_times_unix_ms,
                self._deliveries(response),
                response.expires_times_unix_ms or repeat(0),
            )
        )
        note_trails(messages, response.trails)
        self.cursor = response.next_cursor
        if messages:
            self._next = messages[-1].sequence_number + 1
        return messages

    def _deliveries(self, response: messaging.PeekMessagesResponse) -> Iterable[Delivery]:
        """Return for each message what it has in common with those of its state."""
        active = Delivery(self._entity, None, b"", None)
        if not response.scheduled_indexes and not response.deferred_indexes:
            return repeat(active)
        others = dict.fromkeys(
            response.scheduled_indexes, replace(active, state=MessageState.SCHEDULED)
        )
        deferred = replace(active, state=MessageState.DEFERRED)
        others.update(dict.fromkeys(response.deferred_indexes, deferred))
        return (others.get(place, active) for place in counting())
