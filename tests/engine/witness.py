"""Who sees everything that happens in a simulation, and takes it down."""

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from headrace_server.domain.errors import ErrorCode, Fault, ProviderFault
from headrace_server.domain.events import Delta, GenerationEvent, StreamChunk, TextDelta
from headrace_server.domain.lifecycle import TERMINAL
from headrace_server.domain.ports import Settlement
from headrace_server.domain.record import LogRow
from headrace_server.generation import Generation
from headrace_server.health import Pass
from headrace_server.providers.scripted import ScriptedCall
from headrace_server.run import Run
from headrace_server.store.counters import Held
from headrace_server.store.recovery import is_refused

T = TypeVar("T")


class WitnessedCall(ScriptedCall):
    """A call that is watched, and whose closing takes time. Times in seconds of the loop."""

    def begin(self, witness: "Witness", node: str, pause: float) -> None:
        """It goes out now, in the task of its generation; closing it will take `pause`."""
        self.node = node
        self.pause = pause
        self.generation = witness.generations[asyncio.current_task()]
        self.attempt = 0
        """Number of the attempt that it is."""
        self.leave: Pass | None = None
        """What the circuit gave for it."""
        self.fault: Fault | None = None
        """What the provider ended it with."""
        self.began = self._now()
        self.over = False
        """Whether it ended before it was answered."""
        self.opened = False
        """Whether the engine was handed this call, and so must close it."""
        self.closing: float | None = None
        """When closing began."""
        self.silence = 0.0
        """How long the provider was waited for since it sent bytes, not counting pauses of the engine's own."""
        self.silence_of_content = 0.0
        self._witness = witness

    @property
    def is_under_way(self) -> bool:
        return not self.over and self.closing is None

    @property
    def is_told_when(self) -> bool:
        """Whether it ended with a rate limit that names a delay."""
        return self.fault is not None and self.fault.code is ErrorCode.RATE_LIMIT_EXCEEDED and self.fault.retry_after is not None

    async def read(self) -> list[Delta] | None:
        if self._played and self.generation.is_ahead:
            self._witness.blame(f"{self.request.request_id}: {self.node} reads on, and its readers take nothing")
        try:
            deltas = await self.hold(super().read())
        except ProviderFault as error:
            self.fault = error.fault
            raise
        self.silence = 0.0
        if deltas:
            self.silence_of_content = 0.0
        return deltas

    async def hold(self, answer: Awaitable[T]) -> T:
        """Wait for the provider, and remember how long that took."""
        began = self._now()
        try:
            return await answer
        finally:
            self.silence += self._now() - began
            self.silence_of_content += self._now() - began

    async def close(self) -> None:
        self.closing = self._now()
        await asyncio.sleep(self.pause)
        await super().close()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


@dataclass(slots=True)
class Told:
    """What one generation told, as heard by somebody who missed nothing. Times in seconds of the loop."""

    generation: Generation
    node: str
    began: float
    events: list[GenerationEvent] = field(default_factory=list)
    ended: float | None = None
    stopped: float | None = None
    """When somebody first had it stopped, and it had not ended."""
    run: Run | None = None
    """None where it is told again from the store."""

    @property
    def request_id(self) -> str:
        return self.generation.request_id

    @property
    def chunks(self) -> list[StreamChunk]:
        return [event for event in self.events if isinstance(event, StreamChunk)]


class Witness:
    """Takes down everything, and judges what can be judged only at once. What is judged at the end stands in `invariants`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.story: list[str] = []
        self.wrong: list[str] = []
        self.told: dict[Generation, Told] = {}
        self.calls: list[WitnessedCall] = []
        self.generations: dict[asyncio.Task[Any] | None, Generation] = {}
        """By the task that runs it."""
        self.leaves: dict[asyncio.Task[Any] | None, Pass] = {}
        """What circuits let through and no call has used yet."""
        self.former_probes: set[Pass] = set()
        """Probes of circuits that were reset since: calls like any other."""
        self.verdicts: dict[Pass, Fault | None] = {}
        """How each call ended, as its circuit was told; None: well, or without a verdict."""
        self.retries_taken: Counter[tuple[asyncio.Task[Any] | None, str]] = Counter()
        """What was taken from a provider's budget and not used yet."""
        self.most_places: defaultdict[str, int] = defaultdict(int)
        """The highest max_concurrent_requests that a provider ever had."""
        self.settled: list[tuple[Held, Settlement]] = []
        self.sights: Counter[str] = Counter()
        """Turns that occurred."""
        self.lost_writes: set[tuple[str, str]] = set()
        """Kind and request id of the writes that were answered by an error."""
        self.bugs: set[str] = set()
        """Requests in which the world raised what no port allows."""
        self.swept: set[str] = set()
        """Requests that another node ended."""
        self.swept_held: set[str] = set()
        """Requests whose reservations another node settled."""
        self.errors: list[str] = []
        """Texts of errors that somebody caught."""
        self._ended: dict[str, LogRow] = {}

    def blame(self, text: str) -> None:
        """Something is not as it must be. Said once, however long it stays so."""
        if text not in self.wrong:
            self.wrong.append(text)
            self.say(f"WRONG: {text}")

    def say(self, text: str) -> None:
        """Add a line to the story."""
        self.story.append(f"{self._loop.time():10.3f}  {text}")

    def watch(self, generation: Generation, node: str) -> None:
        """Hear everything that a generation tells; it must have been started just now."""
        if generation in self.told:
            return
        loop = asyncio.get_running_loop()
        assert generation.task is not None
        # The task has not taken its first step: what it is about to run is still at hand.
        run = generation.task.get_coro().cr_frame.f_locals["self"]  # type: ignore[union-attr]
        told = self.told[generation] = Told(generation, node, loop.time(), run=run)
        self.generations[generation.task] = generation

        def hear() -> None:
            for event in reader.take():
                told.events.append(event)
                self.say(f"{node} {generation.request_id[-4:]} told {_brief(event)}")
            if told.ended is None and generation.outcome is not None:
                told.ended = loop.time()

        def note_stop(fault: Fault) -> None:
            stop(fault)
            if told.stopped is None and generation.stopped_by is not None:
                told.stopped = loop.time()
                self.say(f"{node} {generation.request_id[-4:]} is stopped: {generation.stopped_by.message}")

        reader = generation.attach(0, hear, looks_on=True)
        stop, generation.stop = generation.stop, note_stop  # type: ignore[method-assign]

    def committed(self, rows: Mapping[str, LogRow]) -> None:
        """Look at the store after a commit: what has ended stays as it is."""
        for request_id, row in self._ended.items():
            if rows[request_id] != row and not is_refused(row):
                self.blame(f"{request_id}: the row changed after its end, from {row.state} {row.error_code}")
        self._ended = {request_id: row for request_id, row in rows.items() if row.state in TERMINAL}


def _brief(event: GenerationEvent) -> str:
    match event:
        case StreamChunk(delta=TextDelta(text)):
            return f"chunk {event.index} {text!r}"
        case _:
            # The one thing that no seed decides: the number of an incident.
            return re.sub(r"id=[0-9a-f]{16}", "id=…", str(event))[:200]
