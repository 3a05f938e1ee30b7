"""Rows F49 to F63: callers that leave, wait too short, read too slowly, vanish, or send what nobody should; and faults of our own."""

import asyncio
import math
import re
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from headrace.v1 import generation_service_pb2 as pb
from headrace.v1 import lifecycle_pb2, request_pb2, request_service_pb2
from headrace.v1.generation_service_pb2_grpc import GenerationServiceStub
from headrace_server.domain.lifecycle import State
from headrace_server.fake_provider import Fate, Recorded
from support.faults import NO_FALLBACK, ROWS, Row, Stage
from support.http2 import ENHANCE_YOUR_CALM, Type, raw_client
from support.proxy import proxy
from support.seen import Seen
from support.service import command, details, events_of, kinds, said

GENERATE = "/headrace.v1.GenerationService/Generate"
STREAM = "/headrace.v1.GenerationService/StreamGenerate"
ANSWERS = "F62"
"""A script whose provider answers."""
SECRET = "sk-secret-0123456789"
PROMPTLY = 1.0
"""Seconds within which a provider hears that its caller left; a tenth of that on a machine that has nothing else to do."""
MOST = 8 * 1024 * 1024
"""Bytes that the service may hold for a stream that is not read."""
REST = 15
"""Looks at a provider, 20 ms apart, without a byte more, after which it is at rest."""


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def until_called(stage: Stage, count: int = 1) -> Recorded:
    """Until the first provider has been asked so often; its last call."""
    await until(lambda: len(stage.provider.requests_of("p")) >= count)
    return stage.provider.requests_of("p")[-1]


async def until_state(call: Any, state: str) -> None:
    """Read until the generation is in this state, and let no wait pass."""
    number = lifecycle_pb2.RequestState.Value(f"REQUEST_STATE_{state}")
    while not any(event.transition.to_state == number for event in (await call.read()).events):
        pass


async def comes_to_rest(call: Recorded) -> int:
    """How many bytes a provider could send, once it cannot send any more."""
    still, sent = 0, -1
    while still < REST:
        still, sent = (still + 1 if call.sent == sent else 0), call.sent
        await asyncio.sleep(0.02)
    return sent


async def ended(call: Any) -> grpc.aio.AioRpcError:
    """The status of a call as its own library tells it, without what came from the service: which of the two is first is a race."""
    return grpc.aio.AioRpcError(await call.code(), grpc.aio.Metadata(), grpc.aio.Metadata(), await call.details())


async def told(stage: Stage, call: Any, request: Any) -> Seen:
    """Read a stream to its end."""
    events, error = [], None
    try:
        while (response := await call.read()) is not grpc.aio.EOF:
            events += response.events
    except grpc.aio.AioRpcError as failed:
        error = failed
    return await stage.seen(request, events, error)


async def cancels(stage: Stage, call: Any, request: Any) -> Seen:
    call.cancel()
    return await stage.seen(request, (), await ended(call))


async def until_chunk(call: Any) -> None:
    while "chunk" not in kinds((await call.read()).events):
        pass


def promptly(upstream: Recorded, since: float) -> None:
    """The provider saw its socket closed, and soon."""
    assert upstream.fate is Fate.CALLER_LEFT
    assert upstream.ended_at is not None
    assert upstream.ended_at - since < PROMPTLY


def gave_up(seen: Seen, status: StatusCode, code: str, subreason: str = "", *, path: str) -> None:
    """The caller has only its own library's status; the record tells why."""
    assert seen.status is status
    assert seen.row is not None
    assert seen.row.error is not None
    assert (seen.row.state, seen.row.error_code, seen.row.error.subreason) == (State.FAILED, code, subreason)
    assert " ".join(seen.path) == path


