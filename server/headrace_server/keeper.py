"""Keeps a generation's events in the store, behind its readers' back, so that they can be read again after memory has let them go.

Each write takes everything that came while the last one was under way. A batch holds at least one chunk: what a generation tells
between two chunks goes with the next one, and the transitions stand in its row besides.
"""

import asyncio
from collections.abc import Iterable, Sequence

from headrace_server.domain.events import GenerationEvent, StreamChunk
from headrace_server.domain.ports import EventCodec, Journal, WallClock
from headrace_server.generation import Generation


class Keeper:
    """Writes one generation's events, from its first one on."""

    def __init__(self, journal: Journal, codec: EventCodec, generation: Generation, clock: WallClock) -> None:
        self._journal = journal
        self._codec = codec
        self._generation = generation
        self._clock = clock
        self._pending: list[GenerationEvent] = []
        self._kept = 0
        self._next_index = 0
        self._writing = False
        self._gave_up = False

    def add(self, events: Sequence[GenerationEvent]) -> None:
        """Keep these, which follow those before."""
        if self._gave_up:
            return
        self._pending += events
        if not self._writing:
            self.flush()

    def flush(self) -> None:
        """Hand what is pending to the store; its writer keeps the order, so a later write is committed later."""
        chunks = sum(isinstance(event, StreamChunk) for event in self._pending)
        if not chunks or self._gave_up:
            return
        batch, self._pending = self._pending, []
        payload = self._codec.encode(self._generation.request_id, batch)
        written = self._journal.keep_events(self._generation.request_id, self._next_index, chunks, payload, self._clock())
        self._next_index += chunks
        self._writing = True
        written.add_done_callback(lambda done: self._written(done, len(batch)))

    def _written(self, done: "asyncio.Future[None]", count: int) -> None:
        self._writing = False
        if done.cancelled() or done.exception() is not None:
            # What follows would stand behind a gap: it stays in memory. If the store is out of reach, the generation's end will say so.
            self._gave_up = True
        if self._gave_up:
            return
        self._kept += count
        self._generation.forget(self._kept)
        self.flush()


async def kept_events(journal: Journal, codec: EventCodec, request_id: str) -> list[GenerationEvent]:
    """The events of a generation that the store has, in order from the first one on; empty where it kept none."""
    return without_gaps(codec.decode(payload) for payload in await journal.kept_events(request_id))


def without_gaps(batches: Iterable[Sequence[GenerationEvent]]) -> list[GenerationEvent]:
    """The events of the batches that were kept, up to the first one that is missing: its write was lost, and a later one was not."""
    events: list[GenerationEvent] = []
    next_index = 0
    for batch in batches:
        chunks = [event for event in batch if isinstance(event, StreamChunk)]
        if chunks and chunks[0].index != next_index:
            break
        next_index += len(chunks)
        events += batch
    return events
