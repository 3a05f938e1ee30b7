"""The scenario of tests/clients/README.md, with the Python client for asyncio."""

import asyncio

import pytest

import headrace
from headrace import aio
from headrace.v1.error_pb2 import ERROR_CODE_CANCELLED, ERROR_CODE_TIMEOUT
from headrace.v1.lifecycle_pb2 import REQUEST_STATE_FAILED
from support.scenario import (
    EMPTY_PART,
    EMPTY_PART_FIELDS,
    FIELDS,
    PROMPT,
    SAID,
    TOKENS,
    WEATHER,
    check_stream,
    check_tool_call,
    check_unary,
    way,
)

pytestmark = pytest.mark.slow  # `make test-clients` runs them with those of the other languages


async def test_unary_gives_the_whole_answer(aclient, step):
    with step("unary"):
        request_id = headrace.new_id()
        answer = await aclient.generate(PROMPT, provider="echo", request_id=request_id, **FIELDS)

        assert answer.request_id == request_id
        assert (answer.text, answer.finish_reason) == (SAID, "stop")
        check_unary(answer.result)


async def test_stream_gives_every_event(aclient, step):
    with step("stream"):
        async with aclient.stream(PROMPT, provider="slow", timeout=20, **FIELDS) as stream:
            events = [event async for event in stream.events()]

        check_stream(events)
        assert (await stream.answer()).text == stream.text == "".join(TOKENS)


async def test_stream_gives_the_pieces_of_the_text(aclient):
    async with aclient.stream(PROMPT, provider="slow", **FIELDS) as stream:
        assert [piece async for piece in stream] == TOKENS


async def test_tool_call_and_its_result_make_a_conversation(aclient, step):
    with step("tool_call"):
        async with aclient.stream(PROMPT, provider="tool", tools=[WEATHER], **FIELDS) as stream:
            check_tool_call([event async for event in stream.events()])
        answer = await stream.answer()
        (call,) = answer.tool_calls

        conversation = [headrace.user(PROMPT), answer.message, headrace.tool_result(call.id, "sunny")]
        assert (await aclient.generate(conversation, provider="echo", tools=[WEATHER], **FIELDS)).text.startswith("You said: sunny ")


async def test_two_on_one_stream_end_each_with_its_own_answer(aclient, step):
    with step("two_on_one_stream"):
        async with aclient.session() as session:
            slow = session.stream(PROMPT, provider="slow", **FIELDS)
            echo = await session.generate(PROMPT, provider="echo", **FIELDS)

            assert echo.text == SAID
            assert slow.text != "".join(TOKENS), "the fast one waited for the slow one"
            assert (await slow.answer()).text == "".join(TOKENS)


async def test_cancel_ends_the_generation_and_tells_what_there_was(aclient, step):
    with step("cancel"):
        async with aclient.session() as session:
            stream = session.stream(PROMPT, provider="slow", **FIELDS)
            await anext(stream)
            stream.cancel()
            with pytest.raises(headrace.Cancelled) as caught:
                await stream.answer()

        partial = caught.value.partial
        assert partial is not None
        assert partial.text != "".join(TOKENS)
        assert "".join(TOKENS).startswith(partial.text)
        record = await aclient.get(stream.request_id)
        assert (record.state, record.error_code) == (REQUEST_STATE_FAILED, ERROR_CODE_CANCELLED)


async def test_deadline_reaches_the_service(aclient, step):
    with step("deadline"):
        with pytest.raises(headrace.TimedOut) as caught:
            await aclient.generate(PROMPT, provider="stuck", timeout=0.3, **FIELDS)
        await aclient.wait_for_cancel(caught.value.request_id)
        assert (await aclient.get(caught.value.request_id)).error_code == ERROR_CODE_TIMEOUT


async def test_resume_after_every_cut_loses_nothing(proxy, step):
    with step("resume"):
        async with aio.Client(proxy) as client, client.stream(PROMPT, provider="slow", timeout=20, **FIELDS) as stream:
            check_stream([event async for event in stream.events()])


async def test_rate_limit_says_when_to_come_back(aclient, step):
    with step("rate_limit"):
        with pytest.raises(headrace.RateLimited) as caught:
            await aclient.generate(PROMPT, provider="limited", **FIELDS)

        assert (caught.value.code, caught.value.http_status) == ("rate_limit_exceeded", 429)
        assert caught.value.retry_after == pytest.approx(7, abs=1.4)


async def test_invalid_names_every_wrong_field(aclient, step):
    with step("invalid"):
        with pytest.raises(headrace.InvalidRequest) as caught:
            await aclient.generate(EMPTY_PART, provider="echo", temperature=3, **FIELDS)

        assert {violation.field for violation in caught.value.field_violations} == EMPTY_PART_FIELDS


async def test_watch_tells_the_way_of_what_was_submitted(aclient, step):
    with step("watch"):
        request_id = await aclient.submit(PROMPT, provider="slow", **FIELDS)
        transitions = [transition async for transition in aclient.watch(request_id)]

        assert way(transitions) == ["IDLE", "VALIDATING", "REQUESTING", "STREAMING", "COMPLETED"]
        events = [event async for event in aclient.attach(request_id, 60).events()]
        assert [event.chunk.index for event in events if event.HasField("chunk")] == [60, 61, 62, 63, 64]


async def test_a_cancelled_task_cancels_its_generation(aclient):
    request_id = headrace.new_id()
    task = asyncio.create_task(aclient.generate(PROMPT, provider="stuck", request_id=request_id, **FIELDS))
    async for transition in _watched(aclient, request_id):
        if transition.provider:
            break
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await aclient.wait_for_cancel(request_id)

    assert (await aclient.get(request_id)).error_code == ERROR_CODE_CANCELLED


async def test_a_wait_that_was_given_up_is_begun_again_without_a_loss(aclient):
    pieces, given_up = [], 0
    async with aclient.stream(PROMPT, provider="slow", **FIELDS) as stream:
        while True:
            try:
                pieces.append(await asyncio.wait_for(anext(stream), 0.015 + 0.002 * given_up))
            except TimeoutError:
                given_up += 1
            except StopAsyncIteration:
                break

    assert given_up
    assert "".join(pieces) == "".join(TOKENS)


async def _watched(client: aio.Client, request_id: str):
    """The transitions of a request that may not have arrived yet."""
    while True:
        try:
            async for transition in client.watch(request_id):
                yield transition
            return
        except headrace.NotFound:
            await asyncio.sleep(0.01)
