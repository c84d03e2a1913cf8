"""Hearing of objects: kopf's watch, and nothing else of kopf.

Here belongs the way from Kubernetes' watch to the work queue. Never here: what is done about an object. The laws: a
handler only remembers and puts in, so it never fails; kopf keeps nothing in objects.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import kopf

from lockstep_operator.kube import BROKERS, NAMESPACES, QUEUES, RESUBMISSIONS, Resource

log = logging.getLogger(__name__)

# Never written: no handler of ours needs kopf's own finalizer. It must differ from ours all the same.
_KOPF_FINALIZER = "lockstep.dev/kopf"

Heard = Callable[[Resource, str, Mapping[str, Any]], None]
"""Told of each event: the kind of object, what happened ("" = it was listed), the object."""


def login() -> kopf.ConnectionInfo:
    """Return how to reach Kubernetes: the pod's service account, else the kubeconfig.

    Raises:
        kopf.LoginError: There is neither.
    """
    settings = kopf.OperatorSettings()
    info = kopf.login_with_service_account(settings=settings) or kopf.login_with_kubeconfig(
        settings=settings
    )
    if info is None:
        raise kopf.LoginError(
            "There is no way to Kubernetes: this is no pod with a service account, and neither KUBECONFIG nor"
            " ~/.kube/config names a cluster."
        )
    return info


def _settings(*, is_clusterwide: bool) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.persistence.finalizer = _KOPF_FINALIZER
    settings.watching.server_timeout = 600
    settings.watching.client_timeout = 660
    settings.watching.chunk_size = 500
    settings.networking.connect_timeout = 5
    settings.networking.request_timeout = 30
    settings.scanning.disabled = not is_clusterwide
    return settings


async def watch(
    heard: Heard,
    *,
    namespaces: tuple[str, ...],
    login: Callable[[], kopf.ConnectionInfo],
    stop: asyncio.Event,
) -> None:
    """Tell of objects until `stop` is set.

    Args:
        heard: Told of each event.
        namespaces: Which are watched; none = all, and the namespaces themselves too.
        login: Reads the credentials.
        stop: Ends the watch.

    Raises:
        Exception: Kubernetes refused the watch for about a minute, or the definitions of our objects are gone.
    """
    registry = kopf.OperatorRegistry()

    # Kopf has one extra argument for each thing that a handler may want.
    async def log_in(**_: Any) -> kopf.ConnectionInfo:
        return login()

    kopf.on.login(registry=registry)(log_in)
    for resource in (QUEUES, BROKERS, RESUBMISSIONS, *(() if namespaces else (NAMESPACES,))):
        _listen(registry, resource, heard)
    where: dict[str, Any] = (
        {"namespaces": list(namespaces)} if namespaces else {"clusterwide": True}
    )
    await kopf.operator(
        registry=registry,
        settings=_settings(is_clusterwide=not namespaces),
        stop_flag=stop,
        **where,
    )


def _listen(registry: kopf.OperatorRegistry, resource: Resource, heard: Heard) -> None:
    async def tell(event: Mapping[str, Any], **_: Any) -> None:
        heard(resource, event.get("type") or "", event["object"])

    group = (resource.group,) if resource.group else ("",)
    kopf.on.event(*group, resource.version, resource.plural, id=resource.plural, registry=registry)(
        tell
    )
