"""What providers say of limits and of errors, through the whole service: what is believed, what is kept, what is told and to whom."""

import io
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from headrace.v1 import analytics_service_pb2, provider_service_pb2, request_service_pb2
from headrace_server import app
from headrace_server.config import FileProvider
from headrace_server.fake_provider import Break, FakeProvider, Step
from headrace_server.telemetry.logging import OUR_LOGGERS, configure_logging
from support.service import Service, command, details, request, service, settings

KEY = "canary-5be1f0-7f3a9d"
"""Looks like no key: only who knows it can find it."""
LOOKS_LIKE_ONE = "sk-canary-0123456789"


async def record(s: Service, request_id: str) -> Any:
    """The record, once the request has ended."""
    async for _ in s.requests.WatchRequest(request_service_pb2.WatchRequestRequest(request_id=request_id)):
        pass
    return (await s.requests.GetRequest(request_service_pb2.GetRequestRequest(request_id=request_id))).request


async def streamed(s: Service, wanted: Any) -> tuple[list[Any], grpc.aio.AioRpcError | None]:
    """The events of a stream, and what it ended with."""
    events: list[Any] = []
    try:
        async for response in s.generation.StreamGenerate(iter([command(wanted)])):
            events += response.events
    except grpc.aio.AioRpcError as error:
        return events, error
    return events, None


