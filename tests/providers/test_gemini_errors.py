"""The dialect gemini: what its errors mean. The rows are those of the table of provider errors, G1 to G13."""

import json
from typing import Any

import pytest

from headrace_server.domain.errors import ErrorCode, Fault, RateLimitInfo, Subreason, Violation
from headrace_server.providers.dialect import HttpFailure
from headrace_server.providers.gemini import Gemini

Json = dict[str, Any]

NOW = 1_790_000_000_000  # 2026-09-21 14:13:20 UTC


def error(code: int, status: str, message: str, *details: Json) -> bytes:
    body: Json = {"code": code, "message": message, "status": status}
    return json.dumps({"error": body | ({"details": details} if details else {})}).encode()


def quota(quota_id: str, value: str, delay: str, *more: str) -> tuple[Json, Json]:
    violations = [{"quotaMetric": "m", "quotaId": name, "quotaValue": value} for name in (quota_id, *more)]
    return (
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay},
    )


def classify(status: int, body: bytes, *, now: int = NOW, headers: dict[str, str] | None = None) -> Fault:
    return Gemini().classify(HttpFailure(status, headers or {}, body, now))


PER_MINUTE = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"
PER_DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"


DOCUMENTED = {
    "G1": ("invalid_request", "", "", "400 INVALID_ARGUMENT", "Invalid request parameters"),
    "G2": ("authentication_error", "", "F", "400 INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
    "G2 expired": ("authentication_error", "", "F", "400 INVALID_ARGUMENT", "API key expired. Please renew the API key."),
    "G2 reason": ("authentication_error", "", "F", "400 INVALID_ARGUMENT", "In other words."),
    "G3": (
        "invalid_request",
        "CONTEXT_LENGTH",
        "",
        "400 INVALID_ARGUMENT",
        "The input token count (3475108) exceeds the maximum number of tokens allowed (1048576).",
    ),
    "G4": ("authentication_error", "REGION", "F", "400 FAILED_PRECONDITION", "User location is not supported for the API use."),
    "G5": ("quota_exceeded", "BILLING", "F", "402 RESOURCE_EXHAUSTED", "Your prepayment credits are depleted. Please go to ..."),
    "G5 before": ("quota_exceeded", "BILLING", "F", "429 RESOURCE_EXHAUSTED", "Your prepayment credits are depleted. Please go to ..."),
    "G6": ("authentication_error", "PERMISSION", "F", "403 PERMISSION_DENIED", "Your API key was reported as leaked. ..."),
    "G7": ("model_not_found", "", "F", "404 NOT_FOUND", "models/gemini-pro is not found for API version v1beta, or is not supported ..."),
    "G8": ("rate_limit_exceeded", "", "RF", "429 RESOURCE_EXHAUSTED", "You exceeded your current quota, ..."),
    "G9": ("quota_exceeded", "DAILY", "F", "429 RESOURCE_EXHAUSTED", "You exceeded your current quota, ..."),
    "G10": ("rate_limit_exceeded", "", "RF", "429 RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
    "G11": ("server_error", "", "RF", "500 INTERNAL", "An internal error has occurred. ..."),
    "G12": ("server_error", "OVERLOADED", "RF", "503 UNAVAILABLE", "The model is overloaded. Please try again later."),
    "G13": ("timeout", "", "RF", "504 DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
}
"""By row: code, subreason, R for retryable and F for fallback, the code and status of the body, its message. G14 has status 200."""

DETAILS: dict[str, tuple[Json, ...]] = {
    "G2 reason": ({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"},),
    "G8": quota(PER_MINUTE, "2", "31s"),
    "G9": quota(PER_DAY, "20", "1801s"),
}


@pytest.mark.parametrize("row", DOCUMENTED)
@pytest.mark.parametrize("wrapped", [False, True])
def test_documented_error_is_classified(row: str, wrapped: bool) -> None:
    code, subreason, may, sent, message = DOCUMENTED[row]
    status, word = sent.split()
    body = error(int(status), word, message, *DETAILS.get(row, ()))
    fault = classify(int(status), json.dumps([json.loads(body)], indent=2).encode() if wrapped else body)
    assert (fault.code, fault.subreason, fault.retryable, fault.fallback) == (code, subreason, "R" in may, "F" in may)
    assert (fault.message, fault.http_status, fault.provider_type) == (message, int(status), word)


def test_delay_is_the_retry_infos_when_a_limit_per_minute_is_hit() -> None:
    fault = classify(429, error(429, "RESOURCE_EXHAUSTED", "...", *quota(PER_MINUTE, "2", "31.5s")))
    assert fault.retry_after == 31_500
    assert fault.rate_limit == RateLimitInfo(retry_after=31_500, limit=2)
    assert fault.provider_code == PER_MINUTE


def test_delay_is_the_headers_when_there_is_one() -> None:
    fault = classify(429, error(429, "RESOURCE_EXHAUSTED", "...", *quota(PER_MINUTE, "2", "31s")), headers={"retry-after": "7"})
    assert fault.retry_after == 7_000


def test_limit_per_day_wins_over_the_one_per_minute_and_its_delay() -> None:
    for ids in ((PER_MINUTE, PER_DAY), (PER_DAY, PER_MINUTE)):
        first, *rest = ids
        fault = classify(429, error(429, "RESOURCE_EXHAUSTED", "...", *quota(first, "20", "7s", *rest)))
        assert (fault.code, fault.subreason, fault.retryable, fault.retry_after) == (
            ErrorCode.QUOTA_EXCEEDED,
            Subreason.DAILY,
            False,
            None,
        )
        assert fault.provider_code == PER_DAY


@pytest.mark.parametrize(
    ("now", "midnight"),
    [
        (NOW, 1_790_060_400_000),  # 21 September, 07:13 in California: to 22 September 00:00 PDT, 07:00 UTC
        (1_790_060_399_999, 1_790_060_400_000),
        (1_790_060_400_000, 1_790_146_800_000),
        (1_793_516_400_000, 1_793_606_400_000),  # the day on which summer time ends has 25 hours
    ],
)
def test_daily_limit_is_reset_at_midnight_pacific(now: int, midnight: int) -> None:
    fault = classify(429, error(429, "RESOURCE_EXHAUSTED", "...", *quota(PER_DAY, "20", "7s")), now=now)
    assert fault.rate_limit == RateLimitInfo(limit=20, reset_time=midnight)


@pytest.mark.parametrize("delay", ["", "soon", "-3s", "0s", "NaN", "1e309s"])
def test_delay_is_passed_over_when_it_is_none(delay: str) -> None:
    fault = classify(429, error(429, "RESOURCE_EXHAUSTED", "...", *quota(PER_MINUTE, "none", delay)))
    assert (fault.code, fault.retryable, fault.retry_after) == (ErrorCode.RATE_LIMIT_EXCEEDED, True, None)
    assert fault.rate_limit == RateLimitInfo()


def test_wrong_fields_are_named_when_the_provider_names_them() -> None:
    details = {
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [
            {"field": "generation_config.top_k", "description": "must be positive"},
            {"description": 'Unknown name "x"'},
        ],
    }
    assert classify(400, error(400, "INVALID_ARGUMENT", "Invalid", details)).violations == (
        Violation(field="generation_config.top_k", description="must be positive"),
        Violation(field="", description='Unknown name "x"'),
    )


@pytest.mark.parametrize(
    ("status", "body", "code", "subreason", "retryable"),
    [
        (502, b"<html><title>502 Bad Gateway</title></html>", ErrorCode.SERVER_ERROR, Subreason.NON_JSON, True),
        (404, b"<html>Not Found</html>", ErrorCode.SERVER_ERROR, Subreason.NON_JSON, False),
        (503, b"", ErrorCode.SERVER_ERROR, Subreason.NON_JSON, True),
        (500, b"[]", ErrorCode.SERVER_ERROR, Subreason.NON_JSON, True),
        (500, b"null", ErrorCode.SERVER_ERROR, Subreason.NON_JSON, True),
        (429, b"slow down", ErrorCode.RATE_LIMIT_EXCEEDED, "", True),
        (403, b"", ErrorCode.AUTHENTICATION_ERROR, Subreason.PERMISSION, False),
        (307, b"", ErrorCode.SERVER_ERROR, Subreason.REDIRECT_BLOCKED, False),
        (401, b'{"error":{"code":401,"status":"UNAUTHENTICATED","message":"x"}}', ErrorCode.AUTHENTICATION_ERROR, "", False),
        (418, b'{"error":{"code":418,"status":"BRAND_NEW","message":"x"}}', ErrorCode.UNKNOWN_ERROR, "", False),
        (503, b'{"error":"no upstream"}', ErrorCode.SERVER_ERROR, Subreason.OVERLOADED, True),
        (400, b'{"error":{"message":"proxy says no"}}', ErrorCode.INVALID_REQUEST, "", False),
        (200, b'{"error":{"code":"x","status":5,"message":null,"details":{"a":1}}}', ErrorCode.UNKNOWN_ERROR, "", False),
    ],
)
def test_error_in_another_form_is_classified_by_its_status(
    status: int, body: bytes, code: ErrorCode, subreason: str, retryable: bool
) -> None:
    fault = classify(status, body)
    assert (fault.code, fault.subreason, fault.retryable) == (code, subreason, retryable)
