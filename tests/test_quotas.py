"""Counters of limits are shown as they stand now, under the limits that are set now."""

from datetime import datetime
from zoneinfo import ZoneInfo

from headrace_server.domain.limits import LimitType, Window
from headrace_server.quotas import counters_of, in_force
from support.engine import provider

RPM, TPM, RPD = LimitType.REQUESTS_PER_MINUTE, LimitType.TOKENS_PER_MINUTE, LimitType.REQUESTS_PER_DAY
ZONE = "America/Los_Angeles"


def at(text: str) -> int:
    """A time of day in that zone, in milliseconds since the epoch."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(ZONE)).timestamp() * 1000)


def window(limit_type: LimitType, **fields: object) -> Window:
    values = {"provider": "p", "model": "m", "limit_value": 5, "current_usage": 4, "reserved": 1, "reset_at": at("2026-11-02T00:00")}
    return Window(limit_type=limit_type, **(values | fields))  # type: ignore[arg-type]


def test_day_ends_at_the_providers_midnight() -> None:
    limited = provider("p", rate_limit_rpd=9, config={"zone": ZONE})
    (before,) = in_force([window(RPD)], [limited], at("2026-11-01T23:59"))
    (after,) = in_force([window(RPD)], [limited], at("2026-11-02T00:00"))
    assert (before.current_usage, before.reserved, before.limit_value) == (4, 1, 9)
    assert (after.current_usage, after.reserved, after.reset_at) == (0, 1, at("2026-11-03T00:00"))


def test_minute_slides_on() -> None:
    limited = provider("p", rate_limit_rpm=9)
    now = at("2026-11-02T00:00")
    (shown,) = in_force([window(RPM, reset_at=now)], [limited], now + 10_000)
    assert (shown.current_usage, shown.previous_usage, shown.reset_at) == (0, 4, now + 60_000)


def test_counter_is_left_out_when_its_limit_or_provider_is_gone() -> None:
    stored = [window(RPM), window(TPM), window(RPD), window(RPD, provider="gone")]
    shown = in_force(stored, [provider("p", rate_limit_tpm=7), provider("other", rate_limit_rpm=7)], at("2026-11-01T12:00"))
    assert [(w.limit_type, w.limit_value) for w in shown] == [(TPM, 7)]


def test_limit_has_a_new_counter_when_no_request_has_met_it_yet() -> None:
    limited = provider("p", rate_limit_rpm=3, rate_limit_rpd=9, config={"zone": ZONE})
    counters = counters_of(limited, "m", [window(RPD), window(TPM)], now := at("2026-11-01T12:00"))
    assert {w.limit_type: (w.limit_value, w.current_usage) for w in counters} == {RPM: (3, 0), RPD: (9, 4)}
    assert {w.reset_at for w in counters} == {now + 60_000, at("2026-11-02T00:00")}
