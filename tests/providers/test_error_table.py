"""From what a provider answers to what a caller is told: the documented bodies of every provider, row by row.

The rows go by the numbers of the table of provider errors; each dialect's own tests know more bodies than these.
"""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from google.rpc import code_pb2

from headrace_server.domain.errors import Fault, ProviderFault
from headrace_server.domain.provider import Dialect
from headrace_server.ledger import provider_error
from headrace_server.providers.dialect import HttpFailure
from headrace_server.providers.registry import DIALECTS
from headrace_server.rpc.status import to_status
from support import exchanges

NOW = 1_773_576_000_000  # 2026-03-15T12:00:00Z


@dataclass(frozen=True)
class Row:
    """An answer, and what becomes of it. `may`: R, it may be retried; F, another provider may be asked."""

    dialect: str
    http: int
    body: str
    code: str
    may: str
    status: str
    details: str = ""
    """Beyond ErrorInfo and ProviderError, by their initials: R RetryInfo, Q QuotaFailure, B BadRequest, O ResourceInfo."""
    headers: tuple[tuple[str, str], ...] = ()


def quota(quota_id: str, value: str, delay: str) -> str:
    metric = "generativelanguage.googleapis.com/generate_content_free_tier_requests"
    violation = {
        "quotaMetric": metric,
        "quotaId": quota_id,
        "quotaDimensions": {"location": "global", "model": "gemini-1.5-pro"},
        "quotaValue": value,
    }
    details = [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay},
    ]
    error = {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "You exceeded your current quota, ...", "details": details}
    return json.dumps({"error": error})


PER_MINUTE = quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "2", "31s")
PER_DAY = quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "20", "1801s")
AFTER_7 = (("retry-after", "7"),)

