"""Callers that take nothing: what waits for them is bounded, their provider waits too, and in the end their stream is given up."""

import asyncio
import contextlib

import grpc
import pytest

from headrace.v1 import error_pb2, lifecycle_pb2, request_pb2, request_service_pb2
from headrace.v1 import generation_service_pb2 as pb
from headrace_server.fake_provider import Fate, Step
from support.http2 import END_STREAM, Type, raw_client
from support.service import command, details, events_of, kinds, request, service, text_of

NOTHING = b"\0\0\0\0\0"
"""A command that holds none, which is answered as any other."""
STREAM = "/headrace.v1.GenerationService/StreamGenerate"
PIECE = "x" * 64_000
PIECES = 500
"""32 MB: more than all buffers of the system hold."""


def long_answer(pieces=PIECES) -> Step:
    say = {"choices": [{"index": 0, "delta": {"content": PIECE}}]}
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return Step(events=(*[say] * pieces, end, "data: [DONE]"))


def framed(wanted) -> bytes:
    return command(wanted).SerializeToString()


@contextlib.asynccontextmanager
async def opened(tmp_path, script, **settings):
    """The service, with stubs that take messages of any size: the last event of an answer holds all of it."""
    async with (
        service(tmp_path, script, max_response_bytes=64 * 1024 * 1024, **settings) as s,
        grpc.aio.insecure_channel(f"127.0.0.1:{s.app.port}", options=[("grpc.max_receive_message_length", -1)]) as s.channel,
    ):
        yield s


async def comes_to_rest(call) -> int:
    """How many bytes the provider could send, once it cannot send any more."""
    still, sent = 0, -1
    while still < 15:
        still, sent = (still + 1 if call.sent == sent else 0), call.sent
        await asyncio.sleep(0.02)
    return sent


async def until_called(s, count=1):
    while len(s.provider.requests) < count:
        await asyncio.sleep(0.005)
    return s.provider.requests


async def record_of(s, request_id):
    async for _ in s.requests.WatchRequest(request_service_pb2.WatchRequestRequest(request_id=request_id)):
        pass
    return (await s.requests.GetRequest(request_service_pb2.GetRequestRequest(request_id=request_id))).request


async def test_a_provider_waits_while_the_caller_does(tmp_path):
    wanted = request(quiet=True)
    async with opened(tmp_path, [long_answer()], max_unread_bytes=256_000) as s, raw_client(s.app.port) as raw:
        stream = raw.call(STREAM, framed(wanted))
        (call,) = await until_called(s)
        sent = await comes_to_rest(call)
        generation = s.app.engine.running(wanted.request_id)

        assert sent < PIECES * len(PIECE) * 0.8
        assert generation.outcome is None
        assert generation.chunk_count * len(PIECE) < 2_000_000
        raw.open_window(2**30)
        raw.open_window(2**30, stream)
        await the_end(raw, stream)
        assert sum(len(frame.payload) for frame in raw.frames if frame.type == Type.DATA) > PIECES * len(PIECE)
        record = await record_of(s, wanted.request_id)
    assert record.state == lifecycle_pb2.REQUEST_STATE_COMPLETED
    assert call.fate is Fate.ANSWERED


async def test_a_caller_that_takes_nothing_for_too_long_ends_its_generation(tmp_path):
    wanted = request(quiet=True)
    async with opened(tmp_path, [long_answer()], slow_client_timeout=0.3) as s:
        call = s.generation.StreamGenerate(iter([command(wanted)]))
        (upstream,) = await until_called(s)
        await asyncio.wait_for(upstream.ended.wait(), 20)
        record = await record_of(s, wanted.request_id)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await events_of(call)

    assert upstream.fate is Fate.CALLER_LEFT
    assert upstream.sent < PIECES * len(PIECE)
    assert record.state == lifecycle_pb2.REQUEST_STATE_FAILED
    assert (record.error_code, record.error.subreason) == (error_pb2.ERROR_CODE_CANCELLED, "SLOW_CLIENT")
    assert record.response_data.content[0].text.startswith(PIECE)
    assert caught.value.code() is grpc.StatusCode.CANCELLED
    assert details(caught.value)["ErrorInfo"].metadata["subreason"] == "SLOW_CLIENT"


