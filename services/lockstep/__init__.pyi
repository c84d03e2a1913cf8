from lockstep.client.batch import MessageBatch
from lockstep.client.blocking.administration import AdministrationClient
from lockstep.client.blocking.client import LockstepClient
from lockstep.client.blocking.processor import ProcessorContext, QueueProcessor
from lockstep.client.blocking.receiver import QueueReceiver
from lockstep.client.blocking.renewer import AutoLockRenewer
from lockstep.client.blocking.requester import QueueRequester
from lockstep.client.blocking.sender import QueueSender
from lockstep.client.blocking.session import Session
from lockstep.client.blocking.stream import QueueStream
from lockstep.client.dead_letter_jobs import (
    DeadLetterJob,
    DeadLetterJobKind,
    DeadLetterJobStatus,
    DeadLetterSelector,
)
from lockstep.client.message import Message
from lockstep.client.processing import FailureSource, ProcessingFailure
from lockstep.client.queue_properties import (
    AcceptNext,
    EntityStatus,
    Placement,
    QueueManager,
    QueueProperties,
    QueueRuntimeProperties,
    QueueSettings,
    SessionExpiry,
    SessionLockExtension,
    SessionProperties,
)
from lockstep.client.received import ReceivedMessage, SettlementFailure
from lockstep.client.seeing import DeliveryCause, DeliveryExplanation, SessionFilter
from lockstep.client.sending import SequenceNumbers
from lockstep.client.turning import KEEP_STATE, KeepState, TurnResult
from lockstep.client.values import (
    NEXT_AVAILABLE_SESSION,
    MessageState,
    NextAvailableSession,
    PropertyValue,
    ReceiveMode,
    SubQueue,
)

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
