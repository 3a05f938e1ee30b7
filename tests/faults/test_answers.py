"""Rows F20 to F28: a provider answers with what is no answer, or cannot be reached."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

from grpc import StatusCode

from headrace_server.domain.errors import ReplaySafety
from headrace_server.fake_provider import FakeProvider, Fate
from support.faults import NO_FALLBACK, Row, Stage
from support.seen import SLACK, Seen

BACKOFF = ((0.8, 1.2), (1.6, 2.4))
"""The waits between three calls, in seconds."""


async def test_F20(row: Row) -> None:
    for script in ("F20a", "F20b", "F20c", "F20d", "F20e"):
        seen = await row.play(script)
        seen.answers(by="f", text="The fallback answers.")
        seen.waits(*BACKOFF)
        assert seen.attempts == ["p server_error/NON_JSON"] * 3 + ["f completed"]
        assert seen.calls == {"p": 3, "f": 1}

    seen = await row.play("F20a", "no fallback", request=NO_FALLBACK)
    seen.fails(StatusCode.UNAVAILABLE, "SERVER_ERROR", "NON_JSON")
    seen.waits(*BACKOFF)
    assert seen.calls == {"p": 3, "f": 0}


async def test_F21(row: Row) -> None:
    for script, how in (
        ("F21a", "MALFORMED_EVENT"),
        ("F21b", "MALFORMED_EVENT"),
        ("F21c", "EMPTY"),
        ("F21d", ""),
        ("F21e", "OVERLOADED"),
        ("F21f", "OVERLOADED"),
    ):
        seen = await row.play(script)
        seen.answers(by="f", text="The fallback answers.")
        seen.waits(*BACKOFF)
        assert seen.attempts == ["p server_error" + (f"/{how}" if how else "")] * 3 + ["f completed"]
        assert seen.calls == {"p": 3, "f": 1}

    seen = await row.play("F21g")
    seen.fails(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert [violation.field for violation in seen.details["BadRequest"].field_violations] == ["top_k"]
    assert seen.calls == {"p": 1, "f": 0}


async def test_F22(row: Row) -> None:
    async with FakeProvider() as elsewhere:
        for case, request in (("", None), ("no fallback", NO_FALLBACK)):
            redirect = {"status": 307, "headers": {"location": f"{elsewhere.api_url('openai')}/chat/completions"}, "body": ""}
            async with row.stage("F22", first={"calls": [redirect]}) as stage:
                seen = await stage.ask(request)
            row.add(seen, case)
            seen.waits()
            if request is None:
                seen.answers(by="f")
                assert seen.attempts == ["p server_error/REDIRECT_BLOCKED", "f completed"]
                assert seen.calls == {"p": 1, "f": 1}
            else:
                seen.fails(StatusCode.UNAVAILABLE, "SERVER_ERROR", "REDIRECT_BLOCKED")
                assert seen.calls == {"p": 1, "f": 0}
        assert elsewhere.requests == []


async def test_F23(row: Row) -> None:
    for script in ("F23a", "F23b", "F23c"):
        seen = await row.play(script)
        seen.answers(by="f")
        assert seen.attempts == ["p unknown_error", "f completed"]
        assert seen.calls == {"p": 1, "f": 1}

        seen = await row.play(script, "no fallback", request=NO_FALLBACK)
        seen.fails(StatusCode.UNKNOWN, "UNKNOWN_ERROR")
        assert seen.info["http_status"] == "418"
        assert seen.calls == {"p": 1, "f": 0}


async def test_F24(row: Row) -> None:
    with blackhole() as port:
        nowhere = {"settings": {"api_url": f"http://127.0.0.1:{port}/v1", "timeout_ms": 200}}
        for script, first in (("F24a", None), ("F24b", None), ("F24c", nowhere)):
            for case, request in (("", None), ("no fallback", NO_FALLBACK)):
                async with row.stage(script, first=first) as stage:
                    seen = await stage.ask(request)
                row.add(seen, case)
                seen.waits(*BACKOFF)
                if request is None:
                    seen.answers(by="f")
                    assert seen.attempts == ["p network_error"] * 3 + ["f completed"]
                    assert seen.calls == {"p": 0, "f": 1}
                else:
                    seen.fails(StatusCode.UNAVAILABLE, "NETWORK_ERROR")
                    assert seen.usage_source == ""
                    assert seen.calls == {"p": 0, "f": 0}
                cost_nothing(seen)


async def test_F25(row: Row) -> None:
    seen = await row.play("F25")
    seen.answers(by="f")
    seen.waits()
    assert seen.attempts == ["p network_error", "f completed"]
    assert seen.calls == {"p": 0, "f": 1}
    cost_nothing(seen)

    seen = await row.play("F25", "no fallback", request=NO_FALLBACK)
    seen.fails(StatusCode.UNAVAILABLE, "NETWORK_ERROR")
    assert seen.error is not None
    assert "certificate" in (seen.error.details() or "")
    assert seen.info["retryable"] == "false"
    assert seen.calls == {"p": 0, "f": 0}


async def test_F26(row: Row) -> None:
    async with row.stage("F26") as stage:
        first = await stage.ask()
        stage.leave_out_calls()
        seen = await stage.ask()
        assert stage.provider.stats()["connections"] == 2
    first.answers(by="p", text="The first answer.")
    seen.answers(by="p", text="The second answer.", path="validating requesting streaming completed")
    assert seen.attempts == ["p completed"]
    assert seen.calls == {"p": 1, "f": 0}
    assert [call.connection for call in (*first.asked["p"], *seen.asked["p"])] == [1, 2]
    row.add(seen)


async def test_F27(row: Row) -> None:
    for case, request in (("", None), ("no fallback", NO_FALLBACK)):
        async with row.stage("F27") as stage:
            async with asking(stage, request) as asked:
                for number in (1, 2, 3):
                    await until_called(stage, number)
                    stage.clock.advance(30)
                seen = await asked
            for call in stage.provider.requests_of("p"):
                await call.ended.wait()
                assert call.fate is Fate.CALLER_LEFT
        row.add(seen, case)
        seen.waits(*BACKOFF)
        if request is None:
            seen.answers(by="f")
            assert seen.attempts == ["p timeout/TTFT"] * 3 + ["f completed"]
            assert seen.calls == {"p": 3, "f": 1}
        else:
            seen.fails(StatusCode.DEADLINE_EXCEEDED, "TIMEOUT", "TTFT")
            assert seen.calls == {"p": 3, "f": 0}
        assert seen.row is not None
        for attempt in seen.row.attempts[:3]:
            assert attempt.duration is not None
            assert 30_000 <= attempt.duration < 30_000 + SLACK
            assert attempt.replay_safety is ReplaySafety.UNCERTAIN, "the provider may bill what it never answered"
            assert attempt.usage is not None


async def test_F28(row: Row) -> None:
    seen = await row.play("F28")
    seen.answers(by="p", text="The second try answers.", path="validating requesting retrying requesting streaming completed")
    seen.waits((0.8, 1.2))
    assert seen.attempts == ["p network_error/STREAM_TRUNCATED", "p completed"]
    assert seen.calls == {"p": 2, "f": 0}


def cost_nothing(seen: Seen) -> None:
    """Of what was never sent the record says so, and counts no tokens."""
    assert seen.row is not None
    failed = [attempt for attempt in seen.row.attempts if attempt.error is not None]
    assert failed
    assert {(attempt.replay_safety, attempt.usage) for attempt in failed} == {(ReplaySafety.NOT_SENT, None)}


@contextlib.contextmanager
def blackhole() -> Iterator[int]:
    """A port that takes no connection and refuses none: its queue is full."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@contextlib.asynccontextmanager
async def asking(stage: Stage, request: Any) -> AsyncIterator["asyncio.Task[Seen]"]:
    """Ask meanwhile."""
    asked = asyncio.create_task(stage.ask(request))
    try:
        yield asked
    finally:
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)


async def until_called(stage: Stage, count: int) -> None:
    while len(stage.provider.requests_of("p")) < count:
        await asyncio.sleep(0.005)
