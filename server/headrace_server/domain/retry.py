"""What to do after a provider failed: pure decisions. Only the engine waits.

Rules: the delay grows by the strategy and is capped, then jittered; a delay that a provider named wins when it is longer, is never
shortened, and is not waited for when it is longer than the cap. Nothing is retried once something was delivered.
"""

from dataclasses import dataclass
from enum import StrEnum

from headrace_server.domain.errors import ErrorCode, Fault, Subreason

JITTER = 0.2
"""Share by which a delay may vary: ±20 % for the strategy's, 0 to +20 % for one that a provider named."""


BUDGET = 0.2
"""Share of a provider's calls within a minute that may be retries: a provider that is down is not asked three times as often."""
ALWAYS_ALLOWED = 10
"""Retries of a provider within a minute that need no budget, or few calls could never be retried."""


class RetryStrategy(StrEnum):
    """How the delay grows from attempt to attempt."""

    EXPONENTIAL = "exponential"
    LINEAR = "linear"
    CONSTANT = "constant"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Retry settings with every default filled in. Delays in milliseconds."""

    strategy: RetryStrategy = RetryStrategy.EXPONENTIAL
    max_attempts: int = 3
    """Most calls to one provider."""
    initial_delay: int = 1_000
    max_delay: int = 30_000
    backoff_multiplier: float = 2.0


@dataclass(frozen=True, slots=True)
class Retry:
    """Try the same provider again after `delay` milliseconds."""

    delay: int


@dataclass(frozen=True, slots=True)
class Leave:
    """This provider is done with: another one may try, or the request fails."""

    retry_after: int | None = None
    """Milliseconds after which it would have been tried again, had there been time."""


Decision = Retry | Leave


def delay(policy: RetryPolicy, attempt: int) -> int:
    """Milliseconds to wait after the `attempt`-th failed call (1, 2, …), before jitter."""
    match policy.strategy:
        case RetryStrategy.CONSTANT:
            grown: float = policy.initial_delay
        case RetryStrategy.LINEAR:
            grown = policy.initial_delay * attempt
        case RetryStrategy.EXPONENTIAL:
            try:
                grown = policy.initial_delay * policy.backoff_multiplier ** (attempt - 1)
            except OverflowError:
                grown = policy.max_delay
    return int(min(grown, policy.max_delay))


def wait(policy: RetryPolicy, attempt: int, named: int | None, random: float) -> int | None:
    """Milliseconds to wait before the next call; None when a provider named a longer delay than is ever waited for.

    `named` is the provider's own delay, `random` a number from 0 (inclusive) to 1 (exclusive).
    """
    if named is not None and named > policy.max_delay:
        return None
    ours = delay(policy, attempt)
    if named is not None and named >= ours:
        return int(named * (1 + JITTER * random))
    return max(int(ours * (1 + JITTER * (2 * random - 1))), named or 0)


def decide(fault: Fault, policy: RetryPolicy, *, attempt: int, delivered: bool, time_left: int | None, random: float) -> Decision:
    """Whether the provider of a failed call is tried again.

    `attempt` counts the calls of this provider so far, `delivered` says whether a chunk was handed out, `time_left` is what remains
    of the caller's time in milliseconds (None: no bound).
    """
    if not delivered and fault.retryable and attempt < policy.max_attempts:
        pause = wait(policy, attempt, fault.retry_after, random)
        if pause is not None:
            if time_left is None or pause < time_left:
                return Retry(pause)
            return Leave(max(delay(policy, attempt), fault.retry_after or 0))
    return Leave()


def is_within_budget(first_calls: int, retries: int, budget: float = BUDGET) -> bool:
    """Whether a provider may be retried once more, after so many first calls and retries within the last minute."""
    return retries < max(ALWAYS_ALLOWED, int(budget * first_calls))


def may_fall_back(
    fault: Fault, *, delivered: bool, restart: bool = False, on_context_length: bool = False, on_content_filter: bool = False
) -> bool:
    """Whether the next provider may try: if it may do better, and nothing was delivered or the caller allows to start again.

    A prompt that is too long for one model, or that one provider's filter refused, is another's only where the caller says so.
    """
    too_long = fault.code is ErrorCode.INVALID_REQUEST and fault.subreason == Subreason.CONTEXT_LENGTH
    filtered = fault.code is ErrorCode.CONTENT_FILTER
    may_do_better = fault.fallback or (too_long and on_context_length) or (filtered and on_content_filter)
    return may_do_better and (not delivered or restart)
