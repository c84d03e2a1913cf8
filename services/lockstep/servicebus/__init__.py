"""The names of azure-servicebus, over Lockstep: a program written for it runs when its import is changed.

Here belong names only; `lockstep.servicebus.aio` has the same for asyncio, `.management` administration, `.exceptions`
the errors. Never here: code. The law: what Lockstep lacks raises NotImplementedError and names it; nothing of it is
silently left out. `docs/coming-from-azure.md` goes through the differences.
"""

from lockstep.servicebus.batch import ServiceBusMessageBatch
from lockstep.servicebus.client import ServiceBusClient
from lockstep.servicebus.connection_string import (
    ServiceBusConnectionStringProperties,
    parse_connection_string,
)
from lockstep.servicebus.constants import (
    NEXT_AVAILABLE_SESSION,
    ServiceBusMessageState,
    ServiceBusReceiveMode,
    ServiceBusSessionFilter,
    ServiceBusSubQueue,
    TransportType,
)
from lockstep.servicebus.message import ServiceBusMessage, ServiceBusReceivedMessage
from lockstep.servicebus.receiver import ServiceBusReceiver
from lockstep.servicebus.renewer import AutoLockRenewer
from lockstep.servicebus.sender import ServiceBusSender
from lockstep.servicebus.session import ServiceBusSession

__all__ = [
    "NEXT_AVAILABLE_SESSION",
    "AutoLockRenewer",
    "ServiceBusClient",
    "ServiceBusConnectionStringProperties",
    "ServiceBusMessage",
    "ServiceBusMessageBatch",
    "ServiceBusMessageState",
    "ServiceBusReceiveMode",
    "ServiceBusReceivedMessage",
    "ServiceBusReceiver",
    "ServiceBusSender",
    "ServiceBusSession",
    "ServiceBusSessionFilter",
    "ServiceBusSubQueue",
    "TransportType",
    "parse_connection_string",
]
