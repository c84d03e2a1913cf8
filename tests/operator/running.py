"""Operators that run beside a test, against a real API server and a real broker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import kopf
from prometheus_client.parser import text_string_to_metric_families

import lockstep.aio as client
from lockstep.runtime.clock import SystemClock
from lockstep.runtime.ids import SystemIds
from lockstep_operator.operator import Operator
from lockstep_operator.settings import settings_from
from tests.helm.chart import KIND, merged, render
from tests.kube.api_server import ApiServer
from tests.kube.client import EVENT, QUEUE, KubeClient, Refused
from tests.server.server_process import ServerProcess

# Shorter than the minute after which a list makes good what the watch did not tell: no test may live on that.
WITHIN_MS = 45_000
ACCOUNT = "lockstep-operator"
_GRANTS = frozenset({"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"})
_clock = SystemClock()
Body = dict[str, Any]


async def until(
    ask: Callable[[], Any], what: str, *, within_ms: int = WITHIN_MS, pause_ms: int = 20
) -> Any:
    """Ask until the answer is true, and return it."""
    ends_ms = _clock.monotonic_ms() + within_ms
    while True:
        answer = await ask()
        if answer:
            return answer
        assert _clock.monotonic_ms() < ends_ms, f"not within {within_ms} ms: {what}"
        await _clock.sleep(pause_ms)


@dataclass
class Running:
    """An operator that runs.

    Attributes:
        operator: It.
        stop: Ends it in order.
        task: Ends with it.
        metrics_port: Where its metrics are.
        health_port: Where its probes are.
    """

    operator: Operator
    stop: asyncio.Event
    task: asyncio.Task[None]
    metrics_port: int = 0
    health_port: int = 0

    async def end(self) -> None:
        """End it in order."""
        self.stop.set()
        async with asyncio.timeout(WITHIN_MS / 1000):
            await self.task

    async def kill(self) -> None:
        """End it as a crash would."""
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    async def is_leader(self) -> bool:
        """Whether it works."""
        if self.task.done():
            self.task.result()
        try:
            return await self.metric("lockstep_operator_leader") == 1
        except aiohttp.ClientError:
            return False  # it ends; its error is the next answer

    async def metric(self, name: str, **labels: str) -> float:
        """Return the sum of all samples of a metric with these labels."""
        if not self.metrics_port:
            return 0
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.metrics_port}/metrics") as answer,
        ):
            text = await answer.text()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def probe(self, path: str) -> tuple[int, str]:
        """Return what a probe answers."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.health_port}{path}") as answer,
        ):
            return answer.status, await answer.text()


