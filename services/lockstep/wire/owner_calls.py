"""Between the core's commands and replies and the bytes that front ends and owners exchange.

Here belongs the encoding of both, MessagePack by the types of their fields. Never here: who sends them. The laws: the
bytes of messages are copied, never decoded; a field that the other side does not know is left out, and one that it does
not send has its default, so that releases that follow each other understand each other.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from lockstep.core import commands, replies
from lockstep.core.amendments import Amendment
from lockstep.core.commands import Command
from lockstep.core.errors import InternalError, LockstepError
from lockstep.core.ids import EntityNumber, GrantNumber
from lockstep.core.replies import Browsed, DeadLetterInfo, Delivered, Reply, Short
from lockstep.wire.status import error_for_reason

_COMMANDS: Final[tuple[type[Any], ...]] = (
    commands.Accept,
    commands.ApplyDefinition,
    commands.ApplyDefinitions,
    commands.ApplyDeletion,
    commands.ApplyJobPart,
    commands.BreakLock,
    commands.Browse,
    commands.Cancel,
    commands.CancelJob,
    commands.CancelScheduled,
    commands.CheckSend,
    commands.ClearStates,
    commands.CreateQueue,
    commands.DeleteQueue,
    commands.Disconnect,
    commands.EndJob,
    commands.Explain,
    commands.FindRequest,
    commands.ForgetIdle,
    commands.FreezeShare,
    commands.GetRevision,
    commands.GetRuntime,
    commands.GetSession,
    commands.GetState,
    commands.GrantShare,
    commands.ListDefinitions,
    commands.ListIdle,
    commands.ListJobs,
    commands.ListOpenJobs,
    commands.ListRuntimes,
    commands.ListSessions,
    commands.Receive,
    commands.ReceiveDeferred,
    commands.ReleaseSession,
    commands.RenewMessages,
    commands.RenewSession,
    commands.SealIdle,
    commands.Send,
    commands.SetState,
    commands.Settle,
    commands.StartJob,
    commands.TakeTransfer,
    commands.TakeTurn,
    commands.Unseal,
    commands.UpdateQueue,
)
_REPLIES: Final[tuple[type[Any], ...]] = (
    replies.Accepted,
    replies.Applied,
    replies.Browsed,
    replies.Cancelled,
    replies.Catalogued,
    replies.Definitions,
    replies.Delivered,
    replies.Explained,
    replies.IdleAre,
    replies.IdleIs,
    replies.JobIs,
    replies.JobsAre,
    replies.LockBroken,
    replies.OpenJobs,
    replies.Released,
    replies.RequestFound,
    replies.Renewed,
    replies.Runtime,
    replies.Runtimes,
    replies.ScheduleCancelled,
    replies.SendChecked,
    replies.Sent,
    replies.SessionViews,
    replies.Settled,
    replies.ShareIs,
    replies.StateIs,
    replies.StateSet,
    replies.StatesCleared,
    replies.TransferTaken,
    replies.TurnTaken,
    replies.Uncatalogued,
)
_BY_NAME: Final[Mapping[str, type[Any]]] = {kind.__name__: kind for kind in (*_COMMANDS, *_REPLIES)}

_decoders: dict[type[Any], Callable[[bytes], Any]] = {}  # filled as kinds come


class _Columns(msgspec.Struct, array_like=True):
    """Delivered messages, with the columns that an answer needs as bytes of native 64-bit numbers."""

    entity: int
    grant: int
    size_bytes: int
    sequences: bytes
    enqueued_ms: bytes
    counts: tuple[int, ...]
    locked_until_ms: int
    short: Short
    dead_letters: tuple[DeadLetterInfo, ...]
    expires_ms: tuple[int, ...]
    is_final: bool
    amendments: tuple[tuple[int, Amendment], ...]


class _Browsed(msgspec.Struct, array_like=True):
    delivered: _Columns
    scheduled: tuple[int, ...]
    deferred: tuple[int, ...]
    has_more: bool


class _Failure(msgspec.Struct, array_like=True):
    reason: str
    message: str
    details: dict[str, str]
    retry_after_ms: int | None


def is_remote(command: Command) -> bool:
    """Whether a command may come from another process."""
    return type(command) in _COMMANDS


def encode_command(command: Command) -> tuple[str, bytes]:
    """Return the name of a command and its fields."""
    name = type(command).__name__
    if name not in _BY_NAME:
        raise InternalError(f"{name} is a command of an owner's own. Report this.")
    return name, _encoder().encode(command)


def decode_command(name: str, fields: bytes) -> Command:
    """Return a command.

    Raises:
        InternalError: This release has no such command, or its fields are damaged.
    """
    kind = _BY_NAME.get(name)
    if kind not in _COMMANDS:
        raise InternalError(f"This release knows no command {name!r}. Update the owners first.")
    command: Command = _decoded(kind, fields)
    return command


def encode_reply(reply: Reply) -> tuple[str, bytes]:
    """Return the name of a reply and its fields."""
    name = type(reply).__name__
    if name not in _BY_NAME:
        raise InternalError(f"{name} is a reply of an owner's own. Report this.")
    return name, _encoder().encode(_shown(reply))


def decode_reply(name: str, fields: bytes) -> Reply:
    """Return a reply.

    Raises:
        InternalError: This release has no such reply, or its fields are damaged.
    """
    kind = _BY_NAME.get(name)
    if kind not in _REPLIES:
        raise InternalError(f"This release knows no reply {name!r}. Update the front ends too.")
    if kind is Delivered:
        return _delivered(_decoded(_Columns, fields))
    if kind is Browsed:
        seen = _decoded(_Browsed, fields)
        return Browsed(_delivered(seen.delivered), seen.scheduled, seen.deferred, seen.has_more)
    reply: Reply = _decoded(kind, fields)
    return reply


def _shown(reply: Reply) -> object:
    match reply:
        case Delivered():
            return _columns(reply)
        case Browsed(delivered=delivered):
            return _Browsed(_columns(delivered), reply.scheduled, reply.deferred, reply.has_more)
        case _:
            return reply


def _columns(reply: Delivered) -> _Columns:
    return _Columns(
        reply.entity,
        reply.grant,
        reply.size_bytes,
        _column(reply.sequences),
        _column(reply.enqueued_ms),
        reply.counts,
        reply.locked_until_ms,
        reply.short,
        reply.dead_letters,
        tuple(reply.expires_ms),
        reply.is_final,
        reply.amendments,
    )


def _delivered(columns: _Columns) -> Delivered:
    return Delivered(
        entity=EntityNumber(columns.entity),
        grant=GrantNumber(columns.grant),
        size_bytes=columns.size_bytes,
        sequences=array("q", columns.sequences),
        chunks=array("q"),
        places=array("q"),
        enqueued_ms=array("q", columns.enqueued_ms),
        counts=columns.counts,
        locked_until_ms=columns.locked_until_ms,
        short=columns.short,
        dead_letters=columns.dead_letters,
        expires_ms=columns.expires_ms,
        is_final=columns.is_final,
        amendments=columns.amendments,
    )


def _column(numbers: Sequence[int]) -> bytes:
    return array("q", numbers).tobytes()


@lru_cache(maxsize=1)
def _encoder() -> msgspec.msgpack.Encoder:
    return msgspec.msgpack.Encoder(enc_hook=_encode_other)


def _decoded(kind: type[Any], fields: bytes) -> Any:
    decode = _decoders.get(kind)
    if decode is None:
        decode = msgspec.msgpack.Decoder(kind, dec_hook=_decode_other).decode
        _decoders[kind] = decode
    try:
        return decode(fields)
    except msgspec.DecodeError as error:
        raise InternalError(
            f"The fields of {kind.__name__} cannot be read: {error}. Do all processes run the same release?"
        ) from error


def _encode_other(value: object) -> object:
    match value:
        case array() | range():
            return list(value)
        case LockstepError():
            return _Failure(value.reason, value.message, dict(value.details), value.retry_after_ms)
        case _:
            raise NotImplementedError(f"{type(value).__name__} has no encoding")


def _decode_other(kind: type[Any], value: Any) -> object:
    if issubclass(kind, LockstepError):
        failure = msgspec.convert(value, _Failure)
        error = error_for_reason(failure.reason, failure.message, failure.details)
        error.retry_after_ms = failure.retry_after_ms
        return error
    raise NotImplementedError(f"{kind} has no encoding")
