"""Sequence numbers and lock tokens."""

from __future__ import annotations

import pytest

from lockstep.core.errors import InvalidRequest
from lockstep.core.ids import (
    GrantNumber,
    PartitionEpoch,
    PartitionId,
    lock_token,
    partition_of,
    sequence_base,
    split_lock_token,
    token_prefix,
)

LARGEST = 2**63 - 1


@pytest.mark.parametrize("partition", [0, 1, 15, 32_767])
def test_a_sequence_number_says_its_partition(partition: int) -> None:
    """ADD-1: the upper 16 bits."""
    base = sequence_base(PartitionId(partition))

    assert partition_of(base + 1) == partition
    assert partition_of(base + 2**48 - 1) == partition


def test_the_layout_of_a_token_is_fixed() -> None:
    """Clients compute it (the public API says how), so it never changes."""
    token = lock_token(GrantNumber(0x0102), 0x0A0B)

    assert token.hex() == "00000000000001020000000000000a0b"
    assert token == token_prefix(GrantNumber(0x0102)) + (0x0A0B).to_bytes(8, "big")


@pytest.mark.parametrize("grant", [0, 1, LARGEST])
@pytest.mark.parametrize("sequence", [0, 1, (15 << 48) + 7, LARGEST])
def test_a_token_is_split_into_what_it_was_made_of(grant: int, sequence: int) -> None:
    assert split_lock_token(lock_token(GrantNumber(grant), sequence)) == (grant, sequence)


@pytest.mark.parametrize("token", [b"", b"x" * 15, b"x" * 17])
def test_a_token_of_the_wrong_length_is_refused_with_both_lengths(token: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        split_lock_token(token)

    assert refused.value.details == {"limit": "16", "observed": str(len(token))}


@pytest.mark.parametrize(
    "token", [b"\xff" * 16, b"\x80" + bytes(15), bytes(8) + b"\x80" + bytes(7)]
)
def test_a_token_of_numbers_that_were_never_given_out_is_refused(token: bytes) -> None:
    with pytest.raises(InvalidRequest):
        split_lock_token(token)


def test_epochs_are_compared_generation_first_then_revision_then_reopening() -> None:
    epochs = [
        PartitionEpoch(2, 0, 0),
        PartitionEpoch(1, 9, 0),
        PartitionEpoch(1, 2, 5),
        PartitionEpoch(1, 2, 4),
    ]

    assert sorted(epochs, reverse=True) == epochs
