"""The choices of azure-servicebus, with its values.

Here belong the enumerations. Never here: what they do. The law: a value may be given in any case, as there.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Final, Literal, Self


class _AnyCase(StrEnum):
    """A choice that may also be given by its value in any case."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        return next((choice for choice in cls if choice.value.lower() == value.lower()), None)


class ServiceBusReceiveMode(_AnyCase):
    """Whether messages are locked, or gone, when they were received."""

    PEEK_LOCK = "peeklock"
    RECEIVE_AND_DELETE = "receiveanddelete"


class ServiceBusSubQueue(_AnyCase):
    """A store beside the queue proper; there is no transfer dead-letter store."""

    DEAD_LETTER = "deadletter"
    TRANSFER_DEAD_LETTER = "transferdeadletter"


class ServiceBusMessageState(int, Enum):
    """What state a message is in."""

    ACTIVE = 0
    DEFERRED = 1
    SCHEDULED = 2


class ServiceBusSessionFilter(Enum):
    """Which session a receiver wants when it names none."""

    NEXT_AVAILABLE = 0


NEXT_AVAILABLE_SESSION: Final = ServiceBusSessionFilter.NEXT_AVAILABLE
"""Asks for any session that has messages and that nobody holds."""
NextAvailableSession = Literal[ServiceBusSessionFilter.NEXT_AVAILABLE]


class TransportType(Enum):
    """Accepted, without effect: there is one transport, gRPC."""

    Amqp = 1
    AmqpOverWebsocket = 2
