"""A store with a million old requests in two minutes: rows by SQL straight into its tables."""

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from journal import rows_of_a_request

from headrace_server.app import wall_clock
from headrace_server.domain.lifecycle import Event, State
from headrace_server.store.migrate import migrate
from headrace_server.store.rows import LOGS, METRICS
from headrace_server.store.sqlite import SqliteStore

HOUR = 3_600_000
MONTH = 31 * 24 * HOUR
RARE = 100_000
"""One request in so many is of the provider `rare`."""

# What differs from row to row, by column, as SQL over its number `i`. The rest is as in a request that was answered.
NUMBERED = {
    "request_id": "printf('%08x-0000-7000-8000-%012x', i, i)",
    "conversation_id": "printf('%08x-0000-7000-9000-%012x', i / 10, i / 10)",
    "user_id": "'user-' || (i * 7919 % 10000)",
    "provider": f"CASE WHEN i % {RARE} = 17 THEN 'rare' WHEN i % 10 = 0 THEN 'claude' ELSE 'openai' END",
    "model": "'model-' || (i % 5)",
    "tags": "json_array('team-' || (i % 20), 'feature-' || (i % 50))",
    "created_at": ":begin + i * :step",
    "updated_at": ":begin + i * :step",
    "start_time": ":begin + i * :step",
    "end_time": ":begin + i * :step",
    "state": "CASE WHEN i % 33 = 0 THEN 'failed' ELSE 'completed' END",
    "error_code": "CASE WHEN i % 33 = 0 THEN 'server_error' END",
    "error_message": "CASE WHEN i % 33 = 0 THEN 'the provider answered 500' END",
    "transitions": "CASE WHEN i % 33 = 0 THEN :failed ELSE :transitions END",
    "success": "i % 33 <> 0",
}
IDS = {"provider_logs": "printf('%08x-0000-7000-a000-%012x', i, i)", "provider_metrics": "printf('%08x-0000-7000-b000-%012x', i, i)"}


def fill(path: Path, requests: int) -> None:
    """Make a database with so many requests, spread over the last month; the first one is an hour younger than that."""
    migrate(path)
    if not requests:
        return
    (*_, log), metrics = rows_of_a_request()
    way_to_failed = (*log.transitions[:-1], replace(log.transitions[-1], to_state=State.FAILED, event=Event.REQUEST_FAILED))
    failed = dict(zip(LOGS.names(), LOGS.encode(log.model_copy(update={"transitions": way_to_failed})), strict=True))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA cache_size = -500000; PRAGMA foreign_keys = OFF")
        db.execute("BEGIN")
        for table, names, values in (
            (LOGS.name, LOGS.names(), LOGS.encode(log)),
            (METRICS.name, METRICS.names(), METRICS.encode(metrics)),
        ):
            numbered = {**NUMBERED, "id": IDS[table]}
            columns = [numbered.get(name, f":{name}") for name in names]
            db.execute(
                f"WITH RECURSIVE number (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM number WHERE i + 1 < :requests) "
                f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(columns)} FROM number",
                {
                    **dict(zip(names, values, strict=True)),
                    "failed": failed["transitions"],
                    "requests": requests,
                    "begin": wall_clock() - MONTH + HOUR,
                    "step": (MONTH - HOUR) // requests,
                },
            )
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with ThreadPoolExecutor(1) as thread:  # where no event loop runs, whoever calls
        thread.submit(asyncio.run, _add_sums(path)).result()


async def _add_sums(path: Path) -> None:
    """As a service that has run for a month would have done."""
    store = SqliteStore(path, node="fill", clock=wall_clock)
    await store.open()
    await store.add_sums(pause=False)
    await store.close()
