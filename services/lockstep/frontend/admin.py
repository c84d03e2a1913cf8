"""The admin service of the public API.

Here belongs the way of each call from the wire to the catalogue and back. Never here: rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from lockstep.cluster.port import Member
from lockstep.core.commands import (
    BreakLock,
    CreateQueue,
    DeleteQueue,
    GetSession,
    ListDefinitions,
    UpdateQueue,
)
from lockstep.core.entity import QueueDefinition, parse_entity_path, parse_namespace
from lockstep.core.errors import (
    InvalidOperation,
    InvalidRequest,
)
from lockstep.core.ids import EntityKey, PartitionId, SessionId
from lockstep.core.limits import ID_CHARS_MAX, Limits, check_at_most, check_between
from lockstep.core.replies import (
    Catalogued,
    Definitions,
    LockBroken,
    SessionViews,
)
from lockstep.frontend import looking
from lockstep.frontend.deleting import delete_if_empty
from lockstep.frontend.router import Router
from lockstep.runtime.ids import IdSource
from lockstep.v1 import admin_service_pb2 as admin
from lockstep.wire.convert import fingerprint, request_id
from lockstep.wire.definitions import (
    cleared_settings,
    given_manager,
    given_settings,
    queue_message,
    runtime_message,
    session_message,
)
from lockstep.wire.seeing import (
    clear_command,
    explain_command,
    explained_message,
    list_command,
)

_CATALOGUE = PartitionId(0)
_PAGE_DEFAULT = 100
_PAGE_MAX = 1000
_TOKEN_MARK = "after:"


class AdminService:
    """Answers the calls of lockstep.v1.AdminService. Errors are raised; the server sends them."""

    def __init__(
        self,
        router: Router,
        ids: IdSource,
        release: str,
        waiting: Callable[[EntityKey], int],
        limits: Limits,
        members: Callable[[], Sequence[Member]],
    ) -> None:
        """Answer over the owners that `router` reaches.

        Args:
            router: The way to them.
            ids: Makes the ids of queues.
            release: What runs here.
            waiting: Tells how many receivers wait in this front end for what a queue has.
            limits: Those of the owners.
            members: Tells who may own partitions.
        """
        self._members = members
        self._router = router
        self._waiting = waiting
        self._ids = ids
        self._release = release
        self._limits = limits

    async def get_cluster(self, _request: admin.GetClusterRequest) -> admin.GetClusterResponse:
        """Show the broker itself."""
        members = self._members()
        return admin.GetClusterResponse(
            release=self._release,
            nodes=[
                admin.ClusterNode(
                    name=one.node,
                    release=one.release,
                    is_leaving=one.is_leaving,
                    partitions=one.partitions,
                )
                for one in members
            ],
            partitions_total=len(self._router.partitions),
            partitions_owned=sum(one.partitions for one in members),
        )

    async def create_queue(self, request: admin.CreateQueueRequest) -> admin.CreateQueueResponse:
        """Create a queue (ENT-7, ADD-12)."""
        command = CreateQueue(
            namespace=request.namespace,
            name=request.name,
            settings=given_settings(request.settings),
            uid=self._ids.uid(),
            request=request_id(request.request_id, given=request.HasField("request_id")),
            fingerprint=fingerprint(request.SerializeToString(deterministic=True)),
            manager=given_manager(request.manager, given=request.HasField("manager")),
        )
        reply = (await self._router.call(_CATALOGUE, command)).reply
        assert isinstance(reply, Catalogued)
        return admin.CreateQueueResponse(queue=queue_message(reply.definition))

    async def get_queue(self, request: admin.GetQueueRequest) -> admin.GetQueueResponse:
        """Show a queue and what it holds."""
        entity = _queue_key(request.namespace, request.name)
        definition = await looking.definition_of(self._router, entity)
        runtime = await looking.runtime_of(self._router, entity)
        return admin.GetQueueResponse(
            queue=queue_message(definition),
            runtime=runtime_message(runtime),
            send_limits=admin.SendLimits(
                bytes_max=self._limits.send_bytes_max,
                messages_max=self._limits.send_messages_max,
            ),
        )

    async def list_queues(self, request: admin.ListQueuesRequest) -> admin.ListQueuesResponse:
        """List the queues of a namespace, or of all, by namespace and name."""
        size = _page_size(request.page_size)
        after = _after(request.page_token)
        found = await self._definitions()
        if not request.all_namespaces:
            namespace = parse_namespace(request.namespace)
            found = tuple(d for d in found if d.namespace == namespace)
        elif request.namespace:
            raise InvalidRequest("Name a namespace, or ask for all of them.")
        queues = sorted(found, key=_place)
        left = [d for d in queues if after is None or _place(d) > after]
        page = left[:size]
        response = admin.ListQueuesResponse(queues=map(queue_message, page))
        runtimes = await looking.runtimes_of(self._router, page)
        response.runtimes.extend(map(runtime_message, runtimes))
        if len(left) > size:
            response.next_page_token = _TOKEN_MARK + _place(page[-1])
        return response

    async def update_queue(self, request: admin.UpdateQueueRequest) -> admin.UpdateQueueResponse:
        """Change settings of a queue (ENT-9)."""
        command = UpdateQueue(
            entity=_queue_key(request.namespace, request.name),
            settings=given_settings(request.settings) | cleared_settings(request.clear_settings),
            if_revision=request.if_revision,
            request=request_id(request.request_id, given=request.HasField("request_id")),
            fingerprint=fingerprint(request.SerializeToString(deterministic=True)),
            manager=given_manager(request.manager, given=request.HasField("manager")),
            takes_over=request.take_over,
            replaces=request.replace_settings,
        )
        reply = (await self._router.call(_CATALOGUE, command)).reply
        assert isinstance(reply, Catalogued)
        return admin.UpdateQueueResponse(queue=queue_message(reply.definition))

    async def delete_queue(self, request: admin.DeleteQueueRequest) -> admin.DeleteQueueResponse:
        """Delete a queue and everything in it, or only if there is nothing in it (ADD-13)."""
        command = DeleteQueue(
            entity=_queue_key(request.namespace, request.name),
            request=request_id(request.request_id, given=request.HasField("request_id")),
            fingerprint=fingerprint(request.SerializeToString(deterministic=True)),
            uid=request.if_uid,
            manager_uid=request.if_manager_uid,
        )
        if request.if_empty:
            await delete_if_empty(self._router, command)
        else:
            await self._router.call(_CATALOGUE, command)
        return admin.DeleteQueueResponse()

    async def get_session(self, request: admin.GetSessionRequest) -> admin.GetSessionResponse:
        """Show one session (SES-52)."""
        entity = _queue_key(request.namespace, request.queue)
        check_at_most(
            len(request.session_id), ID_CHARS_MAX, "session id characters", "Check the id."
        )
        command = GetSession(entity, SessionId(request.session_id))
        reply = (await self._router.call_home(command, entity, request.session_id)).reply
        assert isinstance(reply, SessionViews)
        return admin.GetSessionResponse(session=session_message(reply.sessions[0]))

    async def list_sessions(self, request: admin.ListSessionsRequest) -> admin.ListSessionsResponse:
        """List the sessions of a queue by id (SES-49 … SES-53)."""
        entity = _queue_key(request.namespace, request.queue)
        size = _page_size(request.page_size)
        command = list_command(request, entity, size + 1, _after(request.page_token))
        sessions = await looking.sessions_of(self._router, command)
        page = sessions[:size]
        response = admin.ListSessionsResponse(sessions=map(session_message, page))
        if len(sessions) > size:
            response.next_page_token = _TOKEN_MARK + page[-1].session_id
        return response

    async def break_session_lock(
        self, request: admin.BreakSessionLockRequest
    ) -> admin.BreakSessionLockResponse:
        """End a session's lock, whoever holds it (ADD-5)."""
        entity = _queue_key(request.namespace, request.queue)
        check_at_most(
            len(request.session_id), ID_CHARS_MAX, "session id characters", "Check the id."
        )
        command = BreakLock(
            entity,
            SessionId(request.session_id),
            request.requested_by,
            request=request_id(request.request_id, given=request.HasField("request_id")),
            fingerprint=fingerprint(request.SerializeToString(deterministic=True)),
        )
        reply = (await self._router.call_home(command, entity, request.session_id)).reply
        assert isinstance(reply, LockBroken)
        return admin.BreakSessionLockResponse(
            was_held=reply.was_held,
            holder_client_id=reply.holder,
            returned_messages=reply.returned,
        )

    async def clear_session_states(
        self, request: admin.ClearSessionStatesRequest
    ) -> admin.ClearSessionStatesResponse:
        """Clear the state of a session, or of those that have nothing else (SES-44)."""
        entity = _queue_key(request.namespace, request.queue)
        cleared = await looking.clear_states(self._router, clear_command(request, entity))
        return admin.ClearSessionStatesResponse(cleared_states=cleared)

    async def explain_delivery(
        self, request: admin.ExplainDeliveryRequest
    ) -> admin.ExplainDeliveryResponse:
        """Say why the next message is not being delivered (ADD-10)."""
        entity = _queue_key(request.namespace, request.queue)
        command = replace(explain_command(request, entity), waiting=self._waiting(entity))
        return explained_message(await looking.explain(self._router, command), self._release)

    async def _definitions(self) -> tuple[QueueDefinition, ...]:
        reply = (await self._router.call(_CATALOGUE, ListDefinitions())).reply
        assert isinstance(reply, Definitions)
        return reply.queues


def _queue_key(namespace: str, name: str) -> EntityKey:
    entity, dead_letter = parse_entity_path(namespace, name)
    if dead_letter:
        raise InvalidOperation(
            "A dead-letter store belongs to its queue and has no settings of its own (ENT-2). Name the queue.",
            details={"entity": name},
        )
    return entity


def _place(queue: QueueDefinition) -> str:
    """Return where a queue stands in a listing: by namespace, then by name."""
    return f"{queue.namespace}/{queue.key.name}"


def _page_size(asked: int) -> int:
    if asked == 0:
        return _PAGE_DEFAULT
    check_between(asked, 1, _PAGE_MAX, "page_size")
    return asked


def _after(token: str) -> str | None:
    if not token:
        return None
    if not token.startswith(_TOKEN_MARK):
        raise InvalidRequest(
            "This page token is not one of ours. Send the one of the last response, or none."
        )
    return token.removeprefix(_TOKEN_MARK)
