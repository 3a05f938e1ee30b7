"""What errors of OpenAI and of compatible servers mean, with bodies as they were sent or documented."""

import json
from typing import Any

import pytest

from headrace_server.domain.errors import ErrorCode, Fault, Subreason
from headrace_server.providers.dialect import HttpFailure
from headrace_server.providers.openai import OpenAIChat
from headrace_server.providers.openai_errors import read_error

AUTH, FILTER, INVALID, LIMIT = (
    ErrorCode.AUTHENTICATION_ERROR,
    ErrorCode.CONTENT_FILTER,
    ErrorCode.INVALID_REQUEST,
    ErrorCode.RATE_LIMIT_EXCEEDED,
)
MODEL, QUOTA, SERVER = ErrorCode.MODEL_NOT_FOUND, ErrorCode.QUOTA_EXCEEDED, ErrorCode.SERVER_ERROR
YES, NO = True, False


def classify(status: int, body: Any, **headers: str) -> Fault:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return OpenAIChat().classify(HttpFailure(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw))


def error(message: str, type: str | None = None, code: str | int | None = None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


TPM = "for gpt-4.1 in organization org-x on tokens per min (TPM): Limit 30000"
OPENAI = {
    "O1": (
        400,
        error("Unsupported parameter: 'max_tokens' …", "invalid_request_error", "unsupported_parameter", "max_tokens"),
        INVALID,
        "",
        NO,
        NO,
    ),
    "O2": (
        400,
        error("This model's maximum context length is 8192 tokens. …", "invalid_request_error", "context_length_exceeded", "messages"),
        INVALID,
        Subreason.CONTEXT_LENGTH,
        NO,
        NO,
    ),
    "O3": (400, error("Invalid prompt: your prompt was flagged …", "invalid_request_error", "invalid_prompt"), FILTER, "", NO, NO),
    "O3 azure": (
        400,
        {
            "error": {
                "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. …",
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "status": 400,
                "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}},
            }
        },
        FILTER,
        "",
        NO,
        NO,
    ),
    "O4": (401, error("Incorrect API key provided: sk-false. You can …", "invalid_request_error", "invalid_api_key"), AUTH, "", NO, YES),
    "O4 organization": (
        401,
        error("OpenAI-Organization header should match …", "invalid_request_error", "mismatched_organization"),
        AUTH,
        "",
        NO,
        YES,
    ),
    "O4 address": (401, error("Your IP address is not authorized.", "invalid_request_error", "ip_not_authorized"), AUTH, "", NO, YES),
    "O5": (
        403,
        error("Country, region, or territory not supported", "request_forbidden", "unsupported_country_region_territory"),
        AUTH,
        Subreason.REGION,
        NO,
        YES,
    ),
    "O6": (404, error("The model `gpt-4.1-nano-wrong` does not exist …", "invalid_request_error", "model_not_found"), MODEL, "", NO, YES),
    "O6 as 403": (
        403,
        error("Project `proj_x` does not have access to model …", "invalid_request_error", "model_not_found"),
        MODEL,
        "",
        NO,
        YES,
    ),
    "O7": (429, error(f"Rate limit reached {TPM}, Used 22343, Requested 10955. …", "tokens", "rate_limit_exceeded"), LIMIT, "", YES, YES),
    "O8": (
        429,
        error(f"Request too large {TPM}, Requested 30601. …", "tokens", "rate_limit_exceeded"),
        LIMIT,
        Subreason.NEVER_FITS,
        NO,
        YES,
    ),
    "O9": (429, error("…", "rate_limit_error", "slow_down"), LIMIT, Subreason.RAMP, YES, YES),
    "O9 as 503": (503, error("Slow down", "service_unavailable_error", "slow_down"), LIMIT, Subreason.RAMP, YES, YES),
    "O10": (
        429,
        error("You exceeded your current quota, …", "insufficient_quota", "insufficient_quota"),
        QUOTA,
        Subreason.BILLING,
        NO,
        YES,
    ),
    "O10 credit": (429, error("…", "insufficient_quota", "credit_balance_exhausted"), QUOTA, Subreason.BILLING, NO, YES),
    "O10 project": (429, error("…", "rate_limit_error", "project_spend_limit_exceeded"), QUOTA, Subreason.BILLING, NO, YES),
    "O10 organization": (429, error("…", None, "organization_spend_limit_exceeded"), QUOTA, Subreason.BILLING, NO, YES),
    "O11": (500, error("The server experienced an error while processing …", "server_error"), SERVER, "", YES, YES),
    "O12": (503, error("…", "service_unavailable_error", "server_is_overloaded"), SERVER, Subreason.OVERLOADED, YES, YES),
}
COMPATIBLE = {
    "groq: no such model": (404, error("The model `x` does not exist …", "invalid_request_error", "model_not_found"), MODEL, "", NO, YES),
    "groq: too large": (413, error(f"Request too large {TPM}", "tokens", "rate_limit_exceeded"), LIMIT, Subreason.NEVER_FITS, NO, YES),
    "groq: bad call": (400, error("Tool call validation failed: …", "invalid_request_error", "tool_use_failed"), SERVER, "", YES, YES),
    "groq: full": (498, error("Flex tier capacity exceeded", "…", "capacity_exceeded"), SERVER, Subreason.OVERLOADED, YES, YES),
    "deepseek: key": (401, error("Authentication Fails, …", "authentication_error", "invalid_request_error"), AUTH, "", NO, YES),
    "deepseek: money": (402, error("Insufficient Balance", "unknown_error", "invalid_request_error"), QUOTA, Subreason.BILLING, NO, YES),
    "deepseek: model": (400, error("Model Not Exist", "invalid_request_error", "invalid_request_error"), MODEL, "", NO, YES),
    "deepseek: length": (
        400,
        error("This model's maximum context length is 1048565 tokens. …", "invalid_request_error", "invalid_request_error"),
        INVALID,
        Subreason.CONTEXT_LENGTH,
        NO,
        NO,
    ),
    "ollama: length": (
        400,
        error("prompt too long; exceeded max context length by 1119046 tokens (ref: …)", "invalid_request_error"),
        INVALID,
        Subreason.CONTEXT_LENGTH,
        NO,
        NO,
    ),
    "ollama: model": (404, error('model "x" not found, try pulling it first', "api_error"), MODEL, "", NO, YES),
    "perplexity: length": (
        400,
        error("The total length of all messages is too long.", "too_many_prompt_tokens", 400),
        INVALID,
        Subreason.CONTEXT_LENGTH,
        NO,
        NO,
    ),
    "perplexity: key": (401, error("Invalid API key provided. …", "invalid_api_key", 401), AUTH, "", NO, YES),
    "openrouter: key": (401, {"error": {"message": "Missing Authentication header", "code": 401}}, AUTH, "", NO, YES),
    "openrouter: moderation": (403, {"error": {"message": "… your input was flagged", "code": 403}}, FILTER, "", NO, NO),
    "openrouter: model": (400, {"error": {"message": "x/y is not a valid model ID", "code": 400}}, MODEL, "", NO, YES),
    "azure: deployment": (
        404,
        error("The API deployment for this resource does not exist.", None, "DeploymentNotFound"),
        MODEL,
        "",
        NO,
        YES,
    ),
    "azure: gateway": (401, {"statusCode": 401, "message": "Access denied due to invalid subscription key."}, AUTH, "", NO, YES),
    "mistral: model": (
        400,
        {"object": "error", "message": "Invalid model: x", "type": "invalid_model", "code": "1500"},
        MODEL,
        "",
        NO,
        YES,
    ),
    "xai: field": (422, {"code": "Client specified an invalid argument", "error": "messages: missing"}, INVALID, "", NO, NO),
    "google: list": (400, [{"error": {"code": 400, "message": "Invalid value", "status": "INVALID_ARGUMENT"}}], INVALID, "", NO, NO),
    "vllm: old form": (400, {"object": "error", "message": "…", "type": "BadRequestError", "code": 400}, INVALID, "", NO, NO),
    "permission": (403, error("no", "permission_error"), AUTH, Subreason.PERMISSION, NO, YES),
    "too large": (413, error("…"), INVALID, Subreason.TOO_LARGE, NO, NO),
    "wrong address": (404, error("Invalid URL (POST /v1/chat)", "invalid_request_error"), INVALID, "", NO, YES),
    "timeout": (504, error("…"), ErrorCode.TIMEOUT, "", YES, YES),
    "conflict": (409, error("…"), SERVER, "", YES, YES),
    "new": (418, error("…", "brand_new_error"), ErrorCode.UNKNOWN_ERROR, "", NO, YES),
    "a page": (502, b"<html>502 Bad Gateway</html>", SERVER, Subreason.NON_JSON, YES, YES),
    "a page of 404": (404, b"<html>nginx</html>", SERVER, Subreason.NON_JSON, NO, YES),
    "nothing": (500, b"", SERVER, Subreason.NON_JSON, YES, YES),
    "nothing, but too many": (429, b"", LIMIT, "", YES, YES),
    "a page, but not allowed": (401, b"<html>", AUTH, "", NO, YES),
}


@pytest.mark.parametrize(
    ("status", "body", "code", "subreason", "retryable", "fallback"), (OPENAI | COMPATIBLE).values(), ids=OPENAI | COMPATIBLE
)
def test_error_is_classified_by_its_body_first(status, body, code, subreason, retryable, fallback):
    fault = classify(status, body)
    assert (fault.code, fault.subreason, fault.retryable, fault.fallback, fault.http_status) == (
        code,
        subreason,
        retryable,
        fallback,
        status,
    )


def test_delay_is_taken_from_the_words_when_no_header_names_one():
    limited = error(f"Rate limit reached {TPM}. Please try again in 6.596s. Visit …", "tokens", "rate_limit_exceeded")
    assert classify(429, limited).retry_after == 6596
    assert classify(429, limited, retry_after_ms="250", retry_after="9").retry_after == 250


def test_field_that_the_provider_blames_is_a_violation():
    fault = classify(400, error("Unsupported value", "invalid_request_error", "unsupported_value", "messages[0].role"))
    assert [v.field for v in fault.violations] == ["messages[0].role"]


def test_violations_in_place_of_a_message_become_words_and_field():
    detail = [{"type": "extra_forbidden", "loc": ["body", "stream_options", "include_usage"], "msg": "Extra inputs are not permitted"}]
    for body in ({"object": "error", "message": {"detail": detail}, "type": "invalid_request_error"}, {"detail": detail}):
        fault = classify(422, body)
        assert (fault.code, fault.message) == (INVALID, "stream_options.include_usage: Extra inputs are not permitted")
        assert [v.field for v in fault.violations] == ["stream_options.include_usage"]


def test_message_of_the_server_behind_a_router_is_kept():
    body = {
        "error": {
            "message": "Provider returned error",
            "code": 429,
            "metadata": {"raw": "x is rate-limited upstream", "provider_name": "G"},
        }
    }
    fault = classify(429, body)
    assert (fault.code, fault.retryable, fault.message) == (LIMIT, True, "Provider returned error: x is rate-limited upstream")
    assert fault.provider_code == "429"


def test_key_in_an_error_is_redacted():
    fault = classify(
        401, error("Incorrect API key provided: sk-abcdefghijklmnopqrstuvwxyz012345.", "invalid_request_error", "invalid_api_key")
    )
    assert "abcdefghijkl" not in fault.message + fault.provider_text


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{}", b'"x"', b"[1]", b'{"error":null}', b'{"error":{}}', b"[" * 100_000, b"\xff"])
def test_body_without_an_error_reads_as_none(body):
    assert read_error(body) == read_error(b"")
