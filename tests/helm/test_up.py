"""`make image`, `kind-up` and `minikube-up`: what they call, and what they say when something is missing.

The programs they call are stand-ins here that write down their arguments; the real ones make clusters.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helm.chart import ROOT

SCRIPT = ROOT / "helm" / "up.sh"
# What the script itself is made of.
TOOLS = ("bash", "basename", "cat", "dirname", "env", "grep", "head", "mktemp", "rm", "sed")
STAND_IN = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >> "$CALLS"
case "$(basename "$0") $1 $2" in
  "kind get clusters") echo another ;;
  "minikube status "*) exit 1 ;;
esac
"""


def image_values(registry: str, repository: str, tag: str) -> str:
    return (
        f"--set image.registry={registry} --set image.repository={repository} --set image.tag={tag}"
    )


Up = Callable[..., "Ran"]


class Ran:
    """How a run ended, and what it called."""

    def __init__(self, code: int, errors: str, calls: list[str]) -> None:
        self.code = code
        self.errors = errors
        self.calls = calls


@pytest.fixture
def up(tmp_path: Path) -> Up:
    def run(*words: str, programs: tuple[str, ...], **variables: str) -> Ran:
        directory = tmp_path / "bin"
        directory.mkdir()
        for tool in TOOLS:
            (directory / tool).symlink_to(str(shutil.which(tool)))
        for program in programs:
            (directory / program).write_text(STAND_IN)
            (directory / program).chmod(0o755)
        calls = tmp_path / "calls"
        calls.touch()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        ran = subprocess.run(
            [SCRIPT, *words],
            env={**kept, "PATH": str(directory), "CALLS": str(calls), **variables},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Ran(ran.returncode, ran.stderr, calls.read_text().splitlines())

    return run


def test_kind_gets_the_image_and_the_chart_its_name(up: Up) -> None:
    ran = up("kind", "lockstep:dev", programs=("docker", "kind", "helm", "kubectl"))

    assert ran.code == 0, ran.errors
    assert ran.calls[0] == "docker info"
    assert ran.calls[1].startswith("docker build -t lockstep:dev --build-arg VERSION=0.")
    assert ran.calls[2:5] == [
        "kind get clusters",
        "kind create cluster --name lockstep --wait 120s",
        "kind load docker-image lockstep:dev --name lockstep",
    ]
    assert ran.calls[5].startswith(
        "helm upgrade --install lockstep helm/lockstep --kube-context kind-lockstep"
        " --namespace lockstep --create-namespace --set profile=kind"
    )
    assert image_values("docker.io", "library/lockstep", "dev") in ran.calls[5]


def test_podman_hands_the_image_over_as_an_archive_and_keeps_it_under_localhost(up: Up) -> None:
    ran = up("kind", "lockstep:dev", programs=("podman", "kind", "helm", "kubectl"))

    assert ran.code == 0, ran.errors
    assert [one for one in ran.calls if one.startswith("podman save -o ")]
    assert [one for one in ran.calls if one.startswith("kind load image-archive ")]
    assert image_values("localhost", "lockstep", "dev") in ran.calls[-1]


def test_minikube_is_started_and_gets_the_image(up: Up) -> None:
    name = "registry.example/team/lockstep:1"
    ran = up("minikube", name, programs=("docker", "minikube", "helm", "kubectl"), RELEASE="mine")

    assert ran.code == 0, ran.errors
    assert "minikube start --profile lockstep" in ran.calls
    assert [one for one in ran.calls if one.startswith("minikube image load ")]
    assert "--install mine helm/lockstep --kube-context lockstep " in ran.calls[-1]
    assert image_values("registry.example", "team/lockstep", "1") in ran.calls[-1]


def test_an_index_of_packages_comes_from_the_environment(up: Up) -> None:
    index = "https://packages.example/simple"

    ran = up("image", "lockstep:dev", programs=("docker",), PIP_INDEX_URL=index)

    # By its name alone: the value, which may hold a password, is in no list of processes.
    assert "--build-arg PIP_INDEX_URL ." in ran.calls[-1]
    assert "PIP_EXTRA_INDEX_URL" not in ran.calls[-1]


@pytest.mark.parametrize(
    ("mode", "programs", "said"),
    [
        ("image", (), "Neither docker nor podman answers here."),
        ("kind", ("docker", "helm", "kubectl"), "kind is not on PATH. Install it first: https://kind.sigs.k8s.io"),
        ("kind", ("docker", "kind", "kubectl"), "helm is not on PATH."),
        ("minikube", ("docker", "helm", "kubectl"), "minikube is not on PATH."),
        ("", (), "Say what to do:"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_before_anything_is_made(
    up: Up, mode: str, programs: tuple[str, ...], said: str
) -> None:
    ran = up(mode, programs=programs)

    assert ran.code == 1
    assert said in ran.errors
    assert ran.calls == []
