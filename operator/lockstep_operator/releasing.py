"""Taking the operator's finalizer out of all objects, before the operator goes for good.

Here belongs that one thing. Never here: queues; they stay in the broker, with their messages.
"""

from __future__ import annotations

import asyncio
import logging

from lockstep_operator.declared import FINALIZER
from lockstep_operator.kube import BROKERS, NAMESPACES, QUEUES, Kube, KubeError
from lockstep_operator.objects import Body, Objects, key_of
from lockstep_operator.settings import OperatorSettings
from lockstep_operator.surroundings import Surroundings

log = logging.getLogger(__name__)

_TRIES = 5
_AT_ONCE = 16


async def release_finalizers(kube: Kube, settings: OperatorSettings) -> int:
    """Take the finalizer out of the objects of our Broker, and return of how many.

    Raises:
        KubeError: Kubernetes refused.
    """
    around = await _surroundings(kube, settings)
    ours: list[Body] = []
    for namespace in settings.watch_namespaces or (None,):
        async for body in kube.list(QUEUES, namespace):
            name = (body.get("spec") or {}).get("brokerName", "default")
            is_ours = name == settings.broker.name and around.is_ours(body)
            if is_ours and FINALIZER in (body["metadata"].get("finalizers") or ()):
                ours.append(body)
    left = iter(ours)

    async def release_some() -> int:
        return sum([await _release(kube, body) for body in left])

    try:
        async with asyncio.TaskGroup() as tasks:
            working = [tasks.create_task(release_some()) for _ in range(_AT_ONCE)]
    except* KubeError as errors:
        raise _first(errors) from None
    return sum(one.result() for one in working)


def _first(group: BaseExceptionGroup[KubeError]) -> KubeError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _surroundings(kube: Kube, settings: OperatorSettings) -> Surroundings:
    """Return what tells our objects from those of another Broker that has the same name."""
    objects = Objects()
    if not settings.watch_namespaces:
        for resource in (NAMESPACES, BROKERS):
            async for body in kube.list(resource):
                objects.put(key_of(resource.kind, body), body)
    return Surroundings(settings, objects, kube)


async def _release(kube: Kube, body: Body) -> bool:
    namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
    for attempt in range(1, _TRIES + 1):
        metadata = body["metadata"]
        others = [one for one in metadata.get("finalizers") or () if one != FINALIZER]
        change = {
            "metadata": {
                "finalizers": others or None,
                "resourceVersion": metadata["resourceVersion"],
            }
        }
        try:
            await kube.patch(QUEUES, namespace, name, change)
        except KubeError as error:
            if error.is_gone:
                return False
            if not error.is_conflict or attempt == _TRIES:
                raise
            body = await kube.get(QUEUES, namespace, name)
        else:
            log.info("finalizer.released", extra={"object": f"{namespace}/{name}"})
            return True
    return False
