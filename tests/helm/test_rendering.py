"""What the chart makes: which objects, for which values, and that Kubernetes knows their fields."""

from __future__ import annotations

import re
from typing import Any

import kubernetes_validate
import pytest
from helm_python.chart import lint
from kubernetes_validate.utils import all_versions

from tests.helm.chart import (
    CHART,
    CRDS,
    EVERYTHING,
    KIND,
    NAMESPACE,
    PRODUCTION,
    PROFILES,
    Object,
    Rendered,
    Values,
    merged,
    render,
)

OLDEST = (1, 30)
# The last build of each release's schemas, by release.
VERSIONS = {
    release: one
    for one in all_versions()
    if (release := tuple(map(int, one.split(".")[:2]))) >= OLDEST
}
# Kinds that Kubernetes does not have by itself; no schema of theirs comes with the validator.
OF_OTHERS = ("monitoring.coreos.com/", "postgresql.cnpg.io/")
CLUSTER_SCOPED = ("ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition")

ALWAYS = {
    "ConfigMap/lockstep", "ConfigMap/lockstep-tests",
    "CustomResourceDefinition/queues.lockstep.dev",
    "ClusterRole/messaging-lockstep-admin", "ClusterRole/messaging-lockstep-edit",
    "ClusterRole/messaging-lockstep-view",
    "ClusterRole/messaging-lockstep-finalizers", "ClusterRole/messaging-lockstep-operator",
    "ClusterRoleBinding/messaging-lockstep-finalizers", "ClusterRoleBinding/messaging-lockstep-operator",
    "Role/lockstep-operator", "RoleBinding/lockstep-operator",
    "Deployment/lockstep-frontend", "Deployment/lockstep-operator", "Deployment/lockstep-owner",
    "Job/lockstep-check", "Job/lockstep-finalizers",
    "NetworkPolicy/lockstep-check", "NetworkPolicy/lockstep-default-deny", "NetworkPolicy/lockstep-finalizers",
    "NetworkPolicy/lockstep-frontend", "NetworkPolicy/lockstep-operator", "NetworkPolicy/lockstep-owner",
    "NetworkPolicy/lockstep-test",
    "Pod/lockstep-test-dead-letter", "Pod/lockstep-test-session-order", "Pod/lockstep-test-smoke",
    "PodDisruptionBudget/lockstep-owner",
    "Service/lockstep", "Service/lockstep-admin", "Service/lockstep-headless",
    "ServiceAccount/lockstep", "ServiceAccount/lockstep-finalizers", "ServiceAccount/lockstep-operator",
}  # fmt: skip
BUNDLED = {
    "Secret/lockstep-postgresql", "Service/lockstep-etcd", "Service/lockstep-etcd-peers", "Service/lockstep-postgresql",
    "StatefulSet/lockstep-etcd", "StatefulSet/lockstep-postgresql",
    "NetworkPolicy/lockstep-etcd", "NetworkPolicy/lockstep-postgres",
}  # fmt: skip


def names(rendered: Rendered) -> set[str]:
    """Return the objects; of the definitions only that of queues, which the chart has had from the beginning."""
    found = [f"{one['kind']}/{one['metadata']['name']}" for one in rendered.objects]
    assert len(found) == len(set(found)), "two objects of one name"
    return {
        one
        for one in found
        if not one.startswith("CustomResourceDefinition/") or one.endswith("/queues.lockstep.dev")
    }


@pytest.fixture(scope="module", params=list(PROFILES))
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return render(PROFILES[request.param])


def test_the_profile_kind_brings_stores_of_its_own() -> None:
    assert names(render(KIND)) == ALWAYS | BUNDLED


def test_the_profile_production_brings_none_and_a_budget_for_front_ends() -> None:
    assert names(render(PRODUCTION)) == ALWAYS | {"PodDisruptionBudget/lockstep-frontend"}