@dataclass
class Site:
    """A namespace, its broker, and who may work in it.

    Attributes:
        kube: May do everything.
        namespace: Of the release and its objects.
        api: The API server.
        server: The broker.
        token: Of the operator's service account.
        url: Where operators find the API server; a proxy's, if one stands between.
        within_ms: How long it may take until something is told of an object.
    """

    kube: KubeClient
    namespace: str
    api: ApiServer
    server: ServerProcess
    token: str
    url: str = ""
    running: list[Running] = field(default_factory=list)
    within_ms: int = WITHIN_MS

    # --- operators ---------------------------------------------------------------------------------

    async def start(self, *, leads: bool = True, **others: Any) -> Running:
        """Start an operator, and return when it works."""
        spec = {
            "endpoint": f"127.0.0.1:{self.server.port}",
            "adminEndpoint": f"127.0.0.1:{self.server.port}",
            **others.pop("spec", {}),
        }
        settings = settings_from(
            {
                "broker": {"name": "default", "namespace": self.namespace, "spec": spec},
                "metricsPort": 0,
                "healthPort": 0,
                **others,
            }
        )
        ids = SystemIds()
        operator = Operator(settings, holder=ids.uid()[:8], login=self.login, clock=_clock, ids=ids)
        stop = asyncio.Event()
        group = asyncio.get_running_loop()
        running = Running(operator, stop, None)  # type: ignore[arg-type]

        def started(metrics: int, health: int) -> None:
            running.metrics_port, running.health_port = metrics, health

        running.task = group.create_task(operator.run(stop, started))
        self.running.append(running)
        if leads:
            await until(running.is_leader, "the operator works")
        return running

    def login(self) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(
            server=self.url or self.api.url, ca_path=str(self.api.ca_file), token=self.token
        )

    def check(self) -> None:
        """Fail with the error of an operator that ended with one."""
        for one in self.running:
            if one.task.done() and not one.task.cancelled():
                one.task.result()

    async def close(self) -> None:
        """End what runs."""
        for one in self.running:
            if not one.task.done():
                await one.kill()

    # --- objects -----------------------------------------------------------------------------------

    async def declare(self, name: str = "orders", **spec: Any) -> Body:
        """Apply a Queue object."""
        return await self.kube.apply(
            {
                "apiVersion": "lockstep.dev/v1alpha1",
                "kind": "Queue",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": spec,
            }
        )

    async def edit(self, name: str, change: Mapping[str, Any]) -> Body:
        """Merge a change into a Queue object."""
        return await self.kube.patch(QUEUE, name, self.namespace, dict(change))

    async def queue(self, name: str = "orders") -> Body | None:
        """Return a Queue object; None = it is gone."""
        try:
            return await self.kube.get(QUEUE, name, self.namespace)
        except Refused as error:
            if error.code == 404:
                return None
            raise

    async def ready(self, name: str = "orders") -> Body:
        """Wait until a Queue object is Ready at its generation."""
        return await self.told(name, "Ready", "True")

    async def told(self, name: str, kind: str, status: str, reason: str = "") -> Body:
        """Wait until a condition of a Queue object says this of its generation."""

        async def look() -> Body | None:
            self.check()
            body = await self.queue(name)
            found = condition(body, kind) if body else None
            if body is None or found is None:
                return None
            fits = found["status"] == status and (not reason or found["reason"] == reason)
            return (
                body
                if fits and found["observedGeneration"] == body["metadata"]["generation"]
                else None
            )

        what = f"{name} is {kind}={status} {reason}"
        found: Body = await until(look, what, within_ms=self.within_ms)
        return found

    async def gone(self, name: str = "orders") -> None:
        """Wait until a Queue object is gone."""

        async def look() -> bool:
            return await self.queue(name) is None

        await until(look, f"{name} is gone")

    async def delete(self, name: str = "orders") -> None:
        """Ask for the deletion of a Queue object."""
        await self.kube.delete(QUEUE, name, self.namespace)

    async def events(self, reason: str) -> list[Body]:
        """Return the events of the namespace with a reason."""
        found = await self.kube.list_all(EVENT, self.namespace)
        return [one for one in found if one["reason"] == reason]

    async def event(self, reason: str) -> Body:
        """Wait for an event with a reason."""
        found = await until(lambda: self.events(reason), f"event {reason}")
        first: Body = found[0]
        return first

    # --- the broker --------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def admin(self) -> AsyncIterator[client.AdministrationClient]:
        """An administration client in the broker namespace of the site."""
        address = f"127.0.0.1:{self.server.port}"
        async with client.AdministrationClient(address, namespace=self.namespace) as made:
            yield made

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[client.LockstepClient]:
        """A client in the broker namespace of the site."""
        address = f"127.0.0.1:{self.server.port}"
        async with client.LockstepClient(address, namespace=self.namespace) as made:
            yield made


def condition(body: Mapping[str, Any], kind: str) -> Body | None:
    """Return a condition of an object."""
    for one in (body.get("status") or {}).get("conditions") or ():
        if one["type"] == kind:
            found: Body = one
            return found
    return None


async def new_site(
    kube: KubeClient,
    namespace: str,
    api: ApiServer,
    server: ServerProcess,
    *,
    watches: Sequence[str] = (),
) -> Site:
    """Make the service account of an operator, which may do what its chart grants.

    Args:
        kube: May do everything.
        namespace: Of the release.
        api: The API server.
        server: The broker.
        watches: The namespaces that the chart is told of; none = all.
    """
    values = merged(KIND, {"operator": {"watchNamespaces": list(watches)}})
    rendered = render(values, namespace=namespace)
    token = await kube.token_for(ACCOUNT, namespace)
    for body in rendered.objects:
        is_operators = ACCOUNT in body["metadata"]["name"] and "hooks" not in str(
            body["metadata"].get("annotations")
        )
        if body["kind"] in _GRANTS and is_operators:
            await kube.apply(body)
    return Site(kube, namespace, api, server, token)
