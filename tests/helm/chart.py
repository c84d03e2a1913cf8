"""The chart, rendered by real Helm.

Here belong the rendering and the ways through what was rendered. Never here: what it must be (the tests).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from helm_python.chart import Chart
from helm_python.errors import HelmError

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "lockstep"
CRDS = ROOT / "helm" / "lockstep-crds"
NAMESPACE = "messaging"
RELEASE = "lockstep"

Values = Mapping[str, Any]
Object = dict[str, Any]

KIND: Values = {"profile": "kind"}
PRODUCTION: Values = {
    "etcd": {"external": {"endpoints": ["etcd-0:2379", "etcd-1:2379"]}},
    "postgresql": {"external": {"existingSecret": "postgres"}},
}
# Every switch that adds an object, or a part of one.
EVERYTHING: Values = {
    "commonLabels": {"team": "payments"},
    "settings": {"limits.queues_max": 50, "outage_grace_ms": 20_000},
    "image": {"pullSecrets": [{"name": "registry"}]},
    "frontend": {"replicas": 3, "autoscaling": {"enabled": True}, "pdb": {"enabled": True}},
    "operator": {"replicas": 2, "watchNamespaces": ["orders", "billing"]},
    "broker": {"allowedNamespaces": {"matchLabels": {"lockstep": "yes"}}, "quota": {"maxEntities": 9}},
    "etcd": {
        "external": {
            "endpoints": ["etcd-0:2379", "etcd-1:2390"],
            "existingSecret": "etcd-user",
            "tls": {"enabled": True, "existingSecret": "etcd-tls"},
        }
    },
    "postgresql": {"mode": "cnpg"},
    "podDefaults": {
        "nodeSelector": {"pool": "messaging"},
        "tolerations": [{"key": "messaging", "operator": "Exists"}],
        "priorityClassName": "high",
        "annotations": {"note": "here"},
        "labels": {"tier": "middle"},
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
    },
    "networkPolicy": {
        "clientSelector": {"matchLabels": {"lockstep-client": "true"}},
        "monitoringNamespaceSelector": {"matchLabels": {"name": "monitoring"}},
        "apiServerCIDRs": ["10.0.0.1/32"],
    },
    "monitoring": {
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboards": {"enabled": True},
        "kubeStateMetrics": {"enabled": True, "namespace": "monitoring"},
    },
    "extraObjects": [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "{{ .Release.Name }}-extra"},
            "data": {"key": "value"},
        }
    ],
}  # fmt: skip
PROFILES: Mapping[str, Values] = {
    "kind": KIND,
    "production": PRODUCTION,
    "everything": EVERYTHING,
}


class Refused(Exception):
    """Helm, or the chart, refused the values; the text says why."""


@dataclass(frozen=True, slots=True)
class Container:
    """A container of what was rendered, with the pod that it is in."""

    owner: str
    pod: Object
    spec: Object


@dataclass(frozen=True, slots=True)
class Rendered:
    """What Helm made of the chart, hooks and tests too."""

    objects: list[Object]

    def of(self, kind: str) -> dict[str, Object]:
        """Return the objects of a kind by name."""
        return {one["metadata"]["name"]: one for one in self.objects if one["kind"] == kind}

    def pods(self) -> Iterator[tuple[str, Object]]:
        """Yield each pod, or template of one, with the name of what it belongs to."""
        for one in self.objects:
            name = f"{one['kind']}/{one['metadata']['name']}"
            if one["kind"] == "Pod":
                yield name, one
            elif one["kind"] in ("Deployment", "StatefulSet", "Job"):
                yield name, one["spec"]["template"]

    def containers(self) -> Iterator[Container]:
        """Yield each container, those that come first too."""
        for name, pod in self.pods():
            spec = pod["spec"]
            for container in (*spec.get("initContainers", []), *spec["containers"]):
                yield Container(f"{name}/{container['name']}", pod, container)


def render(
    values: Values, *, chart: Path = CHART, release: str = RELEASE, namespace: str = NAMESPACE
) -> Rendered:
    """Return what Helm makes of the chart with these values.

    Raises:
        Refused: It makes nothing of it.
    """
    try:
        with Chart.load(chart) as loaded:
            made = loaded.render(values=dict(values), name=release, namespace=namespace)
    except HelmError as error:
        raise Refused(str(error)) from error
    return Rendered(
        [one for one in yaml.safe_load_all("\n---\n".join(_texts(made))) if one is not None]
    )


def _texts(made: Any) -> list[str]:
    return [str(text) for path, text in made.items() if not path.endswith("NOTES.txt")]


def merged(*layers: Values) -> dict[str, Any]:
    """Return values laid over each other, the last one on top."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
            result[key] = merged(result[key], value) if both else value
    return result
