"""What was changed about a message since its sender wrote it.

Here belong the properties that receivers and administrators set, and the trail of resubmissions. Never here: the
encoding of a message; a property is bytes that the wire made. The law (MSG-7): the bytes of the message itself stay as
they are; who delivers it puts the changes behind them.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import NamedTuple

from lockstep.core.errors import LimitExceeded
from lockstep.core.limits import HEADERS_BYTES_MAX

_TRAIL_BYTES = 48  # of the numbers of a trail, on the wire, at most


class Trail(NamedTuple):
    """Where a message was before it was resubmitted or moved (RSB-4).

    Attributes:
        resubmits: How often it was.
        sequence: The number it had before the first time.
        entity: The queue it was in, before the last time.
        reason: Why it was a dead letter, the last time.
    """

    resubmits: int
    sequence: int
    entity: str
    reason: str


class Amendment(NamedTuple):
    """The changes of one message.

    Attributes:
        properties: Application properties by name, each as the wire encodes it.
        session_id: The session it says it belongs to; None = as the sender wrote.
        message_id: Its message id; None = as the sender wrote.
        trail: Its resubmissions; None = never.
        enqueued_ms: When it counts as enqueued, where it kept its number; 0 = as the log says.
    """

    properties: Mapping[str, bytes] = {}
    session_id: str | None = None
    message_id: str | None = None
    trail: Trail | None = None
    enqueued_ms: int = 0

    @property
    def size_bytes(self) -> int:
        """What the changes take on the wire, at most."""
        texts = [self.session_id or "", self.message_id or ""]
        if self.trail is not None:
            texts += [self.trail.entity, self.trail.reason]
        return (
            sum(map(len, self.properties.values()))
            + sum(len(text.encode()) + 4 for text in texts)
            + _TRAIL_BYTES * (self.trail is not None)
        )

    def with_properties(self, properties: Mapping[str, bytes]) -> Amendment:
        """Return the changes with further properties; of one name the last counts (MSG-8).

        Raises:
            LimitExceeded: All of them together take more than the headers of a message may (section 1.3).
        """
        merged = {**self.properties, **properties}
        size = sum(map(len, merged.values()))
        if size > HEADERS_BYTES_MAX:
            raise LimitExceeded(
                f"The properties that were set on a message since it was sent are limited to {HEADERS_BYTES_MAX} bytes;"
                f" with these they would take {size}. The message was not settled. Set fewer or shorter ones.",
                details={
                    "limit": "headers_bytes",
                    "configured": str(HEADERS_BYTES_MAX),
                    "observed": str(size),
                },
            )
        return self._replace(properties=merged)

    def to_text(self) -> str:
        """Return the changes as storage keeps them."""
        properties = {name: b64encode(value).decode() for name, value in self.properties.items()}
        return json.dumps(
            [properties, self.session_id, self.message_id, self.trail, self.enqueued_ms],
            separators=(",", ":"),
        )

    @staticmethod
    def from_text(text: str) -> Amendment:
        """Return the changes that `to_text` wrote."""
        properties, session_id, message_id, trail, enqueued_ms = json.loads(text)
        return Amendment(
            {name: b64decode(value) for name, value in properties.items()},
            session_id,
            message_id,
            None if trail is None else Trail(*trail),
            enqueued_ms,
        )


UNCHANGED = Amendment()
