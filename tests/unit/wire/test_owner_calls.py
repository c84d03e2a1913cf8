"""Commands and replies on their way between front ends and owners: whatever is sent arrives."""

from __future__ import annotations

import collections.abc
import dataclasses
import types
import typing
from array import array
from enum import Enum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.core import commands, replies
from lockstep.core.commands import Command, GiveUp, Send, Tick
from lockstep.core.errors import InternalError, LockstepError, MessageLockLost
from lockstep.core.ids import EntityKey, EntityNumber, GrantNumber, RequestId
from lockstep.core.replies import Browsed, Delivered, Short
from lockstep.wire import owner_calls
from lockstep.wire.owner_calls import decode_command, decode_reply, encode_command, encode_reply

INT64 = st.integers(-(2**63), 2**63 - 1)
PRIMITIVES: dict[Any, st.SearchStrategy[Any]] = {
    int: INT64,
    str: st.text(max_size=5),
    bool: st.booleans(),
    bytes: st.binary(max_size=5),
    type(None): st.none(),
}
LOST = MessageLockLost("gone", details={"cause": "expired"}, retry_after_ms=7)
COLUMNS = st.lists(INT64, max_size=3).map(lambda numbers: array("q", numbers))


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for the values of a type, as commands and replies have them."""
    kind = getattr(kind, "__supertype__", kind)
    if kind in PRIMITIVES:
        return PRIMITIVES[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([values(one) for one in arguments])
    if origin is collections.abc.Sequence:
        return st.lists(values(arguments[0]), max_size=3)
    if origin is collections.abc.Mapping:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=2)
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, arguments))
    if issubclass(kind, Enum):
        return st.sampled_from(kind)
    if issubclass(kind, LockstepError):
        return st.just(LOST)
    if kind is Delivered:
        return delivered()
    assert dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"), kind
    hints = typing.get_type_hints(kind)
    return st.builds(
        kind, **{name: values(hint) for name, hint in hints.items() if name != "return"}
    )


def delivered() -> st.SearchStrategy[Delivered]:
    return st.builds(
        Delivered,
        entity=st.just(EntityNumber(1)),
        grant=st.just(GrantNumber(2)),
        size_bytes=INT64,
        sequences=COLUMNS,
        chunks=st.just(array("q")),  # an owner's own, which do not travel
        places=st.just(array("q")),
        enqueued_ms=COLUMNS,
        counts=st.lists(INT64, max_size=3).map(tuple),
        locked_until_ms=INT64,
        short=st.sampled_from(Short),
        expires_ms=st.lists(INT64, max_size=3),
        is_final=st.booleans(),
    )


@pytest.mark.parametrize("kind", owner_calls._COMMANDS, ids=lambda kind: str(kind.__name__))
def test_every_command_arrives(kind: type[Any]) -> None:
    @settings(max_examples=25)
    @given(values(kind))
    def check(command: Any) -> None:
        name, fields = encode_command(command)
        again = decode_command(name, fields)
        assert type(again) is kind
        assert encode_command(again) == (name, fields)

    check()


@pytest.mark.parametrize("kind", owner_calls._REPLIES, ids=lambda kind: str(kind.__name__))
def test_every_reply_arrives(kind: type[Any]) -> None:
    @settings(max_examples=25)
    @given(values(kind))
    def check(reply: Any) -> None:
        name, fields = encode_reply(reply)
        again = decode_reply(name, fields)
        assert type(again) is kind
        assert encode_reply(again) == (name, fields)

    check()


def test_what_an_owner_does_to_itself_does_not_travel() -> None:
    for command in (Tick(), GiveUp(EntityKey("n", "q"), RequestId("c", 1), 0, "accept")):
        with pytest.raises(InternalError):
            encode_command(command)
    with pytest.raises(InternalError, match="knows no command"):
        decode_command("Tick", b"\x80")
    with pytest.raises(InternalError, match="knows no reply"):
        decode_reply("Ticked", b"\x80")


def test_every_command_but_those_of_an_owner_itself_travels() -> None:
    own = {"AdvanceJob", "ForgetDeletions", "GiveUp", "LookForJob", "Tick"}
    own |= {"LookForTransfer", "SettleTransfer"}
    travelling = {kind.__name__ for kind in owner_calls._COMMANDS}
    assert {kind.__name__ for kind in typing.get_args(Command)} - own == travelling


def test_a_field_that_the_other_side_does_not_know_is_left_out() -> None:
    name, fields = encode_command(commands.GetRuntime(EntityKey("n", "q")))
    longer = bytes([fields[0] + 1]) + fields[1:] + b"\xa3new\x01"  # a map with one entry more
    assert decode_command(name, longer) == commands.GetRuntime(EntityKey("n", "q"))


def test_errors_of_single_messages_keep_their_reason_and_facts() -> None:
    settled = replies.Settled((replies.NotSettled(GrantNumber(3), 4, LOST),))
    (failure,) = decode_reply(*encode_reply(settled)).failures  # type: ignore[union-attr]
    assert (type(failure.error), failure.error.message, failure.error.details) == (
        MessageLockLost,
        "gone",
        {"cause": "expired"},
    )
    assert failure.error.retry_after_ms == 7


def test_damaged_fields_are_refused() -> None:
    name, fields = encode_command(Send(EntityKey("n", "q"), (b"x",), (None,)))
    with pytest.raises(InternalError, match="cannot be read"):
        decode_command(name, fields[:-3])


def test_browsed_columns_arrive() -> None:
    @given(delivered(), st.booleans())
    def check(columns: Delivered, has_more: bool) -> None:
        again = decode_reply(*encode_reply(Browsed(columns, (0,), (), has_more)))
        assert isinstance(again, Browsed)
        assert again.delivered.sequences == columns.sequences
        assert again.has_more == has_more

    check()
