"""Every pod: what it may do, what it needs, how it is probed, and that its settings are settings of Lockstep."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest

from lockstep.runtime.config import ServerConfig, load_config
from tests.helm.chart import (
    EVERYTHING,
    KIND,
    PRODUCTION,
    PROFILES,
    Container,
    Object,
    Rendered,
    Values,
    merged,
    render,
)

TOKENS = {"Deployment/lockstep-operator", "Job/lockstep-finalizers"}
RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
FROM_ELSEWHERE = (
    "10.0.0.7"  # what stands for a reference: the address of a pod is one of its names too
)


@pytest.fixture(scope="module", params=list(PROFILES))
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return render(PROFILES[request.param])


def test_every_pod_passes_the_restricted_standard(rendered: Rendered) -> None:
    """The checks of https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted."""
    for name, pod in rendered.pods():
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        for volume in spec.get("volumes", []):
            assert set(volume) - {"name"} <= RESTRICTED_VOLUMES, (name, volume)
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in rendered.containers():
        security = container.spec["securityContext"]
        assert security["allowPrivilegeEscalation"] is False, container.owner
        assert security["capabilities"] == {"drop": ["ALL"]}, container.owner
        assert not {"privileged", "procMount", "runAsUser", "seccompProfile"} & set(security)
        assert not [port for port in container.spec.get("ports", []) if "hostPort" in port]


def test_every_root_is_read_only_and_only_named_volumes_are_written(rendered: Rendered) -> None:
    for container in rendered.containers():
        assert container.spec["securityContext"]["readOnlyRootFilesystem"] is True, container.owner
    for _, pod in rendered.pods():
        for volume in pod["spec"].get("volumes", []):
            if "emptyDir" in volume:
                assert volume["emptyDir"]["sizeLimit"]


def test_only_the_operator_may_call_kubernetes(rendered: Rendered) -> None:
    accounts = rendered.of("ServiceAccount")
    for name, pod in rendered.pods():
        spec = pod["spec"]
        assert spec["enableServiceLinks"] is False, name
        assert spec["serviceAccountName"] in accounts
        mounts = spec.get("automountServiceAccountToken", True)
        assert mounts is (name in TOKENS), name


def test_no_secret_is_anywhere_but_in_a_secret() -> None:
    rendered = render(KIND)
    secret = rendered.of("Secret")["lockstep-postgresql"]
    password = secret["stringData"]["password"]

    assert len(password) == 32
    assert password in secret["stringData"]["dsn"]
    holders = [one["kind"] for one in rendered.objects if password in repr(one)]
    assert holders == ["Secret"]


def test_owners_take_the_connection_string_from_the_secret_that_is_named() -> None:
    def reference(values: Values) -> Any:
        (container,) = _containers(render(values), "Deployment/lockstep-owner/owner")
        found = {one["name"]: one for one in container.spec["env"]}
        return found["LOCKSTEP_CLUSTER__POSTGRES_DSNS"]["valueFrom"]["secretKeyRef"]

    assert reference(KIND) == {"name": "lockstep-postgresql", "key": "dsn"}
    assert reference(PRODUCTION) == {"name": "postgres", "key": "dsn"}
    assert reference(merged(PRODUCTION, {"postgresql": {"external": {"dsnKey": "uri"}}})) == {
        "name": "postgres",
        "key": "uri",
    }
    assert reference(EVERYTHING) == {"name": "lockstep-pg-app", "key": "uri"}


def _containers(rendered: Rendered, owner: str) -> list[Container]:
    return [one for one in rendered.containers() if one.owner == owner]


def _settings(
    container: Container, monkeypatch: pytest.MonkeyPatch, secret: str = "from-a-secret"
) -> ServerConfig:
    """Return what Lockstep makes of a container's environment; it refuses what it does not know."""
    for one in container.spec["env"]:
        kind = next(iter(one.get("valueFrom", {"": None})))
        value = secret if kind == "secretKeyRef" else FROM_ELSEWHERE
        monkeypatch.setenv(one["name"], one.get("value", value))
    return load_config(None, {})


