"""The API reference: it can be made, it is whole, and every public name says what it does and raises."""

from __future__ import annotations

import ast
import html
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from docs.reference import PUBLIC_MODULES, loaded
from tests.examples.conftest import ROOT

# Those whose errors a caller has to know; in `lockstep.servicebus` they are Azure's, one table for all.
OURS = ("lockstep", "lockstep.aio", "lockstep.testing")
# What ends a body by an error: its own, that of a check, or that of what it waits for.
RAISING = frozenset({"run_to_completion", "check_open", "check_held", "raise_first"})
# They wait, and raise nothing.
HARMLESS = frozenset(
    {
        "AdministrationClient.close",
        "AutoLockRenewer.close",
        "BrokerClock.advance",
        "BrokerClock.sleep",
    }
)
# What an event loop calls, not a program.
OF_EVENT_LOOPS = frozenset({"PendingSend.send", "PendingSend.throw"})
_SOURCE = re.compile(r"""(?:src|href)=["']?(?:https?:)?//""")
_MENTIONED = re.compile(r"`(\w+)`")

Function = Callable[..., object]


def functions(cls: type) -> Iterator[tuple[str, Function]]:
    """The public methods and properties of a class, as functions, by `Class.name`."""
    for name, member in vars(cls).items():
        function = member.fget if isinstance(member, property) else inspect.unwrap(member)
        function = getattr(function, "__func__", function)
        if not name.startswith("_") and inspect.isfunction(function):
            yield f"{cls.__name__}.{name}", function


def public(module: str) -> Iterator[tuple[str, object]]:
    """The names of a public module, and those of its classes."""
    for name in loaded(module).__all__:
        value = getattr(loaded(module), name)
        yield name, value
        if isinstance(value, type):
            yield from functions(value)


def can_raise(function: Function) -> bool:
    """Whether the body raises, checks, or waits for the broker."""
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if isinstance(node, ast.Raise | ast.Await):
            return True
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in RAISING:
            return True
    return False


def says_what_is_raised(function: Function, siblings: dict[str, Function]) -> bool:
    """Whether a docstring lists errors, or names a method of the class that does."""
    text = inspect.getdoc(function) or ""
    mentioned = [siblings[name] for name in _MENTIONED.findall(text) if name in siblings]
    return any("Raises:" in (inspect.getdoc(one) or "") for one in (function, *mentioned))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference, made as `make docs` makes it: every warning is an error."""
    directory = tmp_path_factory.mktemp("api")
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "docs.reference", directory],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return directory


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_every_public_name_has_its_place_in_the_reference(pages: Path, module: str) -> None:
    text = (pages / f"{module.replace('.', '/')}.html").read_text(encoding="utf-8")

    missing = [name for name, _ in public(module) if f'<div id="{name}"' not in text]
    sections = [name for name in missing if f'<section id="{name}"' not in text]
    assert sections == []


def test_the_reference_shows_no_generated_code_and_loads_nothing(pages: Path) -> None:
    for page in pages.rglob("*.html"):
        text = page.read_text(encoding="utf-8")

        assert "_pb2" not in text
        loads = [
            tag for tag in re.findall(r"<(?:script|link|img)\b[^>]*>", text) if _SOURCE.search(tag)
        ]
        assert loads == []


def test_signatures_name_types_as_programs_import_them(pages: Path) -> None:
    text = (pages / "lockstep.html").read_text(encoding="utf-8")

    plain = html.unescape(re.sub(r"<[^>]*>", "", text))
    assert "prefetch_count: int = 0) -> QueueReceiver:" in plain
    assert "**settings: QueueSettings) -> QueueProperties:" in plain


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_every_public_name_says_what_it_is(module: str) -> None:
    silent = [name for name, value in public(module) if not inspect.getdoc(value)]

    assert silent == []


@pytest.mark.parametrize("module", OURS)
def test_every_public_method_says_what_it_raises(module: str) -> None:
    silent = []
    for cls in (value for _, value in public(module) if isinstance(value, type)):
        methods = dict(functions(cls))
        siblings = {name.partition(".")[2]: method for name, method in methods.items()}
        silent += [
            name
            for name, method in methods.items()
            if name not in HARMLESS | OF_EVENT_LOOPS
            and can_raise(method)
            and not says_what_is_raised(method, siblings)
        ]

    assert silent == []
