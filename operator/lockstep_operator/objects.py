"""The objects of Kubernetes, as they were heard of last.

Here belongs what the operator knows without asking. Never here: where it comes from (`watching`). The laws: an older
state of an object never replaces a newer one; an object that was deleted and made again is another one; an object
that is gone does not come back with an answer or a list that is older than its end.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_GONE_MAX = 20_000

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """An object: its kind, namespace and name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def key_of(kind: str, body: Body) -> Key:
    """Return the key of an object."""
    metadata = body["metadata"]
    return Key(kind, metadata.get("namespace", ""), metadata["name"])


class Objects:
    """All objects that the operator heard of."""

    def __init__(self) -> None:
        """Know of none."""
        self._bodies: dict[str, dict[Key, Body]] = {}
        self._by_uid: dict[str, Key] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._dropped: Callable[[Key, Body], None] | None = None
        self._learned: Callable[[Key, Body | None, Body], None] | None = None

    def tell(
        self,
        *,
        learned: Callable[[Key, Body | None, Body], None],
        dropped: Callable[[Key, Body], None],
    ) -> None:
        """Have somebody told of what is found out about objects.

        Args:
            learned: Told of what an answer tells (`learn`): the object, what was known (None = nothing), and what is.
            dropped: Told of each object that is forgotten, with its last state, whoever found out that it is gone.
        """
        self._learned, self._dropped = learned, dropped

    def put(self, key: Key, body: Body) -> bool:
        """Remember a state of an object, and return whether it is newer than what was known."""
        known = self.get(key)
        if body["metadata"].get("uid", "") in self._gone:
            return False
        if known is not None and _version(known) >= _version(body):
            return False
        if known is not None:
            self._by_uid.pop(known["metadata"].get("uid", ""), None)
        self._bodies.setdefault(key.kind, {})[key] = body
        self._by_uid[body["metadata"].get("uid", "")] = key
        return True

    def learn(self, key: Key, body: Body) -> None:
        """Remember a state that an answer of Kubernetes tells.

        It may hold what somebody else changed meanwhile. The event of that change tells nothing new afterwards, so
        what follows from it follows now.
        """
        known = self.get(key)
        if self.put(key, body) and self._learned is not None:
            self._learned(key, known, body)

    def drop(self, key: Key, uid: str = "") -> bool:
        """Forget an object that is gone, or only the one with a uid, and return whether it was known."""
        known = self.get(key)
        self._bury(uid or str((known or {}).get("metadata", {}).get("uid", "")))
        if known is None or (uid and known["metadata"].get("uid") != uid):
            return False
        del self._bodies[key.kind][key]
        self._by_uid.pop(known["metadata"].get("uid", ""), None)
        if self._dropped is not None:
            self._dropped(key, known)
        return True

    def _bury(self, uid: str) -> None:
        if uid:
            self._gone[uid] = None
        if len(self._gone) > _GONE_MAX:
            self._gone.popitem(last=False)

    def get(self, key: Key) -> Body | None:
        """Return an object; None = it is not known."""
        return self._bodies.get(key.kind, {}).get(key)

    def by_uid(self, uid: str) -> Key | None:
        """Return which object has a uid; None = none that is known."""
        return self._by_uid.get(uid)

    def keys(self, kind: str) -> list[Key]:
        """Return the objects of a kind."""
        return list(self._bodies.get(kind, {}))

    def all(self, kind: str) -> Iterator[tuple[Key, Body]]:
        """Yield the objects of a kind, as they are now."""
        yield from list(self._bodies.get(kind, {}).items())

    def count(self, kind: str) -> int:
        """Return how many objects of a kind there are."""
        return len(self._bodies.get(kind, {}))


def _version(body: Body) -> tuple[str, int]:
    """Return what tells states of an object apart: newer ones of the same object have a greater number.

    Kubernetes' resource versions are whole numbers that rise, since 1.35 by its own promise.
    """
    metadata = body["metadata"]
    text = metadata.get("resourceVersion", "")
    return (metadata.get("creationTimestamp", ""), int(text) if text.isdigit() else 0)
