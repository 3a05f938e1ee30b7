"""What failures mean, before any dialect adds its own rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_server.domain.errors import ErrorCode, Fault, Subreason, Violation
from headrace_server.providers import faults
from headrace_server.providers.dialect import HttpFailure
from headrace_server.providers.faults import ErrorBody, Rule, classify, duration, header_delay, reset_delay, text_delay

NOW = 1_767_225_600_000  # 2026-01-01T00:00:00Z

RULES = (
    Rule(ErrorCode.QUOTA_EXCEEDED, Subreason.BILLING, error_code=("insufficient_quota",)),
    Rule(ErrorCode.RATE_LIMIT_EXCEEDED, Subreason.NEVER_FITS, status=(429,), words="request too large"),
    Rule(ErrorCode.RATE_LIMIT_EXCEEDED, retryable=True, status=(429,)),
    Rule(ErrorCode.INVALID_REQUEST, fallback=False, type=("invalid_request_error",)),
    Rule(ErrorCode.SERVER_ERROR, Subreason.OVERLOADED, retryable=True, status=(529,)),
    Rule(ErrorCode.SERVER_ERROR, retryable=True, status=(500, 503), type=("server_error",)),
)


def fault_of(
    status: int, body: ErrorBody, *, headers: dict[str, str] | None = None, text: bytes = b"{}", named: int | None = None
) -> Fault:
    return classify(RULES, HttpFailure(status, headers or {}, text, NOW), body, named=named)


# ---------------------------------------------------------------- rules


def test_first_matching_rule_wins_when_several_match() -> None:
    fault = fault_of(429, ErrorBody(type="tokens", code="insufficient_quota", message="Request too large"))
    assert (fault.code, fault.subreason, fault.retryable) == (ErrorCode.QUOTA_EXCEEDED, "BILLING", False)


def test_words_are_found_when_their_case_differs() -> None:
    fault = fault_of(429, ErrorBody(message="REQUEST TOO LARGE for gpt-4o"))
    assert (fault.subreason, fault.retryable, fault.fallback) == ("NEVER_FITS", False, True)


def test_fault_tells_all_that_is_known_when_a_rule_matches() -> None:
    body = ErrorBody(type="invalid_request_error", code="unsupported_parameter", message="Unsupported: 'max_tokens'", param="max_tokens")
    fault = fault_of(400, body, headers={"x-request-id": "req_1"}, text=b'{"error":"\xff"}')
    assert fault == Fault(
        code=ErrorCode.INVALID_REQUEST,
        message="Unsupported: 'max_tokens'",
        fallback=False,
        http_status=400,
        provider_type="invalid_request_error",
        provider_code="unsupported_parameter",
        provider_request_id="req_1",
        provider_text='{"error":"\ufffd"}',
        violations=(Violation(field="max_tokens", description="Unsupported: 'max_tokens'"),),
    )


def test_request_id_comes_from_the_body_when_no_header_has_it() -> None:
    body = ErrorBody(type="invalid_request_error", request_id="req_body")
    assert fault_of(400, body).provider_request_id == "req_body"
    assert fault_of(400, body, headers={"request-id": "req_head"}).provider_request_id == "req_head"


def test_retries_end_when_the_provider_says_so() -> None:
    body = ErrorBody(type="server_error", message="oops")
    assert fault_of(500, body).retryable
    assert fault_of(500, body, headers={"x-should-retry": "true"}).retryable
    assert not fault_of(500, body, headers={"x-should-retry": "false"}).retryable


def test_message_and_text_are_cut_on_a_character_when_they_are_long() -> None:
    fault = fault_of(400, ErrorBody(type="invalid_request_error", message="ü" * 1_000_000), text="ü".encode() * 500_000)
    assert fault.message == "ü" * 512
    assert fault.provider_text == "ü" * 32_768


def test_key_is_nowhere_when_the_provider_repeats_it() -> None:
    echo = "Incorrect API key provided: sk-false."
    fault = fault_of(401, ErrorBody(type="invalid_request_error", message=echo, param="sk-param"), text=echo.encode())
    assert "sk-" not in repr(fault)


def test_key_at_the_cut_leaves_nothing_when_it_is_longer_than_what_is_kept() -> None:
    fault = fault_of(400, ErrorBody(type="invalid_request_error", message="x" * 1_015 + " sk-ant-api03-SECRET"))
    assert "sk-" not in fault.message


def test_nul_is_replaced_when_a_message_has_one() -> None:
    assert fault_of(400, ErrorBody(type="invalid_request_error", message="a\0b")).message == "a\ufffdb"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_is_blocked_when_a_provider_sends_one(status: int) -> None:
    fault = fault_of(status, ErrorBody())
    assert (fault.code, fault.subreason, fault.retryable, fault.fallback) == (ErrorCode.SERVER_ERROR, "REDIRECT_BLOCKED", False, True)


@pytest.mark.parametrize(
    ("status", "retryable"), [(502, True), (520, True), (526, True), (500, True), (529, True), (400, False), (418, False)]
)
def test_page_of_an_edge_is_a_server_error_when_it_holds_no_error_body(status: int, retryable: bool) -> None:
    fault = fault_of(status, ErrorBody(), text=b"<html>502 Bad Gateway</html>", headers={"retry-after": "3"})
    assert (fault.code, fault.subreason, fault.retryable, fault.fallback) == (ErrorCode.SERVER_ERROR, "NON_JSON", retryable, True)
    assert fault.retry_after == (3_000 if retryable else None)
    assert "<html>" not in fault.message
    assert fault.provider_text == "<html>502 Bad Gateway</html>"


def test_status_rule_applies_when_a_4xx_has_no_error_body() -> None:
    assert fault_of(429, ErrorBody()).code is ErrorCode.RATE_LIMIT_EXCEEDED


def test_error_is_unknown_when_no_rule_matches_its_body() -> None:
    fault = fault_of(418, ErrorBody(type="brand_new_error"))
    assert (fault.code, fault.retryable, fault.fallback) == (ErrorCode.UNKNOWN_ERROR, False, True)
    assert "brand_new_error" in fault.message


# ---------------------------------------------------------------- delays

BAD_DELAYS = ["", "0", "-1", "NaN", "inf", "-inf", "1e309", "soon", "Mon, 01 Jan 2024 00:00:00 GMT", "Wed, 99 Foo 2026", "0x10"]


@pytest.mark.parametrize("value", BAD_DELAYS)
def test_delay_is_ignored_when_it_is_none(value: str) -> None:
    assert header_delay({"retry-after": value}, NOW) is None
    assert header_delay({"retry-after-ms": value, "retry-after": "2"}, NOW) == 2_000


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after-ms": "250", "retry-after": "9"}, 250),
        ({"retry-after": "2"}, 2_000),
        ({"retry-after": " 1.5 "}, 1_500),
        ({"retry-after": "0.0001"}, 1),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:07 GMT"}, 7_000),
        ({"retry-after": "120"}, 120_000),
        ({}, None),
    ],
)
def test_delay_of_a_header_is_in_milliseconds_when_it_is_one(headers: dict[str, str], expected: int | None) -> None:
    assert header_delay(headers, NOW) == expected


@given(st.text())
def test_any_text_is_a_delay_or_none_when_it_stands_in_a_header(value: str) -> None:
    headers = {"retry-after-ms": value, "retry-after": value, "x-ratelimit-reset-tokens": value, "anthropic-ratelimit-tokens-reset": value}
    for delay in (header_delay(headers, NOW), reset_delay(headers, NOW), text_delay(f"try again in {value}"), duration(value)):
        assert delay is None or delay > 0


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Limit 30000, Used 22343. Please try again in 6.596s. Visit https://…", 6_596),
        ("Please try again in 174ms.", 174),
        ("Please try again in 1m30.5s.", 90_500),
        ("Please try again in 1h2m3s", 3_723_000),
        ("Please try again later.", None),
        ("Please try again in a while", None),
        ("Please try again in 0s", None),
    ],
)
def test_delay_is_read_from_words_when_openai_writes_them(message: str, expected: int | None) -> None:
    assert text_delay(message) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("31s", 31_000), ("0.5s", 500), ("6m0s", 360_000), ("1d", 86_400_000), ("s", None), ("5", None)]
)
def test_duration_is_read_when_it_has_units(text: str, expected: int | None) -> None:
    assert duration(text) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-ratelimit-reset-requests": "8.64s", "x-ratelimit-reset-tokens": "6m0s"}, 8_640),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "20ms", "x-ratelimit-remaining-requests": "0"}, 1_000),
        (
            {
                "anthropic-ratelimit-requests-reset": "2026-01-01T00:00:01Z",
                "anthropic-ratelimit-input-tokens-reset": "2026-01-01T00:00:20Z",
                "anthropic-ratelimit-input-tokens-remaining": "0",
            },
            20_000,
        ),
        ({"x-ratelimit-reset": str(NOW + 5_000)}, 5_000),
        ({"x-ratelimit-reset": str(NOW // 1_000 + 5)}, 5_000),
        ({"x-ratelimit-reset-tokens": "12"}, 12_000),
        ({"x-ratelimit-reset-requests": "500", "x-ratelimit-renewalperiod-requests": "60", "x-ratelimit-remaining-requests": "119"}, 500),
        ({"x-ratelimit-reset-tokens": "yesterday", "anthropic-ratelimit-tokens-reset": "2025-01-01T00:00:00Z"}, None),
        ({"x-ratelimit-limit-tokens": "5"}, None),
    ],
)
def test_reset_is_found_when_rate_limit_headers_tell_it(headers: dict[str, str], expected: int | None) -> None:
    assert reset_delay(headers, NOW) == expected


def test_delays_are_taken_in_order_when_there_are_several() -> None:
    reset = {"x-ratelimit-reset-tokens": "30s"}
    assert fault_of(429, ErrorBody(), headers={**reset, "retry-after": "2"}, named=7_000).retry_after == 2_000
    assert fault_of(429, ErrorBody(), headers=reset, named=7_000).retry_after == 7_000
    assert fault_of(429, ErrorBody(), headers=reset).retry_after == 30_000


def test_reset_headers_are_passed_over_when_the_status_is_not_429() -> None:
    assert fault_of(503, ErrorBody(type="server_error"), headers={"x-ratelimit-reset-tokens": "30s"}).retry_after is None


def test_only_the_dialects_own_delay_counts_when_a_retry_is_pointless() -> None:
    body = ErrorBody(code="insufficient_quota")
    assert fault_of(429, body, headers={"retry-after": "2", "x-ratelimit-reset-tokens": "30s"}).retry_after is None
    assert fault_of(429, body, named=3_600_000).retry_after == 3_600_000


def test_limit_is_told_when_headers_have_it() -> None:
    headers = {
        "retry-after": "2",
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-remaining-requests": "99",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "30000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "4s",
    }
    limit = fault_of(429, ErrorBody(), headers=headers).rate_limit
    assert limit is not None
    assert (limit.retry_after, limit.limit, limit.remaining, limit.reset_time) == (2_000, 30_000, 0, NOW + 4_000)


def test_no_limit_is_told_when_the_failure_is_not_one_of_limits() -> None:
    assert fault_of(500, ErrorBody(type="server_error")).rate_limit is None


# ---------------------------------------------------------------- faults of answers that began well


@pytest.mark.parametrize(
    ("fault", "code", "subreason"),
    [
        (faults.malformed("no JSON", b"data sk-SECRET"), ErrorCode.SERVER_ERROR, "MALFORMED_EVENT"),
        (faults.truncated(), ErrorCode.NETWORK_ERROR, "STREAM_TRUNCATED"),
        (faults.empty(), ErrorCode.SERVER_ERROR, "EMPTY"),
        (faults.ended_badly("MALFORMED_FUNCTION_CALL"), ErrorCode.SERVER_ERROR, ""),
        (faults.too_large("an event", 1_024), ErrorCode.SERVER_ERROR, "EVENT_TOO_LARGE"),
    ],
)
def test_broken_answer_may_be_tried_again_when_nothing_was_delivered(fault: faults.ProviderFault, code: ErrorCode, subreason: str) -> None:
    assert (fault.fault.code, fault.fault.subreason, fault.fault.retryable, fault.fault.fallback) == (code, subreason, True, True)
    assert "SECRET" not in repr(fault.fault)
