"""The fault matrix: every row is a test over real sockets, `test_F02` and so on, in tests/faults.

To add a row:

1. Write its script, server/headrace_server/fake_provider/scripts/F30.yaml (F30a.yaml, F30b.yaml … where the row has variants). The
   format stands in the docstring of headrace_server.fake_provider. `p` is asked first, `f` stands in for it. `about` is the fault in
   one line. Whatever differs from the base policy (settings of a provider or of the service, fields of the request) stands in the
   script too, so that `headrace fake-provider --script F30` lets anybody see the same.
2. Write its test. `row` plays a script on the store at hand, lets waits pass at once, and holds the caller's view, the record and the calls
   against one another; what the row promises is asserted by the test:

       async def test_F30(row: Row) -> None:
           seen = await row.play("F30")
           seen.fails(StatusCode.UNAVAILABLE, "SERVER_ERROR", "OVERLOADED")
           assert seen.partial_text == "one two three"
           assert seen.calls == {"p": 1, "f": 0}

   `seen.answers(by="f")` is the other way to end. `seen.waits((0.8, 1.2))` says how long each wait of the record was, in seconds; a row
   that says nothing of waits must have none. `row.play("F12", "no fallback", request=NO_FALLBACK)` plays a script again with other
   fields of the request, `rpc="Generate"` by the other RPC; the second argument tells the two apart in the document. All that can be
   asked of what was seen stands in support/seen.py.
3. A row in which somebody does more than ask (cancels, stops reading, moves the clock on) opens the stage itself:

       async with row.stage("F34") as stage:
           call, request = stage.begin()                     # StreamGenerate, with the request of the script
           async for event in stage.events(call): ...        # lets waits pass; stage.clock.advance(30) moves the clock on
           row.add(await stage.seen(request, events, error))

   `stage.ask()` is both in one. A row without any request to see writes its line by `row.tell(script, fault, caller, record, calls)`.
4. Take its id out of PENDING, and run `HEADRACE_WRITE_FAULTS=1 pytest tests/faults -k F30`: it writes the row into docs/faults.md. From
   then on the test also compares what it saw with that line. Nothing that differs from run to run may stand there: where a detail does
   (a `RetryInfo` that is what remains of something), assert it and give it words: `seen.words["RetryInfo"] = "what remains of …"`.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format

from headrace.v1 import request_pb2, request_service_pb2
from headrace.v1.generation_service_pb2_grpc import GenerationServiceStub
from headrace_server.app import running
from headrace_server.config import Settings
from headrace_server.fake_provider import FakeProvider, Script, load_ready, recipe
from support.clock import ClockLoop
from support.fault_document import cells
from support.seen import Seen
from support.service import Service, command

ROWS: Mapping[str, str] = {
    "F01": "P answers 500 once, then well",
    "F02": "P answers 500 three times, F answers",
    "F03": "P answers 500 three times, F answers 500",
    "F04": "P answers 529 without retry-after, then well",
    "F05": "P answers 429 with retry-after: 2, then well",
    "F06": "P answers 429 with retry-after: 120, more than is ever waited for; F answers",
    "F07": "the same without a fallback",
    "F08": "retry-after-ms: 250 beside retry-after: 9",
    "F09": "a retry-after that is no delay",
    "F10": "x-should-retry: false on a 500",
    "F11": "Gemini's 429 by a limit per minute, with a retryDelay",
    "F12": "Gemini's 429 by a limit per day, with a retryDelay",
    "F13": "errors that mean money or a quota, whatever their status",
    "F14": "a request larger than the provider's limit",
    "F15": "keys that the provider refuses, or that cannot be sent",
    "F16": "a model that the provider does not know",
    "F17": "a request that the provider finds wrong",
    "F18": "a prompt longer than the model's context",
    "F19": "a prompt that the provider blocks",
    "F20": "errors without a body in the dialect's form: a page of HTML, nothing, broken JSON, [] and null",
    "F21": "a whole answer of status 200 that is none",
    "F22": "a redirect to another host",
    "F23": "a status or type of error that nobody knows",
    "F24": "a name that cannot be resolved, a port that refuses, an address that never answers",
    "F25": "a TLS certificate that nobody signed",
    "F26": "an idle connection that the provider closed",
    "F27": "headers that never come",
    "F28": "a reset after the headers, before the first delta",
    "F29": "Claude's error event before the first delta",
    "F30": "Claude is overloaded after three deltas",
    "F31": "OpenAI's error after deltas, then [DONE]",
    "F32": "Gemini's 503 chunk after text",
    "F33": "an answer that ends without its end: closed, cut, reset",
    "F34": "silence after two deltas",
    "F35": "pings or comments and nothing else",
    "F36": "one byte a second",
    "F37": "an event of broken JSON, before and after the first delta",
    "F38": "unknown types of events, new fields, other orders",
    "F39": "every form of server-sent events, split at every byte",
    "F40": "one event of 30 MB, a header of 200 KB",
    "F41": "a compressed answer that nobody asked for",
    "F42": "usage that is missing, negative, falling, or huge",
    "F43": "two ends, and data after [DONE]",
    "F44": "an empty stream, and Gemini's STOP without parts",
    "F45": "an answer that is filtered or refused after text",
    "F46": "the limit of tokens without content, and within a call of a tool",
    "F47": "Gemini's MALFORMED_FUNCTION_CALL with nothing delivered",
    "F48": "Claude is overloaded after three deltas, and the request asks for a restart",
    "F49": "the caller cancels, before the headers and within the stream",
    "F50": "the caller cancels during a wait",
    "F51": "a deadline of 300 ms and a slow provider",
    "F52": "a deadline shorter than the next wait",
    "F53": "a caller without a deadline",
    "F54": "a caller that reads nothing for 60 s",
    "F55": "a caller whose machine vanishes",
    "F56": "a caller that pings every second",
    "F57": "messages and metadata that are too large",
    "F58": "bytes that are no message",
    "F59": "a service or method that is not there",
    "F60": "fields that are wrong",
    "F61": "more at once than is allowed",
    "F62": "an exception with a secret in the handler",
    "F63": "a cancellation or a timeout that a library raises in the handler",
    "F64": "an error text of 1 MB",
    "F65": "our own limit of requests a minute is used up",
    "F66": "a request larger than our own limit of tokens",
    "F67": "200 requests at once against a limit of 50",
    "F68": "a failure after tokens were reserved",
    "F69": "the daily limit at midnight, on the day of a clock change, in a leap second",
    "F70": "the wall clock jumps by an hour",
    "F71": "the circuit breaker opens",
    "F72": "an open circuit and no fallback",
    "F73": "a half-open circuit and 50 requests at once",
    "F74": "1,000 requests to a provider that always fails",
    "F75": "fallbacks in a circle, unknown, disabled, without a mapped model",
    "F76": "the process is killed before an attempt is on record",
    "F77": "the process is killed after an attempt is on record",
    "F78": "the store is down when a request comes",
    "F79": "the store fails at the end of a request",
    "F80": "the database is busy or full",
    "F81": "the same request id twice",
    "F82": "a cancellation that races with the end",
    "F83": "SIGTERM during a stream that ends in time",
    "F84": "SIGTERM during a stream that does not",
    "F85": "configuration that changes while requests run, and a wrong one",
}
"""The rows of the matrix, with the fault of each."""

WAITING: Mapping[str, str] = {
    "F67": "the half with two replicas waits for replicas",
    "F80": "deadlock, failover and an empty pool wait for PostgreSQL",
}
"""Parts of rows that cannot be shown yet, and what they wait for."""

PENDING: set[str] = set()
"""Rows that have no test yet."""

NO_FALLBACK = {"fallback": {"enabled": False, "providers": []}}


@dataclass
class Stage(Service):
    """The service in front of the providers of a script."""

    script: Script
    name: str
    clock: ClockLoop
    others: dict[str, int] = field(default_factory=dict)
    """How many calls of each provider belong to requests before the one that is looked at."""

    def leave_out_calls(self) -> None:
        """The calls so far belong to other requests than the one that will be looked at."""
        self.others = {name: len(self.provider.requests_of(name)) for name in self.script.providers}

    def request(self, changes: Mapping[str, Any] | None = None) -> Any:
        """The script's request, with these fields in its place, in the JSON form of a GenerateRequest."""
        told = {"request_id": str(uuid.uuid4()), **recipe.request(self.script, changes)}
        return json_format.ParseDict(told, request_pb2.GenerateRequest())

    def begin(self, changes: Mapping[str, Any] | None = None, **options: Any) -> tuple[Any, Any]:
        """Start the request over StreamGenerate: the call and the request. `options` are those of the call, such as `timeout`."""
        request = self.request(changes)
        return self.generation.StreamGenerate(iter([command(request)]), **options), request

    async def events(self, call: Any) -> AsyncIterator[Any]:
        """The events of a stream. What a transition is going to wait passes at once."""
        async for response in call:
            for event in response.events:
                yield event
                if event.WhichOneof("event") == "transition":
                    self._pass(event.transition)

    @contextlib.asynccontextmanager
    async def callers(self, count: int) -> AsyncIterator[list[Any]]:
        """So many callers, each with a connection of its own: one has a hundred RPCs at once at most."""
        address, options = f"127.0.0.1:{self.app.port}", [("grpc.use_local_subchannel_pool", 1)]
        async with contextlib.AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options)) for _ in range(count)]
            yield [GenerationServiceStub(channel) for channel in opened]

    async def ask(self, changes: Mapping[str, Any] | None = None, *, rpc: str | None = None, **options: Any) -> Seen:
        """Ask as the script says, or by this RPC, and wait for the end."""
        if (rpc or self.script.rpc) == "Generate":
            return await self._ask_whole(changes, **options)
        call, request = self.begin(changes, **options)
        events, error = [], None
        try:
            async for event in self.events(call):
                events.append(event)  # noqa: PERF401 - what came before an error counts
        except grpc.aio.AioRpcError as failed:
            error = failed
        return await self.seen(request, events, error)

    async def _ask_whole(self, changes: Mapping[str, Any] | None, **options: Any) -> Seen:
        request = self.request(changes)
        passing = asyncio.create_task(self._let_pass(request.request_id))
        error, result = None, None
        try:
            result = (await self.generation.Generate(request, **options)).result
        except grpc.aio.AioRpcError as failed:
            error = failed
        passing.cancel()
        await asyncio.gather(passing, return_exceptions=True)
        return await self.seen(request, (), error, result)

    async def _let_pass(self, request_id: str) -> None:
        """Watch a request, and let its waits pass."""
        while True:
            try:
                async for response in self.requests.WatchRequest(request_service_pb2.WatchRequestRequest(request_id=request_id)):
                    self._pass(response.transition)
                return
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
                await asyncio.sleep(0.005)

    def _pass(self, transition: Any) -> None:
        if transition.HasField("wait"):
            self.clock.advance(transition.wait.ToNanoseconds() / 1e9)

    async def seen(self, request: Any, events: Sequence[Any], error: grpc.aio.AioRpcError | None, result: Any = None) -> Seen:
        """What a request has led to, once it is over for the service too."""
        if (generation := self.app.engine.running(request.request_id)) is not None:
            await generation.wait()
        row = await self.app.store.get(request.request_id)
        record = None
        if row is not None:
            asked = request_service_pb2.GetRequestRequest(request_id=request.request_id)
            record = (await self.requests.GetRequest(asked)).request
        if events and events[-1].WhichOneof("event") == "completed":
            result = events[-1].completed
        asked = {name: self.provider.requests_of(name)[self.others.get(name, 0) :] for name in self.script.providers}
        return Seen(self.name, self.script.about, error, events, result, record, row, asked).check()