@pytest.mark.parametrize(
    ("values", "added", "gone"),
    [
        ({"crds": {"install": False}}, set(), {"CustomResourceDefinition/queues.lockstep.dev"}),
        ({"frontend": {"autoscaling": {"enabled": True}}}, {"HorizontalPodAutoscaler/lockstep-frontend"}, set()),
        ({"frontend": {"pdb": {"enabled": False}}}, set(), {"PodDisruptionBudget/lockstep-frontend"}),
        ({"frontend": {"replicas": 1}}, set(), {"PodDisruptionBudget/lockstep-frontend"}),
        ({"owner": {"replicas": 1}}, set(), {"PodDisruptionBudget/lockstep-owner"}),
        ({"owner": {"replicas": 1, "pdb": {"enabled": True}}}, set(), set()),
        ({"operator": {"replicas": 2}}, {"PodDisruptionBudget/lockstep-operator"}, set()),
        (
            {"operator": {"enabled": False}},
            set(),
            {one for one in ALWAYS if one.endswith(("-operator", "-finalizers"))},
        ),
        ({"operator": {"finalizers": {"releaseOnUninstall": False}}}, set(), {
            "ClusterRole/messaging-lockstep-finalizers", "ClusterRoleBinding/messaging-lockstep-finalizers",
            "Job/lockstep-finalizers", "ServiceAccount/lockstep-finalizers",
        }),
        (
            {"operator": {"watchNamespaces": ["orders"]}},
            {
                "Role/messaging-lockstep-operator", "RoleBinding/messaging-lockstep-operator",
                "RoleBinding/messaging-lockstep-finalizers",
            },
            {"ClusterRoleBinding/messaging-lockstep-finalizers"},
        ),
        ({"postgresql": {"mode": "cnpg"}}, {"Cluster/lockstep-pg"}, set()),
        ({"networkPolicy": {"enabled": False}}, set(), {one for one in ALWAYS if one.startswith("NetworkPolicy/")}),
        (
            {"monitoring": {"podMonitor": {"enabled": True}}},
            {"PodMonitor/lockstep", "PodMonitor/lockstep-entities"},
            set(),
        ),
        (
            {"monitoring": {"kubeStateMetrics": {"enabled": True}}},
            {"ConfigMap/lockstep-kube-state-metrics"},
            set(),
        ),
        ({"rbac": {"create": False}}, set(), {one for one in ALWAYS if one.split("/")[0] in (
            "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")}),
        ({"rbac": {"aggregateRoles": False}}, set(), {
            "ClusterRole/messaging-lockstep-admin", "ClusterRole/messaging-lockstep-edit",
            "ClusterRole/messaging-lockstep-view",
        }),
        ({"upgradeCheck": {"enabled": False}}, set(), {"Job/lockstep-check"}),
        ({"extraObjects": [{"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "{{ .Release.Name }}-x"}}]},
         {"ConfigMap/lockstep-x"}, set()),
    ],
)  # fmt: skip
def test_a_switch_adds_or_takes_away_just_its_objects(
    values: Values, added: set[str], gone: set[str]
) -> None:
    before = names(render(PRODUCTION))
    found = _with_namespaced(render(merged(PRODUCTION, values)))

    assert found - before == added
    assert before - found == gone


def _with_namespaced(rendered: Rendered) -> set[str]:
    """Return the names; objects of one name may be in two namespaces."""
    return {
        f"{one['kind']}/{one['metadata']['name']}"
        for one in rendered.objects
        if one["kind"] != "CustomResourceDefinition"
        or one["metadata"]["name"] == "queues.lockstep.dev"
    }


@pytest.mark.parametrize("release", VERSIONS)
def test_kubernetes_knows_every_field(release: tuple[int, int]) -> None:
    """In the oldest release and in the newest one of all that is made; in those between, of one object of each kind."""
    is_border = release in (min(VERSIONS), max(VERSIONS))
    objects: dict[str, Object] = {}
    for one in (one for values in PROFILES.values() for one in render(values).objects):
        if one["apiVersion"].startswith(OF_OTHERS) or one["kind"] == "CustomResourceDefinition":
            continue
        objects[repr(one) if is_border else one["kind"]] = one
    for one in objects.values():
        kubernetes_validate.validate(one, VERSIONS[release], strict=True)
    assert len(objects) > (50 if is_border else 14)


def test_a_field_that_kubernetes_does_not_know_is_found() -> None:
    service = dict(render(KIND).of("Service")["lockstep"])
    service["spec"] = {**service["spec"], "prots": []}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, VERSIONS[max(VERSIONS)], strict=True)


def test_releases_from_1_30_on_are_looked_at() -> None:
    assert {(1, minor) for minor in range(30, 37)} <= set(VERSIONS)


def test_every_object_is_labelled_and_in_the_namespace_of_the_release(rendered: Rendered) -> None:
    for one in rendered.objects:
        metadata = one["metadata"]
        if one["kind"] == "CustomResourceDefinition" or metadata["name"].endswith("-extra"):
            continue
        assert metadata["labels"]["app.kubernetes.io/instance"] == "lockstep", metadata
        assert metadata["labels"]["app.kubernetes.io/part-of"] == "lockstep", metadata
        if one["kind"] in CLUSTER_SCOPED:
            assert metadata["name"].startswith(f"{NAMESPACE}-")
        else:
            assert metadata["namespace"] in (NAMESPACE, "orders", "billing", "monitoring"), metadata


def test_common_labels_are_on_every_object() -> None:
    for one in render(EVERYTHING).objects:
        if one["kind"] == "CustomResourceDefinition" or one["metadata"]["name"].endswith("-extra"):
            continue
        assert one["metadata"]["labels"]["team"] == "payments", one["metadata"]


def test_no_image_is_of_whatever_release_is_the_latest(rendered: Rendered) -> None:
    images = {container.spec["image"] for container in rendered.containers()}
    assert images
    for image in images:
        assert re.fullmatch(r"[a-z0-9.-]+(/[a-z0-9.-]+)+:[A-Za-z0-9._-]+", image), image
        assert not image.endswith(":latest")


def test_a_digest_wins_over_a_tag() -> None:
    digest = "sha256:" + "0" * 64
    image = {"registry": "registry.example:5000", "tag": "1", "digest": digest}

    deployment = render(merged(PRODUCTION, {"image": image})).of("Deployment")["lockstep-owner"]

    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"registry.example:5000/lockstep/lockstep@{digest}"


def test_the_chart_makes_no_object_of_our_own_kinds(rendered: Rendered) -> None:
    """Its definition may not be served yet when Helm sends the rest (design 3.8)."""
    assert not [one for one in rendered.objects if one["apiVersion"].startswith("lockstep.dev/")]


def test_replicas_are_left_to_the_autoscaler() -> None:
    values = merged(PRODUCTION, {"frontend": {"autoscaling": {"enabled": True}}})

    assert "replicas" not in render(values).of("Deployment")["lockstep-frontend"]["spec"]
    assert render(PRODUCTION).of("Deployment")["lockstep-frontend"]["spec"]["replicas"] == 2


@pytest.mark.parametrize("name", ["lockstep-owner", "lockstep-frontend"])
def test_a_rolling_update_never_has_fewer_pods(name: str, rendered: Rendered) -> None:
    spec = rendered.of("Deployment")[name]["spec"]

    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_budgets_never_keep_an_unhealthy_pod_from_being_evicted(rendered: Rendered) -> None:
    for one in rendered.of("PodDisruptionBudget").values():
        assert one["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_definitions_are_kept_unless_told_otherwise() -> None:
    def annotations(values: Values) -> list[Any]:
        definitions = render(merged(KIND, values)).of("CustomResourceDefinition")
        return [one["metadata"].get("annotations") for one in definitions.values()]

    assert all(one == {"helm.sh/resource-policy": "keep"} for one in annotations({}))
    assert all(one is None for one in annotations({"crds": {"keep": False}}))


def test_the_chart_of_the_definitions_has_the_same_ones() -> None:
    def definitions(rendered: Rendered) -> dict[str, Object]:
        return rendered.of("CustomResourceDefinition")

    alone = render({}, chart=CRDS)

    assert definitions(alone) == definitions(render(KIND))
    assert len(alone.objects) == len(definitions(alone))


def test_two_releases_share_no_name_that_belongs_to_the_whole_cluster() -> None:
    first, second = (
        {
            one["metadata"]["name"]
            for one in render(KIND, release=release, namespace=namespace).objects
            if one["kind"] in ("ClusterRole", "ClusterRoleBinding")
        }
        for release, namespace in (("lockstep", "a"), ("lockstep", "b"))
    )
    assert not first & second


def test_a_release_of_another_name_has_the_name_of_the_chart_in_its_names() -> None:
    assert "orders-lockstep-owner" in render(KIND, release="orders").of("Deployment")


@pytest.mark.parametrize("chart", [CHART, CRDS])
def test_helm_lint_finds_nothing(chart: Any) -> None:
    report = lint(chart, dict(KIND) if chart == CHART else {}, kube_version="v1.30.0")

    assert report["errors"] == []
    assert [one for one in report["messages"] if one["severity"] > 1] == []
