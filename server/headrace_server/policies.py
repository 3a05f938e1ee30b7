"""What a request and a provider's settings add up to: the service's defaults are filled in here."""

from headrace_server.domain import retry
from headrace_server.domain.limits import LimitType
from headrace_server.domain.provider import Provider
from headrace_server.domain.request import DisconnectPolicy, GenerateRequest

NORMAL_PRIORITY = 100
"""A request's priority in a queue, where it names none."""


def retry_policy(request: GenerateRequest, provider: Provider) -> retry.RetryPolicy:
    """The request's retry settings."""
    wanted, defaults = request.retry, retry.RetryPolicy()
    initial = defaults.initial_delay if wanted.initial_delay is None else wanted.initial_delay
    longest = max(defaults.max_delay, initial) if wanted.max_delay is None else wanted.max_delay
    return retry.RetryPolicy(
        strategy=wanted.strategy or defaults.strategy,
        max_attempts=wanted.max_attempts or provider.max_retries,
        initial_delay=min(initial, longest),
        max_delay=longest,
        backoff_multiplier=wanted.backoff_multiplier or defaults.backoff_multiplier,
    )


def limits_of(provider: Provider) -> dict[LimitType, int]:
    """The limits that a provider has."""
    requests_per_minute, tokens_per_minute, requests_per_day = provider.limits
    wanted = {
        LimitType.REQUESTS_PER_MINUTE: requests_per_minute,
        LimitType.TOKENS_PER_MINUTE: tokens_per_minute,
        LimitType.REQUESTS_PER_DAY: requests_per_day,
    }
    return {kind: limit for kind, limit in wanted.items() if limit is not None}


def priority_of(request: GenerateRequest) -> int:
    """Its place in a queue: lower numbers go first."""
    return NORMAL_PRIORITY if request.priority is None else request.priority


def time_allowed(request: GenerateRequest, caller_time_left: float | None, default: int) -> tuple[float, str]:
    """How many seconds a request may take, and the words for them. The caller's in seconds, the service's default in milliseconds."""
    wanted = request.timeouts.total
    allowed = (wanted or default) / 1000
    ends_with_caller = (request.on_disconnect or DisconnectPolicy.CANCEL) is DisconnectPolicy.CANCEL
    if ends_with_caller and caller_time_left is not None and caller_time_left < allowed:
        return max(0.0, caller_time_left), "that of the call"
    return allowed, f"{allowed:g} s, {'as timeouts.total says' if wanted else 'the default of the service'}"
