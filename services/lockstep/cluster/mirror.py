"""A copy of all keys under a prefix, kept up with a watch.

Here belongs the way from a stream of changes to a state: what was the case at one revision, with nothing
left out. Never here: what the keys mean. The laws: whoever looks sees whole revisions only; a broken stream
goes on after the last revision seen; where that cannot be, and once a minute in any case, all keys are
listed anew, so no lost change stays lost. While nobody answers, the last state goes on being true here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing

from lockstep.cluster.registry import (
    KeyValue,
    Listing,
    Registry,
    RevisionCompacted,
    WatchBatch,
)
from lockstep.core.errors import ClusterUnavailable
from lockstep.runtime.clock import Clock

log = logging.getLogger(__name__)

LIST_AGAIN_MS = 60_000
_PAUSE_MS = 20
_PAUSE_MAX_MS = 1_000


class Mirror:
    """The keys under a prefix, as far as they are known here; for one event loop."""

    def __init__(
        self,
        registry: Registry,
        clock: Clock,
        prefix: str,
        *,
        changed: Callable[[], None],
        list_again_ms: int = LIST_AGAIN_MS,
    ) -> None:
        """Begin with nothing.

        Args:
            registry: Where the keys are.
            clock: For pauses after failures.
            prefix: Of which keys.
            changed: Called after each change of `items` or `revision`; must not wait.
            list_again_ms: How long one watch lasts before all keys are listed again, in ms.
        """
        self._registry = registry
        self._clock = clock
        self._prefix = prefix
        self._changed = changed
        self._list_again_ms = list_again_ms
        self._items: dict[str, KeyValue] = {}
        self._revision = 0
        self._era = 0
        self._problem: ClusterUnavailable | None = None
        self._cut_ms: int | None = None
        self._heard_ms: int | None = None

    @property
    def heard_ms(self) -> int | None:
        """When the registry told something last, or that there was nothing, by the monotonic clock; None = never."""
        return self._heard_ms

    @property
    def items(self) -> Mapping[str, KeyValue]:
        """All keys, by name, as they were at `revision`."""
        return self._items

    @property
    def revision(self) -> int:
        """The revision that `items` shows; 0 = nothing was seen yet."""
        return self._revision

    @property
    def era(self) -> int:
        """How often the registry was found to have lost data: revisions of two eras cannot be compared."""
        return self._era

    @property
    def problem(self) -> ClusterUnavailable | None:
        """Why there is no news now; None = the watch stands, or is about to."""
        return self._problem

    @property
    def cut_ms(self) -> int | None:
        """Since when there is no news, by the monotonic clock; None = as of `problem`."""
        return self._cut_ms

    async def run(self) -> None:
        """Follow the keys until cancelled."""
        pause_ms = _PAUSE_MS
        must_list = True
        while True:
            try:
                if must_list:
                    self._take(await self._registry.list_prefix(self._prefix))
                must_list = await self._follow()
                pause_ms = _PAUSE_MS
                continue
            except RevisionCompacted:
                log.info("mirror.compacted", extra={"revision": self._revision})
                must_list = True
            except ClusterUnavailable as error:
                if self._problem is None:
                    self._cut_ms = self._clock.monotonic_ms()
                    log.warning("mirror.cut", extra={"reason": error.reason, **error.details})
                else:
                    pause_ms = min(2 * pause_ms, _PAUSE_MAX_MS)
                must_list = self._revision == 0
                self._problem = error
            await self._clock.sleep(pause_ms)

    async def _follow(self) -> bool:
        """Take in changes until the watch ends by itself; return whether to list the keys then."""
        stream = self._registry.watch(
            self._prefix, after_revision=self._revision, for_ms=self._list_again_ms
        )
        async with aclosing(stream) as batches:
            async for batch in batches:
                self._problem = self._cut_ms = None
                self._heard_ms = self._clock.monotonic_ms()
                if batch.revision < self._revision:
                    # This member lags behind, or etcd has lost data: a list tells which.
                    return True
                self._apply(batch)
        return True

    def _take(self, listing: Listing) -> None:
        """Have a list take the place of all that was known."""
        self._heard_ms = self._clock.monotonic_ms()
        if listing.revision < self._revision:
            log.error(
                "mirror.went_back", extra={"revision": listing.revision, "before": self._revision}
            )
            self._era += 1
        items = {item.key: item for item in listing.items}
        is_news = items != self._items or listing.revision < self._revision or not self._revision
        self._items = items
        self._revision = listing.revision
        if is_news:
            self._changed()

    def _apply(self, batch: WatchBatch) -> None:
        items = dict(self._items)
        for change in batch.changes:
            if change.now is None:
                items.pop(change.key, None)
            else:
                items[change.key] = change.now
        if batch.changes:
            self._items = items
            self._revision = batch.changes[-1].revision
            self._changed()
