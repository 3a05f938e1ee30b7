"""What the engine needs of the world, as small protocols. Adapters, stores and telemetry implement them; tests bring their own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from headrace_server.domain.analytics import Analytics
from headrace_server.domain.answer import Answer
from headrace_server.domain.errors import Violation
from headrace_server.domain.events import Delta, GenerationEvent
from headrace_server.domain.limits import LimitType, Refused, Window
from headrace_server.domain.provider import Provider, ProviderRow
from headrace_server.domain.record import LogRow, MetricsRow, RequestQuery
from headrace_server.domain.request import GenerateRequest
from headrace_server.domain.result import GenerationResult

WallClock = Callable[[], int]
"""The time in milliseconds since the epoch. What is measured or waited for uses the event loop's own clock."""


# ---------------------------------------------------------------- providers


class Call(Protocol):
    """One HTTP call of a provider, under way."""

    answer: Answer
    """What has been said so far; also after a failure."""
    sent: bool
    """Whether bytes of the request may have reached the provider."""
    whole: bool
    """Whether the provider answers all at once instead of by a stream; known once the first `read` has returned."""
    left: Mapping[LimitType, int]
    """What the provider says is left of its limits, by the headers of its answer; empty where they tell nothing."""

    async def read(self) -> list[Delta] | None:
        """Wait for bytes and decode them: the deltas in them (often none: a ping, a role), or None once the answer is complete.

        A whole answer comes as one list. Raises ProviderFault, also for an answer that ends without its dialect's terminal evidence.
        Cancellation is passed on; `close` must follow in every case.
        """
        ...

    async def close(self) -> None:
        """Close the connection at once if the answer is not complete, else give it back. Never raises."""
        ...


class Upstream(Protocol):
    """All providers, by their dialects."""

    def check(self, request: GenerateRequest, provider: Provider) -> Sequence[Violation]:
        """What of the request this provider cannot express."""
        ...

    async def call(
        self,
        request: GenerateRequest,
        provider: Provider,
        model: str,
        *,
        traceparent: str,
        connect_timeout: float,
        begins: Callable[[], None] | None = None,
    ) -> Call:
        """Encode the request, connect, send it, and wait for the answer's headers. `connect_timeout` in seconds.

        `begins` is called when bytes of the request may begin to reach the provider: until then it cost nothing, however the call ends.
        Raises ProviderFault, with `replay_safety` NOT_SENT where no byte of the request can have reached the provider.
        """
        ...


class Routes(Protocol):
    """Which providers a request may be sent to."""

    def route(self, request: GenerateRequest) -> Sequence[tuple[Provider, str]]:
        """The chosen provider with its model, then those that may stand in for it, in order. Raises Refusal."""
        ...


# ---------------------------------------------------------------- store


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What an attempt has reserved; settled when the attempt ends."""

    request_id: str
    attempt: int
    provider: str
    model: str
    tokens: int
    zone: str = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """How a reservation ends: what was really used. None: unknown, so all that was reserved counts."""

    reservation: Reservation
    requests: int = 1
    """0 where nothing was sent."""
    tokens: int | None = None
    left: Mapping[LimitType, int] = field(default_factory=dict)
    """What the provider says is left of its limits: it may lower what is left of ours."""


Salvage = Callable[[LogRow, Sequence[bytes]], GenerationResult]
"""What there is of the answer of a request that died with its process: from its row and the events that were kept of it."""


class Journal(Protocol):
    """The part of a store that the engine writes requests to. Every method returns once its write is committed."""

    async def accept(self, row: LogRow) -> LogRow | None:
        """Insert a request's row; None when it was inserted, or the row that has this request_id already.

        A row that validation refused (no attempts, state failed, code invalid_request) is taken over instead: replaced, None returned.
        """
        ...

    def update(self, row: LogRow) -> "asyncio.Future[None]":
        """Write a running request's row as it stands now. Updates that meet in one batch collapse into the last.

        Changes nothing once the stored row is terminal. The write is under way also if the result is not awaited.
        """
        ...

    async def finish(self, row: LogRow, metrics: Sequence[MetricsRow], settlements: Sequence[Settlement]) -> LogRow:
        """Write the terminal row with its metrics and settled limits in one transaction.

        Returns the row that stands: this one, or, where the stored row was terminal already, that one. Then nothing is changed, but what
        the request still holds of its limits is settled all the same: it may have reserved after another hand had ended it.
        """
        ...

    async def get(self, request_id: str) -> LogRow | None:
        """The row of a request, as committed."""
        ...

    async def reserve(self, reservation: Reservation, limits: Mapping[LimitType, int], now: int) -> Refused | None:
        """Reserve one request and the reservation's tokens in all windows, or in none, in one atomic step. None: admitted."""
        ...

    async def settle(self, settlement: Settlement, now: int) -> None:
        """End the reservation of an attempt that is followed by another."""
        ...

    async def list_windows(self, provider: str | None = None, model: str | None = None) -> list[Window]:
        """The counters of limits."""
        ...

    def keep_events(self, request_id: str, first_index: int, chunk_count: int, payload: bytes, now: int) -> "asyncio.Future[None]":
        """Keep events of a running generation, `chunk_count` chunks from `first_index` on among them. Under way at once, as `update`."""
        ...

    async def kept_events(self, request_id: str) -> list[bytes]:
        """The payloads that were kept for a request, in order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizon:
    """What is to go: that of requests which ended before these times, in milliseconds since the epoch; None: nothing."""

    requests: int | None = None
    """Requests, with everything that belongs to them."""
    metrics: int | None = None
    """Their metrics alone."""
    chunks: int | None = None
    """Their kept chunks alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """How many rows went for their age; those that went along with their request are not counted. False where none did."""

    requests: int = 0
    metrics: int = 0
    chunks: int = 0

    def __add__(self, more: "Pruned") -> "Pruned":
        return Pruned(requests=self.requests + more.requests, metrics=self.metrics + more.metrics, chunks=self.chunks + more.chunks)

    def __bool__(self) -> bool:
        return bool(self.requests or self.metrics or self.chunks)


