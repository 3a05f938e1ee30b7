"""Headrace side by side with others, in one run: `make bench`, or

    python bench/run.py [--quick] [--peers all] [--only headrace,bare] [--rounds 5] [--out bench/results]

Each round starts every system in turn, on a core of its own, puts the same loads on it and ends it. Written are a table (latest.md), a
chart (latest.svg) and every figure (latest.json); quick runs write quick.* instead. bench/README.md says what is measured, and how.
"""

import argparse
import contextlib
import dataclasses
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bars
import report
from load import Plan, Result
from measure import cpu_seconds, resident_bytes
from peers import Missing
from processes import CannotStart, Cores, Running, cores, popen, running
from results import Key, Results
from scenarios import Scenario, scenarios
from systems import ALWAYS, HERE, PROVIDER, SYSTEMS, Around, System

MEASUREMENT_TIMEOUT = 120.0
SETTLED = 0.03
"""Share of a core below which a system has done what it does after its start."""


class Failed(Exception):
    """A measurement that gave no result, with the end of what it logged."""


def choose(peers: str | None, only: str | None) -> list[System]:
    """The systems to measure. Raises ValueError."""
    if only:
        wanted = only.split(",")
        chosen = [system for system in SYSTEMS if any(word.lower() in system.name.lower() for word in wanted)]
        if not chosen:
            raise ValueError(f"no system is named {only}; there are: {', '.join(system.name for system in SYSTEMS)}")
        return chosen
    return list(SYSTEMS if peers == "all" else ALWAYS)


def install(systems: Sequence[System], results: Results) -> list[System]:
    """The systems that can be had; the others are said to be missing."""
    there = []
    for system in systems:
        try:
            if system.peer:
                system.peer.ensure()
            there.append(system)
        except Missing as reason:
            results.missing[system.name] = str(reason)
            print(f"{system.name} is missing: {reason}", flush=True)
    return there


def measure_round(systems: Sequence[System], loads: dict[str, Scenario], on: Cores, results: Results) -> None:
    """Every system in turn. A system that fails is missing in this round and says so."""
    figures: dict[Key, float] = {}
    results.rounds.append(figures)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        with running([sys.executable, str(HERE / "provider.py")], core=on.others, folder=_new(folder, "provider")) as provider:
            for system in systems:
                around = Around(provider=provider, folder=_new(folder, system.name.replace(" ", "-")), core=on.system)
                try:
                    for scenario, metric, value in measure(system, around, loads, on):
                        figures[system.name, scenario, metric] = value
                except (CannotStart, Failed) as reason:
                    results.missing[system.name] = str(reason).strip().splitlines()[-1]
                    print(f"{system.name} failed:\n{reason}", flush=True)
    _add_first_tokens(figures)


def _add_first_tokens(figures: dict[Key, float]) -> None:
    """What a system adds to the first token: over the provider's own median, in this round."""
    if (directly := figures.get((PROVIDER.name, "lone", "first token p50"))) is not None:
        for (system, scenario, metric), value in list(figures.items()):
            if scenario == "lone" and metric.startswith("first token p"):
                figures[system, scenario, metric.replace("token", "token added")] = value - directly


def _new(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def measure(system: System, around: Around, loads: dict[str, Scenario], on: Cores) -> list[tuple[str, str, float]]:
    """Start a system, put every load on it, end it: scenario, metric and value of each figure. Raises CannotStart, Failed."""
    figures: list[tuple[str, str, float]] = []
    with system.start(around) as process:
        if process is not around.provider:
            figures.append(("start", "start to ready", process.start))
            settle(process)
            figures.append(("start", "memory idle", resident_bytes(process.pid) / 1e6))
        for name in system.scenarios:
            result = run_load(plan(system, around, process, loads[name]), on.others, around.folder)
            figures += [(name, metric, value) for metric, value in loads[name].metrics(result)]
            if result.broken:
                print(f"{system.name}, {name}: {result.broken} broken answers, the first: {result.why}", flush=True)
        if process is not around.provider:
            figures.append(("end", "memory after", resident_bytes(process.pid) / 1e6))
    return figures


def settle(process: Running) -> None:
    """Wait until the process is idle, for ten seconds at most."""
    until, before = time.monotonic() + 10, cpu_seconds(process.pid)
    while time.monotonic() < until:
        time.sleep(0.5)
        now = cpu_seconds(process.pid)
        if now - before <= SETTLED * 0.5:
            return
        before = now


def plan(system: System, around: Around, process: Running, scenario: Scenario) -> Plan:
    """What the client is told."""
    wanted = {**scenario.plan, "model": system.model.format(model=scenario.plan["model"])}
    watched = {"provider": around.provider.pid}
    if process is not around.provider:
        watched["system"] = process.pid
    return Plan(
        speaks="multiplexed" if scenario.multiplexed else system.speaks,
        host=process.host,
        port=process.port,
        path=system.path,
        headers=system.headers(around),
        provider=scenario.provider,
        watched=watched,
        **wanted,
    )


def run_load(wanted: Plan, core: int, folder: Path) -> Result:
    """Run the client in a process of its own. Raises Failed."""
    log = folder / "load.log"
    process = popen([sys.executable, str(HERE / "load.py"), json.dumps(dataclasses.asdict(wanted))], core=core, log=log)
    try:
        out, _ = process.communicate(timeout=MEASUREMENT_TIMEOUT)
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise Failed(log.read_text()[-2000:])
    fields: dict[str, Any] = json.loads(out)
    return Result(**fields)


def write(results: Results, systems: Sequence[System], loads: dict[str, Scenario], out: Path, name: str) -> None:
    """The three files."""
    out.mkdir(parents=True, exist_ok=True)
    when = time.strftime("%Y-%m-%d", time.gmtime())
    results.save(out / f"{name}.json")
    (out / f"{name}.md").write_text(report.markdown(results, systems, loads, when), encoding="utf-8")
    (out / f"{name}.svg").write_text(report.picture(results, systems), encoding="utf-8")


def main() -> None:
    """Measure, write, print the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter loads and fewer rounds")
    parser.add_argument("--peers", choices=["all"], help="Portkey and LiteLLM too")
    parser.add_argument("--only", help="only systems whose name holds one of these words, separated by commas")
    parser.add_argument("--rounds", type=int, help="default: 5; 2 quick ones")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    results, loads = Results(), scenarios(options.quick)
    try:
        on = cores()
        systems = install(choose(options.peers, options.only), results)
    except (CannotStart, ValueError) as error:
        parser.error(str(error))
    rounds = options.rounds or (2 if options.quick else 5)
    with contextlib.suppress(KeyboardInterrupt):
        for number in range(rounds):
            began = time.monotonic()
            measure_round(systems, loads, on, results)
            print(f"round {number + 1} of {rounds}: {time.monotonic() - began:.0f} s", flush=True)
    name = "quick" if options.quick else "latest"
    write(results, systems, loads, options.out, name)
    print((options.out / f"{name}.md").read_text(encoding="utf-8"))
    met = sum(verdict.verdict == "met" for verdict in bars.judge(results))
    print(f"written: {options.out}/{name}.md, .svg, .json; {met} of {len(bars.BARS)} bars met")


if __name__ == "__main__":
    main()
