"""`headrace serve` told to stop while many streams run: what can end in the drain time ends, what cannot is told, and all is on record."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from headrace.v1.generation_service_pb2_grpc import GenerationServiceStub
from headrace_server.fake_provider import FakeProvider, Fate
from support.service import command, details, kinds, request, text_of

STREAMS = 50
DRAIN = 3.0
"""Seconds of the drain time."""
LITTLE = 4.0
"""Seconds that the end may take beyond the drain time, on a busy machine: writing down, last words, closing."""
SHORT, LONG = "n40-d20", "n1000-d20"
"""Models of the fake provider: 40 tokens end within the drain time, 1,000 do not."""


@dataclass
class Stream:
    """One stream with one generation, as its caller saw it."""

    model: str
    events: list[Any] = field(default_factory=list)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    status: grpc.StatusCode | None = None

    async def run(self, stub: Any) -> None:
        wanted = request(model=self.model)
        try:
            async for response in stub.StreamGenerate(iter([command(wanted)])):
                self.events += response.events
                if text_of(self.events):
                    self.began.set()
            self.status = grpc.StatusCode.OK
        except grpc.RpcError as error:
            self.status = error.code()
        finally:
            self.began.set()

    @property
    def request_id(self) -> str:
        return self.events[0].request_id

    @property
    def whole(self) -> str:
        """The answer that the provider had for it."""
        return "".join(f" tok{i}" for i in range(int(self.model[1:].partition("-")[0])))


@contextlib.asynccontextmanager
async def serving(tmp_path: Path, provider: FakeProvider) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """`headrace serve` as a process, with its address."""
    config = tmp_path / "headrace.toml"
    config.write_text(
        f'listen = "127.0.0.1:0"\ndatabase = "sqlite:///{tmp_path}/headrace.db"\ndrain_timeout = {DRAIN}\n'
        f'[providers.fake]\ndialect = "openai"\napi_url = "{provider.api_url("openai")}"\ndefault_model = "echo"\n'
    )
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "OTEL_"))}
    arguments = ["-m", "headrace_server", "serve", "--config", str(config)]
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=log, env=plain)
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        assert line.startswith("headrace listening on "), (tmp_path / "log").read_text()
        yield process, line.split()[-1]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def rows(tmp_path: Path) -> dict[str, tuple[str, str | None, str]]:
    """State, error code and text of every request."""
    with closing(sqlite3.connect(tmp_path / "headrace.db")) as db:
        found = db.execute("SELECT request_id, state, error_code, response_data FROM provider_logs").fetchall()
    texts = {row[0]: "".join(part["text"] for part in json.loads(row[3] or "{}").get("content", ())) for row in found}
    return {request_id: (state, code, texts[request_id]) for request_id, state, code, _ in found}


@pytest.mark.parametrize("signals", [1, 2], ids=["one SIGTERM", "a second SIGTERM"])
async def test_no_stream_loses_what_it_had_when_told_to_stop(tmp_path: Path, signals: int) -> None:
    streams = [Stream(LONG if number % 2 else SHORT) for number in range(STREAMS)]
    async with FakeProvider() as provider, serving(tmp_path, provider) as (process, address):
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = GenerationServiceStub(channel)
            running = [asyncio.create_task(stream.run(stub)) for stream in streams]
            await asyncio.gather(*(stream.began.wait() for stream in streams))
            process.send_signal(signal.SIGTERM)
            told_to_stop = time.monotonic()
            if signals == 2:
                await asyncio.sleep(0.2)
                process.send_signal(signal.SIGTERM)
            await asyncio.gather(*running)
            status = await process.wait()
            took = time.monotonic() - told_to_stop
        fates = [call.fate for call in provider.requests]

    assert status == 0, (tmp_path / "log").read_text()
    assert took < LITTLE + (DRAIN if signals == 1 else 0)
    stands = rows(tmp_path)
    assert len(stands) == STREAMS
    for stream in streams:
        *before, last = stream.events
        text = text_of(before)
        assert kinds(before).count("completed") + kinds(before).count("failed") == 0
        if last.WhichOneof("event") == "completed":
            assert stream.status is grpc.StatusCode.OK
            assert text == stream.whole
            assert stands[stream.request_id] == ("completed", None, text)
        else:
            assert stream.status is grpc.StatusCode.UNAVAILABLE
            assert last.failed.subreason == "SHUTTING_DOWN"
            assert stream.whole.startswith(text)
            assert "".join(part.text for part in last.failed.partial.content) == text
            assert stands[stream.request_id] == ("failed", "interrupted", text)
    ended_well = [stream.model for stream in streams if stream.status is grpc.StatusCode.OK]
    assert LONG not in ended_well
    if signals == 1:
        assert ended_well == [SHORT] * (STREAMS // 2)
        assert fates.count(Fate.ANSWERED) == fates.count(Fate.CALLER_LEFT) == STREAMS // 2


async def test_new_work_is_refused_while_streams_drain(tmp_path: Path) -> None:
    running = Stream(SHORT)
    async with FakeProvider() as provider, serving(tmp_path, provider) as (process, address):
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = GenerationServiceStub(channel)
            task = asyncio.create_task(running.run(stub))
            await running.began.wait()
            process.send_signal(signal.SIGTERM)
            refused = await until_refused(stub)
            await task
        assert await process.wait() == 0
        calls = len(provider.requests)

    assert refused.code() is grpc.StatusCode.UNAVAILABLE
    assert details(refused)["ProviderError"].subreason == "SHUTTING_DOWN"
    assert running.status is grpc.StatusCode.OK
    stands = rows(tmp_path)
    assert calls == len(stands)
    assert {state for state, _, _ in stands.values()} == {"completed"}


async def until_refused(stub: Any) -> grpc.RpcError:
    """Ask until the signal has arrived."""
    while True:
        try:
            await stub.Generate(request(model="echo"))
        except grpc.RpcError as error:
            return error
