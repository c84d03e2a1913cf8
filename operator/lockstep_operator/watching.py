"""Hearing of objects: kopf's watch, and nothing else of kopf.

Here belongs the way from Kubernetes' watch to the work queue. Never here: what is done about an object. The laws: a
handler only remembers and puts in, so it never fails; kopf keeps nothing in objects.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import threading
from collections.abc import Callable, Mapping
from typing import Any

import kopf

from lockstep.runtime.clock import Clock
from lockstep_operator.kube import BROKERS, NAMESPACES, QUEUES, RESUBMISSIONS, Resource

log = logging.getLogger(__name__)

# Never written: no handler of ours needs kopf's own finalizer. It must differ from ours all the same.
_KOPF_FINALIZER = "lockstep.dev/kopf"

# A TLS connection is closed when the other side has said so too; a loop that ended before would leave it open.
_GOODBYE_MS = 100

Heard = Callable[[Resource, str, Mapping[str, Any]], None]
"""Told of each event: the kind of object, what happened ("" = it was listed), the object."""


class WatchEnded(Exception):
    """Nothing would be heard of objects any more; a new process watches again."""


class ClusterConnection(kopf.ConnectionInfo):
    """How to reach a cluster, whose authority may lack what Python 3.13 began to demand.

    Clusters make their own authorities, and those of some lack the extensions for key usage or key identifiers. Its
    signature is checked as before, and so is the name of the server.
    """

    def as_ssl_context(self) -> ssl.SSLContext:
        """Return a context that forgives those extensions."""
        context = super().as_ssl_context()
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


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
    return ClusterConnection(**vars(info))


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
    clock: Clock,
) -> None:
    """Tell of objects until `stop` is set.

    Kopf has a thread and an event loop of its own: when it ends, it ends every task of its loop that began after it.

    Args:
        heard: Told of each event, in the event loop of the caller.
        namespaces: Which are watched; none = all, and the namespaces themselves too.
        login: Reads the credentials.
        stop: Ends the watch.
        clock: Of the end.

    Raises:
        Exception: Kubernetes refused the watch for about a minute, or the definitions of our objects are gone.
    """
    loop = asyncio.get_running_loop()
    ends = threading.Event()

    def tell(resource: Resource, what: str, body: Mapping[str, Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop of the caller has ended meanwhile
            loop.call_soon_threadsafe(heard, resource, what, body)

    registry = _registry(tell, login, (NAMESPACES,) if not namespaces else ())
    where: dict[str, Any] = (
        {"namespaces": list(namespaces)} if namespaces else {"clusterwide": True}
    )

    async def operate() -> None:
        settings = _settings(is_clusterwide=not namespaces)
        try:
            await kopf.operator(registry=registry, settings=settings, stop_flag=ends, **where)
        finally:
            await clock.sleep(_GOODBYE_MS)

    def run() -> None:
        asyncio.run(operate())

    async def stopped() -> None:
        await stop.wait()
        ends.set()

    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(stopped())
        try:
            await asyncio.to_thread(run)
            if not stop.is_set():
                raise WatchEnded("The watch of Kubernetes ended, and nobody told it to.")
        finally:
            ends.set()
            stopping.cancel()


def _registry(
    tell: Heard, login: Callable[[], kopf.ConnectionInfo], more: tuple[Resource, ...]
) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    # Kopf has one extra argument for each thing that a handler may want.
    async def log_in(**_: Any) -> kopf.ConnectionInfo:
        return login()

    kopf.on.login(registry=registry)(log_in)
    for resource in (QUEUES, BROKERS, RESUBMISSIONS, *more):
        _listen(registry, resource, tell)
    return registry


def _listen(registry: kopf.OperatorRegistry, resource: Resource, tell: Heard) -> None:
    async def take(event: Mapping[str, Any], **_: Any) -> None:
        tell(resource, event.get("type") or "", event["object"])

    kopf.on.event(
        resource.group, resource.version, resource.plural, id=resource.plural, registry=registry
    )(take)
