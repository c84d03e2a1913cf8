"""What programs import, and that it costs nothing until it is used."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest

import lockstep
from lockstep import aio, errors
from lockstep.core import errors as core_errors

BOTH = [name for name in lockstep.__all__ if inspect.isclass(getattr(lockstep, name))]


@pytest.mark.parametrize("name", lockstep.__all__)
def test_every_name_can_be_imported(name: str) -> None:
    assert getattr(lockstep, name) is not None
    assert name in dir(lockstep)


def test_the_table_of_names_is_that_of_the_package() -> None:
    assert set(dir(lockstep)) == set(lockstep.__all__)


def test_asyncio_has_the_same_names_and_what_it_needs_besides() -> None:
    assert set(aio.__all__) - set(lockstep.__all__) == {"PendingSend", "UnawaitedSendWarning"}
    assert set(lockstep.__all__) <= set(aio.__all__)


def test_every_error_can_be_caught_by_name() -> None:
    classes = {
        name
        for name, value in vars(core_errors).items()
        if inspect.isclass(value) and issubclass(value, core_errors.LockstepError)
    }

    assert set(errors.__all__) == classes


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Nonsense"):
        getattr(lockstep, "Nonsense")  # noqa: B009  # mypy knows that there is none


@pytest.mark.parametrize("module", ["lockstep", "lockstep.core.errors", "lockstep.errors"])
def test_importing_a_part_loads_no_grpc(module: str) -> None:
    code = (
        f"import {module}, sys;"
        " sys.exit(any(m in sys.modules for m in ('grpc', 'google.protobuf')))"
    )

    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)

    assert done.returncode == 0


def public(kind: type[Any]) -> dict[str, Any]:
    members = {
        name: value
        for name, value in vars(kind).items()
        if not name.startswith("_") and callable(getattr(kind, name, None))
    }
    return members | {"__init__": kind.__init__}


@pytest.mark.parametrize("name", BOTH)
def test_both_clients_have_the_same_methods_with_the_same_arguments(name: str) -> None:
    blocking, asynchronous = getattr(lockstep, name), getattr(aio, name)
    if blocking is asynchronous:
        return

    ours, theirs = public(blocking), public(asynchronous)

    assert set(ours) == set(theirs)
    for method in ours:
        if isinstance(ours[method], classmethod):
            continue
        mine, other = inspect.signature(ours[method]), inspect.signature(theirs[method])
        assert [(p.name, p.kind, p.default) for p in mine.parameters.values()] == [
            (p.name, p.kind, p.default) for p in other.parameters.values()
        ], method
