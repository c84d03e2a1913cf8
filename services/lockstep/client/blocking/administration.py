"""The blocking administration client.

Here belongs its public shape. Never here: how it works (`administering`). The law: nothing is
decided here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self, Unpack

from lockstep.client.administering import Administering, Listed
from lockstep.client.channel_blocking import BlockingTransport
from lockstep.client.connection import (
    Connection,
    RetryOptions,
    check_connection_string,
    new_connection,
)
from lockstep.client.dead_letter_jobs import DeadLetterJob, DeadLetterJobKind, DeadLetterSelector
from lockstep.client.queue_properties import (
    QueueProperties,
    QueueRuntimeProperties,
    QueueSettings,
    SessionProperties,
)
from lockstep.client.repairing import OnProgress, Repairing, job_options
from lockstep.client.seeing import DeliveryExplanation, Seeing, SessionFilter
from lockstep.client.transport import run_to_completion
from lockstep.client.values import PropertyValue


class AdministrationClient:
    """Creates, shows, changes and deletes queues, and repairs their dead letters.

    Use it as `with AdministrationClient(...) as client:`, or close it. A program that has a `LockstepClient`
    gets one from its `get_administration_client`, over the same connection.
    """

    def __init__(
        self,
        address: str,
        *,
        namespace: str | None = None,
        retry_total: int = 3,
        retry_backoff_factor: float = 0.8,
        retry_backoff_max: float = 60,
        timeout: float = 60,
    ) -> None:
        """Make a client with a connection of its own; the first call connects.

        Args:
            address: `host:port`; the port is 7700 by default. Or a connection string:
                `Endpoint=lockstep://host:port;Namespace=orders`.
            namespace: The broker namespace; None = that of the connection string, or `default`.
            retry_total: How often a call that failed in passing is tried again; 0 = never.
            retry_backoff_factor: Seconds before the first retry, doubled with each one, with jitter.
            retry_backoff_max: Seconds of the longest pause between tries.
            timeout: Seconds that one try may take.

        Raises:
            InvalidRequest: The address or an option is refused.
        """
        options = RetryOptions(retry_total, retry_backoff_factor, retry_backoff_max, timeout)
        self._connection = new_connection(BlockingTransport, address, namespace, options)
        self._owns_connection = True
        self._administering = Administering(self._connection)
        self._repairing = Repairing(self._connection)
        self._seeing = Seeing(self._connection)

    @classmethod
    def from_connection_string(
        cls,
        connection_string: str,
        *,
        namespace: str | None = None,
        retry_total: int = 3,
        retry_backoff_factor: float = 0.8,
        retry_backoff_max: float = 60,
        timeout: float = 60,
    ) -> Self:
        """Make a client from `Endpoint=lockstep://host:port;Namespace=orders`; see the constructor.

        Raises:
            InvalidRequest: It is no connection string, or an option is refused.
        """
        check_connection_string(connection_string)
        return cls(
            connection_string,
            namespace=namespace,
            retry_total=retry_total,
            retry_backoff_factor=retry_backoff_factor,
            retry_backoff_max=retry_backoff_max,
            timeout=timeout,
        )

    @classmethod
    def _sharing(cls, connection: Connection) -> Self:
        """Return a client over a connection that another one closes."""
        shared = cls.__new__(cls)
        shared._connection = connection
        shared._owns_connection = False
        shared._administering = Administering(connection)
        shared._repairing = Repairing(connection)
        shared._seeing = Seeing(connection)
        return shared

    @property
    def namespace(self) -> str:
        """The broker namespace of every call."""
        return self._connection.namespace

    def create_queue(self, name: str, **settings: Unpack[QueueSettings]) -> QueueProperties:
        """Create a queue and return it; it is ready for use then (ADD-12).

        Args:
            name: At most 260 characters, `/` allowed inside, none of `@ ? # *`.
            **settings: See `QueueSettings`; what is absent gets its default.

        Raises:
            EntityAlreadyExists: A queue of this name exists.
            InvalidRequest: The name or a setting is refused; the error says what would be accepted.
        """
        return run_to_completion(self._administering.create_queue(name, dict(settings)))

    def get_queue(self, name: str) -> QueueProperties:
        """Return a queue with all its settings.

        Raises:
            EntityNotFound: There is no such queue.
        """
        return run_to_completion(self._administering.get_queue(name))[0]

    def get_queue_runtime_properties(self, name: str) -> QueueRuntimeProperties:
        """Return what a queue holds at this moment.

        Raises:
            EntityNotFound: There is no such queue.
        """
        return run_to_completion(self._administering.get_queue(name))[1]

    def list_queues(self, *, all_namespaces: bool = False) -> Iterator[QueueProperties]:
        """Give the queues of the namespace, or of all broker namespaces, in the order of names, page by page.

        Raises:
            LockstepError: A page could not be read; those before it were given.
        """
        yield from (queue for queue, _ in self._listed(all_namespaces=all_namespaces))

    def list_queues_runtime_properties(self) -> Iterator[QueueRuntimeProperties]:
        """Give what each queue of the namespace holds, in the order of their names, page by page.

        Raises:
            LockstepError: A page could not be read; those before it were given.
        """
        yield from (runtime for _, runtime in self._listed(all_namespaces=False))

    def _listed(self, *, all_namespaces: bool) -> Iterator[Listed]:
        token, is_last = "", False
        while not is_last:
            page, token = run_to_completion(
                self._administering.list_queues(token, all_namespaces=all_namespaces)
            )
            is_last = not token
            yield from page

    def update_queue(
        self, queue: QueueProperties | str, **changes: Unpack[QueueSettings]
    ) -> QueueProperties:
        """Change settings of a queue and return it as it is then.

        Args:
            queue: Properties, as read and then changed with `dataclasses.replace`; refused if the queue
                changed since. Or a name, to write the changes only, whatever the rest is.
            **changes: See `QueueSettings`; they go before those in the properties.

        Raises:
            EntityNotFound: There is no such queue.
            RevisionConflict: It changed since its properties were read; read them again.
            InvalidOperation: A setting is fixed at creation.
            InvalidRequest: A setting is refused, or there is nothing to change.
        """
        return run_to_completion(self._administering.update_queue(queue, dict(changes)))

    def delete_queue(self, name: str, *, if_empty: bool = False, if_uid: str = "") -> None:
        """Delete a queue with all its messages, dead letters and session states.

        With `if_empty` it goes only if it holds none of these (ADD-13); with `if_uid`, only if it has this uid.

        Raises:
            EntityNotFound: There is no such queue.
            EntityNotEmpty: It is not empty, and `if_empty` was asked.
        """
        run_to_completion(self._administering.delete_queue(name, if_empty=if_empty, if_uid=if_uid))

    def list_sessions(
        self,
        queue: str,
        *,
        filter: SessionFilter | str = SessionFilter.ALL,
        state_updated_since: datetime | None = None,
    ) -> Iterator[SessionProperties]:
        """Give the sessions that a filter leaves, by id, page by page; it locks nothing (SES-53).

        Args:
            queue: The queue.
            filter: Which of them; the default leaves those that have messages or a state, or are held.
            state_updated_since: Only sessions whose state was written then or later (SES-50); None = all.

        Raises:
            EntityNotFound: There is no such queue.
            InvalidOperation: The queue has no sessions.
            InvalidRequest: There is no such filter.
        """
        token, is_last = "", False
        while not is_last:
            page, token = run_to_completion(
                self._seeing.list_sessions(queue, filter, state_updated_since, token)
            )
            is_last = not token
            yield from page

    def get_session(self, queue: str, session_id: str) -> SessionProperties:
        """Return one session; one that was never used is shown as empty.

        Raises:
            EntityNotFound: There is no such queue.
            InvalidOperation: The queue has no sessions.
        """
        return run_to_completion(self._administering.get_session(queue, session_id))

    def break_session_lock(self, queue: str, session_id: str, *, requested_by: str = "") -> bool:
        """End the lock of a session at once, whoever holds it (ADD-5), and return whether somebody did.

        No delivery is counted; what the holder had in hand is back in its place. The holder's next call is refused and
        says who broke the lock.

        Args:
            queue: The queue.
            session_id: The session.
            requested_by: Who asks, for the holder to read; at most 128 characters.

        Raises:
            EntityNotFound: There is no such queue.
            LimitExceeded: A name is too long.
        """
        return run_to_completion(
            self._administering.break_session_lock(queue, session_id, requested_by)
        )

    def clear_session_states(
        self, queue: str, session_id: str | None = None, *, idle_for: timedelta | str | None = None
    ) -> int:
        """Clear the state of a session, or of all that have a state and nothing else, and return how many (SES-44).

        Args:
            queue: The queue.
            session_id: The session, whatever messages it has; None = all that have nothing but a state.
            idle_for: Without a session: only where nothing happened for so long; a timedelta, or ISO 8601 text.

        Raises:
            EntityNotFound: There is no such queue.
            InvalidOperation: The queue has no sessions.
            SessionCannotBeLocked: Somebody holds the session that was named, and may rely on its state.
            InvalidRequest: A session and an idle time were given, or the time is refused.
        """
        return run_to_completion(self._seeing.clear_states(queue, session_id, idle_for))

    def explain(
        self, queue: str, *, session_id: str | None = None, sequence_number: int | None = None
    ) -> DeliveryExplanation:
        """Return why the next message is not being delivered, since when, and what ends it (ADD-10).

        Args:
            queue: The queue; without more, it is explained as a whole.
            session_id: Explain this session.
            sequence_number: Explain this message.

        Raises:
            EntityNotFound: There is no such queue.
            InvalidRequest: A session and a message were given, or the queue has no sessions.
        """
        return run_to_completion(self._seeing.explain(queue, session_id, sequence_number))

    def resubmit_dead_letters(  # noqa: PLR0913 - an argument for each option of a job
        self,
        queue: str,
        selector: DeadLetterSelector | None = None,
        *,
        to_session_id: str | None = None,
        application_properties: Mapping[str, PropertyValue] | None = None,
        new_message_id: bool = False,
        at_head: bool = False,
        max_resubmits: int = 0,
        messages_per_second: int = 0,
        dry_run: bool = False,
        requested_by: str = "",
    ) -> DeadLetterJob:
        """Begin to put dead letters back into their queue, and return the job that does it (RSB-1 to RSB-9).

        The job goes on by itself, also over a restart of the broker; `wait_for_dead_letter_job` waits for its end. Each
        message is in exactly one of the two stores at any time. It counts deliveries from 0 again, its time to live
        begins anew, and duplicate detection lets it pass.

        Args:
            queue: The queue whose dead letters are meant.
            selector: Which of them; None = all that are there now.
            to_session_id: The session that they get; None = they keep theirs.
            application_properties: Application properties to set on them; the others stay.
            new_message_id: Whether they get new message ids.
            at_head: Whether they go back to their old places by their old sequence numbers. Otherwise they go to the
                tail of their session, in their old order among themselves (RSB-7).
            max_resubmits: Leave messages alone that were resubmitted so often already; 0 = none (RSB-9).
            messages_per_second: At most so many; 0 = as fast as it goes.
            dry_run: Only count what would be taken.
            requested_by: Who asks, for the audit log; at most 128 characters.

        Raises:
            EntityNotFound: There is no such queue.
            InvalidRequest: The options do not go together, or a value is refused.
            LimitExceeded: A text or a list is too long, or too many jobs of the queue run.
        """
        options = job_options(
            to_session_id=to_session_id,
            application_properties=application_properties,
            new_message_id=new_message_id,
            at_head=at_head,
            max_resubmits=max_resubmits,
            messages_per_second=messages_per_second,
            dry_run=dry_run,
        )
        return run_to_completion(
            self._repairing.start(
                queue, DeadLetterJobKind.RESUBMIT, selector, options, requested_by
            )
        )

    def purge_dead_letters(
        self,
        queue: str,
        selector: DeadLetterSelector | None = None,
        *,
        messages_per_second: int = 0,
        dry_run: bool = False,
        requested_by: str = "",
    ) -> DeadLetterJob:
        """Begin to remove dead letters for good, and return the job that does it (RSB-10).

        The arguments and errors are those of `resubmit_dead_letters`.
        """
        options = job_options(messages_per_second=messages_per_second, dry_run=dry_run)
        return run_to_completion(
            self._repairing.start(queue, DeadLetterJobKind.PURGE, selector, options, requested_by)
        )

    def move_dead_letters(  # noqa: PLR0913 - an argument for each option of a job
        self,
        queue: str,
        target: str,
        selector: DeadLetterSelector | None = None,
        *,
        to_session_id: str | None = None,
        application_properties: Mapping[str, PropertyValue] | None = None,
        new_message_id: bool = False,
        max_resubmits: int = 0,
        messages_per_second: int = 0,
        dry_run: bool = False,
        requested_by: str = "",
    ) -> DeadLetterJob:
        """Begin to put dead letters into another queue, and return the job that does it (ADD-11).

        What does not fit the target stays and counts as skipped: messages without a session where it needs one, and
        messages that are too large for it. When the target is full, the job fails. The other arguments and errors are
        those of `resubmit_dead_letters`.

        Args:
            queue: The queue whose dead letters are meant.
            target: Where they go.
            selector: Which of them; None = all that are there now.
            to_session_id: The session that they get; None = they keep theirs.
            application_properties: Application properties to set on them; the others stay.
            new_message_id: Whether they get new message ids.
            max_resubmits: Leave messages alone that were resubmitted or moved so often already; 0 = none.
            messages_per_second: At most so many; 0 = as fast as it goes.
            dry_run: Only count what would be taken.
            requested_by: Who asks, for the audit log.

        Raises:
            EntityNotFound: There is no such queue, or no such target.
            InvalidOperation: The target is a dead-letter store.
        """
        options = job_options(
            target=target,
            to_session_id=to_session_id,
            application_properties=application_properties,
            new_message_id=new_message_id,
            max_resubmits=max_resubmits,
            messages_per_second=messages_per_second,
            dry_run=dry_run,
        )
        return run_to_completion(
            self._repairing.start(queue, DeadLetterJobKind.MOVE, selector, options, requested_by)
        )

    def dead_letter_session(
        self, queue: str, session_id: str, *, reason: str = "", requested_by: str = ""
    ) -> DeadLetterJob:
        """Begin to make the messages of a session dead letters, and return the job that does it.

        It takes those that are there now, active or deferred; what a receiver has in hand stays with it.

        Args:
            queue: The queue.
            session_id: The session.
            reason: Why, for who reads the dead letters; empty = `DeadLetteredByAdministrator`.
            requested_by: Who asks, for the audit log and the description of the dead letters.

        Raises:
            EntityNotFound: There is no such queue.
            InvalidOperation: The queue has no sessions.
            LimitExceeded: A text is too long, or too many jobs of the queue run.
        """
        selector = DeadLetterSelector(session_id=session_id)
        return run_to_completion(
            self._repairing.start(
                queue,
                DeadLetterJobKind.DEAD_LETTER_SESSION,
                selector,
                job_options(reason=reason),
                requested_by,
            )
        )

    def get_dead_letter_job(self, queue: str, number: int) -> DeadLetterJob:
        """Return how a job stands.

        Raises:
            EntityNotFound: There is no such queue.
            JobNotFound: The queue has no such job, or has forgotten it; the last 100 are kept.
        """
        return run_to_completion(self._repairing.get(queue, number))

    def list_dead_letter_jobs(self, queue: str) -> list[DeadLetterJob]:
        """Return the last jobs of a queue, at most 100, the newest first.

        Raises:
            EntityNotFound: There is no such queue.
        """
        return run_to_completion(self._repairing.list(queue))

    def cancel_dead_letter_job(self, queue: str, number: int) -> DeadLetterJob:
        """Let a job end where it is, and return it. What it did stays done; one that has ended stays as it is.

        Raises:
            EntityNotFound: There is no such queue.
            JobNotFound: The queue has no such job, or has forgotten it.
        """
        return run_to_completion(self._repairing.cancel(queue, number))

    def wait_for_dead_letter_job(
        self,
        job: DeadLetterJob,
        *,
        on_progress: OnProgress | None = None,
        timeout: float | None = None,
    ) -> DeadLetterJob:
        """Wait for the end of a job and return it as it ended; its status says how.

        The job does not need the wait: it goes on when the program ends. A restart of the broker is sat out.

        Args:
            job: The job.
            on_progress: Called with the job after each look, at most twice a second for long.
            timeout: Seconds to wait; None = as long as it takes.

        Raises:
            OperationTimeout: It still runs, and goes on.
            EntityNotFound: The queue was deleted.
            JobNotFound: The queue has forgotten the job.
        """
        return run_to_completion(self._repairing.wait(job, on_progress, timeout))

    def close(self) -> None:
        """Close the connection, unless it is that of a `LockstepClient`. A second close does nothing."""
        if self._owns_connection:
            run_to_completion(self._connection.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
