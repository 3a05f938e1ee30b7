"""Random kills: start the service, check what the last kill left, put it to work, kill it, and so on."""

import asyncio
import contextlib
import sqlite3
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from crash.check import violations
from crash.load import play
from crash.nursery import DiedAtStart, Nursery
from crash.stage import LIMITED, LIMITS, Stage
from headrace_server.fake_provider import FakeProvider

KILLED = -9
KILLS_A_DATABASE = 25
"""After so many, a new database is begun, so that its first start is killed too."""
LONGEST_LOAD = 0.9
"""Seconds after which a service that was to die at a failpoint is killed anyway."""

STARTING = [f"{name}.{side}" for name in ("migrate.commit", "recover", "recover.commit") for side in ("before", "after")]
RUNNING = [
    f"{name}.{side}"
    for name in (
        *("accept", "reserve", "intend", "settle", "finish", "refuse", "call", "read", "close", "publish_end", "write_end"),
        *("generate", "submit", "accept.commit", "update.commit", "keep.commit", "reserve.commit", "settle.commit", "finish.commit"),
    )
    for side in ("before", "after")
]


@dataclass
class Report:
    """What a run has come to."""

    kills: int = 0
    accepted: int = 0
    """Requests whose acceptance a caller saw. Others may have been accepted too: then they have a row, which is checked as well."""
    rows: int = 0
    violations: list[str] = field(default_factory=list)
    circumstances: str = ""
    """Of the violations: which kill, how, and what the service logged."""

    def __str__(self) -> str:
        return f"kills={self.kills} accepted={self.accepted} rows={self.rows} violations={len(self.violations)}"


async def run(kills: int, seed: str, folder: Path, tell: Callable[[str], None] = lambda line: None) -> Report:
    """Kill so many services, up to the first violation; `tell` is told how it goes."""
    random, report = Random(seed), Report()
    with Nursery(folder / "log") as nursery:
        while report.kills < kills and not report.violations:
            async with _stage(folder / f"database-{report.kills}", nursery) as stage:
                try:
                    await _use_up(stage, random, report, kills, tell)
                except (TimeoutError, RuntimeError, ExceptionGroup) as error:  # it hangs, it does not start, it tells nonsense
                    report.violations.append("".join(traceback.format_exception(error)))
                if report.violations:
                    report.circumstances += f" after {report.kills} kills; log:\n{nursery.log()}"
                report.accepted += sum(sent.accepted for sent in stage.sent.values())
    return report


async def _use_up(stage: Stage, random: Random, report: Report, kills: int, tell: Callable[[str], None]) -> None:
    """Play on one database, until it has had its kills, or to the first violation."""
    for _ in range(min(KILLS_A_DATABASE, kills - report.kills)):
        report.circumstances = await _kill_once(stage, random, report)
        if report.violations:
            return
        report.kills += 1
        if report.kills % 10 == 0:
            tell(f"{report.kills} kills")
    report.circumstances = "at the end"
    await _last_words(stage, report)
    with closing(sqlite3.connect(stage.database)) as db:
        report.rows += db.execute("SELECT count(*) FROM provider_logs").fetchone()[0]


@contextlib.asynccontextmanager
async def _stage(folder: Path, nursery: Nursery) -> AsyncIterator[Stage]:
    async with FakeProvider() as provider:
        yield Stage(folder, provider, nursery)
        await nursery.stop()


async def _kill_once(stage: Stage, random: Random, report: Report) -> str:
    """Start, check what the last kill left, put to work, kill; how it was done."""
    way = random.choices(("at an instant", "at a failpoint", "while starting", "while draining"), (45, 35, 10, 10))[0]
    allowed = {KILLED}
    try:
        if way == "while starting":
            if random.random() < 0.5:
                way = random.choice(STARTING)
                address = await stage.start(way)
            else:
                await stage.nursery.begin(*stage.arguments())
                await asyncio.sleep(random.uniform(0, 0.25))
                stage.nursery.kill()
                address = await stage.nursery.address()
        else:
            point = f"{random.choice(RUNNING)}:{random.randint(1, 6)}" if way == "at a failpoint" else None
            address = await stage.start(point)
            way = point or way
    except DiedAtStart as died:
        if died.status != KILLED:
            report.violations.append(str(died))
        return way
    _check(stage, report)
    async with stage.callers(address) as callers:
        playing = asyncio.create_task(play(stage, callers, random))
        if way == "while draining":
            await asyncio.sleep(random.uniform(0.02, 0.4))
            stage.nursery.terminate()
            await asyncio.sleep(random.uniform(0, 0.5))
            allowed.add(0)
        else:
            await asyncio.wait([playing], timeout=LONGEST_LOAD if ":" in way else random.uniform(0, 0.6))
        stage.nursery.kill()
        await playing
    if (status := await stage.nursery.ended()) not in allowed:
        report.violations.append(f"the service ended with {status}")
    return way


async def _last_words(stage: Stage, report: Report) -> None:
    """After the last kill of a database: it still serves, and ends as it should."""
    address = await stage.start()
    _check(stage, report)
    stage.provider.script.clear()
    async with stage.callers(address) as callers:
        message = callers.request(LIMITED)
        await callers.stream([message])
    if len(stage.sent[message.request_id].completed) != 1:
        report.violations.append(f"{message.request_id}: after the crashes a request did not complete")
    stage.nursery.terminate()
    if (status := await stage.nursery.ended()) != 0:
        report.violations.append(f"told to stop, the service ended with {status}")
    _check(stage, report)


def _check(stage: Stage, report: Report) -> None:
    report.violations += violations(stage.database, stage.sent, stage.calls(), LIMITS)
