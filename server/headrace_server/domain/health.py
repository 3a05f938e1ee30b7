"""How a provider is doing: what its calls of the last minute add up to."""

from collections import deque
from dataclasses import dataclass, field

from headrace_server.domain.provider import CircuitState

SPAN = 60_000
"""How far back it goes, in milliseconds."""
GRAIN = 1_000
"""Calls are counted by the second: the last minute begins up to so much later than it should."""


@dataclass(slots=True)
class Totals:
    """Sums over some time. Times in milliseconds."""

    calls: int = 0
    """Calls that ended with a verdict on the provider."""
    failures: int = 0
    """Those that failed by its doing."""
    answers: int = 0
    """Those that succeeded."""
    latency: int = 0
    """Of the answers: until the first chunk, or the whole answer, added up."""
    duration: int = 0
    """Of the answers: until their end, added up."""
    first_calls: int = 0
    """Calls begun that were no retries."""
    retries: int = 0
    """Retries that were let through."""

    def add(self, other: "Totals", times: int = 1) -> None:
        """Add the other's sums, or with `times` -1 take them away."""
        self.calls += other.calls * times
        self.failures += other.failures * times
        self.answers += other.answers * times
        self.latency += other.latency * times
        self.duration += other.duration * times
        self.first_calls += other.first_calls * times
        self.retries += other.retries * times

    @property
    def error_rate(self) -> float | None:
        """Share of the calls that failed, 0 to 1; None without any."""
        return self.failures / self.calls if self.calls else None

    @property
    def mean_latency(self) -> int | None:
        """None without an answer."""
        return round(self.latency / self.answers) if self.answers else None

    @property
    def mean_duration(self) -> int | None:
        """None without an answer."""
        return round(self.duration / self.answers) if self.answers else None


@dataclass(slots=True)
class LastMinute:
    """The calls of one provider, as far back as a minute. `now` never goes back."""

    _seconds: deque[tuple[int, Totals]] = field(default_factory=deque)
    _sum: Totals = field(default_factory=Totals)

    def count(self, now: int, more: Totals) -> None:
        """Something happened."""
        second = now - now % GRAIN
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, Totals()))
        self._seconds[-1][1].add(more)
        self._sum.add(more)

    def totals(self, now: int) -> Totals:
        """What the last minute adds up to. Valid until the next thing is counted."""
        while self._seconds and self._seconds[0][0] <= now - SPAN:
            self._sum.add(self._seconds.popleft()[1], -1)
        return self._sum


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderHealth:
    """How a provider is doing, as operators see it."""

    circuit_state: CircuitState = CircuitState.CLOSED
    circuit_retry_time: int | None = None
    """When an open circuit lets a probe through, in milliseconds since the epoch."""
    error_rate: float | None = None
    """Of the last minute's calls, 0 to 1."""
    latency: int | None = None
    """Mean milliseconds to the first chunk, or to a whole answer, of the last minute's successful calls."""
    calls: int = 0
    """Of the last minute."""
