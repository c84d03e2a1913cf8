"""What is changed about stored messages, between protobuf and the core.

Here belong the properties that settlements and administrators set, and the way of changes to a receiver. Never here:
what a sender sets (`sends`). The law (MSG-7): a change is put behind the bytes of the message, where protobuf lets the
last one count; the bytes themselves stay as the sender wrote them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lockstep.core.amendments import Amendment
from lockstep.core.errors import InvalidRequest
from lockstep.core.limits import HEADERS_BYTES_MAX, PROPERTY_BYTES_MAX, check_at_most
from lockstep.v1 import message_pb2
from lockstep.v1 import messaging_service_pb2 as messaging


def encoded_properties(
    given: Mapping[str, message_pb2.PropertyValue],
) -> dict[str, bytes]:
    """Return each property as bytes that, behind those of a message, set it.

    Raises:
        InvalidRequest: A property has no value.
        LimitExceeded: One, or all together, take more than a message may have (section 1.3).
    """
    encoded: dict[str, bytes] = {}
    for name in sorted(
        given
    ):  # maps have no order, and a request with two faults is refused for the same one each time
        value = given[name]
        if value.WhichOneof("kind") is None:
            raise InvalidRequest(f"The property '{name}' has no value. Give one, or leave it out.")
        message = message_pb2.Message()
        message.application_properties[name].CopyFrom(value)
        encoded[name] = message.SerializeToString()
        check_at_most(
            len(encoded[name]), PROPERTY_BYTES_MAX, f"bytes of property '{name}'", "Shorten it."
        )
    total = sum(map(len, encoded.values()))
    check_at_most(total, HEADERS_BYTES_MAX, "bytes of all properties", "Set fewer.")
    return encoded


def amended(messages: Sequence[bytes], amendments: Sequence[tuple[int, Amendment]]) -> list[bytes]:
    """Return messages with their changes behind them."""
    changed = list(messages)
    for place, amendment in amendments:
        ids = message_pb2.Message(session_id=amendment.session_id)
        if amendment.message_id is not None:
            ids.message_id = amendment.message_id
        changed[place] = b"".join(
            (changed[place], *amendment.properties.values(), ids.SerializeToString())
        )
    return changed


def trails(amendments: Sequence[tuple[int, Amendment]]) -> list[messaging.ResubmissionTrail]:
    """Return where those of the messages were before that were resubmitted or moved (RSB-4)."""
    return [
        messaging.ResubmissionTrail(
            index=place,
            resubmit_count=amendment.trail.resubmits,
            original_sequence_number=amendment.trail.sequence,
            source=amendment.trail.entity,
            dead_letter_reason=amendment.trail.reason,
        )
        for place, amendment in amendments
        if amendment.trail is not None
    ]
