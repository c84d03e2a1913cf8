"""The table of malformed requests: what is sent, and what each one gets.

A case names the call, the request, the gRPC code, the reason, and what its text must hold: the limit and
the value seen, where there are any.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import entity_pb2, request_pb2, session_pb2
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.server import calls

INVALID = grpc.StatusCode.INVALID_ARGUMENT
FAILED = grpc.StatusCode.FAILED_PRECONDITION
NOT_FOUND = grpc.StatusCode.NOT_FOUND
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED

PLAIN, SESSION, TINY = "plain", "sessions", "tiny"
HELD = "held"  # the session that the fixture holds
MESSAGE_KIB_MAX = 2048  # the installation's, so that a batch too large is quick to make
SEND_MESSAGES_MAX = 50
RECEIVE_MESSAGES_MAX = 60
DEAD_LETTERS = "/$DeadLetterQueue"


@dataclass(frozen=True, slots=True)
class Case:
    """One refused request."""

    name: str
    method: str
    request: Any
    code: grpc.StatusCode
    reason: str
    words: tuple[str, ...] = ()


def _invalid(name: str, method: str, request: Any, *words: str) -> Case:
    return Case(name, method, request, INVALID, "INVALID_ARGUMENT", words)


def _limit(name: str, method: str, request: Any, *words: str) -> Case:
    return Case(name, method, request, INVALID, "LIMIT_EXCEEDED", words)


def _operation(name: str, method: str, request: Any, *words: str) -> Case:
    return Case(name, method, request, FAILED, "INVALID_OPERATION", words)


def _missing(name: str, method: str, request: Any, *words: str) -> Case:
    return Case(name, method, request, NOT_FOUND, "ENTITY_NOT_FOUND", words)


def _later(name: str, method: str, request: Any, *words: str) -> Case:
    return Case(name, method, request, UNIMPLEMENTED, "NOT_AVAILABLE", words)


def _too_large(name: str, method: str, request: Any, *words: str) -> Case:
    return Case(name, method, request, INVALID, "MESSAGE_SIZE_EXCEEDED", words)


REQUESTS: dict[str, Any] = {
    "SendMessages": messaging.SendMessagesRequest,
    "AcceptSession": messaging.AcceptSessionRequest,
    "ReceiveMessages": messaging.ReceiveMessagesRequest,
    "SettleMessages": messaging.SettleMessagesRequest,
    "RenewMessageLocks": messaging.RenewMessageLocksRequest,
    "RenewSessionLock": messaging.RenewSessionLockRequest,
    "ReleaseSession": messaging.ReleaseSessionRequest,
    "GetSessionState": messaging.GetSessionStateRequest,
    "SetSessionState": messaging.SetSessionStateRequest,
    "CancelRequest": messaging.CancelRequestRequest,
    "CreateQueue": admin.CreateQueueRequest,
    "GetQueue": admin.GetQueueRequest,
    "ListQueues": admin.ListQueuesRequest,
    "UpdateQueue": admin.UpdateQueueRequest,
    "DeleteQueue": admin.DeleteQueueRequest,
    "GetSession": admin.GetSessionRequest,
    "ListSessions": admin.ListSessionsRequest,
}
"""Every method and its request."""

_NAMED_BY = {"CreateQueue": "name", "GetQueue": "name", "UpdateQueue": "name"}
_NAMED_BY |= {"DeleteQueue": "name", "GetSession": "queue", "ListSessions": "queue"}

GARBAGE = {
    "no protobuf": b"\xff\xff\xff\xff",
    "a length without its bytes": b"\x0a\x7fabc",
    "a wrong wire type": b"\x0f\x01",
    "a text that is not UTF-8": b"\x0a\x02\xff\xfe",
}


def random_bytes() -> Iterator[bytes]:
    """Yield bytes that may, or may not, be a request."""
    source = random.Random(7)
    for length in (1, 2, 3, 7, 20, 64, 300):
        for _ in range(4):
            yield source.randbytes(length)


def request(method: str, entity: str, **more: Any) -> Any:
    """Return the request of a method about an entity, otherwise sound."""
    return REQUESTS[method](**{_NAMED_BY.get(method, "entity"): entity}, **more)


def _lock(session_id: str = HELD, token: bytes = bytes(7) + b"\x01" + bytes(8)) -> Any:
    return session_pb2.SessionLock(session_id=session_id, lock_token=token)


def _sound(method: str, entity: str) -> Any:
    """Return a request that nothing but its entity can be wrong with."""
    more: dict[str, Any] = {}
    if method == "SendMessages":
        more["messages"] = [calls.message(session_id="s")]
    if method == "ReceiveMessages":
        more["max_messages"] = 1
    if method == "SettleMessages":
        more["settlements"] = [calls.settlement("complete", tokens=[_lock().lock_token])]
    if method in ("RenewSessionLock", "ReleaseSession", "GetSessionState", "SetSessionState"):
        more["session"] = _lock()
    if method == "CancelRequest":
        more["request_id"] = request_pb2.RequestId(client_id="canceller", counter=1)
    return request(method, entity, **more)


def entities() -> Iterator[Case]:
    """Names of queues: unknown, bad, too long."""
    for method in REQUESTS:
        if method == "ListQueues":
            continue
        yield _invalid(f"{method} without a queue", method, _sound(method, ""), "must not be empty")
        if method != "CreateQueue":
            yield _missing(f"{method} of no queue", method, _sound(method, "nowhere"), "nowhere")
    bad = (
        "/a",
        "a/",
        "a@b",
        "a?b",
        "a#b",
        "a*b",
        "a\x00b",
        "a\nb",
        "a\u202eb",
        "$a",
        "a/$b",
        "\\a",
    )
    for name in bad:
        yield _invalid(
            f"create {name!r}", "CreateQueue", request("CreateQueue", name), "queue name"
        )
        sent = _sound("SendMessages", name)
        yield _invalid(f"send to {name!r}", "SendMessages", sent, "queue name")
    long = request("CreateQueue", "n" * 261)
    yield _limit("create a name too long", "CreateQueue", long, "260", "261")
    for namespace, words in (("a/b", "a/b"), ("a@b", "a@b"), ("a\\b", "namespace")):
        asked = request("GetQueue", PLAIN, namespace=namespace)
        yield _invalid(f"namespace {namespace!r}", "GetQueue", asked, words)
    for namespace in ("a\x00b", "a\nb"):
        asked = request("CreateQueue", "fine", namespace=namespace)
        yield _invalid(f"namespace {namespace!r}", "CreateQueue", asked, "namespace")
    far = request("CreateQueue", "fine", namespace="n" * 51)
    yield _limit("a namespace too long", "CreateQueue", far, "50", "51")
    yield _missing(
        "another namespace", "SendMessages", request("SendMessages", PLAIN, namespace="other",
        messages=[calls.message()]), "other",
    )  # fmt: skip
    exists = request("CreateQueue", PLAIN.upper())
    code = grpc.StatusCode.ALREADY_EXISTS
    yield Case("create again", "CreateQueue", exists, code, "ENTITY_ALREADY_EXISTS", (PLAIN,))


def dead_letter_paths() -> Iterator[Case]:
    """The path of a dead-letter store where it may not stand (ENT-2, SND-14, SES-16)."""
    path = SESSION + DEAD_LETTERS
    refusing = ("SendMessages", "AcceptSession", "RenewSessionLock", "ReleaseSession")
    refusing += ("GetSessionState", "SetSessionState")
    refusing += ("GetQueue", "UpdateQueue", "DeleteQueue", "GetSession", "ListSessions")
    for method in refusing:
        for spelled in (path, path.upper()):
            yield _operation(f"{method} of {spelled}", method, _sound(method, spelled))
    created = request("CreateQueue", "new" + DEAD_LETTERS)
    yield _invalid("create a dead-letter store", "CreateQueue", created, "$")
    received = calls.receive_request(path, _lock())
    yield _operation("receive dead letters in a session", "ReceiveMessages", received, "RCV-3")
    again = messaging.SettleMessagesRequest(
        entity=path,
        settlements=[calls.settlement("dead_letter", tokens=[_lock(token=b"\x00" * 15 + b"\x01").lock_token])],
    )  # fmt: skip
    yield _operation("dead-letter a dead letter", "SettleMessages", again, "again")


def _send(entity: str = PLAIN, *messages: Any, **more: Any) -> Any:
    return messaging.SendMessagesRequest(entity=entity, messages=messages, **more)


def messages() -> Iterator[Case]:
    """Messages that cannot be stored as they are."""
    long = "x" * 129
    made = calls.message
    yield _invalid("send nothing", "SendMessages", _send(), "at least one")
    yield _operation(
        "no session id", "SendMessages", _send(SESSION, made(session_id="a"), made()), "message 1"
    )
    for name in ("message_id", "partition_key", "reply_to_session_id"):
        sent = _send(PLAIN, made(), made(**{name: long}))
        yield _limit(f"{name} too long", "SendMessages", sent, "128", "129", "message 1")
    for entity in (PLAIN, SESSION):
        sent = _send(entity, made(session_id="x" * 129))
        yield _limit(f"session id too long for {entity}", "SendMessages", sent, "128", "129")
    soon = Timestamp(seconds=1, nanos=10**9)
    sent = _send(PLAIN, made(scheduled_enqueue_time=soon))
    yield _invalid("scheduled at no moment", "SendMessages", sent, "nanos")
    other = made(session_id="a", partition_key="b")
    yield _invalid(
        "partition key is not the session", "SendMessages", _send(SESSION, other), "equal"
    )
    for length in (Duration(), Duration(seconds=-1)):
        sent = _send(PLAIN, made(time_to_live=length))
        yield _limit(f"time to live of {length.seconds}", "SendMessages", sent, "time to live")
    many = [made()] * (SEND_MESSAGES_MAX + 1)
    words = (str(SEND_MESSAGES_MAX), str(SEND_MESSAGES_MAX + 1))
    yield _limit("too many messages", "SendMessages", _send(PLAIN, *many), *words)
    yield from _sizes()


def _sizes() -> Iterator[Case]:
    made = calls.message
    size = made(bytes(1024 * 1024)).ByteSize()
    large = _send(PLAIN, made(), made(bytes(1024 * 1024)))
    yield _too_large("message too large", "SendMessages", large, "1048576", str(size), "message 1")
    tiny = _send(TINY, made(bytes(1025)))
    yield _too_large("too large for its queue", "SendMessages", tiny, "1024")
    batch = _send(PLAIN, *[made(bytes(500_000))] * 5)
    most = str(MESSAGE_KIB_MAX * 1024)
    yield _too_large("batch too large", "SendMessages", batch, most)
    wide = made()
    wide.application_properties["wide"].string_value = "p" * (32 * 1024)
    yield _limit("property too large", "SendMessages", _send(PLAIN, wide), "32768", "'wide'")
    heavy = made()
    for number in range(3):
        heavy.application_properties[f"p{number}"].bytes_value = bytes(30_000)
    yield _limit("headers too large", "SendMessages", _send(PLAIN, heavy), "65536", "headers")
    label = made(subject="s" * 70_000)
    yield _limit("subject too large", "SendMessages", _send(PLAIN, label), "65536", "headers")


def request_ids() -> Iterator[Case]:
    """Request ids that name no call."""
    bad = {
        "empty": request_pb2.RequestId(),
        "without client id": request_pb2.RequestId(counter=1),
        "counter 0": request_pb2.RequestId(client_id="c"),
        "counter 2^63": request_pb2.RequestId(client_id="c", counter=2**63),
        "counter 2^64-1": request_pb2.RequestId(client_id="c", counter=2**64 - 1),
        "client id too long": request_pb2.RequestId(client_id="c" * 65, counter=1),
    }
    with_id = ("SendMessages", "AcceptSession", "ReceiveMessages", "SettleMessages")
    with_id += ("ReleaseSession", "SetSessionState", "CancelRequest")
    with_id += ("CreateQueue", "UpdateQueue", "DeleteQueue")
    for method in with_id:
        for name, request_id in bad.items():
            asked = _sound(method, SESSION)
            asked.request_id.CopyFrom(request_id)
            yield _limit(f"{method} with request id {name}", method, asked, "64 characters")


def sessions() -> Iterator[Case]:
    """Session use of a plain queue, and the reverse (RCV-3, LCK-5)."""
    token = _lock().lock_token
    receive, accept, settle = "ReceiveMessages", "AcceptSession", "SettleMessages"
    yield _operation("receive without session", receive, calls.receive_request(SESSION), "RCV-3")
    yield _operation(
        "receive with session", receive, calls.receive_request(PLAIN, _lock()), "RCV-3"
    )
    for session_id in (None, "a"):
        asked = messaging.AcceptSessionRequest(entity=PLAIN, session_id=session_id)
        yield _operation(f"accept {session_id} of a plain queue", accept, asked, "RCV-3")
    done = [calls.settlement("complete", tokens=[token])]
    asked = messaging.SettleMessagesRequest(entity=SESSION, settlements=done)
    yield _operation("settle without session", settle, asked, "LCK-5")
    asked = messaging.SettleMessagesRequest(entity=PLAIN, settlements=done, session=_lock())
    yield _operation("settle with session", settle, asked, PLAIN)
    renewed = messaging.RenewMessageLocksRequest(entity=SESSION, lock_tokens=[token])
    yield _operation("renew a message of a session", "RenewMessageLocks", renewed, "SES-19")
    for method in ("ListSessions", "GetSession"):
        yield _operation(f"{method} of a plain queue", method, _sound(method, PLAIN), "no sessions")
    for method in ("RenewSessionLock", "ReleaseSession", "GetSessionState", "SetSessionState"):
        asked = _sound(method, PLAIN)
        yield _operation(f"{method} of a plain queue", method, asked, "no sessions")
    for name in ("session_id", "holder_client_id"):
        asked = messaging.AcceptSessionRequest(entity=SESSION, **{name: "x" * 129})
        yield _limit(f"accept with {name} too long", accept, asked, "128", "129")
    asked = calls.receive_request(PLAIN)
    asked.receiver_client_id = "x" * 129
    yield _limit("receiver client id too long", receive, asked, "128", "129")
    asked = admin.GetSessionRequest(queue=SESSION, session_id="x" * 129)
    yield _limit("show a session id too long", "GetSession", asked, "128", "129")


def tokens() -> Iterator[Case]:
    """Lock tokens that are none of ours, wherever a session's token stands."""
    bad = {
        "none": (b"", "16 bytes"),
        "15 bytes": (bytes(15), "15"),
        "17 bytes": (bytes(17), "17"),
        "grant 2^63": (b"\x80" + bytes(15), "no lock token"),
        "grant 2^64-1": (b"\xff" * 8 + bytes(8), "no lock token"),
        "sequence 2^63": (bytes(8) + b"\x80" + bytes(7), "no lock token"),
        "of a message": (bytes(7) + b"\x01" + bytes(7) + b"\x01", "of a message"),
    }
    under_lock = ("RenewSessionLock", "ReleaseSession", "GetSessionState", "SetSessionState")
    under_lock += ("ReceiveMessages", "SettleMessages")
    for method in under_lock:
        asked = _sound(method, SESSION)
        for name, (token, words) in bad.items():
            case = type(asked)()
            case.CopyFrom(asked)
            case.session.CopyFrom(_lock(token=token))
            yield _invalid(f"{method} with token: {name}", method, case, words)
        never = {"zero": bytes(16), "foreign": (2**63 - 1).to_bytes(8, "big") + bytes(8)}
        for name, token in never.items():
            case = type(asked)()
            case.CopyFrom(asked)
            case.session.CopyFrom(_lock(token=token))
            lost = "SESSION_LOCK_LOST"
            yield Case(
                f"{method} with token: {name}", method, case, FAILED, lost, ("never granted",)
            )
    for name in ("none", "15 bytes", "17 bytes", "grant 2^64-1", "sequence 2^63"):
        token, words = bad[name]
        done = [calls.settlement("complete", tokens=[token])]
        settled = messaging.SettleMessagesRequest(entity=PLAIN, settlements=done)
        yield _invalid(f"settle token: {name}", "SettleMessages", settled, words)
        renewed = messaging.RenewMessageLocksRequest(entity=PLAIN, lock_tokens=[token])
        yield _invalid(f"renew token: {name}", "RenewMessageLocks", renewed, words)


