"""A generation as it comes, for asyncio."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import grpc
import grpc.aio

from headrace._reading import Reading
from headrace.answer import Answer
from headrace.errors import from_rpc
from headrace.retry import Deadline, Tries
from headrace.v1.event_pb2 import GenerationEvent

if TYPE_CHECKING:
    from headrace.aio.client import Client


class Source(Protocol):
    """Where a stream's events come from."""

    async def next_event(self) -> GenerationEvent | None:
        """The next event; None after the last one. Raises HeadraceError where the events end before the generation does."""
        ...

    def cancel(self) -> None:
        """End the generation, and go on reading. Does not wait."""
        ...

    def close(self) -> None:
        """Read no more; a generation that is not over and does not run on by itself is cancelled. Does not wait."""
        ...

    async def settle(self) -> None:
        """After `close`: wait until the service has put it on record, or cannot be reached."""
        ...


class Stream:
    """One generation. Iterating gives the pieces of its text; `events()` gives everything; `answer()` reads to the end.

        async with client.stream("What does a river do?") as stream:
            async for piece in stream:
                print(piece, end="", flush=True)
            print((await stream.answer()).usage)

    A connection that is lost is made again, and the stream goes on where it was: no piece comes twice and none is lost. Closing the stream
    before its end, leaving its `async with`, or dropping it cancels the generation, unless the request says DRAIN or KEEP: then it
    runs on. A wait for the next piece may be cancelled, as by `asyncio.wait_for`, and begun again. Not for several tasks at once.
    """

    def __init__(self, reading: Reading, source: Source) -> None:
        self._reading = reading
        self._source = source
        self._has_spoken = False

    @property
    def request_id(self) -> str:
        """Id of the request, by which its record is found."""
        return self._reading.request_id

    @property
    def text(self) -> str:
        """The text so far, without what was taken back by a `discontinuity`."""
        return self._reading.text

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        """The next piece of text. Raises HeadraceError where there is no whole answer.

        An answer that starts again (only where mid-stream fallback was asked for) takes back what was said: RuntimeError, read `events()`.
        """
        while (event := await self._source.next_event()) is not None:
            if event.HasField("discontinuity") and self._has_spoken:
                raise RuntimeError("the answer starts again at another provider: follow it by events()")
            if event.chunk.text:
                self._has_spoken = True
                return event.chunk.text
        self._reading.answer()
        raise StopAsyncIteration

    async def events(self) -> AsyncIterator[GenerationEvent]:
        """Every event from here on: transitions, chunks of all kinds, discontinuities, the end. Raises HeadraceError after `failed`."""
        while (event := await self._source.next_event()) is not None:
            yield event
        self._reading.answer()

    async def answer(self) -> Answer:
        """Read to the end: the whole answer, also of what was read before. Raises HeadraceError where there is none."""
        while await self._source.next_event() is not None:
            pass
        return self._reading.answer()

    def cancel(self) -> None:
        """End the generation, and go on reading: what comes last is the error Cancelled, with what there was of the answer as `partial`."""
        self._source.cancel()

    async def close(self) -> None:
        """Read no more. Cancels as described above; returns when that is on record, or the service out of reach."""
        self._source.close()
        await self._source.settle()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self._source.close()


class OwnStream:
    """A source that has a StreamGenerate of its own, one after the other if need be."""

    def __init__(self, client: "Client", reading: Reading, timeout: float | None) -> None:
        self._client = client
        self._reading = reading
        self._deadline = Deadline(timeout)
        self._tries = Tries(client.retry, self._deadline)
        self._events: deque[GenerationEvent] = deque()
        self._is_closed = False
        self._call: Any = self._open()

    def _open(self) -> Any:
        command = self._reading.command()
        return self._client.generation.StreamGenerate(iter((command,)), timeout=self._deadline.patience, metadata=self._client.metadata)

    async def next_event(self) -> GenerationEvent | None:
        """See Source."""
        while not self._events:
            if self._is_closed or self._reading.is_over:
                return None
            await self._receive()
        return self._events.popleft()

    async def _receive(self) -> None:
        if self._call is None:
            self._call = self._open()
        response: Any = grpc.aio.EOF
        failure = None
        try:
            response = await self._call.read()
        except grpc.RpcError as error:
            failure = from_rpc(error, self._reading.request_id)
        except asyncio.CancelledError:
            self._call.cancel()  # the wait was cancelled, and gRPC ends the RPC with it; whoever reads on resumes
            self._call = None
            raise
        if response is not grpc.aio.EOF:
            self._events += (event for event in response.events if self._reading.take(event))
            if self._events:
                self._tries.progress()
        elif not self._reading.is_over:
            self._call = None
            await asyncio.sleep(self._tries.delay(self._reading.lost(failure)))

    def cancel(self) -> None:
        """See Source."""
        self._client.cancel_soon(self._reading.request_id)

    def close(self) -> None:
        """See Source."""
        if self._is_closed:
            return
        self._is_closed = True
        if not self._reading.is_over:
            if self._call is not None:
                self._call.cancel()  # first: then nothing of it begins after it was to be cancelled
            if not self._reading.runs_on:
                self._client.cancel_soon(self._reading.request_id)

    async def settle(self) -> None:
        """See Source."""
        await self._client.wait_for_cancel(self._reading.request_id)
