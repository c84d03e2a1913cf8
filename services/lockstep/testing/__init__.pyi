from lockstep.testing.blocking_broker import BlockingBroker, BlockingClock
from lockstep.testing.broker import Broker, BrokerClock

__all__ = ["BlockingBroker", "BlockingClock", "Broker", "BrokerClock"]
