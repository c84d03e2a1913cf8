"""What the benchmark of the operator runs: an API server, a broker, operators, and a watch of the Queue objects.

Here belong processes, and what is seen of them from outside. Never here: what is measured (`operator_parts`). The laws:
operators are processes of their own, with the rights that the chart grants and no more; what an object says is told by
a watch, as users see it.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.kube.api_server import ApiServer
from tests.kube.client import QUEUE, Body, path
from tests.kube.definitions import definitions
from tests.kube.program import programs
from tests.operator.running import Site, condition, new_site
from tests.server.server_process import ServerProcess

NAMESPACE = "bench"
AT_A_TIME = 16
LOOK_SECONDS = 0.01
WITHIN_SECONDS = 240.0
STOP_SECONDS_MAX = 20.0
WRITES = frozenset({"create", "update", "patch", "apply", "delete"})


class WrongState(Exception):
    """What was declared did not come about, or something else did."""


# --- operators ----------------------------------------------------------------------------------------------


class OperatorProcess:
    """`lockstep-operator run` on a configuration of its own."""

    def __init__(self, directory: Path, config: Mapping[str, Any], kubeconfig: Path) -> None:
        directory.mkdir(parents=True)
        self._config = directory / "operator.yaml"
        self._config.write_text(yaml.safe_dump(dict(config)))
        self._log = directory / "log"
        self._kubeconfig = kubeconfig
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and do not wait."""
        program = str(Path(sys.executable).with_name("lockstep-operator"))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [program, "run", "--config", str(self._config)],
                env={**os.environ, "KUBECONFIG": str(self._kubeconfig)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None, "the operator was not started"
        return self._process.pid

    def end(self, *, with_kill: bool = False) -> None:
        """Send SIGTERM, or SIGKILL, and do not wait."""
        assert self._process is not None, "the operator was not started"
        if self._process.poll() is None:
            (self._process.kill if with_kill else self._process.terminate)()

    async def ended(self) -> None:
        """Wait until it has ended."""
        assert self._process is not None, "the operator was not started"
        await asyncio.to_thread(self._process.wait, STOP_SECONDS_MAX)

    def close(self) -> None:
        """Leave no process behind."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    # --- what it tells -----------------------------------------------------------------------------

    def events(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the events of a name that it logged."""
        for line in self._log.read_text(errors="replace").splitlines():
            if line.startswith("{") and line.endswith("}"):
                event = json.loads(line)
                if event["event"] == name:
                    yield event

    async def event(self, name: str, **values: str) -> dict[str, Any]:
        """Wait for an event with these values.

        Raises:
            WrongState: The operator ended instead.
        """
        async with asyncio.timeout(WITHIN_SECONDS):
            while True:
                for found in self.events(name):
                    if values.items() <= found.items():
                        return found
                if self._process is None or self._process.poll() is not None:
                    raise WrongState(
                        f"an operator ended by itself: {self._log.read_text()[-4000:]}"
                    )
                await asyncio.sleep(LOOK_SECONDS)

    async def leads(self) -> float:
        """Wait until it works, and return since when, as `time.time()`."""
        return datetime.fromisoformat((await self.event("lease.acquired"))["time"]).timestamp()

    async def stands_by(self) -> None:
        """Wait until it has listed everything."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while (await self._page("health", "/ready"))[0] != HTTPStatus.OK:  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(LOOK_SECONDS)

    async def metrics(self) -> Metrics:
        """Return its metrics as they are now."""
        _, text = await self._page("metrics", "/metrics")
        return Metrics(list(text_string_to_metric_families(text)))

    async def _page(self, which: str, where: str) -> tuple[int, str]:
        port = (await self.event("http.listening", which=which))["port"]
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}{where}") as answer,
        ):
            return answer.status, await answer.text()


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of an operator at one moment."""

    families: list[Metric]

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of all samples of a name with these labels."""
        return sum(
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == f"lockstep_operator_{name}"
            and labels.items() <= sample.labels.items()
        )

    def writes(self) -> Counter[str]:
        """Return how often it wrote to Kubernetes, by kind of target; what was refused counts too."""
        found: Counter[str] = Counter()
        for family in self.families:
            for sample in family.samples:
                is_write = sample.labels.get("verb") in WRITES
                if sample.name == "lockstep_operator_kube_requests_total" and is_write:
                    found[sample.labels["target"]] += int(sample.value)
        return found


def since(before: Counter[str], after: Counter[str]) -> Counter[str]:
    """Return the writes between two moments; those of the lease have nothing to do with objects."""
    return Counter({kind: after[kind] - before[kind] for kind in after if kind != "lease"})


# --- objects ------------------------------------------------------------------------------------------------


class Watched:
    """The Queue objects, as a watch tells of them.

    Attributes:
        ready: At which generation each was Ready first, and when (`time.time()`).
        lost: Those that were Ready at their generation and were not any more.
    """

    def __init__(self) -> None:
        self.ready: dict[str, tuple[int, float]] = {}
        self.lost: set[str] = set()
        self._changed = asyncio.Event()

    def take(self, body: Body) -> None:
        """Take a new state of an object."""
        metadata = body["metadata"]
        name, generation = metadata["name"], metadata["generation"]
        told = condition(body, "Ready") or {}
        is_ready = (told.get("status"), told.get("observedGeneration")) == ("True", generation)
        known = self.generation(name)
        if is_ready and known < generation:
            self.ready[name] = (generation, time.time())
            self._changed.set()
        elif not is_ready and known == generation:
            self.lost.add(name)

    def generation(self, name: str) -> int:
        """Return the last generation at which an object was Ready; 0 = it never was."""
        return self.ready[name][0] if name in self.ready else 0

    async def until(self, wanted: Mapping[str, int]) -> float:
        """Wait until objects are Ready at generations, and return when the last one was.

        Raises:
            WrongState: That takes minutes.
        """
        try:
            async with asyncio.timeout(WITHIN_SECONDS):
                for name, generation in wanted.items():
                    while self.generation(name) < generation:
                        self._changed.clear()
                        await self._changed.wait()
        except TimeoutError as error:
            late = [name for name, number in wanted.items() if self.generation(name) < number]
            text = f"{len(late)} objects are not Ready after {WITHIN_SECONDS:g} s: {late[:5]}"
            raise WrongState(text) from error
        return max(self.ready[name][1] for name in wanted)

    async def follow(self, api: ApiServer) -> None:
        """Watch until cancelled."""
        trusted = ssl.create_default_context(cafile=str(api.ca_file))
        headers = {"Authorization": f"Bearer {api.admin_token}"}
        async with aiohttp.ClientSession(
            api.url,
            connector=aiohttp.TCPConnector(ssl=trusted),
            headers=headers,
            timeout=aiohttp.ClientTimeout(None),
        ) as session:
            while True:
                await self._stream(session)
                await asyncio.sleep(LOOK_SECONDS)

    async def _stream(self, session: aiohttp.ClientSession) -> None:
        """Watch, from the objects as they are now until the server ends it: it does if its events wait too long."""
        async with session.get(path(QUEUE, NAMESPACE), params={"watch": "true"}) as stream:
            if stream.status == HTTPStatus.TOO_MANY_REQUESTS:  # a new kind is being set up
                return
            async for line in stream.content:
                event = json.loads(line)
                if event["type"] in ("ADDED", "MODIFIED"):
                    self.take(event["object"])


@dataclass
class Lab:
    """Everything that runs.

    Attributes:
        site: The API server, the broker, and the rights of operators.
        watched: The Queue objects.
        directory: For files.
        operators: Those that were started.
        declared: The generation of each Queue object that was declared.
    """

    site: Site
    watched: Watched
    directory: Path
    operators: list[OperatorProcess] = field(default_factory=list)
    declared: dict[str, int] = field(default_factory=dict)
    leader: OperatorProcess | None = None

    def new_operator(self, **settings: Any) -> OperatorProcess:
        """Start an operator, with the chart's settings where nothing else is given."""
        address = f"127.0.0.1:{self.site.server.port}"
        config = {
            "broker": {
                "namespace": NAMESPACE,
                "spec": {"endpoint": address, "adminEndpoint": address},
            },
            "metricsPort": 0,
            "healthPort": 0,
            **settings,
        }
        kubeconfig = self.directory / "kubeconfig"
        self.site.api.write_kubeconfig(kubeconfig, self.site.token)
        where = self.directory / f"operator-{len(self.operators)}"
        made = OperatorProcess(where, config, kubeconfig)
        self.operators.append(made)
        made.start()
        return made

    async def leading(self) -> OperatorProcess:
        """Return the operator that works; start one if there is none."""
        if self.leader is None:
            self.leader = self.new_operator()
            await self.leader.leads()
        return self.leader

    async def rest(self) -> None:
        """End the operator that works, in order."""
        if self.leader is not None:
            self.leader.end()
            await self.leader.ended()
            self.leader = None

    async def declare(self, name: str, **spec: Any) -> dict[str, int]:
        """Apply a Queue object, and return its generation by its name."""
        body = await self.site.declare(name, **spec)
        self.declared[name] = body["metadata"]["generation"]
        return {name: self.declared[name]}

    async def declare_all(self, names: Iterable[str], **spec: Any) -> dict[str, int]:
        """Apply Queue objects, several at a time, and return their generations."""
        left, found = iter(list(names)), dict[str, int]()

        async def apply() -> None:
            for name in left:
                found.update(await self.declare(name, **spec))

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_A_TIME):
                group.create_task(apply())
        return found

    async def have(self, count: int) -> list[str]:
        """Have at least so many Queue objects, all Ready, and return the names of so many."""
        await self.leading()
        await self.declare_all(self.new_names(count - len(self.declared)))
        await self.watched.until(self.declared)
        return list(self.declared)[:count]

    def new_names(self, count: int) -> list[str]:
        """Return names that no object has."""
        first = len(self.declared)
        return [f"queue-{first + number:05}" for number in range(count)]

    async def versions(self) -> dict[str, str]:
        """Return the resource version of each Queue object."""
        found = await self.site.kube.list_all(QUEUE, NAMESPACE)
        return {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in found}

    async def check(self) -> None:
        """Compare what the broker has with what is declared.

        Raises:
            WrongState: They differ.
        """
        objects = await self.site.kube.list_all(QUEUE, NAMESPACE)
        wanted = {
            one["metadata"]["name"]: one["spec"].get("maxDeliveryCount", 10) for one in objects
        }
        async with self.site.admin() as admin:
            found = {one.name: one.max_delivery_count async for one in admin.list_queues()}
        if found != wanted:
            differ = sorted(dict(wanted.items() ^ found.items()))
            raise WrongState(f"{len(differ)} queues are not as they are declared: {differ[:5]}")


@asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    """Run an API server and a broker for the time of the block; nothing is declared yet."""
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as name:
        directory = Path(name)
        (directory / "api").mkdir()
        api = ApiServer(directory / "api", programs())
        server = ServerProcess(directory / "broker")
        made: Lab | None = None
        try:
            await asyncio.to_thread(api.start)
            await asyncio.to_thread(server.start)
            async with api.client() as kube:
                await kube.install(definitions())
                await kube.make_namespace(NAMESPACE)
                made = Lab(await new_site(kube, NAMESPACE, api, server), Watched(), directory)
                async with asyncio.TaskGroup() as group:
                    following = group.create_task(made.watched.follow(api))
                    yield made
                    following.cancel()
        finally:
            for operator in () if made is None else made.operators:
                operator.close()
            server.close()
            api.stop()