ROWS = {
    # ------------------------------------------------------------ claude
    "C1": Row(
        "claude",
        400,
        '{"type":"error","error":{"type":"invalid_request_error","message":"This model does not support effort level \'xhigh\'. '
        'Supported levels: high, low, max, medium."},"request_id":"req_011Ca7jT9AHpgXgdv8igm4z9"}',
        "invalid_request",
        "",
        "INVALID_ARGUMENT",
        "B",
    ),
    "C2": Row(
        "claude",
        400,
        '{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 208310 tokens > 200000 maximum"},'
        '"request_id":"req_011CVQe1dLrGNMJyE1ghG1av"}',
        "invalid_request/CONTEXT_LENGTH",
        "",
        "INVALID_ARGUMENT",
        "B",
    ),
    "C3": Row(
        "claude",
        400,
        '{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API. '
        'Please go to Plans & Billing to upgrade or purchase credits."},"request_id":"req_011CbrFTcXhtiMzr3s6EocF7"}',
        "quota_exceeded/BILLING",
        "F",
        "RESOURCE_EXHAUSTED",
        "Q",
    ),
    "C4": Row(
        "claude",
        400,
        '{"type":"error","error":{"type":"invalid_request_error","message":"You have reached your specified API usage limits. '
        'You will regain access on 2026-04-01 at 00:00 UTC."},"request_id":"req_011CZLrUfBVkVHn5T6EqQaf7"}',
        "quota_exceeded/SPEND_LIMIT",
        "F",
        "RESOURCE_EXHAUSTED",
        "QR",  # the reset is known
    ),
    "C5": Row(
        "claude",
        401,
        '{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}',
        "authentication_error",
        "F",
        "FAILED_PRECONDITION",
    ),
    "C6": Row(
        "claude",
        402,
        '{"type":"error","error":{"type":"billing_error","message":"..."}}',
        "quota_exceeded/BILLING",
        "F",
        "RESOURCE_EXHAUSTED",
        "Q",
    ),
    "C7": Row(
        "claude",
        403,
        '{"type":"error","error":{"type":"permission_error","message":"..."}}',
        "authentication_error/PERMISSION",
        "F",
        "FAILED_PRECONDITION",
    ),
    "C8": Row(
        "claude",
        404,
        '{"type":"error","error":{"type":"not_found_error","message":"model: claude-does-not-exist"},'
        '"request_id":"req_011CVEA3SF7rnb3DuBZytqQa"}',
        "model_not_found",
        "F",
        "NOT_FOUND",
        "O",
    ),
    "C9": Row(
        "claude",
        413,
        '{"type":"error","error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}',
        "invalid_request/TOO_LARGE",
        "",
        "INVALID_ARGUMENT",
        "B",
    ),
    "C9 from an edge": Row("claude", 413, "<html>413</html>", "invalid_request/TOO_LARGE", "", "INVALID_ARGUMENT", "B"),
    "C10": Row(
        "claude",
        429,
        '{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your organization\'s rate limit of '
        '30,000 input tokens per minute (org: 5456..., model: claude-sonnet-4-20250514). ..."},'
        '"request_id":"req_011CZRtHe9vmeRRMu6G4rMhJ"}',
        "rate_limit_exceeded",
        "RF",
        "RESOURCE_EXHAUSTED",
        "QR",
        AFTER_7,
    ),
    "C11": Row(
        "claude",
        429,
        '{"type":"error","error":{"type":"rate_limit_error","details":{"error_code":"enforced_spend_limit_reached"},"message":"..."}}',
        "quota_exceeded/SPEND_LIMIT",
        "F",
        "RESOURCE_EXHAUSTED",
        "QR",
    ),
    "C12": Row(
        "claude",
        429,
        '{"type":"error","error":{"type":"rate_limit_error","message":"Extra usage is required for long context requests."},'
        '"request_id":"req_011CYZAjb9kGCRmAhG79ySi5"}',
        "quota_exceeded/ENTITLEMENT",
        "F",
        "RESOURCE_EXHAUSTED",
        "Q",
    ),
    "C13": Row(
        "claude",
        500,
        '{"type":"error","error":{"type":"api_error","message":"Internal server error"}}',
        "server_error",
        "RF",
        "UNAVAILABLE",
    ),
    "C13 as 409": Row(
        "claude", 409, '{"type":"error","error":{"type":"conflict_error","message":"..."}}', "server_error", "RF", "UNAVAILABLE"
    ),
    "C14": Row(
        "claude",
        504,
        '{"type":"error","error":{"type":"timeout_error","message":"..."}}',
        "timeout",
        "RF",
        "DEADLINE_EXCEEDED",
    ),
    "C15": Row(
        "claude",
        529,
        '{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
        "server_error/OVERLOADED",
        "RF",
        "UNAVAILABLE",
        "R",
        (("x-should-retry", "true"), *AFTER_7),
    ),
    # ------------------------------------------------------------ gemini
    "G1": Row(
        "gemini",
        400,
        '{"error":{"code":400,"message":"Invalid request parameters","status":"INVALID_ARGUMENT"}}',
        "invalid_request",
        "",
        "INVALID_ARGUMENT",
        "B",
    ),
    "G2": Row(
        "gemini",
        400,
        '{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT","details":[{"@type":'
        '"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com",'
        '"metadata":{"service":"generativelanguage.googleapis.com"}}]}}',
        "authentication_error",
        "F",
        "FAILED_PRECONDITION",
    ),
    "G2 expired": Row(
        "gemini",
        400,
        '{"error":{"code":400,"message":"API key expired. Please renew the API key.","status":"INVALID_ARGUMENT"}}',
        "authentication_error",
        "F",
        "FAILED_PRECONDITION",
    ),
    "G3": Row(
        "gemini",
        400,
        '{"error":{"code":400,"message":"The input token count (3475108) exceeds the maximum number of tokens allowed (1048576).",'
        '"status":"INVALID_ARGUMENT"}}',
        "invalid_request/CONTEXT_LENGTH",
        "",
        "INVALID_ARGUMENT",
        "B",
    ),
    "G4": Row(
        "gemini",
        400,
        '{"error":{"code":400,"message":"User location is not supported for the API use.","status":"FAILED_PRECONDITION"}}',
        "authentication_error/REGION",
        "F",
        "FAILED_PRECONDITION",
    ),
    "G5": Row(
        "gemini",
        402,
        '{"error":{"code":402,"message":"Your prepayment credits are depleted. Please go to AI Studio at https://ai.studio/projects ...",'
        '"status":"RESOURCE_EXHAUSTED"}}',
        "quota_exceeded/BILLING",
        "F",
        "RESOURCE_EXHAUSTED",
        "Q",
    ),
    "G5 as 429": Row(
        "gemini",
        429,
        '{"error":{"code":429,"message":"Your prepayment credits are depleted. Please go to AI Studio at https://ai.studio/projects ...",'
        '"status":"RESOURCE_EXHAUSTED"}}',
        "quota_exceeded/BILLING",
        "F",
        "RESOURCE_EXHAUSTED",
        "Q",
    ),
    "G6": Row(
        "gemini",
        403,
        '{"error":{"code":403,"message":"Your API key was reported as leaked. Please use another API key.","status":"PERMISSION_DENIED"}}',
        "authentication_error/PERMISSION",
        "F",
        "FAILED_PRECONDITION",
    ),
    "G7": Row(
        "gemini",
        404,
        '{"error":{"code":404,"message":"models/gemini-pro is not found for API version v1beta, or is not supported for generateContent. '
        'Call ListModels ...","status":"NOT_FOUND"}}',
        "model_not_found",
        "F",
        "NOT_FOUND",
        "O",
    ),
    "G8": Row("gemini", 429, PER_MINUTE, "rate_limit_exceeded", "RF", "RESOURCE_EXHAUSTED", "QR"),
    "G9": Row("gemini", 429, PER_DAY, "quota_exceeded/DAILY", "F", "RESOURCE_EXHAUSTED", "Q"),
    "G10": Row(
        "gemini",
        429,
        '{"error":{"code":429,"message":"Resource has been exhausted (e.g. check quota).","status":"RESOURCE_EXHAUSTED"}}',
        "rate_limit_exceeded",
        "RF",
        "RESOURCE_EXHAUSTED",
        "Q",
    ),
    "G11": Row(
        "gemini",
        500,
        '{"error":{"code":500,"message":"An internal error has occurred. ...","status":"INTERNAL"}}',
        "server_error",
        "RF",
        "UNAVAILABLE",
    ),
    "G12": Row(
        "gemini",
        503,
        '{"error":{"code":503,"message":"The model is overloaded. Please try again later.","status":"UNAVAILABLE"}}',
        "server_error/OVERLOADED",
        "RF",
        "UNAVAILABLE",
    ),
    "G12 in a list": Row(
        "gemini",
        503,
        '[{\n  "error": {\n    "code": 503,\n    "message": "The model is overloaded. Please try again later.",\n'
        '    "status": "UNAVAILABLE"\n  }\n}\n]',
        "server_error/OVERLOADED",
        "RF",
        "UNAVAILABLE",
    ),
    "G13": Row(
        "gemini",
        504,
        '{"error":{"code":504,"message":"Deadline expired before operation could complete.","status":"DEADLINE_EXCEEDED"}}',
        "timeout",
        "RF",
        "DEADLINE_EXCEEDED",
    ),
    "G14": Row(
        "gemini",
        200,
        '{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"},"usageMetadata":{"promptTokenCount":171,"totalTokenCount":171}}',
        "content_filter",
        "",
        "INVALID_ARGUMENT",
        "B",
    ),
    # ------------------------------------------------------------ openai
    "O1": Row(
        "openai",
        400,
        '{"error":{"message":"Unsupported parameter: \'max_tokens\' is not supported with this model. Use \'max_completion_tokens\' '
        'instead.","type":"invalid_request_error","param":"max_tokens","code":"unsupported_parameter"}}',
        "invalid_request",
        "",
        "INVALID_ARGUMENT",
        "B",
    ),
    "O2": Row(
        "openai",
        400,
        '{"error":{"message":"This model\'s maximum context length is 8192 tokens. However, your messages resulted in 8227 tokens. ...",'
        '"type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}',
        "invalid_request/CONTEXT_LENGTH",
        "",
        "INVALID_ARGUMENT",
        "B",
    ),
    "O3": Row(
        "openai",
        400,
        '{"error":{"message":"Invalid prompt: your prompt was flagged as potentially violating our usage policy. ...",'
        '"type":"invalid_request_error","param":null,"code":"invalid_prompt"}}',
        "content_filter",
        "",
        "INVALID_ARGUMENT",
        "B",
    ),
    "O3 of Azure": Row(
        "openai",
        400,
        '{"error":{"message":"The response was filtered ...","type":null,"param":"prompt","code":"content_filter","status":400}}',
        "content_filter",
        "",
        "INVALID_ARGUMENT",
        "B",
    ),
    "O4": Row(
        "openai",
        401,
        '{"error":{"message":"Incorrect API key provided: sk-false. You can find your API key at ...","type":"invalid_request_error",'
        '"param":null,"code":"invalid_api_key"}}',
        "authentication_error",
        "F",
        "FAILED_PRECONDITION",
    ),
    "O4 of an organization": Row(
        "openai",
        401,
        '{"error":{"message":"...","type":"invalid_request_error","param":null,"code":"mismatched_organization"}}',
        "authentication_error",
        "F",
        "FAILED_PRECONDITION",
    ),
    "O4 of an address": Row(
        "openai",
        401,
        '{"error":{"message":"Your IP is not authorized.","type":"invalid_request_error","param":null,"code":"ip_not_authorized"}}',
        "authentication_error",
        "F",
        "FAILED_PRECONDITION",
    ),
    "O5": Row(
        "openai",
        403,
        '{"error":{"code":"unsupported_country_region_territory","message":"Country, region, or territory not supported","param":null,'
        '"type":"request_forbidden"}}',
        "authentication_error/REGION",
        "F",
        "FAILED_PRECONDITION",
    ),
    "O6": Row(
        "openai",
        404,
        '{"error":{"message":"The model `gpt-4.1-nano-wrong` does not exist or you do not have access to it.",'
        '"type":"invalid_request_error","param":null,"code":"model_not_found"}}',
        "model_not_found",
        "F",
        "NOT_FOUND",
        "O",
    ),
    "O6 as 403": Row(
        "openai",
        403,
        '{"error":{"message":"The model `gpt-4.1-nano-wrong` does not exist or you do not have access to it.",'
        '"type":"invalid_request_error","param":null,"code":"model_not_found"}}',
        "model_not_found",
        "F",
        "NOT_FOUND",
        "O",
    ),
    "O7": Row(
        "openai",
        429,
        '{"error":{"message":"Rate limit reached for gpt-4.1 in organization org-... on tokens per min (TPM): Limit 30000, Used 22343, '
        'Requested 10955. Please try again in 6.596s. ...","type":"tokens","param":null,"code":"rate_limit_exceeded"}}',
        "rate_limit_exceeded",
        "RF",
        "RESOURCE_EXHAUSTED",
        "QR",
    ),
    "O8": Row(
        "openai",
        429,
        '{"error":{"message":"Request too large for gpt-4o ... on tokens per min (TPM): Limit 30000, Requested 30601. ...",'
        '"type":"tokens","param":null,"code":"rate_limit_exceeded"}}',
        "rate_limit_exceeded/NEVER_FITS",
        "F",
        "RESOURCE_EXHAUSTED",
        "Q",
        AFTER_7,
    ),
    "O9": Row(
        "openai",
        429,
        '{"error":{"type":"rate_limit_error","code":"slow_down","message":"..."}}',
        "rate_limit_exceeded/RAMP",
        "RF",
        "RESOURCE_EXHAUSTED",
        "QR",
        AFTER_7,
    ),
    "O9 as 503": Row(
        "openai",
        503,
        '{"error":{"type":"service_unavailable_error","code":"slow_down","message":"..."}}',
        "rate_limit_exceeded/RAMP",
        "RF",
        "RESOURCE_EXHAUSTED",
        "QR",
        AFTER_7,
    ),
    "O10": Row(
        "openai",
        429,
        '{"error":{"message":"You exceeded your current quota, please check your plan and billing details. ...",'
        '"type":"insufficient_quota","param":null,"code":"insufficient_quota"}}',
        "quota_exceeded/BILLING",
        "F",
        "RESOURCE_EXHAUSTED",
        "Q",
    ),
    **{
        f"O10 {code}": Row(
            "openai",
            429,
            json.dumps({"error": {"message": "...", "type": "insufficient_quota", "param": None, "code": code}}),
            "quota_exceeded/BILLING",
            "F",
            "RESOURCE_EXHAUSTED",
            "Q",
        )
        for code in ("credit_balance_exhausted", "organization_spend_limit_exceeded", "project_spend_limit_exceeded")
    },
    "O11": Row(
        "openai",
        500,
        '{"error":{"message":"The server experienced an error while processing your request. We apologize for the inconvenience!",'
        '"type":"server_error","param":null,"code":null}}',
        "server_error",
        "RF",
        "UNAVAILABLE",
    ),
    "O12": Row(
        "openai",
        503,
        '{"error":{"type":"service_unavailable_error","code":"server_is_overloaded","message":"..."}}',
        "server_error/OVERLOADED",
        "RF",
        "UNAVAILABLE",
        "R",
        AFTER_7,
    ),
    # ------------------------------------------------------------ any of them
    **{
        f"N1 {dialect} {status}": Row(
            dialect, status, "<html>... 502 Bad Gateway ...</html>", "server_error/NON_JSON", "RF", "UNAVAILABLE", "R", AFTER_7
        )
        for dialect in ("claude", "gemini", "openai")
        for status in (502, *range(520, 527))
    },
    **{
        f"N1 {dialect} 404": Row(dialect, 404, "<html>... 404 ...</html>", "server_error/NON_JSON", "F", "UNAVAILABLE")
        for dialect in ("claude", "gemini", "openai")
    },
    **{
        f"N6 {dialect}": Row(dialect, 418, '{"error":{"type":"brand_new_error"}}', "unknown_error", "F", "UNKNOWN")
        for dialect in ("claude", "gemini", "openai")
    },
    **{
        f"N6 {dialect} redirects": Row(dialect, 307, "", "server_error/REDIRECT_BLOCKED", "F", "UNAVAILABLE")
        for dialect in ("claude", "gemini", "openai")
    },
}
INITIALS = {"RetryInfo": "R", "QuotaFailure": "Q", "BadRequest": "B", "ResourceInfo": "O", "ErrorInfo": "", "ProviderError": ""}
ADAPTERS = [(row, api) for row in ROWS for api in (("chat", "responses") if ROWS[row].dialect == "openai" else ("",))]


