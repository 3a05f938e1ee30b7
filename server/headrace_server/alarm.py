"""A deadline that moves: it ends what a block waits for, and costs nothing where it is moved on with every byte."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

Look = Callable[[float], float | None]
"""Whether it is time, asked with the present on the event loop's clock: when to look again, or None where the time has passed."""


class AlarmRang(TimeoutError):
    """The time has passed."""


class Alarm:
    """A context manager: raises AlarmRang once `look` says that the time has passed, and cancels what its block awaits for that.

    Unlike `asyncio.timeout`, whose timer is made anew whenever it is moved, it looks only when the time that it was told last has come.
    """

    def __init__(self, look: Look) -> None:
        self.rang = False
        """Whether the time has passed."""
        self._look = look

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._timer: asyncio.TimerHandle | None = None
        self._ask()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        task = self._task
        # Whoever is asked to look mostly has the alarm: that circle would be left to the garbage collector, with the task and all it holds.
        del self._look, self._task, self._timer
        # As asyncio.timeout does it: a cancellation that somebody else asked for as well stays one.
        if self.rang and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise AlarmRang from error

    def _ask(self) -> None:
        again = self._look(self._loop.time())
        if again is None:
            self.rang = True
            self._timer = None
            self._task.cancel()
        else:
            self._timer = self._loop.call_at(again, self._ask)
