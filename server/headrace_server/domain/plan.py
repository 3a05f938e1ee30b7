"""What would become of a request: who would be asked, who would be passed over and why, and how long it would wait."""

from dataclasses import dataclass

from headrace_server.domain.errors import Violation
from headrace_server.domain.limits import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedProvider:
    """One provider of a plan."""

    provider: str
    model: str
    skip_reason: str = ""
    """Why it would be passed over; empty where it would be asked."""
    windows: tuple[Window, ...] = ()
    """The counters of its limits as they stand, those too that nothing has been counted in yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What would become of a request that was sent now."""

    time: int
    """When it was made, in milliseconds since the epoch."""
    providers: tuple[PlannedProvider, ...] = ()
    """In the order in which they would be asked."""
    expected_wait: int | None = None
    """Milliseconds until the first call, for a place and for the limits; None where nobody would be asked."""
    violations: tuple[Violation, ...] = ()
    """What is wrong with the request; empty where it would be accepted."""
