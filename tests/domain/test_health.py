from hypothesis import given
from hypothesis import strategies as st

from headrace_server.domain import retry
from headrace_server.domain.health import GRAIN, SPAN, LastMinute, Totals


def test_nothing_is_known_of_a_provider_without_calls() -> None:
    totals = LastMinute().totals(0)
    assert (totals.error_rate, totals.mean_latency, totals.mean_duration) == (None, None, None)


def test_rates_and_means_are_those_of_the_last_minute() -> None:
    minute = LastMinute()
    minute.count(1_000, Totals(calls=1, failures=1))
    minute.count(30_000, Totals(calls=1, answers=1, latency=10, duration=100))
    minute.count(30_500, Totals(calls=1, answers=1, latency=20, duration=300))
    totals = minute.totals(31_000)
    assert (totals.error_rate, totals.mean_latency, totals.mean_duration) == (1 / 3, 15, 200)
    assert minute.totals(1_000 + SPAN).error_rate == 0
    assert minute.totals(30_000 + SPAN).calls == 0


@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 5), st.integers(0, 5)), max_size=40))
def test_the_sum_is_that_of_what_the_minute_holds(steps: list[tuple[int, int, int]]) -> None:
    minute, now, told = LastMinute(), 0, []
    for pause, calls, retries in steps:
        now += pause
        minute.count(now, Totals(calls=calls, retries=retries))
        told.append((now - now % GRAIN, calls, retries))
        totals = minute.totals(now)
        held = [(c, r) for second, c, r in told if second > now - SPAN]
        assert (totals.calls, totals.retries) == (sum(c for c, _ in held), sum(r for _, r in held))


def test_the_retry_budget_is_a_share_of_the_first_calls_but_never_less_than_a_few() -> None:
    allowed = {first: next(n for n in range(10_000) if not retry.is_within_budget(first, n)) for first in (0, 1, 50, 51, 1_000)}
    assert allowed == {0: 10, 1: 10, 50: 10, 51: 10, 1_000: 200}
    assert not retry.is_within_budget(1_000, 10, budget=0)
