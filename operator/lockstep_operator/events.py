"""Events of Kubernetes: what people see with `kubectl describe`.

Here belongs their form and how seldom they come. Never here: which there are (`plan`). The laws: the same event of an
object comes at most every 10 minutes; events never delay the work, and when too many wait, the newest are dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from lockstep.runtime.clock import Clock
from lockstep.runtime.ids import IdSource
from lockstep_operator.kube import EVENTS, FIELD_MANAGER, Kube, KubeError
from lockstep_operator.objects import Key
from lockstep_operator.plan import Event
from lockstep_operator.status import time_text

log = logging.getLogger(__name__)

_AGAIN_MS = 600_000
_WAITING_MAX = 1_000
_PAUSE_MS = 50
_TEXT_MAX = 1_000


class Events:
    """Tells events, one after the other."""

    def __init__(self, kube: Kube, clock: Clock, ids: IdSource) -> None:
        """Tell through `kube`; nothing is sent before `run`."""
        self._ids = ids
        self._kube = kube
        self._clock = clock
        self._told: dict[tuple[str, str], int] = {}
        self._waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_WAITING_MAX)
        self._instance = f"{FIELD_MANAGER}-{ids.uid()[:8]}"

    def tell(self, key: Key, body: Mapping[str, Any], event: Event, *, of: str = "") -> None:
        """Have an event of an object told, if it was not a short while ago.

        Args:
            key: The object.
            body: It.
            event: What happened.
            of: What else it happened to: each such thing is told of by itself.
        """
        now = self._clock.monotonic_ms()
        uid = body["metadata"].get("uid", "") + of
        last = self._told.get((uid, event.reason))
        if last is not None and now - last < _AGAIN_MS:
            return
        if len(self._told) > _WAITING_MAX * 10:
            self._told = {k: at for k, at in self._told.items() if now - at < _AGAIN_MS}
        self._told[uid, event.reason] = now
        try:
            self._waiting.put_nowait(self._form(key, body, event))
        except asyncio.QueueFull:
            log.warning("event.dropped", extra={"object": str(key), "reason": event.reason})

    def _form(self, key: Key, body: Mapping[str, Any], event: Event) -> dict[str, Any]:
        at = time_text(self._clock.now_ms())
        return {
            "metadata": {
                "name": f"{key.name[:200]}.{self._ids.uid()[:16]}",
                "namespace": key.namespace,
            },
            "involvedObject": {
                "apiVersion": body.get("apiVersion", "lockstep.dev/v1alpha1"),
                "kind": key.kind,
                "name": key.name,
                "namespace": key.namespace,
                "uid": body["metadata"].get("uid", ""),
            },
            "type": event.kind,
            "reason": event.reason,
            "message": event.message[:_TEXT_MAX],
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "reportingInstance": self._instance,
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }

    async def run(self) -> None:
        """Send what is told; runs until it is cancelled."""
        while True:
            form = await self._waiting.get()
            try:
                await self._kube.create(EVENTS, form["metadata"]["namespace"], form)
            except KubeError as error:
                log.info("event.refused", extra={"reason": form["reason"], "error": str(error)})
            await self._clock.sleep(_PAUSE_MS)
