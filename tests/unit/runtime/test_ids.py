"""Ids are unique, and the counting ones repeat from run to run."""

from __future__ import annotations

import re

from lockstep.runtime.ids import CountingIds, IdSource, SystemIds


def test_system_ids_are_32_hexadecimal_digits_and_differ() -> None:
    ids: IdSource = SystemIds()

    made = [ids.client_id(), ids.client_id(), ids.uid(), ids.uid()]

    assert len(set(made)) == 4
    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in made)


def test_counting_ids_count_each_kind_from_one() -> None:
    ids: IdSource = CountingIds("a-")

    made = [ids.client_id(), ids.uid(), ids.client_id(), ids.uid()]

    assert made == ["a-client-1", "a-uid-1", "a-client-2", "a-uid-2"]


def test_counting_ids_repeat_in_the_next_run() -> None:
    first, second = CountingIds(), CountingIds()

    assert first.uid() == second.uid() == "uid-1"
