"""The gRPC server itself: health, reflection, what is not there, what ends it."""

import asyncio
import contextlib
import socket

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from headrace_server.app import running
from headrace_server.domain.errors import StoreUnavailable
from headrace_server.fake_provider import FakeProvider
from support.service import command, details, events_of, kinds, request, service, settings

SERVICES = [f"headrace.v1.{name}Service" for name in ("Generation", "Request", "Provider", "Analytics")]


async def test_health_is_told_for_each_service(tmp_path):
    async with service(tmp_path) as s:
        health = health_pb2_grpc.HealthStub(s.channel)
        for name in ["", *SERVICES]:
            assert (await health.Check(health_pb2.HealthCheckRequest(service=name))).status == health_pb2.HealthCheckResponse.SERVING
        listed = await health.List(health_pb2.HealthListRequest())
        assert set(listed.statuses) == {"", *SERVICES}


async def test_health_follows_the_store(tmp_path, monkeypatch):
    monkeypatch.setattr("headrace_server.app.HEALTH_INTERVAL", 0.01)
    async with service(tmp_path) as s:
        watch = health_pb2_grpc.HealthStub(s.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        ping = s.app.store.ping

        async def gone():
            raise StoreUnavailable("the disk is gone")

        s.app.store.ping = gone
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        s.app.store.ping = ping
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_answers_under_both_its_names(tmp_path, version):
    async with service(tmp_path) as s:
        ask = s.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        call = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        names = [service.name for service in (await call.read()).list_services_response.service]
        assert set(SERVICES) < set(names)
        call.cancel()


async def test_reflection_can_be_turned_off(tmp_path):
    async with service(tmp_path, reflection=False) as s:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.channel.unary_unary("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("path", ["headrace.v1.ProviderService/SellProvider", "headrace.v1.NoService/Generate"])
async def test_what_is_not_there_says_so(tmp_path, path):
    async with service(tmp_path) as s:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.channel.unary_unary(f"/{path}")(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("raised", [ValueError("secret detail"), asyncio.CancelledError("secret detail"), TimeoutError("secret detail")])
async def test_no_exceptions_text_reaches_a_caller_and_none_hangs(tmp_path, raised, monkeypatch):
    async with service(tmp_path) as s:

        async def broken(request_id):
            raise raised

        monkeypatch.setattr(s.app.engine, "record", broken)
        call = s.channel.unary_unary("/headrace.v1.RequestService/GetRequest")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(call(b"\x0a\x2401890a5d-ac96-774b-bcce-b302099a8057"), 2)
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in f"{caught.value} {details(caught.value)}"
        assert "internal error, id=" in caught.value.details()


async def test_a_port_in_use_is_a_clear_error(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with FakeProvider() as provider:
            with pytest.raises(OSError, match=address):
                async with running(settings(tmp_path, provider, listen=address)):
                    raise AssertionError("it started")


async def test_draining_lets_streams_end_refuses_new_ones_and_says_so_first(tmp_path):
    async with contextlib.AsyncExitStack() as stack:
        s = await stack.enter_async_context(service(tmp_path))
        stream = asyncio.ensure_future(events_of(s.generation.StreamGenerate(iter([command(request(model="n10-d20"))]))))
        idle = s.generation.StreamGenerate()
        await idle.write(command(request()))
        while len(s.provider.requests) < 2:
            await asyncio.sleep(0.001)
        drained = asyncio.ensure_future(s.app.drain(5))
        await asyncio.sleep(0.02)

        health = await health_pb2_grpc.HealthStub(s.channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.generation.Generate(request())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert details(caught.value)["ErrorInfo"].metadata["subreason"] == "SHUTTING_DOWN"
        assert kinds(await stream)[-1] == "completed"
        assert kinds(await events_of(idle))[-1] == "completed"
        await drained


async def test_a_stream_that_outlives_the_drain_is_told_why(tmp_path):
    async with service(tmp_path) as s:
        call = s.generation.StreamGenerate(iter([command(request(model="n500-d20"))]))
        events = list((await call.read()).events)
        while "chunk" not in kinds(events):
            events += (await call.read()).events
        drained = asyncio.ensure_future(s.app.drain(0.05))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while (response := await call.read()) is not grpc.aio.EOF:
                events += response.events
            await call
        await drained

        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert details(caught.value)["ErrorInfo"].reason == "INTERRUPTED"
        assert events[-1].failed.partial.content[0].text
