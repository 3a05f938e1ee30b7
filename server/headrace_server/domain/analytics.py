"""What the records add up to over a range of time: what may be asked, and what comes out.

Rates are in percent. Means are in milliseconds, of the rows that have the value; None where none has. A cost is in micro-USD, the sum of
what has a known price; None where nothing has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Protocol

from pydantic import Field

from headrace_server.domain.base import Count, Millis, Model, Text
from headrace_server.domain.errors import ErrorCode

HOUR = 3_600_000
DAY = 24 * HOUR

MOST_GROUPS = 10_000
"""Groups of usage that one answer holds."""

PageSize = Annotated[int, Field(ge=1, le=1_000)]


class TimeRange(Model):
    """From `start`, inclusive, to `end`, exclusive. One that ends before it starts holds nothing."""

    start: Millis
    end: Millis


class UsageDimension(StrEnum):
    """What usage is grouped by."""

    DAY = "day"
    PROVIDER = "provider"
    MODEL = "model"
    USER = "user"
    TAG = "tag"


# ---------------------------------------------------------------- what is asked


class SuccessRatesQuery(Model):
    """Which success rates to list, by provider and model. `after` is the provider and model of the row to go on behind."""

    range: TimeRange
    provider: str | None = None
    model: str | None = None
    page_size: PageSize = 100
    after: tuple[str, str] | None = None


class HourlyPerformanceQuery(Model):
    """Which hours to list, newest first, then by provider. `after` is the hour and provider of the row to go on behind."""

    range: TimeRange
    provider: str | None = None
    page_size: PageSize = 100
    after: tuple[Millis, str] | None = None


class FailedRequestsQuery(Model):
    """Which failures to list, newest first. `after` is the created_at and id of the row to go on behind."""

    range: TimeRange
    provider: str | None = None
    error_code: ErrorCode | None = None
    page_size: PageSize = 50
    after: tuple[Millis, str] | None = None


class UsageQuery(Model):
    """How to add up usage. Groups come in the order of their values, the first dimension first; without dimensions there is one."""

    range: TimeRange
    group_by: tuple[UsageDimension, ...] = ()
    provider: str | None = None
    model: str | None = None
    user_id: str | None = None
    tag: str | None = None


# ---------------------------------------------------------------- what comes out


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessRate:
    """How often one provider and model succeeds. See SuccessRate in the contract."""

    provider: str
    model: str
    total_requests: int
    successful_requests: int
    success_rate: float
    avg_duration: float | None
    avg_first_token_latency: float | None
    total_tokens: int
    retry_rate: float
    fallback_rate: float
    cost_micro_usd: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HourlyPerformance:
    """One hour of one provider; `hour` is the time at which it began. See HourlyPerformance in the contract."""

    provider: str
    hour: int
    request_count: int
    avg_duration: float | None
    avg_first_token_latency: float | None
    total_tokens: int
    retry_rate: float
    fallback_rate: float
    cost_micro_usd: int | None


class FailedRequest(Model):
    """One failed request, without what was asked and answered."""

    id: str
    request_id: str
    provider: str
    model: Text
    error_message: Text | None
    error_code: ErrorCode | None
    retry_attempt: Count
    created_at: Millis
    total_duration: Millis | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageGroup:
    """Tokens and cost of one group: of the calls of providers on record, each counted for its request. What was not asked for is None.

    A request without a tag counts under the empty one. `day` is the time at which it began, UTC.
    """

    day: int | None = None
    provider: str | None = None
    model: str | None = None
    user: str | None = None
    tag: str | None = None
    request_count: int
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cached_input_tokens: int
    reasoning_tokens: int
    cost_micro_usd: int | None


class Analytics(Protocol):
    """The part of a store that adds up. Lists return one row more than page_size if there is more."""

    async def list_success_rates(self, query: SuccessRatesQuery) -> Sequence[SuccessRate]:
        """How often each provider and model succeeds, by provider, then model."""
        ...

    async def list_hourly_performance(self, query: HourlyPerformanceQuery) -> Sequence[HourlyPerformance]:
        """Load and speed of each provider, newest hour first, then by provider."""
        ...

    async def list_failed_requests(self, query: FailedRequestsQuery) -> Sequence[FailedRequest]:
        """Requests that failed, newest first."""
        ...

    async def get_usage(self, query: UsageQuery) -> Sequence[UsageGroup]:
        """Tokens and cost, in groups; the first MOST_GROUPS of them."""
        ...
