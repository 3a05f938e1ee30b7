"""Who sees everything that happens in a simulation, and takes it down."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace_server.domain.errors import Fault
from headrace_server.domain.events import GenerationEvent, StreamChunk, TextDelta
from headrace_server.domain.lifecycle import TERMINAL
from headrace_server.domain.ports import Settlement
from headrace_server.domain.record import LogRow
from headrace_server.domain.request import GenerateRequest
from headrace_server.generation import Generation
from headrace_server.providers.scripted import ScriptedCall
from headrace_server.store.counters import Counters, Held
from headrace_server.store.recovery import is_refused
from headrace_server.telemetry.null import NullTrace


class WitnessedCall(ScriptedCall):
    """A call whose closing takes time."""

    pause = 0.0
    opened = False
    """Whether the engine was handed this call, and so must close it."""
    closing: float | None = None
    """When closing began."""

    async def close(self) -> None:
        self.closing = asyncio.get_running_loop().time()
        await asyncio.sleep(self.pause)
        await super().close()


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

    @property
    def request_id(self) -> str:
        return self.generation.request_id

    @property
    def chunks(self) -> list[StreamChunk]:
        return [event for event in self.events if isinstance(event, StreamChunk)]


class Witness:
    """Takes down everything, and judges what can be judged only at once. What is judged at the end stands in `invariants`."""

    def __init__(self) -> None:
        self.story: list[str] = []
        self.wrong: list[str] = []
        self.told: dict[Generation, Told] = {}
        self.calls: list[WitnessedCall] = []
        self.traces: list[WitnessedTrace] = []
        self.settled: list[tuple[Held, Settlement]] = []
        self.lost_writes: set[tuple[str, str]] = set()
        """Kind and request id of the writes that were answered by an error."""
        self.bugs: set[str] = set()
        """Requests in which the world raised what no port allows."""
        self.swept: set[str] = set()
        """Requests that another node ended."""
        self._ended: dict[str, LogRow] = {}

    def say(self, text: str) -> None:
        """Add a line to the story."""
        self.story.append(f"{asyncio.get_running_loop().time():10.3f}  {text}")

    def watch(self, generation: Generation, node: str) -> None:
        """Hear everything that a generation tells; it must have been started just now."""
        if generation in self.told:
            return
        loop = asyncio.get_running_loop()
        told = self.told[generation] = Told(generation, node, loop.time())

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
                self.wrong.append(f"{request_id}: the row changed after its end, from {row.state} {row.error_code}")
        self._ended = {request_id: row for request_id, row in rows.items() if row.state in TERMINAL}


def _brief(event: GenerationEvent) -> str:
    match event:
        case StreamChunk(delta=TextDelta(text)):
            return f"chunk {event.index} {text!r}"
        case _:
            return str(event)[:200]


class WitnessedTrace(NullTrace):
    """Counts its ends."""

    def __init__(self, request_id: str) -> None:
        super().__init__()
        self.request_id = request_id
        self.ends: list[str] = []

    def drop(self) -> None:
        self.ends.append("dropped")

    def end(self, row: LogRow) -> None:
        self.ends.append(f"ended {row.state}")


class WitnessedTelemetry:
    """Implements `ports.Telemetry`."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness

    def start(self, request: GenerateRequest | None, traceparent: str | None) -> WitnessedTrace:
        self._witness.traces.append(WitnessedTrace("a refused request" if request is None else request.request_id))
        return self._witness.traces[-1]


class WitnessedCounters(Counters):
    """Notes every settlement that takes effect."""

    def __init__(self, witness: Witness) -> None:
        super().__init__()
        self._witness = witness

    def settle(self, settlement: Settlement, now: int) -> None:
        if (held := self.held.get((settlement.reservation.request_id, settlement.reservation.attempt))) is not None:
            self._witness.settled.append((held, settlement))
        super().settle(settlement, now)
