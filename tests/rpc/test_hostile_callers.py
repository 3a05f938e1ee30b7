"""Callers that vanish, flood, or send what nobody should: they are turned away, and nobody else notices."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.v1 import error_pb2, lifecycle_pb2, request_service_pb2
from headrace.v1 import generation_service_pb2 as pb
from headrace_server.fake_provider import Fate, Step
from support.http2 import ENHANCE_YOUR_CALM, Type, raw_client
from support.proxy import proxy
from support.service import command, events_of, kinds, request, service

GENERATE = "/headrace.v1.GenerationService/Generate"
STREAM = "/headrace.v1.GenerationService/StreamGenerate"


async def record_of(s, request_id):
    async for _ in s.requests.WatchRequest(request_service_pb2.WatchRequestRequest(request_id=request_id)):
        pass
    return (await s.requests.GetRequest(request_service_pb2.GetRequestRequest(request_id=request_id))).request


async def lives(s) -> bool:
    """Whether the service still answers, from the health check to the provider."""
    health = await health_pb2_grpc.HealthStub(s.channel).Check(health_pb2.HealthCheckRequest())
    answer = await s.generation.Generate(request())
    return health.status == health_pb2.HealthCheckResponse.SERVING and bool(answer.result.content[0].text)


async def test_a_caller_whose_host_vanished_is_given_up_by_keepalive(tmp_path):
    wanted = request(model="n5000-d10")
    async with service(tmp_path, keepalive_time=0.3, keepalive_timeout=0.3) as s, proxy(s.app.port) as way:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{way.port}") as channel:
            call = channel.stream_stream(STREAM, command_bytes, pb.StreamGenerateResponse.FromString)(iter([command(wanted)]))
            while "chunk" not in kinds((await call.read()).events):
                pass
            way.swallows = True
            (upstream,) = s.provider.requests
            await asyncio.wait_for(upstream.ended.wait(), 40)
            record = await record_of(s, wanted.request_id)
            call.cancel()
        assert await lives(s)

    assert upstream.fate is Fate.CALLER_LEFT
    assert record.state == lifecycle_pb2.REQUEST_STATE_FAILED
    assert record.error_code == error_pb2.ERROR_CODE_CANCELLED
    assert record.response_data.content[0].text


def command_bytes(message):
    return message.SerializeToString()


async def test_a_connection_that_pings_too_often_is_told_to_calm_down(tmp_path):
    async with service(tmp_path, min_ping_interval=10) as s, raw_client(s.app.port) as raw:
        others = asyncio.ensure_future(events_of(s.generation.StreamGenerate(iter([command(request(model="n20-d10"))]))))
        while not raw.closed.is_set():
            raw.ping()
            await asyncio.sleep(0.01)
        goaway = await raw.until(Type.GOAWAY)

        assert goaway.error_code == ENHANCE_YOUR_CALM
        assert b"too_many_pings" in goaway.payload
        assert kinds(await others)[-1] == "completed"


async def test_a_connection_that_pings_seldom_enough_is_kept(tmp_path):
    async with service(tmp_path, min_ping_interval=0.05) as s, raw_client(s.app.port) as raw:
        for _ in range(8):
            raw.ping()
            await asyncio.sleep(0.08)
        assert not [frame for frame in raw.frames if frame.type == Type.GOAWAY]
        assert len([frame for frame in raw.frames if frame.type == Type.PING and frame.flags]) == 8


async def test_what_is_too_large_is_refused_and_leaves_nothing(tmp_path):
    async with service(tmp_path) as s:
        generate = s.channel.unary_unary(GENERATE)
        too_large = request("x" * 5_000_000).SerializeToString()
        metadata = request().SerializeToString()
        for raw, more in ((too_large, ()), (metadata, (("x-filler", "x" * 20_000),))):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await generate(raw, metadata=more)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert s.provider.requests == []
        listed = await s.requests.ListRequests(request_service_pb2.ListRequestsRequest())
        assert not listed.requests
        assert await lives(s)


async def test_zeros_that_were_compressed_are_counted_as_what_they_are(tmp_path):
    async with service(tmp_path) as s:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.channel.unary_unary(GENERATE)(b"\0" * 50_000_000, compression=grpc.Compression.Gzip)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert s.provider.requests == []
        assert await lives(s)


@pytest.mark.parametrize("pause", [None, 0, 0.01, 0.1], ids=["together", "soon", "while it begins", "while it runs"])
@pytest.mark.parametrize("path", [STREAM, GENERATE])
async def test_streams_that_are_reset_at_once_leave_nothing_behind(tmp_path, path, pause):
    wave = 100
    waves = 20 if not pause else 4
    slow = [Step(delay_ms=60_000, times=0)]
    async with service(tmp_path, slow, max_streams_per_connection=wave) as s, raw_client(s.app.port) as raw:
        for _ in range(waves):
            streams = []
            for _ in range(wave):
                wanted = request()
                message = wanted if path == GENERATE else command(wanted)
                streams.append(raw.call(path, message.SerializeToString(), half_close=path == GENERATE))
                if pause is None:
                    raw.reset(streams[-1])
            if pause is not None:
                await raw.drain()
                await asyncio.sleep(pause)
                for stream in streams:
                    raw.reset(stream)
            await raw.drain()
        s.provider.script.clear()
        assert await lives(s)
        while any(generation.outcome is None for generation in s.app.engine._generations.values()):
            await asyncio.sleep(0.01)
        for call in s.provider.requests:
            await call.ended.wait()
        assert not raw.closed.is_set()


@pytest.mark.parametrize("method", ["headrace.v1.GenerationService/Nothing", "nobody.v1.Nothing/Nothing", "x"])
async def test_what_there_is_not_is_unimplemented(tmp_path, method):
    async with service(tmp_path) as s:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.channel.unary_unary(f"/{method}")(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
