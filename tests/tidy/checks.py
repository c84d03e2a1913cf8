"""The rules of tidiness, as functions from text to complaints.

Here belongs one function for each rule; it gets a path and what the file says, and returns one line for
each complaint. Never here: which files a rule judges (`test_tidy`). The law: a rule that cannot fail is
no rule, so `test_checks` shows each one a small bad input.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import PurePosixPath

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70

BANNED_NAMES = frozenset({"util", "utils", "helper", "helpers", "manager", "misc"})
NAMES_ALLOWED_IN_TESTS = frozenset({"helper", "helpers"})

IMPURE_MODULES = frozenset({
    "asyncio", "concurrent", "google", "grpc", "logging", "multiprocessing", "os", "pathlib", "random",
    "secrets", "socket", "sqlite3", "subprocess", "sys", "threading", "time", "uuid",
})  # fmt: skip
# What reads the clock or talks to the world without an import of its own.
IMPURE_CALLS = frozenset({
    "datetime.now", "datetime.utcnow", "datetime.today", "date.today",
    "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today",
    "open", "print", "input", "__import__",
})  # fmt: skip

_DOWNLOAD_HOST = re.compile(
    r"https?://[^\s/'\"]*(?:pypi|pythonhosted|npmjs|golang|maven|debian|crates)", re.IGNORECASE
)
# Not after a letter, a dot or a slash: those are parts of longer, relative paths or of addresses.
_MACHINE_PATH = re.compile(r"(?<![\w./~$})-])/(?:work|root|home)/")
_OPEN_TASK = re.compile(r"\b(?:TODO|FIXME)\b(?!\(#\d+\))")

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def too_long_module(path: str, text: str) -> list[str]:
    """A module that has more than MODULE_LINES_MAX lines."""
    lines = len(text.splitlines())
    if lines <= MODULE_LINES_MAX:
        return []
    return [f"{path}: {lines} lines, at most {MODULE_LINES_MAX}; split it by what its parts know"]


def too_long_functions(path: str, text: str) -> list[str]:
    """Functions of more than FUNCTION_LINES_MAX lines, from `def` to the last line, docstring included."""
    complaints = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, _Function):
            continue
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > FUNCTION_LINES_MAX:
            complaints.append(
                f"{path}:{node.lineno}: {node.name} has {lines} lines, at most {FUNCTION_LINES_MAX}"
            )
    return complaints


def meaningless_names(path: str) -> list[str]:
    """A module or package whose name says nothing, or which says that it is a second generation."""
    parts = PurePosixPath(path).with_suffix("").parts
    in_tests = parts[0] == "tests"
    complaints = []
    for name in parts:
        words = name.lower().split("_")
        vague = BANNED_NAMES.intersection(words) - (NAMES_ALLOWED_IN_TESTS if in_tests else set())
        generation = words[0] in {"new", "old"} or (
            len(words) > 1 and re.fullmatch(r"v\d+", words[-1]) is not None
        )
        if vague or generation:
            complaints.append(f"{path}: '{name}' says nothing; name it after what it holds")
    return complaints


def missing_docstring(path: str, text: str) -> list[str]:
    """A module without a docstring that says what belongs in it."""
    if ast.get_docstring(ast.parse(text)):
        return []
    return [f"{path}: no docstring; say what belongs here, what never, and the law it keeps"]


def impurities(path: str, text: str) -> list[str]:
    """What a module of the core must not do: wait, import the world, read the clock, print."""
    complaints = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            complaints.append(f"{path}:{node.lineno}: the core never waits")
        elif isinstance(node, ast.Import | ast.ImportFrom):
            complaints.extend(
                f"{path}:{node.lineno}: the core does not import {name}"
                for name in _imported_modules(node)
                if name.partition(".")[0] in IMPURE_MODULES
            )
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in IMPURE_CALLS:
            complaints.append(
                f"{path}:{node.lineno}: the core does not call {ast.unparse(node.func)}"
            )
    return complaints


def _imported_modules(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif node.level == 0 and node.module is not None:
        yield node.module


def code_in_init(path: str, text: str) -> list[str]:
    """In an `__init__.py`: anything but a docstring, imports, `__all__` and `__version__`."""
    body = ast.parse(text).body
    if ast.get_docstring(ast.Module(body, type_ignores=[])) is not None:
        body = body[1:]
    return [
        f"{path}:{node.lineno}: code in __init__.py; give it a module with a name"
        for node in body
        if not isinstance(node, ast.Import | ast.ImportFrom) and not _is_name_list(node)
    ]


def _is_name_list(node: ast.stmt) -> bool:
    if isinstance(node, ast.AnnAssign):
        targets: list[ast.expr] = [node.target]
    elif isinstance(node, ast.Assign):
        targets = node.targets
    else:
        return False
    return all(
        isinstance(target, ast.Name) and target.id in {"__all__", "__version__"}
        for target in targets
    )


def download_hosts(path: str, text: str) -> list[str]:
    """Addresses of package registries: versions are pinned by name, each machine knows its own mirror."""
    return _matches(_DOWNLOAD_HOST, path, text, "an address of a package registry")


def machine_paths(path: str, text: str) -> list[str]:
    """Absolute paths of somebody's machine."""
    return _matches(_MACHINE_PATH, path, text, "an absolute path of one machine")


def open_tasks(path: str, text: str) -> list[str]:
    """Open tasks without an issue: in comments of Python, in all lines of other files."""
    if path.endswith(".py"):
        text = _only_comments(text)
    return _matches(_OPEN_TASK, path, text, "an open task needs its issue: TODO(#17)")


def _matches(pattern: re.Pattern[str], path: str, text: str, complaint: str) -> list[str]:
    return [
        f"{path}:{number}: {complaint}: {line.strip()[:80]}"
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]


def _only_comments(text: str) -> str:
    """The text with all but its comments blanked, so that lines keep their numbers."""
    lines = [""] * (text.count("\n") + 1)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            lines[token.start[0] - 1] = token.string
    return "\n".join(lines)
