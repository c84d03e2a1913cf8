"""Which module has which public name of the blocking client.

Here belongs the table, and how a name is loaded when it is first used (PEP 562). Never here: imports of
the client. The law: what `lockstep.__all__` names is here, and a test says so.
"""

from __future__ import annotations

from importlib import import_module

_NAMES_OF_MODULES = {
    "batch": "MessageBatch",
    "blocking.administration": "AdministrationClient",
    "blocking.client": "LockstepClient",
    "blocking.processor": "ProcessorContext QueueProcessor",
    "blocking.receiver": "QueueReceiver",
    "blocking.renewer": "AutoLockRenewer",
    "blocking.requester": "QueueRequester",
    "blocking.sender": "QueueSender",
    "blocking.session": "Session",
    "blocking.stream": "QueueStream",
    "dead_letter_jobs": "DeadLetterJob DeadLetterJobKind DeadLetterJobStatus DeadLetterSelector",
    "message": "Message",
    "processing": "FailureSource ProcessingFailure",
    "queue_properties": "AcceptNext EntityStatus Placement QueueManager QueueProperties"
    " QueueRuntimeProperties QueueSettings SessionExpiry SessionLockExtension SessionProperties",
    "received": "ReceivedMessage SettlementFailure",
    "seeing": "DeliveryCause DeliveryExplanation SessionFilter",
    "sending": "SequenceNumbers",
    "turning": "KEEP_STATE KeepState TurnResult",
    "values": "NEXT_AVAILABLE_SESSION MessageState NextAvailableSession PropertyValue ReceiveMode"
    " SubQueue",
}
_MODULE_OF_NAME = {
    name: module for module, names in _NAMES_OF_MODULES.items() for name in names.split()
}


def __getattr__(name: str) -> object:
    """Load a public name of `lockstep`.

    Raises:
        AttributeError: There is no such name.
    """
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module 'lockstep' has no attribute {name!r}")
    return getattr(import_module(f"lockstep.client.{_MODULE_OF_NAME[name]}"), name)


def __dir__() -> list[str]:
    """Name what `lockstep` has, for completion."""
    return sorted(_MODULE_OF_NAME)