class Row:
    """One row of the matrix on one store: plays scripts, and collects the lines of the document."""

    def __init__(self, row: str, store: str, folder: Path, clock: ClockLoop) -> None:
        self.id = row
        self.clock = clock
        self._store = store
        self._folder = folder
        self._stages = 0
        self._told: list[str | tuple[Seen, str]] = []

    @property
    def database(self) -> Path:
        """The file of the last stage's store, where it has one."""
        return self._folder / f"{self._stages}.db"

    @contextlib.asynccontextmanager
    async def stage(self, script: str, *, first: Mapping[str, Any] | None = None, **settings: Any) -> AsyncIterator[Stage]:
        """The service, its providers, and stubs to it; `settings` are further ones of the service.

        `first` are fields of the script's first provider in place of those it has: addresses that are known only here.
        """
        self._stages += 1
        loaded = load_ready(script)
        if first is not None:
            name, *_ = loaded.providers
            told = loaded.model_dump(mode="json", exclude_unset=True)
            loaded = Script.model_validate({**told, "providers": {**told["providers"], name: {**told["providers"][name], **first}}})
        database = "memory:" if self._store == "memory" else f"sqlite:///{self.database}"
        own = {"listen": "127.0.0.1:0", "database": database, "drain_timeout": 5}
        async with FakeProvider(loaded) as provider:
            configured = recipe.configuration(loaded, provider.api_urls())
            async with (
                running(Settings(**{**configured, **own, **settings})) as app,
                grpc.aio.insecure_channel(f"127.0.0.1:{app.port}") as channel,
            ):
                yield Stage(app, provider, channel, script=loaded, name=script, clock=self.clock)

    async def play(
        self, script: str, case: str = "", *, request: Mapping[str, Any] | None = None, rpc: str | None = None, **settings: Any
    ) -> Seen:
        """Ask as the script says, with these fields of the request changed, and put what was seen into the document."""
        async with self.stage(script, **settings) as stage:
            seen = await stage.ask(request, rpc=rpc)
        self.add(seen, case)
        return seen

    def add(self, seen: Seen, case: str = "") -> None:
        """Put what was seen into the document; `case` tells it from other lines of the same script."""
        self._told.append((seen, case))

    def tell(self, script: str, fault: str, caller: str, record: str, calls: str) -> None:
        """Put a line into the document that no request alone can tell."""
        self._told.append(cells(script, fault, caller, record, calls))

    def lines(self) -> list[str]:
        """The row's lines of the document."""
        told = [line if isinstance(line, str) else line[0].line(line[1]) for line in self._told]
        return [*told, *([cells(self.id, ROWS[self.id], WAITING[self.id], "", "")] if self.id in WAITING else [])]
