"""The errors of the dialect gemini: google.rpc.Status as JSON, https://cloud.google.com/apis/design/errors, as data and what reads it."""

import re
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from headrace_server.domain.errors import ErrorCode, Fault, RateLimitInfo, Subreason, Violation
from headrace_server.providers.dialect import HttpFailure
from headrace_server.providers.faults import MAX_MESSAGE, MAX_WORD, ErrorBody, Rule, classify, clean, duration

RULES = (
    # G5; until August 2026 with status 429
    Rule(ErrorCode.QUOTA_EXCEEDED, Subreason.BILLING, status=(402,)),
    Rule(ErrorCode.QUOTA_EXCEEDED, Subreason.BILLING, type=("RESOURCE_EXHAUSTED",), words="prepayment credits are depleted"),
    # G2
    Rule(ErrorCode.AUTHENTICATION_ERROR, error_code=("API_KEY_INVALID",)),
    Rule(ErrorCode.AUTHENTICATION_ERROR, type=("INVALID_ARGUMENT",), words="api key (not valid|expired)"),
    Rule(ErrorCode.AUTHENTICATION_ERROR, type=("UNAUTHENTICATED",)),
    # G3
    Rule(ErrorCode.INVALID_REQUEST, Subreason.CONTEXT_LENGTH, fallback=False, words=r"input token count .*exceeds the maximum"),
    # G1
    Rule(ErrorCode.INVALID_REQUEST, fallback=False, type=("INVALID_ARGUMENT", "OUT_OF_RANGE")),
    # G4
    Rule(ErrorCode.AUTHENTICATION_ERROR, Subreason.REGION, type=("FAILED_PRECONDITION",)),
    # G6
    Rule(ErrorCode.AUTHENTICATION_ERROR, Subreason.PERMISSION, type=("PERMISSION_DENIED",)),
    # G7
    Rule(ErrorCode.MODEL_NOT_FOUND, type=("NOT_FOUND",)),
    # G8, G10
    Rule(ErrorCode.RATE_LIMIT_EXCEEDED, retryable=True, type=("RESOURCE_EXHAUSTED",)),
    # G11, G12, G13
    Rule(ErrorCode.SERVER_ERROR, retryable=True, type=("INTERNAL",)),
    Rule(ErrorCode.SERVER_ERROR, Subreason.OVERLOADED, retryable=True, type=("UNAVAILABLE",)),
    Rule(ErrorCode.TIMEOUT, retryable=True, type=("DEADLINE_EXCEEDED",)),
    # The same by status, for servers that send no status word.
    Rule(ErrorCode.INVALID_REQUEST, fallback=False, status=(400,)),
    Rule(ErrorCode.AUTHENTICATION_ERROR, status=(401,)),
    Rule(ErrorCode.AUTHENTICATION_ERROR, Subreason.PERMISSION, status=(403,)),
    Rule(ErrorCode.MODEL_NOT_FOUND, status=(404,)),
    Rule(ErrorCode.INVALID_REQUEST, Subreason.TOO_LARGE, fallback=False, status=(413,)),
    Rule(ErrorCode.RATE_LIMIT_EXCEEDED, retryable=True, status=(429,)),
    Rule(ErrorCode.SERVER_ERROR, retryable=True, status=(500,)),
    Rule(ErrorCode.SERVER_ERROR, Subreason.OVERLOADED, retryable=True, status=(503,)),
    Rule(ErrorCode.TIMEOUT, retryable=True, status=(504,)),
)
"""Google's errors, by google.rpc.Code in `status` and the reason of an ErrorInfo."""

DAILY_RULES = (*RULES[:2], Rule(ErrorCode.QUOTA_EXCEEDED, Subreason.DAILY))
"""G9: a violated limit per day, which wins over limits per minute and over the seconds of a RetryInfo."""

_ZONE = ZoneInfo("America/Los_Angeles")
"""Google's daily limits are reset at midnight Pacific time."""


_SPEAK_ALONE = (401, 402, 403, 413, 429)
"""Statuses that mean the same whoever sends them, a server in between included: no error in Google's form is needed."""


def classify_failure(failure: HttpFailure) -> Fault:
    """What an answer with an error status means."""
    error = _error(failure.body)
    rules = RULES if error or failure.status in _SPEAK_ALONE else ()
    reason = next((_text(detail, "reason") for detail in _details(error, "ErrorInfo")), "")
    quota = _quota(error)
    daily = "PerDay" in _text(quota, "quotaId")
    body = ErrorBody(_text(error, "status"), _text(quota, "quotaId") or reason, _text(error, "message"), details=error or None)
    delay = next((duration(_text(detail, "retryDelay")) for detail in _details(error, "RetryInfo")), None)

    fault = classify(DAILY_RULES if daily else rules, failure, body, named=delay)
    if not fault.retryable:
        fault = replace(fault, retry_after=None)
    if quota and fault.code in (ErrorCode.RATE_LIMIT_EXCEEDED, ErrorCode.QUOTA_EXCEEDED):
        reset = _next_midnight(failure.now) if daily and failure.now else None
        limit = RateLimitInfo(retry_after=fault.retry_after, limit=_limit(_text(quota, "quotaValue")), reset_time=reset)
        fault = replace(fault, rate_limit=limit)
    return replace(fault, violations=_field_violations(error)) if fault.code is ErrorCode.INVALID_REQUEST else fault


def error_inside(error: object, data: bytes) -> Fault:
    """What an error means that came with status 200. One that names no status is the server's own: the request had been accepted."""
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and 400 <= code <= 599 else 500
    return replace(classify_failure(HttpFailure(status, {}, data)), http_status=200)


def _error(body: bytes) -> dict[str, Any]:
    """The error in a body, which may be wrapped in a list; empty where there is none."""
    try:
        parsed = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {}
    for item in parsed if isinstance(parsed, list) else [parsed]:
        error = item.get("error") if isinstance(item, dict) else None
        if error:
            return error if isinstance(error, dict) else {"message": str(error)}
    return {}


def _text(of: Any, field: str) -> str:
    value = of.get(field) if isinstance(of, dict) else None
    return value if isinstance(value, str) else ""


def _objects(of: Any, field: str) -> list[dict[str, Any]]:
    items = of.get(field) if isinstance(of, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _details(error: Any, kind: str) -> list[dict[str, Any]]:
    """The google.rpc details of one kind."""
    return [detail for detail in _objects(error, "details") if _text(detail, "@type").endswith(f"google.rpc.{kind}")]


def _quota(error: Any) -> dict[str, Any]:
    """The violated quota that takes longest to be renewed: one per day before one per minute."""
    violations = [violation for detail in _details(error, "QuotaFailure") for violation in _objects(detail, "violations")]
    return max(violations, key=lambda v: ("PerDay" in _text(v, "quotaId"), "PerMinute" in _text(v, "quotaId")), default={})


def _limit(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _next_midnight(now: int) -> int:
    """The end of the day in Google's zone, in milliseconds since the epoch."""
    tomorrow = datetime.fromtimestamp(now / 1_000, _ZONE).date() + timedelta(days=1)
    return int(datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=_ZONE).timestamp() * 1_000)


def _field_violations(error: Any) -> tuple[Violation, ...]:
    return tuple(
        Violation(field=clean(_text(violation, "field"), MAX_WORD), description=clean(_text(violation, "description"), MAX_MESSAGE))
        for detail in _details(error, "BadRequest")
        for violation in _objects(detail, "fieldViolations")
    )[:64]
