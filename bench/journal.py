"""How fast the journal is, alone: requests a second, and what it adds to a lone request; beside a commit for every statement.

    python bench/journal.py [--requests 20000] [--concurrency 256] [--rounds 5]

A request is what the engine writes of one: its row with the intent of its call, the first token, and the end with its metrics. All
indexes and triggers are there. `naive` writes the same rows with the same statements' text, each in a transaction of its own.
"""

import argparse
import asyncio
import json
import platform
import resource
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

import aiosqlite

from headrace_server.app import wall_clock
from headrace_server.domain.errors import ReplaySafety
from headrace_server.domain.identity import fingerprint, new_id
from headrace_server.domain.lifecycle import Event, State
from headrace_server.domain.machine import Context, advance
from headrace_server.domain.message import ChatMessage, MessageRole, TextPart
from headrace_server.domain.record import LogRow, MetricsRow
from headrace_server.domain.request import GenerateRequest
from headrace_server.domain.result import Attempt, FinishReason, GenerationResult
from headrace_server.domain.usage import Usage, UsageSource
from headrace_server.program import run
from headrace_server.store.connection import Durability
from headrace_server.store.rows import LOGS, METRICS
from headrace_server.store.sqlite import SqliteStore

QUESTION = "What does a river do? Answer in two sentences, and name one river that you like."
ANSWER = "A river carries water from where it falls to where it rests, and shapes the land on its way. " * 3
WAY = (
    (Event.INITIATE_REQUEST, Event.VALIDATION_PASSED),
    (Event.RECEIVE_STREAM_CHUNK,),
    (Event.STREAM_COMPLETE,),
)


def rows_of_a_request() -> tuple[list[LogRow], MetricsRow]:
    """The row as it is written three times, and its metrics."""
    now = wall_clock()
    request = GenerateRequest(
        request_id=new_id(now), stream=True, messages=(ChatMessage(role=MessageRole.USER, content=(TextPart(text=QUESTION),)),)
    )
    usage = Usage(input_tokens=20, output_tokens=60, total_tokens=80, source=UsageSource.PROVIDER)
    context, rows, row_id = Context(request_id=request.request_id, provider="openai", model="gpt"), [], new_id(now)
    attempt = Attempt(provider="openai", model="gpt", state=State.REQUESTING, start_time=now)
    for events in WAY:
        for event in events:
            context, _ = advance(context, event, at=now)
        ended = context.is_terminal
        if ended:
            attempt = attempt.model_copy(
                update={"state": State.COMPLETED, "usage": usage, "duration": 9, "replay_safety": ReplaySafety.UNCERTAIN}
            )
        result = GenerationResult(
            content=(TextPart(text=ANSWER),), finish_reason=FinishReason.STOP, native_finish_reason="stop", usage=usage, provider="openai"
        )
        rows.append(
            LogRow(
                id=row_id,
                request_id=request.request_id,
                provider="openai",
                model="gpt",
                state=context.state,
                request_data=request,
                response_data=result if ended else None,
                start_time=now,
                end_time=now if ended else None,
                duration=0 if ended else None,
                request_fingerprint=fingerprint(request),
                attempts=(attempt,),
                transitions=context.history,
                trace_id="0" * 31 + "1",
                node="bench",
                created_at=now,
                updated_at=now,
            )
        )
    metrics = MetricsRow(
        id=new_id(now),
        request_id=request.request_id,
        provider="openai",
        model="gpt",
        input_tokens=20,
        output_tokens=60,
        total_tokens=80,
        usage_source=UsageSource.PROVIDER,
        total_duration=9,
        chunks_received=64,
        success=True,
        created_at=now,
    )
    return rows, metrics


async def one(store: SqliteStore, written: tuple[list[LogRow], MetricsRow]) -> float:
    """Write one request as the engine does; the seconds that it was waited for."""
    (accepted, streaming, ended), metrics = written
    began = time.perf_counter()
    await store.accept(accepted)
    waited = time.perf_counter() - began
    store.update(streaming)
    began = time.perf_counter()
    await store.finish(ended, [metrics], [])
    return waited + time.perf_counter() - began


async def grouped(path: Path, requests: int, concurrency: int) -> dict[str, float]:
    store = SqliteStore(path, node="bench", clock=wall_clock, durability=Durability.NORMAL)
    await store.open()
    todo = [rows_of_a_request() for _ in range(requests)]
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()

    async def work() -> None:
        while todo:
            await one(store, todo.pop())

    await asyncio.gather(*(work() for _ in range(concurrency)))
    elapsed = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    lone = statistics.median([await one(store, rows_of_a_request()) for _ in range(300)])
    await store.close()
    return {"requests_per_second": requests / elapsed, "cpu_us_per_request": cpu / requests * 1e6, "lone_ms": lone * 1e3}


async def naive(path: Path, requests: int, concurrency: int) -> dict[str, float]:
    store = SqliteStore(path, node="bench", clock=wall_clock)
    await store.open()
    await store.close()
    insert = f"INSERT INTO provider_logs ({', '.join(LOGS.names())}) VALUES ({', '.join('?' * len(LOGS.names()))})"
    update = f"UPDATE provider_logs SET {', '.join(f'{name} = ?' for name in LOGS.names())} WHERE request_id = ?"
    measure = f"INSERT INTO provider_metrics ({', '.join(METRICS.names())}) VALUES ({', '.join('?' * len(METRICS.names()))})"
    db = await aiosqlite.connect(path, isolation_level=None)
    await db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON")

    async def one_naively() -> float:
        (accepted, streaming, ended), metrics = rows_of_a_request()
        began = time.perf_counter()
        await db.execute(insert, LOGS.encode(accepted))
        await db.execute(update, [*LOGS.encode(streaming), accepted.request_id])
        await db.execute(update, [*LOGS.encode(ended), accepted.request_id])
        await db.execute(measure, METRICS.encode(metrics))
        return time.perf_counter() - began

    left = [requests]

    async def work() -> None:
        while left[0] > 0:
            left[0] -= 1
            await one_naively()

    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    elapsed = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    lone = statistics.median([await one_naively() for _ in range(300)])
    await db.close()
    return {"requests_per_second": requests / elapsed, "cpu_us_per_request": cpu / requests * 1e6, "lone_ms": lone * 1e3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one object instead of a table")
    options = parser.parse_args()
    results: dict[str, list[dict[str, float]]] = {"group commit": [], "naive": []}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            results["group commit"].append(run(grouped(Path(folder, "grouped.db"), options.requests, options.concurrency)))
            results["naive"].append(run(naive(Path(folder, "naive.db"), max(500, options.requests // 20), options.concurrency)))
    medians = {name: {key: statistics.median(r[key] for r in rounds) for key in rounds[0]} for name, rounds in results.items()}
    if options.json:
        print(json.dumps(medians))
        return
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.machine()}, {options.rounds} rounds, medians")
    print(f"{'':14}{'requests/s':>12}{'CPU µs/request':>16}{'lone request ms':>17}")
    for name, row in medians.items():
        print(f"{name:14}{row['requests_per_second']:12.0f}{row['cpu_us_per_request']:16.0f}{row['lone_ms']:17.2f}")
    print(f"{'ratio':14}{medians['group commit']['requests_per_second'] / medians['naive']['requests_per_second']:12.1f}")


if __name__ == "__main__":
    main()
