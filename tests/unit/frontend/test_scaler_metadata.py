"""The metadata of a trigger of KEDA: what is understood, and with which words the rest is refused."""

from __future__ import annotations

from typing import Any

import pytest

from lockstep.core.entity import QueueDefinition, QueueSettings
from lockstep.core.errors import InvalidOperation, InvalidRequest
from lockstep.core.ids import EntityKey, EntityNumber
from lockstep.frontend.scaler_metadata import Asked, Metric, Target, read_metadata, target_of


def _read(**given: str) -> Asked:
    return read_metadata({"entity": "orders", **given}, "shop")


def _queue(**settings: Any) -> QueueDefinition:
    number = EntityNumber(1)
    return QueueDefinition("shop", "orders", number, "uid", 1, QueueSettings(**settings), 0, 0)


def test_a_name_is_enough() -> None:
    asked = _read()

    assert asked == Asked(EntityKey("shop", "orders"), None, None, None, 0.0, 5_000)


def test_everything_can_be_said() -> None:
    asked = _read(
        namespace="Bank",
        metric="activeMessages",
        targetValue="12.5",
        activationValue="3",
        streamIntervalSeconds="1",
    )

    wanted = EntityKey("bank", "orders")
    assert asked == Asked(wanted, Metric.ACTIVE_MESSAGES, None, 12.5, 3.0, 1_000)


def test_what_keda_reads_itself_is_passed_over() -> None:
    assert _read(scalerAddress="lockstep:7700", enableTLS="true", unsafeSsl="false") == _read()


def test_a_value_may_come_from_the_environment_of_the_pods() -> None:
    found = read_metadata({"entityFromEnv": "orders", "sessionsPerPodFromEnv": "4"}, "shop")

    assert found == _read(sessionsPerPod="4")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"entity": ""}, "metadata.entity is missing"),
        ({"entity": "orders/$DeadLetterQueue"}, "names a dead-letter store"),
        ({"queueName": "orders"}, "metadata.queueName is not known. There are entity, namespace"),
        ({"sessionsPerPodd": "1"}, "metadata.sessionsPerPodd is not known"),
        ({"entityFromEnv": "orders"}, "metadata.entity and metadata.entityFromEnv are given"),
        ({"metric": "ready"}, "metadata.metric is one of readySessions, activeMessages"),
        ({"sessionsPerPod": "0"}, "metadata.sessionsPerPod is a number of 1 or more; '0'"),
        ({"sessionsPerPod": "many"}, "metadata.sessionsPerPod is a number of 1 or more; 'many'"),
        ({"targetValue": "-1"}, "metadata.targetValue is a number of 0 or more; '-1'"),
        ({"targetValue": "nan"}, "metadata.targetValue is a number"),
        ({"targetValue": "0"}, "metadata.targetValue is above 0"),
        ({"activationValue": "1e9"}, "metadata.activationValue is a number"),
        ({"streamIntervalSeconds": "0"}, "metadata.streamIntervalSeconds is a number from 1 to"),
        ({"streamIntervalSeconds": "3601"}, "metadata.streamIntervalSeconds is a number from 1 to"),
    ],
    ids=str,
)
def test_what_is_not_known_is_refused(given: dict[str, str], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        _read(**given)


def test_a_trigger_without_a_queue_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"metadata\.entity is missing"):
        read_metadata({"namespace": "shop"}, "shop")


def test_a_queue_with_sessions_is_scaled_by_them_and_another_by_its_messages() -> None:
    sessions, plain = _queue(requires_session=True), _queue()

    assert target_of(_read(), sessions) == Target(Metric.READY_SESSIONS, 1.0)
    assert target_of(_read(sessionsPerPod="8"), sessions) == Target(Metric.READY_SESSIONS, 8.0)
    assert target_of(_read(targetValue="50"), plain) == Target(Metric.ACTIVE_MESSAGES, 50.0)
    by_messages = _read(metric="activeMessages", targetValue="50")
    assert target_of(by_messages, sessions) == Target(Metric.ACTIVE_MESSAGES, 50.0)


@pytest.mark.parametrize(
    ("given", "has_sessions", "why"),
    [
        ({"targetValue": "5"}, True, "sessionsPerPod says how many sessions a pod takes"),
        ({}, False, "metadata.targetValue is missing: how much of activeMessages of shop/orders"),
        ({"sessionsPerPod": "5"}, False, "sessionsPerPod does not go with activeMessages"),
        ({"metric": "activeMessages"}, True, "metadata.targetValue is missing"),
    ],
    ids=str,
)
def test_a_share_that_does_not_fit_the_metric_is_refused(
    given: dict[str, str], has_sessions: bool, why: str
) -> None:
    with pytest.raises(InvalidRequest, match=why):
        target_of(_read(**given), _queue(requires_session=has_sessions))


def test_a_queue_without_sessions_is_not_scaled_by_them() -> None:
    with pytest.raises(InvalidOperation, match="shop/orders has no sessions to scale by"):
        target_of(_read(metric="readySessions"), _queue())
