"""From what a provider answered to a Fault: what all dialects share. Pure; each dialect brings its table of rules.

The body is looked at first, the status second, words of the message last: the status alone is wrong for money, quota and credentials.
"""

import math
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from headrace_server.domain.errors import ErrorCode, Fault, ProviderFault, RateLimitInfo, Subreason, Violation
from headrace_server.domain.redaction import redact
from headrace_server.providers.dialect import HttpFailure

MAX_MESSAGE = 1_024
"""Bytes of a fault's message: it becomes a gRPC status message."""
MAX_TEXT = 64 * 1_024
"""Bytes of a provider's text that are kept for the record."""
MAX_WORD = 256
"""Bytes of a provider's type, code or request id."""

_WORDS_SEARCHED = 16_384
_LONGEST_KEY = 4_096
_KEY_CHARACTERS = string.ascii_letters + string.digits + "-._~+/=*"


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """An error as a dialect read it out of a body. All empty: the body held no error in the dialect's form."""

    type: str = ""
    code: str = ""
    message: str = ""
    param: str = ""
    """The field of the request that the provider blames."""
    request_id: str = ""
    details: Any = None
    """Whatever else the dialect's own rules look at."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of a dialect's table: the conditions, and what a failure that meets them all means. An empty condition is always met."""

    code: ErrorCode
    subreason: str = ""
    retryable: bool = False
    fallback: bool = True
    status: tuple[int, ...] = ()
    type: tuple[str, ...] = ()
    error_code: tuple[str, ...] = ()
    words: str = ""
    """A regular expression, searched for in the message, case ignored."""

    def matches(self, status: int, body: ErrorBody) -> bool:
        """Whether a failure meets all conditions."""
        return (
            (not self.status or status in self.status)
            and (not self.type or body.type in self.type)
            and (not self.error_code or body.code in self.error_code)
            and (not self.words or re.search(self.words, body.message[:_WORDS_SEARCHED], re.IGNORECASE) is not None)
        )


def classify(rules: Sequence[Rule], failure: HttpFailure, body: ErrorBody, *, named: int | None = None) -> Fault:
    """The fault that the first matching rule tells of, or the one for answers that no dialect knows.

    `named` is a delay in milliseconds that the dialect found in the body; headers that name one win.
    """
    if failure.status >= 500 and body == ErrorBody():
        return _fault(unclassified(failure, body), failure, body, named)
    rule = next((rule for rule in rules if rule.matches(failure.status, body)), None)
    return _fault(rule or unclassified(failure, body), failure, body, named)


def unclassified(failure: HttpFailure, body: ErrorBody) -> Rule:
    """What a failure means that is in no dialect's table: a redirect, a page of some server in between, or something new."""
    if 300 <= failure.status < 400:
        return Rule(ErrorCode.SERVER_ERROR, Subreason.REDIRECT_BLOCKED)
    if body == ErrorBody():
        return Rule(ErrorCode.SERVER_ERROR, Subreason.NON_JSON, retryable=not 400 <= failure.status < 500)
    return Rule(ErrorCode.UNKNOWN_ERROR)


def _fault(rule: Rule, failure: HttpFailure, body: ErrorBody, named: int | None) -> Fault:
    message = clean(body.message, MAX_MESSAGE) or _describe(rule, failure, body)
    # A delay makes sense where a retry does; elsewhere only where the dialect itself knows when a quota is renewed.
    delay = header_delay(failure.headers, failure.now) if rule.retryable else None
    delay = delay or named
    if delay is None and rule.retryable and failure.status == 429:
        delay = reset_delay(failure.headers, failure.now)
    limited = rule.code in (ErrorCode.RATE_LIMIT_EXCEEDED, ErrorCode.QUOTA_EXCEEDED)
    return Fault(
        code=rule.code,
        subreason=rule.subreason,
        message=message,
        retryable=rule.retryable and failure.headers.get("x-should-retry", "").strip().lower() != "false",
        fallback=rule.fallback,
        http_status=failure.status,
        provider_type=clean(body.type, MAX_WORD),
        provider_code=clean(body.code, MAX_WORD),
        provider_request_id=clean(request_id(failure.headers) or body.request_id, MAX_WORD),
        provider_text=clean(failure.body.decode("utf-8", "replace"), MAX_TEXT),
        retry_after=delay,
        rate_limit=_rate_limit(failure, delay) if limited else None,
        violations=(Violation(field=clean(body.param, MAX_WORD), description=message),) if body.param else (),
    )


