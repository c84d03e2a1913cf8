"""Calls to Kubernetes' API: list, read, patch, create.

Here belong requests, their retries and their errors. Never here: watching (`watching`, by kopf), or what is written.
The laws: a request that Kubernetes was too busy for is tried again after the pause that it asks for; a refused
credential is read anew once; every request is counted.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from kopf import ConnectionInfo

from lockstep.runtime.clock import Clock

log = logging.getLogger(__name__)

_TRIES = 4
_FIRST_PAUSE_MS = 250
_PAUSE_MS_MAX = 10_000
_PAGE = 500
_BUSY = frozenset({429, 500, 502, 503, 504})
_MERGE = "application/merge-patch+json"
_APPLY = "application/apply-patch+yaml"
FIELD_MANAGER = "lockstep-operator"


class KubeError(Exception):
    """Kubernetes refused a request, or did not answer.

    Attributes:
        code: The HTTP status; 0 = no answer.
        reason: Kubernetes' word for it, such as `NotFound`.
    """

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{message} ({code} {reason})" if code else message)
        self.code = code
        self.reason = reason

    @property
    def is_gone(self) -> bool:
        """Whether the object is not there."""
        return self.code == 404

    @property
    def is_conflict(self) -> bool:
        """Whether the object is not as it was read."""
        return self.code in (409, 422)

    @property
    def is_namespace_going(self) -> bool:
        """Whether nothing can be made because the namespace is being deleted."""
        return self.code == 403 and "being terminated" in str(self)


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of objects, and where they are.

    Attributes:
        group: The API group; empty = the core.
        version: Of the group.
        plural: As paths have it.
        kind: As objects have it.
        target: What requests for it are counted as.
    """

    group: str
    version: str
    plural: str
    kind: str
    target: str = "object"

    @property
    def api_version(self) -> str:
        """As objects have it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """Return the path of an object, or of all; `namespace` None = of every namespace."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        inside = f"/namespaces/{namespace}" if namespace is not None else ""
        tail = "".join(f"/{part}" for part in (name, subresource) if part)
        return f"{root}{inside}/{self.plural}{tail}"


QUEUES = Resource("lockstep.dev", "v1alpha1", "queues", "Queue")
BROKERS = Resource("lockstep.dev", "v1alpha1", "brokers", "Broker")
RESUBMISSIONS = Resource(
    "lockstep.dev", "v1alpha1", "deadletterresubmissions", "DeadLetterResubmission"
)
NAMESPACES = Resource("", "v1", "namespaces", "Namespace")
EVENTS = Resource("", "v1", "events", "Event", "event")
DEFINITIONS = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    "definition",
)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", "lease")

Counted = Callable[[str, str, int], None]
"""Told of each request: its verb, its target, the HTTP status (0 = no answer)."""


