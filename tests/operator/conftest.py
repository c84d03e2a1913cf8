"""Brokers, namespaces and operators for the tests of this package."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.kube.api_server import ApiServer
from tests.kube.client import KubeClient
from tests.kube.conftest import kube as kube
from tests.kube.conftest import kube_namespace as kube_namespace
from tests.operator.running import Site, new_site
from tests.server.conftest import make_server as make_server
from tests.server.conftest import pytest_configure as pytest_configure
from tests.server.conftest import pytest_runtest_makereport as pytest_runtest_makereport
from tests.server.conftest import server as server
from tests.server.server_process import ServerProcess


@pytest.fixture
async def site(
    kube: KubeClient, kube_namespace: str, kube_api_server: ApiServer, server: ServerProcess
) -> AsyncIterator[Site]:
    """A broker, and a namespace that its operator keeps; no operator runs yet."""
    made = await new_site(kube, kube_namespace, kube_api_server, server)
    try:
        yield made
    finally:
        await made.close()
