"""The way between clients and owners: late, lossy, and with repetitions.

Here belongs what happens to a request and to its reply on the way. Never here: when a client tries again.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from lockstep.cluster.port import Answer
from lockstep.core.commands import Command
from lockstep.core.errors import LockstepError, NoSessionAvailable
from lockstep.core.ids import PartitionId
from lockstep.core.replies import Delivered
from tests.sim.cluster import Cluster, Node
from tests.sim.trial import Trial
from tests.sim.virtual_time import sleep_ms
from tests.sim.witness import Visit, Witness


class NoReply(Exception):
    """No reply came in the time that the client gave."""


class Network:
    """Carries calls."""

    def __init__(self, trial: Trial, cluster: Cluster, witness: Witness) -> None:
        self._trial = trial
        self._cluster = cluster
        self._witness = witness
        self.tasks: dict[asyncio.Task[None], None] = {}
        self.is_calm = False

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
        reply: asyncio.Future[Answer] = trial.loop.create_future()
        node = self._cluster.pick()
        copies = [self._carry(node, who, partition, command, wait_ms, reply)]
        if self._happens("repeated"):
            copies.append(self._carry(node, who, partition, command, wait_ms, reply))
        tasks = [trial.loop.create_task(copy) for copy in copies]
        for task in tasks:
            self.tasks[task] = None
            task.add_done_callback(self._forget)
        done, _ = await asyncio.wait([reply], timeout=timeout_ms)
        if not done:
            reply.cancel()
            trial.count("fault timeout")
            if is_last and self._happens("hung_up"):
                self._hang_up(command, tasks)
            raise NoReply
        try:
            answer = reply.result()
        except NoSessionAvailable:
            self._witness.told_nothing(command)
            raise
        if isinstance(answer.reply, Delivered) and not answer.reply.sequences:
            self._witness.told_nothing(command)
        return answer

    def _hang_up(self, command: Command, tasks: list[asyncio.Task[None]]) -> None:
        """Let the owner notice, a little later, that nobody waits for the reply any more (BAT-9, SES-15)."""
        request = getattr(command, "request", None)
        if request is not None:
            self._cluster.disk.ledger.referee.cancelled.add(tuple(request))
        for task in tasks:
            self._trial.loop.call_later(self._delay_ms(), task.cancel)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self.tasks.pop(task, None)

    def _happens(self, fault: str) -> bool:
        faults = self._cluster.disk.faults
        if self.is_calm or not self._trial.chance(getattr(faults, fault)):
            return False
        self._trial.count(f"fault {fault}")
        return True

    def _delay_ms(self) -> float:
        longest = 1500 if self._happens("reordered") else 12
        return self._trial.random.uniform(0.3, longest)

    async def _carry(
        self,
        node: Node,
        who: str,
        partition: PartitionId,
        command: Command,
        wait_ms: int,
        reply: asyncio.Future[Answer],
    ) -> None:
        trial, witness = self._trial, self._witness
        await sleep_ms(self._delay_ms())
        if self._happens("lost") or node.has_ended():
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
        try:
            outcome = await node.supervisor.call(partition, command, wait_ms=wait_ms)
        except LockstepError as error:
            outcome = error
        if node.has_ended():
            return  # the process was killed before the reply left it
        if node.is_deposed:
            visit = replace(visit, has_lease=node.lease.ends_ms is not None, is_deposed=True)
        if isinstance(outcome, LockstepError):
            witness.refused(visit, outcome)
            trial.note(node.name, "refused", who, _text(command), type(outcome).__name__)
        else:
            witness.answered(visit, outcome)
            trial.note(node.name, "answered", who, _text(command), _text(outcome.reply))
        await sleep_ms(self._delay_ms())
        if self._happens("lost") or reply.done():
            return
        if isinstance(outcome, LockstepError):
            reply.set_exception(outcome)
        else:
            reply.set_result(outcome)


def _text(value: object) -> str:
    """Return a command or a reply in the words of the trace."""
    fields = []
    for name in ("session", "session_id", "first_sequence", "grant", "sequences", "request"):
        found = getattr(value, name, None)
        if found is not None:
            found = list(found) if name == "sequences" else found
            found = tuple(found) if name in ("request", "session") else found
            fields.append(f"{name}={found}")
    return f"{type(value).__name__}({' '.join(fields)})"
