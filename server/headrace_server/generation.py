"""A generation in memory: what it has told so far, and who is listening.

The engine appends events, readers take them at their own pace. Everything stays in the history, so a reader that comes late, or comes
back, sees exactly what an undisturbed one saw.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass

from headrace_server.domain import refusals
from headrace_server.domain.errors import ErrorCode, Fault, HeadraceError, Refusal, Subreason
from headrace_server.domain.events import (
    Completed,
    Failed,
    GenerationEvent,
    ReasoningDelta,
    RefusalDelta,
    StreamChunk,
    TextDelta,
    ToolCallDelta,
)
from headrace_server.domain.lifecycle import State, Transition
from headrace_server.domain.request import DisconnectPolicy, GenerateRequest
from headrace_server.waker import Waker

Wake = Callable[[], None]


MEMORY = 1024 * 1024
"""Bytes of chunks that stay in memory by default, once the store has them."""
ROOM = 1024 * 1024
"""Bytes of chunks that may wait for readers by default, before the run waits for them."""

WEIGHT = 10 * 1024
"""Bytes that a generation takes besides its chunks: its request, its transitions, its result."""

Load = Callable[[], Awaitable[list[GenerationEvent]]]
"""Reads the events that the store has, from the first one on."""


@dataclass(slots=True)
class Room:
    """How far runs may be ahead of their readers: bytes of chunks that nobody has taken. Generations of one stream share one."""

    size: int = ROOM


class Generation:
    """One generation, running or ended."""

    def __init__(self, request: GenerateRequest, *, owner: str = "", traceparent: str = "", memory: int = MEMORY) -> None:
        self.request = request
        self.owner = owner
        self.traceparent = traceparent
        self.state = State.IDLE
        """As readers have been told."""
        self.task: asyncio.Task[None] | None = None
        self.providers: tuple[str, ...] = ()
        """Those that it may call, once that is known."""
        self.stopped_by: Fault | None = None
        self.chunk_count = 0
        self.is_accepted = False
        """Whether its row is committed."""
        self.is_replay = False
        """Its chunks are the parts of a stored answer: they can only be read from the first one on."""
        self.lost_its_tail = False
        """It was interrupted: readers may have had chunks that the store has not."""
        self.load: Load | None = None
        """Set where events may have left memory."""
        self.room = Room()
        self._memory = memory
        self._bytes = 0
        self._untaken = 0
        self._taking: asyncio.Future[None] | None = None
        self._forgotten = 0
        self._forgotten_chunks = 0
        self._history: list[GenerationEvent] = []
        self._ends_of_chunks: list[int] = []
        self._readers: set[Reader] = set()
        self._has_begun = False
        self._closing = False

    @property
    def request_id(self) -> str:
        """Id of the request."""
        return self.request.request_id

    @property
    def outcome(self) -> Completed | Failed | None:
        """The last event, once there is one."""
        last = self._history[-1] if self._history else None
        return last if isinstance(last, Completed | Failed) else None

    # ------------------------------------------------------------ the engine's side

    def run(self, way: Coroutine[None, None, None], ended: "Callable[[Generation], None]") -> None:
        """Go this way in a task of its own."""
        self.task = asyncio.create_task(way, name=f"generation {self.request_id}")
        self.task.add_done_callback(lambda _: ended(self))

    def publish(self, events: Sequence[GenerationEvent]) -> None:
        """Append events and wake the readers."""
        for event in events:
            self._history.append(event)
            if isinstance(event, StreamChunk):
                self.chunk_count += 1
                size = _size(event)
                self._bytes += size
                self._untaken += size
                self._ends_of_chunks.append(self._length)
            elif isinstance(event, Transition):
                self.state = event.to_state
        self._wake_readers()

    @property
    def is_ahead(self) -> bool:
        """Whether the run is to wait: its readers take too little, and it runs for them alone (policy CANCEL)."""
        return self._untaken > self.room.size and self._ends_with_its_readers and any(not reader.looks_on for reader in self._readers)

    async def caught_up(self) -> None:
        """Wait until the run is not ahead any more."""
        while self.is_ahead:
            self._taking = asyncio.get_running_loop().create_future()
            await self._taking

    def _look_again(self) -> None:
        """A reader took all there is, or left: the run may go on."""
        if self._taking is not None and not self._taking.done():
            self._taking.set_result(None)

    @property
    def _ends_with_its_readers(self) -> bool:
        return (self.request.on_disconnect or DisconnectPolicy.CANCEL) is DisconnectPolicy.CANCEL

    @property
    def weight(self) -> int:
        """About how many bytes of memory it takes once it has ended."""
        return WEIGHT + self._bytes

    @property
    def is_too_large(self) -> bool:
        """Whether its chunks take more memory than they should."""
        return self._bytes > self._memory

    def forget(self, kept: int) -> None:
        """The store has the first `kept` events: let them go if memory asks for it."""
        if not self.is_too_large or kept <= self._forgotten:
            return
        gone, self._history = self._history[: kept - self._forgotten], self._history[kept - self._forgotten :]
        chunks = [event for event in gone if isinstance(event, StreamChunk)]
        self._bytes -= sum(map(_size, chunks))
        self._forgotten_chunks += len(chunks)
        self._ends_of_chunks = self._ends_of_chunks[len(chunks) :]
        self._forgotten = kept

    def was_accepted(self) -> None:
        """Its row is committed."""
        self.is_accepted = True
        self._wake_readers()

    def _wake_readers(self) -> None:
        for reader in self._readers:
            reader.wake()

    def begin(self) -> None:
        """The run takes its first step. Raises HeadraceError where it was stopped before that."""
        self._has_begun = True
        if self.stopped_by is not None:
            raise HeadraceError(self.stopped_by)

    def close(self) -> None:
        """From here on the end is being written, or that of another run awaited: nothing cancels the task any more."""
        self._closing = True

    # ------------------------------------------------------------ the readers' side

    def stop(self, fault: Fault) -> None:
        """End the generation with this fault. The first to stop it wins; one that has ended stays as it is."""
        if self.stopped_by is None and self.outcome is None and self.task is not None and not self.task.done():
            self.stopped_by = fault
            if self._has_begun and not self._closing:
                # A task that is cancelled before its first step never takes it, and could not write its end down.
                self.task.cancel()

    def attach(self, next_index: int, wake: Wake, *, looks_on: bool = False) -> "Reader":
        """Read from chunk `next_index` on. One that only looks on does not keep the generation alive. Raises Refusal (OUT_OF_RANGE)."""
        if next_index > self.chunk_count and self.lost_its_tail:
            next_index = self.chunk_count
        if next_index > self.chunk_count or (next_index > 0 and self.is_replay):
            raise Refusal(
                ErrorCode.INVALID_REQUEST,
                f"chunk {next_index} is not to be had: {self._range()}",
                Subreason.OUT_OF_RANGE,
            )
        position = self._ends_of_chunks[next_index - 1 - self._forgotten_chunks] if next_index > self._forgotten_chunks else 0
        reader = Reader(self, position, next_index, wake, looks_on)
        self._readers.add(reader)
        return reader

    def _range(self) -> str:
        if self.is_replay:
            return "the answer is read from the store, from chunk 0 on"
        return f"there are {self.chunk_count} chunks so far"

    def detach(self, reader: "Reader", why: Fault | None = None) -> None:
        """A reader leaves. `why` is given where it went away before the end: with policy CANCEL the last one takes the generation along."""
        self._readers.discard(reader)
        self._look_again()
        if why is not None and all(other.looks_on for other in self._readers) and self._ends_with_its_readers:
            self.stop(why)

    async def wait(self) -> Completed | Failed:
        """Look on until the outcome is there. Leaving does not end the generation."""
        await self.until(lambda: self.outcome is not None)
        assert self.outcome is not None
        return self.outcome

    async def until(self, condition: Callable[[], bool]) -> None:
        """Look on until the condition holds; it is asked whenever something has come."""
        changed = Waker()
        looker_on = self.attach(0, changed.wake, looks_on=True)
        try:
            while not condition():
                await changed.wait()
        finally:
            self.detach(looker_on)

    def since(self, position: int) -> list[GenerationEvent]:
        """The events from a position on that are in memory."""
        return self._history[max(0, position - self._forgotten) :]

    @property
    def forgotten(self) -> int:
        """How many events have left memory."""
        return self._forgotten

    @property
    def _length(self) -> int:
        return self._forgotten + len(self._history)


def _size(chunk: StreamChunk) -> int:
    """About how much memory a chunk takes."""
    match chunk.delta:
        case TextDelta() | ReasoningDelta():
            return 200 + len(chunk.delta.text)
        case RefusalDelta():
            return 200 + len(chunk.delta.refusal)
        case ToolCallDelta():
            return 300 + len(chunk.delta.arguments_delta)
        case _:
            return 2_000


class Reader:
    """One reader's place in a generation. `wake` is called, without awaiting, whenever there may be something to take."""

    __slots__ = ("_next_index", "_position", "generation", "looks_on", "wake")

    def __init__(self, generation: Generation, position: int, next_index: int, wake: Wake, looks_on: bool) -> None:
        self.generation = generation
        self.wake = wake
        self.looks_on = looks_on
        self._position = position
        self._next_index = next_index

    @property
    def is_behind(self) -> bool:
        """Whether the next events have left memory: `catch_up` comes before `take`."""
        return self._position < self.generation.forgotten

    async def catch_up(self) -> list[GenerationEvent]:
        """The events that have left memory, from the store."""
        assert self.generation.load is not None
        events = (await self.generation.load())[self._position :]
        self._position += len(events)
        return [event for event in events if not isinstance(event, StreamChunk) or event.index >= self._next_index]

    def take(self) -> list[GenerationEvent]:
        """What has come since the last time."""
        events = self.generation.since(self._position)
        self._position = max(self._position, self.generation.forgotten) + len(events)
        if not self.looks_on:
            self.generation._untaken = 0
            self.generation._look_again()
        return events

    @property
    def at_end(self) -> bool:
        """Whether everything has been taken, the last event included."""
        return self.generation.outcome is not None and self._position == self.generation._length

    def close(self, why: Fault | None = None) -> None:
        """Stop reading; before the end this counts as going away, for the reason given."""
        self.generation.detach(self, None if self.at_end else why or refusals.cancelled("the caller went away"))
