"""What surrounds a run: settings, the caller, and everything outside that it needs."""

from collections.abc import Callable
from dataclasses import dataclass

from headrace_server.domain.ports import EventCodec, Journal, Routes, Upstream, WallClock
from headrace_server.health import Health
from headrace_server.ledger import Price
from headrace_server.queues import Queues


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What an operator may set. Durations in milliseconds."""

    total_timeout: int = 600_000
    """Bound of a request that names none."""
    max_concurrent: int = 2_000
    """Most generations that run at once."""
    progress_timeout: int = 120_000
    """Longest time without content on a stream that sends bytes."""
    replay_window: int = 60_000
    """How long an ended generation stays in memory for readers that come back."""
    replay_memory: int = 64 * 1024 * 1024
    """Most bytes that ended generations take there; over that, those that ended first leave before their time."""
    default_output_tokens: int = 1_024
    """What the limiter reserves for an answer without max_tokens."""
    memory_per_generation: int = 1024 * 1024
    """Bytes of chunks of one generation that stay in memory; what is over that is read from the store."""
    tell_before_commit: bool = False
    """Durability `relaxed`: readers hear the end before it is committed."""
    poll_interval: int = 200
    """How often the store is asked about a request that another process runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls, and how long they wait."""

    owner: str = ""
    traceparent: str | None = None
    time_left: float | None = None
    """Seconds until the RPC's deadline; None without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything outside that a run needs."""

    journal: Journal
    upstream: Upstream
    routes: Routes
    codec: EventCodec
    clock: WallClock
    node: str
    settings: EngineSettings
    price: Price
    random: Callable[[], float]
    health: Health
    queues: Queues
