"""The model of ADD-3: which calls are remembered, and how a refusal is named.

Results may be forgotten only when the contract allows it; when exactly is the partition's affair, so the
model follows the partition there, after it has checked that the forgetting was allowed.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from lockstep.core.changes import Change, ClientRow, RequestRow
from lockstep.core.commands import Send, Settle, Settlement, TakeTurn
from lockstep.core.ids import RequestId
from lockstep.core.limits import Limits

NOTHING = ("nothing",)


def shown(payload: bytes) -> bytes | int:
    """Return a payload as it is compared and printed; a big one, all zeros, by its length."""
    return payload if len(payload) < 100 else len(payload)


def assert_same(seen: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare what is seen with what the model says; the text shows only what differs."""
    keys = seen.keys() | expected.keys()
    differing = {k: (seen.get(k), expected.get(k)) for k in keys if seen.get(k) != expected.get(k)}
    assert not differing, f"(seen, expected): {differing}"


class Refused(Exception):
    """The model refuses a call for one of these reasons; where two rules are broken, either may be named."""

    def __init__(self, *reasons: str, details: dict[str, str] | None = None) -> None:
        super().__init__(*reasons)
        self.reasons = frozenset(reasons)
        self.details = details or {}


@dataclass
class Call:
    """A call that took effect."""

    kind: str
    fingerprint: int
    result: tuple[Any, ...]


class RememberedCalls:
    """The calls of all clients whose first results a repeat is answered with."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.calls: dict[tuple[str, int], Call] = {}
        self.floor: dict[str, int] = {}
        self.seen_ms: dict[str, int] = {}
        self.waiting: set[tuple[str, int]] = set()  # came and found nothing

    def find(
        self, request: RequestId | None, fingerprint: int, kind: str
    ) -> tuple[Any, ...] | None:
        """Return the first result; None = the call is new."""
        if request is None:
            return None
        call = self.calls.get(request)
        if call is None:
            if self.is_expired(request):
                raise Refused("REQUEST_ID_EXPIRED")
            return None
        if call.kind == "cancelled":
            raise Refused("REQUEST_CANCELLED")
        if call.kind != kind or call.fingerprint != fingerprint:
            raise Refused("REQUEST_ID_REUSED")
        return call.result

    def is_expired(self, request: RequestId) -> bool:
        """Whether it is not known any more what a call did; one that waits did nothing."""
        is_old = request.counter <= self.floor.get(request.client_id, 0)
        return is_old and request not in self.waiting

    def note_waiting(self, request: RequestId | None) -> None:
        """A call came and found nothing."""
        if request is not None:
            self.waiting.add(request)

    def keep(
        self,
        request: RequestId | None,
        fingerprint: int,
        kind: str,
        result: tuple[Any, ...],
        now_ms: int,
    ) -> None:
        """Remember a call that takes effect now."""
        if request is not None:
            self.calls[request] = Call(kind, fingerprint, result)
            self.seen_ms[request.client_id] = now_ms
            self.waiting.discard(request)

    def reopen(self, now_ms: int) -> None:
        """Silence is measured from the opening on."""
        self.seen_ms = dict.fromkeys(self.seen_ms, now_ms)
        self.waiting.clear()
        self.calls = {call: self.calls[call] for call in sorted(self.calls)}

    def reconcile(self, rows: Iterable[Change], now_ms: int) -> None:
        """Check that the partition remembers what it must, and forget what it was allowed to forget."""
        floors: dict[str, int] = {}
        kept: dict[tuple[str, int], RequestRow] = {}
        for row in rows:
            if isinstance(row, ClientRow):
                floors[row.client_id] = row.floor
            elif isinstance(row, RequestRow):
                kept[row.client_id, row.counter] = row
        assert set(kept) <= set(self.calls), "remembered, but had no effect"
        for key, row in kept.items():
            call = self.calls[key]
            assert call.kind == "cancelled" or row.fingerprint == call.fingerprint
        forgotten = defaultdict(list)
        for client_id, counter in [call for call in self.calls if call not in kept]:
            assert self._may_forget(client_id, counter, now_ms), (
                f"forgot request {counter} of {client_id} too early"
            )
            forgotten[client_id].append(counter)
        for client_id, counters in forgotten.items():
            self.floor[client_id] = max([self.floor.get(client_id, 0), *counters])
            for counter in counters:
                del self.calls[client_id, counter]
        self._check_clients(floors, now_ms)

    def _check_clients(self, floors: dict[str, int], now_ms: int) -> None:
        most = self.limits.requests_per_client_max
        for client_id in list(self.seen_ms):
            if client_id in floors:
                assert floors[client_id] == self.floor.get(client_id, 0), "refuses other ids"
                assert len(self._counters(client_id)) <= most + max(most // 16, 1), (
                    "remembers too much"
                )
            else:
                silence_ms = now_ms - self.seen_ms.pop(client_id)
                assert silence_ms >= self.limits.client_retention_ms, "forgot a client too early"
                self.floor.pop(client_id, None)
                self.waiting = {call for call in self.waiting if call[0] != client_id}

    def _may_forget(self, client_id: str, counter: int, now_ms: int) -> bool:
        if now_ms - self.seen_ms[client_id] >= self.limits.request_retention_ms:
            return True
        newest = self._counters(client_id)[-self.limits.requests_per_client_max :]
        return counter not in newest

    def _counters(self, client_id: str) -> list[int]:
        return [counter for client, counter in self.calls if client == client_id]


def short(command: Any) -> str:
    """Return a command as a history shows it: of each message and property the beginning."""
    if isinstance(command, Send):
        command = replace(command, messages=tuple(m[:9] for m in command.messages))
    if isinstance(command, TakeTurn) and command.outputs is not None:
        messages = tuple(m[:9] for m in command.outputs.messages)
        command = replace(command, outputs=replace(command.outputs, messages=messages))
    if isinstance(command, Settle):
        command = replace(command, settlements=tuple(map(_short_settlement, command.settlements)))
    return repr(command)


def _short_settlement(settlement: Settlement) -> Settlement:
    properties = {name: value[:9] for name, value in settlement.properties.items()}
    return replace(settlement, properties=properties)


def fingerprint(command: Any) -> int:
    """Return a number that differs where the payload of a call does."""
    return zlib.crc32(short(command).encode())
