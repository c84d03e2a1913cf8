"""The table of guards fits the product; `make mutants` takes each of them out, here only three."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.mutation.__main__ import chosen
from tests.mutation.guard import SERVICES, BadGuard, Guard, load_guards
from tests.mutation.trial import Outcome, try_with_all, try_without

GUARDS = load_guards()
CHEAP = ("session-returned-messages-in-order", "request-fingerprint", "memory-fence-at-open")


def text_of(guard: Guard) -> str:
    return (SERVICES / guard.path).read_text("utf-8")


def guard(name: str) -> Guard:
    return next(guard for guard in GUARDS if guard.id == name)


def test_every_guard_is_found_once_and_can_be_taken_out() -> None:
    for guard in GUARDS:
        assert guard.taken_out_of(text_of(guard)) != text_of(guard)


def test_every_guard_names_its_rules_and_who_must_notice() -> None:
    assert [complaint for guard in GUARDS for complaint in guard.complaints()] == []


def test_every_guard_has_a_name_of_its_own() -> None:
    assert [
        name for name, count in Counter(guard.id for guard in GUARDS).items() if count > 1
    ] == []


def test_a_guard_that_is_not_there_once_is_refused() -> None:
    known = guard("request-fingerprint")

    for source in ("this is nowhere", "self"):
        with pytest.raises(BadGuard):
            replace(known, source=source).taken_out_of(text_of(known))


def test_what_is_no_python_is_refused() -> None:
    known = guard("request-fingerprint")

    with pytest.raises(BadGuard):
        replace(known, instead="if:").taken_out_of(text_of(known))


def test_several_patterns_choose_and_each_that_names_no_guard_is_told() -> None:
    assert [g.id for g in chosen(GUARDS, ["request-finger*", CHEAP[0]])] == [
        g.id for g in GUARDS if g.id in CHEAP[:2]
    ]
    assert chosen(GUARDS, None) == list(GUARDS)

    with pytest.raises(LookupError, match=r"no guard missing nor no-\*;"):
        chosen(GUARDS, ["request-fingerprint", "missing", "no-*"])


def test_an_entry_that_proves_nothing_has_complaints() -> None:
    known = guard("request-fingerprint")
    nothing = replace(known, rules=("RULE",), instead=known.source, tests=("spec/no.py::test_no",))

    assert len(nothing.complaints()) == 3
    assert len(replace(known, rules=(), tests=()).complaints()) == 2


def test_with_all_guards_in_place_nothing_fails() -> None:
    assert try_with_all([guard(name) for name in CHEAP]) == ""


@pytest.mark.parametrize("name", CHEAP)
def test_a_missing_guard_is_noticed(name: str) -> None:
    verdict = try_without(guard(name))

    assert verdict.outcome is Outcome.NOTICED, verdict.why


def test_a_change_that_changes_nothing_survives() -> None:
    known = guard("request-fingerprint")

    verdict = try_without(replace(known, instead=f"{known.source}  # as before"))

    assert verdict.outcome is Outcome.SURVIVED


def test_a_trial_that_cannot_be_run_is_no_success() -> None:
    known = guard("request-fingerprint")

    gone = try_without(replace(known, source="this is nowhere"))
    broken = try_without(replace(known, source="_PRUNE_SLACK = 16", instead="raise RuntimeError"))

    assert {gone.outcome, broken.outcome} == {Outcome.BROKEN}


def test_what_is_called_equivalent_must_not_be_noticed() -> None:
    known = replace(guard("request-fingerprint"), equivalent="for this test")

    assert try_without(known).outcome is Outcome.BROKEN
