"""What people read: the table, the bars, the chart, the machine."""

import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path

import bars
import chart
from results import Results
from scenarios import UNITS, Scenario
from systems import HEADRACE, PROVIDER, System

CHARTS = (
    ("burst", "chunks/s"),
    ("burst", "CPU per chunk"),
    ("steady", "CPU per chunk"),
    ("steady", "lateness p99"),
    ("lone", "first token added p50"),
    ("start", "memory idle"),
)
BUSY_CLIENT = 60.0
"""Percent of a core from which on the client may be what was measured."""


def machine() -> str:
    """What this ran on."""
    model = next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    memory = next((int(line.split()[1]) / 2**20 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return f"{model}, {memory:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def versions(systems: Sequence[System]) -> str:
    """Of everything that was measured."""
    found = []
    for system in systems:
        if system.peer:
            found.append(f"{system.name} {system.peer.version}")
        elif system.versions:
            found.append(f"{system.name} ({', '.join(f'{name} {importlib.metadata.version(name)}' for name in system.versions)})")
    return "; ".join(found)


def markdown(results: Results, systems: Sequence[System], scenarios: dict[str, Scenario], when: str) -> str:
    """The whole report."""
    parts = [
        "# Headrace side by side\n",
        f"{when}; {machine()}. {len(results.rounds)} rounds, the systems in turn; medians. The system has one core, client and provider"
        " another. Shares of processor time are of one core.\n",
        f"{versions(systems)}.\n",
        *(f"**{name} is missing**: {why}\n" for name, why in results.missing.items()),
        "## Bars\n",
        "Ratios are made within a round.\n",
        "| | bar | seen | |\n| --- | --- | --- | --- |\n" + "\n".join(map(str, bars.judge(results))) + "\n",
    ]
    titles = {"start": "starting", **{name: scenario.title for name, scenario in scenarios.items()}, "end": "after all of it"}
    for name, title in titles.items():
        if table := _table(results, systems, name):
            parts += [f"## {name}: {title}\n" if name != title else f"## {name}\n", table]
    return "\n".join(parts + _doubts(results))


def _table(results: Results, systems: Sequence[System], scenario: str) -> str:
    present = {(system, metric) for system, of, metric in results.figures() if of == scenario}
    metrics = [metric for metric in UNITS if any(metric == other for _, other in present) and _tells(results, scenario, metric)]
    rows = [system.name for system in systems if any(system.name == name for name, _ in present)]
    if not metrics or not rows:
        return ""
    head = "".join(f" {metric}{f', {UNITS[metric]}' if UNITS[metric] not in ('', '1/s') else ''} |" for metric in metrics)
    lines = [f"| |{head}", "| --- |" + " ---: |" * len(metrics)]
    for name in rows:
        medians = [results.median((name, scenario, metric)) for metric in metrics]
        lines.append(f"| {name} |" + "".join(f" {'–' if value is None else chart.figure(value)} |" for value in medians))
    return "\n".join(lines) + "\n"


def _tells(results: Results, scenario: str, metric: str) -> bool:
    """Counts of what went wrong are shown where anything did."""
    return "answers" not in metric or any(any(results.values(key)) for key in results.figures() if key[1] == scenario and key[2] == metric)


def _doubts(results: Results) -> list[str]:
    """Where a figure is not to be trusted. The provider read directly shares its core with the client and is as fast as both allow."""
    busy = [
        f"- {system}, {scenario}: the client took {share:.0f} % of its core and may be what was measured."
        for system, scenario, metric in results.figures()
        if metric == "CPU of the client"
        and system != PROVIDER.name
        and (share := max(results.values((system, scenario, metric)))) > BUSY_CLIENT
    ]
    wrong = [
        f"- {system}, {scenario}: {max(values):.0f} {metric} in a round."
        for system, scenario, metric in results.figures()
        if "answers" in metric and any(values := results.values((system, scenario, metric)))
    ]
    return ["## Doubts\n", *busy, *wrong, ""] if busy or wrong else []


def picture(results: Results, systems: Sequence[System]) -> str:
    """The chart."""
    panels = []
    for scenario, metric in CHARTS:
        values = {}
        for system in systems:
            for of, name in ((scenario, system.name), (f"{scenario}, 4 streams", f"{system.name}, 4 streams")):
                value = results.median((system.name, of, metric))
                if value is not None and (system != PROVIDER or metric != "CPU per chunk"):
                    values[name] = value
        if values:
            panels.append(chart.Bars(f"{scenario}: {metric}", UNITS[metric].replace("1/s", "more is better"), values))
    return chart.bars(panels, HEADRACE.name)
