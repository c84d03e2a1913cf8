"""An in-process broker with a virtual clock, for users' own tests.

Here belong names. Never here: code. The law: importing this loads no broker and no gRPC, so that the pytest
plugin costs nothing where it is not used; a name is loaded when it is first used (PEP 562). Type checkers read
`__init__.pyi`.
"""

from lockstep.testing.names import __dir__ as __dir__
from lockstep.testing.names import __getattr__ as __getattr__

__all__ = ["BlockingBroker", "BlockingClock", "Broker", "BrokerClock"]
