"""What the headers of answers say is left of a provider's limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_server.domain.limits import LimitType
from headrace_server.domain.provider import Dialect
from headrace_server.providers.limit_headers import left
from headrace_server.providers.registry import DIALECTS

RPM, TPM, RPD = LimitType.REQUESTS_PER_MINUTE, LimitType.TOKENS_PER_MINUTE, LimitType.REQUESTS_PER_DAY
NOW = 1_767_225_600_000  # 2026-01-01T00:00:00Z
CHAT = (Dialect.OPENAI, "chat")
CLAUDE = (Dialect.CLAUDE, "")


def said(dialect: tuple[Dialect, str], headers: dict[str, str]) -> dict[LimitType, int]:
    return left(DIALECTS[dialect].limit_headers, headers, NOW)


@pytest.mark.parametrize(
    ("dialect", "headers", "expected"),
    [
        (CHAT, {"x-ratelimit-remaining-requests": "499", "x-ratelimit-remaining-tokens": "29985"}, {RPM: 499, TPM: 29_985}),
        (CHAT, {"x-ratelimit-remaining-requests": "0"}, {RPM: 0}),
        (CHAT, {"x-ratelimit-remaining-req-minute": "97", "x-ratelimit-remaining-tokens-minute": "97715"}, {RPM: 97, TPM: 97_715}),
        (CHAT, {"x-ratelimit-remaining-requests-day": "14399"}, {RPD: 14_399}),
        (
            CLAUDE,
            {
                "anthropic-ratelimit-requests-remaining": "49",
                "anthropic-ratelimit-tokens-remaining": "80000",
                "anthropic-ratelimit-input-tokens-remaining": "78000",
                "anthropic-ratelimit-output-tokens-remaining": "7000",
            },
            {RPM: 49, TPM: 7_000},
        ),
        (CLAUDE, {"anthropic-ratelimit-input-tokens-remaining": "78000"}, {TPM: 78_000}),
        (CLAUDE, {"x-ratelimit-remaining-requests": "5"}, {}),
        ((Dialect.GEMINI, ""), {"x-ratelimit-remaining-requests": "5", "anthropic-ratelimit-tokens-remaining": "5"}, {}),
        (CHAT, {}, {}),
    ],
)
def test_what_is_left_is_read_from_the_headers_of_the_dialect(
    dialect: tuple[Dialect, str], headers: dict[str, str], expected: dict[LimitType, int]
) -> None:
    assert said(dialect, headers) == expected


def test_both_apis_of_openai_read_the_same_headers() -> None:
    assert DIALECTS[Dialect.OPENAI, "responses"].limit_headers == DIALECTS[CHAT].limit_headers


@pytest.mark.parametrize(
    ("reset", "kind"),
    [
        ("24h", RPD),
        ("1d", RPD),
        ("2m59.56s", RPD),  # Groq: 30 of 14,400 requests of the day
        ("23h59m59s", RPD),
        ("86400", RPD),
        ("2026-01-02T00:00:00Z", RPD),
        (str(NOW // 1_000 + 40_000), RPD),
        ("120ms", RPM),
        ("8.64s", RPM),
        ("1m0s", RPM),
        ("500", RPM),  # Azure: milliseconds
        ("59", RPM),
        ("60000", RPM),
        (str(NOW // 1_000 + 65), RPM),  # a minute, and clocks that differ
        ("soon", RPM),
        ("", RPM),
        ("-1", RPM),
        ("inf", RPM),
    ],
)
def test_requests_are_those_of_the_day_when_they_are_renewed_later_than_a_minute_can_last(reset: str, kind: LimitType) -> None:
    headers = {"x-ratelimit-remaining-requests": "7", "x-ratelimit-reset-requests": reset, "x-ratelimit-remaining-tokens": "9"}
    assert said(CHAT, headers) == {kind: 7, TPM: 9}


def test_the_tokens_are_those_of_the_minute_whenever_they_are_renewed() -> None:
    assert said(CHAT, {"x-ratelimit-remaining-tokens": "149984", "x-ratelimit-reset-tokens": "6m0s"}) == {TPM: 149_984}


@pytest.mark.parametrize(
    "count", ["", " ", "many", "-1", "1.5", "1e3", "NaN", "inf", "9" * 16, "9" * 5_000, "1, 2", "\u0667", "0x10", "+5", "1_0"]
)
def test_a_count_that_is_none_is_passed_over(count: str) -> None:
    assert said(CHAT, {"x-ratelimit-remaining-requests": count, "x-ratelimit-remaining-tokens": "9"}) == {TPM: 9}


texts = st.one_of(st.text(), st.integers().map(str), st.floats().map(str))


@given(
    st.dictionaries(st.sampled_from([h.name for d in DIALECTS.values() for h in d.limit_headers] + ["x-ratelimit-reset-requests"]), texts)
)
def test_any_headers_give_counts_or_nothing(headers: dict[str, str]) -> None:
    for dialect in DIALECTS:
        assert all(0 <= count < 10**15 for count in said(dialect, headers).values())