def receives() -> Iterator[Case]:
    """Numbers, waits and modes of receives and accepts."""
    receive, most = "ReceiveMessages", RECEIVE_MESSAGES_MAX
    for number in (0, -1, most + 1, 2**31 - 1):
        asked = calls.receive_request(PLAIN, maximum=number)
        yield _limit(f"receive {number}", receive, asked, f"1 and {most}", str(number))
    for wait in (Duration(seconds=-1), Duration(nanos=-1), Duration(seconds=-(2**62))):
        asked = calls.receive_request(PLAIN, wait=wait)
        yield _invalid(f"receive, wait {wait.seconds}", receive, asked, "negative")
        accept = messaging.AcceptSessionRequest(entity=SESSION, max_wait=wait)
        yield _invalid(f"accept, wait {wait.seconds}", "AcceptSession", accept, "negative")
    asked = calls.receive_request(PLAIN)
    asked.mode = 9
    yield _invalid("an unknown mode", receive, asked, "9")
    deferred = messaging.ReceiveDeferredMessagesRequest(entity=PLAIN, sequence_numbers=[1])
    deferred.mode = 9
    yield _invalid("an unknown mode, deferred", "ReceiveDeferredMessages", deferred, "9")
    asked = calls.receive_request(PLAIN, wait=Duration(seconds=1, nanos=-1))
    yield _invalid("receive, wait of two signs", receive, asked, "nanos")


