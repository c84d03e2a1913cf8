"""What clients write: messages as the wire encodes them, with everything that the broker acts on.

Here belongs the making of sends. Never here: who sends what to whom (`clients`, `workers`).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

from lockstep.core.commands import Send
from lockstep.core.ids import EntityKey, RequestId
from lockstep.v1 import message_pb2

if TYPE_CHECKING:
    from tests.sim.clients import Client


_LARGE = 1100  # bytes, and too large for some queues


class Letters:
    """The messages of one client; no two have the same body.

    Some expire, some are due later, some have the id of another one.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._random = client.random
        self._bodies = itertools.count(1)

    def send(
        self,
        entity: EntityKey,
        session_ids: tuple[str | None, ...],
        count: int,
        request: RequestId | None,
    ) -> Send:
        """Return a send of so many messages; `session_ids` has one entry for each, or one for all."""
        ttls, dues, names = self._ttls(count), self._dues(count), self._message_ids(count)
        ids = session_ids if len(session_ids) == count else session_ids * count
        each = zip(ids, ttls or (0,) * count, names or ("",) * count, strict=True)
        messages = tuple(self._encoded(*one) for one in each)
        return Send(entity, messages, session_ids, request, 0, ttls, dues, names)

    def _encoded(self, session_id: str | None, ttl_ms: int, message_id: str) -> bytes:
        body = f"{self._client.name}-{next(self._bodies)}".encode()
        body += b"." * self._random.choice((0, 20, 20, 90, 90, _LARGE))
        message = message_pb2.Message(body=body, message_id=message_id, session_id=session_id)
        if ttl_ms:
            message.time_to_live.CopyFrom(
                Duration(seconds=ttl_ms // 1000, nanos=ttl_ms % 1000 * 1_000_000)
            )
        return message.SerializeToString()

    def _ttls(self, count: int) -> tuple[int, ...]:
        if not self._client.world.has_ttls or self._client.chance(0.5):
            return ()
        return tuple(self._random.choice((0, 300, 2000, 8000, 30_000)) for _ in range(count))

    def _dues(self, count: int) -> tuple[int, ...]:
        if self._client.chance(0.8):
            return ()
        now_ms = self._client.now_ms()
        later = (
            lambda: 0,
            lambda: now_ms + self._random.randint(-500, 12_000),
            lambda: now_ms + 3_600_000,
        )
        return tuple(self._random.choices(later, (3, 6, 1))[0]() for _ in range(count))

    def _message_ids(self, count: int) -> tuple[str, ...]:
        if self._client.chance(0.5):
            return ()
        return tuple(
            self._random.choice(("", f"m{self._random.randrange(15)}")) for _ in range(count)
        )