def _describe(rule: Rule, failure: HttpFailure, body: ErrorBody) -> str:
    if rule.subreason == Subreason.REDIRECT_BLOCKED:
        return f"the provider answered with a redirect (HTTP {failure.status}), which is not followed"
    if body == ErrorBody():
        return f"the provider answered HTTP {failure.status} without an error in its dialect's form"
    return f"the provider answered HTTP {failure.status}" + clean(f" {body.type or body.code}", MAX_WORD).rstrip()


def request_id(headers: Mapping[str, str]) -> str:
    """The provider's own id of the exchange, from the headers of its answer; empty where it sends none."""
    return headers.get("request-id") or headers.get("x-request-id") or ""


def clean(text: str, size: int) -> str:
    """Foreign text made fit to keep: without keys and NUL, at most `size` bytes of UTF-8."""
    if len(text) > size + _LONGEST_KEY:
        # To look for keys takes long, so most of what is not kept goes before that; and with it the key that this may have cut in two.
        text = text[: size + _LONGEST_KEY]
        text = text[: max(size, len(text.rstrip(_KEY_CHARACTERS)))]
    safe = redact(text).replace("\0", "\ufffd").encode("utf-8", "replace")
    return safe[:size].decode("utf-8", "ignore")


# ---------------------------------------------------------------- delays


def header_delay(headers: Mapping[str, str], now: int) -> int | None:
    """The delay that `retry-after-ms` or `retry-after` names, in milliseconds. `now` is in milliseconds since the epoch.

    What is not a delay (zero, negative, not a number, infinite, in the past) is passed over.
    """
    millis = _positive(_number(headers.get("retry-after-ms", "")))
    if millis is not None:
        return millis
    after = headers.get("retry-after", "").strip()
    seconds = _number(after)
    return _positive(seconds * 1_000 if seconds is not None else _until(_http_date(after), now))


_TRY_AGAIN = re.compile(r"try again in\s+((?:\d+(?:\.\d+)?\s*(?:ms|h|m|s)\s*)+)", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|d|h|m|s)", re.IGNORECASE)
_MILLIS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def text_delay(message: str) -> int | None:
    """The delay in OpenAI's words 'Please try again in 6.596s' (or 174ms, 1m30s), in milliseconds."""
    found = _TRY_AGAIN.search(message[:_WORDS_SEARCHED])
    return duration(found[1]) if found else None


def duration(text: str) -> int | None:
    """A positive duration written as '31s', '1.5s', '174ms' or '6m0s', in milliseconds; None for anything else."""
    text = text.strip()
    if _DURATION.sub("", text).strip() or not text:
        return None
    return _positive(sum(float(amount) * _MILLIS[unit.lower()] for amount, unit in _DURATION.findall(text)))


_RESET = re.compile(r"(?:x-ratelimit-reset(?P<openai>-.+)?|anthropic-ratelimit-(?P<claude>.+)-reset)")


def reset_delay(headers: Mapping[str, str], now: int) -> int | None:
    """How long until the limit is reset that an answer 429 tells of by its rate limit headers, in milliseconds.

    Where headers say which limits are used up, the longest of those; else the shortest of all: a 429 does not say which it was.
    """
    used_up: list[int] = []
    others: list[int] = []
    for name, value in headers.items():
        match = _RESET.fullmatch(name)
        if match is None:
            continue
        in_millis = f"x-ratelimit-renewalperiod{match['openai'] or ''}" in headers  # Azure's resets; its periods are in seconds
        delay = _positive(_number(value)) if in_millis else until_reset(value.strip(), now)
        if delay is None:
            continue
        remaining = _number(headers.get(_limit_header(match, "remaining"), ""))
        (used_up if remaining is not None and remaining <= 0 else others).append(delay)
    return max(used_up) if used_up else min(others, default=None)