@pytest.mark.parametrize("policy", [request_pb2.DISCONNECT_POLICY_DRAIN, request_pb2.DISCONNECT_POLICY_KEEP])
async def test_a_generation_that_outlives_its_caller_does_not_wait_for_it(tmp_path, policy):
    wanted = request(quiet=True, on_disconnect=policy)
    async with opened(tmp_path, [long_answer(150)], slow_client_timeout=0.3) as s, raw_client(s.app.port) as raw:
        raw.call(STREAM, framed(wanted))
        (call,) = await until_called(s)
        await asyncio.wait_for(call.ended.wait(), 20)
        record = await record_of(s, wanted.request_id)
        again = s.generation.AttachGeneration(pb.AttachGenerationRequest(request_id=wanted.request_id))
        sizes = []
        async for response in again:
            sizes.append(sum(len(event.chunk.text) for event in response.events))
            if "completed" in kinds(response.events):
                break

    assert call.fate is Fate.ANSWERED
    assert record.state == lifecycle_pb2.REQUEST_STATE_COMPLETED
    assert sum(sizes) == 150 * len(PIECE)
    assert max(sizes) < 1_000_000


async def test_all_generations_of_a_stream_wait_for_its_caller_together(tmp_path):
    wanted = [request(str(i), quiet=True) for i in range(4)]
    script = [long_answer().model_copy(update={"times": 4})]
    async with opened(tmp_path, script, max_unread_bytes=1_000_000, slow_client_timeout=1.5) as s:
        call = s.generation.StreamGenerate(iter(map(command, wanted)))
        calls = await until_called(s, 4)
        for upstream in calls:
            await comes_to_rest(upstream)
        generations = [s.app.engine.running(one.request_id) for one in wanted]
        held = sum(generation._untaken for generation in generations)
        await asyncio.wait_for(asyncio.gather(*(upstream.ended.wait() for upstream in calls)), 20)
        records = [await record_of(s, one.request_id) for one in wanted]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await events_of(call)

    assert held < 8 * 1024 * 1024
    assert {record.error.subreason for record in records} == {"SLOW_CLIENT"}
    assert caught.value.code() is grpc.StatusCode.CANCELLED


async def test_a_reader_that_takes_everything_is_not_held_up_by_one_that_takes_nothing(tmp_path):
    wanted = request(quiet=True)
    script = [long_answer(200)]
    async with opened(tmp_path, script, max_unread_bytes=100_000) as s, raw_client(s.app.port) as raw:
        raw.call(STREAM, framed(wanted))
        await until_called(s)
        events = await events_of(s.generation.AttachGeneration(pb.AttachGenerationRequest(request_id=wanted.request_id)))
    assert len(text_of(events)) == 200 * len(PIECE)


async def test_a_whole_answer_is_not_held_up(tmp_path):
    async with opened(tmp_path, [Step(text="x" * 3_000_000)], max_unread_bytes=1_000) as s:
        response = await s.generation.Generate(request())
    assert len(response.result.content[0].text) == 3_000_000


async def test_a_caller_that_sends_and_does_not_read_is_not_listened_to_any_more(tmp_path):
    async with opened(tmp_path, []) as s, raw_client(s.app.port, window=0) as raw:
        stream = raw.call(STREAM, b"", half_close=False)
        for _ in range(999):
            raw.send(Type.DATA, 0, stream, NOTHING)
        raw.send(Type.DATA, END_STREAM, stream, NOTHING)
        await until(sessions)
        (session,) = sessions()
        await until(lambda: len(session._own_events) == 64)
        await asyncio.sleep(0.1)
        assert len(session._own_events) == 64
        raw.open_window(2**30, stream)
        await the_end(raw, stream)
        answers = b"".join(frame.payload for frame in raw.frames if frame.type == Type.DATA)
        assert answers.count(b"a command must be one of generate, resume and cancel") == 1_001


async def the_end(raw, stream):
    """Until the trailers of a stream."""
    await until(lambda: any((f.type, f.stream, f.flags & END_STREAM) == (Type.HEADERS, stream, END_STREAM) for f in raw.frames))


def sessions():
    """The streams that the service has at work."""
    coroutines = [task.get_coro() for task in asyncio.all_tasks()]
    return [one.cr_frame.f_locals["self"] for one in coroutines if one.__qualname__ == "_Session._take_commands" and one.cr_frame]


async def until(condition):
    while not condition():
        await asyncio.sleep(0.005)
