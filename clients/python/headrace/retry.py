"""When and how often the client tries again, by itself. Nothing is ever generated twice for it: the request's id stays the same."""

import random
import time
from dataclasses import dataclass

from headrace.errors import HeadraceError

GRACE = 0.5
"""Seconds that the service's own word about a deadline, with what there was of the answer, may come late."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How a lost connection is made again, and a request that was refused before anything was done for it sent again.

    Failures of providers are none of this: the service itself tries those again (see RetryConfig).
    """

    attempts: int = 6
    """Most tries in a row without any progress; 1: none is repeated."""
    initial_delay: float = 0.1
    """Seconds before the second try."""
    multiplier: float = 2.0
    """How the delay grows."""
    max_delay: float = 5.0
    """Longest delay, in seconds, unless the service names a longer one."""


class Deadline:
    """When a call has to be over."""

    def __init__(self, timeout: float | None) -> None:
        self._at = None if timeout is None else time.monotonic() + timeout

    @property
    def left(self) -> float | None:
        """Seconds that are left, at least 0; None: as many as it takes."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())

    @property
    def patience(self) -> float | None:
        """How long to wait for the service, which keeps the deadline by itself."""
        return None if self.left is None else self.left + GRACE


class Tries:
    """The tries of one call."""

    def __init__(self, retry: Retry, deadline: Deadline) -> None:
        self._retry = retry
        self._deadline = deadline
        self._failures = 0

    def progress(self) -> None:
        """Something has arrived."""
        self._failures = 0

    def delay(self, error: HeadraceError) -> float:
        """Seconds to wait before the next try. Raises the error where there is none to be."""
        self._failures += 1
        if not error.is_safe_to_repeat or self._failures >= self._retry.attempts:
            raise error
        delay = min(self._retry.max_delay, self._retry.initial_delay * self._retry.multiplier ** (self._failures - 1))
        delay = max(delay * random.uniform(0.8, 1.2), error.retry_after or 0)
        left = self._deadline.left
        if left is not None and left < delay:
            raise error
        return delay