async def refused(s: Service, wanted: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await s.generation.Generate(wanted)
    return caught.value


# ---------------------------------------------------------------- limits


async def quotas(s: Service) -> dict[str, Any]:
    listed = await s.providers.ListQuotas(provider_service_pb2.ListQuotasRequest())
    return {provider_service_pb2.LimitType.Name(quota.limit_type).removeprefix("LIMIT_TYPE_"): quota for quota in listed.quotas}


@pytest.fixture
def mid_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock is in the middle of a minute: what was used in one leaves with every moment of the next."""
    shift = 30_000 - app.wall_clock() % 60_000
    monkeypatch.setattr(app, "wall_clock", lambda: time.time_ns() // 1_000_000 + shift)


@pytest.mark.usefixtures("mid_minute")
@pytest.mark.parametrize("status", [200, 429])
async def test_what_a_provider_says_is_left_bounds_what_is_sent_to_it(tmp_path: Path, status: int) -> None:
    headers = {
        "x-ratelimit-remaining-requests": "7",
        "x-ratelimit-reset-requests": "23h59m",
        "x-ratelimit-remaining-tokens": "0",
        "retry-after": "1",
    }
    async with FakeProvider([Step(status=status, headers=headers)]) as provider:
        fake = settings(tmp_path, provider).providers["fake"].model_dump()
        limits = {"rate_limit_rpm": 60, "rate_limit_tpm": 100_000, "rate_limit_rpd": 1_000}
        limited = FileProvider(**(fake | limits | {"api_url": provider.api_url("openai")}))
        async with service(tmp_path, providers={"fake": limited}) as s:
            if status == 200:
                await s.generation.Generate(request())
            else:
                await refused(s, request())
            now = await quotas(s)
            assert now["REQUESTS_PER_DAY"].used == 993
            assert now["REQUESTS_PER_MINUTE"].used == 1
            assert now["TOKENS_PER_MINUTE"].used == 100_000
            error = await refused(s, request(timeouts={"total": {"seconds": 1}}))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert details(error)["ErrorInfo"].metadata["origin"] == "gateway"
            assert len(provider.requests) == 1


# ---------------------------------------------------------------- long texts


def size_of(error: grpc.aio.AioRpcError) -> int:
    return sum(len(value) for name, value in error.trailing_metadata() or () if name == "grpc-status-details-bin")


async def test_a_long_error_is_kept_in_the_record_and_told_in_short(tmp_path: Path) -> None:
    words = " ".join(f"word {n} and the key {LOOKS_LIKE_ONE}" for n in range(20_000))
    body = json.dumps({"error": {"message": words, "type": "server_error"}})
    assert len(body) > 800_000
    async with service(tmp_path, [Step(status=500, body=body)]) as s:
        wanted = request()
        error = await refused(s, wanted)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert len((error.details() or "").encode()) <= 1_000
        assert size_of(error) <= 4_000
        assert (error.details() or "").startswith("word 0 and the key [redacted] word 1 and")

        kept = await record(s, wanted.request_id)
        (attempt,) = kept.attempts
        assert attempt.error.provider_text.startswith('{"error": {"message": "word 0 and the key [redacted] word 1')
        assert 60_000 < len(attempt.error.provider_text.encode()) <= 65_536
        assert kept.error.provider_text == ""
        assert [attempt.error.provider_text for attempt in kept.response_data.attempts] == [""]
        (listed,) = (await s.requests.ListRequests(request_service_pb2.ListRequestsRequest())).requests
        assert [attempt.error.provider_text for attempt in listed.attempts] == [""]
        assert listed.attempts[0].error.message == attempt.error.message

        events, error_of_stream = await streamed(s, request(request_id=wanted.request_id))
        assert error_of_stream is not None
        assert size_of(error_of_stream) <= 4_000
        last = events[-1].failed
        assert last.ByteSize() < 5_000
        assert last.attempts[0].error.provider_text == ""
    for file in tmp_path.iterdir():
        assert LOOKS_LIKE_ONE.encode() not in file.read_bytes()


# ---------------------------------------------------------------- keys

ECHO = f"the key {KEY} and the key {LOOKS_LIKE_ONE} are wrong"
EVENT = {"choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}]}
PATHS: dict[str, Callable[[], Step]] = {
    "error body": lambda: Step(status=401, body={"error": {"message": ECHO, "type": ECHO, "code": ECHO, "param": ECHO}}),
    "unknown error": lambda: Step(status=418, body={"error": {"message": ECHO, "type": "brand_new"}}),
    "no JSON": lambda: Step(status=502, body=f"<html>{ECHO}</html>"),
    "a text in place of an error": lambda: Step(status=400, body={"error": ECHO}),
    "violations": lambda: Step(status=422, body={"detail": [{"loc": ["body", KEY], "msg": ECHO}]}),
    "request id": lambda: Step(status=500, headers={"x-request-id": KEY}, body={"error": {"message": "x"}}),
    "long error": lambda: Step(status=500, body={"error": {"message": "y" * 1_010 + KEY + "z" * 64_000 + KEY * 200}}),
    "error in a 200": lambda: Step(body={"error": {"message": ECHO, "type": "server_error"}}),
    "error inside a stream": lambda: Step(events=(EVENT, {"error": {"message": ECHO, "code": ECHO}})),
    "error before the first piece": lambda: Step(events=({"error": {"message": ECHO, "code": 503}},)),
    "malformed event": lambda: Step(events=(EVENT, f"data: {{{ECHO}")),
    "malformed answer": lambda: Step(body=f"{{{ECHO}"),
    "finish reason": lambda: Step(events=(EVENT, {"choices": [{"index": 0, "delta": {}, "finish_reason": ECHO}]})),
    "redirect": lambda: Step(status=307, headers={"location": f"http://127.0.0.1:1/?key={KEY}"}, body=ECHO),
    "cut": lambda: Step(text="Hello there", fault=Break(kind="reset", after_bytes=60)),
    "reset before headers": lambda: Step(fault=Break(kind="reset", before_headers=True)),
}


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """All that is logged, also what is only for debugging."""
    loggers = [logging.getLogger(name) for name in ("", *OUR_LOGGERS)]
    before = [(logger.level, logger.handlers[:]) for logger in loggers]
    stream = io.StringIO()
    configure_logging("debug", json=True, stream=stream)
    yield stream
    logging.captureWarnings(False)
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_key_is_told_nowhere_whatever_goes_wrong(tmp_path: Path, path: str, stream: bool, logged: io.StringIO) -> None:
    async with FakeProvider([PATHS[path]()]) as provider:
        fake = settings(tmp_path, provider).providers["fake"].model_dump() | {"api_key": KEY, "api_url": provider.api_url("openai")}
        async with service(tmp_path, providers={"fake": FileProvider(**fake)}) as s:
            wanted = request()
            if stream:
                events, error = await streamed(s, wanted)
                assert events[-1].WhichOneof("event") == "failed"
                told = repr(events)
            else:
                error = await refused(s, wanted)
                told = ""
            assert error is not None
            told += f"{error!r} {error.trailing_metadata()} {details(error)}"
            told += repr(await record(s, wanted.request_id))
            told += repr((await s.requests.ListRequests(request_service_pb2.ListRequestsRequest())).requests)
            failed = await s.analytics.ListFailedRequests(analytics_service_pb2.ListFailedRequestsRequest())
            assert len(failed.requests) == 1
            told += repr(failed)
        assert provider.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert '"state": "failed"' in logged.getvalue()
    assert "canary" not in told + logged.getvalue()
    for file in tmp_path.iterdir():
        assert b"canary-" not in file.read_bytes()


# ---------------------------------------------------------------- what nobody understands


async def test_what_no_dialect_understands_is_counted_and_not_guessed_at(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    whole = ({"choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": "stop"}]}, "data: [DONE]")
    script = [PATHS["unknown error"](), Step(events=({"brand": "new"}, "event: brand_new\ndata: {}", {"brand": "new"}, *whole))]
    async with service(tmp_path, script, prometheus_listen=address) as s:
        error = await refused(s, request())
        assert error.code() is grpc.StatusCode.UNKNOWN
        assert (await s.generation.Generate(request())).result.content[0].text == "Hello"
        async with httpx.AsyncClient() as client:
            metrics = (await client.get(f"http://{address}/metrics")).text
    shown = {line.partition("{")[0]: line for line in metrics.splitlines() if line.startswith("headrace_unknown")}
    assert shown.keys() == {"headrace_unknown_errors_total", "headrace_unknown_events_total"}
    assert shown["headrace_unknown_errors_total"].endswith(" 1.0")
    assert shown["headrace_unknown_events_total"].endswith(" 3.0")
    for line in shown.values():
        assert 'provider="fake"' in line
        assert 'dialect="openai"' in line
    assert 'http_status="418"' in shown["headrace_unknown_errors_total"]
    assert "canary" not in metrics
