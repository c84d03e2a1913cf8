"""The blocking client calls plain functions: an async one is refused before anything is received (CLI-2)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lockstep import LockstepClient


async def later(*_: object) -> None: ...


async def many(*_: object) -> Any:
    yield


class Worker:
    """An object that is called."""

    async def __call__(self, *_: object) -> None: ...


def now(*_: object) -> None: ...


@pytest.fixture
def client() -> Iterator[LockstepClient]:
    with LockstepClient("127.0.0.1:1") as client:  # which makes no call
        yield client


@pytest.mark.parametrize(
    "function", [later, many, Worker(), functools.partial(later, 1)], ids=lambda f: type(f).__name__
)
def test_an_async_function_is_refused(client: LockstepClient, function: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="on_message is async"):
        client.get_queue_processor("orders", function)
    with pytest.raises(TypeError, match=r"lockstep\.aio"):
        client.get_session_processor("orders", function)


@pytest.mark.parametrize("name", ["on_error", "on_session_opening", "on_session_closing"])
def test_so_are_the_other_functions(client: LockstepClient, name: str) -> None:
    functions: dict[str, Any] = {name: later}

    with pytest.raises(TypeError, match=f"{name} is async"):
        client.get_session_processor("orders", now, **functions)


def test_plain_functions_are_taken(client: LockstepClient) -> None:
    client.get_queue_processor("orders", now, now)
    client.get_session_processor("orders", now, None, now, now)
