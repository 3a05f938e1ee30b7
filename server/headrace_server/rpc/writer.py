"""Writing events to a caller, who must take something every so often.

grpc.aio's `write` waits while the caller's side takes nothing, and would wait for ever: connections are kept alive by the caller's
library, whatever its program does. So a write that waits too long ends the stream.
"""

import asyncio
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from headrace_server.domain import refusals
from headrace_server.domain.errors import Fault, HeadraceError
from headrace_server.rpc.methods import Context

MAX_MESSAGE = 64 * 1024
"""Bytes of a message that holds several events: by such pieces it is seen whether a slow caller takes anything at all."""


class Writer:
    """Writes to one stream, within its handler's task and as a context manager. `response` is the class of its messages, `patience` in
    seconds.
    """

    def __init__(self, context: Context, response: Any, patience: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.stalled: Fault | None = None
        """Set once the caller has taken nothing for too long."""
        self._context = context
        self._response = response
        self._patience = patience
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._waiting_since: float | None = None

    def __enter__(self) -> Self:
        """Look now and then how long a write has been waiting: a timer for each write would cost more than the rest of it."""
        self._timer = self._loop.call_later(self._patience, self._look)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop looking."""
        self._timer.cancel()

    async def write(self, events: Sequence[Any]) -> None:
        """Write these events. Raises HeadraceError (SLOW_CLIENT) where the caller took nothing for too long."""
        for message in self._messages(events):
            self._waiting_since = self._loop.time()
            try:
                await self._context.write(message)
            except asyncio.CancelledError:
                if self.stalled is None or self._task.uncancel() > 0:
                    raise
                raise HeadraceError(self.stalled) from None
            self._waiting_since = None

    def _messages(self, events: Sequence[Any]) -> Iterator[bytes]:
        """The events as messages: one, unless that is large."""
        message: bytes = self._response(events=events).SerializeToString()
        if len(message) <= MAX_MESSAGE or len(events) == 1:
            yield message
        else:
            middle = len(events) // 2
            yield from self._messages(events[:middle])
            yield from self._messages(events[middle:])

    def _look(self) -> None:
        now = self._loop.time()
        over = (now if self._waiting_since is None else self._waiting_since) + self._patience
        if over > now:
            self._timer = self._loop.call_at(over, self._look)
        else:
            self.stalled = refusals.slow_client(self._patience)
            self._task.cancel()
