"""What an answer of the broker may be.

The law: OK with a response that parses and whose lists belong together, or a status with an ErrorInfo of ours whose
reason is known, is one that a server gives while it is well, and has the code of `wire.status.CODES`.
"""

from __future__ import annotations

import grpc
from google.protobuf.message import Message

from lockstep.core import errors
from lockstep.wire.status import CODES
from tests.fuzz.api import METHODS, parsed
from tests.fuzz.broker import Problem
from tests.fuzz.steps import Call
from tests.server.calls import Refusal

# A server that is well, alone and with a sound store never gives these.
_NEVER = (
    errors.LockstepError,
    errors.InternalError,
    errors.StoreRefused,
    errors.StoreUnavailable,
    errors.Moved,
    errors.Fenced,
    errors.ShuttingDown,
    errors.ConnectionFailed,
    errors.OperationTimeout,
    # Found by the client; no server gives them.
    errors.MessageAlreadySettled,
    errors.ClientClosed,
)
_CODES = {kind.reason: code for kind, code in CODES.items() if kind not in _NEVER}
# The lists of responses with one entry for each message; an empty one may stand for "all 0".
_COLUMNS = (
    "messages",
    "sequence_numbers",
    "delivery_counts",
    "enqueued_times_unix_ms",
    "expires_times_unix_ms",
)
_MAY_BE_EMPTY = ("delivery_counts", "expires_times_unix_ms")
_TOO_LARGE = grpc.StatusCode.RESOURCE_EXHAUSTED
REQUEST_BYTES_MAX = 17 * 1024 * 1024
"""The largest request that gRPC lets through in a server with the default limits."""


def judge_refusal(call: Call, refusal: Refusal) -> None:
    """Raise a Problem unless a call may be refused like this."""
    if len(call.payload) > REQUEST_BYTES_MAX and refusal.code is _TOO_LARGE:
        return  # by gRPC itself, which knows no reasons
    wanted = _CODES.get(refusal.reason)
    told = f"{refusal.code.name} with the reason {refusal.reason!r}: {refusal.text[:400]}"
    if wanted is None:
        raise Problem(f"refused by {told}")
    if wanted is not refusal.code:
        raise Problem(f"refused by {told}, but the code of that reason is {wanted.name}")
    if not refusal.text:
        raise Problem(f"refused without a word by {told}")


def judge_response(call: Call, payload: bytes) -> Message:
    """Return the response, or raise a Problem unless it is a sound one."""
    response = parsed(METHODS[call.path].response, payload)
    if response is None:
        raise Problem(f"answered with what is no response: {payload[:100].hex()}")
    columns = {
        name: len(getattr(response, name))
        for name in _COLUMNS
        if name in response.DESCRIPTOR.fields_by_name
    }
    if "messages" in columns:
        for name, count in columns.items():
            if count != columns["messages"] and (count or name not in _MAY_BE_EMPTY):
                raise Problem(f"answered with lists of different lengths: {columns}")
    for failure in getattr(response, "failures", ()):
        if failure.reason not in _CODES or not failure.description:
            raise Problem(f"a message failed for an unknown reason: {failure}")
    return response


def is_given_up(code: grpc.StatusCode) -> bool:
    """Whether a call ended because its caller wanted no more of it."""
    return code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
