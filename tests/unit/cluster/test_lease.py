"""A lease ends here before it can end at etcd, and what has ended stays so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lockstep.cluster.lease import LeaseLife, NodeLease
from lockstep.core.errors import ClusterUnavailable, InvalidRequest
from lockstep.runtime.clock import ManualClock

TTL_MS = 10_000
VALID_MS = 9_000


class LeasesInMemory:
    """What etcd does for leases, on a clock that is turned by hand.

    Attributes:
        ends_ms: When each lease ends, by id.
        is_away: Whether calls find nobody.
        loses_answers: Whether calls have their effect, and their answers are lost.
        on_call: Called while a call is under way, before and after its effect.
    """

    def __init__(self, clock: ManualClock) -> None:
        self.ends_ms: dict[int, int] = {}
        self.granted: list[int] = []
        self.is_away = False
        self.loses_answers = False
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None
        self._clock = clock

    def is_there(self, lease: int) -> bool:
        return self._clock.monotonic_ms() < self.ends_ms.get(lease, 0)

    def grant(self, ttl_ms: int, *, timeout_ms: int) -> tuple[int, int]:
        with_id = len(self.granted) + 1
        self._reach()
        self.ends_ms[with_id] = self._clock.monotonic_ms() + ttl_ms
        self.granted.append(with_id)
        self._answer()
        return with_id, ttl_ms

    def keep_alive(self, lease: int, *, timeout_ms: int) -> int:
        self._reach()
        is_there = self.is_there(lease)
        if is_there:
            self.ends_ms[lease] = self._clock.monotonic_ms() + TTL_MS
        self._answer()
        return TTL_MS if is_there else 0

    def revoke(self, lease: int, *, timeout_ms: int) -> None:
        self._reach()
        self.ends_ms.pop(lease, None)
        self._answer()

    def _reach(self) -> None:
        if self.is_away:
            raise ClusterUnavailable("away")
        self.before()

    def _answer(self) -> None:
        self.after()
        if self.loses_answers:
            raise ClusterUnavailable("the answer was lost")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def etcd(clock: ManualClock) -> LeasesInMemory:
    return LeasesInMemory(clock)


@pytest.fixture
def lease(clock: ManualClock, etcd: LeasesInMemory) -> NodeLease:
    return NodeLease(etcd, clock, ttl_ms=TTL_MS, margin=0.1)


def life_of(lease: NodeLease) -> LeaseLife:
    life = lease.current
    assert life is not None
    return life


def test_a_lease_is_valid_for_its_time_less_the_margin(
    clock: ManualClock, lease: NodeLease
) -> None:
    lease.step()
    life = life_of(lease)

    clock.advance(VALID_MS - 1)
    assert life.is_valid()
    clock.advance(1)
    assert not life.is_valid()
    assert lease.current is None


def test_time_counts_from_when_a_call_was_sent(
    clock: ManualClock, etcd: LeasesInMemory, lease: NodeLease
) -> None:
    etcd.before = lambda: clock.advance(400)
    etcd.after = lambda: clock.advance(300)

    lease.step()

    assert life_of(lease).left_ms == VALID_MS - 700


def test_a_renewal_counts_from_when_it_was_sent(
    clock: ManualClock, etcd: LeasesInMemory, lease: NodeLease
) -> None:
    lease.step()
    clock.advance(5_000)
    etcd.before = lambda: clock.advance(1_000)

    lease.step()

    assert life_of(lease).left_ms == VALID_MS - 1_000


def test_renewals_come_five_times_in_a_lifetime(clock: ManualClock, lease: NodeLease) -> None:
    lease.step()
    clock.advance(500)

    assert lease.step() == 2_000


def test_an_outage_shorter_than_the_lease_goes_unnoticed(
    clock: ManualClock, etcd: LeasesInMemory, lease: NodeLease
) -> None:
    lease.step()
    life = life_of(lease)
    etcd.is_away = True
    clock.advance(VALID_MS - 1)
    assert lease.step() == 500

    etcd.is_away = False
    lease.step()

    assert lease.current is life
    assert life.left_ms == VALID_MS


def test_a_lease_that_ran_out_is_over_though_etcd_still_has_it(
    clock: ManualClock, etcd: LeasesInMemory, lease: NodeLease
) -> None:
    lease.step()
    life = life_of(lease)
    etcd.is_away = True
    clock.advance(VALID_MS)
    lease.step()
    assert etcd.is_there(life.id)

    etcd.is_away = False
    lease.step()

    assert not life.is_valid()
    assert life_of(lease).id != life.id
    assert not etcd.is_there(life.id)  # nobody has to wait for its end


def test_a_renewal_that_is_answered_after_the_end_is_too_late(
    clock: ManualClock, etcd: LeasesInMemory, lease: NodeLease
) -> None:
    lease.step()
    life = life_of(lease)
    clock.advance(VALID_MS - 1)
    etcd.after = lambda: clock.advance(1)

    lease.step()

    assert not life.is_valid()
    assert life_of(lease).id != life.id


def test_a_lease_that_etcd_has_lost_is_over_at_once(etcd: LeasesInMemory, lease: NodeLease) -> None:
    lease.step()
    life = life_of(lease)
    etcd.ends_ms.clear()

    lease.step()

    assert not life.is_valid()
    assert life_of(lease).id != life.id


def test_a_grant_whose_answer_was_lost_is_made_again(
    etcd: LeasesInMemory, lease: NodeLease
) -> None:
    etcd.loses_answers = True
    assert lease.step() == 500
    assert lease.current is None

    etcd.loses_answers = False
    lease.step()

    assert life_of(lease).id == 2


def test_a_grant_that_took_a_lifetime_is_no_lease(
    clock: ManualClock, etcd: LeasesInMemory, lease: NodeLease
) -> None:
    etcd.after = lambda: clock.advance(VALID_MS)

    lease.step()

    assert lease.current is None


@pytest.mark.parametrize(("ttl_ms", "margin"), [(1_999, 0.1), (2_000, 0.0), (2_000, 1.0)])
def test_values_out_of_range_are_refused(
    etcd: LeasesInMemory, clock: ManualClock, ttl_ms: int, margin: float
) -> None:
    with pytest.raises(InvalidRequest):
        NodeLease(etcd, clock, ttl_ms=ttl_ms, margin=margin)


@given(st.lists(st.tuples(st.integers(0, 12_000), st.integers(0, 12_000)), max_size=20))
def test_a_life_never_comes_back(renewals: list[tuple[int, int]]) -> None:
    clock = ManualClock()
    life = LeaseLife(1, clock, valid_until_ms=VALID_MS)
    was_over = False
    for pause_ms, lasts_ms in renewals:
        clock.advance(pause_ms)
        if was_over:
            assert not life.extend(clock.monotonic_ms() + lasts_ms)
        elif life.is_valid():
            assert life.extend(clock.monotonic_ms() + lasts_ms)
        was_over = not life.is_valid()


class AnyTrouble(RuleBasedStateMachine):
    """Whatever happens between node and etcd, the node never counts on a lease that is gone by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.etcd = LeasesInMemory(self.clock)
        self.lease = NodeLease(self.etcd, self.clock, ttl_ms=TTL_MS, margin=0.1)
        self.lives: list[LeaseLife] = []
        self.over: set[int] = set()

    @rule(delay_ms=st.integers(0, 11_000))
    def time_passes(self, delay_ms: int) -> None:
        self.clock.advance(delay_ms)

    @rule(there_ms=st.integers(0, 3_000), back_ms=st.integers(0, 3_000))
    def step(self, there_ms: int, back_ms: int) -> None:
        self.etcd.before = lambda: self.clock.advance(there_ms)
        self.etcd.after = lambda: self.clock.advance(back_ms)
        self.lease.step()
        life = self.lease.current
        if life is not None and life not in self.lives:
            self.lives.append(life)

    @rule()
    def etcd_goes_or_comes_back(self) -> None:
        self.etcd.is_away = not self.etcd.is_away

    @rule()
    def answers_are_lost_or_not(self) -> None:
        self.etcd.loses_answers = not self.etcd.loses_answers

    @precondition(lambda self: self.lives)
    @rule()
    def somebody_looks(self) -> None:
        self.lives[-1].is_valid()

    @invariant()
    def valid_here_means_there_at_etcd(self) -> None:
        for life in self.lives:
            if life.is_valid():
                assert self.etcd.is_there(life.id)
                assert life.id not in self.over
            else:
                self.over.add(life.id)

    @invariant()
    def at_most_one_life_is_valid(self) -> None:
        assert sum(life.is_valid() for life in self.lives) <= 1


TestAnyTrouble = AnyTrouble.TestCase


def test_while_there_is_no_lease_calls_are_told_why() -> None:
    clock = ManualClock()
    etcd = LeasesInMemory(clock)
    lease = NodeLease(etcd, clock, ttl_ms=TTL_MS)
    etcd.is_away = True
    lease.step()
    refused = lease.why_none()
    assert refused is not None
    assert "away" in refused.message

    etcd.is_away = False
    lease.step()

    assert lease.why_none() is None