def test_the_environment_of_owners_and_front_ends_are_settings_of_lockstep(
    rendered: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("owner", "frontend"):
        (container,) = _containers(rendered, f"Deployment/lockstep-{name}/{name}")
        with monkeypatch.context() as patched:
            config = _settings(container, patched)

        assert container.spec["args"] == [name]
        assert config.partitions == 16
        assert config.log_format == "json"
        assert config.cluster.name == "messaging.lockstep"
        ports = {one["name"]: one["containerPort"] for one in container.spec["ports"]}
        assert (ports["health"], ports["metrics"]) == (config.health_port, config.metrics_port)
        if name == "owner":
            assert config.cluster.node == FROM_ELSEWHERE
            assert config.cluster.advertised_host == FROM_ELSEWHERE
            assert ports["owner"] == config.cluster.owner_port
        else:
            assert (ports["grpc"], ports["admin"]) == (config.port, config.admin_port)


def test_settings_of_every_kind_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    (container,) = _containers(render(EVERYTHING), "Deployment/lockstep-owner/owner")

    config = _settings(container, monkeypatch)

    assert config.limits.queues_max == 50
    assert config.outage_grace_ms == 20_000
    assert config.cluster.endpoints == ("etcd-0:2379", "etcd-1:2390")
    assert (config.cluster.etcd_transport, config.cluster.etcd_user) == ("tls", "from-a-secret")
    assert config.cluster.etcd_password.get_secret_value() == "from-a-secret"
    assert config.cluster.etcd_ca_file == "/etc/lockstep/etcd/ca.crt"
    assert config.cluster.etcd_certificate_file == "/etc/lockstep/etcd/tls.crt"
    assert config.cluster.etcd_key_file == "/etc/lockstep/etcd/tls.key"
    mounts = {one["name"]: one["mountPath"] for one in container.spec["volumeMounts"]}
    assert mounts["etcd-tls"] == "/etc/lockstep/etcd"


@pytest.mark.parametrize("name", ["owner", "frontend"])
def test_a_pod_has_time_for_its_orderly_end(
    name: str, rendered: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    (container,) = _containers(rendered, f"Deployment/lockstep-{name}/{name}")

    config = _settings(container, monkeypatch)

    needed_ms = config.lame_duck_ms + config.shutdown_grace_ms
    assert needed_ms <= (container.pod["spec"]["terminationGracePeriodSeconds"] - 10) * 1000


def test_what_runs_for_long_is_probed_and_what_it_probes_is_a_port_of_its_own(
    rendered: Rendered,
) -> None:
    for container in rendered.containers():
        if not container.owner.startswith(("Deployment/", "StatefulSet/")):
            continue
        if container.owner.endswith("/wait-for-postgresql"):
            continue
        assert {"startupProbe", "readinessProbe"} <= set(container.spec), container.owner
        ports = {one["name"] for one in container.spec["ports"]}
        probes = [container.spec[one] for one in container.spec if one.endswith("Probe")]
        assert {one["httpGet"]["port"] for one in probes if "httpGet" in one} <= ports


def test_liveness_never_asks_whether_the_stores_answer(rendered: Rendered) -> None:
    paths = {"frontend": "/healthz", "owner": "/healthz", "operator": "/live"}
    for name, path in paths.items():
        (container,) = _containers(rendered, f"Deployment/lockstep-{name}/{name}")
        assert container.spec["livenessProbe"]["httpGet"]["path"] == path
        assert container.spec["startupProbe"]["httpGet"]["path"] == path


def test_pod_defaults_reach_every_pod_and_a_component_overlays_them() -> None:
    values = merged(
        EVERYTHING, {"owner": {"pod": {"priorityClassName": "higher", "labels": {"tier": "back"}}}}
    )
    for name, pod in render(values).pods():
        is_owner = name == "Deployment/lockstep-owner"
        spec = pod["spec"]
        assert spec["nodeSelector"] == {"pool": "messaging"}, name
        assert spec["tolerations"] == [{"key": "messaging", "operator": "Exists"}]
        assert spec["priorityClassName"] == ("higher" if is_owner else "high")
        assert spec["imagePullSecrets"] == [{"name": "registry"}]
        assert pod["metadata"]["labels"]["tier"] == ("back" if is_owner else "middle")
        assert pod["metadata"]["annotations"]["note"] == "here"


def test_added_variables_reach_our_processes() -> None:
    rendered = render(EVERYTHING)
    for name in ("owner", "frontend", "operator"):
        (container,) = _containers(rendered, f"Deployment/lockstep-{name}/{name}")
        assert {"name": "TZ", "value": "UTC"} in container.spec["env"]


def test_the_profile_kind_fits_a_small_node() -> None:
    """1.5 processors and 2 GiB for everything that runs for long (design 3.10)."""
    cpu, memory = Decimal(0), Decimal(0)
    for one in render(KIND).objects:
        if one["kind"] not in ("Deployment", "StatefulSet"):
            continue
        for container in one["spec"]["template"]["spec"]["containers"]:
            requests = container["resources"]["requests"]
            cpu += one["spec"]["replicas"] * quantity(requests["cpu"])
            memory += one["spec"]["replicas"] * quantity(requests["memory"])
    assert 0 < cpu <= Decimal("1.5")
    assert 0 < memory <= 2 * 1024**3


def test_every_container_says_what_it_needs_and_its_limit_of_memory(rendered: Rendered) -> None:
    for container in rendered.containers():
        resources = container.spec["resources"]
        assert quantity(resources["requests"]["cpu"]) > 0
        assert quantity(resources["requests"]["memory"]) <= quantity(resources["limits"]["memory"])


def quantity(text: str) -> Decimal:
    """Return the number that a quantity of Kubernetes says."""
    found = re.fullmatch(r"([0-9.]+)(m|Mi|Gi)?", str(text))
    assert found is not None, text
    factor: dict[str | None, Decimal] = {
        None: Decimal(1),
        "m": Decimal("0.001"),
        "Mi": Decimal(1024**2),
        "Gi": Decimal(1024**3),
    }
    return Decimal(found[1]) * factor[found[2]]


def test_pods_of_production_are_spread_over_zones_and_nodes_where_possible() -> None:
    deployments = render(PRODUCTION).of("Deployment")
    for name, one in deployments.items():
        constraints: list[Object] = one["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert [found["topologyKey"] for found in constraints] == [
            "topology.kubernetes.io/zone",
            "kubernetes.io/hostname",
        ]
        for found in constraints:
            assert found["whenUnsatisfiable"] == "ScheduleAnyway"
            assert (
                f"lockstep-{found['labelSelector']['matchLabels']['app.kubernetes.io/component']}"
                == name
            )
    for one in render(KIND).of("Deployment").values():
        assert "topologySpreadConstraints" not in one["spec"]["template"]["spec"]
