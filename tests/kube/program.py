"""The programs of a Kubernetes API server for tests: found, or built once for this user.

Here belongs where kube-apiserver and etcd come from; `python -m tests.kube.program` (`make kube-apiserver`) gets them.
Never here: how they run (`api_server`), how a program is built (`tests.support.go_program`). The version of Kubernetes
stands in `apiserver/go.mod`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.etcd.etcd_process import etcd_program
from tests.support.go_program import Build, GoProgram, NoProgram, Tell, main

ASSETS_VARIABLE = "KUBEBUILDER_ASSETS"


def _settings(version: str) -> dict[str, str]:
    name = "k8s.io/component-base/version"
    minor = version.split(".")[1]
    return {f"{name}.gitVersion": version, f"{name}.gitMajor": "1", f"{name}.gitMinor": minor}


_KUBE_APISERVER = GoProgram(
    name="kube-apiserver",
    module=Path(__file__).parent / "apiserver",
    package="k8s.io/kubernetes/cmd/kube-apiserver",
    versioned_by="k8s.io/kubernetes",
    target="kube-apiserver",
    takes="some 4 minutes",
    settings=_settings,
)


@dataclass(frozen=True, slots=True)
class Programs:
    """What an API server is made of.

    Attributes:
        kube_apiserver: The server.
        etcd: Its store.
    """

    kube_apiserver: Path
    etcd: Path


def kubernetes_version() -> str:
    """Return the version that is built, for example `v1.36.3`."""
    return _KUBE_APISERVER.version()


def programs() -> Programs:
    """Return the programs, without building one.

    Raises:
        NoProgram: `make kube-apiserver` was never run here, or KUBEBUILDER_ASSETS names a directory without them.
    """
    assets = os.environ.get(ASSETS_VARIABLE)
    if assets:
        named = Programs(Path(assets) / "kube-apiserver", Path(assets) / "etcd")
        for one in (named.kube_apiserver, named.etcd):
            if not os.access(one, os.X_OK):
                raise NoProgram(f"{ASSETS_VARIABLE} is {assets}, and there is no program {one}.")
        return named
    return Programs(_KUBE_APISERVER.found(), Path(etcd_program()))


def get_programs(tell: Tell, build: Build | None = None) -> Programs:
    """Return the programs; build the server if this user has none. Who comes at the same time waits and builds nothing.

    Args:
        tell: Called with a line of progress.
        build: Builds the server as the file that it is given; by default with Go.
    """
    if not os.environ.get(ASSETS_VARIABLE):
        _KUBE_APISERVER.get(tell, build)
    return programs()


if __name__ == "__main__":
    main(get_programs)
