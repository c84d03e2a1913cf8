"""Lockstep: a message broker with real session locks, for Kubernetes.

Here belong the names of the blocking client; `lockstep.aio` has the same for asyncio, and
`lockstep.errors` what both raise. Never here: code. The law: importing this, or a part of it such as
`lockstep.core`, loads no client and no gRPC; a name is loaded when it is first used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lockstep.client.batch import MessageBatch
    from lockstep.client.blocking.administration import AdministrationClient
    from lockstep.client.blocking.client import LockstepClient
    from lockstep.client.blocking.receiver import QueueReceiver
    from lockstep.client.blocking.renewer import AutoLockRenewer
    from lockstep.client.blocking.sender import QueueSender
    from lockstep.client.blocking.session import Session
    from lockstep.client.message import Message
    from lockstep.client.queue_properties import (
        AcceptNext,
        EntityStatus,
        Placement,
        QueueProperties,
        QueueRuntimeProperties,
        QueueSettings,
        SessionExpiry,
        SessionLockExtension,
        SessionProperties,
    )
    from lockstep.client.received import ReceivedMessage, SettlementFailure
    from lockstep.client.values import (
        NEXT_AVAILABLE_SESSION,
        NextAvailableSession,
        PropertyValue,
        ReceiveMode,
        SubQueue,
    )

__all__ = [
    "NEXT_AVAILABLE_SESSION",
    "AcceptNext",
    "AdministrationClient",
    "AutoLockRenewer",
    "EntityStatus",
    "LockstepClient",
    "Message",
    "MessageBatch",
    "NextAvailableSession",
    "Placement",
    "PropertyValue",
    "QueueProperties",
    "QueueReceiver",
    "QueueRuntimeProperties",
    "QueueSender",
    "QueueSettings",
    "ReceiveMode",
    "ReceivedMessage",
    "Session",
    "SessionExpiry",
    "SessionLockExtension",
    "SessionProperties",
    "SettlementFailure",
    "SubQueue",
]

_NAMES_OF_MODULES = {
    "batch": "MessageBatch",
    "blocking.administration": "AdministrationClient",
    "blocking.client": "LockstepClient",
    "blocking.receiver": "QueueReceiver",
    "blocking.renewer": "AutoLockRenewer",
    "blocking.sender": "QueueSender",
    "blocking.session": "Session",
    "message": "Message",
    "queue_properties": "AcceptNext EntityStatus Placement QueueProperties QueueRuntimeProperties"
    " QueueSettings SessionExpiry SessionLockExtension SessionProperties",
    "received": "ReceivedMessage SettlementFailure",
    "values": "NEXT_AVAILABLE_SESSION NextAvailableSession PropertyValue ReceiveMode SubQueue",
}
_MODULE_OF_NAME = {
    name: module for module, names in _NAMES_OF_MODULES.items() for name in names.split()
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module 'lockstep' has no attribute {name!r}")
    return getattr(import_module(f"lockstep.client.{_MODULE_OF_NAME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
