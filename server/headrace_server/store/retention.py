"""What is kept for how long, and how the rest goes: in batches of a few milliseconds, so that nobody who writes waits for it.

The age of everything is that of its request's end: what runs is never touched. The file does not shrink; what is freed is used again.
"""

import asyncio
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from headrace_server.domain.ports import Horizon, Pruned, Store, WallClock
from headrace_server.store.check import open_snapshot
from headrace_server.store.connection import Database

BATCH = 20
"""Requests that go in one transaction; ten times as many rows of metrics or chunks."""
SHARE = 4
"""The pause after a batch is this many times as long as the batch took: four fifths of the writer's time stay the service's."""
PAUSE = 0.005
"""Seconds that a pause lasts at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long things stay after the end of their request, in milliseconds; None: for ever."""

    requests: int | None = None
    """Rows of provider_logs, with everything that belongs to them. The id of one that is gone counts as new."""
    metrics: int | None = None
    """Rows of provider_metrics; they go with their request at the latest."""
    chunks: int | None = None
    """Kept chunks; they go with their request at the latest."""
    at_least: int = 0
    """Nothing goes earlier than this: for so long readers come back."""

    def horizon(self, now: int) -> Horizon:
        """What has gone by then."""

        def before(age: int | None) -> int | None:
            return None if age is None else now - max(age, self.at_least)

        return Horizon(requests=before(self.requests), metrics=before(self.metrics), chunks=before(self.chunks))


async def prune(store: Store, retention: Retention, clock: WallClock) -> Pruned:
    """Delete everything whose time is over; how much went. Raises StoreUnavailable."""
    horizon, everything = retention.horizon(clock()), Pruned()
    while True:
        began = time.monotonic()
        gone = await store.prune(horizon, BATCH)
        if not gone:
            return everything
        everything += gone
        await asyncio.sleep(max(PAUSE, SHARE * (time.monotonic() - began)))


def count_over(path: Path, horizon: Horizon) -> Pruned:
    """What `prune` would delete. Raises sqlite3.Error, MigrationError."""
    with closing(open_snapshot(path)) as db:
        requests, metrics, chunks = (
            0 if before is None else db.execute(f"SELECT count(*) FROM ({statement})", {"before": before, "limit": -1}).fetchone()[0]
            for before, statement in (
                (horizon.requests, _REQUESTS),
                (horizon.metrics, _METRICS),
                (horizon.chunks, _CHUNKS),
            )
        )
    return Pruned(requests=requests, metrics=metrics, chunks=chunks)


# The joins are CROSS so that SQLite begins with the older end of the first table.
_REQUESTS = """SELECT rowid FROM provider_logs
    WHERE created_at < :before AND end_time < :before AND state IN ('completed', 'failed') ORDER BY created_at LIMIT :limit"""
_METRICS = """SELECT line.rowid FROM provider_metrics AS line CROSS JOIN provider_logs AS log ON log.request_id = line.request_id
    WHERE line.created_at < :before AND log.end_time < :before ORDER BY line.created_at LIMIT :limit"""
_CHUNKED = """SELECT DISTINCT chunk.request_id FROM stream_chunks AS chunk
    CROSS JOIN provider_logs AS log ON log.request_id = chunk.request_id
    WHERE chunk.created_at < :before AND log.end_time < :before ORDER BY chunk.created_at"""
# The last ones first: what is left of a request's chunks has no gap.
_CHUNKS = f"SELECT rowid FROM stream_chunks WHERE request_id IN ({_CHUNKED}) ORDER BY request_id, first_index DESC LIMIT :limit"
_CHUNKS_OF_A_FEW = _CHUNKS.replace("ORDER BY chunk.created_at", "ORDER BY chunk.created_at LIMIT :few")


async def delete_batch(db: Database, horizon: Horizon, limit: int) -> Pruned:
    """See Store.prune; in an open transaction."""

    async def delete(table: str, statement: str, before: int | None, limit: int, few: int = 0) -> int:
        if before is None:
            return 0
        values = {"before": before, "limit": limit, "few": few}
        return (await db.execute(f"DELETE FROM {table} WHERE rowid IN ({statement})", values)).rowcount

    if requests := await delete("provider_logs", _REQUESTS, horizon.requests, limit):
        return Pruned(requests=requests)
    if metrics := await delete("provider_metrics", _METRICS, horizon.metrics, limit * 10):
        return Pruned(metrics=metrics)
    return Pruned(chunks=await delete("stream_chunks", _CHUNKS_OF_A_FEW, horizon.chunks, limit * 10, few=limit))
