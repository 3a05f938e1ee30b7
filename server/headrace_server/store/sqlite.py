"""The store in a SQLite file."""

import asyncio
import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headrace_server.domain.errors import CorruptRow, StoreUnavailable
from headrace_server.domain.limits import LimitType, Refused, Window
from headrace_server.domain.ports import Horizon, Pruned, Reservation, Salvage, Settlement, WallClock
from headrace_server.domain.provider import ProviderRow
from headrace_server.domain.record import LogRow, MetricsRow, RequestQuery
from headrace_server.store.analytics import SqliteAnalytics
from headrace_server.store.connection import Database, Durability, Readers, open_writer, unavailable
from headrace_server.store.migrate import migrate
from headrace_server.store.nodes import RENEWAL, Node
from headrace_server.store.queries import requests_page
from headrace_server.store.retention import delete_batch
from headrace_server.store.rows import LOGS, METRICS, PROVIDERS, window_from
from headrace_server.store.sums import BATCH, add_batch, count_waiting
from headrace_server.store.transaction import (
    SELECT_LOGS,
    SELECT_METRICS,
    SELECT_WINDOWS,
    Accept,
    Finish,
    Keep,
    Reserve,
    Settle,
    Update,
    Work,
    carry_out,
    update_values,
)
from headrace_server.store.writer import Writer

__all__ = ["Durability", "SqliteStore"]

_log = logging.getLogger(__name__)
AT_ONCE = 20
"""Rows of a list that are decoded before others get their turn: a page of 1,000 would hold them up for 0.1 s."""
SUMMING = 1.0
"""Seconds between looks at how many rows wait to be added to the sums."""
SHARE = 4
"""The pause after a batch is this many times as long as the batch took: four fifths of the writer's time stay the service's."""

_PROVIDER_COLUMNS = PROVIDERS.names()
_INSERT_PROVIDER = f"""INSERT INTO provider_configs ({", ".join(_PROVIDER_COLUMNS)})
    VALUES ({", ".join("?" * len(_PROVIDER_COLUMNS))}) ON CONFLICT (provider) DO NOTHING"""
_UPDATE_PROVIDER = f"""UPDATE provider_configs SET {", ".join(f"{column} = ?" for column in _PROVIDER_COLUMNS)},
    revision = revision + 1 WHERE provider = ?"""
_DELETE_PROVIDER = """DELETE FROM provider_configs WHERE provider = ?1
    AND NOT EXISTS (SELECT 1 FROM provider_logs WHERE provider = ?1)
    AND NOT EXISTS (SELECT 1 FROM provider_metrics WHERE provider = ?1)"""


