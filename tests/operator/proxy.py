"""A proxy before the API server that fails on purpose: refusals, late answers, lost answers, broken watches."""

from __future__ import annotations

import asyncio
import itertools
import random
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from lockstep.runtime.clock import SystemClock
from tests.kube.api_server import ApiServer

_clock = SystemClock()
_LINES_OF_A_BROKEN_WATCH = 10


class FaultyProxy:
    """Passes requests on, but for some.

    Attributes:
        injected: How often each fault was met.
    """

    def __init__(self, api: ApiServer, *, seed: int, rate: float) -> None:
        """Fail a share `rate` of the requests, as `seed` says."""
        self._api = api
        self._random = random.Random(seed)
        self._rate = rate
        # In turn, so that each is met however few requests there are.
        self._of_writes = itertools.cycle(("409", "answer_lost", "500", "late", "429"))
        self._of_others = itertools.cycle(("429", "500", "late", "answer_lost"))
        self.injected: Counter[str] = Counter()
        self._refused: dict[tuple[str, str], tuple[int, str]] = {}
        self.url = ""
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Listen while the block runs; gives the address."""
        trusted = ssl.create_default_context(cafile=str(self._api.ca_file))
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._take)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.2)
        connector = aiohttp.TCPConnector(ssl=trusted, limit=0)
        async with aiohttp.ClientSession(self._api.url, connector=connector) as self._session:
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            try:
                yield self.url
            finally:
                await runner.cleanup()

    def stop_failing(self) -> None:
        """Pass everything on from now."""
        self._rate = 0

    def refuse(self, method: str, part: str, *, times: int, but: str = "\0") -> None:
        """Refuse the next requests whose path contains `part` and not `but`, as an admission webhook may."""
        self._refused[method, part] = (times, but)

    def _is_refused(self, request: web.Request) -> bool:
        for (method, part), (left, but) in self._refused.items():
            path = request.path
            if left and method == request.method and part in path and but not in path:
                self._refused[method, part] = (left - 1, but)
                return True
        return False

    async def _take(self, request: web.Request) -> web.StreamResponse:
        if self._is_refused(request):
            self.injected["refused"] += 1
            return _refusal(403, "Forbidden", "admission webhook denied the request")
        is_watch = request.query.get("watch") == "true"
        fault = self._fault(request.method, is_watch=is_watch)
        if fault and not is_watch:
            self.injected[fault] += 1
        match fault:
            case "409":
                return _refusal(409, "Conflict", "the object has been modified")
            case "429":
                return _refusal(429, "TooManyRequests", "too many requests", {"Retry-After": "1"})
            case "500":
                return _refusal(500, "InternalError", "etcd leader changed")
            case "late":
                await _clock.sleep(200)
        return await self._pass(request, fault)

    def _fault(self, method: str, *, is_watch: bool) -> str:
        if is_watch and self._rate:
            return "watch_broken"
        if self._random.random() >= self._rate:
            return ""
        return next(self._of_writes if method in ("PATCH", "PUT") else self._of_others)

    async def _pass(self, request: web.Request, fault: str) -> web.StreamResponse:
        assert self._session is not None
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() in ("authorization", "content-type", "accept")
        }
        async with self._session.request(
            request.method,
            request.path,
            params=request.query,
            data=await request.read() or None,
            headers=headers,
            timeout=aiohttp.ClientTimeout(None),
        ) as answer:
            if fault == "answer_lost":
                await answer.read()
                _cut(request)
            response = web.StreamResponse(status=answer.status)
            response.content_type = answer.content_type
            await response.prepare(request)
            lines = 0
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
                lines += 1
                if fault == "watch_broken" and lines >= _LINES_OF_A_BROKEN_WATCH:
                    self.injected[fault] += 1
                    _cut(request)
            return response


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
    raise asyncio.CancelledError


def _refusal(
    code: int, reason: str, message: str, headers: dict[str, str] | None = None
) -> web.Response:
    status = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return web.json_response(status, status=code, headers=headers)
