"""Requests to Kubernetes' API whose credentials end, against a server that knows which ones hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import kopf
import pytest
from aiohttp import web

from lockstep.runtime.clock import ManualClock
from lockstep_operator.kube import QUEUES, Kube, KubeError


class Api:
    """Answers to one token.

    Attributes:
        token: The one that holds.
        given: The one that a login reads; empty = that which holds.
        slow: Set when a request for the object `slow` is under way.
        goes_on: Lets that one be answered.
    """

    def __init__(self) -> None:
        self.token = "first"
        self.given = ""
        self.slow = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.logins = 0
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        is_known = request.headers.get("Authorization") == f"Bearer {self.token}"
        if request.path.endswith("/slow") and is_known:
            self.slow.set()
            await self.goes_on.wait()
        if not is_known:
            return web.json_response({"reason": "Unauthorized"}, status=401)
        if request.path.endswith("/torn"):
            return web.Response(text="{", content_type="application/json")
        return web.json_response({"metadata": {"name": request.path.rsplit("/", 1)[1]}})

    def login(self) -> kopf.ConnectionInfo:
        self.logins += 1
        return kopf.ConnectionInfo(server=self.url, token=self.given or self.token)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Kube]:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self.take)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            async with Kube(self.login, clock=ManualClock()) as kube:
                yield kube
        finally:
            await runner.cleanup()


async def test_new_credentials_are_read_once_and_what_is_under_way_ends_as_it_began() -> None:
    api = Api()
    async with api.listening() as kube, asyncio.TaskGroup() as group:
        slow = group.create_task(kube.get(QUEUES, "shop", "slow"))
        await api.slow.wait()
        api.token = "second"
        others = [group.create_task(kube.get(QUEUES, "shop", f"q{n}")) for n in range(20)]
        for n, other in enumerate(others):
            assert (await other)["metadata"]["name"] == f"q{n}"
        api.goes_on.set()
        assert (await slow)["metadata"]["name"] == "slow"
    assert api.logins == 2


async def test_credentials_that_stay_refused_are_told() -> None:
    api = Api()
    async with api.listening() as kube:
        api.given, api.token = "first", "second"
        with pytest.raises(KubeError) as caught:
            await kube.get(QUEUES, "shop", "orders")
    assert caught.value.code == 401


async def test_an_answer_that_was_torn_is_an_error_of_kubernetes() -> None:
    api = Api()
    clock = ManualClock()
    async with (
        api.listening(),
        Kube(api.login, clock=clock) as kube,
        asyncio.TaskGroup() as group,
    ):
        asking = group.create_task(_refused(kube))
        while not asking.done():
            await clock.advance_stepwise(10_000)
    assert asking.result() == 0


async def _refused(kube: Kube) -> int:
    with pytest.raises(KubeError) as caught:
        await kube.get(QUEUES, "shop", "torn")
    return caught.value.code
