"""What Headrace promises about speed, as numbers. A bar is judged by the median over the rounds of a figure within a round."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from results import Key, Results
from systems import BARE, HEADRACE, LITELLM, PORTKEY, PROVIDER, TENSORZERO, System

Round: TypeAlias = dict[Key, float]
BUSY = 80.0
"""Percent of a core from which on lateness is no longer promised."""


class DoesNotApply(Exception):
    """Why a bar says nothing about this round."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One promise. `seen` raises KeyError where a figure is missing."""

    text: str
    limit: float
    seen: Callable[[Round], float]
    at_least: bool = False
    unit: str = "×"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of it."""

    bar: Bar
    seen: float | None
    verdict: str
    """`met`, `NOT MET`, or why there is none."""

    def __str__(self) -> str:
        sign = "≥" if self.bar.at_least else "≤"
        seen = "" if self.seen is None else f"{self.seen:.3g} {self.bar.unit}"
        return f"| {self.bar.text} | {sign} {self.bar.limit:g} {self.bar.unit} | {seen} | {self.verdict} |"


def _ratio(scenario: str, metric: str, than: System, *, of_them: str | None = None) -> Callable[[Round], float]:
    return lambda figures: figures[HEADRACE.name, scenario, metric] / figures[than.name, of_them or scenario, metric]


def _own(scenario: str, metric: str, factor: float = 1.0) -> Callable[[Round], float]:
    return lambda figures: figures[HEADRACE.name, scenario, metric] * factor


def _later_than_the_provider(figures: Round) -> float:
    """At 200 streams, or at 100 where those leave the core too busy."""
    for load in ("steady", "steady, 100 streams"):
        if (busy := figures[HEADRACE.name, load, "CPU"]) < BUSY:
            return figures[HEADRACE.name, load, "lateness p99"] - figures[PROVIDER.name, load, "lateness p99"]
    raise DoesNotApply(f"does not apply: the core was busy at {busy:.0f} %")


BARS = (
    Bar("burst: CPU per chunk, bare grpc.aio server = 1", 0.5, _ratio("burst", "CPU per chunk", BARE)),
    Bar("burst: CPU per chunk, TensorZero = 1", 0.7, _ratio("burst", "CPU per chunk", TENSORZERO)),
    Bar("burst: chunks/s, TensorZero = 1", 1.3, _ratio("burst", "chunks/s", TENSORZERO), at_least=True),
    Bar("burst: chunks/s, Portkey = 1", 2, _ratio("burst", "chunks/s", PORTKEY), at_least=True),
    Bar("burst: chunks/s, LiteLLM = 1", 40, _ratio("burst", "chunks/s", LITELLM), at_least=True),
    Bar(
        "burst over 4 streams: CPU per chunk, TensorZero = 1", 0.5, _ratio("burst, 4 streams", "CPU per chunk", TENSORZERO, of_them="burst")
    ),
    Bar(
        "burst over 4 streams: chunks/s, TensorZero = 1",
        2.5,
        _ratio("burst, 4 streams", "chunks/s", TENSORZERO, of_them="burst"),
        at_least=True,
    ),
    Bar("steady: CPU per chunk, bare grpc.aio server = 1", 2, _ratio("steady", "CPU per chunk", BARE)),
    Bar("steady: CPU per chunk, TensorZero = 1", 1.2, _ratio("steady", "CPU per chunk", TENSORZERO)),
    Bar("steady, at 200 or 100 streams: p99 of a chunk's lateness over the provider's own", 10, _later_than_the_provider, unit="ms"),
    Bar(
        "steady over 4 streams: CPU per chunk, TensorZero = 1",
        0.9,
        _ratio("steady, 4 streams", "CPU per chunk", TENSORZERO, of_them="steady"),
    ),
    Bar("first token added at one stream, p50", 2, _own("lone", "first token added p50"), unit="ms"),
    Bar("first token added at one stream, p99", 5, _own("lone", "first token added p99"), unit="ms"),
    Bar("first token added at one stream, p50, LiteLLM = 1", 0.1, _ratio("lone", "first token added p50", LITELLM)),
    Bar("CPU per request of 64 chunks, in a burst", 1.5, _own("burst", "CPU per request", 1e-3), unit="ms"),
    Bar("start to ready", 1.5, _own("start", "start to ready"), unit="s"),
    Bar("memory per open stream", 50, _own("held", "memory per open stream"), unit="KiB"),
    Bar("memory idle", 90, _own("start", "memory idle"), unit="MB"),
)


def judge(results: Results) -> list[Verdict]:
    """Every bar."""
    return [_judge(bar, results) for bar in BARS]


def _judge(bar: Bar, results: Results) -> Verdict:
    seen, why = [], "not measured"
    for figures in results.rounds:
        try:
            seen.append(bar.seen(figures))
        except KeyError as missing:
            system, _, metric = missing.args[0]
            why = f"not measured: {system} is missing" if system in results.missing else f"not measured: no {metric} of {system}"
        except DoesNotApply as reason:
            why = str(reason)
    if not seen:
        return Verdict(bar, None, why)
    value = statistics.median(seen)
    met = value >= bar.limit if bar.at_least else value <= bar.limit
    return Verdict(bar, value, "met" if met else "NOT MET")
