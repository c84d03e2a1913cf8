"""Which faults one run meets, and how often. Each seed draws its own mix, so that faults also occur alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from tests.sim import faults as of_disks


@dataclass(frozen=True, slots=True)
class Faults:
    """What may go wrong; 0 = it does not in this run.

    The first ones are weights: each turn of the chaos chooses one of them. The rest are probabilities for each call.

    Attributes:
        crash: An owner is killed, and starts again after a while.
        zombie: An owner stands still for longer than its lease, and goes on.
        pause: An owner stands still for a moment.
        leave: An owner is stopped in order, and starts again.
        join: An owner comes that was not there before, or goes for good.
        vanish: An owner is cut off from everybody, and perhaps killed.
        frontend_crash: A front end is killed, and starts again.
        frontend_pause: A front end stands still.
        cut_etcd: A process is cut off from etcd.
        cut_member: A process is cut off from one member of etcd.
        cut_owner: A front end is cut off from an owner.
        cut_store: An owner is cut off from the store.
        etcd_silent: etcd has no leader for a while, shorter or longer than the leases.
        compaction: etcd forgets old revisions, while watches are broken.
        wipe: etcd loses all its data; an operator raises the generation.
        key_deleted: Somebody deletes the key of a partition.
        clock_step: The time of day of an owner is set, forth or back.
        etcd_refused: A call to etcd fails at once, without effect.
        etcd_unknown: A call to etcd has its effect, and its answer is lost.
        etcd_slow: A call to etcd is answered long after its effect.
        etcd_late: A call to etcd has its effect when its caller has given up.
        watch_broken: A watch breaks, when it is told something.
        lagging: A watch begins at a member that is behind.
        lost: The connection breaks before a request arrives.
        reply_lost: The connection breaks before an answer arrives.
        ghost: The connection breaks, and what was asked arrives later.
        slow: A request or an answer takes much longer than others.
        client_lost: As `lost`, between a client and a front end.
        client_reply_lost: As `reply_lost`, between a client and a front end.
        of_disks: What goes wrong with commits.
    """

    crash: float = 0.0
    zombie: float = 0.0
    pause: float = 0.0
    leave: float = 0.0
    join: float = 0.0
    vanish: float = 0.0
    frontend_crash: float = 0.0
    frontend_pause: float = 0.0
    cut_etcd: float = 0.0
    cut_member: float = 0.0
    cut_owner: float = 0.0
    cut_store: float = 0.0
    etcd_silent: float = 0.0
    compaction: float = 0.0
    wipe: float = 0.0
    key_deleted: float = 0.0
    clock_step: float = 0.0
    etcd_refused: float = 0.0
    etcd_unknown: float = 0.0
    etcd_slow: float = 0.0
    etcd_late: float = 0.0
    watch_broken: float = 0.0
    lagging: float = 0.0
    lost: float = 0.0
    reply_lost: float = 0.0
    ghost: float = 0.0
    slow: float = 0.0
    client_lost: float = 0.0
    client_reply_lost: float = 0.0
    of_disks: of_disks.Faults = field(default_factory=of_disks.Faults)


CHAOS = (
    *("crash", "zombie", "pause", "leave", "join", "vanish", "frontend_crash", "frontend_pause"),
    *("cut_etcd", "cut_member", "cut_owner", "cut_store", "etcd_silent", "compaction", "wipe"),
    *("key_deleted", "clock_step"),
)
"""Those of the faults that a turn of the chaos chooses from."""

_MOST = {
    "etcd_refused": 0.1,
    "etcd_unknown": 0.1,
    "etcd_slow": 0.1,
    "etcd_late": 0.06,
    "watch_broken": 0.1,
    "lagging": 0.3,
    "lost": 0.06,
    "reply_lost": 0.06,
    "ghost": 0.05,
    "slow": 0.06,
    "client_lost": 0.05,
    "client_reply_lost": 0.08,
}
_MOST_OF_DISKS = {
    "commit_failed": 0.05,
    "commit_unknown": 0.05,
    "commit_slow": 0.03,
    "read_slow": 0.05,
    "orphaned": 0.7,
}
_RARE = {"wipe": 0.25, "key_deleted": 0.5}
_OCCURS = 0.5
_CALM = 0.05


def draw_faults(random: Random) -> Faults:
    """Draw the mix of one run: about half of the kinds, each at its own strength; a few runs have none."""
    if random.random() < _CALM:
        return Faults()

    def some(most: float) -> float:
        return round(most * random.random(), 3) if random.random() < _OCCURS else 0.0

    chaos = {name: some(_RARE.get(name, 1.0)) for name in CHAOS}
    calls = {name: some(most) for name, most in _MOST.items()}
    disks = {name: some(most) for name, most in _MOST_OF_DISKS.items()}
    return Faults(**chaos, **calls, of_disks=of_disks.Faults(**disks))
