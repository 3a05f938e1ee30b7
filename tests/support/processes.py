"""Rows of the fault matrix in which the service is a process of its own, which is killed or told to stop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format

from crash.nursery import Nursery
from headrace.v1 import provider_service_pb2, request_pb2, request_service_pb2
from headrace.v1.generation_service_pb2_grpc import GenerationServiceStub
from headrace.v1.provider_service_pb2_grpc import ProviderServiceStub
from headrace.v1.request_service_pb2_grpc import RequestServiceStub
from headrace_server.domain.identity import new_id
from headrace_server.domain.lifecycle import State
from headrace_server.domain.record import LogRow
from headrace_server.fake_provider import FakeProvider, Script, load_ready, recipe
from headrace_server.store.connection import Readers
from headrace_server.store.rows import LOGS
from headrace_server.store.transaction import SELECT_LOGS
from support.clock import ClockLoop
from support.seen import Seen
from support.service import command

NOON = 1_784_116_820_000
"""Where the wall clock of these processes stands still, in milliseconds, so that no minute passes while limits are looked at."""


@dataclass
class Call:
    """One StreamGenerate, and what was heard of it."""

    request: Any
    call: Any
    events: list[Any] = field(default_factory=list)
    error: grpc.aio.AioRpcError | None = None

    def __post_init__(self) -> None:
        self._responses = aiter(self.call)

    async def until_chunk(self) -> None:
        """Read until there is something of the answer."""
        while not any(event.HasField("chunk") for event in self.events):
            self.events += (await anext(self._responses)).events

    async def to_the_end(self) -> None:
        """Read all that comes."""
        try:
            async for response in self._responses:
                self.events += response.events
        except grpc.aio.AioRpcError as error:
            self.error = error


@dataclass
class Processes:
    """A script's providers, which outlive every process, and one process at a time in front of them."""

    name: str
    script: Script
    provider: FakeProvider
    nursery: Nursery
    folder: Path
    settings: dict[str, Any]
    clock: ClockLoop

    @property
    def database(self) -> Path:
        return self.folder / "headrace.db"

    @contextlib.asynccontextmanager
    async def process(self, failpoint: str | None = None) -> AsyncIterator[grpc.aio.Channel]:
        """`headrace serve`, and a connection to it. At a failpoint (see crash/failpoints.py) it dies; leaving kills it."""
        config = self.folder / "headrace.toml"
        own = {"listen": "127.0.0.1:0", "database": f"sqlite:///{self.database}", "log_level": "error", **self.settings}
        config.write_text(recipe.to_toml(recipe.configuration(self.script, self.provider.api_urls()) | own))
        point = ["--failpoint", failpoint] if failpoint else []
        address = await self.nursery.start("--config", str(config), "--clock", str(NOON), *point)
        try:
            async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                yield channel
        finally:
            await self.nursery.stop()

    async def until_streaming(self, call: Call) -> None:
        """Until the caller has something of the answer, and that is on record."""
        await call.until_chunk()
        while (await self._row(call.request.request_id)).state is not State.STREAMING:
            await asyncio.sleep(0.005)

    def begin(self, channel: grpc.aio.Channel, request: Any = None) -> Call:
        """Start the script's request, or the same one again."""
        if request is None:
            told = {"request_id": new_id(NOON), **recipe.request(self.script)}
            request = json_format.ParseDict(told, request_pb2.GenerateRequest())
        stub: Any = GenerationServiceStub(channel)
        return Call(request, stub.StreamGenerate(iter([command(request)])))

    async def used(self, channel: grpc.aio.Channel) -> tuple[int, int]:
        """Requests and tokens that count against the provider's limits, in use or reserved."""
        stub: Any = ProviderServiceStub(channel)
        listed = (await stub.ListQuotas(provider_service_pb2.ListQuotasRequest(provider="p"))).quotas
        counted = {quota.limit_type: quota.used + quota.reserved for quota in listed}
        kinds = provider_service_pb2.LIMIT_TYPE_REQUESTS_PER_DAY, provider_service_pb2.LIMIT_TYPE_TOKENS_PER_MINUTE
        requests, tokens = (counted.get(kind, 0) for kind in kinds)
        return requests, tokens

    async def seen(self, channel: grpc.aio.Channel, ended: Call) -> Seen:
        """What a request has led to, as the process at hand has it on record."""
        stub: Any = RequestServiceStub(channel)
        asked = request_service_pb2.GetRequestRequest(request_id=ended.request.request_id)
        record = (await stub.GetRequest(asked)).request
        last = ended.events[-1] if ended.events else None
        result = last.completed if last is not None and last.WhichOneof("event") == "completed" else None
        calls = {name: self.provider.requests_of(name) for name in self.script.providers}
        row = await self._row(ended.request.request_id)
        return Seen(self.name, self.script.about, ended.error, ended.events, result, record, row, calls).check()

    async def _row(self, request_id: str) -> LogRow:
        readers = Readers()
        await readers.open(self.database, 1)
        try:
            (row,) = await readers.fetch(f"{SELECT_LOGS} WHERE request_id = ?", (request_id,))
        finally:
            await readers.close()
        return LOGS.decode(row)


@contextlib.asynccontextmanager
async def processes(script: str, nursery: Nursery, folder: Path, **settings: Any) -> AsyncIterator[Processes]:
    """Play a ready script's providers; `settings` are further ones of the service."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ClockLoop)
    folder.mkdir(parents=True)
    loaded = load_ready(script)
    async with FakeProvider(loaded) as provider:
        yield Processes(script, loaded, provider, nursery, folder, settings, loop)
