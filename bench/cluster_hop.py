"""What a call costs on its way through a front end, and what PostgreSQL costs instead of SQLite.

Here belong the runs of the same load against each broker, and what is computed from runs side by side. Never here: how
a broker is started (`cluster_systems`), how a figure is taken (`measure`). The laws: brokers take turns, so that a
machine that slows down slows all of them; what is subtracted or divided was measured in the same turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench import measure
from bench.cluster_systems import CLUSTER, POSTGRES, PROXY, SPREAD, SQLITE, SYSTEMS
from bench.ledger import Violation
from bench.lifecycle import LOCKSTEP, drive

HOP_SYSTEMS = (SQLITE, POSTGRES, CLUSTER, SPREAD, PROXY)
STORE_SYSTEMS = (SQLITE, POSTGRES, CLUSTER)
TITLES = {
    SQLITE: "one process, SQLite",
    POSTGRES: "one process, PostgreSQL",
    CLUSTER: "front end + owner",
    SPREAD: "… 16 partitions",
    PROXY: "byte proxy + SQLite",
}
_SERVER = "cpu.server_us_per_message"
_FRONTEND = "cpu.frontend_us_per_message"
_PROXY = "cpu.proxy_us_per_message"
_RATE = "throughput.messages_per_second"

_NOT_SHOWN = ("p90_ms", "max_ms")
"""What is left out of tables; it is in the JSON."""

Turn = Mapping[str, measure.Figures]
"""What one turn found, by system."""


@dataclass(frozen=True, slots=True)
class Load:
    """What each run does; as the flags of `bench.cluster` say."""

    batch: int
    workers: int
    sessions: int
    body_bytes: int
    warmup_seconds: float
    seconds: float
    latency_seconds: float


def one_run(system: str, load: Load) -> measure.Figures:
    """Run the life of messages against a new broker.

    Raises:
        Violation: A promise was broken.
    """
    disk = measure.sync_figures(None)
    with SYSTEMS[system]() as running:
        run = measure.Run(
            job=measure.BUSY,
            address=running.address,
            server_pid=running.server_pid,
            batch=load.batch,
            workers=load.workers,
            sessions=load.sessions,
            body_bytes=load.body_bytes,
            warmup_seconds=load.warmup_seconds,
            seconds=load.seconds,
            latency_seconds=load.latency_seconds,
            beside=running.beside,
        )
        figures = measure.in_fresh_process(drive, (LOCKSTEP, run))
    if isinstance(figures, Violation):
        raise figures
    return figures | disk


def turns(
    systems: Sequence[str], loads: Sequence[Load], runs: int, tell: Callable[[str], None]
) -> dict[int, list[Turn]]:
    """Return what all turns found, by batch.

    Args:
        systems: Which brokers take part, in this order.
        loads: One for each batch.
        runs: How many turns there are of each.
        tell: Called with the name of what was run, once it is over.

    Raises:
        Violation: A promise was broken.
    """
    found: dict[int, list[Turn]] = {load.batch: [] for load in loads}
    for _ in range(runs):
        for load in loads:
            turn: dict[str, measure.Figures] = {}
            for system in systems:
                turn[system] = one_run(system, load)
                tell(f"{system}, batch {load.batch}")
            found[load.batch].append(turn)
    return found


def hop_of(turn: Turn) -> measure.Figures:
    """Return what the way over a front end costs: µs of processor time a message."""
    single, proxy = turn[POSTGRES][_SERVER], turn[PROXY][_PROXY]
    cluster = turn[CLUSTER]
    hop = _deciding(cluster) - single
    figures = {
        "front end": cluster[_FRONTEND],
        "owner, beyond one process": cluster[_SERVER] - single,
        "hop": hop,
        "hop, against SQLite": _deciding(cluster) - turn[SQLITE][_SERVER],
        "byte proxy": proxy,
        "hop / byte proxy": hop / proxy,
    }
    if SPREAD in turn:
        figures["hop, 16 partitions"] = _deciding(turn[SPREAD]) - single
    return figures


def _deciding(figures: measure.Figures) -> float:
    return figures[_FRONTEND] + figures[_SERVER]


def store_of(turn: Turn) -> measure.Figures:
    """Return how PostgreSQL compares with SQLite: shares of messages a second."""
    base = turn[SQLITE][_RATE]
    names = {POSTGRES: "PostgreSQL / SQLite", CLUSTER: "with a front end / SQLite"}
    return {title: turn[name][_RATE] / base for name, title in names.items() if name in turn}


def lines(batch: int, found: Sequence[Turn]) -> Iterator[str]:
    """Yield a table of all systems, and what is computed from it."""
    systems = list(found[0])
    summaries = {name: measure.summarise([turn[name] for turn in found]) for name in systems}
    measured = dict.fromkeys(figure for name in systems for figure in summaries[name])
    figures = [figure for figure in measured if not figure.endswith(_NOT_SHOWN)]
    yield f"{f'batch {batch}':<32}" + "".join(f"{TITLES[name]:>27}" for name in systems)
    for figure in figures:
        cells = (str(summaries[name].get(figure, "")) for name in systems)
        yield f"  {figure:<30}" + "".join(f"{cell:>27}" for cell in cells)
    if PROXY in systems:
        yield from _computed("the hop, µs of processor time a message", map(hop_of, found))
    yield from _computed("the store, messages a second", map(store_of, found))


def _computed(title: str, found: Iterator[measure.Figures]) -> Iterator[str]:
    yield f"  {title}"
    for name, summary in measure.summarise(list(found)).items():
        yield f"    {name:<28}{summary!s:>27}"
