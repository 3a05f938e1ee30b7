"""Rows F29 to F48: a stream breaks, stalls, is malformed, too large or oddly made, counts wrongly, or ends in an unusual way."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc import StatusCode

from headrace.v1 import result_pb2
from headrace_server.domain.limits import LimitType
from headrace_server.domain.result import FinishReason
from headrace_server.fake_provider import Fate
from support.faults import NO_FALLBACK, Row, Stage
from support.seen import SLACK, Seen

BACKOFF = ((0.8, 1.2), (1.6, 2.4))
"""The waits between three calls, in seconds."""
SECOND_TRY = "The second try answers."
RETRIED = "validating requesting retrying requesting streaming completed"
BROKE_OFF = "validating requesting streaming failed"
TEXT = "héllo 水 🌊 wörld"
PATIENT = {"slow_client_timeout": 3600}
"""Settings where minutes pass at once: what is written to the caller is on its way in a thread that has another clock."""
ROUNDS = 20
"""Rounds of the event loop in which all that is on its way over loopback arrives."""


# ---------------------------------------------------------------- the stream breaks


async def test_F29(row: Row) -> None:
    seen = await row.play("F29")
    seen.answers(by="p", text=SECOND_TRY, path=RETRIED)
    seen.waits((0.8, 1.2))
    assert seen.attempts == ["p server_error/OVERLOADED", "p completed"]
    assert seen.calls == {"p": 2, "f": 0}


async def test_F30(row: Row) -> None:
    seen = await row.play("F30")
    breaks_off(seen, StatusCode.UNAVAILABLE, "SERVER_ERROR", "OVERLOADED", text="one two three")
    assert [chunk.text for chunk in seen.chunks] == ["one", " two", " three"]


async def test_F31(row: Row) -> None:
    seen = await row.play("F31")
    breaks_off(seen, StatusCode.UNAVAILABLE, "SERVER_ERROR", text="one two three")


async def test_F32(row: Row) -> None:
    seen = await row.play("F32")
    breaks_off(seen, StatusCode.UNAVAILABLE, "SERVER_ERROR", "OVERLOADED", text="one two three")


async def test_F33(row: Row) -> None:
    for script in ("F33a", "F33b", "F33c", "F33d"):
        seen = await row.play(script)
        breaks_off(seen, StatusCode.UNAVAILABLE, "NETWORK_ERROR", "STREAM_TRUNCATED", text="one two")


# ---------------------------------------------------------------- the stream stalls


async def test_F34(row: Row) -> None:
    async with row.stage("F34") as stage:
        call, request = stage.begin()
        events, stalled = stage.events(call), []
        while sum(event.HasField("chunk") for event in stalled) < 2:
            stalled.append(await anext(events))
        stage.clock.advance(30)
        seen = await rest_of(stage, request, stalled, events)
        (upstream,) = stage.provider.requests_of("p")
        await upstream.ended.wait()
        assert upstream.fate is Fate.CALLER_LEFT
    row.add(seen)
    breaks_off(seen, StatusCode.DEADLINE_EXCEEDED, "TIMEOUT", "STREAM_IDLE", text="one two")
    lasted(seen, 30)


async def test_F35(row: Row) -> None:
    async with row.stage("F35a", **PATIENT) as stage:
        call, request = stage.begin()
        events, stalled = stage.events(call), []
        while sum(event.HasField("chunk") for event in stalled) < 2:
            stalled.append(await anext(events))
        await let_pass(stage, 120, step=10)
        seen = await rest_of(stage, request, stalled, events)
    row.add(seen)
    breaks_off(seen, StatusCode.DEADLINE_EXCEEDED, "TIMEOUT", "PROGRESS", text="one two")
    lasted(seen, 120)

    for script, subreason, seconds in (("F35b", "PROGRESS", 120), ("F35c", "TTFT", 30)):
        seen = await played_slowly(row, script, seconds, step=10, times=3)
        seen.answers(by="f", text="The fallback answers.")
        seen.waits(*BACKOFF)
        assert seen.attempts == [f"p timeout/{subreason}"] * 3 + ["f completed"]
        assert seen.calls == {"p": 3, "f": 1}
        lasted(seen, seconds)

        seen = await played_slowly(row, script, seconds, step=10, times=3, case="no fallback", request=NO_FALLBACK)
        seen.fails(StatusCode.DEADLINE_EXCEEDED, "TIMEOUT", subreason)
        seen.waits(*BACKOFF)
        assert seen.calls == {"p": 3, "f": 0}


async def test_F36(row: Row) -> None:
    seen = await played_slowly(row, "F36a", 120, step=1)
    breaks_off(seen, StatusCode.DEADLINE_EXCEEDED, "TIMEOUT", text="one two")
    lasted(seen, 120)

    seen = await played_slowly(row, "F36b", 120, step=1)
    seen.fails(StatusCode.DEADLINE_EXCEEDED, "TIMEOUT", path="validating requesting failed")
    assert seen.attempts == ["p timeout"]
    assert seen.calls == {"p": 1, "f": 0}
    lasted(seen, 120)

    seen = await played_slowly(row, "F36c", 30, step=1, times=3)
    seen.answers(by="f", text="The fallback answers.")
    seen.waits(*BACKOFF)
    assert seen.attempts == ["p timeout/TTFT"] * 3 + ["f completed"]
    assert seen.calls == {"p": 3, "f": 1}


# ---------------------------------------------------------------- the stream is malformed, odd, or too large


async def test_F37(row: Row) -> None:
    seen = await row.play("F37a")
    seen.answers(by="p", text=SECOND_TRY, path=RETRIED)
    seen.waits((0.8, 1.2))
    assert seen.attempts == ["p server_error/MALFORMED_EVENT", "p completed"]
    assert seen.calls == {"p": 2, "f": 0}

    seen = await row.play("F37b")
    breaks_off(seen, StatusCode.UNAVAILABLE, "SERVER_ERROR", "MALFORMED_EVENT", text="one two")


async def test_F38(row: Row) -> None:
    for script in ("F38a", "F38b", "F38c", "F38d"):
        seen = await row.play(script)
        answers_at_once(seen, text="one two")
        assert seen.usage_source == "provider"


async def test_F39(row: Row) -> None:
    for script in ("F39a", "F39b", "F39c", "F39d", "F39e", "F39f", "F39g"):
        seen = await row.play(script)
        answers_at_once(seen, text=TEXT)
        assert "".join(part.text for part in seen.result.content).encode() == TEXT.encode()


async def test_F40(row: Row) -> None:
    for script in ("F40a", "F40b"):
        seen = await row.play(script)
        seen.answers(by="f", text="The fallback answers.")
        seen.waits(*BACKOFF)
        assert seen.attempts == ["p server_error/EVENT_TOO_LARGE"] * 3 + ["f completed"]
        assert seen.calls == {"p": 3, "f": 1}


async def test_F41(row: Row) -> None:
    seen = await row.play("F41")
    seen.answers(by="f", text="The fallback answers.")
    seen.waits(*BACKOFF)
    assert {call.headers["accept-encoding"] for call in seen.asked["p"]} == {"identity"}
    assert seen.attempts == ["p server_error/MALFORMED_EVENT"] * 3 + ["f completed"]
    assert seen.calls == {"p": 3, "f": 1}


# ---------------------------------------------------------------- the stream counts wrongly


async def test_F42(row: Row) -> None:
    for script in ("F42a", "F42b", "F42c", "F42d", "F42e"):
        async with row.stage(script) as stage:
            seen = await stage.ask()
            (window,) = await stage.app.store.list_windows("p")
        row.add(seen)
        answers_at_once(seen, text="one two three")
        assert seen.usage_source == "estimated"
        usage = seen.result.usage
        assert usage.total_tokens == usage.input_tokens + usage.output_tokens
        assert 0 < usage.input_tokens < 100
        assert 0 < usage.output_tokens < 100
        assert window.limit_type is LimitType.TOKENS_PER_MINUTE
        assert window.reserved == 0
        assert 103 <= window.current_usage < 200, "what was reserved is not given back, and nonsense does not use up the limit"


# ---------------------------------------------------------------- the stream ends in an unusual way


async def test_F43(row: Row) -> None:
    for script in ("F43a", "F43b", "F43c", "F43d"):
        seen = await row.play(script)
        answers_at_once(seen, text="one two three")
        assert seen.result.finish_reason == result_pb2.FINISH_REASON_STOP
        assert (seen.result.usage.input_tokens, seen.result.usage.output_tokens) == (9, 4)


async def test_F44(row: Row) -> None:
    for script, how in (("F44a", "network_error/STREAM_TRUNCATED"), ("F44b", "server_error/EMPTY"), ("F44c", "server_error/EMPTY")):
        seen = await row.play(script)
        seen.answers(by="p", text=SECOND_TRY, path=RETRIED)
        seen.waits((0.8, 1.2))
        assert seen.attempts == [f"p {how}", "p completed"]
        assert seen.calls == {"p": 2, "f": 0}


async def test_F45(row: Row) -> None:
    for script, native, refusal in (
        ("F45a", "SAFETY", ""),
        ("F45b", "refusal", ""),
        ("F45c", "stop", "I cannot go on."),
        ("F45d", "completed", "I cannot go on."),
    ):
        seen = await row.play(script)
        answers_at_once(seen, text="one two three")
        assert seen.result.finish_reason == result_pb2.FINISH_REASON_CONTENT_FILTER
        assert seen.result.native_finish_reason == native
        assert "".join(part.refusal for part in seen.result.content) == refusal


async def test_F46(row: Row) -> None:
    for script, arguments in (("F46a", None), ("F46b", '{"city": "Par'), ("F46c", '{"city": "Par')):
        seen = await row.play(script)
        answers_at_once(seen, text="", path="validating requesting completed" if arguments is None else None)
        assert seen.result.finish_reason == result_pb2.FINISH_REASON_LENGTH, "a call that was cut is not one to be run"
        assert [part.tool_call.arguments_json for part in seen.result.content] == ([] if arguments is None else [arguments])
        assert seen.row is not None
        assert seen.row.response_data is not None
        assert seen.row.response_data.finish_reason is FinishReason.LENGTH


async def test_F47(row: Row) -> None:
    seen = await row.play("F47")
    seen.answers(by="p", text=SECOND_TRY, path=RETRIED)
    seen.waits((0.8, 1.2))
    assert seen.attempts == ["p server_error", "p completed"]
    assert seen.calls == {"p": 2, "f": 0}


async def test_F48(row: Row) -> None:
    seen = await row.play("F48")
    seen.answers(by="f", text="The fallback answers.", path="validating requesting streaming validating requesting streaming completed")
    seen.waits()
    kinds = [event.WhichOneof("event") for event in seen.events if event.WhichOneof("event") != "transition"]
    assert kinds.count("discontinuity") == 1
    assert kinds.index("discontinuity") == 3
    (seam,) = (event.discontinuity for event in seen.events if event.HasField("discontinuity"))
    assert (seam.discard_from_index, seam.provider, seam.attempt) == (0, "f", 2)
    assert [chunk.index for chunk in seen.chunks] == list(range(len(seen.chunks)))
    assert seen.attempts == ["p server_error/OVERLOADED", "f completed"]
    assert [attempt.usage.source for attempt in seen.result.attempts] == [3, 1], "an estimate, then what the provider reported"
    assert seen.calls == {"p": 1, "f": 1}


# ---------------------------------------------------------------- what the rows share


def breaks_off(seen: Seen, status: StatusCode, reason: str, subreason: str = "", *, text: str) -> None:
    """It failed after some text, which is kept, and nobody was asked again."""
    seen.fails(status, reason, subreason, path=BROKE_OFF)
    seen.waits()
    assert seen.text == seen.partial_text == text
    assert seen.events[-1].failed.partial.finish_reason == result_pb2.FINISH_REASON_ERROR
    assert "".join(part.text for part in seen.events[-1].failed.partial.content) == text
    assert seen.info["delivered_chunks"] == str(len(seen.chunks))
    assert seen.attempts == [f"p {reason.lower()}" + (f"/{subreason}" if subreason else "")]
    assert seen.usage_source == "estimated"
    assert seen.calls == {"p": 1, "f": 0}


def answers_at_once(seen: Seen, *, text: str, path: str | None = None) -> None:
    """The first call answered with this text."""
    seen.answers(by="p", text=text, path=path or "validating requesting streaming completed")
    seen.waits()
    assert seen.attempts == ["p completed"]
    assert seen.calls == {"p": 1, "f": 0}


def lasted(seen: Seen, seconds: int) -> None:
    """Each failed attempt was given up after so long."""
    assert seen.row is not None
    durations = [attempt.duration for attempt in seen.row.attempts if attempt.error is not None]
    assert durations
    for duration in durations:
        assert duration is not None
        assert seconds * 1000 <= duration < seconds * 1000 + SLACK


async def rest_of(stage: Stage, request: Any, events: list[Any], coming: AsyncIterator[Any]) -> Seen:
    """What follows these events, and what became of the request."""
    error = None
    try:
        async for event in coming:
            events.append(event)  # noqa: PERF401 - what came before an error counts
    except grpc.aio.AioRpcError as failed:
        error = failed
    return await stage.seen(request, events, error)


async def played_slowly(row: Row, script: str, seconds: int, *, step: int, times: int = 1, case: str = "", request: Any = None) -> Seen:
    """Ask as the script says, and let so much time pass in each of the first calls."""
    async with row.stage(script, **PATIENT) as stage:
        asked = asyncio.create_task(stage.ask(request))
        for number in range(1, times + 1):
            while len(stage.provider.requests_of("p")) < number and not asked.done():
                await asyncio.sleep(0.005)
            await let_pass(stage, seconds, step=step)
        seen = await asked
    row.add(seen, case)
    return seen


async def let_pass(stage: Stage, seconds: int, *, step: int) -> None:
    """Let time pass, a step at a time, and all that a step causes arrive before the next."""
    for _ in range(seconds // step):
        await arrive()
        stage.clock.advance(step)
    await arrive()


async def arrive() -> None:
    for _ in range(ROUNDS):
        await asyncio.sleep(0)
