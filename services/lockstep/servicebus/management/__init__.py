"""The names of `azure.servicebus.management`, over Lockstep.

Here belong names only. Never here: code. The law: there are queues; what Azure has beside them is refused by name.
"""

from lockstep.servicebus.management.client import ServiceBusAdministrationClient
from lockstep.servicebus.management.queue_properties import (
    EntityAvailabilityStatus,
    EntityStatus,
    QueueProperties,
    QueueRuntimeProperties,
)

__all__ = [
    "EntityAvailabilityStatus",
    "EntityStatus",
    "QueueProperties",
    "QueueRuntimeProperties",
    "ServiceBusAdministrationClient",
]
