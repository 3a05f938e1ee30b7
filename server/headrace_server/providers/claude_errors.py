"""Errors of the dialect claude, as https://platform.claude.com/docs/en/api/errors lists them and as they were seen; its limits' headers.

They come as bodies of answers with an error status, and as events inside a stream, where the type alone counts.
"""

import re
from datetime import UTC, datetime

import msgspec

from headrace_server.domain.errors import ErrorCode, Fault, Subreason
from headrace_server.domain.limits import LimitType
from headrace_server.providers.dialect import HttpFailure, LimitHeader
from headrace_server.providers.faults import ErrorBody, Rule, classify
from headrace_server.providers.json_values import UNREADABLE, Json, text_of

RULES = (
    # What the type alone does not tell, by the message.
    Rule(ErrorCode.QUOTA_EXCEEDED, Subreason.BILLING, words="credit balance is too low"),
    Rule(ErrorCode.QUOTA_EXCEEDED, Subreason.SPEND_LIMIT, words="specified (workspace )?API usage limits"),
    Rule(ErrorCode.QUOTA_EXCEEDED, Subreason.SPEND_LIMIT, error_code=("enforced_spend_limit_reached",)),
    Rule(ErrorCode.QUOTA_EXCEEDED, Subreason.ENTITLEMENT, type=("rate_limit_error",), words="extra usage is required"),
    Rule(
        ErrorCode.INVALID_REQUEST,
        Subreason.CONTEXT_LENGTH,
        fallback=False,
        type=("invalid_request_error",),
        words="prompt is too long|exceed context limit",
    ),
    # By type: also what stands in an error event, which has no status of its own.
    Rule(ErrorCode.INVALID_REQUEST, fallback=False, type=("invalid_request_error",)),
    Rule(ErrorCode.AUTHENTICATION_ERROR, type=("authentication_error",)),
    Rule(ErrorCode.QUOTA_EXCEEDED, Subreason.BILLING, type=("billing_error",)),
    Rule(ErrorCode.AUTHENTICATION_ERROR, Subreason.PERMISSION, type=("permission_error",)),
    Rule(ErrorCode.MODEL_NOT_FOUND, type=("not_found_error",), words=r"\bmodel\b"),
    Rule(ErrorCode.INVALID_REQUEST, Subreason.TOO_LARGE, fallback=False, type=("request_too_large",)),
    Rule(ErrorCode.RATE_LIMIT_EXCEEDED, retryable=True, type=("rate_limit_error",)),
    Rule(ErrorCode.SERVER_ERROR, retryable=True, type=("api_error",)),
    Rule(ErrorCode.TIMEOUT, retryable=True, type=("timeout_error",)),
    Rule(ErrorCode.SERVER_ERROR, Subreason.OVERLOADED, retryable=True, type=("overloaded_error",)),
    # By status, where the body holds an error of an unknown type.
    Rule(ErrorCode.INVALID_REQUEST, fallback=False, status=(400, 422)),
    Rule(ErrorCode.AUTHENTICATION_ERROR, status=(401,)),
    Rule(ErrorCode.QUOTA_EXCEEDED, Subreason.BILLING, status=(402,)),
    Rule(ErrorCode.AUTHENTICATION_ERROR, Subreason.PERMISSION, status=(403,)),
    Rule(ErrorCode.MODEL_NOT_FOUND, status=(404,), words=r"\bmodel\b"),
    Rule(ErrorCode.INVALID_REQUEST, Subreason.TOO_LARGE, fallback=False, status=(413,)),
    Rule(ErrorCode.RATE_LIMIT_EXCEEDED, retryable=True, status=(429,)),
    Rule(ErrorCode.SERVER_ERROR, retryable=True, status=(408, 409, 500, 502, 503)),
    Rule(ErrorCode.TIMEOUT, retryable=True, status=(504,)),
    Rule(ErrorCode.SERVER_ERROR, Subreason.OVERLOADED, retryable=True, status=(529,)),
)
"""Errors of the Messages API; the first rule that matches wins."""

BARE_RULES = tuple(rule for rule in RULES if rule.status in ((413,), (429,)))
"""The statuses that mean the same when a server in between answers, without an error in the body."""

LIMIT_HEADERS = (
    LimitHeader("anthropic-ratelimit-requests-remaining", LimitType.REQUESTS_PER_MINUTE),
    LimitHeader("anthropic-ratelimit-tokens-remaining", LimitType.TOKENS_PER_MINUTE),
    LimitHeader("anthropic-ratelimit-input-tokens-remaining", LimitType.TOKENS_PER_MINUTE),
    LimitHeader("anthropic-ratelimit-output-tokens-remaining", LimitType.TOKENS_PER_MINUTE),
)
"""What is left: https://platform.claude.com/docs/en/api/rate-limits, all of it per minute."""

_FIELD = re.compile(r"([a-z_]+(?:\.\w+)*): ")
_REGAIN = re.compile(r"regain access on (\d{4})-(\d\d)-(\d\d) at (\d\d):(\d\d) UTC")


def classify_error(failure: HttpFailure) -> Fault:
    """What an error answer or an error event (status 200) means."""
    body = _error_body(failure.body)
    rules = RULES if body != ErrorBody() else BARE_RULES
    return classify(rules, failure, body, named=_renewal(body, failure.now))


def _error_body(data: bytes) -> ErrorBody:
    try:
        outer = msgspec.json.decode(data, type=Json)
    except UNREADABLE:
        return ErrorBody()
    error = outer.get("error")
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        return ErrorBody()
    kind, message = text_of(error.get("type")), text_of(error.get("message"))
    details = error.get("details")
    return ErrorBody(
        type=kind,
        code=text_of(details.get("error_code")) if isinstance(details, dict) else text_of(error.get("code")),
        message=message,
        param=_param(message) if kind == "invalid_request_error" else "",
        request_id=text_of(outer.get("request_id")),
        details=details,
    )


def _param(message: str) -> str:
    """The field that a message begins with, such as 'messages.0.content: …', in the provider's spelling."""
    if message.startswith("prompt is too long"):
        return "messages"
    field = _FIELD.match(message)
    return field[1] if field else ""


def _renewal(body: ErrorBody, now: int) -> int | None:
    """Milliseconds until a spend limit is renewed: on the date in the message, or, for a monthly limit, with the next month."""
    when = _REGAIN.search(body.message)
    try:
        if when:
            year, month, day, hour, minute = map(int, when.groups())
            renewed = datetime(year, month, day, hour, minute, tzinfo=UTC)
        elif body.code == "enforced_spend_limit_reached":
            today = datetime.fromtimestamp(now / 1_000, UTC)
            renewed = datetime(today.year + today.month // 12, today.month % 12 + 1, 1, tzinfo=UTC)
        else:
            return None
    except ValueError:
        return None
    left = int(renewed.timestamp() * 1_000) - now
    return left if now and left > 0 else None
