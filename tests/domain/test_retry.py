from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace_server.domain.errors import ErrorCode, Fault, Subreason
from headrace_server.domain.retry import JITTER, Leave, Retry, RetryPolicy, RetryStrategy, decide, delay, may_fall_back, wait

policies = st.builds(
    RetryPolicy,
    strategy=st.sampled_from(RetryStrategy),
    max_attempts=st.integers(1, 100),
    initial_delay=st.integers(0, 60_000),
    max_delay=st.integers(0, 600_000),
    backoff_multiplier=st.floats(1, 100),
)
attempts = st.integers(1, 10_000)
randoms = st.floats(0, 1, exclude_max=True)


def fault(*, retryable: bool = True, fallback: bool = True, retry_after: int | None = None) -> Fault:
    return Fault(code=ErrorCode.SERVER_ERROR, message="", retryable=retryable, fallback=fallback, retry_after=retry_after)


@pytest.mark.parametrize(
    ("strategy", "delays"),
    [
        (RetryStrategy.CONSTANT, [1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000]),
        (RetryStrategy.LINEAR, [1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 7_000]),
        (RetryStrategy.EXPONENTIAL, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]),
    ],
)
def test_a_delay_grows_by_its_strategy_up_to_the_cap(strategy: RetryStrategy, delays: list[int]) -> None:
    assert [delay(RetryPolicy(strategy=strategy), attempt) for attempt in range(1, 8)] == delays


@given(policies, attempts)
def test_a_delay_never_shrinks_nor_exceeds_the_cap(policy: RetryPolicy, attempt: int) -> None:
    assert 0 <= delay(policy, attempt) <= delay(policy, attempt + 1) <= policy.max_delay


@given(policies, attempts, randoms)
def test_jitter_stays_within_a_fifth_of_the_strategys_delay(policy: RetryPolicy, attempt: int, random: float) -> None:
    ours = delay(policy, attempt)
    paused = wait(policy, attempt, None, random)
    assert paused is not None
    assert ours * (1 - JITTER) - 1 <= paused <= ours * (1 + JITTER)


@given(policies, attempts, st.integers(1, 1_000_000), randoms)
def test_a_named_delay_wins_when_it_is_longer_and_is_not_waited_for_above_the_cap(
    policy: RetryPolicy, attempt: int, named: int, random: float
) -> None:
    paused = wait(policy, attempt, named, random)
    if named > policy.max_delay:
        assert paused is None
    else:
        longer = max(named, delay(policy, attempt))
        assert paused is not None
        assert longer * (1 - JITTER) - 1 <= paused <= longer * (1 + JITTER)


@example(RetryPolicy(), 1, 900, 0.0)
@given(policies, attempts, st.integers(1, 1_000_000), randoms)
def test_no_retry_comes_earlier_than_a_provider_said(policy: RetryPolicy, attempt: int, named: int, random: float) -> None:
    paused = wait(policy, attempt, named, random)
    assert paused is None or paused >= named


@given(
    policies,
    st.builds(fault, retryable=st.booleans(), fallback=st.booleans(), retry_after=st.none() | st.integers(1, 100_000)),
    attempts,
    st.booleans(),
    st.none() | st.integers(0, 100_000),
    randoms,
)
def test_a_provider_is_tried_again_only_where_all_rules_allow_it(
    policy: RetryPolicy, failed: Fault, attempt: int, delivered: bool, time_left: int | None, random: float
) -> None:
    decision = decide(failed, policy, attempt=attempt, delivered=delivered, time_left=time_left, random=random)
    if isinstance(decision, Retry):
        assert failed.retryable
        assert not delivered
        assert attempt < policy.max_attempts
        assert decision.delay == wait(policy, attempt, failed.retry_after, random)
        assert time_left is None or decision.delay < time_left
    elif decision.retry_after is not None:
        assert time_left is not None
        assert decision.retry_after == max(delay(policy, attempt), failed.retry_after or 0)


def test_a_failed_call_is_tried_again_when_nothing_speaks_against_it() -> None:
    assert decide(fault(), RetryPolicy(), attempt=1, delivered=False, time_left=None, random=0.5) == Retry(1_000)


@pytest.mark.parametrize(
    ("failed", "attempt", "delivered", "time_left", "possible_in"),
    [
        (fault(retryable=False), 1, False, None, None),
        (fault(), 3, False, None, None),
        (fault(), 1, True, None, None),
        (fault(), 1, False, 900, 1_000),
        (fault(), 1, False, 1_000, 1_000),
        (fault(retry_after=120_000), 1, False, None, None),
        (fault(retry_after=20_000), 1, False, 10_000, 20_000),
    ],
    ids=["not retryable", "attempts used up", "delivered", "too late", "exactly too late", "named above the cap", "named too late"],
)
def test_a_provider_is_left_when_a_rule_forbids_another_call(
    failed: Fault, attempt: int, delivered: bool, time_left: int | None, possible_in: int | None
) -> None:
    decision = decide(failed, RetryPolicy(), attempt=attempt, delivered=delivered, time_left=time_left, random=0.5)
    assert decision == Leave(possible_in)


@pytest.mark.parametrize(
    ("fallback", "delivered", "restart", "may"),
    [(True, False, False, True), (True, True, False, False), (True, True, True, True), (False, False, True, False)],
)
def test_another_provider_may_try_only_where_it_may_help_and_nothing_would_be_spoilt(
    fallback: bool, delivered: bool, restart: bool, may: bool
) -> None:
    assert may_fall_back(fault(fallback=fallback), delivered=delivered, restart=restart) is may


TOO_LONG = {"code": ErrorCode.INVALID_REQUEST, "subreason": Subreason.CONTEXT_LENGTH}
FILTERED = {"code": ErrorCode.CONTENT_FILTER}


@pytest.mark.parametrize(
    ("failed", "opted_in", "may"),
    [
        (TOO_LONG, set(), False),
        (TOO_LONG, {"on_context_length"}, True),
        (TOO_LONG, {"on_content_filter"}, False),
        (FILTERED, set(), False),
        (FILTERED, {"on_content_filter"}, True),
        (FILTERED, {"on_context_length"}, False),
        ({"code": ErrorCode.INVALID_REQUEST}, {"on_context_length", "on_content_filter"}, False),
        ({"code": ErrorCode.QUOTA_EXCEEDED, "subreason": Subreason.CONTEXT_LENGTH}, {"on_context_length"}, False),
    ],
)
def test_refused_prompt_goes_to_another_provider_only_where_the_caller_opted_in(
    failed: dict[str, Any], opted_in: set[str], may: bool
) -> None:
    refused = Fault(message="", fallback=False, **failed)
    wanted = dict.fromkeys(opted_in, True)
    assert may_fall_back(refused, delivered=False, **wanted) is may
    assert not may_fall_back(refused, delivered=True, **wanted)
    assert may_fall_back(refused, delivered=True, restart=True, **wanted) is may