async def the_record(stage: Stage, request: Any) -> str:
    """What is on record of a request that is not the only one of its stage, in words."""
    if (generation := stage.app.engine.running(request.request_id)) is not None:
        await generation.wait()
    row = await stage.app.store.get(request.request_id)
    assert row is not None
    assert row.error is not None
    ways = " → ".join(step.to_state.value for step in row.transitions)
    how = row.error.code.value + (f"/{row.error.subreason}" if row.error.subreason else "")
    return f"{row.state.value} {how}; {len(row.attempts) or 'no'} attempt; {ways}"


async def test_F49(row: Row) -> None:
    async with row.stage("F49a") as stage:
        call, request = stage.begin()
        upstream = await until_called(stage)
        since = time.monotonic()
        seen = await cancels(stage, call, request)
        await upstream.ended.wait()
    promptly(upstream, since)
    gave_up(seen, StatusCode.CANCELLED, "cancelled", path="validating requesting failed")
    assert seen.calls == {"p": 1, "f": 0}
    row.add(seen)

    async with row.stage("F49b") as stage:
        call, request = stage.begin()
        upstream = await until_called(stage)
        await until_chunk(call)
        since = time.monotonic()
        seen = await cancels(stage, call, request)
        await upstream.ended.wait()
    promptly(upstream, since)
    gave_up(seen, StatusCode.CANCELLED, "cancelled", path="validating requesting streaming failed")
    assert seen.partial_text == "one two"
    assert seen.calls == {"p": 1, "f": 0}
    row.add(seen)

    for script in ("F49c", "F49d"):
        async with row.stage(script) as stage:
            first, _ = stage.begin()
            await until_called(stage)
            call, request = stage.begin()
            await until_state(call, "RATE_LIMITED")
            call.cancel()
            record = await the_record(stage, request)
            calls = len(stage.provider.requests_of("p"))
            first.cancel()
        assert record == "failed cancelled; no attempt; validating → rate_limited → failed"
        assert calls == 1
        row.tell(script, stage.script.about, "CANCELLED", record, "p 1, for the first")


async def test_F50(row: Row) -> None:
    async with row.stage("F50") as stage:
        call, request = stage.begin()
        await until_state(call, "RETRYING")
        seen = await cancels(stage, call, request)
        stage.clock.advance(60)
        await asyncio.sleep(0.05)
    gave_up(seen, StatusCode.CANCELLED, "cancelled", path="validating requesting retrying failed")
    assert seen.attempts == ["p server_error"]
    assert seen.calls == {"p": 1, "f": 0}
    seen.told_waits = "cut short"
    row.add(seen)


async def test_F51(row: Row) -> None:
    for script, path in (("F51a", "validating requesting failed"), ("F51b", "validating requesting streaming failed")):
        async with row.stage(script) as stage:
            call, request = stage.begin(timeout=0.3)
            upstream = await until_called(stage)
            seen = await stage.seen(request, (), await ended(call))
            await upstream.ended.wait()
        assert upstream.fate is Fate.CALLER_LEFT
        gave_up(seen, StatusCode.DEADLINE_EXCEEDED, "timeout", path=path)
        assert seen.row is not None
        assert 200 <= seen.row.duration < 300 + 1_000 * PROMPTLY
        assert seen.calls == {"p": 1, "f": 0}
        row.add(seen)

    async with row.stage("F51c") as stage:
        first, _ = stage.begin()
        await until_called(stage)
        call, request = stage.begin(timeout=0.3)
        error = await ended(call)
        record = await the_record(stage, request)
        calls = len(stage.provider.requests_of("p"))
        first.cancel()
    assert error.code() is StatusCode.DEADLINE_EXCEEDED
    assert record == "failed timeout; no attempt; validating → rate_limited → failed"
    assert calls == 1
    row.tell("F51c", stage.script.about, error.code().name, record, "p 1, for the first")


