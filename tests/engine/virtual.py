"""An event loop without waiting: time is virtual, and which of several callbacks runs next is chosen by a seed.

Hours pass in milliseconds, and any interleaving can be had again from its seed. There are no sockets, no threads and no signals here.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine, Iterator
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")


class Deadlock(Exception):
    """Everything waits, and nothing will ever happen."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs one callback at a time. When none is ready, time jumps to the next timer.

    Every task stands in a line of its own, and so does every timer that has run out; all other callbacks share one line. A line keeps its
    order, as asyncio promises; which line is next is left to chance.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = Random(seed)
        self._shuffle = self._random.choice((0.0, 0.3, 1.0))
        """How often the next callback is not simply the one that has waited longest."""
        self._time = 0.0
        self._numbers = itertools.count(1)
        self._number_of: dict[asyncio.Task[Any], int] = {}
        self._futures: list[asyncio.Future[Any]] = []
        self.errors: list[str] = []
        """What asyncio would have logged: exceptions in callbacks, and the like."""
        self.after_step: Callable[[], None] = lambda: None
        """Called after every callback."""
        self.at_rest: Callable[[], None] = lambda: None
        """Called whenever nothing is left to be done at this instant, before time passes."""

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run to the end of `main`. Raises Deadlock."""
        return self.run_until_complete(main)

    def leftovers(self) -> Iterator[str]:
        """What should not be there at the end: errors nobody handled, exceptions nobody fetched, tasks that still run."""
        yield from self.errors
        for task in self._number_of:
            if not task.done():
                yield f"the task {task.get_name()} is still running"
        for future in (*self._futures, *self._number_of):
            if future._log_traceback:  # type: ignore[attr-defined]
                yield f"nobody fetched the exception {future.exception()!r}"

    # ------------------------------------------------------------ what asyncio asks of a loop

    def time(self) -> float:
        return self._time

    def create_future(self) -> asyncio.Future[Any]:
        # Kept, so that what nobody fetched is found when the run is over and not whenever garbage is collected.
        self._futures.append(super().create_future())
        return self._futures[-1]

    def create_task(self, coro: Coroutine[Any, Any, T], **how: Any) -> asyncio.Task[T]:  # type: ignore[override]
        task = super().create_task(coro, **how)
        self._number_of[task] = next(self._numbers)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _run_once(self) -> None:
        self._take_due_timers()
        while not self._ready:
            if not self._scheduled:
                raise Deadlock("everything waits, and nothing will ever happen")
            self.at_rest()
            self._time = max(self._time, self._scheduled[0]._when)
            self._take_due_timers()
        handle = self._next()
        if not handle.cancelled():
            handle._run()
            self.after_step()

    def _take_due_timers(self) -> None:
        while self._scheduled and (self._scheduled[0]._when <= self._time or self._scheduled[0].cancelled()):
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False
            if not timer.cancelled():
                self._ready.append(timer)

    def _next(self) -> asyncio.Handle:
        if self._random.random() >= self._shuffle:
            return self._ready.popleft()
        first_of: dict[int, int] = {}
        for i, handle in enumerate(self._ready):
            first_of.setdefault(self._line(i, handle), i)
        # By number, not by who happened to come first: the order of a set of objects differs from process to process.
        i = first_of[self._random.choice(sorted(first_of))]
        handle = self._ready[i]
        del self._ready[i]
        return handle

    def _line(self, i: int, handle: asyncio.Handle) -> int:
        if isinstance(handle, asyncio.TimerHandle):
            return -1 - i
        owner = getattr(handle._callback, "__self__", None)
        return self._number_of[owner] if isinstance(owner, asyncio.Task) else 0
