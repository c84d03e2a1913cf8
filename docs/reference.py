"""The API reference: pages about every public name, made from docstrings with pdoc.

Here belongs what is shown and how. Never here: text about the product; that is in the docstrings. The law: a page
shows what a program may use, under the name by which it imports it, and needs nothing from the network, neither
when it is made nor when it is read.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Final

import pdoc.doc
import pdoc.render
from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup
from pdoc.render_helpers import linkify

PUBLIC_MODULES: Final = (
    "lockstep",
    "lockstep.aio",
    "lockstep.errors",
    "lockstep.testing",
    "lockstep.servicebus",
    "lockstep.servicebus.aio",
    "lockstep.servicebus.aio.management",
    "lockstep.servicebus.exceptions",
    "lockstep.servicebus.management",
)
# What stands between the parts of a name where pdoc has coloured it.
_COLOURED_DOT: Final = '</span><span class="o">.</span><span class="n">'
# How Python writes the type of `**settings: Unpack[QueueSettings]`.
_UNPACKED: Final = re.compile(r"\*&lt;class &#x27;(.+?)&#x27;&gt;")


def build(directory: Path) -> None:
    """Write the pages into a directory; `index.html` is where to begin.

    Raises:
        OSError: The directory cannot be written.
    """
    pages = {name: pdoc.doc.Module(loaded(name)) for name in PUBLIC_MODULES}
    public = _public_names(pages)
    for page in pages.values():
        for cls in page.classes:
            _hide_inner_constructor(cls)
            _take_from_inner_bases(cls, public[page.modulename])
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.render.env.filters["linkify"] = pass_context(partial(_linkify, public))
    for name, page in pages.items():
        text = _UNPACKED.sub(r"\1", pdoc.render.html_module(page, pages))
        _write(directory / f"{name.replace('.', '/')}.html", text)
    _write(directory / "index.html", pdoc.render.html_index(pages))
    _write(directory / "search.js", pdoc.render.search_index(pages))


def loaded(name: str) -> ModuleType:
    """Return a public module with all its names loaded, also those that are loaded at their first use (PEP 562)."""
    module = importlib.import_module(name)
    for public in module.__all__:
        vars(module).setdefault(public, getattr(module, public))
    return module


def _hide_inner_constructor(cls: pdoc.doc.Class) -> None:
    # What another object makes has a constructor without docstring, and arguments that programs do not have.
    constructor = vars(cls.obj).get("__init__")
    if not dataclasses.is_dataclass(cls.obj) and getattr(constructor, "__doc__", None) is None:
        cls.members.pop("__init__", None)


def _take_from_inner_bases(cls: pdoc.doc.Class, public: dict[str, str]) -> None:
    # To a reader, what comes from a base class that is not public is the class's own.
    for base, members in cls.inherited_members.items():
        if _is_inner(base, public):
            cls.own_members.extend(member for member in members if member.name != "__init__")
    cls.bases[:] = [base for base in cls.bases if not _is_inner(base[:2], public)]


def _is_inner(origin: tuple[str, str], public: dict[str, str]) -> bool:
    return origin[0].startswith("lockstep.") and ".".join(origin) not in public


def _public_names(pages: dict[str, pdoc.doc.Module]) -> dict[str, dict[str, str]]:
    """Return, for each page, where a class is defined and the name by which a reader of that page imports it."""
    everywhere: dict[str, str] = {}
    here: dict[str, dict[str, str]] = {name: {} for name in pages}
    for name, page in pages.items():
        for cls in page.classes:
            defined = f"{cls.obj.__module__}.{cls.obj.__qualname__}"
            here[name][defined] = f"{name}.{cls.name}"
            everywhere.setdefault(defined, f"{name}.{cls.name}")
    return {name: {**everywhere, **names} for name, names in here.items()}


def _linkify(
    public: dict[str, dict[str, str]],
    context: Context,
    code: str,
    namespace: str = "",
    *,
    shorten: bool = True,
) -> Markup:
    code = str(code)  # a Markup would escape what is put into it
    for defined, name in public[context["module"].modulename].items():
        for dot in (".", _COLOURED_DOT):
            whole = rf"{re.escape(defined.replace('.', dot))}(?!\w)"
            code = re.sub(whole, name.replace(".", dot), code)
    return linkify(context, code, namespace, shorten)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    build(Path(sys.argv[1]))