def fault_of(row: Row, api: str) -> Fault:
    dialect = DIALECTS[Dialect(row.dialect), api]
    if row.http != 200:
        return dialect.classify(HttpFailure(row.http, dict(row.headers), row.body.encode(), NOW))
    decoder = dialect.decoder(exchanges.CASES[0].provider)
    decoder.event("", row.body.encode())
    with pytest.raises(ProviderFault) as caught:
        decoder.finish()
    return caught.value.fault


@pytest.mark.parametrize(("name", "api"), ADAPTERS)
def test_a_documented_error_becomes_the_status_that_is_promised(name: str, api: str) -> None:
    row = ROWS[name]
    fault = fault_of(row, api)
    code, _, subreason = row.code.partition("/")
    assert (fault.code, fault.subreason, fault.retryable, fault.fallback) == (code, subreason, "R" in row.may, "F" in row.may)
    status = to_status(provider_error(fault, request_id="", provider="p"))
    assert status.code == code_pb2.Code.Value(row.status)
    names: list[Any] = [detail.TypeName().rpartition(".")[2] for detail in status.details]
    assert sorted("".join(INITIALS[name] for name in names)) == sorted(row.details)


def test_every_row_of_the_table_is_here() -> None:
    numbers = {name.split()[0] for name in ROWS}
    wanted = [*(f"C{n}" for n in range(1, 16)), *(f"G{n}" for n in range(1, 15)), *(f"O{n}" for n in range(1, 13))]
    # N2 to N5 are failures of the connection and have no body: see the tests of calls.
    assert numbers == {*wanted, "N1", "N6"}
