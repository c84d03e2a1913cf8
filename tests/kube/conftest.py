"""A client of the API server with our definitions installed, and a namespace for each test."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest

from tests.kube.api_server import ApiServer
from tests.kube.client import KubeClient
from tests.kube.definitions import definitions

_numbers = itertools.count(1)


@pytest.fixture
async def kube(kube_api_server: ApiServer) -> AsyncIterator[KubeClient]:
    """A client that may do everything, where queues, brokers and resubmissions are known."""
    async with kube_api_server.client() as client:
        if not kube_api_server.has_definitions:
            await client.install(definitions())
            kube_api_server.has_definitions = True
        yield client


@pytest.fixture
async def kube_namespace(kube: KubeClient) -> str:
    """A namespace that no other test has."""
    return await kube.make_namespace(f"test-{next(_numbers)}")
