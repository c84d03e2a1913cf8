"""Which faults one run meets, and how often. Each seed draws its own mix, so that faults also occur alone."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities for each message, commit or turn of the chaos; 0 = the fault does not occur in this run.

    Attributes:
        lost: A request or a reply vanishes.
        repeated: A request arrives twice.
        reordered: A request or a reply takes much longer than others.
        straggling: A copy of a request arrives when its client has long gone on.
        hung_up: A caller that gave up for good is noticed by the server.
        reused: A client uses the id of an earlier call for another one.
        confused: A client settles messages that it never received.
        commit_failed: Nothing is stored and StoreUnavailable is raised.
        commit_unknown: It is stored and StoreUnavailable is raised.
        commit_slow: A commit takes seconds.
        read_slow: A read of bodies or states takes seconds.
        orphaned: A commit outlives the owner that was killed during it.
        crash: The owner is killed at some await.
        takeover: A new owner starts after the old one's lease; the old one goes on.
        deposed: As takeover, but the old one believes in its lease.
        handover: The owner closes in order and a new one starts.
        clock_jump: A new owner's time of day is off.
        stale_route: A client talks to an old owner that still runs.
    """

    lost: float = 0.0
    repeated: float = 0.0
    reordered: float = 0.0
    straggling: float = 0.0
    hung_up: float = 0.0
    reused: float = 0.0
    confused: float = 0.0
    commit_failed: float = 0.0
    commit_unknown: float = 0.0
    commit_slow: float = 0.0
    read_slow: float = 0.0
    orphaned: float = 0.0
    crash: float = 0.0
    takeover: float = 0.0
    deposed: float = 0.0
    handover: float = 0.0
    clock_jump: float = 0.0
    stale_route: float = 0.0


_MOST = {
    "lost": 0.12,
    "repeated": 0.15,
    "reordered": 0.15,
    "straggling": 0.1,
    "hung_up": 0.7,
    "reused": 0.1,
    "confused": 0.2,
    "commit_failed": 0.06,
    "commit_unknown": 0.06,
    "commit_slow": 0.05,
    "read_slow": 0.2,
    "orphaned": 0.7,
    "crash": 0.5,
    "takeover": 0.7,
    "deposed": 0.5,
    "handover": 0.3,
    "clock_jump": 0.6,
    "stale_route": 0.7,
}
_CALM = 0.1


def draw_faults(random: Random) -> Faults:
    """Draw the mix of one run: about two of three kinds, each at its own strength; some runs have none."""
    if random.random() < _CALM:
        return Faults()
    strengths = {
        name: round(most * random.random(), 3) if random.random() < 2 / 3 else 0.0
        for name, most in _MOST.items()
    }
    return Faults(**strengths)
