"""Every error that Lockstep raises.

Here belong the classes, each with its stable reason. Never here: how an error travels (`wire.status`)
or how often a caller retries (`client.retry`). The law: the family of an error is what the caller does
next, and `reason` never changes once it was released.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class LockstepError(Exception):
    """The root of all errors of Lockstep.

    Attributes:
        reason: The stable name of what went wrong, in UPPER_SNAKE.
        message: What happened and what to do about it, for a person.
        details: Facts for programs, text to text: the limit, the value seen, who holds the lock, since when.
        retry_after_ms: How long the caller should wait before it tries again; None = no advice.
    """

    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        details: Mapping[str, str] | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, str] = dict(details or {})
        self.retry_after_ms = retry_after_ms


class InternalError(LockstepError):
    """A bug of ours, or damaged data. The partition that met it has stopped. Report it; do not retry."""

    reason = "INTERNAL"


class InvalidRequest(LockstepError):
    """The request itself is wrong and will be wrong again. Change it."""

    reason = "INVALID_ARGUMENT"


class LimitExceeded(InvalidRequest):
    """A value is over a limit of the product; details name limit, configured and observed (LIM-1)."""

    reason = "LIMIT_EXCEEDED"


class MessageSizeExceeded(InvalidRequest):
    """A message, a batch or a session state is too large; what was there before is unchanged."""

    reason = "MESSAGE_SIZE_EXCEEDED"


class SettingNotAvailable(InvalidRequest):
    """A setting, or a property of a message, whose behaviour this release does not have yet."""

    reason = "NOT_AVAILABLE"


class InvalidOperation(InvalidRequest):
    """The call does not fit the kind of entity: session use on a plain queue, or the reverse (RCV-3, SND-8)."""

    reason = "INVALID_OPERATION"


class NotFound(LockstepError):
    """Something that the request names does not exist."""

    reason = "NOT_FOUND"


class EntityNotFound(NotFound):
    """The entity does not exist, or was deleted. Check its path; create it first."""

    reason = "ENTITY_NOT_FOUND"


class JobNotFound(NotFound):
    """The queue has no such job, or has forgotten it."""

    reason = "JOB_NOT_FOUND"


class MessageNotFound(NotFound):
    """A deferred or scheduled message is not there (DEF-2, SCH-5); nothing was done to the others either."""

    reason = "MESSAGE_NOT_FOUND"


class Conflict(LockstepError):
    """The request was fine but lost to what others did. Look at the state, then decide."""

    reason = "CONFLICT"


class EntityAlreadyExists(Conflict):
    """An entity of this name exists (ENT-7)."""

    reason = "ENTITY_ALREADY_EXISTS"


class RevisionConflict(Conflict):
    """The definition changed since it was read."""

    reason = "REVISION_CONFLICT"


class EntityManaged(Conflict):
    """Another object keeps this definition, of a Kubernetes cluster for example. Change it there, or take it over."""

    reason = "ENTITY_MANAGED"


class EntityNotEmpty(Conflict):
    """The entity holds messages, dead letters or session states, and was to be deleted only if not (ADD-13)."""

    reason = "ENTITY_NOT_EMPTY"


class StateConflict(Conflict):
    """The session state changed since it was read (ADD-7); details name the current version."""

    reason = "STATE_CONFLICT"


class EntityDisabled(Conflict):
    """The status of the entity forbids the call (section 16.1). Try again when it is active."""

    reason = "ENTITY_DISABLED"


class SessionCannotBeLocked(Conflict):
    """Another receiver holds the session (SES-8). Try later, or another session."""

    reason = "SESSION_CANNOT_BE_LOCKED"


class SessionLockLost(Conflict):
    """The caller does not hold the session any more (SES-20); details say why. Accept it again."""

    reason = "SESSION_LOCK_LOST"


class MessageLockLost(Conflict):
    """The lock of a message is gone, or it was settled already (LCK-3). It comes again if it was not settled."""

    reason = "MESSAGE_LOCK_LOST"


class RequestIdReused(Conflict):
    """A request id came again with another payload (ADD-3). A client must never do that."""

    reason = "REQUEST_ID_REUSED"


class RequestIdExpired(Conflict):
    """A request id is older than what is remembered; whether it had an effect is not known (ADD-3)."""

    reason = "REQUEST_ID_EXPIRED"


class RequestCancelled(Conflict):
    """The caller cancelled this request before it arrived; it had no effect."""

    reason = "REQUEST_CANCELLED"


class NoSessionAvailable(LockstepError):
    """No session became available in the time the caller gave (SES-9). The normal sign of an idle queue."""

    reason = "NO_SESSION_AVAILABLE"


class OperationTimeout(LockstepError):
    """No answer came in time; whether the call had an effect is not known (SND-15)."""

    reason = "OPERATION_TIMEOUT"


class Moved(LockstepError):
    """This process does not own the partition any more. Ask the directory again, then retry."""

    reason = "PARTITION_MOVED"


class Fenced(Moved):
    """A later owner opened the partition; nothing of the commit was stored."""

    reason = "FENCED"


class Misplaced(Moved):
    """The entity has another placement than the front end took it to have; nothing was done. Never told to clients.

    The detail "placement" says which one it has.
    """

    reason = "MISPLACED"


class ShareUsed(Moved):
    """This partition may take no more of the queue until its quota is shared out again. Nothing was done (ADD-1)."""

    reason = "SHARE_USED"


class Exhausted(LockstepError):
    """A quota is used up. Free something, or raise it."""

    reason = "EXHAUSTED"


class QuotaExceeded(Exhausted):
    """An entity, or a partition's memory, is full for sends; receives and settlements continue (SND-11)."""

    reason = "QUOTA_EXCEEDED"


class Unavailable(LockstepError):
    """A part that is needed does not answer. Try again, with back-off."""

    reason = "UNAVAILABLE"


class ServerBusy(Unavailable):
    """Too much is waiting; refused without effect (ADD-14). Wait `retry_after_ms`, then retry."""

    reason = "SERVER_BUSY"


class StoreUnavailable(Unavailable):
    """The store failed; whether the commit happened is not known. The partition reopens."""

    reason = "STORE_UNAVAILABLE"


class ClusterUnavailable(Unavailable):
    """No process owns the partition, or etcd does not answer; nothing was done. Try again."""

    reason = "CLUSTER_UNAVAILABLE"


class ShuttingDown(Unavailable):
    """This process is stopping. Retry; another one, or its successor, will answer."""

    reason = "SHUTTING_DOWN"


class ConnectionFailed(Unavailable):
    """The server could not be reached. Check the address and the network, then retry."""

    reason = "CONNECTION_FAILED"


class StoreRefused(LockstepError):
    """The store is damaged, of a newer version, or not ours. Nothing was written to it."""

    reason = "STORE_REFUSED"


class MessageAlreadySettled(InvalidRequest, ValueError):
    """The application settled this message before; found by the client, no call was made (LCK-3)."""

    reason = "MESSAGE_ALREADY_SETTLED"


class ClientClosed(InvalidRequest, ValueError):
    """The client, sender or receiver was closed; found by the client, no call was made (LCK-6)."""

    reason = "CLIENT_CLOSED"
