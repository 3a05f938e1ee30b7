"""What becomes of a generation of the Python client when its stream, its session or its caller leaves it."""

import asyncio
import contextlib
import gc

import pytest

import headrace
from headrace.v1 import error_pb2, lifecycle_pb2, request_pb2
from support.scenario import FIELDS, PROMPT, TOKENS

RUNNING_ON = [request_pb2.DISCONNECT_POLICY_DRAIN, request_pb2.DISCONNECT_POLICY_KEEP]


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_stream_that_is_not_read_to_its_end_cancels_its_generation(client, how):
    stream = client.stream(PROMPT, provider="slow", **FIELDS)
    request_id = stream.request_id
    next(stream)
    if how == "close":
        stream.close()
    del stream
    gc.collect()
    client.wait_for_cancel(request_id)

    assert client.get(request_id).error_code == error_pb2.ERROR_CODE_CANCELLED


def test_a_closed_session_leaves_nothing_running(client):
    with client.session() as session:
        streams = [session.stream(PROMPT, provider=name, **FIELDS) for name in ("slow", "stuck")]
        next(streams[0])

    assert [client.get(stream.request_id).error_code for stream in streams] == [error_pb2.ERROR_CODE_CANCELLED] * 2
    with pytest.raises(ValueError, match="closed"):
        session.stream(PROMPT)


def test_one_of_a_session_ends_and_the_others_go_on(client):
    with client.session() as session:
        kept, dropped = (session.stream(PROMPT, provider="slow", **FIELDS) for _ in range(2))
        next(dropped)
        dropped.close()
        assert client.get(dropped.request_id).error_code == error_pb2.ERROR_CODE_CANCELLED
        assert kept.answer().text == "".join(TOKENS)


@pytest.mark.timeout(20)
def test_what_is_asked_for_with_drain_or_keep_runs_on_when_it_is_left(client):
    asked = [{"provider": "slow", "on_disconnect": policy, **FIELDS} for policy in RUNNING_ON]
    session = client.session()
    closed = [begin(PROMPT, **fields) for begin in (client.stream, session.stream) for fields in asked]
    dropped = [begin(PROMPT, **fields) for begin in (client.stream, session.stream) for fields in asked]
    with session:
        read_on = [session.stream(PROMPT, **fields) for fields in asked]
        for stream in (*closed, *dropped, *read_on):
            next(stream)
        for stream in closed:
            stream.close()
        ids = [stream.request_id for stream in (*closed, *dropped, *read_on)]
        del stream, dropped
        gc.collect()
        never_read = session.stream(PROMPT, **asked[1])

    assert [_end(client, request_id) for request_id in (*ids, never_read.request_id)] == ["COMPLETED"] * 11
    assert client.attach(never_read.request_id).answer().text == "".join(TOKENS)


@pytest.mark.timeout(20)
async def test_what_is_asked_for_with_drain_or_keep_runs_on_when_it_is_left_in_asyncio(client, aclient):
    asked = [{"provider": "slow", "on_disconnect": policy, **FIELDS} for policy in RUNNING_ON]
    session = aclient.session()
    closed = [begin(PROMPT, **fields) for begin in (aclient.stream, session.stream) for fields in asked]
    dropped = [begin(PROMPT, **fields) for begin in (aclient.stream, session.stream) for fields in asked]
    async with session:
        read_on = [session.stream(PROMPT, **fields) for fields in asked]
        for stream in (*closed, *dropped, *read_on):
            await anext(stream)
        for stream in closed:
            await stream.close()
        ids = [stream.request_id for stream in (*closed, *dropped, *read_on)]
        del stream, dropped
        gc.collect()
        never_read = session.stream(PROMPT, **asked[1])

    assert [await asyncio.to_thread(_end, client, request_id) for request_id in (*ids, never_read.request_id)] == ["COMPLETED"] * 11
    assert (await aclient.attach(never_read.request_id).answer()).text == "".join(TOKENS)


@pytest.mark.timeout(20)
async def test_an_interrupted_generate_runs_on_when_its_policy_is_keep(aclient):
    request_id = headrace.new_id()
    fields = {"provider": "stuck", "on_disconnect": request_pb2.DISCONNECT_POLICY_KEEP, **FIELDS}
    asked = asyncio.create_task(aclient.generate(PROMPT, request_id=request_id, **fields))
    while True:
        with contextlib.suppress(headrace.NotFound):
            await aclient.get(request_id)
            break
        await asyncio.sleep(0.01)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked

    await aclient.wait_for_cancel(request_id)
    assert (await aclient.get(request_id)).state != lifecycle_pb2.REQUEST_STATE_FAILED
    await aclient.cancel(request_id)


@pytest.mark.timeout(20)
async def test_what_runs_on_by_itself_is_cancelled_on_request(client, aclient):
    fields = {"provider": "slow", "on_disconnect": request_pb2.DISCONNECT_POLICY_KEEP, **FIELDS}
    async with aclient.session() as session:
        for stream in (aclient.stream(PROMPT, **fields), session.stream(PROMPT, **fields)):
            await anext(stream)
            stream.cancel()
            with pytest.raises(headrace.Cancelled):
                await stream.answer()

    def blocking() -> None:
        with client.session() as session:
            for stream in (client.stream(PROMPT, **fields), session.stream(PROMPT, **fields)):
                next(stream)
                stream.cancel()
                with pytest.raises(headrace.Cancelled):
                    stream.answer()

    await asyncio.to_thread(blocking)


@pytest.mark.timeout(20)
async def test_a_closed_session_ends_only_what_does_not_run_on(client, aclient):
    policies = (request_pb2.DISCONNECT_POLICY_CANCEL, request_pb2.DISCONNECT_POLICY_KEEP)
    asked = [{"provider": "stuck", "on_disconnect": policy, **FIELDS} for policy in policies]
    async with aclient.session() as session:
        streams = [session.stream(PROMPT, **fields) for fields in asked]

    def blocking() -> list[headrace.Stream]:
        with client.session() as session:
            ended, left = (session.stream(PROMPT, **fields) for fields in asked)
        with pytest.raises(headrace.ConnectionLost):
            left.answer()
        return [ended, left]

    with pytest.raises(headrace.ConnectionLost):
        await streams[1].answer()
    for ended, left in (streams, await asyncio.to_thread(blocking)):
        assert (await aclient.get(ended.request_id)).error_code == error_pb2.ERROR_CODE_CANCELLED
        assert (await aclient.get(left.request_id)).state != lifecycle_pb2.REQUEST_STATE_FAILED
        await aclient.cancel(left.request_id)


def test_a_reader_of_somebody_elses_generation_does_not_end_it(client):
    request_id = client.submit(PROMPT, provider="slow", **FIELDS)
    with client.attach(request_id) as reader:
        next(reader)

    assert client.attach(request_id).answer().text == "".join(TOKENS)


def _end(client: headrace.Client, request_id: str) -> str:
    """The state in which it ends."""
    *_, last = client.watch(request_id)
    return lifecycle_pb2.RequestState.Name(last.to_state).removeprefix("REQUEST_STATE_")
