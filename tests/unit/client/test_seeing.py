"""Sessions by a filter, states to clear and explanations go out and come back."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lockstep import AdministrationClient, DeliveryCause, SessionFilter, aio
from lockstep.errors import ClientClosed, InternalError, InvalidRequest, LimitExceeded
from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import session_pb2
from tests.unit.client.scripted import Answer, ScriptedTransport, connect


def administer(*answers: Answer) -> tuple[AdministrationClient, ScriptedTransport]:
    transport = ScriptedTransport(*answers)
    return AdministrationClient._sharing(connect(transport)), transport


def second(number: int) -> datetime:
    return datetime(1970, 1, 1, 0, 0, number, tzinfo=UTC)


# --- sessions ----------------------------------------------------------------------------------------


def test_sessions_are_listed_and_shown() -> None:
    held = session_pb2.SessionInfo(
        session_id="A",
        active_messages=2,
        locked_messages=1,
        holder_client_id="me",
        grant=3,
        state_bytes=0,
        state_version=1,
        dead_letter_messages=4,
        holder_address="ipv4:10.0.0.1:5",
        renewals=6,
        last_loss_cause="expired",
    )
    times = (
        *("locked_until", "first_enqueued_time", "oldest_deliverable_time", "delayed_until"),
        *("granted_time", "released_time", "state_set_time"),
    )
    for number, name in enumerate(times, start=1):
        getattr(held, name).FromMilliseconds(number * 1_000)
    free = session_pb2.SessionInfo(session_id="B")
    administration, transport = administer(
        admin.ListSessionsResponse(sessions=[held], next_page_token="t"),
        admin.ListSessionsResponse(sessions=[free]),
        admin.GetSessionResponse(session=free),
    )

    first, other = administration.list_sessions("orders")
    shown = administration.get_session("orders", "B")

    assert dataclasses.astuple(first) == (
        *("A", 2, 1, "me", second(1), 3, 0, 1, 0, 0, 4, second(2), second(3), second(4)),
        *("ipv4:10.0.0.1:5", second(5), 6, "expired", second(6), second(7)),
    )
    assert dataclasses.astuple(other) == (
        *("B", 0, 0, None, None, 0, None, 0, 0, 0, 0, None, None, None),
        *(None, None, 0, None, None, None),
    )
    assert shown == other
    assert [c.request.queue for c in transport.calls] == ["orders"] * 3


@pytest.mark.parametrize("shown", list(SessionFilter))
@pytest.mark.parametrize("as_text", [False, True])
def test_add_9_every_filter_is_named_in_each_page_that_is_asked_for(
    shown: SessionFilter, as_text: bool
) -> None:
    administration, transport = administer(
        admin.ListSessionsResponse(next_page_token="t"), admin.ListSessionsResponse()
    )

    given = shown.value if as_text else shown
    assert list(administration.list_sessions("orders", filter=given)) == []

    requests = [call.request for call in transport.calls]
    names = [admin.SessionFilter.Name(request.filter) for request in requests]
    assert names == [f"SESSION_FILTER_{shown.name}"] * 2
    assert [(request.page_size, request.page_token) for request in requests] == [
        (1000, ""),
        (1000, "t"),
    ]
    assert not any(request.HasField("state_updated_since") for request in requests)


def test_the_client_knows_every_filter_and_every_cause_of_the_protos() -> None:
    filters = {f"SESSION_FILTER_{shown.name}" for shown in SessionFilter}
    assert filters == set(admin.SessionFilter.keys()) - {"SESSION_FILTER_UNSPECIFIED"}
    causes = {f"DELIVERY_CAUSE_{cause.name}" for cause in DeliveryCause}
    assert causes == set(admin.DeliveryCause.keys()) - {"DELIVERY_CAUSE_UNSPECIFIED"}


async def test_ses_50_states_are_listed_by_when_they_were_set() -> None:
    transport = ScriptedTransport(admin.ListSessionsResponse())
    administration = aio.AdministrationClient._sharing(connect(transport))

    assert [s async for s in administration.list_sessions("q", state_updated_since=second(9))] == []

    (call,) = transport.calls
    assert call.request.state_updated_since.ToMilliseconds() == 9_000


def test_a_filter_that_does_not_exist_is_refused_here() -> None:
    administration, transport = administer()

    with pytest.raises(InvalidRequest, match="SessionFilter"):
        next(administration.list_sessions("orders", filter="hold"))

    assert transport.calls == []


# --- states ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "options", "session_id", "idle_ms"),
    [
        ((), {}, None, None),
        (("A",), {}, "A", None),
        (("",), {}, "", None),
        ((), {"idle_for": timedelta(days=7)}, None, 604_800_000),
        ((), {"idle_for": "PT1M"}, None, 60_000),
    ],
)
def test_ses_44_states_are_cleared_by_session_or_by_idle_time(
    words: tuple[str, ...], options: dict[str, Any], session_id: str | None, idle_ms: int | None
) -> None:
    administration, transport = administer(admin.ClearSessionStatesResponse(cleared_states=3))

    assert administration.clear_session_states("orders", *words, **options) == 3

    (call,) = transport.calls
    named = call.request.session_id if call.request.HasField("session_id") else None
    idle = call.request.idle_for.ToMilliseconds() if call.request.HasField("idle_for") else None
    assert (call.name, call.request.queue, named, idle) == (
        *("ClearSessionStates", "orders", session_id, idle_ms),
    )


def test_an_idle_time_for_a_session_that_is_named_is_refused_here() -> None:
    administration, transport = administer()

    with pytest.raises(InvalidRequest, match="idle_for"):
        administration.clear_session_states("orders", "A", idle_for="PT1M")
    with pytest.raises(LimitExceeded):
        administration.clear_session_states("orders", "A" * 129)
    with pytest.raises(InvalidRequest):
        administration.clear_session_states("orders", idle_for="a week")

    assert transport.calls == []


# --- explanations ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", list(DeliveryCause))
def test_add_10_an_explanation_is_shown_whole(cause: DeliveryCause) -> None:
    answer = admin.ExplainDeliveryResponse(
        cause=admin.DeliveryCause.Value(f"DELIVERY_CAUSE_{cause.name}"),
        sentence="It waits.",
        remedy="Time.",
        facts={"path": "shop/orders"},
    )
    answer.until.FromMilliseconds(5_000)
    administration, transport = administer(answer)

    shown = administration.explain("orders", session_id="A")

    assert dataclasses.astuple(shown) == (
        *(cause, "It waits.", "Time.", None, second(5), {"path": "shop/orders"}),
    )
    (call,) = transport.calls
    assert (call.request.queue, call.request.session_id) == ("orders", "A")
    assert not call.request.HasField("sequence_number")


def test_a_message_is_explained_by_its_number() -> None:
    administration, transport = administer(
        admin.ExplainDeliveryResponse(cause=admin.DELIVERY_CAUSE_EMPTY)
    )

    assert administration.explain("orders", sequence_number=7).cause is DeliveryCause.EMPTY

    (call,) = transport.calls
    assert call.request.sequence_number == 7
    assert not call.request.HasField("session_id")
    with pytest.raises(InvalidRequest, match="no sequence number"):
        administration.explain("orders", sequence_number=2**70)


@pytest.mark.parametrize("cause", [0, 99])
def test_a_cause_of_a_later_release_asks_for_a_newer_client(cause: int) -> None:
    answer = admin.ExplainDeliveryResponse(sentence="It is new.")
    answer.MergeFromString(b"\x08" + bytes([cause]))
    administration, _ = administer(answer)

    with pytest.raises(InternalError, match=r"newer client.*It is new\."):
        administration.explain("orders")


async def test_a_closed_client_asks_nothing() -> None:
    administration = aio.AdministrationClient("broker.example")
    await administration.close()

    with pytest.raises(ClientClosed):
        await administration.explain("orders")
    with pytest.raises(ClientClosed):
        await administration.clear_session_states("orders")
    with pytest.raises(ClientClosed):
        await anext(administration.list_sessions("orders"))
