"""What looking after the store costs those who write: how long requests take while it is pruned, copied and checked.

    python bench/upkeep.py [--requests 20000] [--rate 200] [--seconds 5]

A store is filled with old requests; then new ones come at a steady rate, first alone, then beside each kind of upkeep. Told is how long a
request waits for its acceptance and for its end, in milliseconds.
"""

import argparse
import asyncio
import os
import platform
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

from journal import rows_of_a_request

from headrace_server.app import wall_clock
from headrace_server.store.retention import Retention, prune
from headrace_server.store.sqlite import SqliteStore

YEAR = 366 * 24 * 3_600_000


async def one(store: SqliteStore, waits: list[float]) -> None:
    """One request: each wait for a commit is noted, in milliseconds."""
    (first, going, ended), metrics = rows_of_a_request()
    began = time.perf_counter()
    await store.accept(first)
    waits.append((time.perf_counter() - began) * 1000)
    store.update(going)
    began = time.perf_counter()
    await store.finish(ended, [metrics], [])
    waits.append((time.perf_counter() - began) * 1000)


async def fill(store: SqliteStore, path: Path, number: int) -> None:
    """Requests that ended a year ago."""
    for _ in range(0, number, 500):
        await asyncio.gather(*(one(store, []) for _ in range(500)))

    await asyncio.to_thread(grow_old, path)


def grow_old(path: Path) -> None:
    """All that is there happened a year earlier."""
    with closing(sqlite3.connect(path, timeout=60)) as db, db:
        db.execute("UPDATE provider_logs SET created_at = created_at - ?, end_time = end_time - ?", (YEAR, YEAR))
        db.execute("UPDATE provider_metrics SET created_at = created_at - ?", (YEAR,))


async def command(name: str, path: Path, *arguments: str, **environment: str) -> None:
    """Run `headrace db NAME` on the database, as a process of its own."""
    line = [sys.executable, "-m", "headrace_server", "db", name, *arguments, "--database", f"sqlite:///{path}"]
    process = await asyncio.create_subprocess_exec(*line, env=os.environ | environment, stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0


async def steady(store: SqliteStore, rate: int, go_on: Callable[[], bool]) -> list[float]:
    """Requests at a steady rate."""
    waits: list[float] = []
    running = set()
    due = time.perf_counter()
    while go_on():
        task = asyncio.create_task(one(store, waits))
        running.add(task)
        task.add_done_callback(running.discard)
        due += 1 / rate
        await asyncio.sleep(max(0, due - time.perf_counter()))
    await asyncio.gather(*running)
    return waits


def tell(what: str, waits: list[float], seconds: float) -> None:
    """One line of the table."""
    ordered = sorted(waits)
    p50, p99 = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
    print(f"| {what:32} | {seconds:6.1f} | {len(waits):6,} | {p50:6.1f} | {p99:6.1f} | {ordered[-1]:6.1f} |", flush=True)


async def measure(requests: int, rate: int, seconds: float) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "headrace.db"
        store = SqliteStore(path, node="bench", clock=wall_clock)
        await store.open()
        await fill(store, path, requests)
        print(
            f"{requests:,} old requests, {path.stat().st_size / 1e6:.0f} MB; {rate} new ones a second; Python {platform.python_version()}"
        )
        print("\n| beside | s | waits | p50 ms | p99 ms | most ms |\n| --- | --- | --- | --- | --- | --- |")
        until = time.monotonic() + seconds
        tell("nothing", await steady(store, rate, lambda: time.monotonic() < until), seconds)
        upkeep: dict[str, Callable[[], Awaitable[object]]] = {
            "db check": lambda: command("check", path),
            "db backup": lambda: command("backup", path, str(Path(folder) / "copy.db")),
            "db prune": lambda: command("prune", path, HEADRACE_RETENTION_REQUESTS=str(YEAR // 2000)),
        }
        for name, work in upkeep.items():
            began = time.monotonic()
            task = asyncio.ensure_future(work())
            waits = await steady(store, rate, lambda task=task: not task.done())
            tell(name, waits, time.monotonic() - began)
            await task
        await asyncio.to_thread(grow_old, path)
        began = time.monotonic()
        task = asyncio.create_task(prune(store, Retention(requests=YEAR // 2), wall_clock))
        tell("pruning by the service itself", await steady(store, rate, lambda: not task.done()), time.monotonic() - began)
        print(f"\nthe last one deleted {task.result().requests:,} requests")
        await store.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5)
    wanted = parser.parse_args()
    asyncio.run(measure(wanted.requests, wanted.rate, wanted.seconds))
