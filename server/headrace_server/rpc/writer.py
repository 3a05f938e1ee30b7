"""Writing events to a caller, who must take something every so often.

grpc.aio's `write` waits while the caller's side takes nothing, and would wait for ever: connections are kept alive by the caller's
library, whatever its program does. So a write that waits too long ends the stream.
"""

import asyncio
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from headrace_server.alarm import Alarm, AlarmRang
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
        self._context = context
        self._response = response
        self._patience = patience
        self._waiting_since: float | None = None
        # Looks now and then how long a write has been waiting: a timer for each write would cost more than the rest of it.
        self._alarm = Alarm(self._look)

    @property
    def stalled(self) -> Fault | None:
        """There once the caller has taken nothing for too long."""
        return refusals.slow_client(self._patience) if self._alarm.rang else None

    def __enter__(self) -> Self:
        """Look from here on."""
        self._alarm.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop looking. Raises HeadraceError (SLOW_CLIENT) where the caller took nothing for too long."""
        try:
            self._alarm.__exit__(kind, error, trace)
        except AlarmRang:
            raise HeadraceError(refusals.slow_client(self._patience)) from None

    async def write(self, events: Sequence[Any]) -> None:
        """Write these events. Where the caller takes nothing for too long, this is cancelled, and the block ends with what that means."""
        loop = asyncio.get_running_loop()
        for message in self._messages(events):
            self._waiting_since = loop.time()
            await self._context.write(message)
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

    def _look(self, now: float) -> float | None:
        over = (now if self._waiting_since is None else self._waiting_since) + self._patience
        return over if over > now else None
