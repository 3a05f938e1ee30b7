from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_server.domain.limits import (
    MINUTE,
    Admitted,
    LimitType,
    Refused,
    Window,
    admit,
    lower,
    roll,
    settle,
    still_true,
    used,
    window_end,
)

ZONE = "America/Los_Angeles"
NOW = 1_800_000_000_000 // MINUTE * MINUTE


def window(limit: int = 10, kind: LimitType = LimitType.REQUESTS_PER_MINUTE, **fields: int) -> Window:
    return Window(**{"provider": "p", "model": "m", "limit_type": kind, "limit_value": limit, "reset_at": NOW + MINUTE, **fields})  # type: ignore[arg-type]


def millis(year: int, month: int, day: int, hour: int = 0, minute: int = 0, zone: str = ZONE) -> int:
    return int(datetime(year, month, day, hour, minute, tzinfo=ZoneInfo(zone)).timestamp() * 1000)


windows = st.builds(
    Window,
    provider=st.just("p"),
    model=st.just("m"),
    limit_type=st.sampled_from(LimitType),
    limit_value=st.integers(1, 1_000),
    current_usage=st.integers(0, 1_500),
    previous_usage=st.integers(0, 1_500),
    reserved=st.integers(0, 1_000),
    reset_at=st.integers(-3, 3).map(lambda minutes: NOW + minutes * MINUTE),
)


def test_a_minute_slides_so_that_its_edge_admits_no_second_limit() -> None:
    full = window(50, current_usage=50)
    just_after = NOW + MINUTE + 1
    rolled = roll(full, just_after)
    assert used(rolled, just_after) == 50
    assert used(rolled, NOW + MINUTE + MINUTE // 2) == 25
    assert used(roll(full, NOW + 2 * MINUTE), NOW + 2 * MINUTE) == 0


@given(windows, st.integers(0, 5 * MINUTE), st.integers(0, 5 * MINUTE))
def test_usage_only_falls_while_nothing_is_used(before: Window, first: int, later: int) -> None:
    start = before.reset_at - MINUTE
    early, late = start + min(first, later), start + max(first, later)
    assert used(roll(before, late), late) <= used(roll(before, early), early)


@given(windows, st.integers(0, 10 * MINUTE), st.integers(1, 1_200))
def test_an_admission_never_takes_used_and_reserved_over_the_limit(before: Window, passed: int, tokens: int) -> None:
    now = NOW + passed
    match admit([before], tokens, now):
        case Admitted(windows=(after,)):
            assert used(after, now) + after.reserved <= after.limit_value
            assert after.reserved == before.reserved + (tokens if before.limit_type is LimitType.TOKENS_PER_MINUTE else 1)
        case Refused(window=full, retry_after=pause):
            assert full == roll(before, now)
            assert pause is None or pause >= 1


@given(windows, st.integers(0, 2 * MINUTE), st.integers(1, 1_200))
def test_a_refused_request_fits_after_the_named_wait_once_reservations_are_used_as_reserved(
    before: Window, passed: int, tokens: int
) -> None:
    now = NOW + passed
    refused = admit([replace(before, reserved=0)], tokens, now)
    if isinstance(refused, Refused) and refused.retry_after is not None:
        later = now + refused.retry_after
        assert isinstance(admit([refused.window], tokens, later), Admitted)


def test_a_wait_is_not_longer_than_it_has_to_be_when_a_minute_slides() -> None:
    refused = admit([window(10, current_usage=0, previous_usage=20)], 1, NOW + MINUTE // 4)
    assert isinstance(refused, Refused)
    assert refused.retry_after is not None
    just_before = NOW + MINUTE // 4 + refused.retry_after - 10
    assert isinstance(admit([refused.window], 1, just_before), Refused)


def test_a_request_larger_than_the_limit_never_fits() -> None:
    refused = admit([window(100, LimitType.TOKENS_PER_MINUTE)], 101, NOW)
    assert isinstance(refused, Refused)
    assert refused.retry_after is None


def test_all_windows_admit_or_none_does() -> None:
    requests, tokens = window(5), window(100, LimitType.TOKENS_PER_MINUTE, current_usage=60)
    assert isinstance(admit([requests, tokens], 50, NOW), Refused)
    admitted = admit([requests, tokens], 40, NOW)
    assert isinstance(admitted, Admitted)
    assert [w.reserved for w in admitted.windows] == [1, 40]


def test_the_window_that_is_full_for_the_longest_time_is_named() -> None:
    day = window(1, LimitType.REQUESTS_PER_DAY, current_usage=1, reset_at=window_end(LimitType.REQUESTS_PER_DAY, NOW))
    refused = admit([window(1, current_usage=1), day], 1, NOW)
    assert isinstance(refused, Refused)
    assert refused.window.limit_type is LimitType.REQUESTS_PER_DAY


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(0, 400)), max_size=40), st.integers(1, 1_000))
def test_reservations_are_gone_and_the_counter_is_the_sum_once_all_have_settled(calls: list[tuple[int, int]], limit: int) -> None:
    current, running, total = window(limit, LimitType.TOKENS_PER_MINUTE), [], 0
    for estimate, actual in calls:
        outcome = admit([current], estimate, NOW)
        if isinstance(outcome, Admitted):
            (current,) = outcome.windows
            running.append((estimate, actual))
    for estimate, actual in running:
        current = settle(current, estimate, actual, NOW)
        total += actual
    assert current.reserved == 0
    assert used(current, NOW) == total


