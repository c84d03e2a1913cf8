"""How one call is made: request ids, deadlines, retries, and undoing what nobody heard the end of.

Here belong the retry policy and the loop around a call. Never here: what a call means (`sending`,
`receiving`, `administering`). The laws: a retry has the same request id and payload, so it has
no second effect (ADD-3); a call that takes locks either hands over its response or is undone (BAT-9); and
a wait is not ended by an outage before its own time is over.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from lockstep.client.transport import (
    CANCEL_REQUEST,
    Method,
    RequestT,
    ResponseT,
    ResultT,
    Transport,
)
from lockstep.core.errors import (
    ClientClosed,
    Conflict,
    ConnectionFailed,
    InvalidRequest,
    LockstepError,
    Moved,
    NoSessionAvailable,
    NotFound,
    OperationTimeout,
    QuotaExceeded,
    ServerBusy,
    ShuttingDown,
    Unavailable,
)
from lockstep.v1 import messaging_service_pb2 as messaging
from lockstep.v1 import request_pb2

LockingT = TypeVar(
    "LockingT",
    messaging.AcceptSessionRequest,
    messaging.ReceiveMessagesRequest,
    messaging.ReceiveDeferredMessagesRequest,
)
"""The requests of calls that take locks."""

RETRYABLE: Final = (Unavailable, Moved, OperationTimeout)
"""What a retry may cure."""

CERTAIN: Final = (
    InvalidRequest,
    NotFound,
    Conflict,
    NoSessionAvailable,
    QuotaExceeded,
    ServerBusy,
)
"""Answers that say that this try had no effect."""

_UNDO_TIMEOUT_MS: Final = 2_000
_PATIENT_BACKOFF_MS_MAX: Final = 1_000
_FIRST_LOOK_MS: Final = 2_000
_LOOK_EVERY_MS: Final = 100

log = logging.getLogger("lockstep.client")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long a call is tried (CLI-9).

    Attributes:
        retries_max: Tries after the first one; 0 = none.
        backoff_ms: The pause before the first retry; it doubles with each one.
        backoff_ms_max: The longest pause. An advice of the server to wait longer ends the retries.
        timeout_ms: How long one try may take, besides the waiting that the program asked for.
    """

    retries_max: int = 3
    backoff_ms: int = 800
    backoff_ms_max: int = 60_000
    timeout_ms: int = 60_000

    def delay_ms(
        self, retries: int, error: LockstepError, chance: float, *, is_patient: bool = False
    ) -> int | None:
        """Return how long to pause before the next try; None = give up.

        Args:
            retries: How many retries were made.
            error: How the last try ended.
            chance: A number from 0 to 1; spreads the pauses of many clients over half their length.
            is_patient: Try on, however often that was, with pauses of at most a second.
        """
        if not isinstance(error, RETRYABLE) or self.retries_max == 0:
            return None
        advised_ms = error.retry_after_ms or 0
        if not is_patient and (retries >= self.retries_max or advised_ms > self.backoff_ms_max):
            return None
        backoff_ms = min(self.backoff_ms_max, self.backoff_ms << min(retries, 30))
        if is_patient:
            backoff_ms = min(backoff_ms, _PATIENT_BACKOFF_MS_MAX)
        return max(advised_ms, round(backoff_ms * (0.5 + chance / 2)))


@dataclass(slots=True)
class Tries:
    """What is known of the tries of one call.

    Attributes:
        is_uncertain: Some try may have had an effect whose result did not arrive.
    """

    is_uncertain: bool = False