def _limit_header(reset: re.Match[str], what: str) -> str:
    """The name of the header beside a reset header that tells its limit, or what remains of it."""
    return f"anthropic-ratelimit-{reset['claude']}-{what}" if reset["claude"] else f"x-ratelimit-{what}{reset['openai'] or ''}"


def until_reset(value: str, now: int) -> int | None:
    """Milliseconds until a reset as providers write it: a duration, a date, seconds from now, or seconds or milliseconds of the epoch."""
    number = _number(value)
    if number is None:
        return duration(value) or _positive(_until(_iso_date(value), now))
    if number > 1e11:
        return _positive(number - now)
    return _positive(number * 1_000 - now if number > 1e9 else number * 1_000)


def _rate_limit(failure: HttpFailure, delay: int | None) -> RateLimitInfo:
    """The limit that is nearest to used up among those that the headers tell of in full."""
    nearest: tuple[float, int, int] | None = None
    for name in failure.headers:
        match = _RESET.fullmatch(name)
        if match is None:
            continue
        limit = _number(failure.headers.get(_limit_header(match, "limit"), ""))
        remaining = _number(failure.headers.get(_limit_header(match, "remaining"), ""))
        if limit is not None and remaining is not None and 0 < limit < 2**63 and 0 <= remaining < 2**63:
            nearest = min(nearest or (math.inf, 0, 0), (remaining / limit, int(limit), int(remaining)))
    reset = reset_delay(failure.headers, failure.now) or delay
    return RateLimitInfo(
        retry_after=delay,
        limit=nearest[1] if nearest else None,
        remaining=nearest[2] if nearest else None,
        reset_time=failure.now + reset if reset and failure.now else None,
    )


_LONGEST_DELAY = 366 * 86_400_000


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _positive(millis: float | None) -> int | None:
    """Rounded up, so that nobody comes too early. Longer than a year is nonsense, and so is NaN."""
    return math.ceil(millis) if millis is not None and 0 < millis <= _LONGEST_DELAY else None


def _until(date: datetime | None, now: int) -> float | None:
    if date is None:
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() * 1_000 - now


def _http_date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None


def _iso_date(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


# ---------------------------------------------------------------- what goes wrong in an answer with status 200


def malformed(why: str, data: bytes = b"") -> ProviderFault:
    """An event or a body that its dialect does not allow; `data` is kept for the record."""
    return _broken(ErrorCode.SERVER_ERROR, Subreason.MALFORMED_EVENT, why, data)


def truncated(why: str = "the answer ended before its last event") -> ProviderFault:
    """An answer without the terminal evidence of its dialect."""
    return _broken(ErrorCode.NETWORK_ERROR, Subreason.STREAM_TRUNCATED, why)


def empty(why: str = "the answer is empty") -> ProviderFault:
    """A complete answer that holds nothing and gives no reason for it."""
    return _broken(ErrorCode.SERVER_ERROR, Subreason.EMPTY, why)


def ended_badly(native: str) -> ProviderFault:
    """An answer whose finish reason, in the provider's own word, means an error."""
    return _broken(ErrorCode.SERVER_ERROR, "", f"the provider ended the answer with {native!r}")


def too_large(what: str, limit: int) -> ProviderFault:
    """An event or an answer beyond its cap, in bytes."""
    return _broken(ErrorCode.SERVER_ERROR, Subreason.EVENT_TOO_LARGE, f"{what} is larger than {limit} bytes")


def _broken(code: ErrorCode, subreason: str, why: str, data: bytes = b"") -> ProviderFault:
    text = clean(data.decode("utf-8", "replace"), MAX_TEXT)
    return ProviderFault(Fault(code=code, subreason=subreason, message=clean(why, MAX_MESSAGE), retryable=True, provider_text=text))