def settlements() -> Iterator[Case]:
    """Settlements that say too little, or too much."""
    settle, token = "SettleMessages", bytes(7) + b"\x01" + bytes(7) + b"\x01"

    def asked(*given: messaging.Settlement, entity: str = PLAIN) -> Any:
        return messaging.SettleMessagesRequest(entity=entity, settlements=given)

    bare = messaging.Settlement(lock_tokens=[token])
    yield _invalid("no settlement", settle, asked(), "at least one")
    yield _invalid("no outcome", settle, asked(bare), "outcome")
    yield _invalid("no message", settle, asked(calls.settlement("complete")), "at least one")
    numbered = calls.settlement("complete", numbers=[1])
    yield _invalid("numbers on a plain queue", settle, asked(numbered), "lock tokens")
    for name in ("reason", "description"):
        wordy = calls.settlement("dead_letter", tokens=[token])
        setattr(wordy.dead_letter, name, "r" * 4097)
        yield _limit(f"{name} too long", settle, asked(wordy), "4096", "4097")
    many = calls.settlement("complete", tokens=[token] * 8193)
    yield _limit("too many settlements", settle, asked(many), "8192", "8193")
    renewed = messaging.RenewMessageLocksRequest(entity=PLAIN, lock_tokens=[token] * 8193)
    yield _limit("too many renewals", "RenewMessageLocks", renewed, "8192", "8193")