class Caller:
    """Makes the calls of one client."""

    def __init__(
        self, transport: Transport, policy: RetryPolicy, *, client_id: str, server: str
    ) -> None:
        """Count requests from 1.

        Args:
            transport: The way to the server.
            policy: How often and how long a call is tried.
            client_id: Names this client in its request ids; unique in the world.
            server: The address that the transport leads to, for errors.
        """
        self._transport = transport
        self._policy = policy
        self._client_id = client_id
        self._server = server
        # Taking the next number of a count is one step of the interpreter, so threads may share it.
        self._counter = itertools.count(1)
        # Whether the server ever answered. What was never there is rather a wrong address than an outage.
        self._was_reached = False
        # Whether it was logged that calls wait for the server to come back.
        self._is_missed = False

    def new_request_id(self) -> request_pb2.RequestId:
        """Return the id of the next mutating call."""
        return request_pb2.RequestId(client_id=self._client_id, counter=next(self._counter))

    async def call(
        self,
        method: Method[RequestT, ResponseT],
        request: RequestT,
        *,
        wait_ms: int = 0,
        patience_ms: int | None = 0,
        budget_ms: int | None = None,
        judge: Callable[[ResponseT], LockstepError | None] | None = None,
        tries: Tries | None = None,
        before_retry: Callable[[int], None] = lambda _retries: None,
    ) -> ResponseT:
        """Make a call and retry it while that may help.

        Args:
            method: Which call.
            request: Its request; a mutating one carries its request id.
            wait_ms: How long the server was asked to wait; added to the deadline of each try.
            patience_ms: How long the program waits anyway, so that retries go on in an outage, whatever the policy says
                of their number; None = for ever. Needs a server that has answered before.
            budget_ms: How long all tries together may take; None = as long as the policy lets them.
            judge: Finds an error in a response; None = the response is good.
            tries: Filled with what is known of the tries, whatever the outcome.
            before_retry: Called before each try but the first, with how many came before.

        Raises:
            LockstepError: How the last try ended.
        """
        policy, transport = self._policy, self._transport
        tries = tries or Tries()
        started_ms = transport.monotonic_ms()
        if patience_ms != 0 and not self._was_reached:
            # Otherwise nothing would tell the end of a server that this call waits at from a wrong address.
            look_ms = _FIRST_LOOK_MS if patience_ms is None else min(patience_ms, _FIRST_LOOK_MS)
            self._was_reached = await transport.is_serving(within_ms=look_ms)
        for retries in itertools.count():
            if retries:
                before_retry(retries)
            timeout_ms = policy.timeout_ms + wait_ms
            if budget_ms is not None:
                left_ms = budget_ms - (transport.monotonic_ms() - started_ms)
                timeout_ms = max(1, min(timeout_ms, left_ms))
            error: LockstepError | None
            try:
                response = await self._try(method, request, timeout_ms, tries)
                error = judge(response) if judge else None
                if error is None:
                    return response
            except RETRYABLE as failure:
                error = failure
            spent_ms = transport.monotonic_ms() - started_ms
            is_patient = self._was_reached and (patience_ms is None or spent_ms < patience_ms)
            delay_ms = policy.delay_ms(retries, error, transport.random(), is_patient=is_patient)
            if delay_ms is None or (budget_ms is not None and spent_ms + delay_ms >= budget_ms):
                raise self._final(error, tries=retries + 1, spent_ms=spent_ms)
            if retries == policy.retries_max:
                self._log_missed(error)
            if isinstance(error, ConnectionFailed | ShuttingDown):
                await self._pause(delay_ms)  # another server, or the next one, may be there at once
            else:
                await transport.sleep(delay_ms)
        raise AssertionError("the count of retries has no end")

    @property
    def timeout_ms(self) -> int:
        """How long one try may take, besides the waiting that was asked for."""
        return self._policy.timeout_ms

    async def repeat(
        self, attempt: Callable[[], Awaitable[ResultT]], *, patience_ms: int | None = 0
    ) -> ResultT:
        """Do what is no single call, such as opening a stream, as `call` makes calls: again while that may help.

        Args:
            attempt: One try, which leaves nothing behind when it raises.
            patience_ms: As in `call`.

        Raises:
            LockstepError: How the last try ended.
        """
        transport = self._transport
        started_ms = transport.monotonic_ms()
        for retries in itertools.count():
            try:
                result = await attempt()
            except RETRYABLE as error:
                spent_ms = transport.monotonic_ms() - started_ms
                is_patient = self._was_reached and (patience_ms is None or spent_ms < patience_ms)
                chance = transport.random()
                delay_ms = self._policy.delay_ms(retries, error, chance, is_patient=is_patient)
                if delay_ms is None:
                    raise self._final(error, tries=retries + 1, spent_ms=spent_ms) from error
                if retries == self._policy.retries_max:
                    self._log_missed(error)
                await self._pause(delay_ms)
            else:
                self._note_reached()
                return result
        raise AssertionError("the count of retries has no end")

    async def call_or_undo(
        self,
        method: Method[LockingT, ResponseT],
        request: LockingT,
        undo: messaging.CancelRequestRequest,
        *,
        wait_ms: int,
        patience_ms: int | None = 0,
    ) -> ResponseT:
        """Make a call that takes locks; when its response cannot be handed over, give them back (BAT-9).

        That is so when it was cancelled, interrupted, or failed without saying whether it had an
        effect. Undoing takes at most 2 s; where it fails too, the locks run out by themselves. The
        arguments are those of `call`.

        Raises:
            LockstepError: How the last try ended.
        """
        tries = Tries()
        try:
            return await self.call(
                method,
                request,
                wait_ms=wait_ms,
                patience_ms=patience_ms,
                tries=tries,
                before_retry=partial(setattr, request.request_id, "attempt"),
            )
        except GeneratorExit:
            raise  # a coroutine that is thrown away must not await
        except BaseException:
            if tries.is_uncertain:
                await self.undo(undo)
            raise

    async def _try(
        self,
        method: Method[RequestT, ResponseT],
        request: RequestT,
        timeout_ms: int,
        tries: Tries,
    ) -> ResponseT:
        was_uncertain = tries.is_uncertain
        tries.is_uncertain = True
        try:
            response = await self._transport.call(method, request, timeout_ms=timeout_ms)
        except LockstepError as error:
            if isinstance(error, CERTAIN):
                tries.is_uncertain = was_uncertain
            if not _is_from_grpc(error):
                self._note_reached()
            raise
        tries.is_uncertain = False
        self._note_reached()
        return response

    async def _pause(self, delay_ms: int) -> None:
        """Wait before another try for `delay_ms`, or until the server is back, whatever comes first."""
        transport = self._transport
        ends_ms = transport.monotonic_ms() + delay_ms
        while (left_ms := ends_ms - transport.monotonic_ms()) > 0:
            if await transport.is_serving(within_ms=left_ms):
                return
            left_ms = ends_ms - transport.monotonic_ms()
            if left_ms > 0:
                await transport.sleep(min(left_ms, _LOOK_EVERY_MS))

    def _note_reached(self) -> None:
        self._was_reached = True
        if self._is_missed:
            self._is_missed = False
            log.info("client.server_back", extra={"server": self._server})

    def _log_missed(self, error: LockstepError) -> None:
        """Say once in an outage that calls wait for its end."""
        if not self._is_missed:
            self._is_missed = True
            log.warning(
                "client.server_away", extra={"server": self._server, "reason": error.reason}
            )

    def _final(self, error: LockstepError, *, tries: int, spent_ms: int) -> LockstepError:
        """Return what the program gets to see of the error that ended the last try.

        What the server said stays as it is. Where nobody spoke but gRPC, whose words help no reader, the error says
        which server was tried and for how long; gRPC's words are kept as the detail "cause".
        """
        told = f"{tries} {'try' if tries == 1 else 'tries'} over {spent_ms / 1000:.1f} s"
        if isinstance(error, ConnectionFailed):
            message = (
                f"The server at {self._server} could not be reached in {told}: start one with `lockstep serve`,"
                " or check the address."
            )
        elif isinstance(error, OperationTimeout) and _is_from_grpc(error):
            message = (
                f"The server at {self._server} gave no answer in {told}; whether the call had an"
                " effect is not known."
            )
        else:
            return error
        final = type(error)(
            message,
            details={
                **error.details,
                "server": self._server,
                "tries": str(tries),
                "tried_ms": str(spent_ms),
                "cause": error.message,
            },
        )
        final.__cause__ = error
        return final

    async def undo(self, undo: messaging.CancelRequestRequest) -> None:
        """Give back what a call may have locked, within 2 s; where that fails the locks run out by themselves."""
        try:
            await self._transport.call(CANCEL_REQUEST, undo, timeout_ms=_UNDO_TIMEOUT_MS)
        except LockstepError:
            # The error of the call itself tells the program what matters; nobody else can be told.
            return


def _is_from_grpc(error: LockstepError) -> bool:
    """Whether gRPC itself, or a proxy, spoke in place of a server of ours."""
    if isinstance(error, ConnectionFailed | ClientClosed):
        return True
    return "grpc_code" in error.details and "reason" not in error.details
