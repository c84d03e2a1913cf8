"""The HTTP server for scrapes and probes, over a real socket on the loopback."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from lockstep.core.errors import InvalidRequest
from lockstep.runtime.metrics import EntityGauges, Metrics
from lockstep.runtime.metrics_server import Health, MetricsServer, serve_metrics

LOOPBACK = "127.0.0.1"


class Probed:
    """A process whose health a test sets."""

    def __init__(self) -> None:
        self.health = Health(is_live=True, is_ready=True)
        self.error: Exception | None = None

    def __call__(self) -> Health:
        if self.error is not None:
            raise self.error
        return self.health


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture
def probed() -> Probed:
    return Probed()


@pytest.fixture
def server(metrics: Metrics, probed: Probed) -> Iterator[MetricsServer]:
    server = serve_metrics(LOOPBACK, 0, metrics, probed)
    yield server
    server.close()


def ask(server: MetricsServer, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection(LOOPBACK, server.port, timeout=5)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_metrics_and_entities_are_two_pages(server: MetricsServer, metrics: Metrics) -> None:
    metrics.register_entity(entity_namespace="n", entity="q", entity_type="queue")

    process, entities = ask(server, "/metrics"), ask(server, "/metrics/entities?x=1")

    assert process[0] == entities[0] == 200
    assert "lockstep_build_info" in process[1]
    assert 'entity="q"' not in process[1]
    assert 'entity="q"' in entities[1]


def test_probes_of_a_healthy_process_succeed(server: MetricsServer) -> None:
    assert ask(server, "/healthz")[0] == ask(server, "/readyz")[0] == 200


def test_process_that_is_not_ready_is_still_live(server: MetricsServer, probed: Probed) -> None:
    probed.health = Health(is_live=True, is_ready=False, reasons=("opening partition 0",))

    live, ready = ask(server, "/healthz"), ask(server, "/readyz")

    assert (live[0], ready[0]) == (200, 503)
    assert json.loads(ready[1])["reasons"] == ["opening partition 0"]


def test_process_that_is_not_live_is_not_ready_either(
    server: MetricsServer, probed: Probed
) -> None:
    probed.health = Health(is_live=False, is_ready=True)

    assert (ask(server, "/healthz")[0], ask(server, "/readyz")[0]) == (503, 503)


def test_probe_whose_source_fails_fails(server: MetricsServer, probed: Probed) -> None:
    probed.error = LookupError("no actor")

    status, text = ask(server, "/readyz")

    assert status == 500
    assert "no actor" in text


def test_failed_source_of_gauges_fails_only_the_page_of_entities(
    server: MetricsServer, metrics: Metrics
) -> None:
    def source() -> list[EntityGauges]:
        raise LookupError("no owner")

    metrics.watch_entities(source)

    assert ask(server, "/metrics/entities")[0] == 500
    assert ask(server, "/metrics")[0] == 200


def test_unknown_page_names_the_known_ones(server: MetricsServer) -> None:
    status, text = ask(server, "/metric")

    assert status == 404
    assert "/metrics/entities" in text


def test_head_has_no_body_and_post_is_refused(server: MetricsServer) -> None:
    assert ask(server, "/healthz", "HEAD") == (200, "")
    assert ask(server, "/healthz", "POST")[0] == 501


def test_health_port_shows_no_metrics(probed: Probed) -> None:
    server = serve_metrics(LOOPBACK, 0, None, probed)

    statuses = ask(server, "/metrics")[0], ask(server, "/healthz")[0]

    server.close()
    assert statuses == (404, 200)


def test_address_in_use_is_refused_with_its_name(server: MetricsServer, probed: Probed) -> None:
    with pytest.raises(InvalidRequest, match=f"port {server.port}") as refused:
        serve_metrics(LOOPBACK, server.port, None, probed)

    assert refused.value.details == {"host": LOOPBACK, "port": str(server.port)}


def test_closed_server_does_not_answer_and_closes_twice(metrics: Metrics, probed: Probed) -> None:
    server = serve_metrics(LOOPBACK, 0, metrics, probed)

    server.close()
    server.close()

    with pytest.raises(ConnectionRefusedError):
        ask(server, "/healthz")
