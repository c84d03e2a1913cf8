"""Words for people: no plural of one, and one full stop."""

from __future__ import annotations

import pytest

from lockstep.core.wording import are, counted, have, sentence


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 messages"), (1, "1 message"), (2000, "2,000 messages")]
)
def test_things_are_counted(count: int, words: str) -> None:
    assert counted(count, "message") == words


def test_verbs_go_with_their_number() -> None:
    assert [(are(n), have(n)) for n in (0, 1, 2)] == [
        ("are", "have"),
        ("is", "has"),
        ("are", "have"),
    ]


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("Socket closed", "Socket closed."),
        ("(Socket closed)", "(Socket closed)."),
        ("It is full.", "It is full."),
        ("Why?", "Why?"),
        ("so on … ", "so on …"),
        ("", ""),
    ],
)
def test_a_text_of_others_ends_as_a_sentence(text: str, whole: str) -> None:
    assert sentence(text) == whole
