"""Every rule of `checks` complains about what it is for, and leaves good neighbours alone."""

from __future__ import annotations

import pytest

from tests.tidy import checks


def test_a_module_over_the_limit_is_refused() -> None:
    at_limit = "x = 1\n" * checks.MODULE_LINES_MAX

    assert checks.too_long_module("a.py", at_limit) == []
    assert len(checks.too_long_module("a.py", at_limit + "x = 1\n")) == 1


@pytest.mark.parametrize("keyword", ["def", "async def"])
def test_a_function_over_the_limit_is_refused(keyword: str) -> None:
    at_limit = f"{keyword} f():\n" + "    x = 1\n" * (checks.FUNCTION_LINES_MAX - 1)

    assert checks.too_long_functions("a.py", at_limit) == []
    assert len(checks.too_long_functions("a.py", at_limit + "    x = 1\n")) == 1


@pytest.mark.parametrize(
    "path",
    [
        "services/lockstep/core/utils.py",
        "services/lockstep/helpers.py",
        "services/lockstep/owner/session_manager.py",
        "services/lockstep/misc/clock.py",
        "services/lockstep/new_actor.py",
        "services/lockstep/actor_v2.py",
        "tests/unit/utils.py",
    ],
)
def test_a_name_that_says_nothing_is_refused(path: str) -> None:
    assert len(checks.meaningless_names(path)) == 1


@pytest.mark.parametrize("path", ["tests/unit/helpers.py", "services/lockstep/core/renewal.py"])
def test_a_name_that_says_something_is_accepted(path: str) -> None:
    assert checks.meaningless_names(path) == []


def test_a_module_without_a_docstring_is_refused() -> None:
    assert len(checks.missing_docstring("a.py", "x = 1\n")) == 1
    assert checks.missing_docstring("a.py", '"""What belongs here."""\nx = 1\n') == []


@pytest.mark.parametrize(
    "text",
    [
        "async def f(): ...",
        "import time",
        "import os.path",
        "import json, random",
        "from google.protobuf import message",
        "def f():\n    import uuid",
        "if TYPE_CHECKING:\n    import asyncio",
        "now = datetime.now(UTC)",
        "now = datetime.datetime.utcnow()",
        "today = date.today()",
        "open('file')",
        "print(1)",
    ],
)
def test_an_impure_core_is_refused(text: str) -> None:
    assert len(checks.impurities("core/a.py", text)) == 1


def test_waiting_in_the_core_is_refused_at_each_place() -> None:
    text = "async def f():\n    await g()\n    async for x in y: ...\n    async with z: ...\n"

    assert len(checks.impurities("core/a.py", text)) == 4


def test_a_pure_core_is_accepted() -> None:
    text = "import heapq\nfrom lockstep.core import errors\nfrom datetime import timedelta\nheapq.heappush([], 1)\n"

    assert checks.impurities("core/a.py", text) == []


@pytest.mark.parametrize(
    "text", ["def f(): ...", "CACHE = {}", "register()", "if x:\n    import y"]
)
def test_code_in_an_init_file_is_refused(text: str) -> None:
    assert len(checks.code_in_init("a/__init__.py", f'"""Names."""\n{text}\n')) == 1


def test_names_in_an_init_file_are_accepted() -> None:
    text = '"""Names."""\nfrom a.b import C\n__all__ = ["C"]\n__version__: str = "1"\n'

    assert checks.code_in_init("a/__init__.py", text) == []


@pytest.mark.parametrize(
    "host", ["pypi.org", "files.pythonhosted.org", "proxy.golang.org", "deb.debian.org"]
)
def test_an_address_of_a_registry_is_refused(host: str) -> None:
    assert len(checks.download_hosts("a.txt", f"index = https://{host}/simple\n")) == 1


def test_an_address_of_a_document_is_accepted() -> None:
    assert checks.download_hosts("a.md", "See https://google.aip.dev/216 and pypi.") == []


@pytest.mark.parametrize("line", ["cd {}x", "path = '{}x'", "({}x)", "file: {}x"])
@pytest.mark.parametrize("directory", ["work", "root", "home"])
def test_a_path_of_one_machine_is_refused(line: str, directory: str) -> None:
    assert len(checks.machine_paths("a.md", line.format(f"/{directory}/"))) == 1


@pytest.mark.parametrize(
    "text", ["https://example.org/home/x", "src/work/x", "$(CURDIR)/work/", "/homework/x"]
)
def test_other_paths_are_accepted(text: str) -> None:
    assert checks.machine_paths("a.md", text) == []


@pytest.mark.parametrize("path", ["a.py", "a.proto", "Makefile"])
@pytest.mark.parametrize("word", ["TODO", "FIXME"])
def test_an_open_task_without_an_issue_is_refused(path: str, word: str) -> None:
    assert len(checks.open_tasks(path, f"x = 1  # {word}: later\n")) == 1
    assert checks.open_tasks(path, f"x = 1  # {word}(#17): later\n") == []


def test_a_task_in_a_string_of_a_program_is_accepted() -> None:
    assert checks.open_tasks("a.py", 'x = "TODO"\n') == []