def pages() -> Iterator[Case]:
    """Page sizes and page tokens."""
    for size in (-1, 1001, 2**31 - 1):
        asked = admin.ListQueuesRequest(page_size=size)
        yield _limit(f"queues, page of {size}", "ListQueues", asked, "1 and 1000", str(size))
        asked = admin.ListSessionsRequest(queue=SESSION, page_size=size)
        yield _limit(f"sessions, page of {size}", "ListSessions", asked, "1 and 1000", str(size))
    for token in ("x", "AFTER:a", "\x00"):
        asked = admin.ListQueuesRequest(page_token=token)
        yield _invalid(f"queues, page token {token!r}", "ListQueues", asked, "page token")
        asked = admin.ListSessionsRequest(queue=SESSION, page_token=token)
        yield _invalid(f"sessions, page token {token!r}", "ListSessions", asked, "page token")


_RANGES: dict[str, tuple[tuple[Any, ...], str]] = {
    "lock_duration": (
        (Duration(seconds=4, nanos=999_000_000), Duration(seconds=301), Duration(),
         Duration(seconds=-60), Duration(seconds=25 * 86_400), Duration(seconds=2**62)),
        "5s and 5m",
    ),
    "max_delivery_count": ((0, -1, 2001, 2**31 - 1), "1 and 2000"),
    "max_size_in_megabytes": ((0, -1, 81_921), "1 and 81920"),
    "max_message_size_in_kilobytes": ((0, -1, MESSAGE_KIB_MAX + 1), f"1 and {MESSAGE_KIB_MAX}"),
    "max_session_state_size_in_kilobytes": ((0, -1, 1025), "1 and 1024"),
    "user_metadata": (("m" * 1025,), "1024"),
    "default_message_time_to_live": (
        (Duration(seconds=0, nanos=999_000_000), Duration(), Duration(seconds=-1)),
        "1s and",
    ),
    "auto_delete_on_idle": ((Duration(seconds=299), Duration(seconds=-1)), "5m and"),
    "session_state_idle_ttl": ((Duration(seconds=299), Duration(seconds=-1)), "5m and"),
}  # fmt: skip
_NOT_YET: dict[str, Any] = {
    "forward_to": "other",
    "forward_dead_lettered_messages_to": "other",
}
_CHOICES = ("placement", "session_lock_extension", "accept_next", "status", "session_expiry")
_FIXED_FLAG = "requires_duplicate_detection"  # refused at an update because it is fixed


