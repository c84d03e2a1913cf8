"""Fixtures for pytest: a broker of its own for each test that asks for one.

Here belong the fixtures; an entry point makes every pytest load this module. Never here: imports of the broker or of
gRPC at the top. The law: it costs nothing where it is not used.

The fixture with asyncio is one of pytest-asyncio where that plugin is there, and a plain async fixture otherwise, which
anyio and others run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lockstep.testing import BlockingBroker, Broker


@pytest.fixture
def lockstep_blocking_broker() -> Iterator[BlockingBroker]:
    """A `lockstep.testing.BlockingBroker` of this test's own, running."""
    from lockstep.testing import BlockingBroker  # only a test that asks for it pays for it

    with BlockingBroker() as broker:
        yield broker


def _async_fixtures(declare: Callable[..., Any]) -> object:
    """Return what holds the fixture with asyncio; `declare` is the decorator of the plugin that will run it."""

    class AsyncFixtures:
        @declare
        async def lockstep_broker(self) -> AsyncIterator[Broker]:
            """A `lockstep.testing.Broker` of this test's own, running in its event loop."""
            from lockstep.testing import Broker  # only a test that asks for it pays for it

            async with Broker() as broker:
                yield broker

    return AsyncFixtures()


def pytest_configure(config: pytest.Config) -> None:
    """Declare the fixture with asyncio in the way of the plugin that will run it."""
    declare: Callable[..., Any] = pytest.fixture
    if config.pluginmanager.hasplugin("asyncio"):
        import pytest_asyncio  # loaded already, because it is a plugin of this run

        declare = pytest_asyncio.fixture
    config.pluginmanager.register(_async_fixtures(declare), "lockstep-async-fixtures")
