"""The client of the measurements against real servers: every chunk is counted, and nothing that went wrong is taken for an answer."""

import asyncio
import contextlib

import bare
import grpc
import pytest
from load import Plan, main
from meter import percentile
from provider import Connection
from scenarios import UNITS, scenarios

from headrace_server.app import running
from headrace_server.config import Settings


@contextlib.asynccontextmanager
async def provider():
    """Port of the fast provider."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@contextlib.asynccontextmanager
async def headrace(tmp_path):
    """Port of the service in front of it."""
    async with provider() as port:
        rows = {
            "bench": {"dialect": "openai", "api_url": f"http://127.0.0.1:{port}/v1"},
            "bench-claude": {"dialect": "claude", "api_url": f"http://127.0.0.1:{port}"},
        }
        settings = Settings(
            listen="127.0.0.1:0",
            database=f"sqlite:///{tmp_path}/headrace.db",
            providers={name: {**row, "api_key": "none", "default_model": "bench-n64-d0"} for name, row in rows.items()},
        )
        async with running(settings) as app:
            yield app.port


def plan(port, **more):
    plain = {"kind": "lone", "speaks": "http", "host": "127.0.0.1", "port": port, "path": "/v1/chat/completions", "watched": {}}
    return Plan(**{**plain, "model": "bench-n8-d0", "requests": 10, **more})


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_every_chunk_is_counted_when_the_provider_is_read_directly(path):
    async with provider() as port:
        result = await main(plan(port, path=path))

    assert (result.requests, result.chunks, result.broken) == (10, 80, 0)
    assert 0 < result.first_token_ms["p50"] <= result.first_token_ms["p99"]
    assert result.lateness_ms == {}


async def test_lateness_is_told_when_chunks_carry_their_time():
    async with provider() as port:
        result = await main(plan(port, model="bench-n4-d2", requests=3))

    assert (result.requests, result.chunks, result.broken) == (3, 12, 0)
    assert 0 < result.lateness_ms["p50"] <= result.lateness_ms["p99"] < 1000


@pytest.mark.parametrize(("model", "why"), [("bench-n8-d0-cut", "lost"), ("bench-n8-d2-cut", "lost"), ("bench-n8-d0-e503", "503")])
async def test_an_answer_that_is_not_whole_is_broken(model, why):
    async with provider() as port:
        result = await main(plan(port, model=model, requests=3))

    assert (result.requests, result.broken) == (0, 3)
    assert why in result.why


@pytest.mark.parametrize("provider_name", ["bench", "bench-claude"])
@pytest.mark.parametrize("speaks", ["grpc", "multiplexed"])
async def test_every_chunk_is_counted_when_it_comes_through_headrace(tmp_path, speaks, provider_name):
    async with headrace(tmp_path) as port:
        result = await main(plan(port, speaks=speaks, provider=provider_name, model="bench-n64-d0"))

    assert (result.requests, result.chunks, result.broken, result.why) == (10, 640, 0, "")


@pytest.mark.parametrize("speaks", ["grpc", "multiplexed"])
async def test_a_failed_generation_is_broken_and_says_why(tmp_path, speaks):
    async with headrace(tmp_path) as port:
        result = await main(plan(port, speaks=speaks, provider="nobody", requests=2))

    assert (result.requests, result.broken) == (0, 2)
    assert "nobody" in result.why


async def test_streams_ask_again_until_the_time_is_over(tmp_path):
    async with headrace(tmp_path) as port:
        more = {
            "kind": "closed",
            "speaks": "grpc",
            "provider": "bench",
            "streams": 4,
            "ramp": 0.1,
            "seconds": 0.3,
            "silent": 3,
            "messages": 30,
        }
        result = await main(plan(port, **more))

    assert result.begun > 4
    assert (result.broken, result.unfinished, result.why) == (0, 0, "")
    assert result.seconds >= 0.3


async def test_the_bare_server_answers_as_headrace_would():
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handler = grpc.stream_stream_rpc_method_handler(bare.answer)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("headrace.v1.GenerationService", {"StreamGenerate": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        burst = await main(plan(port, speaks="grpc", model="bench-n64-d0", requests=5))
        paced = await main(plan(port, speaks="grpc", model="bench-n4-d2", requests=5))
    finally:
        await server.stop(None)

    assert (burst.chunks, burst.broken, paced.chunks, paced.broken) == (320, 0, 20, 0)
    assert paced.lateness_ms["p50"] > 0


async def test_every_figure_of_a_scenario_has_a_unit():
    async with provider() as port:
        result = await main(plan(port, model="bench-n2-d5", requests=2))
    result.cpu["system"], result.resident = 0.1, {"before": 0, "after": 1024}

    for scenario in scenarios(quick=True).values():
        assert {name for name, _ in scenario.metrics(result)} <= set(UNITS)


def test_a_percentile_is_the_nearest_rank():
    assert [percentile(range(1, 101), p) for p in (1, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([7], 99) == 7
