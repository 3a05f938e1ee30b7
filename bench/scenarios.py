"""What is asked of each system, and which figures come of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from load import Result
from meter import chunks_of
from systems import BURST, HELD, LONE, STEADY

UNITS = {
    "start to ready": "s",
    "memory idle": "MB",
    "memory after": "MB",
    "memory per open stream": "KiB",
    "first token p50": "ms",
    "first token p99": "ms",
    "first token added p50": "ms",
    "first token added p99": "ms",
    "lateness p50": "ms",
    "lateness p99": "ms",
    "requests/s": "1/s",
    "chunks/s": "1/s",
    "CPU per chunk": "µs",
    "CPU per request": "µs",
    "CPU": "%",
    "CPU of the client": "%",
    "CPU of the provider": "%",
    "broken answers": "",
    "unfinished answers": "",
}
"""Every metric, with its unit; the order of columns. Shares of processor time are of one core."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """How a load is made. `plan` is what load.Plan needs besides where to send it."""

    title: str
    plan: dict[str, Any]
    multiplexed: bool = False
    provider: str = "bench"

    def metrics(self, result: Result) -> Iterator[tuple[str, float]]:
        """The figures, by the names in UNITS."""
        yield "broken answers", result.broken
        yield "unfinished answers", result.unfinished
        for name, milliseconds in result.first_token_ms.items():
            yield f"first token {name}", milliseconds
        if self.plan["kind"] == "held":
            grown = result.resident["after"] - result.resident["before"]
            yield "memory per open stream", grown / result.begun / 1024
            return
        for name, milliseconds in result.lateness_ms.items():
            yield f"lateness {name}", milliseconds
        for who, name in (("system", "CPU"), ("client", "CPU of the client"), ("provider", "CPU of the provider")):
            if who in result.cpu:
                yield name, 100 * result.cpu[who] / result.seconds
        if self.plan["kind"] == "closed":
            yield "requests/s", result.requests / result.seconds
            yield "chunks/s", result.chunks / result.seconds
        if "system" in result.cpu and result.chunks:
            yield "CPU per chunk", result.cpu["system"] / result.chunks * 1e6
            # By the chunks, not by the requests that ended meanwhile: one that was under way at the begin or the end counts in part.
            yield "CPU per request", result.cpu["system"] / result.chunks * 1e6 * chunks_of(self.plan["model"])


def scenarios(quick: bool) -> dict[str, Scenario]:
    """All of them by name; quick ones are shorter."""
    seconds = 1.0 if quick else 3.0
    burst = {"kind": "closed", "model": BURST, "streams": 32, "ramp": 0.5, "seconds": seconds}
    steady = {"kind": "closed", "model": STEADY, "streams": 200, "ramp": 1.28, "seconds": seconds}
    return {
        "lone": Scenario("one stream, one request after the other", {"kind": "lone", "model": LONE, "requests": 100 if quick else 300}),
        "held": Scenario("200 streams open, silent", {"kind": "held", "model": HELD, "streams": 200, "seconds": 3.0}),
        "burst": Scenario("32 streams, 64 chunks each, no delay", burst),
        "burst, claude": Scenario("the same, the provider speaks Anthropic's dialect", burst, provider="bench-claude"),
        "steady": Scenario("200 streams, 64 chunks each, 20 ms apart (10,000 chunks/s offered)", steady),
        "steady, 100 streams": Scenario("the same with 100 streams (5,000 chunks/s offered)", {**steady, "streams": 100}),
        "burst, 4 streams": Scenario("200 generations over 4 bidirectional streams, no delay", {**burst, "streams": 200}, multiplexed=True),
        "steady, 4 streams": Scenario("200 generations over 4 bidirectional streams, 20 ms apart", steady, multiplexed=True),
    }
