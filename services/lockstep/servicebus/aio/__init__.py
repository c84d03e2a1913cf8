"""The names of `azure.servicebus.aio`, over Lockstep.

Here belong names only. Never here: code. The law: what `azure.servicebus.aio` has is here too.
"""

from lockstep.servicebus.aio.client import ServiceBusClient
from lockstep.servicebus.aio.receiver import ServiceBusReceiver
from lockstep.servicebus.aio.renewer import AutoLockRenewer
from lockstep.servicebus.aio.sender import ServiceBusSender
from lockstep.servicebus.aio.session import ServiceBusSession

__all__ = [
    "AutoLockRenewer",
    "ServiceBusClient",
    "ServiceBusReceiver",
    "ServiceBusSender",
    "ServiceBusSession",
]
