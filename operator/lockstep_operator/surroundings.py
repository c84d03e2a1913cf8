"""What is around an object: its Broker, its namespace, who else declares its queue.

Here belongs what a plan looks at beside the object and the broker. Never here: what follows from it (`plan`). The
law: what is about to be taken from another object is confirmed by a live read of that object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lockstep_operator.declared import DeclaredQueue, InvalidSpec, read_queue
from lockstep_operator.kube import BROKERS, EVENTS, QUEUES, Kube, KubeError
from lockstep_operator.objects import Body, Key, Objects, key_of
from lockstep_operator.plan import Entity
from lockstep_operator.settings import OperatorSettings

NAMESPACE = "Namespace"
_OF_RIVALS = frozenset({"brokerName", "entityName", "managementPolicy"})


class Surroundings:
    """Looks around an object."""

    def __init__(self, settings: OperatorSettings, objects: Objects, kube: Kube) -> None:
        """Look at `objects`, and at Kubernetes where they are not enough."""
        self._settings = settings
        self._objects = objects
        self._kube = kube
        broker = settings.broker
        self._our_broker = Key(BROKERS.kind, broker.namespace, broker.name)
        self._claims: dict[tuple[str, str], set[Key]] = {}

    # --- names -------------------------------------------------------------------------------------

    def broker_namespace(self, namespace: str) -> str:
        """Return the broker namespace of a Kubernetes namespace."""
        return "default" if self._settings.broker.is_flat else namespace

    def path_of(self, queue: DeclaredQueue) -> str:
        """Return how people name the queue of an object: broker namespace and name."""
        return f"{self.broker_namespace(queue.namespace)}/{queue.entity}"

    # --- who declares what -------------------------------------------------------------------------

    def claim(self, key: Key, body: Body) -> None:
        """Remember which queue an object declares."""
        self._claims.setdefault(self._entity_of(body), set()).add(key)

    def unclaim(self, key: Key, body: Body) -> set[Key]:
        """Forget an object, and return the others that declare its queue."""
        entity = self._entity_of(body)
        others = self._claims.get(entity, set())
        others.discard(key)
        if not others:
            self._claims.pop(entity, None)
        return set(others)

    def _entity_of(self, body: Body) -> tuple[str, str]:
        metadata = body["metadata"]
        name = (body.get("spec") or {}).get("entityName") or metadata["name"]
        return self.broker_namespace(metadata["namespace"]), str(name).lower()

    async def rival(self, queue: DeclaredQueue, entity: Entity | None) -> DeclaredQueue | None:
        """Return the object that keeps the queue, if it is another one, is there, and declares it still.

        Raises:
            KubeError: That could not be found out.
        """
        if entity is None or entity.manager_uid in ("", queue.uid):
            return None
        body = await self._keeper(entity)
        if body is None:
            return None
        try:
            other = read_queue(body)
        except InvalidSpec:
            # It keeps the queue all the same; a newer operator may understand it.
            known = {k: v for k, v in (body.get("spec") or {}).items() if k in _OF_RIVALS}
            other = read_queue({**body, "spec": known})
        same = self._entity_of(body) == (
            self.broker_namespace(queue.namespace),
            queue.entity.lower(),
        )
        return other if same and not other.observes_only else None

    async def _keeper(self, entity: Entity) -> Body | None:
        namespace, _, name = entity.manager_source.partition("/")
        key = self._objects.by_uid(entity.manager_uid)
        if key is not None:
            namespace, name = key.namespace, key.name
        if not name:
            return None
        try:
            body = await self._kube.get(QUEUES, namespace, name)
        except KubeError as error:
            if error.is_gone:
                return None
            raise
        if body["metadata"]["uid"] != entity.manager_uid:
            return None
        return {"apiVersion": QUEUES.api_version, "kind": QUEUES.kind, **body}

    # --- the Broker --------------------------------------------------------------------------------

    def is_ours(self, body: Body) -> bool:
        """Whether this operator answers for an object: it names our Broker, or one that nobody has.

        Several Brokers may have one name in different namespaces; an object belongs to that which allows its namespace.
        """
        name = (body.get("spec") or {}).get("brokerName", "default")
        namespace = body["metadata"]["namespace"]
        others = [
            one
            for one, _ in self._objects.all(BROKERS.kind)
            if one.name == name and one != self._our_broker
        ]
        if name != self._our_broker.name:
            # Who sees some namespaces only cannot tell whether the Broker is in another one.
            return not others and not self._settings.watch_namespaces
        return self.allows(self._our_broker, namespace) or not any(
            self.allows(one, namespace) for one in others
        )

    async def has_broker(self, queue: DeclaredQueue) -> bool:
        """Whether the Broker of an object of ours is there.

        Raises:
            KubeError: That could not be found out.
        """
        if queue.broker != self._our_broker.name:
            return False
        if self._objects.get(self._our_broker) is not None:
            return True
        try:
            body = await self._kube.get(BROKERS, self._our_broker.namespace, self._our_broker.name)
        except KubeError as error:
            if error.is_gone:
                return False
            raise
        self._objects.learn(key_of(BROKERS.kind, body), body)
        return True

    def quota(self) -> tuple[int | None, int | None]:
        """Return how many queues objects may have the broker make: in all, in one namespace; None = any number."""
        body = self._objects.get(self._our_broker)
        spec = (body.get("spec") or {}) if body else self._settings.broker.spec
        given = spec.get("quota") or {}
        return given.get("maxEntities"), given.get("maxEntitiesPerNamespace")

    def allows_ours(self, namespace: str) -> bool:
        """Whether our Broker takes objects of a namespace; namespaces that the operator was told to watch are taken."""
        return namespace in self._settings.watch_namespaces or self.allows(
            self._our_broker, namespace
        )

    def allows(self, broker: Key, namespace: str) -> bool:
        """Whether a Broker takes objects of a namespace: its own, and those with the labels that it names."""
        if namespace == broker.namespace:
            return True
        body = self._objects.get(broker)
        if body is not None:
            selector = (body.get("spec") or {}).get("allowedNamespaces")
        else:
            ours = broker == self._our_broker
            selector = self._settings.broker.spec.get("allowedNamespaces") if ours else None
        if selector is None:
            return False
        found = self._objects.get(Key(NAMESPACE, "", namespace))
        labels = (found or {}).get("metadata", {}).get("labels") or {}
        return found is not None and matches(selector, labels)

    def is_going(self, namespace: str) -> bool:
        """Whether a namespace is being deleted, as far as that is known."""
        found = self._objects.get(Key(NAMESPACE, "", namespace))
        return found is not None and bool(found["metadata"].get("deletionTimestamp"))

    async def finds_going(self, namespace: str) -> bool:
        """Find out whether a namespace is being deleted, where namespaces are not watched: nothing can be made in it.

        Raises:
            KubeError: That could not be found out.
        """
        if not self._settings.watch_namespaces:
            return False
        name = "lockstep-namespace-check"
        event = {
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {"kind": NAMESPACE, "name": namespace, "namespace": namespace},
            "reason": "Check",
        }
        try:
            await self._kube.create(EVENTS, namespace, event, dry_run=True)
        except KubeError as error:
            if not error.is_namespace_going:
                raise
            return True
        return False


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether labels are what a label selector asks for; an empty one asks for nothing."""
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(name) != value for name, value in wanted.items()):
        return False
    return all(_holds(one, labels) for one in selector.get("matchExpressions") or ())


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    name, values = expression["key"], expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return labels.get(name) in values
        case "NotIn":
            return labels.get(name) not in values
        case "Exists":
            return name in labels
        case "DoesNotExist":
            return name not in labels
    return False
