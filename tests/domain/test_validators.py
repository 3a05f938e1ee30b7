"""One validator for each type that crosses a boundary: everything that is wrong with a value is named at once.

The rules of requests stand in test_request.py.
"""

from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from headrace_server.domain.errors import ErrorCode, RateLimitInfo, Refusal
from headrace_server.domain.events import StreamChunk
from headrace_server.domain.machine import Context
from headrace_server.domain.message import MessageRole
from headrace_server.domain.record import LogRow, MetricsRow
from headrace_server.domain.request import FallbackConfig, GenerateRequest, RetryConfig
from headrace_server.domain.result import FinishReason, GenerationResult, ProviderError
from headrace_server.domain.retry import RetryPolicy, RetryStrategy
from headrace_server.domain.usage import Usage
from headrace_server.domain.violations import validate

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
NOW = 1_800_000_000_000

LEAST: dict[type, dict[str, Any]] = {
    GenerateRequest: {"request_id": ID, "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]},
    GenerationResult: {},
    StreamChunk: {"index": 0, "delta": {"text": "hello"}, "attempt": 1},
    ProviderError: {"code": "timeout"},
    RetryConfig: {},
    Context: {"request_id": ID},
    LogRow: {"id": ID, "request_id": ID, "state": "idle", "start_time": NOW, "created_at": NOW, "updated_at": NOW},
    MetricsRow: {"id": ID, "request_id": ID, "provider": "claude", "model": "m", "success": True, "created_at": NOW},
}
"""The least that a valid value of each type needs."""


def wrong_fields(kind: type, **fields: Any) -> list[str]:
    """The paths of what is wrong with a value that has these fields, and what it needs besides."""
    with pytest.raises(Refusal) as caught:
        validate(TypeAdapter(kind).validate_python, LEAST.get(kind, {}) | fields)
    assert all(violation.description for violation in caught.value.fault.violations)
    return [violation.field for violation in caught.value.fault.violations]


@pytest.mark.parametrize(
    ("kind", "fields", "paths"),
    [
        (
            GenerateRequest,
            {"request_id": "x", "messages": [], "temperature": 2.1, "top_k": 0, "metadata": {"conversation_id": "x"}},
            ["request_id", "messages", "temperature", "top_k", "metadata.conversation_id"],
        ),
        (
            GenerationResult,
            {"duration": -1, "finish_reason": "tired", "usage": {"input_tokens": -1, "total_tokens": -1}},
            ["finish_reason", "usage.input_tokens", "usage.total_tokens", "duration"],
        ),
        (StreamChunk, {"index": -1, "attempt": 0, "finish_reason": "tired"}, ["index", "attempt", "finish_reason"]),
        (
            ProviderError,
            {"code": "oops", "http_status": -1, "rate_limit": {"retry_after": 0}},
            ["code", "http_status", "rate_limit.retry_after"],
        ),
        (
            RetryConfig,
            {"strategy": "hopeful", "max_attempts": 0, "initial_delay": -1, "backoff_multiplier": 0.5},
            ["strategy", "max_attempts", "initial_delay", "backoff_multiplier"],
        ),
        (
            Context,
            {"state": "lost", "attempt": -1, "metrics": {"token_count": -1, "total_duration": -1}, "stream": {"chunks_received": -1}},
            ["state", "attempt", "metrics.total_duration", "metrics.token_count", "stream.chunks_received"],
        ),
        (
            LogRow,
            {"id": "x", "state": "lost", "error_code": "oops", "duration": -1, "retry_attempt": -1, "transitions": [{"time": 1}]},
            [
                "id",
                "state",
                "error_code",
                "duration",
                "retry_attempt",
                "transitions[0].from_state",
                "transitions[0].to_state",
                "transitions[0].event",
            ],
        ),
        (MetricsRow, {"request_id": "x", "total_tokens": -1, "success": "perhaps"}, ["request_id", "total_tokens", "success"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_violation_is_listed_when_a_value_is_invalid(kind: type, fields: dict[str, Any], paths: list[str]) -> None:
    assert sorted(wrong_fields(kind, **fields)) == sorted(paths)


# ---------------------------------------------------------------- rules of single fields


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (Usage, "input_tokens"),
        (Usage, "output_tokens"),
        (Usage, "total_tokens"),
        (Usage, "cached_input_tokens"),
        (Usage, "reasoning_tokens"),
        (GenerationResult, "duration"),
        (GenerationResult, "first_token_latency"),
        (MetricsRow, "first_token_latency"),
        (MetricsRow, "total_duration"),
    ],
)
def test_count_or_duration_is_refused_when_it_is_negative(kind: type[BaseModel], field: str) -> None:
    assert getattr(kind.model_validate(LEAST.get(kind, {}) | {field: 0}), field) == 0
    assert wrong_fields(kind, **{field: -1}) == [field]


def test_delay_of_a_rate_limit_is_refused_when_it_is_none() -> None:
    assert RateLimitInfo(retry_after=1).retry_after == 1
    assert wrong_fields(RateLimitInfo, retry_after=0) == ["retry_after"]


def test_error_is_not_retryable_when_it_does_not_say_so() -> None:
    error = ProviderError(code=ErrorCode.SERVER_ERROR)
    assert (error.retryable, error.rate_limit, error.http_status, error.provider) == (False, None, 0, "")


def test_retry_has_the_documented_defaults_when_nothing_is_set() -> None:
    assert RetryConfig() == RetryConfig(strategy=None, max_attempts=None, initial_delay=None, max_delay=None, backoff_multiplier=None)
    policy = RetryPolicy()
    assert (policy.strategy, policy.max_attempts) == (RetryStrategy.EXPONENTIAL, 3)
    assert (policy.initial_delay, policy.max_delay, policy.backoff_multiplier) == (1_000, 30_000, 2)


def test_fallback_is_refused_when_a_provider_or_model_cannot_be_one() -> None:
    fallback = FallbackConfig.model_validate({"enabled": True, "providers": ["gemini"], "model_mapping": {"big": "large"}})
    assert (fallback.providers, fallback.model_mapping) == (("gemini",), {"big": "large"})
    assert wrong_fields(FallbackConfig, providers=["gemini", "Not A Name"], model_mapping={"big": ""}) == [
        "providers[1]",
        'model_mapping["big"]',
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (MessageRole, {"user", "assistant", "system"}),
        (FinishReason, {"stop", "length", "content_filter", "error"}),
        (RetryStrategy, {"exponential", "linear", "constant"}),
        (
            ErrorCode,
            {
                "authentication_error",
                "invalid_request",
                "rate_limit_exceeded",
                "server_error",
                "timeout",
                "network_error",
                "content_filter",
                "model_not_found",
                "quota_exceeded",
                "unknown_error",
            },
        ),
    ],
)
def test_words_of_the_original_are_all_there(words: Any, expected: set[str]) -> None:
    assert expected <= {word.value for word in words}
