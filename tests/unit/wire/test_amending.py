"""Properties that a settlement sets."""

from __future__ import annotations

from lockstep.v1 import message_pb2
from lockstep.wire.amending import encoded_properties


def test_properties_are_taken_in_the_order_of_their_names() -> None:
    """Protobuf gives a map in another order in each process; the same request is to have the same outcome."""
    given = {name: message_pb2.PropertyValue(int_value=1) for name in ("b", "c", "a")}

    assert list(encoded_properties(given)) == ["a", "b", "c"]
