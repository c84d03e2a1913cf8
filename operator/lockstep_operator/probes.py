"""What Kubernetes and Prometheus ask the operator over HTTP.

Here belong `/live`, `/ready` and `/metrics`. Never here: what they tell. The law: a probe never waits for Kubernetes
or for the broker; neither is a reason to restart the operator.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

log = logging.getLogger(__name__)

Check = Callable[[], str]
"""Returns what is wrong; empty = nothing."""

Page = Callable[[web.Request], Awaitable[web.Response]]


@asynccontextmanager
async def served(
    *, registry: CollectorRegistry, live: Check, ready: Check, metrics_port: int, health_port: int
) -> AsyncIterator[tuple[int, int]]:
    """Serve both ports while the block runs; gives the ports that were taken: metrics, health.

    Args:
        registry: Of the metrics.
        live: What is so wrong that only a restart helps.
        ready: What is not there yet.
        metrics_port: Of `/metrics`; 0 = any.
        health_port: Of `/live` and `/ready`; 0 = any.
    """

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async with (
        _listening("metrics", {"/metrics": metrics}, metrics_port) as taken_by_metrics,
        _listening(
            "health", {"/live": _answer(live), "/ready": _answer(ready)}, health_port
        ) as taken_by_health,
    ):
        yield taken_by_metrics, taken_by_health


def _answer(check: Check) -> Page:
    async def answer(_: web.Request) -> web.Response:
        wrong = check()
        return web.Response(text=wrong or "ok", status=503 if wrong else 200)

    return answer


@asynccontextmanager
async def _listening(name: str, pages: dict[str, Page], port: int) -> AsyncIterator[int]:
    application = web.Application()
    application.add_routes([web.get(path, page) for path, page in pages.items()])
    runner = web.AppRunner(application, handle_signals=False, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        # Any free port is another one for each family of addresses; who asks for it is on this machine.
        site = web.TCPSite(runner, None if port else "127.0.0.1", port)
        await site.start()
        taken = int(runner.addresses[0][1])
        log.info("http.listening", extra={"which": name, "port": taken})
        yield taken
    finally:
        await runner.cleanup()
