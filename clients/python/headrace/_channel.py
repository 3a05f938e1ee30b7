"""How the clients' channels and short calls are set."""

from collections.abc import Sequence
from typing import Any

SHORT = 30.0
"""Most seconds that an RPC may take that generates nothing."""
CANCEL_TIMEOUT = 5.0
"""Most seconds that a closed stream waits for its end on record."""

_OPTIONS: dict[str, Any] = {
    # An answer may be larger than gRPC's default of 4 MiB; the service bounds it.
    "grpc.max_receive_message_length": -1,
    "grpc.max_send_message_length": -1,
    # A host that vanished without a word is found out; not more often than the service allows.
    "grpc.keepalive_time_ms": 60_000,
    "grpc.keepalive_timeout_ms": 20_000,
    # The delays between tries are ours (see Retry).
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 2_000,
    "grpc.primary_user_agent": "headrace-python",
}


def channel_options(options: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Ours, and the caller's, which win."""
    return list({**_OPTIONS, **dict(options)}.items())


def metadata_of(token: str | None) -> tuple[tuple[str, str], ...]:
    """The metadata of every call."""
    return (("authorization", f"Bearer {token}"),) if token is not None else ()
