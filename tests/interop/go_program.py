"""The Go program of this directory: built from the protos at test time, and run.

All that the build downloads and makes is in `.cache/go` of the checkout, which git ignores.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = Path(__file__).parent / "go"
CACHE: Final = ROOT / ".cache" / "go"
PACKAGE: Final = "lockstep.example/interop"
_USUAL_PLACES: Final = (Path("/usr/local/go/bin/go"), Path.home() / "go/bin/go")
_DOWNLOAD_S: Final = 60
_STEP_S: Final = 150
_RUN_S: Final = 30


class NoGo(Exception):
    """Go, or what it would have to download, is not here; the text says what."""


def is_installed() -> bool:
    """Whether there is a Go here."""
    return _find_go() is not None


def build(directory: Path) -> Path:
    """Build the program in a directory and return its path.

    Raises:
        NoGo: There is no Go here, it is too old, or it cannot download the modules that go.mod names.
    """
    go = _find_go()
    if go is None:
        raise NoGo("there is no go on PATH, nor where it is usually installed")
    source = directory / "source"
    shutil.copytree(SOURCES, source)
    variables = _variables(go)
    # Two processes of one test run would otherwise both compile the same, at half the speed.
    with _one_at_a_time():
        try:
            _run([go, "mod", "download"], source, variables, within_s=_DOWNLOAD_S)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise NoGo(f"go cannot get the modules of go.mod: {_last_line(error)}") from error
        _run([go, "install", "tool"], source, variables)
        _generate(source, variables)
        _run([go, "build", "-o", "interop", "."], source, variables)
    return source / "interop"


def run(program: Path, *words: str) -> list[str]:
    """Run it and return the lines that it printed.

    Raises:
        AssertionError: It failed; the text is its own.
    """
    done = subprocess.run(
        [program, *words], capture_output=True, text=True, timeout=_RUN_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def _find_go() -> str | None:
    usual = (str(place) for place in _USUAL_PLACES if place.is_file())
    return shutil.which("go") or next(usual, None)


def _variables(go: str) -> Mapping[str, str]:
    path = os.pathsep.join((str(CACHE / "bin"), str(Path(go).parent), os.environ.get("PATH", "")))
    flags = f"{os.environ.get('GOFLAGS', '')} -modcacherw".strip()
    ours = {"GOBIN": "bin", "GOCACHE": "build", "GOMODCACHE": "modules"}
    places = {name: str(CACHE / directory) for name, directory in ours.items()}
    return {**os.environ, **places, "PATH": path, "GOFLAGS": flags, "CGO_ENABLED": "0"}


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _generate(source: Path, variables: Mapping[str, str]) -> None:
    """Let protoc write the Go package of lockstep.v1."""
    protos = ROOT / "proto"
    names = sorted(
        path.relative_to(protos).as_posix() for path in protos.glob("lockstep/v1/*.proto")
    )
    options = [f"module={PACKAGE}", *(f"M{name}={PACKAGE}/lockstep" for name in names)]
    words = [
        f"--{plugin}_{what}"
        for plugin in ("go", "go-grpc")
        for what in (f"out={source}", *(f"opt={option}" for option in options))
    ]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}"]
    _run([*protoc, *words, *names], source, variables)


def _run(
    words: list[str], directory: Path, variables: Mapping[str, str], *, within_s: int = _STEP_S
) -> None:
    done = subprocess.run(
        words,
        cwd=directory,
        env=variables,
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )
    if done.returncode != 0:
        raise subprocess.CalledProcessError(done.returncode, words, done.stdout, done.stderr)


def _last_line(error: subprocess.CalledProcessError | subprocess.TimeoutExpired) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer within {error.timeout:.0f} s"
    lines = str(error.stderr).strip().splitlines()
    return lines[-1] if lines else str(error)
