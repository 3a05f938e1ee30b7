"""The arithmetic of rate limits: pure decisions about windows.

Minutes slide: what counts is this minute plus the share of the last one that still lies within 60 seconds. Days are calendar days in
the provider's zone. Admission reserves; the end of a request settles what was really used. No admission takes used + reserved over a
limit; an answer longer than its estimate is charged in full and counts against the next admission. What a provider says is left may
lower what is left here, never raise it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

MINUTE = 60_000


class LimitType(StrEnum):
    """What a limit counts."""

    REQUESTS_PER_MINUTE = "requests_per_minute"
    TOKENS_PER_MINUTE = "tokens_per_minute"
    REQUESTS_PER_DAY = "requests_per_day"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The counter of one limit: a row of provider_rate_limits. `reset_at` is the end of the window that `current_usage` counts."""

    provider: str
    model: str
    limit_type: LimitType
    limit_value: int
    current_usage: int = 0
    previous_usage: int = 0
    reserved: int = 0
    reset_at: int
    lowered: int = 0
    """How much of `current_usage` no settlement brought, but a provider's word on how little is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The windows with the reservation in them."""

    windows: tuple[Window, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The window that is full, and how long until the request would fit; None: it never will."""

    window: Window
    retry_after: int | None


def window_end(limit_type: LimitType, now: int, zone: str = "UTC") -> int:
    """When the window that holds `now` ends, in milliseconds since the epoch."""
    if limit_type is not LimitType.REQUESTS_PER_DAY:
        return (now // MINUTE + 1) * MINUTE
    local = datetime.fromtimestamp(now / 1000, UTC).astimezone(ZoneInfo(zone))
    midnight = datetime.combine(local.date() + timedelta(days=1), datetime.min.time(), ZoneInfo(zone))
    return int(midnight.timestamp() * 1000)


def roll(window: Window, now: int, zone: str = "UTC") -> Window:
    """The window as it stands at `now`: usage of ended windows moves to the past or is forgotten."""
    if now < window.reset_at:
        return window
    slides = window.limit_type is not LimitType.REQUESTS_PER_DAY
    previous = window.current_usage if slides and now < window.reset_at + MINUTE else 0
    reset_at = window_end(window.limit_type, now, zone)
    return replace(window, current_usage=0, previous_usage=previous, reset_at=reset_at, lowered=0)


def used(window: Window, now: int) -> int:
    """What counts against the limit at `now`, without reservations; the window must have been rolled."""
    if window.limit_type is LimitType.REQUESTS_PER_DAY:
        return window.current_usage
    left_of_previous = min(max(window.reset_at - now, 0), MINUTE)
    return window.current_usage + -(-window.previous_usage * left_of_previous // MINUTE)


def admit(windows: Iterable[Window], tokens: int, now: int, zone: str = "UTC") -> Admitted | Refused:
    """Reserve one request and `tokens` tokens in all windows, or in none."""
    admitted = []
    refused: Refused | None = None
    for window in (roll(w, now, zone) for w in windows):
        amount = tokens if window.limit_type is LimitType.TOKENS_PER_MINUTE else 1
        if amount > window.limit_value:
            return Refused(window=window, retry_after=None)
        if used(window, now) + window.reserved + amount > window.limit_value:
            pause = _until_it_fits(window, amount, now)
            if refused is None or refused.retry_after is None or pause > refused.retry_after:
                refused = Refused(window=window, retry_after=pause)
        admitted.append(replace(window, reserved=window.reserved + amount))
    return refused or Admitted(windows=tuple(admitted))


def _until_it_fits(window: Window, amount: int, now: int) -> int:
    """Milliseconds until `amount` fits, if no more is used and what is reserved is used in full."""
    rest = window.limit_value - window.reserved - amount
    if window.limit_type is LimitType.REQUESTS_PER_DAY:
        return max(1, window.reset_at - now)
    if rest >= window.current_usage and window.previous_usage:
        # Still in this minute: wait until enough of the last one has slid out.
        share = (rest - window.current_usage) * MINUTE // window.previous_usage
        return max(1, window.reset_at - share - now)
    if rest < 0:
        return max(1, window.reset_at + MINUTE - now)
    # In the next minute, once enough of this one has slid out.
    share = rest * MINUTE // window.current_usage if window.current_usage else MINUTE
    return max(1, window.reset_at + MINUTE - min(share, MINUTE) - now)


def settle(window: Window, reserved: int, actual: int, now: int, zone: str = "UTC") -> Window:
    """Replace a reservation by what was really used."""
    window = roll(window, now, zone)
    return replace(window, reserved=max(0, window.reserved - reserved), current_usage=window.current_usage + actual)


def lower(window: Window, remaining: int, now: int, zone: str = "UTC") -> Window:
    """Believe a provider that says how little is left; never one that says there is more."""
    window = roll(window, now, zone)
    unseen = window.limit_value - used(window, now) - window.reserved - remaining
    if unseen <= 0:
        return window
    return replace(window, current_usage=window.current_usage + unseen, lowered=window.lowered + unseen)


def still_true(left: Mapping[LimitType, int], said: int, now: int, zone: str = "UTC") -> dict[LimitType, int]:
    """What of a provider's word, given at the time `said`, still tells of now: nothing of another day, or of more than a minute ago."""
    today = now < window_end(LimitType.REQUESTS_PER_DAY, said, zone)
    recent = now < said + MINUTE
    return {kind: count for kind, count in left.items() if (today if kind is LimitType.REQUESTS_PER_DAY else recent)}