def test_settling_gives_back_what_was_not_used_and_charges_what_was_used_beyond() -> None:
    reserved = window(10_000, LimitType.TOKENS_PER_MINUTE, reserved=4_000)
    assert settle(reserved, 4_000, 120, NOW) == replace(reserved, reserved=0, current_usage=120)
    assert settle(reserved, 4_000, 20_000, NOW).current_usage == 20_000
    assert settle(window(reserved=1), 5, 0, NOW).reserved == 0


@given(windows, st.integers(0, 2_000))
def test_a_provider_can_lower_what_is_left_but_never_raise_it(before: Window, remaining: int) -> None:
    before = roll(before, NOW)
    after = lower(before, remaining, NOW)

    def left(w: Window) -> int:
        return w.limit_value - used(w, NOW) - w.reserved

    assert left(after) == min(left(before), remaining)
    assert after.current_usage >= before.current_usage
    assert after.current_usage - after.lowered == before.current_usage - before.lowered


def test_what_a_provider_said_is_forgotten_with_its_window() -> None:
    lowered = lower(window(10, current_usage=2), 3, NOW)
    assert (lowered.current_usage, lowered.lowered) == (7, 5)
    rolled = roll(lowered, NOW + MINUTE)
    assert (rolled.current_usage, rolled.previous_usage, rolled.lowered) == (0, 7, 0)


@pytest.mark.parametrize(
    ("said", "now", "kinds"),
    [
        (NOW, NOW, {"requests_per_minute", "tokens_per_minute", "requests_per_day"}),
        (NOW, NOW + MINUTE - 1, {"requests_per_minute", "tokens_per_minute", "requests_per_day"}),
        (NOW, NOW + MINUTE, {"requests_per_day"}),
        (millis(2026, 3, 8, 23, 59) + 30_000, millis(2026, 3, 9), {"requests_per_minute", "tokens_per_minute"}),
        (millis(2026, 3, 8, 12), millis(2026, 3, 9, 0, 1), set()),
        (NOW, NOW - MINUTE, {"requests_per_minute", "tokens_per_minute", "requests_per_day"}),
    ],
    ids=["at once", "within the minute", "after it", "over midnight", "another day", "a clock that went back"],
)
def test_what_a_provider_said_holds_for_its_minute_and_its_day(said: int, now: int, kinds: set[str]) -> None:
    assert still_true(dict.fromkeys(LimitType, 5), said, now, ZONE) == {LimitType(kind): 5 for kind in kinds}


@pytest.mark.parametrize(
    ("now", "end", "hours"),
    [
        (millis(2026, 1, 15, 13), millis(2026, 1, 16), 24),
        (millis(2026, 3, 8, 1), millis(2026, 3, 9), 23),
        (millis(2026, 11, 1, 1), millis(2026, 11, 2), 25),
        (millis(2026, 12, 31, 23, 59), millis(2027, 1, 1), 24),
    ],
    ids=["plain", "spring forward", "fall back", "new year"],
)
def test_a_day_ends_at_midnight_of_its_zone_also_when_clocks_change(now: int, end: int, hours: int) -> None:
    assert window_end(LimitType.REQUESTS_PER_DAY, now, ZONE) == end
    local = datetime.fromtimestamp(now / 1000, ZoneInfo(ZONE))
    begin = millis(local.year, local.month, local.day)
    assert end - begin == hours * 3_600_000
    assert window_end(LimitType.REQUESTS_PER_DAY, begin, ZONE) == end
    assert window_end(LimitType.REQUESTS_PER_DAY, end - 1, ZONE) == end
    assert window_end(LimitType.REQUESTS_PER_DAY, end, ZONE) > end


def test_a_day_resets_once_and_forgets_the_day_before() -> None:
    end = millis(2026, 3, 9)
    full = window(20, LimitType.REQUESTS_PER_DAY, current_usage=20, reset_at=end)
    refused = admit([full], 1, end - 5_000, ZONE)
    assert isinstance(refused, Refused)
    assert refused.retry_after == 5_000
    after = roll(full, end, ZONE)
    assert (after.current_usage, after.previous_usage, after.reset_at) == (0, 0, millis(2026, 3, 10))
    assert roll(after, end + 1, ZONE) == after


@given(windows, st.integers(0, 60 * MINUTE))
def test_a_clock_that_goes_back_refills_nothing(before: Window, back: int) -> None:
    rolled = roll(before, NOW)
    earlier = NOW - back
    again = roll(rolled, earlier)
    assert again == rolled
    assert used(again, earlier) >= used(rolled, NOW)
