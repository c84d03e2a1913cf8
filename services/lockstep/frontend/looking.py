"""What is seen of a queue, wherever its parts lie: one set of counters, one listing, one explanation (ENT-11).

Here belong the questions to all partitions of an entity, and one answer from theirs. Never here: what a partition
shows (`core.looking`), or messages (`frontend.browsing`). The law: figures are exact sums; a partition that cannot be
asked is named or raised, never left out.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter

from lockstep.core.commands import (
    ClearStates,
    Explain,
    GetRuntime,
    ListDefinitions,
    ListRuntimes,
    ListSessions,
)
from lockstep.core.entity import SPREAD, QueueDefinition
from lockstep.core.errors import (
    ClusterUnavailable,
    EntityNotFound,
    InternalError,
    Misplaced,
    Moved,
    StoreUnavailable,
)
from lockstep.core.ids import EntityKey, PartitionId
from lockstep.core.looking import RUNTIMES_MAX
from lockstep.core.queue_figures import explained, joined_figures, joined_runtime, unreachable
from lockstep.core.replies import (
    Cause,
    Definitions,
    Explained,
    Runtime,
    Runtimes,
    SessionView,
    SessionViews,
    StatesCleared,
)
from lockstep.frontend.router import Router
from lockstep.frontend.splitting import partition_of_message
from lockstep.runtime.tasks import together
from lockstep.wire.seeing import no_owner

# What says that a partition cannot be asked now.
_UNREACHABLE = (Moved, StoreUnavailable, ClusterUnavailable, InternalError)
_CATALOGUE = PartitionId(0)


async def definition_of(router: Router, entity: EntityKey) -> QueueDefinition:
    """Return the definition of a queue.

    Raises:
        EntityNotFound: There is no such queue.
    """
    reply = (await router.call(_CATALOGUE, ListDefinitions(entity))).reply
    assert isinstance(reply, Definitions)
    for definition in reply.queues:
        return definition
    raise EntityNotFound(
        f"There is no queue {entity.namespace}/{entity.name}. Check the name and the namespace, or create it.",
        details={"entity": f"{entity.namespace}/{entity.name}"},
    )


async def runtime_of(router: Router, entity: EntityKey, *, with_oldest: bool = False) -> Runtime:
    """Count what a queue holds (CNT-1), and if asked since when its oldest ready message waits."""
    try:
        answers = await router.call_all(GetRuntime(entity, with_oldest), entity)
    except EntityNotFound:  # in the catalogue, but on its way to or from a partition
        return Runtime()
    return joined_runtime([one.reply for _, one in answers if isinstance(one.reply, Runtime)])


async def runtimes_of(router: Router, queues: Sequence[QueueDefinition]) -> list[Runtime]:
    """Count what queues hold, with few calls to each partition (CNT-1)."""
    wanted: dict[PartitionId, list[int]] = {}
    for place, queue in enumerate(queues):
        placement = queue.settings.placement
        is_spread = placement == SPREAD
        homes = router.partitions if is_spread else [router.home(queue.key, None, placement)]
        for home in homes:
            wanted.setdefault(home, []).append(place)
    parts = [
        (home, places[at : at + RUNTIMES_MAX])
        for home, places in wanted.items()
        for at in range(0, len(places), RUNTIMES_MAX)
    ]
    calls = [
        router.call(home, ListRuntimes(tuple(queues[place].key for place in places)))
        for home, places in parts
    ]
    found: list[list[Runtime]] = [[] for _ in queues]
    for (_, places), answer in zip(parts, await together(calls), strict=True):
        assert isinstance(answer.reply, Runtimes)
        for place, runtime in zip(places, answer.reply.runtimes, strict=True):
            if runtime is not None:  # not on its way to or from the partition
                found[place].append(runtime)
    return [joined_runtime(runtimes) if runtimes else Runtime() for runtimes in found]


async def sessions_of(router: Router, command: ListSessions) -> list[SessionView]:
    """List sessions by id, at most as many as the command says (SES-49 … SES-53)."""
    answers = await router.call_all(command, command.entity)
    parts = [one.reply.sessions for _, one in answers if isinstance(one.reply, SessionViews)]
    merged = heapq.merge(*parts, key=attrgetter("session_id"))
    return [view for view, _ in zip(merged, range(command.maximum), strict=False)]


async def clear_states(router: Router, command: ClearStates) -> int:
    """Clear the state of one session, or of all that have nothing else, and return of how many (SES-44)."""
    entity, session_id = command.entity, command.session_id
    cleared, has_more = 0, True
    while has_more:
        if session_id is not None:
            answers = [await router.call_home(command, entity, session_id)]
        else:
            answers = [answer for _, answer in await router.call_all(command, entity)]
        replies = [one.reply for one in answers if isinstance(one.reply, StatesCleared)]
        cleared += sum(reply.count for reply in replies)
        has_more = any(reply.has_more for reply in replies)
    return cleared


# --- explanations ------------------------------------------------------------------------------------


async def explain(router: Router, command: Explain) -> Explained:
    """Say why the next message is not delivered: of a session or a message where it lives, else of the whole queue.

    Of a whole queue over several partitions the first that applies: its status, a partition that cannot be asked, and
    then what their figures say together, as `core.queue_figures.explained` orders it.
    """
    entity = command.entity

    async def at(placement: str | None) -> Explained:
        partitions: Sequence[PartitionId] = router.partitions
        if command.session_id is not None or placement != SPREAD:
            partitions = [router.home(entity, command.session_id, placement)]
        elif command.sequence:
            partitions = [partition_of_message(command.sequence, len(partitions))]
        if len(partitions) == 1:
            return await _ask(router, partitions[0], command, placement)
        part = replace(command, waiting=0)  # who waits here waits at none of them
        parts = await together([_ask(router, p, part, placement) for p in partitions])
        return _joined(parts, command, router.clock.now_ms())

    return await router.placed(entity, at)


async def _ask(
    router: Router, partition: PartitionId, command: Explain, placement: str | None
) -> Explained:
    try:
        reply = (await router.call(partition, command, placement=placement)).reply
    except Misplaced:
        raise
    except _UNREACHABLE as error:
        return no_owner(partition, error.message)
    assert isinstance(reply, Explained)
    return reply


def _joined(parts: Sequence[Explained], command: Explain, now_ms: int) -> Explained:
    """Return one explanation of a queue from those of its partitions."""
    closed = [part.sentence for part in parts if part.cause is Cause.NO_OWNER]
    known = [part.figures for part in parts if part.figures is not None]
    figures = joined_figures(known) if known else None
    if figures is not None:
        figures = replace(figures, waiting=figures.waiting + command.waiting)
        found = explained(figures, now_ms)
        if not closed or found.cause is Cause.DISABLED:
            return found
    path = f"{command.entity.namespace}/{command.entity.name}"
    return unreachable(path, closed, figures)
