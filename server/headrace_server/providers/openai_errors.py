"""What errors of OpenAI, and of servers that speak its dialects, mean, and what their headers say of limits.

Shared by Chat Completions and Responses.
"""

from dataclasses import replace
from typing import Any

import msgspec

from headrace_server.domain.errors import ErrorCode, Fault, Subreason
from headrace_server.domain.limits import LimitType
from headrace_server.providers import faults
from headrace_server.providers.dialect import HttpFailure, LimitHeader
from headrace_server.providers.faults import ErrorBody, Rule
from headrace_server.providers.json_values import UNREADABLE, compact

# The first row that matches wins: codes, types and words first, statuses last. In the comments the rows of OpenAI itself are
# numbered as in the error table of the design; the others are as the vendors named answer.
RULES = (
    # O8, before O7: a request that is larger than the limit never fits, however long it waits. Groq sends it with status 413.
    Rule(ErrorCode.RATE_LIMIT_EXCEEDED, Subreason.NEVER_FITS, error_code=("rate_limit_exceeded",), words="request too large"),
    # O9
    Rule(ErrorCode.RATE_LIMIT_EXCEEDED, Subreason.RAMP, retryable=True, error_code=("slow_down",)),
    # O7
    Rule(ErrorCode.RATE_LIMIT_EXCEEDED, retryable=True, error_code=("rate_limit_exceeded",)),
    # O10: the code tells; the type may stay insufficient_quota. DeepSeek and OpenRouter answer 402.
    Rule(
        ErrorCode.QUOTA_EXCEEDED,
        Subreason.BILLING,
        error_code=(
            "insufficient_quota",
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "billing_hard_limit_reached",
            "billing_not_active",
        ),
    ),
    Rule(ErrorCode.QUOTA_EXCEEDED, Subreason.BILLING, type=("insufficient_quota",)),
    Rule(ErrorCode.QUOTA_EXCEEDED, Subreason.BILLING, status=(402,)),
    # O2. DeepSeek, Ollama, Perplexity and llama.cpp have no such code, but words or types of their own.
    Rule(ErrorCode.INVALID_REQUEST, Subreason.CONTEXT_LENGTH, fallback=False, error_code=("context_length_exceeded",)),
    Rule(
        ErrorCode.INVALID_REQUEST,
        Subreason.CONTEXT_LENGTH,
        fallback=False,
        type=("too_many_prompt_tokens", "exceed_context_size_error"),
    ),
    Rule(
        ErrorCode.INVALID_REQUEST,
        Subreason.CONTEXT_LENGTH,
        fallback=False,
        status=(400, 413, 422),
        words=r"maximum context length|max context length|context (length|size|window).*exceed|exceed.*context (length|size|window)",
    ),
    # O3, and OpenRouter's moderation, which answers 403.
    Rule(
        ErrorCode.CONTENT_FILTER,
        fallback=False,
        error_code=("invalid_prompt", "content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"),
    ),
    Rule(ErrorCode.CONTENT_FILTER, fallback=False, status=(400, 403), words=r"\bflagged\b"),
    # O6. Azure: no such deployment. Ollama, Mistral, DeepSeek, Perplexity, OpenRouter: types and words of their own.
    Rule(ErrorCode.MODEL_NOT_FOUND, error_code=("model_not_found", "model_not_available", "DeploymentNotFound", "unknown_model")),
    Rule(ErrorCode.MODEL_NOT_FOUND, type=("invalid_model", "model_not_found")),
    Rule(
        ErrorCode.MODEL_NOT_FOUND,
        status=(400, 403, 404, 422),
        words=r"\bmodel\b.{0,300}?\b(does not exist|not found|not exist)|not a valid model|invalid model\b",
    ),
    # O5
    Rule(ErrorCode.AUTHENTICATION_ERROR, Subreason.REGION, error_code=("unsupported_country_region_territory",)),
    # O4
    Rule(
        ErrorCode.AUTHENTICATION_ERROR,
        error_code=("invalid_api_key", "mismatched_organization", "invalid_organization", "ip_not_authorized", "account_deactivated"),
    ),
    Rule(ErrorCode.AUTHENTICATION_ERROR, type=("authentication_error", "invalid_api_key", "invalid_authentication_error")),
    Rule(ErrorCode.AUTHENTICATION_ERROR, status=(401,)),
    Rule(ErrorCode.AUTHENTICATION_ERROR, Subreason.PERMISSION, type=("permission_error", "permission_denied_error")),
    Rule(ErrorCode.AUTHENTICATION_ERROR, Subreason.PERMISSION, status=(403,)),
    # Groq: the model wrote a tool call, or JSON, that does not obey its schema. Another try may do better.
    Rule(ErrorCode.SERVER_ERROR, retryable=True, error_code=("tool_use_failed", "json_validate_failed")),
    # O12, and the same of Groq (capacity_exceeded, with status 498) and Moonshot (with 429).
    Rule(
        ErrorCode.SERVER_ERROR,
        Subreason.OVERLOADED,
        retryable=True,
        error_code=("server_is_overloaded", "engine_overloaded", "capacity_exceeded"),
    ),
    Rule(
        ErrorCode.SERVER_ERROR,
        Subreason.OVERLOADED,
        retryable=True,
        type=("service_unavailable_error", "service_unavailable", "overloaded_error", "engine_overloaded_error"),
    ),
    # O7 again, where only the type or the status tells.
    Rule(ErrorCode.RATE_LIMIT_EXCEEDED, retryable=True, type=("rate_limit_error", "rate_limit_exceeded", "requests", "tokens")),
    Rule(ErrorCode.RATE_LIMIT_EXCEEDED, retryable=True, status=(429,)),
    Rule(ErrorCode.TIMEOUT, retryable=True, status=(408, 504)),
    Rule(ErrorCode.INVALID_REQUEST, Subreason.TOO_LARGE, fallback=False, status=(413,)),
    # A 404 that is not about the model is about the address: another provider has another one.
    Rule(ErrorCode.INVALID_REQUEST, status=(404, 405)),
    # O1
    Rule(ErrorCode.INVALID_REQUEST, fallback=False, status=(400, 415, 422)),
    Rule(ErrorCode.INVALID_REQUEST, fallback=False, type=("invalid_request_error", "BadRequestError")),
    Rule(ErrorCode.SERVER_ERROR, Subreason.OVERLOADED, retryable=True, status=(503, 529)),
    # O11. OpenAI's own libraries try again after a 409.
    Rule(ErrorCode.SERVER_ERROR, retryable=True, type=("server_error", "internal_server_error", "internal_error", "api_error")),
    Rule(ErrorCode.SERVER_ERROR, retryable=True, status=(409, 500, 502)),
)


