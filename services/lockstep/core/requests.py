"""What a partition remembers of calls, so that a repeat has no second effect (ADD-3).

Here belongs the window of request ids. Never here: what a call does. The law: a result becomes durable
in the commit of its effect; an id that is not remembered any more is refused, never executed.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple

from lockstep.core.changes import Change, ClientRow, Drop, RequestRow
from lockstep.core.errors import RequestCancelled, RequestIdExpired, RequestIdReused
from lockstep.core.ids import RequestId
from lockstep.core.limits import Limits

CANCELLED = "cancelled"
NOTHING = "nothing"
_CANCELLED_TEXT = json.dumps([CANCELLED])
_PRUNE_SLACK = 16  # forget a part of the window at a time, so that forgetting costs little
_WAITING_MAX = 8192  # of one client; a partition lets fewer calls wait


class Remembered(NamedTuple):
    """A call that took effect. What it did is kept as text, which takes a tenth of the memory."""

    fingerprint: int
    text: str

    @property
    def result(self) -> tuple[Any, ...]:
        """What the call did; begins with its kind, for example "send"."""
        result: tuple[Any, ...] = _tuples(json.loads(self.text))
        return result


class _Client:
    __slots__ = ("floor", "is_stored", "last_seen_ms", "repeated", "results", "waiting")

    def __init__(self, floor: int, last_seen_ms: int) -> None:
        self.floor = floor
        self.last_seen_ms = last_seen_ms
        self.is_stored = False  # whether storage has a row of it
        self.results: dict[int, Remembered] = {}
        self.repeated: set[int] = set()  # calls of which a second copy was answered
        self.waiting: dict[int, None] = {}  # calls that came and had no effect so far, oldest first


class RequestWindow:
    """The remembered calls of all clients in one partition."""

    __slots__ = ("_clients", "_limits")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._clients: OrderedDict[str, _Client] = OrderedDict()  # who was silent longest first

    def find(self, request: RequestId, fingerprint: int) -> Remembered | None:
        """Return what the call did before; None = it is new.

        Raises:
            RequestIdReused: The id was used with another payload. The client has a bug.
            RequestIdExpired: The id is too old; look whether the call took effect, then use a new id.
            RequestCancelled: The client cancelled the call before it arrived.
        """
        client = self._clients.get(request.client_id)
        if client is None:
            return None
        found = client.results.get(request.counter)
        if found is None:
            if request.counter <= client.floor and request.counter not in client.waiting:
                raise RequestIdExpired(
                    f"Request {request.counter} of client {request.client_id} is older than what is remembered"
                    f" ({self._limits.requests_per_client_max} calls, {self._limits.request_retention_ms} ms of"
                    " silence). It was not executed now; whether it was before is not known.",
                    details={"oldest": str(client.floor + 1), "observed": str(request.counter)},
                )
            return None
        if found.text == _CANCELLED_TEXT:
            raise RequestCancelled(
                f"Request {request.counter} of client {request.client_id} was cancelled by its client and is not"
                " executed. Use a new request id."
            )
        if found.fingerprint != fingerprint:
            raise RequestIdReused(
                f"Request {request.counter} of client {request.client_id} came before with another payload and was"
                " not executed again. Use a new request id for a new call.",
            )
        return found

    def is_forgotten(self, request: RequestId) -> bool:
        """Whether the call's result, if it had one, is remembered no more."""
        client = self._clients.get(request.client_id)
        return (
            client is not None
            and request.counter <= client.floor
            and request.counter not in client.results
            and request.counter not in client.waiting
        )

    def peek(self, request: RequestId) -> Remembered | None:
        """Return what the call did, whatever its payload was; None = nothing is remembered."""
        client = self._clients.get(request.client_id)
        return client.results.get(request.counter) if client else None

    def note_waiting(self, request: RequestId | None, now_ms: int) -> None:
        """Note that a call came and found nothing, so that it is new whenever it is tried again."""
        if request is None:
            return
        client = self._clients.get(request.client_id)
        if client is None:
            client = self._clients[request.client_id] = _Client(0, now_ms)
        client.waiting[request.counter] = None
        if len(client.waiting) > _WAITING_MAX:
            del client.waiting[next(iter(client.waiting))]

    def note_repeat(self, request: RequestId | None) -> None:
        """Note that another copy of a remembered call was answered too."""
        if request is not None:
            self._clients[request.client_id].repeated.add(request.counter)

    def is_repeated(self, request: RequestId) -> bool:
        """Whether another copy of a call was answered too."""
        client = self._clients.get(request.client_id)
        return client is not None and request.counter in client.repeated

    def drop(self, request: RequestId) -> list[Change]:
        """Forget a call that was undone as if it had never come, and return what to change in storage."""
        del self._clients[request.client_id].results[request.counter]
        return [Drop(RequestRow, request)]

    def remember(
        self, request: RequestId, fingerprint: int, result: tuple[Any, ...], now_ms: int
    ) -> tuple[list[Change], bool]:
        """Keep the result of a call that takes effect now.

        Returns:
            What to change in storage, and whether the client is new (so that its silence must be watched).
        """
        client = self._clients.get(request.client_id)
        changes: list[Change] = []
        is_new = client is None or not client.is_stored
        if client is None:
            changes.extend(self._make_room(now_ms))
            client = self._clients[request.client_id] = _Client(0, now_ms)
        if is_new:
            client.is_stored = True
            changes.append(ClientRow(request.client_id, 0, now_ms))
        client.last_seen_ms = now_ms
        client.waiting.pop(request.counter, None)
        self._clients.move_to_end(request.client_id)
        text = json.dumps(result, separators=(",", ":"))
        client.results[request.counter] = Remembered(fingerprint, text)
        changes.append(RequestRow(request.client_id, request.counter, fingerprint, text))
        most = self._limits.requests_per_client_max
        if len(client.results) > most + most // _PRUNE_SLACK:
            old = list(islice(client.results, len(client.results) - most))  # those that came first
            changes.extend(self._forget(request.client_id, client, old))
        return changes, is_new

    def _make_room(self, now_ms: int) -> list[Change]:
        """Forget the clients that were silent longest while there are too many."""
        changes: list[Change] = []
        while len(self._clients) >= self._limits.clients_max:
            client_id, client = next(iter(self._clients.items()))
            if now_ms - client.last_seen_ms < self._limits.request_retention_ms:
                break
            changes.extend(self._drop_client(client_id))
        return changes

    def _drop_client(self, client_id: str) -> list[Change]:
        client = self._clients.pop(client_id)
        changes: list[Change] = [
            Drop(RequestRow, (client_id, counter)) for counter in client.results
        ]
        if client.is_stored:
            changes.append(Drop(ClientRow, (client_id,)))
        return changes

    def _forget(self, client_id: str, client: _Client, counters: list[int]) -> list[Change]:
        for counter in counters:
            del client.results[counter]
            client.repeated.discard(counter)
        client.floor = max([client.floor, *counters])
        changes: list[Change] = [Drop(RequestRow, (client_id, counter)) for counter in counters]
        changes.append(ClientRow(client_id, client.floor, client.last_seen_ms))
        return changes

    def watch(self, client_id: str, now_ms: int) -> tuple[list[Change], int | None]:
        """Forget a client's results after its silence, and the client itself after a longer one.

        Returns:
            What to change in storage, and when to look again; None = the client is forgotten.
        """
        client = self._clients.get(client_id)
        if client is None:
            return [], None
        results_end = client.last_seen_ms + self._limits.request_retention_ms
        client_end = client.last_seen_ms + self._limits.client_retention_ms
        if now_ms >= client_end:
            return self._drop_client(client_id), None
        if now_ms >= results_end:
            return self._forget(client_id, client, sorted(client.results)), client_end
        return [], results_end

    def restore(
        self, clients: Iterable[ClientRow], requests: Iterable[RequestRow], now_ms: int
    ) -> None:
        """Take over what storage remembers. When a client was seen last is not stored, so it counts from now."""
        for client in clients:
            known = self._clients[client.client_id] = _Client(client.floor, now_ms)
            known.is_stored = True
        for row in requests:
            owner = self._clients.setdefault(row.client_id, _Client(0, now_ms))
            owner.is_stored = True
            owner.results[row.counter] = Remembered(row.fingerprint, row.result)

    def client_ids(self) -> list[str]:
        """Return every client that is remembered."""
        return [client_id for client_id, client in self._clients.items() if client.is_stored]

    def rows(self) -> list[Change]:
        """Return the whole window as rows, to compare it with storage."""
        rows: list[Change] = []
        for client_id, client in self._clients.items():
            if not client.is_stored:
                continue
            rows.append(ClientRow(client_id, client.floor, client.last_seen_ms))
            for counter, found in client.results.items():
                rows.append(RequestRow(client_id, counter, found.fingerprint, found.text))
        return rows


def _tuples(value: Any) -> Any:
    """Return JSON lists as tuples, at every depth."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