class Store(Journal, Protocol):
    """A whole store."""

    @property
    def analytics(self) -> Analytics:
        """What its records add up to."""
        ...

    async def open(self) -> None:
        """Connect and migrate. Raises StoreUnavailable, or MigrationError for a database that does not fit."""
        ...

    async def close(self) -> None:
        """Commit what is under way and disconnect."""
        ...

    async def ping(self) -> None:
        """Raise StoreUnavailable if writes would fail now."""
        ...

    async def recover(self, node: str, now: int, salvage: Salvage) -> list[LogRow]:
        """End the running rows of dead nodes as failed/interrupted, settle their limits, and return them as they now are."""
        ...

    async def prune(self, horizon: Horizon, limit: int) -> Pruned:
        """Delete some of what is beyond the horizon, oldest first, in one transaction: about `limit` requests, or ten times as many rows.

        Nothing of a request that runs goes. What is left of kept chunks has no gap. Nothing has gone where nothing is left to go.
        """
        ...

    def list_requests(self, query: RequestQuery) -> AsyncIterator[LogRow]:
        """A page of requests, newest first, with one row more than page_size if there is more. Others get their turn in between."""
        ...

    async def list_providers(self) -> list[ProviderRow]:
        """All stored providers, by priority, then name."""
        ...

    async def create_provider(self, row: ProviderRow) -> bool:
        """Insert a provider; False where the name is taken."""
        ...

    async def update_provider(self, row: ProviderRow) -> bool:
        """Replace a provider's row, by name; False where there is none."""
        ...

    async def delete_provider(self, provider: str) -> bool:
        """Remove a provider with the counters of its limits; False where there is none, or where rows refer to it. One atomic step."""
        ...

    async def count_requests_of(self, provider: str) -> int:
        """How many rows of provider_logs or provider_metrics refer to a provider."""
        ...


class EventCodec(Protocol):
    """The stored form of events."""

    def encode(self, request_id: str, events: Sequence[GenerationEvent]) -> bytes:
        """Events as bytes."""
        ...

    def decode(self, payload: bytes) -> list[GenerationEvent]:
        """What `encode` made bytes of."""
        ...


# ---------------------------------------------------------------- telemetry


class Trace(Protocol):
    """The trace of one request. Ids are fixed from the start; spans are built from the record at the end."""

    trace_id: str
    """32 hexadecimal digits."""
    traceparent: str
    """Of the request's own span."""

    def attempt(self) -> str:
        """Begin the next provider call: the `traceparent` that goes to the provider."""
        ...

    def drop(self) -> None:
        """The request turned out to be one that is on record already: there is nothing of its own to show."""
        ...

    def end(self, row: LogRow) -> None:
        """The request has ended: spans, metrics and the log line, all from its row. Never raises."""
        ...


class Unknowns(Protocol):
    """Where is counted what providers say and no dialect understands: it is passed over or not guessed at, and not hidden."""

    def unknown_error(self, provider: Provider, http_status: int) -> None:
        """An error that is in no dialect's table; with status 200 it came inside an answer."""
        ...

    def unknown_events(self, provider: Provider, count: int) -> None:
        """Events of unknown types in one answer."""
        ...


class Telemetry(Protocol):
    """Where what happens is shown."""

    def start(self, request: GenerateRequest | None, traceparent: str | None) -> Trace:
        """A request has been accepted, or refused by validation (None)."""
        ...
