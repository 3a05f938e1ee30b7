"""A generation in memory: what it has told so far, and who is listening.

The engine appends events, readers take them at their own pace. Everything stays in the history, so a reader that comes late, or comes
back, sees exactly what an undisturbed one saw.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence

from headrace_server.domain import refusals
from headrace_server.domain.errors import ErrorCode, Fault, Refusal, Subreason
from headrace_server.domain.events import Completed, Failed, GenerationEvent, StreamChunk
from headrace_server.domain.lifecycle import State, Transition
from headrace_server.domain.request import DisconnectPolicy, GenerateRequest

Wake = Callable[[], None]


class Generation:
    """One generation, running or ended."""

    def __init__(self, request: GenerateRequest, *, owner: str = "", traceparent: str = "") -> None:
        self.request = request
        self.owner = owner
        self.traceparent = traceparent
        self.state = State.IDLE
        """As readers have been told."""
        self.task: asyncio.Task[None] | None = None
        self.stopped_by: Fault | None = None
        self.chunk_count = 0
        self.is_accepted = False
        """Whether its row is committed."""
        self.is_replay = False
        """Its chunks are the parts of a stored answer: they can only be read from the first one on."""
        self._history: list[GenerationEvent] = []
        self._ends_of_chunks: list[int] = []
        self._readers: set[Reader] = set()
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
                self._ends_of_chunks.append(len(self._history))
            elif isinstance(event, Transition):
                self.state = event.to_state
        self._wake_readers()

    def was_accepted(self) -> None:
        """Its row is committed."""
        self.is_accepted = True
        self._wake_readers()

    def _wake_readers(self) -> None:
        for reader in self._readers:
            reader.wake()

    def close(self) -> None:
        """From here on the end is being written: nothing can stop the generation any more."""
        self._closing = True

    # ------------------------------------------------------------ the readers' side

    def stop(self, fault: Fault) -> None:
        """End the generation with this fault. The first to stop it wins; one that has ended stays as it is."""
        if self.stopped_by is None and not self._closing and self.task is not None and not self.task.done():
            self.stopped_by = fault
            self.task.cancel()

    def attach(self, next_index: int, wake: Wake, *, looks_on: bool = False) -> "Reader":
        """Read from chunk `next_index` on. One that only looks on does not keep the generation alive. Raises Refusal (OUT_OF_RANGE)."""
        if next_index > self.chunk_count or (next_index > 0 and self.is_replay):
            raise Refusal(
                ErrorCode.INVALID_REQUEST,
                f"chunk {next_index} is not to be had: {self._range()}",
                Subreason.OUT_OF_RANGE,
            )
        reader = Reader(self, self._ends_of_chunks[next_index - 1] if next_index else 0, wake, looks_on)
        self._readers.add(reader)
        return reader

    def _range(self) -> str:
        if self.is_replay:
            return "the answer is read from the store, from chunk 0 on"
        return f"there are {self.chunk_count} chunks so far"

    def detach(self, reader: "Reader", why: Fault | None = None) -> None:
        """A reader leaves. `why` is given where it went away before the end: with policy CANCEL the last one takes the generation along."""
        self._readers.discard(reader)
        policy = self.request.on_disconnect or DisconnectPolicy.CANCEL
        if why is not None and all(other.looks_on for other in self._readers) and policy is DisconnectPolicy.CANCEL:
            self.stop(why)

    async def wait(self) -> Completed | Failed:
        """Look on until the outcome is there. Leaving does not end the generation."""
        await self.until(lambda: self.outcome is not None)
        assert self.outcome is not None
        return self.outcome

    async def until(self, condition: Callable[[], bool]) -> None:
        """Look on until the condition holds; it is asked whenever something has come."""
        changed = asyncio.Event()
        looker_on = self.attach(0, changed.set, looks_on=True)
        try:
            while not condition():
                changed.clear()
                await changed.wait()
        finally:
            self.detach(looker_on)

    def _since(self, position: int) -> list[GenerationEvent]:
        return self._history[position:]

    @property
    def _length(self) -> int:
        return len(self._history)


class Reader:
    """One reader's place in a generation. `wake` is called, without awaiting, whenever there may be something to take."""

    __slots__ = ("_position", "generation", "looks_on", "wake")

    def __init__(self, generation: Generation, position: int, wake: Wake, looks_on: bool) -> None:
        self.generation = generation
        self.wake = wake
        self.looks_on = looks_on
        self._position = position

    def take(self) -> list[GenerationEvent]:
        """What has come since the last time."""
        events = self.generation._since(self._position)
        self._position += len(events)
        return events

    @property
    def at_end(self) -> bool:
        """Whether everything has been taken, the last event included."""
        return self.generation.outcome is not None and self._position == self.generation._length

    def close(self, why: Fault | None = None) -> None:
        """Stop reading; before the end this counts as going away, for the reason given."""
        self.generation.detach(self, None if self.at_end else why or refusals.cancelled("the caller went away"))
