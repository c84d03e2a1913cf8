"""A client of Kubernetes' API for tests: what `kubectl` does, without `kubectl`."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import aiohttp

from lockstep.runtime.clock import SystemClock

CALL_S = 30
_WATCHES_MAX = 20
_AGAIN_MS = 500
_clock = SystemClock()
Body = dict[str, Any]


class Kind(NamedTuple):
    """A kind of object: where the server keeps it."""

    api_version: str
    kind: str
    plural: str
    is_namespaced: bool = True


QUEUE = Kind("lockstep.dev/v1alpha1", "Queue", "queues")
BROKER = Kind("lockstep.dev/v1alpha1", "Broker", "brokers")
RESUBMISSION = Kind("lockstep.dev/v1alpha1", "DeadLetterResubmission", "deadletterresubmissions")
CRD = Kind(
    "apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", False
)
NAMESPACE = Kind("v1", "Namespace", "namespaces", False)
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
EVENT = Kind("v1", "Event", "events")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
ROLE = Kind("rbac.authorization.k8s.io/v1", "Role", "roles")
ROLE_BINDING = Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")
CLUSTER_ROLE = Kind("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", False)
CLUSTER_ROLE_BINDING = Kind(
    "rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", False
)
KINDS = {
    (one.api_version, one.kind): one
    for one in (
        *(QUEUE, BROKER, RESUBMISSION, CRD, NAMESPACE, CONFIG_MAP, SERVICE_ACCOUNT, EVENT, LEASE),
        *(ROLE, ROLE_BINDING, CLUSTER_ROLE, CLUSTER_ROLE_BINDING),
    )
}

_MERGE = "application/merge-patch+json"
_APPLY = "application/apply-patch+yaml"
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


class Refused(Exception):
    """The server refused; `causes` are pairs of a field and what is wrong with it."""

    def __init__(self, status: Mapping[str, Any]) -> None:
        super().__init__(status.get("message", ""))
        self.code: int = status.get("code", 0)
        self.reason: str = status.get("reason", "")
        details = status.get("details") or {}
        self.causes = [
            (one.get("field", ""), one.get("message", "")) for one in details.get("causes") or ()
        ]


class KubeClient:
    """Calls of one user. It is an asynchronous context manager."""

    def __init__(self, url: str, token: str, ca_file: Path) -> None:
        self._url = url
        self._token = token
        self._ca_file = ca_file
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        trusted = ssl.create_default_context(cafile=str(self._ca_file))
        self._session = aiohttp.ClientSession(
            self._url,
            connector=aiohttp.TCPConnector(ssl=trusted),
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=aiohttp.ClientTimeout(CALL_S),
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._session is not None
        await self._session.close()

    # --- objects ---

    async def create(self, body: Body, *, dry_run: bool = False) -> Body:
        """Create an object."""
        query = {"dryRun": "All"} if dry_run else {}
        return await self.call("POST", self._path_of(body, named=False), body, query=query)

    async def apply(
        self,
        body: Body,
        *,
        manager: str = "test",
        force: bool = True,
        subresource: str = "",
        text: str = "",
    ) -> Body:
        """Make an object be what is given, as `kubectl apply --server-side` does; `text` is it, as YAML."""
        query = {"fieldManager": manager, "force": str(force).lower()}
        path = self._path_of(body) + (f"/{subresource}" if subresource else "")
        return await self.call("PATCH", path, text or body, query=query, content_type=_APPLY)

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Body:
        """Return an object."""
        return await self.call("GET", path(kind, namespace, name))

    async def list_all(self, kind: Kind, namespace: str = "", **query: str) -> list[Body]:
        """Return objects, of one namespace or of all; `fieldSelector` and the like narrow them."""
        found = await self.call("GET", path(kind, namespace), query=query)
        items: list[Body] = found["items"]
        return items

    async def patch(
        self, kind: Kind, name: str, namespace: str, change: Body, *, subresource: str = ""
    ) -> Body:
        """Merge a change into an object, or into its `status`."""
        where = path(kind, namespace, name) + (f"/{subresource}" if subresource else "")
        return await self.call("PATCH", where, change, content_type=_MERGE)

    async def delete(self, kind: Kind, name: str, namespace: str = "") -> Body:
        """Ask for the deletion of an object; its finalizers may hold it."""
        return await self.call("DELETE", path(kind, namespace, name))

    async def columns(self, kind: Kind, namespace: str = "") -> tuple[Body, list[Body]]:
        """Return what `kubectl get` shows: the columns with their priorities, and a dictionary for each object."""
        table = await self.call("GET", path(kind, namespace), accept=_TABLE)
        names = [column["name"] for column in table["columnDefinitions"]]
        rows = [dict(zip(names, row["cells"], strict=True)) for row in table["rows"]]
        return {one["name"]: one["priority"] for one in table["columnDefinitions"]}, rows

    async def make_namespace(self, name: str, **labels: str) -> str:
        """Create a namespace and return its name."""
        metadata = {"name": name, "labels": labels}
        await self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        return name

    async def token_for(self, account: str, namespace: str) -> str:
        """Make a service account and return a token of it; what it may do is said by roles, as for a pod."""
        metadata = {"name": account, "namespace": namespace}
        await self.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        request: Body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        where = f"{path(SERVICE_ACCOUNT, namespace, account)}/token"
        answer = await self.call("POST", where, {**request, "spec": {"expirationSeconds": 7200}})
        token: str = answer["status"]["token"]
        return token

    async def install(self, definitions: Iterable[Body]) -> None:
        """Apply custom resource definitions, and return when the server serves them.

        Raises:
            Refused: The server does not take one of them, for its structure or for the cost of its rules.
        """
        for body in definitions:
            await self.apply(body)
            name = body["metadata"]["name"]
            for _ in range(_WATCHES_MAX):
                if await self._is_established(name):
                    break
                await _clock.sleep(_AGAIN_MS)
            else:
                raise AssertionError(f"{name} is not served")

    # --- calls ---

    async def call(
        self,
        method: str,
        where: str,
        body: Body | str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Body:
        """Call the server and return what it answers.

        Raises:
            Refused: It answered with an error.
        """
        assert self._session is not None, "enter the client first"
        headers = {"Accept": accept, "Content-Type": content_type}
        data = body if body is None or isinstance(body, str) else json.dumps(body)
        async with self._session.request(
            method, where, params=query, data=data, headers=headers
        ) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise Refused(_status(answer.status, text))
        found: Body = json.loads(text)
        return found

    async def _is_established(self, name: str) -> bool:
        """Watch a definition until it says that it is served; False when the watch ends before.

        A watch may end with an error of its own, for instance when the server's cache begins anew.
        """
        assert self._session is not None
        query = {"watch": "true", "fieldSelector": f"metadata.name={name}", "timeoutSeconds": "20"}
        async with self._session.get(path(CRD), params=query) as stream:
            async for line in stream.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return False
                conditions = event["object"].get("status", {}).get("conditions")
                if any(
                    c["type"] == "Established" and c["status"] == "True" for c in conditions or ()
                ):
                    return True
        return False

    def _path_of(self, body: Body, *, named: bool = True) -> str:
        kind = KINDS[body["apiVersion"], body["kind"]]
        metadata = body["metadata"]
        return path(kind, metadata.get("namespace", ""), metadata["name"] if named else "")


def path(kind: Kind, namespace: str = "", name: str = "") -> str:
    """Return where the server keeps objects of a kind, or one of them."""
    base = "/api" if "/" not in kind.api_version else "/apis"
    within = f"/namespaces/{namespace}" if namespace and kind.is_namespaced else ""
    return f"{base}/{kind.api_version}{within}/{kind.plural}" + (f"/{name}" if name else "")


def _status(code: int, text: str) -> Body:
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return {"code": code, "message": text}
    return found if isinstance(found, dict) else {"code": code, "message": text}
