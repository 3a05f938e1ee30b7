"""The client of one measurement, as a process of its own: `python bench/load.py PLAN`. Plan and result are JSON; see Plan and Result.

Before and after what it measures it reads the processor time of the system's processes, the provider's and its own.
"""

import asyncio
import dataclasses
import json
import os
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from load_grpc import GrpcClient, MultiplexedClient, connect
from load_http import HttpClient
from measure import cpu_seconds, resident_bytes
from meter import Answer, Meter, percentile

from headrace_server.program import run

CONNECTIONS = 4
"""Connections of gRPC that all streams share: four callers."""
PATIENCE = 20.0
"""Seconds that answers under way get to end after what is measured is over."""

SILENT = "bench-n2-d25000"

Client: TypeAlias = GrpcClient | MultiplexedClient | HttpClient


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to ask, and how."""

    kind: Literal["closed", "lone", "held"]
    """closed: so many streams, each asking again as soon as it was answered, for `seconds` after all have begun and then `ramp` seconds.
    lone: one request after the other, `requests` of them. held: so many streams are opened, each silent after its first chunk; what is
    measured is until all have it, `seconds` at most, and the memory that they take."""
    speaks: Literal["grpc", "multiplexed", "http"]
    host: str
    port: int
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    provider: str = ""
    """Name of the provider to ask for, by gRPC."""
    model: str
    streams: int = 1
    requests: int = 0
    messages: int = 1
    """How long the conversation is, by gRPC."""
    silent: int = 0
    """So many more streams are open meanwhile, by gRPC, each silent after its first chunk."""
    ramp: float = 0.5
    seconds: float = 2.0
    watched: dict[str, int]
    """Whose processor time is read: by name, the process at the root. `system`'s memory is read as well."""


@dataclass(kw_only=True)
class Result:
    """What was seen. Seconds of processor time are within `seconds`."""

    seconds: float
    requests: int
    chunks: int
    begun: int
    unfinished: int
    """Requests that had not ended `PATIENCE` seconds later."""
    broken: int
    why: str
    """Of the first broken answer."""
    cpu: dict[str, float]
    first_token_ms: dict[str, float]
    """Percentiles, of all requests; empty where none had a token."""
    lateness_ms: dict[str, float]
    resident: dict[str, int]
    """Bytes: `before` and `after` what is measured."""


async def main(plan: Plan) -> Result:
    """Carry a plan out."""
    meter = Meter(plan.model)
    watch = _Watch(plan.watched, meter)
    async with AsyncExitStack() as clients:
        client = await _client(plan)
        clients.push_async_callback(client.close)
        if plan.silent:
            silent = GrpcClient(await connect(plan.host, plan.port, CONNECTIONS), plan.provider, SILENT)
            clients.push_async_callback(silent.close)
            await _open(silent, Meter(SILENT), plan.silent, PATIENCE)
        work = {"closed": _closed, "lone": _lone, "held": _held}[plan.kind]
        unfinished = await work(plan, client, meter, watch)
    return Result(
        seconds=watch.seconds,
        requests=meter.requests,
        chunks=meter.chunks,
        begun=meter.begun,
        unfinished=unfinished,
        broken=len(meter.broken),
        why=meter.broken[0] if meter.broken else "",
        cpu=watch.cpu,
        first_token_ms=_percentiles(meter.first_tokens),
        lateness_ms=_percentiles(meter.lateness),
        resident=watch.resident,
    )


async def _client(plan: Plan) -> Client:
    if plan.speaks == "http":
        return HttpClient(plan.host, plan.port, plan.path, plan.headers, plan.model)
    connections = await connect(plan.host, plan.port, min(CONNECTIONS, plan.streams))
    if plan.speaks == "multiplexed":
        return MultiplexedClient(connections, plan.provider, plan.model)
    return GrpcClient(connections, plan.provider, plan.model, plan.messages)


def _percentiles(nanoseconds: list[int]) -> dict[str, float]:
    return {f"p{p}": percentile(nanoseconds, p) / 1e6 for p in (50, 99)} if nanoseconds else {}


class _Watch:
    """Reads clocks and memory at the begin and at the end of what is measured."""

    def __init__(self, watched: dict[str, int], meter: Meter) -> None:
        self._watched = {**watched, "client": os.getpid()}
        self._meter = meter
        self.seconds = 0.0
        self.cpu: dict[str, float] = {}
        self.resident: dict[str, int] = {}

    def begin(self) -> None:
        self._look("before")
        self._began, self._cpu = time.monotonic(), self._read()
        self._meter.counting = True

    def end(self) -> None:
        self._meter.counting = False
        self.seconds = time.monotonic() - self._began
        self.cpu = {name: now - self._cpu[name] for name, now in self._read().items()}
        self._look("after")

    def _read(self) -> dict[str, float]:
        return {name: cpu_seconds(pid) for name, pid in self._watched.items()}

    def _look(self, when: str) -> None:
        if "system" in self._watched:
            self.resident[when] = resident_bytes(self._watched["system"])


async def _closed(plan: Plan, client: Client, meter: Meter, watch: _Watch) -> int:
    over = asyncio.Event()

    async def ask_again_and_again(number: int) -> None:
        # Begun one after the other, so that paced streams do not send all at the same moment.
        await asyncio.sleep(number * plan.ramp / plan.streams)
        while not over.is_set():
            answer = await client.begin(meter)
            await answer.done
            if len(meter.broken) > 1000:
                return

    tasks = [asyncio.create_task(ask_again_and_again(number)) for number in range(plan.streams)]
    await asyncio.sleep(plan.ramp * 1.25)
    watch.begin()
    await asyncio.sleep(plan.seconds)
    watch.end()
    over.set()
    _, unfinished = await asyncio.wait(tasks, timeout=PATIENCE)
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome
    return len(unfinished)


async def _lone(plan: Plan, client: Client, meter: Meter, watch: _Watch) -> int:
    for _ in range(plan.requests // 10):
        await (await client.begin(meter)).done
    meter.first_tokens.clear()
    watch.begin()
    for _ in range(plan.requests):
        await (await client.begin(meter)).done
    watch.end()
    return 0


async def _held(plan: Plan, client: Client, meter: Meter, watch: _Watch) -> int:
    watch.begin()
    answers = await _open(client, meter, plan.streams, plan.seconds)
    watch.end()
    # They end by themselves: not every gateway survives two hundred callers that leave at once.
    _, unfinished = await asyncio.wait([answer.done for answer in answers], timeout=PATIENCE)
    return len(unfinished)


async def _open(client: Client, meter: Meter, number: int, seconds: float) -> list[Answer]:
    """Begin so many answers and wait until each has its first chunk, for so many seconds at most."""
    answers = [await client.begin(meter) for _ in range(number)]
    deadline = time.monotonic() + seconds
    while len(meter.first_tokens) < number and time.monotonic() < deadline:  # noqa: ASYNC110 - cheaper than an event for each
        await asyncio.sleep(0.05)
    return answers


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(run(main(Plan(**json.loads(sys.argv[1])))))))
