"""The store in memory, for tests and simulations: the same contract, and nothing survives the process."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import TypeVar

from headrace_server.domain.errors import StoreUnavailable
from headrace_server.domain.lifecycle import TERMINAL
from headrace_server.domain.limits import LimitType, Refused, Window
from headrace_server.domain.ports import Horizon, Pruned, Reservation, Salvage, Settlement, WallClock
from headrace_server.domain.provider import ProviderRow
from headrace_server.domain.record import LogRow, MetricsRow, RequestQuery
from headrace_server.store.analytics_memory import MemoryAnalytics
from headrace_server.store.counters import Counters, settlement_of
from headrace_server.store.defaults import default_providers
from headrace_server.store.recovery import interrupted, is_refused, metrics_of
from headrace_server.store.rows import LOGS, METRICS, PROVIDERS, keep_fixed

T = TypeVar("T")


class MemoryStore:
    """A Store in dictionaries. Rows are checked when they are written, as every store does."""

    def __init__(self, *, node: str, clock: WallClock) -> None:
        self._node = node
        self._logs: dict[str, LogRow] = {}
        self._metrics: list[MetricsRow] = []
        self.analytics = MemoryAnalytics(self._rows)
        self._kept: dict[str, list[bytes]] = {}
        self._providers = {row.provider: row for row in default_providers(clock())}
        self._counters = Counters()
        self._is_open = False

    # ------------------------------------------------------------ life

    async def open(self) -> None:
        """See Store.open."""
        self._is_open = True

    async def close(self) -> None:
        """See Store.close. What was written stays, and is there when the store is opened again."""
        self._is_open = False

    async def ping(self) -> None:
        """See Store.ping."""
        self._check_open()

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreUnavailable("the store is not open")

    # ------------------------------------------------------------ journal

    async def accept(self, row: LogRow) -> LogRow | None:
        """See Journal.accept."""
        self._check_open()
        standing = self._logs.get(row.request_id)
        if standing is not None and not is_refused(standing):
            return standing
        LOGS.encode(row)
        self._logs[row.request_id] = row
        return None

    def update(self, row: LogRow) -> asyncio.Future[None]:
        """See Journal.update."""
        return _done(lambda: self._update(row))

    def _update(self, row: LogRow) -> None:
        self._check_open()
        standing = self._logs.get(row.request_id)
        if standing is not None and standing.state not in TERMINAL:
            LOGS.encode(row)
            self._logs[row.request_id] = keep_fixed(standing, row)

    async def finish(self, row: LogRow, metrics: Sequence[MetricsRow], settlements: Sequence[Settlement]) -> LogRow:
        """See Journal.finish."""
        self._check_open()
        LOGS.encode(row)
        for line in metrics:
            METRICS.encode(line)
        for settlement in settlements:
            self._counters.settle(settlement, row.updated_at)
        for held in self._counters.of(row.request_id):
            self._counters.settle(settlement_of(held, row), row.updated_at)
        standing = self._logs.get(row.request_id)
        if standing is not None and standing.state in TERMINAL:
            return standing
        self._logs[row.request_id] = row if standing is None else keep_fixed(standing, row)
        self._metrics += metrics
        return row

    def keep_events(self, request_id: str, first_index: int, chunk_count: int, payload: bytes, now: int) -> asyncio.Future[None]:
        """See Journal.keep_events."""
        return _done(lambda: self._keep(request_id, payload))

    def _keep(self, request_id: str, payload: bytes) -> None:
        self._check_open()
        self._kept.setdefault(request_id, []).append(payload)

    async def kept_events(self, request_id: str) -> list[bytes]:
        """See Journal.kept_events."""
        self._check_open()
        return list(self._kept.get(request_id, ()))

    async def get(self, request_id: str) -> LogRow | None:
        """See Journal.get."""
        self._check_open()
        return self._logs.get(request_id)

    async def reserve(self, reservation: Reservation, limits: Mapping[LimitType, int], now: int) -> Refused | None:
        """See Journal.reserve."""
        self._check_open()
        return self._counters.reserve(reservation, limits, self._node, now) if limits else None

    async def settle(self, settlement: Settlement, now: int) -> None:
        """See Journal.settle."""
        self._check_open()
        self._counters.settle(settlement, now)

    async def recover(self, node: str, now: int, salvage: Salvage) -> list[LogRow]:
        """See Store.recover. No other process can be alive here."""
        self._check_open()
        dead = [row for row in self._logs.values() if row.state not in TERMINAL and row.node != node]
        ended = [interrupted(row, now, self._kept.get(row.request_id, ()), salvage) for row in dead]
        self._metrics += [line for row in ended for line in metrics_of(row)]
        self._logs |= {row.request_id: row for row in ended}
        for held in list(self._counters.held.values()):
            if held.node != node:
                self._counters.settle(settlement_of(held, self._logs.get(held.reservation.request_id)), now)
        return ended

    async def prune(self, horizon: Horizon, limit: int) -> Pruned:
        """See Store.prune."""
        self._check_open()
        if requests := [row.request_id for row in self._ended_before(horizon.requests)][:limit]:
            for request_id in requests:
                del self._logs[request_id]
                self._kept.pop(request_id, None)
            self._metrics[:] = [line for line in self._metrics if line.request_id in self._logs]
            return Pruned(requests=len(requests))
        old = {row.request_id for row in self._ended_before(horizon.metrics)}
        if lines := [line for line in self._metrics if line.request_id in old][: limit * 10]:
            self._metrics[:] = [line for line in self._metrics if line not in lines]
            return Pruned(metrics=len(lines))
        kept = next((kept for row in self._ended_before(horizon.chunks) if (kept := self._kept.get(row.request_id))), [])
        pieces = kept[-limit * 10 :]
        del kept[-limit * 10 :]
        return Pruned(chunks=len(pieces))

    def _ended_before(self, time: int | None) -> list[LogRow]:
        """Oldest first."""
        rows = sorted(self._logs.values(), key=lambda row: row.created_at)
        return [row for row in rows if time is not None and row.end_time is not None and row.end_time < time and row.state in TERMINAL]

    # ------------------------------------------------------------ records

    async def list_requests(self, query: RequestQuery) -> AsyncIterator[LogRow]:
        """See Store.list_requests."""
        self._check_open()
        rows = sorted(self._logs.values(), key=lambda row: (row.created_at, row.id), reverse=True)
        for row in [row for row in rows if _matches(row, query)][: query.page_size + 1]:
            yield row

    def _rows(self) -> tuple[Collection[LogRow], Collection[MetricsRow]]:
        self._check_open()
        return self._logs.values(), self._metrics

    async def list_metrics(self, request_id: str) -> list[MetricsRow]:
        """The metrics of a request, one row for each provider tried, in order."""
        self._check_open()
        return [row for row in self._metrics if row.request_id == request_id]

    async def count_requests_of(self, provider: str) -> int:
        """See Store.count_requests_of."""
        self._check_open()
        logs = sum(row.provider == provider for row in self._logs.values())
        return logs + sum(row.provider == provider for row in self._metrics)

    # ------------------------------------------------------------ providers and limits

    async def list_providers(self) -> list[ProviderRow]:
        """See Store.list_providers."""
        self._check_open()
        return sorted(self._providers.values(), key=lambda row: (row.priority, row.provider))

    async def create_provider(self, row: ProviderRow) -> bool:
        """See Store.create_provider."""
        self._check_open()
        if row.provider in self._providers:
            return False
        self._save(row)
        return True

    async def update_provider(self, row: ProviderRow) -> bool:
        """See Store.update_provider."""
        self._check_open()
        if row.provider not in self._providers:
            return False
        self._save(row)
        return True

    def _save(self, row: ProviderRow) -> None:
        PROVIDERS.encode(row)
        self._providers[row.provider] = row

    async def delete_provider(self, provider: str) -> bool:
        """See Store.delete_provider."""
        if await self.count_requests_of(provider) or self._providers.pop(provider, None) is None:
            return False
        for key in [key for key, window in self._counters.windows.items() if window.provider == provider]:
            del self._counters.windows[key]
        return True

    async def list_windows(self, provider: str | None = None, model: str | None = None) -> list[Window]:
        """See Store.list_windows; by provider, model and kind."""
        self._check_open()
        return [
            window
            for key, window in sorted(self._counters.windows.items())
            if provider in (None, window.provider) and model in (None, window.model)
        ]


def _done(run: Callable[[], T]) -> asyncio.Future[T]:
    """The outcome of something as an awaitable: it has happened also if nobody waits."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    try:
        future.set_result(run())
    except Exception as error:  # noqa: BLE001 - whoever waits gets it
        future.set_exception(error)
    return future


def _matches(row: LogRow, query: RequestQuery) -> bool:
    equal = all(
        getattr(query, name) in (None, getattr(row, name))
        for name in ("state", "provider", "model", "user_id", "conversation_id", "error_code")
    )
    return (
        equal
        and (query.tag is None or query.tag in row.tags)
        and (query.start_time is None or row.created_at >= query.start_time)
        and (query.end_time is None or row.created_at < query.end_time)
        and (query.before is None or (row.created_at, row.id) < query.before)
    )
