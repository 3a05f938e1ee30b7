"""Many generations over one stream, for asyncio."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

import grpc

from headrace._reading import Reading
from headrace.aio.stream import Stream
from headrace.answer import Answer
from headrace.errors import HeadraceError, TimedOut, from_rpc
from headrace.request import Prompt, RequestFields, build_request
from headrace.retry import Deadline, Tries
from headrace.session import LAST_WORDS
from headrace.v1.event_pb2 import GenerationEvent
from headrace.v1.generation_service_pb2 import StreamGenerateRequest
from headrace.v1.result_pb2 import ProviderError

if TYPE_CHECKING:
    from headrace.aio.client import Client

Commands = asyncio.Queue[StreamGenerateRequest | None]
"""What goes up a stream; None: no more."""


class Session:
    """One open stream with many generations on it, which costs the service and the network less than a stream for each.

        async with client.session() as session:
            answers = await asyncio.gather(*(session.generate(question) for question in questions))

    A task of the session reads for all of them; what a slow reader has not taken yet waits in memory. When the connection is lost, the
    session makes a new one and resumes every generation on it.
    """

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._open: dict[str, SharedStream] = {}
        self._commands: Commands | None = None
        """Of the stream that is open now; None: there is none."""
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def stream(self, prompt: Prompt, *, timeout: float | None = None, **fields: Unpack[RequestFields]) -> Stream:
        """Start a generation. The request goes out at once; errors come out of the stream. ValueError: its id runs here already."""
        if self._closing.is_set():
            raise ValueError("the session is closed")
        request = build_request(prompt, fields, timeout)
        reading = Reading(request.request_id, request=request)
        if reading.request_id in self._open:
            raise ValueError(f"{reading.request_id} runs in this session already")
        source = self._open[reading.request_id] = SharedStream(self, reading, Deadline(timeout))
        if self._commands is not None:
            self._commands.put_nowait(reading.command())
        elif self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="headrace session")
        return Stream(reading, source)

    async def generate(self, prompt: Prompt, *, timeout: float | None = None, **fields: Unpack[RequestFields]) -> Answer:  # noqa: ASYNC109
        """The whole answer. Raises HeadraceError. Where its task is cancelled, so is the generation."""
        stream = self.stream(prompt, timeout=timeout, **fields)
        try:
            return await stream.answer()
        finally:
            await stream.close()

    async def close(self) -> None:
        """Cancel what is not over, wait for its end, and close the stream. What was asked for with DRAIN or KEEP runs on."""
        self._closing.set()
        if self._commands is not None:
            self._take_leave(self._commands)
        if self._task is not None:
            await asyncio.wait([self._task], timeout=0 if self._may_hang_up() else LAST_WORDS)
            self._task.cancel()
            await asyncio.wait([self._task])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self.close()

    def _take_leave(self, commands: Commands) -> None:
        """The last commands of a session, behind those that began its generations."""
        for source in self._open.values():
            if not source.reading.runs_on:
                commands.put_nowait(source.reading.cancel_command())
        commands.put_nowait(None)

    def _may_hang_up(self) -> bool:
        """Whether nothing has to be heard any more of what is left on the stream of a session that closes: it runs on by itself."""
        left = [source.reading for source in self._open.values()]
        return bool(left) and self._commands is not None and all(one.runs_on and one.is_known for one in left)

    def cancel(self, reading: Reading) -> None:
        """End one of its generations. Does not wait."""
        if self._commands is not None:
            self._commands.put_nowait(reading.cancel_command())  # behind the command that began it
        else:
            self._client.cancel_soon(reading.request_id)

    # ------------------------------------------------------------ the session's task

    async def _run(self) -> None:
        """Keep a stream open while there is something to read, over as many connections as it takes."""
        tries = Tries(self._client.retry, Deadline(None))
        try:
            while self._open:
                failure = await self._read_one_stream(tries)
                delay = self._delay(failure, tries)
                await _wait_for(self._closing, delay)
        finally:
            self._delay(None, tries)  # what is left when the task is cancelled

    async def _read_one_stream(self, tries: Tries) -> grpc.RpcError | None:
        """Until it ends; with what error."""
        commands: Commands = asyncio.Queue()
        for source in self._open.values():
            commands.put_nowait(source.reading.command())
        if self._closing.is_set():
            self._take_leave(commands)
        self._commands = commands
        call = self._client.generation.StreamGenerate(_until_none(commands), metadata=self._client.metadata)
        try:
            async for response in call:
                for event in response.events:
                    if self._pass_on(event):
                        tries.progress()
                if self._closing.is_set() and self._may_hang_up():
                    break
        except grpc.RpcError as error:
            return error
        finally:
            self._commands = None
            commands.put_nowait(None)
            call.cancel()
        return None

    def _pass_on(self, event: GenerationEvent) -> bool:
        """Whether it is news."""
        if (source := self._open.get(event.request_id)) is None:
            return False
        is_news = source.put(event)
        if source.reading.is_over:
            del self._open[event.request_id]
        return is_news

    def _delay(self, failure: grpc.RpcError | None, tries: Tries) -> float:
        """Seconds until the next stream. Generations that cannot go on over it fail now."""
        delay = 0.0
        for request_id, source in list(self._open.items()):
            error = None if failure is None else from_rpc(failure, request_id)
            try:
                error = source.reading.lost(error)
                if self._closing.is_set():
                    if not source.reading.runs_on:
                        self._client.cancel_soon(request_id)  # the last commands may not have arrived
                    raise error
                delay = delay or tries.delay(error)
            except HeadraceError as final:
                source.fail(final)
                del self._open[request_id]
        return delay


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def _until_none(commands: Commands) -> AsyncIterator[StreamGenerateRequest]:
    while (command := await commands.get()) is not None:
        yield command


class SharedStream:
    """The source of one of a session's generations."""

    def __init__(self, session: Session, reading: Reading, deadline: Deadline) -> None:
        self.reading = reading
        self._session = session
        self._deadline = deadline
        self._events: asyncio.Queue[GenerationEvent | HeadraceError] = asyncio.Queue()
        self._is_over = asyncio.Event()
        self._is_closed = False
        self._has_ended = False

    def put(self, event: GenerationEvent) -> bool:
        """An event has come; whether it is news. Called by the session's task."""
        is_news = False
        try:
            if is_news := self.reading.take(event):
                self._events.put_nowait(event)
        except HeadraceError as error:
            self.fail(error)
        refusal = self.reading.refusal
        if refusal is not None and refusal.subreason != "SHUTTING_DOWN":
            self.fail(refusal)  # the stream stays open, and so there is no further one to send it again on
        elif self.reading.is_over:
            self._is_over.set()
        return is_news

    def fail(self, error: HeadraceError) -> None:
        """No more will come."""
        self.reading.error = error
        self._events.put_nowait(error)
        self._is_over.set()

    async def next_event(self) -> GenerationEvent | None:
        """See Source."""
        if self._is_closed or self._has_ended:
            return None
        try:
            async with asyncio.timeout(self._deadline.patience):
                event = await self._events.get()
        except TimeoutError:
            self.close()
            raise TimedOut(ProviderError(request_id=self.reading.request_id, message="the service did not keep the deadline")) from None
        if isinstance(event, HeadraceError):
            self._has_ended = True
            raise event
        self._has_ended = event.HasField("completed") or event.HasField("failed")
        return event

    def cancel(self) -> None:
        """See Source."""
        self._session.cancel(self.reading)

    def close(self) -> None:
        """See Source."""
        if not self._is_closed:
            self._is_closed = True
            if not self.reading.is_over and not self.reading.runs_on:
                self._session.cancel(self.reading)

    async def settle(self) -> None:
        """See Source."""
        if not self.reading.runs_on:
            await _wait_for(self._is_over, LAST_WORDS)
