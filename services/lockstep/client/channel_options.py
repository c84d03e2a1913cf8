"""How gRPC channels are set up, alike for both kinds of client.

Here belong channel options and metadata. Never here: a channel. The law: an option says why it is
not left at gRPC's default.
"""

from __future__ import annotations

from typing import Final

from lockstep.core.limits import MIB

CHANNEL_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    # What a queue allows is the server's to say; this is only above every limit it may have.
    ("grpc.max_send_message_length", 128 * MIB),
    ("grpc.max_receive_message_length", 128 * MIB),
    # A dead connection is found within 40 s even while a receive waits. Waits are cut at 60 s, so at most
    # one ping goes out between two responses, which a server with gRPC's defaults puts up with.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # The default tries each connection for 20 s, which is long for who mistyped an address.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # The defaults let a client sit out up to two minutes after the server is back. An attempt costs little where
    # nobody listens, and calls resume about a second after somebody does.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

HEALTH_CHECK: Final = "/grpc.health.v1.Health/Check"
SERVING: Final = b"\x08\x01"
"""The answer of gRPC's health service where all is well; what it is asked is empty."""

WAIT_MS_MAX: Final = 60_000
"""The longest wait that one call asks of the server; longer ones are several calls."""


def call_metadata(client_id: str) -> tuple[tuple[str, str], ...]:
    """Return what every call says about its client."""
    return (("x-lockstep-client", f"python {client_id}"),)
