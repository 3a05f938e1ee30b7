"""Rows as the engine leaves them, made by the real state machine, and a pipeline that keeps what it is given."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from headrace_server.domain import machine
from headrace_server.domain.errors import ErrorCode
from headrace_server.domain.lifecycle import Event, State
from headrace_server.domain.message import ChatMessage
from headrace_server.domain.record import LogRow
from headrace_server.domain.request import GenerateRequest
from headrace_server.domain.result import Attempt, FallbackInfo, FinishReason, GenerationResult, ProviderError
from headrace_server.domain.usage import Usage, UsageSource
from headrace_server.telemetry.pipeline import Pipeline
from headrace_server.telemetry.request import Telemetry

START = 1_800_000_000_000
REQUEST_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
PROMPT = "prompt-canary-5be1"


@dataclass
class Story:
    """A request's life, told event by event; `row()` is what it leaves on record."""

    context: machine.Context = field(default_factory=lambda: machine.Context(request_id=REQUEST_ID))
    attempts: list[dict[str, Any]] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    at: int = START

    def step(self, event: Event, after: int = 0, **more: Any) -> "Story":
        self.at += after
        if event in (Event.VALIDATION_PASSED, Event.SEND_REQUEST):
            self.context = self.context.with_attempt()
        self.context, _ = machine.advance(self.context, event, at=self.at, **more)
        if self.context.state is State.REQUESTING and event is not Event.RECEIVE_STREAM_CHUNK:
            call = {"provider": self.context.provider, "model": self.context.model, "state": State.REQUESTING, "start_time": self.at}
            self.attempts.append(call)
        return self

    def aim(self, provider: str, model: str) -> "Story":
        self.context = self.context.with_target(provider, model)
        return self

    def call_fails(self, code: ErrorCode, **error: Any) -> "Story":
        last = self.attempts[-1]
        last |= {"state": State.FAILED, "duration": self.at - last["start_time"], "error": {"code": code, **error}}
        return self

    def answer(self, **fields: Any) -> "Story":
        self.attempts[-1] |= {"state": State.COMPLETED, "duration": self.at - self.attempts[-1]["start_time"], "usage": fields.get("usage")}
        self.fields["response_data"] = GenerationResult(provider=self.context.provider, **fields)
        return self

    def row(self, **fields: Any) -> LogRow:
        code = fields.get("error_code")
        return LogRow.model_validate(
            {
                "id": REQUEST_ID,
                "request_id": REQUEST_ID,
                "provider": self.context.provider,
                "model": self.context.model,
                "state": self.context.state,
                "start_time": START,
                "end_time": self.context.metrics.end_time,
                "duration": self.context.metrics.total_duration,
                "attempts": tuple(Attempt.model_validate(attempt) for attempt in self.attempts),
                "transitions": self.context.history,
                "request_data": a_request(),
                "error": ProviderError(code=code) if code else None,
                "created_at": START,
                "updated_at": self.at,
                **self.fields,
                **fields,
            }
        )


def a_request() -> GenerateRequest:
    message = ChatMessage.model_validate({"role": "user", "content": [{"type": "text", "text": PROMPT}]})
    return GenerateRequest(request_id=REQUEST_ID, stream=True, messages=(message,), max_tokens=64, temperature=0.5)


def usage(**more: Any) -> Usage:
    return Usage(input_tokens=12, output_tokens=30, total_tokens=42, source=UsageSource.PROVIDER, **more)


def begun() -> Story:
    return Story().aim("claude", "claude-x").step(Event.INITIATE_REQUEST).step(Event.VALIDATION_PASSED, 2)


def completed() -> LogRow:
    story = begun().step(Event.RECEIVE_STREAM_CHUNK, 150).step(Event.STREAM_COMPLETE, 848)
    story.answer(
        usage=usage(cached_input_tokens=5), finish_reason=FinishReason.STOP, model="claude-x-1", first_token_latency=152, cost=1234
    )
    return story.row(user_id="u-1", conversation_id=REQUEST_ID)


def retried() -> LogRow:
    story = begun()
    story.at += 100
    story.call_fails(ErrorCode.SERVER_ERROR, http_status=529, subreason="OVERLOADED")
    story.step(Event.RETRY_REQUEST, reason="the key sk-secret-123456 is overloaded", wait=400).step(Event.SEND_REQUEST, 400)
    story.step(Event.RECEIVE_STREAM_CHUNK, 150).step(Event.STREAM_COMPLETE, 348)
    return story.answer(usage=usage(), finish_reason=FinishReason.STOP).row()


def fell_back() -> LogRow:
    story = begun()
    story.at += 50
    story.call_fails(ErrorCode.NETWORK_ERROR)
    story.context = story.context.with_fallback("spare", "gpt-x")
    story.step(Event.FALLBACK_TO_PROVIDER, reason="refused").step(Event.VALIDATION_PASSED, 1).step(Event.RECEIVE_RESPONSE, 947)
    fallback = FallbackInfo(provider="spare", model="gpt-x", reason="refused")
    return story.answer(usage=usage(), finish_reason=FinishReason.STOP, fallback=fallback).row()


def failed() -> LogRow:
    story = begun()
    story.at += 40
    story.call_fails(ErrorCode.RATE_LIMIT_EXCEEDED, http_status=429)
    story.step(Event.RATE_LIMIT_HIT, wait=60_000).step(Event.REQUEST_FAILED, 8)
    error = ProviderError(code=ErrorCode.RATE_LIMIT_EXCEEDED, subreason="RAMP", http_status=429, message=PROMPT)
    return story.row(error_code=ErrorCode.RATE_LIMIT_EXCEEDED, error=error, error_message=PROMPT)


def cancelled() -> LogRow:
    story = begun().step(Event.RECEIVE_STREAM_CHUNK, 10)
    story.at += 5
    story.call_fails(ErrorCode.CANCELLED)
    story.step(Event.REQUEST_FAILED)
    partial = GenerationResult(
        finish_reason=FinishReason.ERROR, usage=Usage(input_tokens=12, output_tokens=2, source=UsageSource.ESTIMATED)
    )
    return story.row(error_code=ErrorCode.CANCELLED, response_data=partial)


def refused() -> LogRow:
    story = Story().step(Event.INITIATE_REQUEST).step(Event.VALIDATION_FAILED)
    return story.row(error_code=ErrorCode.INVALID_REQUEST, request_data={"unread": "?"})


ROWS = {f.__name__: f for f in (completed, retried, fell_back, failed, cancelled, refused)}


@pytest.fixture
def row_of() -> Callable[[str], LogRow]:
    """A row by its kind: completed, retried, fell_back, failed, cancelled, refused."""
    return lambda kind: ROWS[kind]()


@pytest.fixture
def request_data() -> GenerateRequest:
    return a_request()


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def reader() -> Iterator[InMemoryMetricReader]:
    reader = InMemoryMetricReader()
    yield reader
    reader.shutdown()


@pytest.fixture
def telemetry(exporter: InMemorySpanExporter, reader: InMemoryMetricReader) -> Telemetry:
    resource = Resource({"service.name": "headrace"})
    return Telemetry(Pipeline(resource, span_processor=SimpleSpanProcessor(exporter), metric_readers=[reader]))


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Undoes what `configure_logging` does to the process."""
    loggers = [logging.getLogger(name) for name in ("", "headrace", "headrace_server")]
    before = [(logger.level, logger.handlers[:]) for logger in loggers]
    yield
    logging.captureWarnings(False)
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers


def by_name(spans: Sequence[ReadableSpan]) -> dict[str, ReadableSpan]:
    return {span.name: span for span in spans}
