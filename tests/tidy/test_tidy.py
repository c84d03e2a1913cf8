"""Every file of the repository, judged by the rules in `checks`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.tidy import checks

ROOT = Path(__file__).parents[2]
CODE = ("services/", "operator/", "tests/", "bench/", "examples/", "docs/")
GENERATED = (
    "services/lockstep/v1/",
    "services/lockstep/internal/",
    "services/lockstep/externalscaler/",
)
CORE = "services/lockstep/core/"
# Files that may hold the words of a task that is open, because they speak about tasks.
PROSE = (".md", ".txt")


@cache
def repository_files() -> tuple[str, ...]:
    """All files that git tracks, or would if they were added; without git, all files but dot-directories."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        names = [name for name in listed.stdout.split("\0") if name]
    else:
        paths = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        names = [
            path.as_posix()
            for path in paths
            if not any(part.startswith(".") or part == "__pycache__" for part in path.parts)
        ]
    return tuple(sorted(name for name in set(names) if (ROOT / name).is_file()))


def python_files(*prefixes: str) -> list[str]:
    return [
        name
        for name in repository_files()
        if name.endswith(".py") and name.startswith(prefixes) and not name.startswith(GENERATED)
    ]


def complaints(rule: Callable[[str, str], list[str]], names: list[str]) -> list[str]:
    return [
        complaint
        for name in names
        for complaint in rule(name, (ROOT / name).read_bytes().decode(errors="replace"))
    ]


def test_there_is_code_to_judge() -> None:
    assert f"{CORE}errors.py" in python_files(CORE)


def test_modules_are_short_enough() -> None:
    assert complaints(checks.too_long_module, python_files(*CODE)) == []


def test_functions_are_short_enough() -> None:
    assert complaints(checks.too_long_functions, python_files(*CODE)) == []


def test_names_of_modules_say_something() -> None:
    found = [
        complaint for name in python_files(*CODE) for complaint in checks.meaningless_names(name)
    ]

    assert found == []


def test_modules_of_the_product_say_what_belongs_in_them() -> None:
    product = python_files("services/", "operator/")

    assert complaints(checks.missing_docstring, product) == []


def test_the_core_is_pure() -> None:
    assert complaints(checks.impurities, python_files(CORE)) == []


def test_init_files_hold_names_only() -> None:
    inits = [name for name in python_files(*CODE) if name.endswith("/__init__.py")]

    assert complaints(checks.code_in_init, inits) == []


def test_the_operator_directory_does_not_shadow_the_standard_library() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_no_file_names_a_package_registry() -> None:
    assert complaints(checks.download_hosts, list(repository_files())) == []


def test_no_file_holds_a_path_of_one_machine() -> None:
    assert complaints(checks.machine_paths, list(repository_files())) == []


def test_open_tasks_name_their_issue() -> None:
    judged = [
        name
        for name in repository_files()
        if not name.endswith(PROSE) and not name.startswith(("tests/tidy/", *GENERATED))
    ]

    assert complaints(checks.open_tasks, judged) == []
