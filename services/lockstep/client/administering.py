"""Administering queues, whether it blocks or not.

Here belongs what both administration clients do. Never here: the public classes (`aio`, `blocking`).
The law: a change carries a request id, as a send does, so a retry never answers "exists already" to
the caller who made it exist.
"""

from __future__ import annotations

from typing import Any

from lockstep.client.connection import Connection
from lockstep.client.queue_properties import (
    QueueProperties,
    QueueRuntimeProperties,
    SessionProperties,
    cleared_of,
    queue_from_wire,
    runtime_from_wire,
    session_from_wire,
    settings_of,
    settings_to_wire,
)
from lockstep.client.transport import (
    BREAK_SESSION_LOCK,
    CREATE_QUEUE,
    DELETE_QUEUE,
    GET_QUEUE,
    GET_SESSION,
    LIST_QUEUES,
    UPDATE_QUEUE,
)
from lockstep.core.errors import InvalidRequest
from lockstep.v1 import admin_service_pb2 as admin

Listed = tuple[QueueProperties, QueueRuntimeProperties]
"""A queue, and what it holds."""
Page = tuple[list[Listed], str]
"""Queues with what they hold, and the token of the next page; empty = this was the last."""


class Administering:
    """Administers the queues of one broker namespace."""

    def __init__(self, connection: Connection) -> None:
        """Administer over `connection`."""
        self._connection = connection
        self._calls = connection.calls
        self._namespace = connection.namespace

    async def create_queue(self, name: str, settings: dict[str, Any]) -> QueueProperties:
        """Create a queue.

        Raises:
            EntityAlreadyExists: A queue of this name exists.
            InvalidRequest: The name or a setting is refused.
        """
        self._connection.check_open()
        request = admin.CreateQueueRequest(
            namespace=self._namespace,
            name=name,
            settings=settings_to_wire(settings),
            request_id=self._calls.new_request_id(),
        )
        return queue_from_wire((await self._calls.call(CREATE_QUEUE, request)).queue)

    async def get_queue(self, name: str) -> tuple[QueueProperties, QueueRuntimeProperties]:
        """Return a queue and what it holds.

        Raises:
            EntityNotFound: There is no such queue.
        """
        self._connection.check_open()
        request = admin.GetQueueRequest(namespace=self._namespace, name=name)
        response = await self._calls.call(GET_QUEUE, request)
        queue = queue_from_wire(response.queue)
        return queue, runtime_from_wire(queue.name, response.runtime)

    async def list_queues(self, page_token: str, *, all_namespaces: bool = False) -> Page:
        """Return one page of queues, in the order of namespaces and names.

        Args:
            page_token: What the page before gave; empty = the first page.
            all_namespaces: Whether queues of other broker namespaces are listed too.
        """
        self._connection.check_open()
        request = admin.ListQueuesRequest(
            namespace="" if all_namespaces else self._namespace,
            page_token=page_token,
            all_namespaces=all_namespaces,
        )
        response = await self._calls.call(LIST_QUEUES, request)
        queues = [queue_from_wire(queue) for queue in response.queues]
        runtimes = [
            runtime_from_wire(queue.name, runtime)
            for queue, runtime in zip(queues, response.runtimes, strict=True)
        ]
        return list(zip(queues, runtimes, strict=True)), response.next_page_token

    async def update_queue(
        self, queue: QueueProperties | str, changes: dict[str, Any]
    ) -> QueueProperties:
        """Change settings of a queue and return it as it is then.

        Args:
            queue: Its properties, all of which are written if nobody changed it since they were read;
                or its name, to write the changes only.
            changes: Settings by name; they go before those in the properties. None takes a time back.

        Raises:
            EntityNotFound: There is no such queue.
            RevisionConflict: It changed since its properties were read; read them again.
            InvalidOperation: A setting is fixed at creation.
            InvalidRequest: A setting is refused, or there is nothing to change.
        """
        self._connection.check_open()
        if isinstance(queue, QueueProperties):
            name, revision = queue.name, queue.revision
            changes = settings_of(queue) | changes
            wire = settings_to_wire(changes)
        else:
            name, revision = queue, 0
            wire = settings_to_wire(changes)
            if not wire.ListFields() and not cleared_of(changes):
                raise InvalidRequest(f"No change of queue '{name}' was given.")
        request = admin.UpdateQueueRequest(
            namespace=self._namespace,
            name=name,
            settings=wire,
            if_revision=revision,
            clear_settings=cleared_of(changes),
            request_id=self._calls.new_request_id(),
        )
        return queue_from_wire((await self._calls.call(UPDATE_QUEUE, request)).queue)

    async def delete_queue(self, name: str, *, if_empty: bool, if_uid: str) -> None:
        """Delete a queue, with everything in it or only if it is empty.

        Raises:
            EntityNotFound: There is no such queue.
            EntityNotEmpty: It holds something, and was to be deleted only if not.
        """
        self._connection.check_open()
        request = admin.DeleteQueueRequest(
            namespace=self._namespace,
            name=name,
            if_empty=if_empty,
            if_uid=if_uid,
            request_id=self._calls.new_request_id(),
        )
        await self._calls.call(DELETE_QUEUE, request)

    async def break_session_lock(self, queue: str, session_id: str, requested_by: str) -> bool:
        """End the lock of a session at once, whoever holds it (ADD-5), and return whether somebody did.

        Raises:
            EntityNotFound: There is no such queue.
        """
        self._connection.check_open()
        request = admin.BreakSessionLockRequest(
            namespace=self._namespace,
            queue=queue,
            session_id=session_id,
            requested_by=requested_by,
            request_id=self._calls.new_request_id(),
        )
        return (await self._calls.call(BREAK_SESSION_LOCK, request)).was_held

    async def get_session(self, queue: str, session_id: str) -> SessionProperties:
        """Return one session; one that was never used is shown as empty.

        Raises:
            EntityNotFound: There is no such queue.
            InvalidOperation: The queue has no sessions.
        """
        self._connection.check_open()
        request = admin.GetSessionRequest(
            namespace=self._namespace, queue=queue, session_id=session_id
        )
        return session_from_wire((await self._calls.call(GET_SESSION, request)).session)
