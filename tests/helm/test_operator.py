"""What the chart gives to the operator: its configuration, and no right that it does not need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lockstep_operator.settings import read_settings
from tests.helm.chart import EVERYTHING, KIND, PRODUCTION, Rendered, Values, merged, render
from tests.kube.definitions import definitions

# Group, resource and verb of each right; * = all kinds of the group.
EVERYWHERE = {
    *(("lockstep.dev", "*", verb) for verb in ("get", "list", "watch", "patch")),
    ("lockstep.dev", "deadletterresubmissions", "delete"),
    ("lockstep.dev", "*/status", "patch"),
    ("lockstep.dev", "*/finalizers", "update"),
    ("", "events", "create"),
    ("", "events", "patch"),
}
AT_HOME = {
    ("lockstep.dev", "brokers", "create"),
    ("coordination.k8s.io", "leases", "create"),
    *(("coordination.k8s.io", "leases/lockstep-operator", verb) for verb in ("get", "update", "patch")),
}  # fmt: skip
TO_READ_DEFINITIONS = {
    ("apiextensions.k8s.io", f"customresourcedefinitions/{one['metadata']['name']}", "get")
    for one in definitions()
}
OF_THE_CLUSTER = {
    *(("", "namespaces", verb) for verb in ("get", "list", "watch")),
    *(("apiextensions.k8s.io", "customresourcedefinitions", verb) for verb in ("list", "watch")),
    *TO_READ_DEFINITIONS,
}


def rights(role: dict[str, Any]) -> set[tuple[str, str, str]]:
    found = set()
    for rule in role["rules"]:
        names = [f"/{one}" for one in rule.get("resourceNames", [])] or [""]
        found |= {
            (group, resource + name, verb)
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for name in names
            for verb in rule["verbs"]
        }
    return found


def configuration(values: Values, directory: Path) -> Any:
    path = directory / "operator.yaml"
    path.write_text(render(values).of("ConfigMap")["lockstep"]["data"]["operator.yaml"])
    return read_settings(path)


def test_the_operator_understands_its_configuration(tmp_path: Path) -> None:
    settings = configuration(KIND, tmp_path)

    assert settings.broker.name == "default"
    assert settings.broker.namespace == "messaging"
    assert settings.broker.address == "lockstep-admin.messaging.svc:7701"
    assert settings.broker.spec["endpoint"] == "lockstep.messaging.svc:7700"
    assert settings.watch_namespaces == ()
    assert (settings.lease.name, settings.lease.namespace) == ("lockstep-operator", "messaging")
    assert (settings.metrics_port, settings.health_port) == (9464, 7702)


def test_its_values_arrive(tmp_path: Path) -> None:
    values = {
        "workers": 3, "driftIntervalSeconds": 60, "countsRefreshSeconds": 0, "bulkRecreate": "always",
        "defaultDeletionPolicy": "Retain",
    }  # fmt: skip

    settings = configuration(merged(EVERYTHING, {"operator": values}), tmp_path)

    assert (settings.workers, settings.watch_namespaces) == (3, ("orders", "billing"))
    assert settings.broker.default_policy == "Retain"
    assert settings.broker.spec["allowedNamespaces"] == {"matchLabels": {"lockstep": "yes"}}
    assert settings.broker.spec["quota"] == {"maxEntities": 9}


def test_its_rights_are_those_of_the_design() -> None:
    rendered = render(KIND)

    assert rights(rendered.of("Role")["lockstep-operator"]) == AT_HOME
    everywhere = rights(rendered.of("ClusterRole")["messaging-lockstep-operator"])
    assert everywhere == EVERYWHERE | OF_THE_CLUSTER


def _roles(rendered: Rendered) -> dict[tuple[str, str], set[tuple[str, str, str]]]:
    return {
        (one["metadata"]["namespace"], one["metadata"]["name"]): rights(one)
        for one in rendered.objects
        if one["kind"] == "Role"
    }


def test_with_a_list_of_namespaces_it_has_its_rights_there_alone() -> None:
    rendered = render(EVERYTHING)

    assert _roles(rendered) == {
        ("messaging", "lockstep-operator"): AT_HOME | EVERYWHERE,
        ("orders", "messaging-lockstep-operator"): EVERYWHERE,
        ("billing", "messaging-lockstep-operator"): EVERYWHERE,
    }
    everywhere = rights(rendered.of("ClusterRole")["messaging-lockstep-operator"])
    assert everywhere == TO_READ_DEFINITIONS


def test_every_binding_leads_to_a_role_and_an_account_that_are_there() -> None:
    for values in (KIND, EVERYTHING):
        rendered = render(values)
        accounts = rendered.of("ServiceAccount")
        bound = 0
        for one in rendered.objects:
            if one["kind"] not in ("RoleBinding", "ClusterRoleBinding"):
                continue
            roles = [
                role
                for role in rendered.objects
                if role["kind"] == one["roleRef"]["kind"]
                and role["metadata"]["name"] == one["roleRef"]["name"]
                and role["metadata"].get("namespace") in (None, one["metadata"].get("namespace"))
            ]
            assert len(roles) == 1, one["metadata"]
            assert [subject["name"] in accounts for subject in one["subjects"]] == [True]
            bound += 1
        assert bound >= 3


@pytest.mark.parametrize("resource", ["secrets", "pods", "services", "*"])
def test_nobody_gets_rights_on_what_is_not_ours(resource: str) -> None:
    for values in (KIND, PRODUCTION, EVERYTHING):
        for one in render(values).objects:
            if one["kind"] in ("Role", "ClusterRole"):
                found = {right for right in rights(one) if right[0] != "lockstep.dev"}
                assert resource not in {right[1] for right in found}


def test_roles_for_people_leave_what_moves_dead_letters_to_administrators() -> None:
    roles = render(KIND).of("ClusterRole")
    for name, writes in (("view", False), ("edit", False), ("admin", True)):
        role = roles[f"messaging-lockstep-{name}"]
        assert (
            role["metadata"]["labels"][f"rbac.authorization.k8s.io/aggregate-to-{name}"] == "true"
        )
        found = ("lockstep.dev", "deadletterresubmissions", "create") in rights(role)
        assert found is writes
    assert ("lockstep.dev", "queues", "create") in rights(roles["messaging-lockstep-edit"])
    assert not {right[2] for right in rights(roles["messaging-lockstep-view"])} - {"get", "list", "watch"}  # fmt: skip


def test_a_single_operator_makes_way_before_the_next_one_comes() -> None:
    strategy = render(KIND).of("Deployment")["lockstep-operator"]["spec"]["strategy"]
    assert strategy == {"type": "Recreate"}
    both = render(EVERYTHING).of("Deployment")["lockstep-operator"]["spec"]["strategy"]
    assert both["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}


def test_a_change_of_its_configuration_starts_the_operator_again() -> None:
    def checksum(values: Values) -> str:
        pod = render(values).of("Deployment")["lockstep-operator"]["spec"]["template"]
        found: str = pod["metadata"]["annotations"]["checksum/config"]
        return found

    assert checksum(KIND) == checksum(merged(KIND, {"log": {"level": "debug"}}))
    assert checksum(KIND) != checksum(merged(KIND, {"operator": {"workers": 2}}))