LIMIT_HEADERS = (
    # Of OpenAI and most others; Groq's requests, and those of OpenAI's smallest accounts, are those of the day.
    LimitHeader("x-ratelimit-remaining-requests", LimitType.REQUESTS_PER_MINUTE, reset="x-ratelimit-reset-requests"),
    LimitHeader("x-ratelimit-remaining-tokens", LimitType.TOKENS_PER_MINUTE),
    # Mistral and Cerebras name the time.
    LimitHeader("x-ratelimit-remaining-req-minute", LimitType.REQUESTS_PER_MINUTE),
    LimitHeader("x-ratelimit-remaining-tokens-minute", LimitType.TOKENS_PER_MINUTE),
    LimitHeader("x-ratelimit-remaining-requests-day", LimitType.REQUESTS_PER_DAY),
)
"""What is left: https://platform.openai.com/docs/guides/rate-limits."""

_SPEAK_ALONE = (401, 402, 403, 408, 413, 429)
"""Statuses that mean the same whoever sends them, a server in between included: no error in the dialect's form is needed."""


def classify(failure: HttpFailure) -> Fault:
    """What an answer with an error status means."""
    body = read_error(failure.body)
    rules = RULES if body != ErrorBody() or failure.status in _SPEAK_ALONE else ()
    return faults.classify(rules, failure, body, named=faults.text_delay(body.message))


def error_inside(data: bytes, body: ErrorBody) -> Fault:
    """What an error means that came with status 200, as an event of a stream or as the whole answer.

    Where the error does not say which status it would have had, it is the server's own: the request had been accepted.
    """
    failure = HttpFailure(status=_status(body) or 500, headers={}, body=data)
    return replace(faults.classify(RULES, failure, body, named=faults.text_delay(body.message)), http_status=200)


def _status(body: ErrorBody) -> int | None:
    error = body.details if isinstance(body.details, dict) else {}
    statuses = (error.get(key) for key in ("status_code", "code", "status"))
    return next((s for s in statuses if isinstance(s, int) and 400 <= s < 600), None)


def read_error(data: bytes) -> ErrorBody:
    """The error in a body: `{"error": {…}}` as documented, its variants, or all empty if there is none.

    The variants: a text in place of the object (Ollama, xAI), a list around the whole (Google), no object at all (Mistral, vLLM,
    FastAPI), numbers for codes (OpenRouter, Perplexity), and the real message beside a general one (OpenRouter).
    """
    try:
        whole = msgspec.json.decode(data)
    except UNREADABLE:
        return ErrorBody()
    if isinstance(whole, list) and whole:
        whole = whole[0]
    if not isinstance(whole, dict):
        return ErrorBody()
    error = whole.get("error") or whole
    if not isinstance(error, dict):
        error = {"message": error, "code": whole.get("code")}
    message, param = _message(error.get("message") or error.get("detail"))
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and metadata.get("raw"):
        message = f"{message}: {_text(metadata['raw'])}"
    kind, code = _text(error.get("type")), _text(error.get("code"))
    if not (message or kind or code):
        return ErrorBody()
    return ErrorBody(type=kind, code=code, message=message, param=_text(error.get("param")) or param, details=error)


def _message(value: Any) -> tuple[str, str]:
    """The words, and the field they are about where the message is a list of violations: `[{"loc": ["body", …], "msg": "…"}]`."""
    if isinstance(value, dict) and isinstance(value.get("detail"), list):
        value = value["detail"]
    if isinstance(value, list) and value and isinstance(value[0], dict) and "msg" in value[0]:
        at = value[0].get("loc")
        param = ".".join(str(step) for step in at[1:]) if isinstance(at, list) else ""
        return f"{param}: {_text(value[0]['msg'])}" if param else _text(value[0]["msg"]), param
    return _text(value), ""


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return compact(value)
