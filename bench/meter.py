"""What a client of a stream notes: when it asked, when the first token came, how late each chunk was, and whether all of them came."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from provider import MARK, SPEC


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent of the values do not exceed: nearest rank. `values` is not empty."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def chunks_of(model: str) -> int:
    """How many chunks a model answers."""
    spec = SPEC.search(model)
    assert spec is not None, model
    return int(spec["chunks"])


@dataclass
class Meter:
    """Adds up answers. Chunks and requests count while `counting`, first tokens as long as new requests are asked."""

    model: str
    counting: bool = False
    chunks: int = 0
    requests: int = 0
    begun: int = 0
    broken: list[str] = field(default_factory=list)
    """Why an answer was not whole, one line for each of those."""
    first_tokens: list[int] = field(default_factory=list)
    lateness: list[int] = field(default_factory=list)
    """From the provider's write to here; both in nanoseconds."""

    def __post_init__(self) -> None:
        self.expected = chunks_of(self.model)
        self.stamped = "-d0" not in self.model


class Answer:
    """One answer as it comes in. `done` is set when it has ended, whole or not."""

    __slots__ = ("_meter", "begun", "chunks", "done", "request_id")

    def __init__(self, meter: Meter, request_id: str = "") -> None:
        self._meter = meter
        self.request_id = request_id
        self.begun = time.monotonic_ns()
        self.chunks = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        meter.begun += 1

    def take(self, text: bytes, now: int) -> None:
        """Text that came in at `now`, in nanoseconds; a stamp in it must be whole."""
        count = text.count(MARK)
        if not count:
            return
        meter = self._meter
        if not self.chunks:
            meter.first_tokens.append(now - self.begun)
        self.chunks += count
        if meter.counting:
            meter.chunks += count
            if meter.stamped:
                meter.lateness += [now - int(part[:19]) for part in text.split(MARK)[1:]]

    def end(self, why: str | None = None) -> None:
        """No more comes; `why` it ended before it was whole."""
        if self.done.done():
            return
        meter = self._meter
        if why is None and self.chunks != meter.expected:
            why = f"{self.chunks} chunks of {meter.expected}"
        if why is not None:
            meter.broken.append(why)
        elif meter.counting:
            meter.requests += 1
        self.done.set_result(None)
