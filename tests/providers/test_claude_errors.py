"""The dialect claude: its table of errors."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_server.domain.errors import Fault, ProviderFault
from headrace_server.providers.claude import Claude, ClaudeDecoder
from headrace_server.providers.dialect import HttpFailure

NOW = int(datetime(2026, 3, 15, 12, tzinfo=UTC).timestamp() * 1_000)
APRIL = int(datetime(2026, 4, 1, tzinfo=UTC).timestamp() * 1_000)

ERRORS: dict[str, tuple[int, bytes, str, str, bool, bool]] = {
    # name: status, body, code, subreason, retryable, fallback
    "C1": (
        400,
        b'{"type":"error","error":{"type":"invalid_request_error","message":"This model does not support effort level \'xhigh\'. '
        b'Supported levels: high, low, max, medium."},"request_id":"req_011Ca7jT9AHpgXgdv8igm4z9"}',
        *("invalid_request", "", False, False),
    ),
    "C2": (
        400,
        b'{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 208310 tokens > 200000 maximum"},'
        b'"request_id":"req_011CVQe1dLrGNMJyE1ghG1av"}',
        *("invalid_request", "CONTEXT_LENGTH", False, False),
    ),
    "C3": (
        400,
        b'{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API. '
        b'Please go to Plans & Billing to upgrade or purchase credits."},"request_id":"req_011CbrFTcXhtiMzr3s6EocF7"}',
        *("quota_exceeded", "BILLING", False, True),
    ),
    "C4": (
        400,
        b'{"type":"error","error":{"type":"invalid_request_error","message":"You have reached your specified API usage limits. '
        b'You will regain access on 2026-04-01 at 00:00 UTC."},"request_id":"req_011CZLrUfBVkVHn5T6EqQaf7"}',
        *("quota_exceeded", "SPEND_LIMIT", False, True),
    ),
    "C4 of a workspace": (
        400,
        b'{"type":"error","error":{"type":"invalid_request_error","message":"You have reached your specified workspace API usage '
        b'limits."}}',
        *("quota_exceeded", "SPEND_LIMIT", False, True),
    ),
    "C5": (
        401,
        b'{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}',
        *("authentication_error", "", False, True),
    ),
    "C6": (402, b'{"type":"error","error":{"type":"billing_error","message":"..."}}', *("quota_exceeded", "BILLING", False, True)),
    "C7": (
        403,
        b'{"type":"error","error":{"type":"permission_error","message":"..."}}',
        *("authentication_error", "PERMISSION", False, True),
    ),
    "C8": (
        404,
        b'{"type":"error","error":{"type":"not_found_error","message":"model: claude-does-not-exist"},'
        b'"request_id":"req_011CVEA3SF7rnb3DuBZytqQa"}',
        *("model_not_found", "", False, True),
    ),
    "C9": (
        413,
        b'{"type":"error","error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}',
        *("invalid_request", "TOO_LARGE", False, False),
    ),
    "C9 from an edge": (413, b"<html>413 Request Entity Too Large</html>", *("invalid_request", "TOO_LARGE", False, False)),
    "C10": (
        429,
        b'{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your organization\'s rate limit of '
        b'30,000 input tokens per minute (org: 5456..., model: claude-sonnet-4-20250514). ..."},'
        b'"request_id":"req_011CZRtHe9vmeRRMu6G4rMhJ"}',
        *("rate_limit_exceeded", "", True, True),
    ),
    "C11": (
        429,
        b'{"type":"error","error":{"type":"rate_limit_error","details":{"error_code":"enforced_spend_limit_reached"},"message":"..."}}',
        *("quota_exceeded", "SPEND_LIMIT", False, True),
    ),
    "C12": (
        429,
        b'{"type":"error","error":{"type":"rate_limit_error","message":"Extra usage is required for long context requests."},'
        b'"request_id":"req_011CYZAjb9kGCRmAhG79ySi5"}',
        *("quota_exceeded", "ENTITLEMENT", False, True),
    ),
    "C13": (500, b'{"type":"error","error":{"type":"api_error","message":"Internal server error"}}', *("server_error", "", True, True)),
    "C13 conflict": (409, b'{"type":"error","error":{"type":"conflict_error","message":"try again"}}', *("server_error", "", True, True)),
    "C14": (504, b'{"type":"error","error":{"type":"timeout_error","message":"..."}}', *("timeout", "", True, True)),
    "C15": (
        529,
        b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
        *("server_error", "OVERLOADED", True, True),
    ),
    "N1": (502, b"<html>502 Bad Gateway</html>", *("server_error", "NON_JSON", True, True)),
    "N1 403": (403, b"<html>blocked</html>", *("server_error", "NON_JSON", False, True)),
    "N6": (418, b'{"error":{"type":"brand_new_error","message":"x"}}', *("unknown_error", "", False, True)),
    "404 of something else": (
        404,
        b'{"type":"error","error":{"type":"not_found_error","message":"Not found"}}',
        *("unknown_error", "", False, True),
    ),
    "a compatible server": (401, b'{"error":"unauthorized"}', *("authentication_error", "", False, True)),
}


def classified(status: int, body: bytes, **headers: str) -> Fault:
    return Claude().classify(HttpFailure(status, {name.replace("_", "-"): value for name, value in headers.items()}, body, NOW))


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_classified(name):
    status, body, code, subreason, retryable, fallback = ERRORS[name]
    fault = classified(status, body)
    assert (fault.code.value, fault.subreason, fault.retryable, fault.fallback) == (code, subreason, retryable, fallback)
    assert fault.http_status == status


@pytest.mark.parametrize("name", [name for name, (_, body, *_) in ERRORS.items() if b'"type":"error"' in body])
def test_an_error_means_the_same_when_it_comes_inside_a_stream(name):
    _, body, code, subreason, retryable, _ = ERRORS[name]
    if name == "C13 conflict":
        code, retryable = "unknown_error", False  # known by its status alone
    with pytest.raises(ProviderFault) as raised:
        ClaudeDecoder().event("error", body)
    fault = raised.value.fault
    assert (fault.code.value, fault.subreason, fault.retryable) == (code, subreason, retryable)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("messages.0.content: Input should be a valid list", "messages.0.content"),
        ("tools.0.custom.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'", "tools.0.custom.name"),
        ("max_tokens: 100000 > 8192, which is the maximum", "max_tokens"),
        ("prompt is too long: 208310 tokens > 200000 maximum", "messages"),
    ],
)
def test_an_invalid_request_names_the_field_when_its_message_begins_with_one(message, field):
    body = json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": message}}).encode()
    (violation,) = classified(400, body).violations
    assert (violation.field, violation.description) == (field, message)


def test_an_invalid_request_names_no_field_when_its_message_begins_with_none():
    assert classified(400, ERRORS["C1"][1]).violations == ()


def test_an_error_keeps_the_request_id_of_its_body():
    assert classified(400, ERRORS["C2"][1]).provider_request_id == "req_011CVQe1dLrGNMJyE1ghG1av"


def test_a_rate_limit_waits_as_long_as_the_header_says():
    assert classified(429, ERRORS["C10"][1], retry_after="2").retry_after == 2_000


@pytest.mark.parametrize("name", ["C4", "C11"])
def test_a_spend_limit_is_renewed_on_the_date_it_names_or_with_the_month(name):
    status, body, *_ = ERRORS[name]
    fault = classified(status, body)
    assert fault.retry_after == APRIL - NOW
    assert fault.rate_limit is not None
    assert fault.rate_limit.reset_time == APRIL


def test_a_spend_limit_of_december_is_renewed_in_january():
    december = int(datetime(2026, 12, 31, 23, tzinfo=UTC).timestamp() * 1_000)
    fault = Claude().classify(HttpFailure(429, {}, ERRORS["C11"][1], december))
    assert fault.retry_after == 3_600_000


@pytest.mark.parametrize("date", ["2026-02-01 at 00:00", "2026-99-99 at 00:00", "0000-01-01 at 00:00"])
def test_a_date_that_is_past_or_none_is_passed_over(date):
    message = f"You have reached your specified API usage limits. You will regain access on {date} UTC."
    body = json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": message}}).encode()
    fault = classified(400, body)
    assert (fault.subreason, fault.retry_after) == ("SPEND_LIMIT", None)


@given(st.binary(max_size=200), st.integers(200, 599))
def test_any_body_is_classified(body, status):
    assert Claude().classify(HttpFailure(status, {}, body)).http_status == status