class SqliteStore:
    """A Store in one file. One connection writes, in group commits; `readers` more only read. `node` names this process."""

    def __init__(self, path: Path, *, node: str, durability: Durability = Durability.NORMAL, readers: int = 4, clock: WallClock) -> None:
        self._path = path
        self._node_id = node
        self._durability = durability
        self._reader_count = max(1, readers)
        self._clock = clock
        self._readers = Readers()
        self.analytics = SqliteAnalytics(self._readers)
        self._writer: Writer | None = None
        self._upkeep: list[asyncio.Task[None]] = []
        self._node = Node.here(node, 0)
        self._file: tuple[int, int] | None = None

    # ------------------------------------------------------------ life

    async def open(self) -> None:
        """Make the folder where it is missing, migrate, connect, and register this process as alive. See Store.open."""
        try:
            await asyncio.to_thread(self._prepare)
            connection = await open_writer(self._path, self._durability)
            self._writer = Writer(connection, self._carry_out, self._check_file)
            await self._readers.open(self._path, self._reader_count)
            self._node = Node.here(self._node_id, self._clock())
            await self._renew()
        except BaseException as error:
            await self._disconnect()
            if isinstance(error, sqlite3.Error | OSError):
                gone = unavailable(error) if isinstance(error, sqlite3.Error) else None
                raise StoreUnavailable(f"{self._path}: {gone or error}") from error
            raise
        self._upkeep = [
            asyncio.create_task(self._keep_lease(), name="store lease"),
            asyncio.create_task(self._keep_sums(), name="store sums"),
        ]

    def _prepare(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        applied = migrate(self._path)
        if applied:
            _log.info("migrated %s: %s", self._path, ", ".join(applied))
        self._file = self._identity()

    def _identity(self) -> tuple[int, int]:
        status = os.stat(self._path)
        return status.st_dev, status.st_ino

    def _check_file(self) -> None:
        # SQLite writes on into a file that was deleted or replaced, and all of it would be lost.
        try:
            found = self._identity()
        except OSError as error:
            raise StoreUnavailable("the database file is gone") from error
        if found != self._file:
            raise StoreUnavailable("the database file was replaced")

    async def close(self) -> None:
        """See Store.close."""
        for task in self._upkeep:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._upkeep = []
        if self._writer is not None:
            try:
                await self._work(self._node.leave)
            except StoreUnavailable as error:
                _log.warning("this process is not signed off, its lease will run out: %s", error)
        await self._disconnect()

    async def _disconnect(self) -> None:
        writer, self._writer = self._writer, None
        await self._readers.close()
        if writer is not None:
            await writer.close()

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(RENEWAL)
            try:
                await self._renew()
            except (StoreUnavailable, sqlite3.Error) as error:
                _log.warning("the lease of this process is not renewed: %s", error)

    async def _keep_sums(self) -> None:
        told = ""
        while True:
            await asyncio.sleep(SUMMING)
            try:
                await self.add_sums(at_least=BATCH)
                told = ""
            except (StoreUnavailable, sqlite3.Error) as error:
                if str(error) != told:
                    _log.warning("the sums are not brought up to date, they take longer to read: %s", error)
                told = str(error)

    async def add_sums(self, *, at_least: int = 1, pause: bool = True) -> None:
        """Add rows of metrics to the sums, in batches, until fewer than this wait for it. Raises StoreUnavailable."""
        while (await self._readers.fetch(*count_waiting(at_least)))[0][0] >= at_least:
            began = time.monotonic()
            await self._work(lambda db: add_batch(db, BATCH))
            await asyncio.sleep(SHARE * (time.monotonic() - began) if pause else 0)

    async def _renew(self) -> None:
        await self._work(lambda db: self._node.renew(db, self._clock()))

    async def ping(self) -> None:
        """See Store.ping. Writes, to be sure."""
        await self._renew()

    # ------------------------------------------------------------ journal

    async def accept(self, row: LogRow) -> LogRow | None:
        """See Journal.accept."""
        standing: LogRow | None = await self._submit(Accept(row, LOGS.encode(row)))
        return standing

    def update(self, row: LogRow) -> asyncio.Future[None]:
        """See Journal.update."""
        try:
            return self._submit(Update(row, update_values(row)))
        except (CorruptRow, StoreUnavailable) as error:
            return _refused(error)

    def keep_events(self, request_id: str, first_index: int, chunk_count: int, payload: bytes, now: int) -> asyncio.Future[None]:
        """See Journal.keep_events."""
        try:
            return self._submit(Keep([request_id, first_index, chunk_count, payload, now]))
        except StoreUnavailable as error:
            return _refused(error)

    async def kept_events(self, request_id: str) -> list[bytes]:
        """See Journal.kept_events."""
        rows = await self._readers.fetch("SELECT payload FROM stream_chunks WHERE request_id = ? ORDER BY first_index", (request_id,))
        return [payload for (payload,) in rows]

    async def finish(self, row: LogRow, metrics: Sequence[MetricsRow], settlements: Sequence[Settlement]) -> LogRow:
        """See Journal.finish."""
        operation = Finish(row, update_values(row), [METRICS.encode(line) for line in metrics], settlements)
        standing: LogRow = await self._submit(operation)
        return standing

    async def get(self, request_id: str) -> LogRow | None:
        """See Journal.get. Raises CorruptRow."""
        rows = await self._readers.fetch(f"{SELECT_LOGS} WHERE request_id = ?", (request_id,))
        return LOGS.decode(rows[0]) if rows else None

    async def reserve(self, reservation: Reservation, limits: Mapping[LimitType, int], now: int) -> Refused | None:
        """See Journal.reserve."""
        if not limits:
            return None
        refused: Refused | None = await self._submit(Reserve(reservation, dict(limits), now))
        return refused

    async def settle(self, settlement: Settlement, now: int) -> None:
        """See Journal.settle."""
        await self._submit(Settle(settlement, now))

    async def recover(self, node: str, now: int, salvage: Salvage) -> list[LogRow]:
        """See Store.recover."""
        living = Node(id=node, host=self._node.host, pid=self._node.pid, started_at=self._node.started_at)
        rows: list[LogRow] = await self._work(lambda db: living.recover(db, now, salvage))
        return rows

    async def prune(self, horizon: Horizon, limit: int) -> Pruned:
        """See Store.prune."""
        gone: Pruned = await self._work(lambda db: delete_batch(db, horizon, limit))
        return gone

    # ------------------------------------------------------------ records

    async def list_requests(self, query: RequestQuery) -> AsyncIterator[LogRow]:
        """See Store.list_requests. Raises CorruptRow."""
        statement, values = requests_page(query)
        for number, record in enumerate(await self._readers.fetch(statement, values), start=1):
            yield LOGS.decode(record)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)

    async def list_metrics(self, request_id: str) -> list[MetricsRow]:
        """The metrics of a request, one row for each provider tried, in order. Raises CorruptRow."""
        records = await self._readers.fetch(f"{SELECT_METRICS} WHERE request_id = ? ORDER BY rowid", (request_id,))
        return [METRICS.decode(record) for record in records]

    async def count_requests_of(self, provider: str) -> int:
        """See Store.count_requests_of."""
        rows = await self._readers.fetch(
            "SELECT (SELECT count(*) FROM provider_logs WHERE provider = ?) + (SELECT count(*) FROM provider_metrics WHERE provider = ?)",
            (provider, provider),
        )
        return int(rows[0][0])

    # ------------------------------------------------------------ providers and limits

    async def list_providers(self) -> list[ProviderRow]:
        """See Store.list_providers. Raises CorruptRow."""
        statement = f"SELECT {', '.join(_PROVIDER_COLUMNS)} FROM provider_configs ORDER BY priority, provider"
        return [PROVIDERS.decode(record) for record in await self._readers.fetch(statement)]

    async def create_provider(self, row: ProviderRow) -> bool:
        """See Store.create_provider."""
        return await self._change(_INSERT_PROVIDER, PROVIDERS.encode(row))

    async def update_provider(self, row: ProviderRow) -> bool:
        """See Store.update_provider."""
        return await self._change(_UPDATE_PROVIDER, [*PROVIDERS.encode(row), row.provider])

    async def delete_provider(self, provider: str) -> bool:
        """See Store.delete_provider."""

        async def run(db: Database) -> bool:
            deleted = (await db.execute(_DELETE_PROVIDER, (provider,))).rowcount > 0
            if deleted:
                await db.execute("DELETE FROM provider_rate_limits WHERE provider = ?", (provider,))
            return deleted

        deleted: bool = await self._work(run)
        return deleted

    async def list_windows(self, provider: str | None = None, model: str | None = None) -> list[Window]:
        """See Store.list_windows; by provider, model and kind. Raises CorruptRow."""
        statement = f"{SELECT_WINDOWS} WHERE provider = coalesce(?, provider) AND model = coalesce(?, model)"
        records = await self._readers.fetch(f"{statement} ORDER BY provider, model, limit_type", (provider, model))
        return [window_from(record) for record in records]

    # ------------------------------------------------------------ writing

    def _submit(self, operation: Any) -> asyncio.Future[Any]:
        if self._writer is None:
            raise StoreUnavailable("the store is not open")
        return self._writer.submit(operation)

    async def _work(self, run: Callable[[Database], Awaitable[Any]]) -> Any:
        return await self._submit(Work(run))

    async def _change(self, statement: str, values: Sequence[Any]) -> bool:
        async def run(db: Database) -> bool:
            return (await db.execute(statement, values)).rowcount > 0

        changed: bool = await self._work(run)
        return changed

    async def _carry_out(self, connection: Database, operations: list[Any]) -> list[Any]:
        return await carry_out(connection, operations, self._node_id)


def _refused(error: Exception) -> "asyncio.Future[None]":
    """A write that never was."""
    refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    refused.set_exception(error)
    return refused
