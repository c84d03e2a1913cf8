"""How an error of Lockstep travels over gRPC, in both directions.

Here belongs the one table from error class to gRPC code, and the two functions that use it. Never here:
the classes themselves (`core.errors`), when to retry (`client.retry`), logging.

The law: an error crosses the wire by its stable reason (google.rpc.ErrorInfo, AIP-193), never by its text
and never by its code alone; the class that arrives is the class that left.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from lockstep.core import errors

DOMAIN: Final = "lockstep.dev"
"""The domain of every ErrorInfo that Lockstep writes."""

DETAILS_METADATA_KEY: Final = "grpc-status-details-bin"
"""The trailer that carries google.rpc.Status, fixed by gRPC."""

# A gRPC peer accepts 8 KiB of trailers by default. The message travels twice (percent-encoded, and in base64),
# the details once, so these bounds keep even text without any ASCII below that.
_MESSAGE_BYTES_MAX: Final = 1024
_DETAIL_VALUE_BYTES_MAX: Final = 512
_DETAILS_BYTES_MAX: Final = 1536

_Code = grpc.StatusCode

CODES: Final[Mapping[type[errors.LockstepError], grpc.StatusCode]] = {
    errors.LockstepError: _Code.UNKNOWN,
    errors.InternalError: _Code.INTERNAL,
    errors.InvalidRequest: _Code.INVALID_ARGUMENT,
    errors.LimitExceeded: _Code.INVALID_ARGUMENT,
    errors.MessageSizeExceeded: _Code.INVALID_ARGUMENT,
    errors.SettingNotAvailable: _Code.UNIMPLEMENTED,
    errors.InvalidOperation: _Code.FAILED_PRECONDITION,
    errors.NotFound: _Code.NOT_FOUND,
    errors.EntityNotFound: _Code.NOT_FOUND,
    errors.MessageNotFound: _Code.NOT_FOUND,
    errors.JobNotFound: _Code.NOT_FOUND,
    errors.Conflict: _Code.ABORTED,
    errors.StateConflict: _Code.ABORTED,
    errors.EntityDisabled: _Code.FAILED_PRECONDITION,
    errors.EntityAlreadyExists: _Code.ALREADY_EXISTS,
    errors.EntityManaged: _Code.FAILED_PRECONDITION,
    errors.EntityNotEmpty: _Code.FAILED_PRECONDITION,
    errors.RevisionConflict: _Code.ABORTED,
    errors.SessionCannotBeLocked: _Code.ABORTED,
    errors.SessionLockLost: _Code.FAILED_PRECONDITION,
    errors.MessageLockLost: _Code.FAILED_PRECONDITION,
    errors.RequestIdReused: _Code.FAILED_PRECONDITION,
    errors.RequestIdExpired: _Code.FAILED_PRECONDITION,
    errors.RequestCancelled: _Code.ABORTED,
    # Not DEADLINE_EXCEEDED: an idle queue must not look like a fault to proxies and dashboards (CLI-11).
    errors.NoSessionAvailable: _Code.NOT_FOUND,
    errors.OperationTimeout: _Code.DEADLINE_EXCEEDED,
    errors.Moved: _Code.UNAVAILABLE,
    errors.Fenced: _Code.UNAVAILABLE,
    errors.Misplaced: _Code.UNAVAILABLE,
    errors.ShareUsed: _Code.UNAVAILABLE,
    errors.Exhausted: _Code.RESOURCE_EXHAUSTED,
    errors.QuotaExceeded: _Code.RESOURCE_EXHAUSTED,
    errors.Unavailable: _Code.UNAVAILABLE,
    errors.ServerBusy: _Code.UNAVAILABLE,
    errors.StoreUnavailable: _Code.UNAVAILABLE,
    errors.ClusterUnavailable: _Code.UNAVAILABLE,
    errors.ShuttingDown: _Code.UNAVAILABLE,
    errors.ConnectionFailed: _Code.UNAVAILABLE,
    errors.StoreRefused: _Code.INTERNAL,
    errors.MessageAlreadySettled: _Code.FAILED_PRECONDITION,
    errors.ClientClosed: _Code.FAILED_PRECONDITION,
}
"""One row for each class of `core.errors`; a test fails when a class has none."""

_CLASS_BY_REASON: Final[Mapping[str, type[errors.LockstepError]]] = {
    kind.reason: kind for kind in CODES if kind is not errors.LockstepError
}

_CLASS_WITHOUT_INFO: Final[Mapping[grpc.StatusCode, type[errors.LockstepError]]] = {
    # What gRPC itself, or a proxy, answers in place of a server of ours.
    _Code.UNAVAILABLE: errors.ConnectionFailed,
    _Code.DEADLINE_EXCEEDED: errors.OperationTimeout,
    # The call was broken off; whether it had an effect is not known.
    _Code.CANCELLED: errors.OperationTimeout,
    _Code.RESOURCE_EXHAUSTED: errors.Exhausted,
    _Code.INVALID_ARGUMENT: errors.InvalidRequest,
    _Code.OUT_OF_RANGE: errors.InvalidRequest,
    _Code.UNAUTHENTICATED: errors.InvalidRequest,
    _Code.PERMISSION_DENIED: errors.InvalidRequest,
    _Code.UNIMPLEMENTED: errors.SettingNotAvailable,
    _Code.FAILED_PRECONDITION: errors.InvalidOperation,
    _Code.NOT_FOUND: errors.NotFound,
    _Code.ALREADY_EXISTS: errors.Conflict,
    _Code.ABORTED: errors.Conflict,
}


def code_of(error: errors.LockstepError) -> grpc.StatusCode:
    """Return the gRPC code of an error; a class without a row has the code of its nearest ancestor."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def to_status(error: errors.LockstepError) -> grpc.Status:
    """Return an error as the status that a servicer aborts with: `await context.abort_with_status(...)`.

    Carries ErrorInfo(reason, domain, details as metadata), and RetryInfo when the error has `retry_after_ms`.
    Text is cut so that all fits the 8 KiB of trailers that gRPC peers accept: the message at 1024 bytes, one
    detail at 512 bytes; details after the first 1536 bytes are left out.
    """
    info = ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=_bounded(error.details))
    status = Status(
        code=code_of(error).value[0], message=_cut(error.message, bytes_max=_MESSAGE_BYTES_MAX)
    )
    status.details.add().Pack(info)
    if error.retry_after_ms is not None:
        delay = Duration()
        delay.FromMilliseconds(error.retry_after_ms)
        status.details.add().Pack(RetryInfo(retry_delay=delay))
    result: grpc.Status = rpc_status.to_status(status)
    return result


