"""Looking at the messages of a queue, wherever they lie (PEK-3, ADD-1).

Here belongs the one order in which the messages of several partitions are shown. Never here: what a partition shows
(`core.looking`). The law: each partition is gone through by rising sequence number, so a message that stays put is
shown exactly once, whatever happens to others meanwhile.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lockstep.cluster.port import Answer
from lockstep.core.amendments import UNCHANGED
from lockstep.core.commands import Browse
from lockstep.core.entity import SPREAD
from lockstep.core.errors import InvalidRequest
from lockstep.core.ids import PartitionId, sequence_base
from lockstep.core.replies import Browsed, Delivered
from lockstep.frontend.router import Router
from lockstep.runtime.tasks import together
from lockstep.wire.cursors import cursor_positions, cursor_text

_SPARE = 16  # asked for beyond a partition's share, so that few are asked twice


@dataclass(frozen=True, slots=True)
class Seen:
    """Messages that were looked at, and the cursor behind the last of them."""

    browsed: Browsed
    messages: Sequence[bytes]
    cursor: str


async def browse(router: Router, command: Browse, cursor: str, *, bytes_max: int) -> Seen:
    """Show messages: of a session, or where an entity has one order, by number; else by (enqueued time, number).

    Args:
        router: The way to the partitions.
        command: What to show; with a cursor it names no number.
        cursor: Where to go on; "" = from the number of the command on, in every partition.
        bytes_max: About so many bytes of messages at most, unless the first is larger.

    Raises:
        InvalidRequest: The cursor is not one of ours, or there is a number beside it.
    """
    if cursor and command.from_sequence:
        raise InvalidRequest("A look begins at a cursor or at a sequence number, not at both.")
    positions = _positions(router, command, cursor)

    async def at(placement: str | None) -> Seen:
        if placement == SPREAD and command.session_id is None:
            merge = _Merge(router, command, positions)
            return await merge.seen(bytes_max)
        home = router.home(command.entity, command.session_id, placement)
        there = replace(command, from_sequence=positions[home])
        answer = await router.call(home, there, placement=placement)
        assert isinstance(answer.reply, Browsed)
        after = {**positions, home: _behind(answer.reply, positions[home])}
        return Seen(answer.reply, answer.messages, cursor_text(after))

    return await router.placed(command.entity, at)


def _positions(router: Router, command: Browse, cursor: str) -> dict[PartitionId, int]:
    known = cursor_positions(cursor, len(router.partitions)) if cursor else {}
    positions = {}
    for partition in router.partitions:
        base, most = sequence_base(partition), sequence_base(PartitionId(partition + 1)) - 1
        positions[partition] = min(max(known.get(partition, command.from_sequence), base), most)
    return positions


def _behind(browsed: Browsed, position: int) -> int:
    sequences = browsed.delivered.sequences
    return sequences[-1] + 1 if sequences else position


class _Source:
    """What one partition has shown, and what of it was taken."""

    def __init__(self, partition: PartitionId, position: int, answer: Answer) -> None:
        assert isinstance(answer.reply, Browsed)
        self.partition = partition
        self.position = position
        self.browsed = answer.reply
        self.delivered = answer.reply.delivered
        self.messages = answer.messages
        self.scheduled = frozenset(answer.reply.scheduled)
        self.deferred = frozenset(answer.reply.deferred)
        self.amendments = dict(self.delivered.amendments)
        self.next = 0

    @property
    def is_used_up(self) -> bool:
        return self.next == len(self.messages)

    @property
    def key(self) -> tuple[int, int]:
        """What the next message is ordered by."""
        return self.delivered.enqueued_ms[self.next], self.delivered.sequences[self.next]

    @property
    def bytes(self) -> int:
        """What the next message takes."""
        place, dead = self.next, self.delivered.dead_letters
        changed = self.amendments.get(place, UNCHANGED)
        return len(self.messages[place]) + changed.size_bytes + (dead[place].bytes if dead else 0)

    def take(self) -> int:
        """Take the next message and return its place."""
        self.next += 1
        self.position = self.delivered.sequences[self.next - 1] + 1
        return self.next - 1


class _Merge:
    """One look at all partitions."""

    def __init__(
        self, router: Router, command: Browse, positions: Mapping[PartitionId, int]
    ) -> None:
        self._router = router
        self._command = command
        self._positions = positions
        self._taken: list[tuple[_Source, int]] = []

    async def seen(self, bytes_max: int) -> Seen:
        """Take messages in order until there are enough, or none."""
        wanted, positions = self._command.max_messages, self._positions
        share = wanted // len(positions) + _SPARE
        sources = await together([self._ask(p, at, share) for p, at in positions.items()])
        size = 0
        while len(self._taken) < wanted:
            for index, source in enumerate(sources):
                if source.is_used_up and source.browsed.has_more:
                    left = wanted - len(self._taken)
                    sources[index] = await self._ask(source.partition, source.position, left)
            candidates = [source for source in sources if not source.is_used_up]
            if not candidates:
                break
            source = min(candidates, key=lambda candidate: candidate.key)
            size += source.bytes
            if size > bytes_max and self._taken:
                break
            self._taken.append((source, source.take()))
        has_more = any(not source.is_used_up or source.browsed.has_more for source in sources)
        after = {source.partition: source.position for source in sources}
        return Seen(
            _joined(self._taken, sources[0].delivered, has_more=has_more),
            [source.messages[place] for source, place in self._taken],
            cursor_text(after),
        )

    async def _ask(self, partition: PartitionId, position: int, count: int) -> _Source:
        most = min(count, self._command.max_messages)
        command = replace(self._command, from_sequence=position, max_messages=most)
        answer = await self._router.call(partition, command, placement=SPREAD)
        return _Source(partition, position, answer)


def _joined(taken: Sequence[tuple[_Source, int]], first: Delivered, *, has_more: bool) -> Browsed:
    """Return the columns of messages from several sources as those of one answer."""
    of = [(source.delivered, place) for source, place in taken]
    changed = [(i, source.amendments.get(place)) for i, (source, place) in enumerate(taken)]
    delivered = replace(
        first,
        size_bytes=sum(len(source.messages[place]) for source, place in taken),
        sequences=array("q", (d.sequences[place] for d, place in of)),
        chunks=array("q"),
        places=array("q"),
        enqueued_ms=array("q", (d.enqueued_ms[place] for d, place in of)),
        counts=tuple(d.counts[place] if d.counts else 0 for d, place in of),
        dead_letters=tuple(d.dead_letters[place] for d, place in of if d.dead_letters),
        expires_ms=[d.expires_ms[place] if d.expires_ms else 0 for d, place in of],
        amendments=tuple((i, change) for i, change in changed if change is not None),
    )
    return Browsed(
        delivered,
        scheduled=tuple(i for i, (source, place) in enumerate(taken) if place in source.scheduled),
        deferred=tuple(i for i, (source, place) in enumerate(taken) if place in source.deferred),
        has_more=has_more,
    )
