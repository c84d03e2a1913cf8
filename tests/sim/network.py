"""The way between clients and owners: late, lossy, and with repetitions.

Here belongs what happens to a request and to its reply on the way. Never here: when a client tries again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from random import Random

from lockstep.cluster.port import Answer
from lockstep.core.commands import Command, TakeTransfer
from lockstep.core.errors import ClusterUnavailable, LockstepError, NoSessionAvailable
from lockstep.core.ids import PartitionId
from lockstep.core.replies import Delivered
from tests.sim.cluster import Cluster, Node
from tests.sim.faults import Faults
from tests.sim.refusals import Refusals
from tests.sim.trial import Trial
from tests.sim.virtual_time import sleep_ms
from tests.sim.witness import Visit, Witness

_STRAGGLING_MS = (2000, 25_000)
_BETWEEN_MS = (400, 2500)  # how long a partition waits for another one


class NoReply(Exception):
    """No reply came in the time that the client gave."""


@dataclass(frozen=True, slots=True)
class _Parcel:
    """One call on its way: who asks what of which partition, and where the reply goes."""

    who: str
    partition: PartitionId
    command: Command
    wait_ms: int
    reply: asyncio.Future[Answer]


class Network:
    """Carries calls."""

    def __init__(
        self, trial: Trial, cluster: Cluster, witness: Witness, refusals: Refusals
    ) -> None:
        self._trial = trial
        self._cluster = cluster
        self._witness = witness
        self._refusals = refusals
        self.tasks: dict[asyncio.Task[None], None] = {}
        self.is_calm = False
        cluster.bring = self.bring

    @property
    def faults(self) -> Faults:
        """The faults that happen now."""
        return self._cluster.disk.faults

    async def call(
        self,
        who: str,
        partition: PartitionId,
        command: Command,
        *,
        wait_ms: int,
        timeout_ms: float,
        is_last: bool,
    ) -> Answer:
        """Send a request once and wait for its first reply.

        Args:
            who: The client, for the trace.
            partition: Where to.
            command: What.
            wait_ms: How long the owner may let it wait.
            timeout_ms: How long the client waits.
            is_last: The client will not ask again, so that the owner may notice that it hung up.

        Raises:
            NoReply: None came; whether the call had an effect is not known.
            LockstepError: The owner refused.
        """
        trial = self._trial
        trial.meet(command, "sent")
        reply: asyncio.Future[Answer] = trial.loop.create_future()
        node = self._cluster.pick(who)
        parcel = _Parcel(who, partition, command, wait_ms, reply)
        copies = [self._carry(parcel, node)]
        if self._strikes(parcel, "repeated"):
            copies.append(self._carry(parcel, node))
        if luck := self._strikes(parcel, "straggling"):
            copies.append(self._straggle(parcel, luck.uniform(*_STRAGGLING_MS)))
        tasks = [trial.loop.create_task(copy) for copy in copies]
        for task in tasks:
            self.tasks[task] = None
            task.add_done_callback(self._forget)
        try:
            done, _ = await asyncio.wait([reply], timeout=timeout_ms)
        except asyncio.CancelledError:  # who asked was killed; what it asked goes on
            reply.cancel()
            raise
        if not done:
            reply.cancel()
            trial.count("fault timeout")
            if is_last and self._strikes(parcel, "hung_up"):
                self._hang_up(parcel, tasks)
            raise NoReply
        try:
            answer = reply.result()
        except NoSessionAvailable:
            self._witness.told_nothing(partition, command)
            raise
        if isinstance(answer.reply, Delivered) and not answer.reply.sequences:
            self._witness.told_nothing(partition, command)
        return answer

    async def bring(self, who: str, partition: PartitionId, command: TakeTransfer) -> Answer:
        """Take a transfer once from the process of one partition to that of another.

        Raises:
            LockstepError: It was refused, or no answer came.
        """
        self._trial.count("command TakeTransfer")
        timeout_ms = self._trial.stream(f"way of {who}").choice(_BETWEEN_MS)
        try:
            return await self.call(
                who, partition, command, wait_ms=0, timeout_ms=timeout_ms, is_last=False
            )
        except NoReply as error:
            raise ClusterUnavailable(f"Partition {partition} does not answer.") from error

    def _hang_up(self, parcel: _Parcel, tasks: list[asyncio.Task[None]]) -> None:
        """Let the owner notice, a little later, that nobody waits for the reply any more (BAT-9, SES-15)."""
        request = getattr(parcel.command, "request", None)
        if request is not None:
            self._cluster.disk.ledger.referee.memory.cancelled.add(tuple(request))
        for task in tasks:
            self._trial.loop.call_later(self._delay_ms(parcel), task.cancel)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self.tasks.pop(task, None)

    def _strikes(self, parcel: _Parcel, fault: str) -> Random | None:
        faults = self._cluster.disk.faults
        if self.is_calm:
            return None
        luck = self._trial.strike(parcel.who, fault, getattr(faults, fault))
        if luck is not None:
            self._trial.meet(parcel.command, fault)
        return luck

    def _delay_ms(self, parcel: _Parcel) -> float:
        luck = self._strikes(parcel, "reordered")
        if luck is not None:
            return luck.uniform(0.3, 1500)
        return self._trial.stream(f"way of {parcel.who}").uniform(0.3, 12)

    async def _straggle(self, parcel: _Parcel, delay_ms: float) -> None:
        await sleep_ms(delay_ms)
        if not self.is_calm:
            await self._carry(parcel, self._cluster.pick(parcel.who))

    async def _carry(self, parcel: _Parcel, node: Node) -> None:
        trial, witness = self._trial, self._witness
        partition, command = parcel.partition, parcel.command
        await sleep_ms(self._delay_ms(parcel))
        if node.has_ended() or self._strikes(parcel, "lost"):
            return
        disk = self._cluster.disk
        visit = Visit(
            partition,
            command,
            node.epoch(partition),
            disk.ledger.moment,
            disk.ledger.books[partition].openings,
            has_lease=node.lease.ends_ms is not None or not node.is_deposed,
            is_deposed=node.is_deposed,
        )
        witness.arrived(visit)
        outcome: Answer | LockstepError
        node.under_way.append(command)
        try:
            outcome = await node.supervisor.call(partition, command, wait_ms=parcel.wait_ms)
        except LockstepError as error:
            outcome = error
        except asyncio.CancelledError:
            witness.hung_up(visit)
            raise
        finally:
            node.under_way.remove(command)
        if node.has_ended():
            return  # the process was killed before the reply left it
        if node.is_deposed:
            trial.meet(command, "zombie owner")
            visit = replace(visit, has_lease=node.lease.ends_ms is not None, is_deposed=True)
        if isinstance(outcome, LockstepError):
            self._refusals.refused(visit, outcome)
            trial.count(f"refusal {type(outcome).__name__}")
            trial.note(node.name, "refused", parcel.who, _text(command), type(outcome).__name__)
        else:
            witness.answered(visit, outcome)
            trial.note(node.name, "answered", parcel.who, _text(command), _text(outcome.reply))
        await sleep_ms(self._delay_ms(parcel))
        if self._strikes(parcel, "lost"):
            trial.meet(command, "reply lost")
            return
        if parcel.reply.done():
            return
        if isinstance(outcome, LockstepError):
            parcel.reply.set_exception(outcome)
        else:
            parcel.reply.set_result(outcome)


def _text(value: object) -> str:
    """Return a command or a reply in the words of the trace."""
    fields = []
    for name in (
        "session",
        "session_id",
        "first_sequence",
        "grant",
        "sequences",
        "request",
        "number",
        "refused",
        "error",
    ):
        found = getattr(value, name, None)
        if found is not None:
            found = list(found) if name == "sequences" else found
            found = tuple(found) if name in ("request", "session") else found
            fields.append(f"{name}={found}")
    return f"{type(value).__name__}({' '.join(fields)})"
