"""Lockstep: a message broker with real session locks, for Kubernetes.

Here belong the names of the blocking client; `lockstep.aio` has the same for asyncio, and
`lockstep.errors` what both raise. Never here: code. The law: importing this, or a part of it such as
`lockstep.core`, loads no client and no gRPC; a name is loaded when it is first used (PEP 562). Type
checkers read `__init__.pyi`.
"""

from lockstep.client.names import __dir__ as __dir__
from lockstep.client.names import __getattr__ as __getattr__

__all__ = [
    "KEEP_STATE",
    "NEXT_AVAILABLE_SESSION",
    "AcceptNext",
    "AdministrationClient",
    "AutoLockRenewer",
    "DeadLetterJob",
    "DeadLetterJobKind",
    "DeadLetterJobStatus",
    "DeadLetterSelector",
    "DeliveryCause",
    "DeliveryExplanation",
    "EntityStatus",
    "FailureSource",
    "KeepState",
    "LockstepClient",
    "Message",
    "MessageBatch",
    "MessageState",
    "NextAvailableSession",
    "Placement",
    "ProcessingFailure",
    "ProcessorContext",
    "PropertyValue",
    "QueueManager",
    "QueueProcessor",
    "QueueProperties",
    "QueueReceiver",
    "QueueRequester",
    "QueueRuntimeProperties",
    "QueueSender",
    "QueueSettings",
    "QueueStream",
    "ReceiveMode",
    "ReceivedMessage",
    "SequenceNumbers",
    "Session",
    "SessionExpiry",
    "SessionFilter",
    "SessionLockExtension",
    "SessionProperties",
    "SettlementFailure",
    "SubQueue",
    "TurnResult",
]
