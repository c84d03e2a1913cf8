"""What administrators ask of the bare core: the part of the core driver that the client driver lacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lockstep.core import commands as c
from lockstep.core import replies
from lockstep.core.entity import DEFAULT_NAMESPACE, parse_entity_path
from lockstep.core.ids import EntityKey, RequestId, SessionId
from lockstep.core.jobs import Job, JobKind, JobOptions, Selector
from lockstep.core.replies import Explained, SessionView
from lockstep.owner.job_runner import next_batch
from lockstep.v1.message_pb2 import Message


def key_of(queue: str) -> EntityKey:
    return parse_entity_path(DEFAULT_NAMESPACE, queue)[0]


def outputs_of(
    queue: str, sent: Sequence[bytes], session: str | None, ids: Sequence[str]
) -> c.Send:
    """Return the send of a turn."""
    messages = tuple(
        Message(body=body, session_id=session, message_id=message_id).SerializeToString()
        for body, message_id in zip(sent, ids or [""] * len(sent), strict=True)
    )
    return c.Send(key_of(queue), messages, (session,), message_ids=tuple(ids))


class AdminPart:
    """Jobs, explanations, filters and purges."""

    async def _call(self, command: c.Command) -> replies.Reply:
        raise NotImplementedError

    async def _bodies(self, chunks: Iterable[int]) -> dict[int, tuple[bytes, ...]]:
        raise NotImplementedError

    def new_request(self) -> RequestId:
        """Return a request id that was not used before."""
        raise NotImplementedError

    # --- jobs --------------------------------------------------------------------------------------

    async def start_job(
        self,
        queue: str,
        kind: JobKind,
        selector: Selector | None = None,
        options: JobOptions | None = None,
        *,
        by: str = "",
    ) -> Job:
        request = self.new_request()
        reply = await self._call(
            c.StartJob(
                key_of(queue),
                kind,
                selector or Selector(),
                options or JobOptions(),
                f"uid{request.counter}",
                by,
                request,
            )
        )
        assert isinstance(reply, replies.JobIs)
        return reply.job

    async def finish_job(self, queue: str, number: int, *, batch: int = 512) -> Job:
        job = await self.advance_job(queue, number, batch=batch)
        while job.is_running:
            job = await self.advance_job(queue, number, batch=batch)
        return job

    async def cancel_job(self, queue: str, number: int) -> None:
        """Let a job end where it is."""
        await self._call(c.CancelJob(key_of(queue), number))

    async def advance_job(
        self, queue: str, number: int, *, batch: int = 512, times: int = 1
    ) -> Job:
        """Let a job do one batch, as `owner.job_runner` does; the command comes so many times."""
        look = await self._call(c.LookForJob(key_of(queue), number, batch))
        assert isinstance(look, replies.JobLook)
        if not look.job.is_running:
            return look.job
        stored: Sequence[bytes] = ()
        if look.delivered is not None:
            found = await self._bodies(set(look.delivered.chunks))
            places = zip(look.delivered.chunks, look.delivered.places, strict=True)
            stored = [found[chunk][place] for chunk, place in places]
        command = next_batch(key_of(queue), look, stored)
        came = [await self._call(command) for _ in range(times)]
        assert all(reply == came[0] for reply in came)
        assert isinstance(came[0], replies.JobIs)
        return came[0].job

    async def advance_as(self, queue: str, number: int, *, uid: str, error: str = "") -> Job:
        """Have a batch taken in the name of a job, or say why the job cannot go on."""
        look = await self._call(c.LookForJob(key_of(queue), number, 512))
        assert isinstance(look, replies.JobLook)
        command = c.AdvanceJob(
            key_of(queue),
            number,
            look.job.cursor,
            look.cursor,
            look.sequences,
            uid=uid,
            error=error,
        )
        reply = await self._call(command)
        assert isinstance(reply, replies.JobIs)
        return reply.job

    # --- seeing ------------------------------------------------------------------------------------

    async def explain(
        self, queue: str, *, session_id: str | None = None, sequence: int = 0, waiting: int = 0
    ) -> Explained:
        """Say why the next message is not delivered."""
        session = None if session_id is None else SessionId(session_id)
        reply = await self._call(c.Explain(key_of(queue), session, sequence, waiting))
        assert isinstance(reply, Explained)
        return reply

    async def filtered(
        self, queue: str, shown: c.SessionFilter, *, state_since_ms: int = 0
    ) -> list[SessionView]:
        """List those sessions that a filter leaves."""
        command = c.ListSessions(key_of(queue), 100, None, shown, state_since_ms)
        reply = await self._call(command)
        assert isinstance(reply, replies.SessionViews)
        return list(reply.sessions)

    async def clear_states(
        self, queue: str, session_id: str | None = None, *, idle_ms: int = 0, maximum: int = 1000
    ) -> int:
        """Clear states, so many at a time, as the front end does; return how many."""
        session = None if session_id is None else SessionId(session_id)
        cleared, has_more = 0, True
        while has_more:
            reply = await self._call(c.ClearStates(key_of(queue), session, idle_ms, maximum))
            assert isinstance(reply, replies.StatesCleared)
            assert reply.count <= maximum
            cleared, has_more = cleared + reply.count, reply.has_more
        return cleared
