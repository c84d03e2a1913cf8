"""Every public name of azure-servicebus 7.15 is here, or docs/coming-from-azure.md says that it is not.

`azure_names.txt` lists them: `module:Class.member`, where the module is a part of azure.servicebus. It was read from
the package of that release, which is not needed here.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from lockstep.servicebus import ServiceBusMessage

HERE = Path(__file__).parent
NAMES = (HERE / "azure_names.txt").read_text(encoding="utf-8").split()
PAGE = (HERE.parents[1] / "docs" / "coming-from-azure.md").read_text(encoding="utf-8")
HEADING = "## Names that are not there\n"
MESSAGE = ServiceBusMessage("x")


def missing(name: str) -> tuple[str, str] | None:
    """Return what of a name is not here: a module and a class, or a class and a member; None = all of it is."""
    module, _, path = name.partition(":")
    ours = import_module(f"lockstep.servicebus.{module}".rstrip("."))
    cls, _, member = path.partition(".")
    if not hasattr(ours, cls):
        return module.removeprefix("aio."), cls
    owner = getattr(ours, cls)
    # What a message says of itself is on the object.
    of_message = issubclass(owner, ServiceBusMessage) if isinstance(owner, type) else False
    if not member or hasattr(owner, member) or (of_message and hasattr(MESSAGE, member)):
        return None
    return cls, member


def named_on_the_page() -> set[tuple[str, str]]:
    """Return the names of the section about what is not there: a row for each owner."""
    section = PAGE.partition(HEADING)[2].partition("\n## ")[0]
    found = set()
    for row in re.findall(r"^\| `.*$", section, re.MULTILINE):
        owner, *names = re.findall(r"`(\w+)`", row)
        found |= {(owner, name) for name in names}
    return found


def test_each_name_of_azure_is_here_or_named_on_the_page() -> None:
    lacking = {found for name in NAMES if (found := missing(name)) is not None}

    assert len(NAMES) > 300
    assert named_on_the_page() == lacking