def from_rpc_error(error: grpc.RpcError) -> errors.LockstepError:
    """Return the error that a failed call stands for; works for grpc and grpc.aio alike.

    By the reason in its ErrorInfo. A reason that this release does not know, and an answer without
    ErrorInfo (from gRPC itself or a proxy), become the nearest class for their gRPC code; the unknown
    reason is then kept in `details["reason"]`. Never raises.
    """
    # A synchronous call may raise a bare RpcError, which has no code.
    code = error.code() if hasattr(error, "code") else None
    text = (error.details() if hasattr(error, "details") else None) or str(code or error)
    info, retry_after_ms = _read_details(error)
    if info is not None and info.reason in _CLASS_BY_REASON:
        kind = _CLASS_BY_REASON[info.reason]
        return kind(text, details=info.metadata, retry_after_ms=retry_after_ms)
    fallback = errors.InternalError if code is None else _class_for(code)
    details = {"grpc_code": "UNKNOWN" if code is None else code.name}
    if info is not None:
        details |= {**info.metadata, "reason": info.reason}
    elif code is grpc.StatusCode.UNIMPLEMENTED:
        text = f"What answers there is no Lockstep server, or one too old for this call ({text}). Check the address."
    return fallback(text, details=details, retry_after_ms=retry_after_ms)


def error_for_reason(
    reason: str, message: str, details: Mapping[str, str] | None = None
) -> errors.LockstepError:
    """Return the error that a stable reason names, for failures of single items of a batch.

    A reason that this release does not know becomes a plain LockstepError with `details["reason"]`.
    """
    kind = _CLASS_BY_REASON.get(reason)
    if kind is None:
        return errors.LockstepError(message, details={**(details or {}), "reason": reason})
    return kind(message, details=details)


def _class_for(code: grpc.StatusCode) -> type[errors.LockstepError]:
    return _CLASS_WITHOUT_INFO.get(code, errors.InternalError)


def _read_details(error: grpc.RpcError) -> tuple[ErrorInfo | None, int | None]:
    """Read our ErrorInfo and the advised delay, in ms, from the trailers; damaged trailers count as absent."""
    info: ErrorInfo | None = None
    retry_after_ms: int | None = None
    trailers: Any = error.trailing_metadata() if hasattr(error, "trailing_metadata") else None
    for key, value in trailers or ():
        if key != DETAILS_METADATA_KEY or not isinstance(value, bytes):
            continue
        try:
            for detail in Status.FromString(value).details:
                if detail.type_url.endswith("/google.rpc.ErrorInfo"):
                    candidate = ErrorInfo.FromString(detail.value)
                    info = candidate if candidate.domain == DOMAIN else info
                elif detail.type_url.endswith("/google.rpc.RetryInfo"):
                    delay = RetryInfo.FromString(detail.value).retry_delay
                    retry_after_ms = delay.ToMilliseconds()
        except DecodeError:
            continue
    return info, retry_after_ms


def _bounded(details: Mapping[str, str]) -> dict[str, str]:
    kept: dict[str, str] = {}
    room = _DETAILS_BYTES_MAX
    for key, value in details.items():
        short = _cut(value, bytes_max=_DETAIL_VALUE_BYTES_MAX)
        room -= len(key.encode()) + len(short.encode(errors="replace"))
        if room < 0:
            break
        kept[key] = short
    return kept


def _cut(text: str, *, bytes_max: int) -> str:
    # Lone surrogates cannot travel in protobuf strings, so they become "?" here.
    data = text.encode(errors="replace")
    if len(data) <= bytes_max:
        return data.decode()
    return data[: bytes_max - 3].decode(errors="ignore") + "…"
