"""What is there for blocking programs is there for asyncio, with the same arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lockstep import servicebus
from lockstep.servicebus import aio, management
from lockstep.servicebus.aio import management as aio_management

TWINS = [
    *((getattr(servicebus, name), getattr(aio, name)) for name in aio.__all__),
    (management.ServiceBusAdministrationClient, aio_management.ServiceBusAdministrationClient),
]
# What tunes threads there and the event loop here; neither has an effect.
TUNING = {"executor", "max_workers", "loop", "wait"}


def calls_of(kind: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, member in inspect.getmembers(kind, callable):
        if not name.startswith("_"):
            yield name, member


def arguments(call: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    return [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in inspect.signature(call).parameters.values()
        if parameter.name not in TUNING
    ]


@pytest.mark.parametrize(("blocking", "asyncio"), TWINS)
def test_asyncio_has_the_same_calls_with_the_same_arguments(blocking: type, asyncio: type) -> None:
    theirs = {name: arguments(call) for name, call in calls_of(blocking)}

    assert {name: arguments(call) for name, call in calls_of(asyncio)} == theirs
