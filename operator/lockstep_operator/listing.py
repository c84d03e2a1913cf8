"""Listing all objects: at the start, and now and then beside the watch.

Here belongs the comparison of what is known with what there is. Never here: what follows from it (`hearing`). The
law: a watch that begins anew does not tell of objects that went meanwhile; a list does, so nothing that is gone is
kept for long.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator
from typing import Any, Protocol

from lockstep.runtime.clock import Clock
from lockstep_operator.hearing import Hearing
from lockstep_operator.kube import BROKERS, NAMESPACES, QUEUES, RESUBMISSIONS, KubeError, Resource
from lockstep_operator.objects import Objects

log = logging.getLogger(__name__)

_FIRST_MS = 60_000
_PAUSE_MS = 500
_AGAIN_MS = 60_000
_JITTER = 0.1


class Lists(Protocol):
    """Where objects are listed: `kube.Kube`."""

    def list(
        self, resource: Resource, namespace: str | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield all objects of a kind; `namespace` None = of every namespace."""
        ...


class Listing:
    """Lists all objects."""

    def __init__(
        self,
        kube: Lists,
        objects: Objects,
        hearing: Hearing,
        clock: Clock,
        namespaces: tuple[str, ...],
    ) -> None:
        """List the objects of `namespaces`, none = of all, and tell `hearing`."""
        self._kube = kube
        self._objects = objects
        self._hearing = hearing
        self._clock = clock
        self._namespaces = namespaces
        self.is_done = False

    async def first(self) -> None:
        """Hear of all objects once, before anything is done: who declares what must be known then.

        Raises:
            KubeError: Kubernetes refused for a minute: the definitions or the roles of the chart are missing.
        """
        until_ms = self._clock.monotonic_ms() + _FIRST_MS
        while not self.is_done:
            try:
                await self.once()
            except KubeError as error:
                if self._clock.monotonic_ms() >= until_ms:
                    raise
                log.warning("list.refused", extra={"error": str(error)})
                await self._clock.sleep(_PAUSE_MS)

    async def run(self, interval_s: int) -> None:
        """List again a minute after the first time, then every so many seconds; runs until it is cancelled."""
        delay_ms = _AGAIN_MS
        while True:
            await self._clock.sleep(round(delay_ms * (1 + random.uniform(-_JITTER, _JITTER))))
            delay_ms = interval_s * 1000
            try:
                await self.once()
            except KubeError as error:
                log.warning("list.refused", extra={"error": str(error)})

    async def once(self) -> None:
        """List everything, and forget what is not there any more.

        Raises:
            KubeError: Kubernetes refused.
        """
        if not self._namespaces:
            await self._list(NAMESPACES, None)
        for resource in (BROKERS, RESUBMISSIONS, QUEUES):
            for namespace in self._namespaces or (None,):
                await self._list(resource, namespace)
        self.is_done = True

    async def _list(self, resource: Resource, namespace: str | None) -> None:
        known = [
            (key, str(body["metadata"].get("uid", "")))
            for key, body in self._objects.all(resource.kind)
            if namespace in (None, key.namespace)
        ]
        there = set()
        async for body in self._kube.list(resource, namespace):
            there.add(body["metadata"].get("uid", ""))
            self._hearing.heard(resource, "", body)
        for key, uid in known:
            if uid not in there and self._objects.drop(key, uid):
                log.info("object.gone_unheard", extra={"object": str(key), "kind": key.kind})
