"""Clients that use the broker as programs do: they hold sessions, receive, settle, and go on from what they got."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import dead_letter_job_pb2, entity_pb2, message_pb2, session_pb2
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.fuzz import values
from tests.fuzz.knowledge import Knowledge

_SESSIONS = ("", "a", "b", "c", "🙂")
_OUTCOMES = ("complete", "complete", "abandon", "release", "dead_letter", "defer")
_KEPT = 20
_DEAD_LETTERS = "/$DeadLetterQueue"

SESSION_QUEUES: dict[str, dict[str, Any]] = {
    "sessions": {},
    "recalling": {"recall_on_abandon": True},
    "brief": {
        "default_message_time_to_live": Duration(seconds=20),
        "dead_lettering_on_message_expiration": True,
        "lock_duration": Duration(seconds=5),
        "max_delivery_count": 2,
    },
    "once": {
        "requires_duplicate_detection": True,
        "session_lock_extension": entity_pb2.SESSION_LOCK_EXTENSION_OFF,
    },
    "single/expiry": {
        "default_message_time_to_live": Duration(seconds=60),
        "session_expiry": entity_pb2.SESSION_EXPIRY_PER_MESSAGE,
    },
}
PLAIN_QUEUES: dict[str, dict[str, Any]] = {
    "plain": {},
    "small": {"max_size_in_megabytes": 1, "max_delivery_count": 1},
    "known": {
        "requires_duplicate_detection": True,
        "duplicate_detection_history_time_window": Duration(seconds=20),
        "default_message_time_to_live": Duration(seconds=60),
        "dead_lettering_on_message_expiration": True,
    },
}
_STATUSES = (
    entity_pb2.ENTITY_STATUS_ACTIVE,
    entity_pb2.ENTITY_STATUS_ACTIVE,
    entity_pb2.ENTITY_STATUS_RECEIVE_DISABLED,
)
_JOBS = (
    dead_letter_job_pb2.DEAD_LETTER_JOB_KIND_RESUBMIT,
    dead_letter_job_pb2.DEAD_LETTER_JOB_KIND_RESUBMIT,
    dead_letter_job_pb2.DEAD_LETTER_JOB_KIND_PURGE,
    dead_letter_job_pb2.DEAD_LETTER_JOB_KIND_MOVE,
    dead_letter_job_pb2.DEAD_LETTER_JOB_KIND_DEAD_LETTER_SESSION,
)
_Known = TypeVar("_Known")
_Make = Callable[["Player"], Message | None]


def queues() -> list[Message]:
    """Return the requests that make the queues of all players."""
    return [
        admin.CreateQueueRequest(
            name=name,
            settings=entity_pb2.QueueSettings(**settings, requires_session=name in SESSION_QUEUES),
        )
        for name, settings in (SESSION_QUEUES | PLAIN_QUEUES).items()
    ]


class Player:
    """One client: what it holds, and what it does next."""

    def __init__(
        self, name: str, random: Random, knowledge: Knowledge, now_ms: Callable[[], int]
    ) -> None:
        self.name = name
        self._random = random
        self._knowledge = knowledge
        self._now_ms = now_ms
        # What is held: the queue and the lock.
        self._held: list[tuple[str, session_pb2.SessionLock]] = []
        # What was delivered: the entity, the lock of its session if any, the numbers, the prefix of the tokens.
        self._delivered: list[tuple[str, session_pb2.SessionLock | None, list[int], bytes]] = []
        self._scheduled: list[tuple[str, int]] = []
        self._deferred: list[tuple[str, session_pb2.SessionLock | None, list[int]]] = []

    def next(self) -> Message:
        """Return the next request."""
        while True:
            request = self._random.choice(_ACTIONS)(self)
            if request is not None:
                return self._with_id(request)

    def _with_id(self, request: Any) -> Message:
        has_ids = "request_id" in request.DESCRIPTOR.fields_by_name
        if has_ids and not request.HasField("request_id") and self._random.random() < 0.7:
            request.request_id.CopyFrom(self._knowledge.next_request_id(self.name))
        return request  # type: ignore[no-any-return]  # a message of any kind

    def learn(self, request: Any, response: Any) -> None:
        """Note what an answered call of this player gave it."""
        match response:
            case messaging.AcceptSessionResponse():
                self._held = [*self._held[-_KEPT:], (request.entity, response.session)]
            case messaging.ReceiveMessagesResponse() | messaging.ReceiveDeferredMessagesResponse():
                self._note_delivered(request, response)
            case messaging.SendMessagesResponse():
                for number, one in zip(response.sequence_numbers, request.messages, strict=True):
                    if one.HasField("scheduled_enqueue_time"):
                        self._scheduled = [*self._scheduled[-_KEPT:], (request.entity, number)]
            case messaging.SettleMessagesResponse():
                self._forget_settled(request)
            case _:
                pass

    def _forget_settled(self, request: Any) -> None:
        settled = {number for one in request.settlements for number in one.sequence_numbers}
        tokens = {token for one in request.settlements for token in one.lock_tokens}
        kept = []
        for entity, lock, numbers, prefix in self._delivered:
            left = [n for n in numbers if prefix + n.to_bytes(8, "big") not in tokens]
            if entity == request.entity:
                left = [number for number in left if number not in settled]
            if left:
                kept.append((entity, lock, left, prefix))
        self._delivered = kept

    def _note_delivered(self, request: Any, response: Any) -> None:
        if response.messages and response.lock_token_prefix:
            lock = request.session if request.HasField("session") else None
            numbers, prefix = list(response.sequence_numbers), response.lock_token_prefix
            self._delivered = [
                *self._delivered[-_KEPT:],
                (request.entity, lock, numbers, prefix),
            ]

    def _one_of(self, known: list[_Known]) -> _Known:
        """Return one of what is known, mostly the newest: the older, the more of it is over."""
        return known[-1] if self._random.random() < 0.7 else self._random.choice(known)

    # --- what it does ------------------------------------------------------------------------------

    def _wait(self) -> Duration:
        return Duration(seconds=self._random.choice((0, 0, 0, 1, 30)))

    def _queue(self) -> str:
        return self._random.choice((*SESSION_QUEUES, *SESSION_QUEUES, *PLAIN_QUEUES))

    def _send(self) -> Message:
        queue, random = self._queue(), self._random
        made = []
        for _ in range(random.choice((1, 1, 2, 5, 20))):
            one = message_pb2.Message(body=values.data(random)[:20_000])
            if queue in SESSION_QUEUES or random.random() < 0.1:
                one.session_id = random.choice(_SESSIONS)
            if random.random() < 0.3:
                one.message_id = f"m{random.randrange(8)}"
            if random.random() < 0.15:
                at_s = self._now_ms() // 1000 + random.choice((1, 10, 60, 3600))
                one.scheduled_enqueue_time.FromSeconds(at_s)
            if random.random() < 0.15:
                one.time_to_live.FromSeconds(random.choice((1, 5, 60, 3600)))
            made.append(one)
        return messaging.SendMessagesRequest(entity=queue, messages=made)

    def _accept(self) -> Message:
        request = messaging.AcceptSessionRequest(
            entity=self._random.choice((*SESSION_QUEUES,)),
            max_wait=self._wait(),
            holder_client_id=self.name,
        )
        if self._random.random() < 0.5:
            request.session_id = self._random.choice(_SESSIONS)
        return request

    def _receive(self) -> Message:
        random = self._random
        request = messaging.ReceiveMessagesRequest(
            max_messages=random.choice((1, 1, 3, 100)),
            max_wait=self._wait(),
            receiver_client_id=self.name,
        )
        if self._held and random.random() < 0.6:
            request.entity, lock = self._one_of(self._held)
            request.session.CopyFrom(lock)
        elif random.random() < 0.4:
            request.entity = self._queue() + _DEAD_LETTERS
        else:
            request.entity = random.choice((*PLAIN_QUEUES,))
        if random.random() < 0.1:
            request.mode = messaging.RECEIVE_MODE_RECEIVE_AND_DELETE
        return request

    def _receive_deferred(self) -> Message | None:
        if not self._deferred:
            return None
        entity, lock, numbers = self._one_of(self._deferred)
        return messaging.ReceiveDeferredMessagesRequest(
            entity=entity, session=lock, sequence_numbers=numbers
        )

    def _settle(self) -> Message | None:
        if not self._delivered:
            return None
        random = self._random
        entity, lock, numbers, prefix = self._one_of(self._delivered)
        some = random.sample(numbers, random.randint(1, len(numbers)))
        outcome = random.choice(_OUTCOMES)
        settlement = messaging.Settlement()
        getattr(settlement, outcome).SetInParent()
        self._add_details(settlement, outcome)
        if lock is not None and random.random() < 0.5:
            settlement.sequence_numbers.extend(some)
        else:
            settlement.lock_tokens.extend(prefix + one.to_bytes(8, "big") for one in some)
        if outcome == "defer":
            self._deferred = [*self._deferred[-_KEPT:], (entity, lock, some)]
        return messaging.SettleMessagesRequest(
            entity=entity, session=lock, settlements=[settlement]
        )

    def _add_details(self, settlement: messaging.Settlement, outcome: str) -> None:
        """Say more than the outcome: why, when again, with which properties."""
        random = self._random
        if outcome == "dead_letter":
            settlement.dead_letter.reason = values.text(random)[:4097]
        if outcome == "abandon" and random.random() < 0.3:
            settlement.abandon.delay.FromSeconds(random.choice((0, 1, 10, 60)))
        if outcome in ("abandon", "defer", "dead_letter") and random.random() < 0.3:
            name = random.choice(("a", "b", "DeadLetterReason"))
            getattr(settlement, outcome).properties[name].string_value = values.text(random)[:100]

    def _renew_messages(self) -> Message | None:
        if not self._delivered:
            return None
        entity, _, numbers, prefix = self._one_of(self._delivered)
        tokens = [prefix + one.to_bytes(8, "big") for one in numbers]
        return messaging.RenewMessageLocksRequest(entity=entity, lock_tokens=tokens)

    def _under_lock(self) -> Message | None:
        if not self._held:
            return None
        entity, lock = self._one_of(self._held)
        made: list[Message] = [
            messaging.RenewSessionLockRequest(entity=entity, session=lock),
            messaging.ReleaseSessionRequest(entity=entity, session=lock),
            messaging.GetSessionStateRequest(entity=entity, session=lock),
            messaging.SetSessionStateRequest(
                entity=entity, session=lock, value=values.data(self._random)
            ),
            messaging.SetSessionStateRequest(entity=entity, session=lock),
        ]
        return self._random.choice(made)

    def _cancel(self) -> Message | None:
        random = self._random
        if self._scheduled and random.random() < 0.5:
            entity, number = random.choice(self._scheduled)
            return messaging.CancelScheduledMessagesRequest(
                entity=entity, sequence_numbers=[number]
            )
        known = self._knowledge.message("lockstep.v1.RequestId")
        request: Any = messaging.CancelRequestRequest(entity=self._queue())
        if known is not None:
            request.request_id.CopyFrom(known)
        return request  # type: ignore[no-any-return]  # a message of one kind

    def _look(self) -> Message:
        random = self._random
        queue, session = self._queue(), random.choice(_SESSIONS)
        made: list[Message] = [
            messaging.PeekMessagesRequest(entity=queue, max_messages=10),
            messaging.PeekMessagesRequest(entity=queue + _DEAD_LETTERS, max_messages=10),
            messaging.PeekMessagesRequest(entity=queue, session_id=session, max_messages=3),
            admin.GetQueueRequest(name=queue),
            admin.ListQueuesRequest(page_size=random.choice((0, 1, 3))),
            admin.GetSessionRequest(queue=queue, session_id=session),
            admin.ListSessionsRequest(queue=queue, page_size=random.choice((0, 1, 3))),
        ]
        return random.choice(made)

    def _work_on_dead_letters(self) -> Message:
        random = self._random
        queue = self._queue()
        if random.random() < 0.2:
            return admin.ListDeadLetterJobsRequest(queue=queue)
        if random.random() < 0.1:
            return admin.CancelDeadLetterJobRequest(queue=queue, number=random.randint(1, 9))
        request = admin.StartDeadLetterJobRequest(queue=queue, requested_by=self.name)
        request.kind = random.choice(_JOBS)
        options = request.options
        options.messages_per_second = random.choice((0, 0, 1, 5))
        options.new_message_id = random.random() < 0.5
        options.dry_run = random.random() < 0.2
        if request.kind == dead_letter_job_pb2.DEAD_LETTER_JOB_KIND_MOVE:
            options.target = self._queue()
        if request.kind == dead_letter_job_pb2.DEAD_LETTER_JOB_KIND_DEAD_LETTER_SESSION:
            request.selector.session_id = random.choice(_SESSIONS)
        return request

    def _administer(self) -> Message | None:
        random = self._random
        queue = self._queue()
        if random.random() < 0.5:
            return admin.BreakSessionLockRequest(
                queue=queue, session_id=random.choice(_SESSIONS), requested_by=self.name
            )
        if random.random() < 0.2:
            return admin.DeleteQueueRequest(name=queue)
        if random.random() < 0.5:
            return random.choice(queues())
        return admin.UpdateQueueRequest(
            name=queue,
            settings=entity_pb2.QueueSettings(
                max_delivery_count=random.choice((1, 2, 10)),
                status=random.choice(_STATUSES),
            ),
        )


_ACTIONS: tuple[_Make, ...] = (
    *(Player._send,) * 6,
    *(Player._accept,) * 4,
    *(Player._receive,) * 7,
    *(Player._settle,) * 6,
    *(Player._under_lock,) * 3,
    *(Player._receive_deferred,) * 2,
    *(
        Player._work_on_dead_letters,
        Player._renew_messages,
        Player._cancel,
        Player._look,
        Player._look,
        Player._administer,
    ),
)
