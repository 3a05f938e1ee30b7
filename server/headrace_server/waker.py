"""Wakes one task. asyncio.Event, which wakes many, takes some 800 bytes more, and every stream has two."""

import asyncio


class Waker:
    """`wake` may be called at any time; `wait` returns once it has been, since the last `wait`. One task at a time may wait."""

    __slots__ = ("_is_awake", "_sleep")

    def __init__(self) -> None:
        self._is_awake = False
        self._sleep: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Let the task that waits go on, or the next one that would."""
        self._is_awake = True
        if self._sleep is not None and not self._sleep.done():
            self._sleep.set_result(None)

    async def wait(self) -> None:
        """Wait for the next `wake`, or for none where there has been one."""
        if not self._is_awake:
            self._sleep = asyncio.get_running_loop().create_future()
            try:
                await self._sleep
            finally:
                self._sleep = None
        self._is_awake = False
