"""`lockstep explain`: why messages do not arrive.

Here belongs the answer for a queue, a session or a message, with what a person checks next (SND-3): that the server was
reached and what runs there, the exact path, who drains the queue, whether a receiver waits. Never here: the cause
itself (the server finds it). The law: looking changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from importlib.metadata import version as installed_version
from itertools import islice
from typing import Annotated, Final

import typer

from lockstep import (
    AdministrationClient,
    DeliveryCause,
    DeliveryExplanation,
    SessionFilter,
    SessionProperties,
)
from lockstep.cli.context import DISTRIBUTION, CommandLine, command_line
from lockstep.cli.options import QueueName, wrong_usage
from lockstep.cli.session_looks import age, holder, in_seconds, now, shown_id
from lockstep.cli.values import described, format_time
from lockstep.core.errors import EntityNotFound
from lockstep.core.wording import counted

EPILOG = """
Examples:
  lockstep explain orders
  lockstep explain orders --session A
  lockstep explain orders --message 4711
  lockstep explain orders --json | jq -r .cause
"""
_HOLDERS_MAX: Final = 10
_SIMILAR_MAX: Final = 5
_SERVER_RELEASE: Final = "server_release"
_UNKNOWN: Final = "not told"
_NEVER: Final = "nothing since the queue was opened"


@dataclass(frozen=True, slots=True)
class _Findings:
    """What was asked of the server.

    Attributes:
        path: The exact path of the queue.
        explained: Why what was asked for is not delivered.
        queue: The same of the whole queue, for its facts.
        holders: Sessions of the queue that are held, the first of them.
        has_more: Whether more are held.
    """

    path: str
    explained: DeliveryExplanation
    queue: DeliveryExplanation
    holders: Sequence[SessionProperties]
    has_more: bool


def explain(
    ctx: typer.Context,
    queue: QueueName,
    *,
    session_id: Annotated[
        str | None, typer.Option("--session", metavar="ID", help="Explain this session.")
    ] = None,
    number: Annotated[
        int | None,
        typer.Option("--message", min=1, metavar="N", help="Explain this sequence number."),
    ] = None,
) -> None:
    """Say why the next message of a queue is not being delivered, since when, and what ends it.

    Or why the next one of a session is not, or a certain message. Then come the facts for "my messages do not arrive":
    the server that was reached and what runs there, the exact path of the queue, whether a receiver waits, who
    holds sessions, who received last, and what the queue holds. Looking locks nothing and changes nothing.
    """
    if session_id is not None and number is not None:
        raise wrong_usage(ctx, "Name a session or a message, not both.")
    line = command_line(ctx)
    with line.connect() as client, client.get_administration_client() as administration:
        try:
            found = _look(administration, queue, session_id, number)
        except EntityNotFound:
            _tell_similar(line, administration, queue)
            raise
    if line.output.is_json:
        line.output.data(_json(line, found))
        return
    at = now()
    line.output.say(found.explained.sentence)
    line.output.say(f"What ends it: {found.explained.remedy}")
    line.output.say("")
    line.output.facts([*_times(found.explained, at), *_facts(line, found, at)])


def _look(
    administration: AdministrationClient, queue: str, session_id: str | None, number: int | None
) -> _Findings:
    explained = administration.explain(queue, session_id=session_id, sequence_number=number)
    is_of_queue = session_id is None and number is None
    of_queue = explained if is_of_queue else administration.explain(queue)
    holders: list[SessionProperties] = []
    if of_queue.cause is not DeliveryCause.NO_OWNER and (
        administration.get_queue(queue).requires_session
    ):
        held = administration.list_sessions(queue, filter=SessionFilter.HELD)
        holders = list(islice(held, _HOLDERS_MAX + 1))
    path = of_queue.facts.get("path") or f"{administration.namespace}/{queue}"
    return _Findings(
        path, explained, of_queue, holders[:_HOLDERS_MAX], has_more=len(holders) > _HOLDERS_MAX
    )


def _tell_similar(line: CommandLine, administration: AdministrationClient, queue: str) -> None:
    """Name queues that the sender or the caller may have meant."""
    names = {found.name.lower(): found.name for found in administration.list_queues()}
    close = get_close_matches(queue.lower(), names, n=_SIMILAR_MAX)
    if close:
        line.output.note(f"There is {', '.join(names[name] for name in close)}.")
    elif names:
        line.output.note(
            f"The namespace {line.namespace} has {counted(len(names), 'other queue')}."
        )
    else:
        line.output.note(f"The namespace {line.namespace} has no queues.")


def _json(line: CommandLine, found: _Findings) -> dict[str, object]:
    answer = described(found.explained)
    facts = {**found.queue.facts, **found.explained.facts}
    release = facts.pop(_SERVER_RELEASE, None)
    answer["path"] = found.path
    answer["facts"] = dict(sorted(facts.items()))
    answer["server"] = {"address": line.server, "release": release}
    answer["client_release"] = installed_version(DISTRIBUTION)
    answer["held_sessions"] = [described(session) for session in found.holders]
    return answer


def _times(explained: DeliveryExplanation, at: datetime) -> list[tuple[str, str]]:
    times = []
    if explained.since_utc is not None:
        since = f"{format_time(explained.since_utc)} ({age(explained.since_utc, at)} ago)"
        times.append(("Since", since))
    if explained.until_utc is not None:
        until = f"{format_time(explained.until_utc)} (in {in_seconds(explained.until_utc - at)})"
        times.append(("Ends by itself", until))
    return times


def _facts(line: CommandLine, found: _Findings, at: datetime) -> list[tuple[str, str]]:
    """Return the list of SND-3 and what the queue holds."""
    facts = found.queue.facts
    release = facts.get(_SERVER_RELEASE) or _UNKNOWN
    ours = installed_version(DISTRIBUTION)
    same = "" if release == ours else "; they differ, so bring both to the same release"
    shown = [
        ("Server", f"{line.server} answered; it runs release {release}, this command {ours}{same}"),
        ("Path", f"{found.path}: senders and receivers must use exactly this one"),
    ]
    if "waiting_receivers" in facts:
        shown.append(("Receivers", _waiting_text(int(facts["waiting_receivers"]))))
    shown += [("Held by", text) for text in _holder_texts(found, at)]
    if "active" in facts:
        shown.append(("Last received", _last_received(facts)))
        shown.append(("Last sent", facts.get("last_sent") or _NEVER))
        shown += _contents(facts)
    return shown


def _waiting_text(count: int) -> str:
    if not count:
        return "none waits for something to come"
    return f"{counted(count, 'receiver')} {'waits' if count == 1 else 'wait'} for something to come"


def _holder_texts(found: _Findings, at: datetime) -> list[str]:
    texts = [
        f"{holder(session)}: session {shown_id(session.session_id)} for {age(session.granted_at_utc, at)}"
        for session in found.holders
    ]
    if found.has_more:
        texts.append("and others; lockstep sessions list --held shows all")
    return texts


def _last_received(facts: Mapping[str, str]) -> str:
    if "last_delivered" not in facts:
        return _NEVER
    whom = facts.get("last_receiver")
    return f"{facts['last_delivered']}{f' by {whom}' if whom else ''}"


def _contents(facts: Mapping[str, str]) -> list[tuple[str, str]]:
    parts = [f"{facts['active']} active"]
    others = ("locked", "expired", "delayed", "deferred", "scheduled", "dead_letters")
    parts += [
        f"{facts[name]} {name.replace('_', ' ')}" for name in others if facts.get(name, "0") != "0"
    ]
    shown = [("Messages", ", ".join(parts))]
    if facts.get("free_sessions", "0") != "0" or facts.get("held_sessions", "0") != "0":
        sessions = f"{facts['free_sessions']} free with messages, {facts['held_sessions']} held"
        shown.append(("Sessions", sessions))
    if facts.get("accept_next") == "disabled":
        shown.append(("Accept next", "disabled: receivers must name their session"))
    for label, name, unit in (("Status", "status", ""), ("Size", "size_bytes", " bytes")):
        if name in facts:
            shown.append((label, facts[name] + unit))
    return shown