def settings() -> Iterator[Case]:
    """Settings of queues: out of range, unknown, not available, fixed."""
    for method, name in (("CreateQueue", "new"), ("UpdateQueue", PLAIN)):

        def asked(setting: str, value: Any, method: str = method, name: str = name) -> Any:
            given = entity_pb2.QueueSettings(**{setting: value})
            return request(method, name, settings=given)

        for setting, (values, allowed) in _RANGES.items():
            for value in values:
                shown = str(value)[:20].strip().replace("\n", " ")
                yield _limit(f"{method} {setting}={shown}", method, asked(setting, value), allowed)
        for setting, value in _NOT_YET.items():
            if (method, setting) != ("UpdateQueue", _FIXED_FLAG):
                yield _later(f"{method} {setting}", method, asked(setting, value), setting)
        for setting in _CHOICES:
            for value in (9, -1):
                yield _invalid(
                    f"{method} {setting}={value}", method, asked(setting, value), str(value)
                )
    fixed = {
        "requires_session": True,
        "placement": entity_pb2.PLACEMENT_SPREAD,
        _FIXED_FLAG: True,
    }
    for setting, value in fixed.items():
        given = entity_pb2.QueueSettings(**{setting: value})
        asked_ = request("UpdateQueue", PLAIN, settings=given)
        yield _operation(f"change {setting}", "UpdateQueue", asked_, "fixed")
    stale = request("UpdateQueue", PLAIN, if_revision=999)
    code = grpc.StatusCode.ABORTED
    yield Case("a stale revision", "UpdateQueue", stale, code, "REVISION_CONFLICT", ("999",))


def all_cases() -> list[Case]:
    """Return the whole table."""
    parts = (entities, dead_letter_paths, messages, request_ids, sessions, tokens)
    parts += (receives, settlements, pages, settings)
    return [case for part in parts for case in part()]
