"""The API server of the tests: it authorises, and it is built once."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.kube.api_server import ApiServer
from tests.kube.client import CONFIG_MAP, ROLE, KubeClient, Refused
from tests.kube.program import ASSETS_VARIABLE, get_programs, kubernetes_version, programs
from tests.support.go_program import NoProgram, Tell


def _nothing(line: str) -> None:
    pass


async def test_a_service_account_may_do_what_its_roles_say_and_no_more(
    kube_api_server: ApiServer, kube: KubeClient, kube_namespace: str
) -> None:
    token = await kube.token_for("reader", kube_namespace)
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]
    metadata = {"name": "reader", "namespace": kube_namespace}
    group = "rbac.authorization.k8s.io"
    await kube.apply(
        {"apiVersion": ROLE.api_version, "kind": "Role", "metadata": metadata, "rules": rules}
    )
    await kube.apply(
        {
            "apiVersion": ROLE.api_version,
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", **metadata}],
        }
    )

    async with kube_api_server.client(token) as reader:
        assert await reader.list_all(CONFIG_MAP, kube_namespace) == []
        with pytest.raises(Refused) as refused:
            await reader.get(CONFIG_MAP, "anything", kube_namespace)

    assert refused.value.code == 403


@pytest.mark.skipif(ASSETS_VARIABLE in os.environ, reason="a server of another version is named")
async def test_it_is_the_version_that_go_mod_names(kube: KubeClient) -> None:
    assert (await kube.call("GET", "/version"))["gitVersion"] == kubernetes_version()


# --- where the programs come from --------------------------------------------------------------------


def _program(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o755)


def test_programs_that_are_there_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("kube-apiserver", "etcd"):
        _program(tmp_path / name)
    monkeypatch.setenv(ASSETS_VARIABLE, str(tmp_path))

    found = get_programs(_nothing)

    assert (found.kube_apiserver, found.etcd) == (tmp_path / "kube-apiserver", tmp_path / "etcd")


def test_a_directory_without_the_programs_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _program(tmp_path / "kube-apiserver")
    monkeypatch.setenv(ASSETS_VARIABLE, str(tmp_path))

    with pytest.raises(NoProgram, match=str(tmp_path / "etcd")):
        programs()


def test_who_never_built_the_server_is_told_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ASSETS_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    with pytest.raises(NoProgram, match="make kube-apiserver"):
        programs()


def test_of_several_that_come_at_once_one_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ASSETS_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    builds: list[Path] = []
    others_wait = threading.Event()

    def build(built: Path, tell: Tell) -> None:
        builds.append(built)
        assert others_wait.wait(10)
        _program(built)

    def tell(line: str) -> None:
        others_wait.set()

    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda _: get_programs(tell, build), range(3)))

    assert len(builds) == 1
    assert {one.kube_apiserver for one in found} == {programs().kube_apiserver}


def test_a_build_that_fails_leaves_nothing_that_looks_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ASSETS_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def build(built: Path, tell: Tell) -> None:
        built.write_text("half of it")
        raise NoProgram("no room")

    with pytest.raises(NoProgram, match="no room"):
        get_programs(_nothing, build)
    with pytest.raises(NoProgram, match="make kube-apiserver"):
        programs()
