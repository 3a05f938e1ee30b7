"""Rows F76, F77, F83 and F84: the process of the service is killed, or told to stop.

What a store in memory holds is gone with its process, so these rows are about databases.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc

from crash.nursery import Nursery
from headrace.v1.generation_service_pb2_grpc import GenerationServiceStub
from headrace_server.domain.errors import ErrorCode, ReplaySafety
from headrace_server.domain.lifecycle import State
from headrace_server.fake_provider import Fate
from support.faults import Row
from support.processes import Call, Processes, processes
from support.seen import Seen
from support.service import details, request
from support.trouble import NOT_SERVING, SERVING

on_disk = pytest.mark.parametrize("row", ["sqlite"], indirect=True)
KILLED = -9


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("nursery") / "log") as nursery:
        yield nursery


def was_interrupted(seen: Seen) -> None:
    """The caller saw the connection break, the record tells the rest."""
    assert seen.status is StatusCode.UNAVAILABLE
    assert seen.is_cut_off
    assert seen.row is not None
    assert (seen.row.state, seen.row.error_code) == (State.FAILED, ErrorCode.INTERRUPTED)


async def is_not_sent_again(stage: Processes, channel: grpc.aio.Channel, ended: Call) -> None:
    """The same request is answered from its record."""
    calls = len(stage.provider.requests)
    again = stage.begin(channel, ended.request)
    await again.to_the_end()
    assert again.error is not None
    assert (again.error.code(), details(again.error)["ErrorInfo"].reason) == (StatusCode.UNAVAILABLE, "INTERRUPTED")
    assert len(stage.provider.requests) == calls


@on_disk
async def test_F76(row: Row, nursery: Nursery, tmp_path: Path) -> None:
    for point, case in (
        ("accept.after", "killed after its acceptance"),
        ("reserve.after", "killed after its place in our own limits was reserved"),
        ("intend.before", "killed before the attempt is on record"),
    ):
        async with processes("F76", nursery, tmp_path / point) as stage:
            async with stage.process(point) as channel:
                ended = stage.begin(channel)
                await ended.to_the_end()
                assert await nursery.ended() == KILLED
            async with stage.process() as channel:
                seen = await stage.seen(channel, ended)
                assert await stage.used(channel) == (0, 0)
                await is_not_sent_again(stage, channel, ended)
        was_interrupted(seen)
        assert seen.attempts == []
        assert seen.calls == {"p": 0}
        row.add(seen, case)


@on_disk
async def test_F77(row: Row, nursery: Nursery, tmp_path: Path) -> None:
    for point, case, calls in (
        ("intend.after", "killed once the attempt is on record", 0),
        ("call.after", "killed once the provider has begun to answer", 1),
        ("", "killed within the stream", 1),
        ("finish.commit.before", "killed before the whole answer is on record", 1),
    ):
        async with processes("F77", nursery, tmp_path / (point or "stream")) as stage:
            async with stage.process(point or None) as channel:
                ended = stage.begin(channel)
                if point == "":
                    await stage.until_streaming(ended)
                    nursery.kill()
                elif point == "finish.commit.before":
                    await stage.until_streaming(ended)
                    stage.clock.advance(10)
                await ended.to_the_end()
                assert await nursery.ended() == KILLED
            async with stage.process() as channel:
                seen = await stage.seen(channel, ended)
                requests, tokens = await stage.used(channel)
                await is_not_sent_again(stage, channel, ended)
        was_interrupted(seen)
        assert seen.row is not None
        assert [attempt.replay_safety for attempt in seen.row.attempts] == [ReplaySafety.UNCERTAIN]
        assert requests == 1
        assert tokens > 1_000, "as many as were reserved"
        assert seen.calls == {"p": calls}
        row.add(seen, case)


@on_disk
async def test_F83(row: Row, nursery: Nursery, tmp_path: Path) -> None:
    async with processes("F83", nursery, tmp_path / "stage", drain_timeout=30) as stage:
        async with stage.process() as channel:
            health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await health.read()).status == SERVING
            ended = stage.begin(channel)
            await ended.until_chunk()
            nursery.terminate()
            assert (await health.read()).status == NOT_SERVING
            await refuses_new_work(channel)
            assert [call.fate for call in stage.provider.requests] == [Fate.OPEN]
            stage.clock.advance(5)
            await ended.to_the_end()
            assert await nursery.ended() == 0, nursery.log()
        async with stage.process() as channel:
            seen = await stage.seen(channel, ended)
    seen.answers(by="p", text="one two three four", path="validating requesting streaming completed")
    assert seen.calls == {"p": 1}
    row.add(seen, "in time")


@on_disk
async def test_F84(row: Row, nursery: Nursery, tmp_path: Path) -> None:
    async with processes("F84", nursery, tmp_path / "stage", drain_timeout=0.2) as stage:
        async with stage.process() as channel:
            ended = stage.begin(channel)
            await ended.until_chunk()
            nursery.terminate()
            await ended.to_the_end()
            assert await nursery.ended() == 0, nursery.log()
        await stage.provider.requests[0].ended.wait()
        assert stage.provider.requests[0].fate is Fate.CALLER_LEFT
        async with stage.process() as channel:
            seen = await stage.seen(channel, ended)
    seen.fails(StatusCode.UNAVAILABLE, "INTERRUPTED", "SHUTTING_DOWN", path="validating requesting streaming failed")
    assert seen.text == seen.partial_text == "one two"
    assert seen.calls == {"p": 1}
    row.add(seen, "it outlives the time that it is given")


async def refuses_new_work(channel: grpc.aio.Channel) -> None:
    """On the connection that is there already."""
    stub: Any = GenerationServiceStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Generate(request(provider="p"))
    assert caught.value.code() is StatusCode.UNAVAILABLE
    assert details(caught.value)["ErrorInfo"].metadata["subreason"] == "SHUTTING_DOWN"
