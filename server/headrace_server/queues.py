"""Queues: at most so many requests of a provider run at once, the others wait for a place, each in its turn."""

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field

from headrace_server.domain import refusals
from headrace_server.domain.errors import HeadraceError
from headrace_server.domain.provider import Provider

Place = tuple[int, int, "asyncio.Future[None]"]
"""Priority, number in order of arrival, and what is told when it is its turn."""


OnWait = Callable[[int], Awaitable[None]]
"""Told, before somebody waits for a place, how long that will probably take, in milliseconds."""


@dataclass(slots=True)
class _Queue:
    """Who runs and who waits, at one provider."""

    limit: int
    """As the provider's settings said last."""
    running: int = 0
    waiting: list[Place] = field(default_factory=list)
    """A heap."""

    def hand_on(self) -> None:
        """Let in whoever is next, while there is room."""
        while self.waiting and self.running < self.limit:
            _, _, turn = heapq.heappop(self.waiting)
            # One that was stopped at this very moment has left already, and only does not know it yet.
            if not turn.cancelled():
                self.running += 1
                turn.set_result(None)

    def leave(self, place: Place) -> None:
        """Give up waiting; or running, where its turn came at that very moment."""
        if place in self.waiting:
            self.waiting.remove(place)
            heapq.heapify(self.waiting)
        elif not place[2].cancelled():
            self.running -= 1
            self.hand_on()


class Queues:
    """One queue a provider. `mean_duration` tells how long a call of a provider takes, in milliseconds, where that is known."""

    def __init__(self, mean_duration: Callable[[str], int | None]) -> None:
        self._mean_duration = mean_duration
        self._queues: dict[str, _Queue] = {}
        self._numbers = itertools.count()

    def place(self, provider: Provider, priority: int, time_left: int, on_wait: OnWait) -> AbstractAsyncContextManager[None]:
        """A place among those that run, for as long as the block lasts.

        Waits for it where all are taken, and says so first. `time_left` in milliseconds. Raises HeadraceError (QUEUE_FULL) where too
        many wait, or the wait does not fit into the time left.
        """
        limit = provider.config.max_concurrent_requests
        return nullcontext() if limit is None else self._place(limit, provider, priority, time_left, on_wait)

    @asynccontextmanager
    async def _place(self, limit: int, provider: Provider, priority: int, time_left: int, on_wait: OnWait) -> AsyncIterator[None]:
        queue = self._queues.setdefault(provider.provider, _Queue(limit))
        queue.limit = limit
        await self._enter(queue, provider, priority, time_left, on_wait)
        try:
            yield
        finally:
            queue.running -= 1
            queue.hand_on()

    async def _enter(self, queue: _Queue, provider: Provider, priority: int, time_left: int, on_wait: OnWait) -> None:
        queue.hand_on()
        if queue.running < queue.limit:
            queue.running += 1
            return
        wait = self.check(provider, priority, time_left)
        place = priority, next(self._numbers), asyncio.get_running_loop().create_future()
        heapq.heappush(queue.waiting, place)
        try:
            await on_wait(wait)
            await place[2]
        except BaseException:
            queue.leave(place)
            raise

    def check(self, provider: Provider, priority: int, time_left: int) -> int:
        """How long a request that has so many milliseconds would probably wait; see `expected_wait`.

        Raises HeadraceError (QUEUE_FULL) where too many wait, or the wait does not fit into the time left.
        """
        limit, queue = provider.config.max_concurrent_requests, self._queues.get(provider.provider)
        if limit is None or queue is None or queue.running < limit:
            return 0
        wait = self.expected_wait(provider, priority)
        if len(queue.waiting) >= provider.config.queue_length or wait >= time_left:
            raise HeadraceError(refusals.queue_full(provider.provider, len(queue.waiting), wait))
        return wait

    def expected_wait(self, provider: Provider, priority: int) -> int:
        """How long a request would probably wait for its place, in milliseconds; 0 where one is free, or nothing is known."""
        limit, queue = provider.config.max_concurrent_requests, self._queues.get(provider.provider)
        if limit is None or queue is None or queue.running < limit:
            return 0
        first = sum(other <= priority for other, _, _ in queue.waiting)
        # Places become free one after the other, `limit` of them in the time that one call takes.
        return round((first + 1) * (self._mean_duration(provider.provider) or 0) / limit)