class Kube:
    """A connection to Kubernetes' API. Use it as `async with`."""

    def __init__(
        self,
        login: Callable[[], ConnectionInfo],
        *,
        clock: Clock,
        counted: Counted | None = None,
        request_timeout_s: float = 30,
    ) -> None:
        """Make a connection; nothing is sent yet.

        Args:
            login: Reads the credentials, at the start and whenever they were refused.
            clock: Of pauses.
            counted: Told of each request.
            request_timeout_s: Seconds that one try may take.
        """
        self._login = login
        self._clock = clock
        self._counted = counted
        self._timeout = aiohttp.ClientTimeout(total=request_timeout_s, sock_connect=5)
        self._connection: _Connection | None = None

    async def __aenter__(self) -> Self:
        self._connection = self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            await self._connection.session.close()

    def _open(self) -> _Connection:
        info = self._login()
        connector = aiohttp.TCPConnector(ssl=info.as_ssl_context(), limit=64)
        session = aiohttp.ClientSession(
            connector=connector, headers=info.as_http_headers(), timeout=self._timeout
        )
        return _Connection(info.server.rstrip("/"), session)

    async def _open_again(self, refused: _Connection) -> None:
        """Connect with the credentials as they are now; requests that began before end as they began."""
        if self._connection is not refused:
            return  # another request did so meanwhile
        self._connection = self._open()
        refused.is_old = True
        if not refused.requests:
            await refused.session.close()

    # --- what is asked -----------------------------------------------------------------------------

    async def get(self, resource: Resource, namespace: str | None, name: str) -> dict[str, Any]:
        """Return an object.

        Raises:
            KubeError: It is not there, or Kubernetes refused.
        """
        return await self._call("get", resource, resource.path(namespace, name))

    async def list(
        self, resource: Resource, namespace: str | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield all objects, in pages of 500.

        Raises:
            KubeError: Kubernetes refused.
        """
        token = ""
        while True:
            query = {"limit": str(_PAGE), **({"continue": token} if token else {})}
            page = await self._call("list", resource, resource.path(namespace), query=query)
            for item in page.get("items") or ():
                yield {"apiVersion": resource.api_version, "kind": resource.kind, **item}
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return

    async def create(
        self,
        resource: Resource,
        namespace: str | None,
        body: Mapping[str, Any],
        *,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Create an object and return it; a dry run only asks whether that would be allowed.

        Raises:
            KubeError: It is there already, or Kubernetes refused.
        """
        query = {"dryRun": "All"} if dry_run else None
        path = resource.path(namespace)
        return await self._call("create", resource, path, body=body, query=query)

    async def replace(
        self, resource: Resource, namespace: str | None, name: str, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Replace an object; its resourceVersion says which state of it is meant.

        Raises:
            KubeError: It changed meanwhile, or Kubernetes refused.
        """
        return await self._call("update", resource, resource.path(namespace, name), body=body)

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        changes: Mapping[str, Any],
        *,
        subresource: str = "",
    ) -> dict[str, Any]:
        """Merge changes into an object, or into its status, and return it.

        Raises:
            KubeError: It is not there, changed meanwhile, or Kubernetes refused.
        """
        path = resource.path(namespace, name, subresource)
        target = subresource or resource.target
        return await self._call("patch", resource, path, body=changes, form=_MERGE, target=target)

    async def apply(
        self, resource: Resource, namespace: str | None, name: str, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Make an object have certain fields (server-side apply), and return it. Others may own other fields of it.

        Raises:
            KubeError: Kubernetes refused.
        """
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        path = resource.path(namespace, name)
        return await self._call("apply", resource, path, body=body, form=_APPLY, query=query)

    async def delete(
        self, resource: Resource, namespace: str | None, name: str, *, uid: str
    ) -> None:
        """Delete the object with a uid.

        Raises:
            KubeError: It is not there, is another one, or Kubernetes refused.
        """
        path = resource.path(namespace, name)
        await self._call("delete", resource, path, body={"preconditions": {"uid": uid}})

    # --- how it is asked ---------------------------------------------------------------------------

    async def _call(
        self,
        verb: str,
        resource: Resource,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        form: str = "application/json",
        query: Mapping[str, str] | None = None,
        target: str = "",
    ) -> dict[str, Any]:
        method = _METHODS[verb]
        pause_ms = _FIRST_PAUSE_MS
        for attempt in range(1, _TRIES + 1):
            try:
                return await self._try(
                    method, path, body, form, query, (verb, target or resource.target)
                )
            except _Busy as busy:
                # A second creation would fail although the first one went through unseen.
                is_last = attempt == _TRIES or (busy.error.code == 0 and verb == "create")
                if is_last:
                    raise busy.error from None
                asked_ms = busy.retry_after_s * 1000
                await self._clock.sleep(
                    min(max(asked_ms, random.randrange(pause_ms)), _PAUSE_MS_MAX)
                )
                pause_ms *= 2
            except _Unauthorized as refused:
                if attempt > 1:
                    raise refused.error from None
                await self._open_again(refused.connection)
        raise AssertionError("the last try returned or raised")

    def _count(self, verb: str, target: str, code: int) -> None:
        if self._counted is not None:
            self._counted(verb, target, code)

    async def _try(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        form: str,
        query: Mapping[str, str] | None,
        counted_as: tuple[str, str],
    ) -> dict[str, Any]:
        connection = self._connection
        assert connection is not None, "the connection is not open"
        headers = {"Content-Type": form, "Accept": "application/json"}
        try:
            async with (
                connection.used(),
                connection.session.request(
                    method, connection.server + path, json=body, params=query, headers=headers
                ) as response,
            ):
                self._count(*counted_as, response.status)
                if response.status < 400:
                    found: dict[str, Any] = await response.json()
                    return found
                if response.status == 401:
                    raise _Unauthorized(await _error(response), connection)
                raise await _refusal(response)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            self._count(*counted_as, 0)
            message = f"Kubernetes' API does not answer: {str(error) or type(error).__name__}"
            raise _Busy(KubeError(0, "NoAnswer", message)) from error


_METHODS: Mapping[str, str] = {
    "get": "GET",
    "list": "GET",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
    "apply": "PATCH",
}


class _Busy(Exception):
    """A request that may be tried again."""

    def __init__(self, error: KubeError, retry_after_s: int = 0) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after_s = retry_after_s


class _Unauthorized(Exception):
    """The credentials of a connection were refused."""

    def __init__(self, error: KubeError, connection: _Connection) -> None:
        super().__init__(str(error))
        self.error = error
        self.connection = connection


@dataclass(slots=True)
class _Connection:
    """Connections with one set of credentials.

    Attributes:
        server: The address of the API.
        session: Sends requests.
        requests: How many are under way.
        is_old: Whether there are newer credentials: it is closed when no request is under way.
    """

    server: str
    session: aiohttp.ClientSession
    requests: int = 0
    is_old: bool = False

    @asynccontextmanager
    async def used(self) -> AsyncIterator[None]:
        """Count a request while the block runs."""
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1
            if self.is_old and not self.requests:
                await self.session.close()


async def _error(response: aiohttp.ClientResponse) -> KubeError:
    try:
        told = await response.json(content_type=None)
    except (ValueError, aiohttp.ClientError):
        told = None
    told = told if isinstance(told, Mapping) else {}
    message = str(told.get("message") or response.reason or "no reason given")
    return KubeError(response.status, str(told.get("reason") or ""), message)


async def _refusal(response: aiohttp.ClientResponse) -> Exception:
    error = await _error(response)
    if response.status in _BUSY:
        after = response.headers.get("Retry-After", "")
        return _Busy(error, int(after) if after.isdigit() else 0)
    return error
