"""Whether memory stays flat: requests without end, with cancels and faults among them: `make soak REQUESTS=N`, or

    python bench/soak.py [--requests 200000] [--streams 32] [--out bench/results]

Of twenty requests sixteen are answered, two are cancelled after their first chunk, one breaks off and one is refused by the provider.
Every outcome is looked at; at the end every request must be on record with its end, and `headrace db check` must find nothing. Memory is
judged from the second quarter to the last: before, what is kept for `replay_window` is still filling up.
"""

import argparse
import asyncio
import itertools
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import chart
from http2 import Connection
from load_grpc import PATH, command, connect
from measure import cpu_seconds, resident_bytes
from processes import Running, cores, running
from report import machine
from systems import HERE, Around, start_headrace

from headrace.v1 import request_pb2
from headrace.v1.generation_service_pb2 import StreamGenerateResponse
from headrace_server.program import run

KINDS = [
    ("answered", "bench-n8-d0", 16),
    ("cancelled", "bench-n64-d20", 2),
    ("cut", "bench-n8-d0-cut", 1),
    ("refused", "bench-n8-d0-e503", 1),
]
SAMPLES = 100
FLAT = 0.05
"""How far memory may move from the second quarter to the last, as a share."""
REPLAY_WINDOW = 60.0
"""Seconds for which the chunks of an ended generation stay in memory, by default."""


@dataclass
class Soak:
    """What has happened so far."""

    done: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    """Outcomes that should not be."""
    memory: list[tuple[float, int, int]] = field(default_factory=list)
    """Seconds since the begin, requests done, bytes resident."""


async def one(connection: Connection, kind: str, message: bytes, soak: Soak) -> None:
    """Send one request and look at its outcome."""
    ended: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
    seen: Counter[str] = Counter()

    def take(raw: bytes) -> None:
        seen.update(event.WhichOneof("event") or "" for event in StreamGenerateResponse.FromString(raw).events)
        if kind == "cancelled" and seen["chunk"] and not ended.done():
            connection.cancel(stream)
            ended.set_result(None)

    stream = connection.open(PATH, take, ended.set_result)
    connection.send(stream, message, last=True)
    why = await ended
    expected = {"answered": "completed", "cancelled": "chunk"}.get(kind, "failed")
    soak.done[kind] += 1
    if why is not None or not seen[expected]:
        soak.wrong[f"{kind}: {why or dict(seen)}"] += 1


async def soaked(process: Running, requests: int, streams: int) -> Soak:
    """Send them all, and look at the memory now and then."""
    once, nobody_else = request_pb2.RetryConfig(max_attempts=1), request_pb2.FallbackConfig(enabled=False)
    mix = [(kind, command("bench", model, retry=once, fallback=nobody_else)) for kind, model, share in KINDS for _ in range(share)]
    connections = await connect(process.host, process.port, 4)
    soak, began = Soak(), time.monotonic()
    turns = iter(range(requests))

    def look() -> None:
        done = soak.done.total()
        soak.memory.append((time.monotonic() - began, done, resident_bytes(process.pid)))
        if len(soak.memory) % (SAMPLES // 10) == 1:
            print(f"{done:9,} requests, {soak.memory[-1][2] / 1e6:.1f} MB, {soak.memory[-1][0]:.0f} s", flush=True)

    async def work() -> None:
        for turn in turns:
            kind, message = mix[turn * 7 % len(mix)]
            await one(connections[turn % len(connections)], kind, message, soak)
            if soak.done.total() % max(1, requests // SAMPLES) == 0:
                look()

    look()
    await asyncio.gather(*(work() for _ in range(streams)))
    for connection in connections:
        connection.close()
    return soak


def drift(soak: Soak) -> float | None:
    """How much more memory there is in the last quarter than in the second, as a share; None where the run was too short to tell."""
    quarters = [list(group) for _, group in itertools.groupby(soak.memory, lambda look: min(3, look[1] * 4 // soak.memory[-1][1]))]
    if len(quarters) < 4 or quarters[1][0][0] < REPLAY_WINDOW:
        return None
    second, last = (statistics.median(memory for _, _, memory in quarters[number]) for number in (1, 3))
    return last / second - 1


def on_record(database: Path) -> dict[str, int]:
    """How many requests are in which state."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        return dict(db.execute("SELECT state, count(*) FROM provider_logs GROUP BY state"))


def judge(soak: Soak, states: dict[str, int], findings: str, checked: bool) -> list[str]:
    """What is not as it should be, one line each."""
    wrong = [f"{number} × {what}" for what, number in soak.wrong.items()]
    if set(states) - {"completed", "failed"} or sum(states.values()) != soak.done.total():
        wrong.append(f"{soak.done.total()} requests were sent; on record are {states}")
    if not checked:
        wrong.append(f"headrace db check: {findings}")
    moved = drift(soak)
    if moved is not None and abs(moved) > FLAT:
        wrong.append(f"memory moved by {moved:+.1%} from the second quarter to the last")
    return wrong


def main() -> None:
    """Start, soak, end, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    on = cores()
    os.sched_setaffinity(0, {on.others})
    with tempfile.TemporaryDirectory(prefix="headrace-soak-") as name:
        folder = Path(name)
        with (
            running([sys.executable, str(HERE / "provider.py")], core=on.others, folder=folder) as provider,
            start_headrace(Around(provider=provider, folder=folder, core=on.system)) as process,
        ):
            soak = run(soaked(process, options.requests, options.streams))
            cpu = cpu_seconds(process.pid)
        database = folder / "headrace.db"
        check = [sys.executable, "-m", "headrace_server", "db", "check", "--database", f"sqlite:///{database}"]
        checked = subprocess.run(check, capture_output=True, text=True, check=False)
        size = database.stat().st_size
        wrong = judge(soak, on_record(database), checked.stdout.strip(), checked.returncode == 0)
    seconds, done, memory = soak.memory[-1]
    moved = drift(soak)
    verdict = "too short to tell" if moved is None else f"{moved:+.1%}, {'met' if abs(moved) <= FLAT else 'NOT MET'}"
    lines = [
        f"{machine()}\n",
        f"{done:,} requests in {seconds:.0f} s ({', '.join(f'{number:,} {kind}' for kind, number in soak.done.items())});",
        f"{cpu / done * 1e6:.0f} µs of processor time each, {size / done:,.0f} bytes of database each.",
        f"Memory {soak.memory[0][2] / 1e6:.1f} MB at first, {memory / 1e6:.1f} MB at last;"
        f" from the second quarter to the last (± {FLAT:.0%}): {verdict}.",
        *(f"- WRONG: {line}" for line in wrong),
    ]
    print("\n".join(lines))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "soak.md").write_text("\n".join(["# Soak\n", *lines, ""]), encoding="utf-8")
    curve = {"resident": [(done, memory / 1e6) for _, done, memory in soak.memory]}
    picture = chart.lines([chart.Lines("memory", "requests", "MB", curve, log=False)])
    (options.out / "soak.svg").write_text(picture, encoding="utf-8")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
