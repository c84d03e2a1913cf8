"""Which module has which public name of `lockstep.testing`.

Here belongs the table, and how a name is loaded when it is first used (PEP 562). Never here: imports of the
broker. The law: what `lockstep.testing.__all__` names is here, and a test says so.
"""

from __future__ import annotations

from importlib import import_module

_MODULE_OF_NAME = {
    "BlockingBroker": "blocking_broker",
    "BlockingClock": "blocking_broker",
    "Broker": "broker",
    "BrokerClock": "broker",
}


def __getattr__(name: str) -> object:
    """Load a public name of `lockstep.testing`.

    Raises:
        AttributeError: There is no such name.
    """
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module 'lockstep.testing' has no attribute {name!r}")
    return getattr(import_module(f"lockstep.testing.{_MODULE_OF_NAME[name]}"), name)


def __dir__() -> list[str]:
    """Name what `lockstep.testing` has, for completion."""
    return sorted(_MODULE_OF_NAME)
