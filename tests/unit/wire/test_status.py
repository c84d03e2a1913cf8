"""Every error crosses the wire and arrives as what it was."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from lockstep.core import errors
from lockstep.wire import status

ALL_CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.LockstepError)
]
NAMED_CLASSES = [kind for kind in ALL_CLASSES if kind is not errors.LockstepError]


class RefusedCall(grpc.RpcError):
    """What a stub raises when a call ended with the given status."""

    def __init__(
        self,
        code: grpc.StatusCode,
        details: str = "refused",
        trailers: tuple[tuple[str, str | bytes], ...] = (),
    ) -> None:
        super().__init__()
        self._parts = code, details, trailers

    def code(self) -> grpc.StatusCode:
        return self._parts[0]

    def details(self) -> str:
        return self._parts[1]

    def trailing_metadata(self) -> Any:  # the stubs of grpc name a type that does not exist
        return self._parts[2]


def over_the_wire(error: errors.LockstepError) -> errors.LockstepError:
    sent = status.to_status(error)
    return status.from_rpc_error(
        RefusedCall(sent.code, sent.details, tuple(sent.trailing_metadata or ()))
    )


@pytest.mark.parametrize("kind", ALL_CLASSES)
def test_every_class_has_a_row_in_the_table(kind: type[errors.LockstepError]) -> None:
    assert kind in status.CODES


def test_the_table_names_no_class_that_does_not_exist() -> None:
    assert set(status.CODES) == set(ALL_CLASSES)


def test_no_two_classes_share_a_reason() -> None:
    assert len({kind.reason for kind in NAMED_CLASSES}) == len(NAMED_CLASSES)


@pytest.mark.parametrize("kind", NAMED_CLASSES)
def test_every_class_arrives_as_itself(kind: type[errors.LockstepError]) -> None:
    error = kind("what happened", details={"limit": "5", "who": "räksmörgås"}, retry_after_ms=1250)

    arrived = over_the_wire(error)

    assert type(arrived) is kind
    assert arrived.message == "what happened"
    assert arrived.details == {"limit": "5", "who": "räksmörgås"}
    assert arrived.retry_after_ms == 1250


def test_the_root_class_arrives_as_an_internal_error() -> None:
    assert type(over_the_wire(errors.LockstepError("x"))) is errors.InternalError


def test_no_advice_to_wait_stays_no_advice() -> None:
    assert over_the_wire(errors.ServerBusy("x")).retry_after_ms is None


def test_a_subclass_without_a_row_travels_as_its_ancestor() -> None:
    class Narrower(errors.QuotaExceeded):
        pass

    assert status.to_status(Narrower("x")).code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert type(over_the_wire(Narrower("x"))) is errors.QuotaExceeded


@pytest.mark.parametrize("kind", NAMED_CLASSES)
def test_a_reason_alone_names_its_class(kind: type[errors.LockstepError]) -> None:
    error = status.error_for_reason(kind.reason, "text", {"a": "b"})

    assert (type(error), error.message, error.details) == (kind, "text", {"a": "b"})


def test_an_unknown_reason_is_kept_in_the_details() -> None:
    error = status.error_for_reason("OF_A_LATER_RELEASE", "text", {"a": "b"})

    assert type(error) is errors.LockstepError
    assert error.details == {"a": "b", "reason": "OF_A_LATER_RELEASE"}


def test_an_unknown_reason_of_a_call_falls_back_to_its_code() -> None:
    class Later(errors.Unavailable):
        reason = "OF_A_LATER_RELEASE"

    arrived = over_the_wire(Later("text", details={"a": "b"}, retry_after_ms=7))

    assert type(arrived) is errors.ConnectionFailed
    assert arrived.details == {"a": "b", "reason": "OF_A_LATER_RELEASE", "grpc_code": "UNAVAILABLE"}
    assert arrived.retry_after_ms == 7


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.ConnectionFailed),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.OperationTimeout),
        (grpc.StatusCode.CANCELLED, errors.OperationTimeout),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.Exhausted),
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidRequest),
        (grpc.StatusCode.OUT_OF_RANGE, errors.InvalidRequest),
        (grpc.StatusCode.UNAUTHENTICATED, errors.InvalidRequest),
        (grpc.StatusCode.PERMISSION_DENIED, errors.InvalidRequest),
        (grpc.StatusCode.UNIMPLEMENTED, errors.SettingNotAvailable),
        (grpc.StatusCode.FAILED_PRECONDITION, errors.InvalidOperation),
        (grpc.StatusCode.NOT_FOUND, errors.NotFound),
        (grpc.StatusCode.ALREADY_EXISTS, errors.Conflict),
        (grpc.StatusCode.ABORTED, errors.Conflict),
        (grpc.StatusCode.INTERNAL, errors.InternalError),
        (grpc.StatusCode.UNKNOWN, errors.InternalError),
        (grpc.StatusCode.DATA_LOSS, errors.InternalError),
    ],
)
def test_an_answer_without_reason_becomes_the_nearest_class(
    code: grpc.StatusCode, kind: type[errors.LockstepError]
) -> None:
    error = status.from_rpc_error(RefusedCall(code, "by a proxy"))

    assert (type(error), "by a proxy" in error.message) == (kind, True)
    assert error.details == {"grpc_code": code.name}


def test_an_error_info_of_another_domain_is_not_ours() -> None:
    sent = status.to_status(errors.SessionLockLost("x"))
    ((key, value),) = sent.trailing_metadata or ()
    assert isinstance(value, bytes)
    foreign = value.replace(b"lockstep.dev", b"elsewher.dev")

    error = status.from_rpc_error(RefusedCall(sent.code, "x", ((key, foreign),)))

    assert type(error) is errors.InvalidOperation


def test_damaged_details_count_as_absent() -> None:
    trailers = (("other", "x"), (status.DETAILS_METADATA_KEY, b"\xff\xff\xff"))

    error = status.from_rpc_error(RefusedCall(grpc.StatusCode.UNAVAILABLE, "x", trailers))

    assert type(error) is errors.ConnectionFailed


def test_an_rpc_error_that_says_nothing_is_an_internal_error() -> None:
    assert type(status.from_rpc_error(grpc.RpcError("broken"))) is errors.InternalError


@pytest.mark.parametrize("letter", ["a", "ö", "語", "🔒", "\ud800"])
def test_long_texts_are_cut_to_fit_the_trailers(letter: str) -> None:
    error = errors.EntityNotFound(
        letter * 9000, details={f"key{i}": letter * 5000 for i in range(50)}
    )

    sent = status.to_status(error)

    ((_, value),) = sent.trailing_metadata or ()
    in_base64 = len(value) * 4 // 3 + 4
    percent_encoded = 3 * len(sent.details.encode())
    assert in_base64 + percent_encoded < 8 * 1024 - 512
    assert type(over_the_wire(error)) is errors.EntityNotFound


@pytest.fixture
async def refusing_address() -> AsyncIterator[str]:
    async def refuse(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        error = errors.SessionLockLost(
            "Lås förlorat.\nGranted again.", details={"cause": "expired"}, retry_after_ms=5
        )
        await context.abort_with_status(status.to_status(error))
        raise AssertionError

    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(refuse)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", {"Do": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def test_an_error_crosses_a_real_asyncio_channel(refusing_address: str) -> None:
    async with grpc.aio.insecure_channel(refusing_address) as channel:
        call: Any = channel.unary_unary("/t.T/Do")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"")

    error = status.from_rpc_error(caught.value)

    assert type(error) is errors.SessionLockLost
    assert error.message == "Lås förlorat.\nGranted again."
    assert error.details == {"cause": "expired"}
    assert error.retry_after_ms == 5


def test_what_is_no_lockstep_server_is_called_so() -> None:
    refused = RefusedCall(grpc.StatusCode.UNIMPLEMENTED, "Received http2 header with status: 404")

    error = status.from_rpc_error(refused)

    assert "no Lockstep server" in error.message
    assert "status: 404" in error.message
