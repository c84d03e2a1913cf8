"""Who may reach whom: nobody, but for the flows that are listed here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.helm.chart import (
    EVERYTHING,
    KIND,
    NAMESPACE,
    PRODUCTION,
    PROFILES,
    Object,
    Rendered,
    merged,
    render,
)

# What may reach what, and at which port; "anybody" = also from outside of the release.
FLOWS_OF_KIND = {
    ("anybody", "frontend", 7700), ("operator", "frontend", 7701),
    ("frontend", "owner", 7710), ("owner", "owner", 7710), ("check", "owner", 7710),
    ("frontend", "etcd", 2379), ("owner", "etcd", 2379), ("check", "etcd", 2379), ("etcd", "etcd", 2380),
    ("owner", "postgres", 5432),
    ("anybody", "frontend", 7702), ("anybody", "owner", 7702), ("anybody", "operator", 7702), ("anybody", "etcd", 2381),
    ("a namespace", "frontend", 9464), ("a namespace", "owner", 9464), ("a namespace", "operator", 9464),
}  # fmt: skip
COMPONENT = "app.kubernetes.io/component"


@pytest.fixture(scope="module", params=list(PROFILES))
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return render(PROFILES[request.param])


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def policies_of(rendered: Rendered, labels: Mapping[str, str]) -> list[Object]:
    return [
        one["spec"]
        for one in rendered.of("NetworkPolicy").values()
        if selects(one["spec"]["podSelector"], labels)
    ]


def ports_in(rendered: Rendered, labels: Mapping[str, str]) -> set[int]:
    return {
        port["port"]
        for policy in policies_of(rendered, labels)
        for rule in policy.get("ingress", [])
        for port in rule["ports"]
    }


def flows(rendered: Rendered) -> Iterator[tuple[str, str, int]]:
    """Yield who may reach which component at which port, as the receiving side says."""
    for one in rendered.of("NetworkPolicy").values():
        target = one["spec"]["podSelector"]["matchLabels"].get(COMPONENT, "all")
        for rule in one["spec"].get("ingress", []):
            for peer in rule.get("from", [None]):
                for port in rule["ports"]:
                    yield _name(peer), target, port["port"]


def _name(peer: Any) -> str:
    if peer is None:
        return "anybody"
    if "namespaceSelector" in peer:
        return "clients" if "podSelector" in peer else "a namespace"
    return str(peer["podSelector"]["matchLabels"][COMPONENT])


def test_the_flows_are_these_and_no_others() -> None:
    assert set(flows(render(KIND))) == FLOWS_OF_KIND
    of_stores = {one for one in FLOWS_OF_KIND if one[1] in ("etcd", "postgres")}
    assert set(flows(render(PRODUCTION))) == FLOWS_OF_KIND - of_stores


def test_every_pod_is_denied_everything_first(rendered: Rendered) -> None:
    deny = rendered.of("NetworkPolicy")["lockstep-default-deny"]["spec"]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & set(deny)
    for name, pod in rendered.pods():
        assert selects(deny["podSelector"], pod["metadata"]["labels"]), name


def test_every_port_of_every_container_is_named_by_a_policy(rendered: Rendered) -> None:
    seen = 0
    for container in rendered.containers():
        ports = {one["containerPort"] for one in container.spec.get("ports", [])}
        assert ports <= ports_in(rendered, container.pod["metadata"]["labels"]), container.owner
        seen += len(ports)
    assert seen >= 9


def test_what_one_side_lets_in_the_other_side_lets_out() -> None:
    rendered = render(KIND)
    pods = {pod["metadata"]["labels"][COMPONENT]: pod for _, pod in rendered.pods()}
    checked = 0
    for source, target, port in flows(rendered):
        if source not in pods:
            continue
        out = [
            rule
            for policy in policies_of(rendered, pods[source]["metadata"]["labels"])
            for rule in policy.get("egress", [])
            if port in [one["port"] for one in rule["ports"]]
            and any(
                selects(peer["podSelector"], pods[target]["metadata"]["labels"])
                for peer in rule["to"]
            )
        ]
        assert out, (source, target, port)
        checked += 1
    assert checked >= 8


def test_programs_of_helm_test_and_of_the_upgrade_reach_front_ends_where_only_some_clients_may() -> (
    None
):
    values = merged(PRODUCTION, {"networkPolicy": {"clientSelector": {"matchLabels": {"a": "b"}}}})

    found = {one for one in flows(render(values)) if one[1:] == ("frontend", 7700)}

    assert found == {(one, "frontend", 7700) for one in ("clients", "test", "check")}


def _egress(rendered: Rendered, component: str) -> list[Object]:
    found: list[Object] = rendered.of("NetworkPolicy")[f"lockstep-{component}"]["spec"]["egress"]
    return found


def test_everything_may_ask_for_names(rendered: Rendered) -> None:
    dns = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
    for name, one in rendered.of("NetworkPolicy").items():
        if name not in ("lockstep-default-deny", "lockstep-postgres"):
            assert {"ports": dns} in one["spec"]["egress"], name


def test_the_ports_of_outer_stores_are_those_that_were_named() -> None:
    values = merged(PRODUCTION, {"postgresql": {"external": {"ports": [6432, 6433]}}})
    rendered = render(merged(values, {"etcd": {"external": {"endpoints": ["a:2379", "b:2390"]}}}))

    ports = [[one["port"] for one in rule["ports"]] for rule in _egress(rendered, "owner")]

    assert [2379, 2390] in ports
    assert [6432, 6433] in ports
    assert [6432, 6433] not in [
        [one["port"] for one in rule["ports"]] for rule in _egress(rendered, "frontend")
    ]


def test_only_the_operator_and_what_cleans_up_for_it_reach_kubernetes() -> None:
    rendered = render(EVERYTHING)
    api = {"to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]}
    reaching = {
        name
        for name, one in rendered.of("NetworkPolicy").items()
        for rule in one["spec"].get("egress", [])
        if {"to": rule.get("to")} == api
    }
    assert reaching == {"lockstep-operator", "lockstep-finalizers"}
    assert all(
        one["metadata"]["namespace"] == NAMESPACE for one in rendered.of("NetworkPolicy").values()
    )
