"""The names of `azure.servicebus.aio.management`, over Lockstep.

Here belong names only. Never here: code. The law: what `azure.servicebus.aio.management` has is here too.
"""

from lockstep.servicebus.aio.management.client import ServiceBusAdministrationClient

__all__ = ["ServiceBusAdministrationClient"]
