"""The methods of the public API, as its descriptors list them.

A service or a method that is added to `lockstep.v1` is here without further work.
"""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from importlib import import_module

from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

import lockstep.v1

_SERVICES = "_service_pb2"


@dataclass(frozen=True, slots=True)
class Method:
    """One unary method: its path in gRPC, its messages, and whether a call of it may wait for something."""

    path: str
    request: type[Message]
    response: type[Message]
    may_wait: bool


def _all_methods() -> dict[str, Method]:
    found: dict[str, Method] = {}
    for module in pkgutil.iter_modules(lockstep.v1.__path__, f"{lockstep.v1.__name__}."):
        if not module.name.endswith(_SERVICES):
            continue
        for service in import_module(module.name).DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                if method.client_streaming:
                    continue  # `tests.server.test_stream_fuzz`
                assert not method.server_streaming, method.full_name
                path = f"/{service.full_name}/{method.name}"
                found[path] = Method(
                    path,
                    GetMessageClass(method.input_type),
                    GetMessageClass(method.output_type),
                    may_wait="max_wait" in method.input_type.fields_by_name,
                )
    return found


METHODS = _all_methods()
"""Every method without a stream by its path, in the order of the protos."""

PATH_OF_REQUEST = {method.request.DESCRIPTOR.full_name: path for path, method in METHODS.items()}
"""Which method a request belongs to."""


def parsed(kind: type[Message], payload: bytes) -> Message | None:
    """Return what a payload says; None = it is no such message."""
    try:
        return kind.FromString(payload)
    except DecodeError:
        return None
