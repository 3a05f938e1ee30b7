"""Blocking stubs, which most callers use, against the real service.

pytest-grpc starts a synchronous server of its own; here its `grpc_server` is the service on a loop thread, and its channel and stub
fixtures are used as they are.
"""

import asyncio
import threading
from collections.abc import Iterator

import grpc
import pytest

from headrace.v1 import generation_service_pb2 as pb
from headrace.v1.generation_service_pb2_grpc import GenerationServiceStub
from headrace_server.app import App, running
from headrace_server.fake_provider import FakeProvider, Step
from support.service import command, details, kinds, request, settings, text_of


class LoopThread:
    """The service and its provider in an event loop of their own."""

    def __init__(self, tmp_path) -> None:
        self._tmp_path = tmp_path
        self._started = threading.Event()
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self.app: App
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    async def _serve(self) -> None:
        self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
        script = [Step(text="one two three"), Step(text="whole"), Step(status=529, body={"error": {"message": "busy"}})]
        async with FakeProvider(script) as provider, running(settings(self._tmp_path, provider)) as self.app:
            self._started.set()
            await self._stop.wait()

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module")
def grpc_server(tmp_path_factory) -> Iterator[LoopThread]:
    server = LoopThread(tmp_path_factory.mktemp("blocking"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def grpc_addr(grpc_server) -> str:
    return f"127.0.0.1:{grpc_server.app.port}"


@pytest.fixture(scope="module")
def grpc_stub_cls() -> type:
    return GenerationServiceStub


def test_a_blocking_caller_streams_then_asks_whole_then_reads_an_error(grpc_stub):
    events = [event for response in grpc_stub.StreamGenerate(iter([command(request())])) for event in response.events]
    assert kinds(events)[-1] == "completed"
    assert text_of(events) == "one two three"

    assert grpc_stub.Generate(request()).result.content[0].text == "whole"

    with pytest.raises(grpc.RpcError) as caught:
        grpc_stub.Generate(request())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert details(caught.value)["ErrorInfo"].reason == "SERVER_ERROR"


def test_a_blocking_caller_attaches_to_what_it_submitted(grpc_stub):
    wanted = request(model="n5-d2")
    grpc_stub.SubmitGeneration(pb.SubmitGenerationRequest(request=wanted))

    events = [
        e for response in grpc_stub.AttachGeneration(pb.AttachGenerationRequest(request_id=wanted.request_id)) for e in response.events
    ]

    assert kinds(events)[-1] == "completed"


def test_a_blocking_caller_cancels_by_closing(grpc_stub, grpc_server):
    wanted = request(model="n500-d10")
    call = grpc_stub.StreamGenerate(iter([command(wanted)]))
    next(call)
    call.cancel()

    generation = grpc_server.app.engine.running(wanted.request_id)
    ended = asyncio.run_coroutine_threadsafe(generation.wait(), grpc_server._loop).result(5)
    assert ended.error.code == "cancelled"