async def test_F52(row: Row) -> None:
    for script in ("F52a", "F52b"):
        async with row.stage(script) as stage:
            seen = await stage.ask(timeout=5)
        seen.answers(by="f", path="validating requesting validating requesting streaming completed")
        assert seen.calls == {"p": 1, "f": 1}
        row.add(seen)

        async with row.stage(script) as stage:
            seen = await stage.ask(NO_FALLBACK, timeout=5)
        assert seen.row is not None
        assert seen.row.duration < 5_000
        if script == "F52a":
            seen.fails(StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMIT_EXCEEDED", path="validating requesting failed")
        else:
            seen.fails(StatusCode.UNAVAILABLE, "SERVER_ERROR", path="validating requesting failed")
        assert seen.retry_after == 8
        assert seen.calls == {"p": 1, "f": 0}
        row.add(seen, "no fallback")


async def test_F53(row: Row) -> None:
    async with row.stage("F53") as stage:
        call, request = stage.begin()
        upstream = await until_called(stage)
        stage.clock.advance(599)
        await asyncio.sleep(0.05)
        assert upstream.fate is Fate.OPEN
        stage.clock.advance(1)
        seen = await told(stage, call, request)
        await upstream.ended.wait()
    seen.fails(StatusCode.DEADLINE_EXCEEDED, "TIMEOUT", path="validating requesting failed")
    assert seen.error is not None
    assert "600 s, the default of the service" in (seen.error.details() or "")
    assert seen.calls == {"p": 1, "f": 0}
    row.add(seen)


async def test_F54(row: Row) -> None:
    # Without its probes a caller's library takes 64 KB ahead of its program, and not 4 MB.
    options = [("grpc.http2.bdp_probe", 0)]
    async with row.stage("F54") as stage, grpc.aio.insecure_channel(f"127.0.0.1:{stage.app.port}", options) as stage.channel:
        call, request = stage.begin()
        upstream = await until_called(stage)
        await comes_to_rest(upstream)
        generation = stage.app.engine.running(request.request_id)
        assert generation is not None
        for _ in range(2):  # Longer than a provider may be silent, and together longer than a caller may take nothing.
            stage.clock.advance(45)
            known = generation.chunk_count
            while generation.chunk_count == known:
                assert (await call.read()).events
            sent = await comes_to_rest(upstream)
        stage.clock.advance(55)
        assert await comes_to_rest(upstream) == sent
        assert upstream.fate is Fate.OPEN
        assert len(generation.since(0)) * 8_000 < MOST
        stage.clock.advance(5)
        await upstream.ended.wait()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while await call.read() is not grpc.aio.EOF:
                pass
        record = await the_record(stage, request)
    assert upstream.fate is Fate.CALLER_LEFT
    assert caught.value.code() is StatusCode.CANCELLED
    assert details(caught.value)["ErrorInfo"].metadata["subreason"] == "SLOW_CLIENT"
    assert record == "failed cancelled/SLOW_CLIENT; 1 attempt; validating → requesting → streaming → failed"
    row.tell("F54", stage.script.about, "CANCELLED, CANCELLED/SLOW_CLIENT, once it reads", record, "p 1")


async def test_F55(row: Row) -> None:
    async with row.stage("F55") as stage, proxy(stage.app.port) as way, grpc.aio.insecure_channel(f"127.0.0.1:{way.port}") as channel:
        request = stage.request()
        stub: Any = GenerationServiceStub(channel)
        call = stub.StreamGenerate(iter([command(request)]))
        await until_chunk(call)
        way.swallows = True
        upstream = await until_called(stage)
        await upstream.ended.wait()
        seen = await stage.seen(request, (), None, pb.GenerateResponse().result)
        call.cancel()
    assert upstream.fate is Fate.CALLER_LEFT
    gave_up(seen, StatusCode.OK, "cancelled", path="validating requesting streaming failed")
    assert seen.partial_text == "one two"
    assert seen.calls == {"p": 1}
    record = "failed cancelled; p cancelled; validating → requesting → streaming → failed; partial text"
    row.tell("F55", stage.script.about, "nothing any more", record, "p 1")


async def test_F56(row: Row) -> None:
    async with row.stage(ANSWERS, min_ping_interval=30) as stage, raw_client(stage.app.port) as raw:
        while not raw.closed.is_set():
            raw.ping()
            await asyncio.sleep(0.01)
        goaway = await raw.until(Type.GOAWAY)
        seen = await stage.ask()
    assert goaway.error_code == ENHANCE_YOUR_CALM
    assert goaway.payload.endswith(b"too_many_pings")
    seen.answers(by="p")
    row.tell("F56", ROWS["F56"], "GOAWAY ENHANCE_YOUR_CALM, too_many_pings; callers on other connections notice nothing", "no row", "p 0")


async def test_F57(row: Row) -> None:
    too_large: list[tuple[str, bytes, dict[str, Any]]] = [
        ("a message of 5 MB", b"\0" * 5_000_000, {}),
        ("50 MB of zeros, compressed by gzip", b"\0" * 50_000_000, {"compression": grpc.Compression.Gzip}),
        ("metadata of 20 KB", b"", {"metadata": (("x-filler", "x" * 20_000),)}),
    ]
    for what, message, options in too_large:
        await refused(row, what, StatusCode.RESOURCE_EXHAUSTED, message, **options)


async def test_F58(row: Row) -> None:
    whole = pb.StreamGenerateRequest(generate=request_pb2.GenerateRequest(messages=[said("Say hello")])).SerializeToString()
    for path in (GENERATE, STREAM):
        for what, message in (("bytes that are no UTF-8 in a text", b"\x12\x03\xff\xfe\xfd"), ("half of a message", whole[:-3])):
            error = await refused(row, f"{what}, by {path.rpartition('/')[2]}", StatusCode.INTERNAL, message, path=path)
            assert (error.details() or "").startswith("the message could not be read as a headrace.v1.")


async def test_F59(row: Row) -> None:
    for what, path in (("a method", "/headrace.v1.GenerationService/Nothing"), ("a service", "/nobody.v1.Nothing/Nothing")):
        await refused(row, f"{what} that is not there", StatusCode.UNIMPLEMENTED, b"", path=path)


async def refused(row: Row, what: str, status: StatusCode, message: bytes, *, path: str = GENERATE, **options: Any) -> grpc.aio.AioRpcError:
    """A call that never becomes a request: its status; nothing is on record, nobody is asked, and the service goes on."""
    async with row.stage(ANSWERS) as stage:
        call = stage.channel.unary_unary(path) if path != STREAM else stage.channel.stream_stream(path)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            if path == STREAM:
                async for _ in call(iter([message]), **options):
                    pass
            else:
                await call(message, **options)
        listed = await stage.requests.ListRequests(request_service_pb2.ListRequestsRequest())
        asked = len(stage.provider.requests)
        (await stage.ask()).answers(by="p")
    assert caught.value.code() is status
    assert len(listed.requests) == asked == 0
    row.tell(row.id, what, status.name, "no row", "p 0")
    return caught.value


async def test_F60(row: Row) -> None:
    deep = '{"a":' * 1_000 + "1" + "}" * 1_000
    tools = [
        request_pb2.Tool(name="a", parameters_json="no JSON"),
        request_pb2.Tool(name="b", parameters_json=deep),
        request_pb2.Tool(name="c", parameters_json='{"description": "\\ud800"}'),
        request_pb2.Tool(name="d", parameters_json="{}"),
        request_pb2.Tool(name="d", parameters_json="{}"),
    ]
    wrong: dict[str, tuple[dict[str, Any], set[str]]] = {
        "no messages, a blank model, no tokens, NaN": (
            {"messages": [], "model": " ", "max_tokens": 0, "temperature": math.nan},
            {"messages", "model", "max_tokens", "temperature"},
        ),
        "10,000 messages, negative tokens, infinity": (
            {"messages": [said("x")] * 10_000, "max_tokens": -1, "temperature": math.inf},
            {"messages", "max_tokens", "temperature"},
        ),
        "an unknown role, NUL, 3": (
            {"messages": [said("x", 17), said("x\0y")], "temperature": 3.0},  # type: ignore[arg-type]
            {"messages[0].role", "messages[1].content[0].text", "temperature"},
        ),
        "schemas that are no JSON, 1,000 levels deep, or hold half a character; two tools of one name": (
            {"tools": tools},
            {"tools[0].parameters_json", "tools[1].parameters_json", "tools[2].parameters_json", "tools[4].name"},
        ),
    }
    for case, (fields, expected) in wrong.items():
        async with row.stage("F60") as stage:
            request = stage.request()
            for name in fields:
                request.ClearField(name)
            request.MergeFrom(request_pb2.GenerateRequest(**fields))
            call = stage.generation.StreamGenerate(iter([command(request)]))
            seen = await told(stage, call, request)
        seen.fails(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", path="validating failed")
        assert {violation.field for violation in seen.details["BadRequest"].field_violations} == expected
        assert seen.attempts == []
        assert seen.calls == {"p": 0}
        row.add(seen, case)


async def test_F61(row: Row) -> None:
    async with row.stage("F61") as stage:
        first, running = stage.begin()
        upstream = await until_called(stage)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stage.generation.Generate(request := stage.request())
        assert await stage.app.store.get(request.request_id) is None
        assert stage.app.engine.running(request.request_id) is None
        again = asyncio.create_task(events_of(stage.generation.StreamGenerate(iter([command(running)]))))
        attached = asyncio.create_task(
            events_of(stage.generation.AttachGeneration(pb.AttachGenerationRequest(request_id=running.request_id)))
        )
        stage.clock.advance(60)
        answers = await asyncio.gather(events_of(first), again, attached)
        await upstream.ended.wait()
        assert kinds((await events_of(stage.begin()[0]))[-1:]) == ["completed"]
    assert answers[0] == answers[1] == answers[2]
    assert kinds(answers[0])[-1] == "completed"
    assert caught.value.code() is StatusCode.RESOURCE_EXHAUSTED
    found = details(caught.value)
    assert found["ErrorInfo"].metadata["subreason"] == "TOO_MANY_IN_FLIGHT"
    assert found["RetryInfo"].retry_delay.seconds == 1
    caller = "RESOURCE_EXHAUSTED, RATE_LIMIT_EXCEEDED/TOO_MANY_IN_FLIGHT; RetryInfo(1 s); who asks for the running one again gets it"
    row.tell("F61", stage.script.about, caller, "no row", "p 1, f 0")


async def test_F62(row: Row, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for rpc in ("StreamGenerate", "Generate"):
        async with row.stage("F62") as stage:
            seen = await with_an_upstream_that_raises(ValueError(SECRET), stage, rpc, monkeypatch)
        own_bug(seen)
        assert seen.row is not None
        assert SECRET not in f"{seen.error} {seen.details} {seen.events} {seen.row.model_dump_json()} {seen.record}"
        assert seen.error is not None
        incident = (seen.error.details() or "").removeprefix("internal error, id=")
        assert incident in [getattr(record, "incident", None) for record in caplog.records]
        row.add(seen, rpc)


async def test_F63(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    for raised in (asyncio.CancelledError(SECRET), TimeoutError(SECRET)):
        async with row.stage("F63") as stage:
            seen = await with_an_upstream_that_raises(raised, stage, "StreamGenerate", monkeypatch)
        own_bug(seen)
        row.add(seen, type(raised).__name__)


async def with_an_upstream_that_raises(raised: BaseException, stage: Stage, rpc: str, monkeypatch: pytest.MonkeyPatch) -> Seen:
    async def broken(*_args: object, **_fields: object) -> None:
        raise raised

    monkeypatch.setattr(stage.app.engine._world.upstream, "call", broken)
    return await stage.ask(rpc=rpc)


def own_bug(seen: Seen) -> None:
    """A fault of our own: an id and no text; and nobody stands in for it."""
    seen.fails(StatusCode.INTERNAL, "UNKNOWN_ERROR", "INTERNAL", path="validating requesting failed")
    assert seen.error is not None
    assert re.fullmatch(r"internal error, id=[0-9a-f]{16}", seen.error.details() or "")
    assert seen.calls == {"p": 0, "f": 0}
