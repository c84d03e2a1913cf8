"""Senders and session workers that retry with their request ids, and a book of what they were told."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from lockstep.v1 import messaging_service_pb2 as messaging
from lockstep.v1 import session_pb2
from tests.server import calls
from tests.server.server_process import CALL_S, ServerProcess, Stubs

QUEUE = "crash"
_BATCHES = (1, 3, 2, 5)
_HOLD_BATCHES = 3
_RECEIVE_MAX = 7
_ATTEMPT_S = 5.0
_SAFE_CODES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


@dataclass(slots=True)
class Book:
    """What clients were told; written by their threads, each to its own sessions or under its own lock.

    Attributes:
        sent: By session, (body, sequence number) of every acknowledged message, in sending order.
        completed: By session, (body, sequence number) of every completed message, in that order.
        states: By session, the last state whose writing was acknowledged.
        counts: Delivery counts other than 0 that were seen.
        troubles: What must not happen.
    """

    sent: dict[str, list[tuple[bytes, int]]] = field(default_factory=lambda: defaultdict(list))
    completed: dict[str, list[tuple[bytes, int]]] = field(default_factory=lambda: defaultdict(list))
    states: dict[str, bytes] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    retries: int = 0


class Load:
    """Clients of one server, on threads; they outlive its crashes."""

    def __init__(self, server: ServerProcess, *, senders: int, workers: int) -> None:
        self.book = Book()
        self._server = server
        self._stop_sending = threading.Event()
        self._stop_working = threading.Event()
        self._is_abandoned = threading.Event()
        self._senders = [
            threading.Thread(target=self._guard, args=(self._send, n)) for n in range(senders)
        ]
        self._workers = [
            threading.Thread(target=self._guard, args=(self._work, n)) for n in range(workers)
        ]

    def start(self) -> None:
        for thread in (*self._senders, *self._workers):
            thread.start()

    @property
    def acknowledged(self) -> int:
        """Messages whose sending was acknowledged up to now."""
        return sum(map(len, list(self.book.sent.values())))

    @property
    def completed(self) -> int:
        """Messages whose completion was acknowledged up to now."""
        return sum(map(len, list(self.book.completed.values())))

    def finish_sending(self) -> None:
        """Let senders end; each first gets the answer to what it has begun."""
        self._stop_sending.set()
        for thread in self._senders:
            thread.join(CALL_S)
            assert not thread.is_alive()

    def finish(self) -> None:
        """Let everybody end."""
        self._stop_sending.set()
        self._stop_working.set()
        for thread in (*self._senders, *self._workers):
            if thread.ident is not None:
                thread.join(CALL_S)

    def abandon(self) -> None:
        """Let everybody end without an answer to what they have begun; the server is gone for good."""
        self._is_abandoned.set()
        self.finish()

    # --- clients -----------------------------------------------------------------------------------

    def _guard(self, run: Callable[[int, Stubs], None], number: int) -> None:
        stubs = Stubs(self._server.port)
        try:
            run(number, stubs)
        except (grpc.RpcError, AssertionError) as error:
            self.book.troubles.append(f"{run.__name__} {number}: {error}")
        finally:
            stubs.close()

    def _insist(self, call: Any, request: Any) -> Any:
        """Make a call again until its outcome is known; the request id makes that safe."""
        while True:
            try:
                return call(request, timeout=_ATTEMPT_S)
            except grpc.RpcError as error:
                if error.code() not in _SAFE_CODES or self._is_abandoned.wait(0.03):
                    raise
                self.book.retries += 1

    def _send(self, sender: int, stubs: Stubs) -> None:
        ids = calls.Ids(f"sender-{sender}")
        sessions = (f"{sender}-a", f"{sender}-b")
        made = 0
        while not self._stop_sending.is_set():
            session = sessions[made % 3 % 2]
            known = self.book.sent[session]
            size = _BATCHES[made % len(_BATCHES)]
            made += 1
            bodies = [b"%d" % number for number in range(len(known), len(known) + size)]
            request = calls.send_request(QUEUE, *bodies, session=session, request_id=ids.next())
            numbers = self._insist(stubs.messaging.SendMessages, request).sequence_numbers
            known.extend(zip(bodies, numbers, strict=True))

    def _work(self, worker: int, stubs: Stubs) -> None:
        ids = calls.Ids(f"worker-{worker}")
        while not self._stop_working.is_set():
            request = messaging.AcceptSessionRequest(
                entity=QUEUE,
                max_wait=calls.seconds(0.2),
                holder_client_id=ids.client_id,
                request_id=ids.next(),
            )
            try:
                accepted = self._insist(stubs.messaging.AcceptSession, request)
            except grpc.RpcError as error:
                if calls.refusal_of(error).reason != "NO_SESSION_AVAILABLE":
                    raise
                continue
            self._hold(accepted, ids, stubs)

    def _hold(
        self, accepted: messaging.AcceptSessionResponse, ids: calls.Ids, stubs: Stubs
    ) -> None:
        lock = accepted.session
        expected = self.book.states.get(lock.session_id, b"")
        if accepted.state.value != expected:
            self.book.troubles.append(
                f"{lock.session_id}: state {accepted.state.value!r}, not {expected!r}"
            )
        for _ in range(_HOLD_BATCHES):
            if not self._turn(lock, ids, stubs):
                break
        request = messaging.ReleaseSessionRequest(entity=QUEUE, session=lock, request_id=ids.next())
        self._insist(stubs.messaging.ReleaseSession, request)

    def _turn(self, lock: session_pb2.SessionLock, ids: calls.Ids, stubs: Stubs) -> bool:
        """Receive, write the state, complete; all with ids, all until the outcome is known."""
        request = calls.receive_request(QUEUE, lock, maximum=_RECEIVE_MAX, request_id=ids.next())
        received = self._insist(stubs.messaging.ReceiveMessages, request)
        if not received.messages:
            return False
        bodies = calls.bodies_of(received)
        self.book.counts += [count for count in calls.counts_of(received) if count]
        state = messaging.SetSessionStateRequest(
            entity=QUEUE, session=lock, value=bodies[-1], request_id=ids.next()
        )
        self._insist(stubs.messaging.SetSessionState, state)
        self.book.states[lock.session_id] = bodies[-1]
        done = calls.settlement("complete", numbers=received.sequence_numbers)
        settle = messaging.SettleMessagesRequest(
            entity=QUEUE, session=lock, settlements=[done], request_id=ids.next()
        )
        failures = self._insist(stubs.messaging.SettleMessages, settle).failures
        if failures:
            self.book.troubles.append(f"{lock.session_id}: not settled: {failures}")
        pairs = zip(bodies, received.sequence_numbers, strict=True)
        self.book.completed[lock.session_id].extend(pairs)
        return True
