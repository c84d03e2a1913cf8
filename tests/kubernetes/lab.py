"""A release of the chart on the cluster of kubectl, in a namespace of its own, and a pod for clients beside it.

Here belong the commands that a user types, and the clean-up. Never here: what must come of them (the tests). The law:
everything that is made here is gone at the end, and every command has a limit of time.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from tests.server.server_process import wait_until

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "lockstep"
RELEASE = "lockstep"
CLIENT = "client"
PARTITIONS = 8  # as many as the load spreads its sessions over
_COMMAND_S = 60
_HELM_S = 240
_USE_UP = "import resource; resource.prlimit(1, resource.RLIMIT_CPU, (1, 1))"
_KILLED = 137
# What a program of clients needs of the tests, beside the product that is in the image.
PROGRAMS = (
    *(f"tests/faults/{name}.py" for name in (
        "book", "checker", "draining", "history", "message_rules", "recording", "session_rules", "workers",
    )),
    "tests/kubernetes/load_program.py",
)  # fmt: skip


class CommandFailed(Exception):
    """A command failed; the text has what it was and what it said."""


def run(*words: str, given: str = "", limit_s: int = _COMMAND_S) -> str:
    """Run a command and return its output.

    Raises:
        CommandFailed: It failed, or took too long.
    """
    try:
        done = subprocess.run(
            words, input=given, capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"{' '.join(words)}: not within {limit_s} s") from error
    if done.returncode != 0:
        raise CommandFailed(f"{' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def why_not() -> str:
    """Return why there is no cluster to test on; empty = there is one."""
    for command in ("kubectl", "helm"):
        if shutil.which(command) is None:
            return f"{command} is not on PATH."
    try:
        run("kubectl", "get", "--raw", "/readyz", limit_s=20)
    except CommandFailed as error:
        return f"The current kubeconfig leads to no cluster that answers: {error}"
    return ""


def image_values(reference: str) -> list[str]:
    """Return the values of the chart for an image, by its reference."""
    name, _, tag = reference.rpartition(":")
    registry, slash, repository = name.partition("/")
    if not slash:
        registry, repository = "docker.io", f"library/{name}"
    return [
        *("--set", f"image.registry={registry}"),
        *("--set", f"image.repository={repository}"),
        *("--set", f"image.tag={tag}"),
    ]


@dataclass(slots=True)
class Load:
    """A program of clients that runs in the pod beside the release."""

    lab: Lab
    prefix: str
    process: subprocess.Popen[str]

    def end(self) -> dict[str, Any]:
        """End the load, let it receive what is left, and return its verdict."""
        self.lab.in_client("sh", "-c", f"kill -TERM $(cat /tmp/{self.prefix}.pid)")
        out, errors = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, f"{out}\n{errors}"
        verdict: dict[str, Any] = json.loads(out.splitlines()[-1])
        return verdict


@dataclass(slots=True)
class Lab:
    """The namespace and the release in it."""

    image: str
    namespace: str = field(default_factory=lambda: f"lockstep-test-{uuid.uuid4().hex[:6]}")  # noqa: TID251 - a name
    definitions_are_ours: bool = False

    # --- the commands ----------------------------------------------------------------------------

    def kubectl(self, *words: str, given: str = "", limit_s: int = _COMMAND_S) -> str:
        """Run kubectl in the namespace."""
        return run("kubectl", "-n", self.namespace, *words, given=given, limit_s=limit_s)

    def helm(self, *words: str, limit_s: int = _HELM_S) -> str:
        """Run helm in the namespace."""
        return run("helm", "-n", self.namespace, *words, limit_s=limit_s)

    def get(self, what: str) -> Any:
        """Return an object."""
        return json.loads(self.kubectl("get", what, "-o", "json"))

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Apply objects, as `kubectl apply -f` does."""
        text = "\n---\n".join(yaml.safe_dump(dict(one)) for one in objects)
        self.kubectl("apply", "-f", "-", given=text, limit_s=180)

    def wait_for(self, what: str, condition: str, limit_s: int = 90) -> None:
        """Wait for a condition of objects."""
        words = ("wait", f"--for={condition}", *what.split(), f"--timeout={limit_s}s")
        self.kubectl(*words, limit_s=limit_s + 20)

    def in_client(self, *words: str, limit_s: int = _COMMAND_S) -> str:
        """Run a command in the pod beside the release."""
        return self.kubectl("exec", CLIENT, "--", *words, limit_s=limit_s)

    def lockstep(self, *words: str) -> Any:
        """Run the command line in the pod beside the release, and return its JSON."""
        out = self.in_client("lockstep", "--json", *words)
        return json.loads(out) if out.strip() else None

    # --- the release -----------------------------------------------------------------------------

    @property
    def values(self) -> list[str]:
        """The values of every installation and upgrade."""
        ours = str(self.definitions_are_ours).lower()
        return [
            *("--set", "profile=kind"), *image_values(self.image),
            *("--set", f"owner.partitions={PARTITIONS}"), *("--set", "owner.lease.ttlSeconds=5"),
            *("--set", "frontend.replicas=2"), *("--set", "operator.countsRefreshSeconds=5"),
            *("--set", f"crds.install={ours}"), *("--set", "crds.keep=false"),
        ]  # fmt: skip

    def install(self) -> None:
        """Make the namespace, which admits restricted pods only, and install the release."""
        self.definitions_are_ours = "queues.lockstep.dev" not in run(
            "kubectl", "get", "crd", "-o", "name"
        )
        run("kubectl", "create", "namespace", self.namespace)
        enforced = "pod-security.kubernetes.io/enforce=restricted"
        run("kubectl", "label", "namespace", self.namespace, enforced)
        self.helm("install", RELEASE, str(CHART), *self.values, "--wait", "--timeout", "150s")

    def upgrade(self, *more: str) -> None:
        """Change the release, and return when everything has rolled."""
        self.helm(
            "upgrade", RELEASE, str(CHART), *self.values, *more, "--wait", "--timeout", "200s"
        )

    def settle(self) -> None:
        """Wait until every partition has an owner."""
        wait = "until lockstep cluster status >/dev/null; do sleep 0.5; done"
        owner = f"deployment/{RELEASE}-owner"
        self.kubectl("rollout", "status", owner, "--timeout=90s", limit_s=100)
        self.kubectl("exec", owner, "--", "timeout", "60", "sh", "-c", wait, limit_s=70)

    def pods(self, component: str) -> list[str]:
        """Return the names of the pods of a component that are ready."""
        label = f"app.kubernetes.io/component={component}"
        found = json.loads(self.kubectl("get", "pods", "-l", label, "-o", "json"))["items"]
        return [
            one["metadata"]["name"]
            for one in found
            if "deletionTimestamp" not in one["metadata"]
            and any(c["type"] == "Ready" and c["status"] == "True" for c in one["status"]["conditions"])
        ]  # fmt: skip

    def kill(self, component: str) -> None:
        """Let a process die without a word, and return when it was started again and is ready.

        Nobody inside can send SIGKILL to the first process of a container; the kernel does, to one that has used up its
        processor time. `kubectl delete --force` would let it end in order.
        """
        pod = self.pods(component)[0]
        self.kubectl("exec", pod, "--", "python3", "-c", _USE_UP)

        def ended() -> Any:
            (status,) = self.get(f"pod/{pod}")["status"]["containerStatuses"]
            return status.get("lastState", {}).get("terminated") and status["ready"]

        wait_until(ended, f"{pod} was killed and is ready again", within_ms=90_000)
        (status,) = self.get(f"pod/{pod}")["status"]["containerStatuses"]
        assert status["lastState"]["terminated"]["exitCode"] == _KILLED, status

    # --- clients ---------------------------------------------------------------------------------

    def start_client(self) -> None:
        """Start the pod in which clients run."""
        run("kubectl", "-n", self.namespace, "create", "configmap", "programs",
            *(f"--from-file={_key(path)}={ROOT / path}" for path in PROGRAMS))  # fmt: skip
        self.apply(_client_pod(self))
        self.wait_for(f"pod/{CLIENT}", "condition=Ready")

    def start_load(self, prefix: str, *options: str) -> Load:
        """Declare the queues of a load and let it run."""
        self.apply(
            queue(f"{prefix}-orders", requiresSession=True, lockDuration="PT5S", maxDeliveryCount=2000),
            queue(f"{prefix}-plain", lockDuration="PT5S", maxDeliveryCount=2000),
        )  # fmt: skip
        self.wait_for(f"lkq/{prefix}-orders lkq/{prefix}-plain", "condition=Ready")
        program = ("python3", "-m", "tests.kubernetes.load_program")
        words = ("kubectl", "-n", self.namespace, "exec", CLIENT, "--", *program)
        address = f"Endpoint=lockstep://{self.server};Namespace={self.namespace}"
        process = subprocess.Popen(
            [*words, "--address", address, "--prefix", prefix, *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        return Load(self, prefix, process)

    @property
    def server(self) -> str:
        """The address of the service."""
        return f"{RELEASE}.{self.namespace}.svc:7700"

    # --- the end ---------------------------------------------------------------------------------

    def what_happened(self) -> str:
        """Return what explains a failure."""
        commands: Sequence[Sequence[str]] = (
            ("get", "pods,lkq,deadletterresubmissions", "-o", "wide"),
            ("get", "events", "--sort-by=.lastTimestamp"),
            *(("logs", "-l", f"app.kubernetes.io/component={one}", "--tail=30", "--prefix") for one in (
                "operator", "frontend", "owner")),
        )  # fmt: skip
        said = []
        for words in commands:
            with contextlib.suppress(CommandFailed):
                said.append(self.kubectl(*words)[-6000:])
        return "\n".join(said)

    def remove(self) -> None:
        """Take everything away, in whatever state it is."""
        with contextlib.suppress(CommandFailed):
            self.helm("uninstall", RELEASE, "--ignore-not-found", "--wait", "--timeout", "120s")
        with contextlib.suppress(CommandFailed):  # where the operator could not let go of them
            names = self.kubectl("get", "lkq", "-o", "name").split()
            for name in names:
                self.kubectl(
                    "patch", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}'
                )
        with contextlib.suppress(CommandFailed):
            run("kubectl", "delete", "namespace", self.namespace, "--timeout=100s", limit_s=110)
        if self.definitions_are_ours:
            kinds = ("queues", "brokers", "deadletterresubmissions")
            names = [f"crd/{one}.lockstep.dev" for one in kinds]
            with contextlib.suppress(CommandFailed):
                run("kubectl", "delete", *names, "--ignore-not-found", "--timeout=50s")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def queue(name: str, **spec: Any) -> dict[str, Any]:
    """Return a Queue object."""
    return {
        "apiVersion": "lockstep.dev/v1alpha1",
        "kind": "Queue",
        "metadata": {"name": name},
        "spec": spec,
    }


def _key(path: str) -> str:
    return path.replace("/", "_")


def _client_pod(lab: Lab) -> dict[str, Any]:
    values = dict(word.split("=", 1) for word in image_values(lab.image)[1::2])
    image = f"{values['image.registry']}/{values['image.repository']}:{values['image.tag']}"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": CLIENT},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": CLIENT,
                "image": image,
                "command": ["sleep", "3600"],
                "env": [
                    {"name": "LOCKSTEP_SERVER", "value": lab.server},
                    {"name": "LOCKSTEP_NAMESPACE", "value": lab.namespace},
                    {"name": "PYTHONPATH", "value": "/programs"},
                ],
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "tmp", "mountPath": "/tmp"},
                    {"name": "programs", "mountPath": "/programs"},
                ],
            }],
            "volumes": [
                {"name": "tmp", "emptyDir": {}},
                {"name": "programs", "configMap": {
                    "name": "programs",
                    "items": [{"key": _key(path), "path": path} for path in PROGRAMS],
                }},
            ],
        },
    }  # fmt: skip


@contextmanager
def lab_on_this_cluster() -> Iterator[Lab]:
    """Install a release and remove it with the block."""
    with Lab(os.environ.get("IMAGE", "lockstep:dev")) as lab:
        try:
            lab.install()
            lab.start_client()
        except CommandFailed as error:
            raise CommandFailed(f"{error}\n{lab.what_happened()}") from error
        yield lab
