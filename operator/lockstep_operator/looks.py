"""A look at one object, from outside: what it needs and how it ends.

Here belong what all kinds of looks have in common. Never here: a look itself (`queues`, `resubmissions`).
"""

from __future__ import annotations

from dataclasses import dataclass

from lockstep.runtime.clock import Clock
from lockstep_operator.breaker import Breaker
from lockstep_operator.broker import Broker
from lockstep_operator.definitions import Definitions
from lockstep_operator.events import Events
from lockstep_operator.kube import Kube
from lockstep_operator.metrics import OperatorMetrics
from lockstep_operator.mirror import Mirror
from lockstep_operator.objects import Objects
from lockstep_operator.pace import Pace
from lockstep_operator.settings import OperatorSettings
from lockstep_operator.surroundings import Surroundings


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a look at an object ended.

    Attributes:
        outcome: success, noop, retry, stalled or conflict.
        is_retried: Whether to look again after a while.
        least_ms: After how many milliseconds at the earliest.
        again_ms: Look again after exactly so many milliseconds, without any failure; 0 = need not be.
        is_ready: Whether the object is Ready at its generation.
        drift: Whether a queue was set back.
    """

    outcome: str
    is_retried: bool = False
    least_ms: int = 0
    again_ms: int = 0
    is_ready: bool = False
    drift: bool = False


@dataclass(frozen=True, slots=True)
class Parts:
    """What a look needs."""

    settings: OperatorSettings
    kube: Kube
    broker: Broker
    breaker: Breaker
    objects: Objects
    mirror: Mirror
    around: Surroundings
    definitions: Definitions
    events: Events
    pace: Pace
    clock: Clock
    metrics: OperatorMetrics
