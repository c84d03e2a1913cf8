"""The definitions of our kinds as Kubernetes has them, compared with those that this operator was built with.

Here belongs what an older definition lacks. Never here: installing definitions (the chart does). The laws: a newer
definition lacks nothing; one that cannot be read is taken for current; what is lacking is told, and the operator works
with what there is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

import yaml

from lockstep.runtime.clock import Clock
from lockstep_operator.kube import DEFINITIONS, Kube, KubeError
from lockstep_operator.metrics import OperatorMetrics

log = logging.getLogger(__name__)

_AGAIN_MS = 600_000
_SOON_MS = 60_000
_SHOWN_MAX = 5
_PARTS = ("spec", "status")
_OPEN = "x-kubernetes-preserve-unknown-fields"

Body = Mapping[str, Any]


def built_definitions() -> list[Body]:
    """Return the definitions that this operator was built with. Reading them takes a while."""
    folder = resources.files("lockstep_operator").joinpath("crds")
    files = sorted(one.name for one in folder.iterdir() if one.name.endswith(".yaml"))
    return [yaml.safe_load(folder.joinpath(name).read_text()) for name in files]


def missing(built: Body, installed: Body) -> tuple[str, ...]:
    """Return what an installed definition lacks of one that was built in; empty = nothing.

    A field is named by its path, as `kubectl explain` takes it; a value of a choice by its field.
    """
    found: list[str] = []
    there = {one["name"]: one for one in installed["spec"]["versions"] if one.get("served")}
    for version in built["spec"]["versions"]:
        other = there.get(version["name"])
        if other is None:
            found.append(f"version {version['name']}")
            continue
        lacks_status = "status" in version.get("subresources", {}) and (
            "status" not in other.get("subresources", {})
        )
        found += ["subresource status"] if lacks_status else []
        ours, theirs = (one["schema"]["openAPIV3Schema"] for one in (version, other))
        for part in _PARTS:
            wanted = {"properties": _fields(part, ours)}
            found += _lacking(wanted, {**theirs, "properties": _fields(part, theirs)}, "")
    return tuple(found)


def _fields(part: str, schema: Body) -> Body:
    return {name: one for name, one in schema.get("properties", {}).items() if name == part}


def _lacking(ours: Body, theirs: Body, path: str) -> Iterator[str]:
    if theirs.get(_OPEN):
        return
    there = theirs.get("properties", {})
    for name, field in ours.get("properties", {}).items():
        place = f"{path}.{name}" if path else name
        if name not in there:
            yield place
        else:
            yield from _lacking(field, there[name], place)
    allowed = theirs.get("enum")
    if allowed is not None:
        yield from (f"{path}: {value}" for value in ours.get("enum", ()) if value not in allowed)
    for inside in ("items", "additionalProperties"):
        if isinstance(ours.get(inside), Mapping) and isinstance(theirs.get(inside), Mapping):
            yield from _lacking(ours[inside], theirs[inside], path)


class Definitions:
    """What the installed definitions lack."""

    def __init__(self, kube: Kube, clock: Clock, metrics: OperatorMetrics) -> None:
        """Read them through `kube`; nothing is read before `check`."""
        self._kube = kube
        self._clock = clock
        self._metrics = metrics
        self._built: list[Body] = []
        self._missing: dict[str, tuple[str, ...]] = {}
        self._is_refused = False

    @property
    def text(self) -> str:
        """What to tell people of older definitions; empty = there is none."""
        found = [f"{kind} lacks {_shown(what)}" for kind, what in self._missing.items() if what]
        return "; ".join(found)

    def lacks(self, kind: str, path: str) -> bool:
        """Whether the installed definition of a kind has no field of this path."""
        return path in self._missing.get(kind, ())

    async def run(self) -> None:
        """Check now and every ten minutes, or every minute while one is older. Runs until it is cancelled."""
        while True:
            await self.check()
            await self._clock.sleep(_SOON_MS if self.text else _AGAIN_MS)

    async def check(self) -> None:
        """Compare all definitions; one that cannot be read stays as it was known."""
        if not self._built:
            self._built = await asyncio.to_thread(built_definitions)
        for built in self._built:
            name, kind = built["metadata"]["name"], built["spec"]["names"]["kind"]
            try:
                installed = await self._kube.get(DEFINITIONS, None, name)
            except KubeError as error:
                self._refused(name, error)
                continue
            self._told(name, kind, missing(built, installed))

    def _refused(self, name: str, error: KubeError) -> None:
        if not self._is_refused:
            log.info("definition.not_read", extra={"definition": name, "error": str(error)})
        self._is_refused = True

    def _told(self, name: str, kind: str, found: tuple[str, ...]) -> None:
        before = self._missing.get(kind, ())
        self._missing[kind] = found
        self._metrics.outdated.labels(kind).set(bool(found))
        if found and found != before:
            log.warning("definition.outdated", extra={"definition": name, "missing": _shown(found)})
        elif before and not found:
            log.info("definition.current", extra={"definition": name})


def _shown(found: tuple[str, ...]) -> str:
    rest = f" and {len(found) - _SHOWN_MAX} more" if len(found) > _SHOWN_MAX else ""
    return ", ".join(found[:_SHOWN_MAX]) + rest
