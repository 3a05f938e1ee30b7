"""Headrace is killed at every point between a request's acceptance and its acknowledgement; this is what must stand afterwards."""

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass

import pytest

from crash.callers import Callers, Sent
from crash.check import violations
from crash.nursery import DiedAtStart
from crash.stage import DEAD, LIMITED, LIMITS, UNLIMITED, Stage
from headrace.v1 import request_pb2
from headrace_server.fake_provider import Break, Step

KILLED = -9
PACED = "n12-d4"
"""A model of the fake provider: 12 tokens, one every 4 ms."""

# What is on record of a request, by its state or its error code.
ABSENT, INTERRUPTED, COMPLETED, INVALID = "absent", "interrupted", "completed", "invalid_request"
# What a caller can have been told at most.
NOTHING, EVENTS, THE_END = 0, 1, 2

SLOW = pytest.mark.slow

Scenario = Callable[[Stage, Callers], Awaitable[None]]


# ---------------------------------------------------------------- what is going on when the process dies


async def streamed(stage: Stage, callers: Callers) -> None:
    await callers.stream([callers.request(LIMITED, model=PACED)])


async def without_limits(stage: Stage, callers: Callers) -> None:
    await callers.stream([callers.request(UNLIMITED, model=PACED)])


async def retried(stage: Stage, callers: Callers) -> None:
    stage.provider.script.append(Step(status=500))
    await callers.stream([callers.request(LIMITED, model=PACED)])


async def fallen_back(stage: Stage, callers: Callers) -> None:
    fallback = request_pb2.FallbackConfig(enabled=True, providers=[LIMITED], model_mapping={PACED: PACED})
    retry = request_pb2.RetryConfig(max_attempts=1)
    await callers.stream([callers.request(DEAD, model=PACED, fallback=fallback, retry=retry)])


async def broken_off(stage: Stage, callers: Callers) -> None:
    stage.provider.script.append(Step(fault=Break(kind="cut", after_events=6)))
    await callers.stream([callers.request(LIMITED, model=PACED)])


async def generated(stage: Stage, callers: Callers) -> None:
    await callers.generate(callers.request(LIMITED, model=PACED))


async def submitted(stage: Stage, callers: Callers) -> None:
    await callers.submit(callers.request(LIMITED, model=PACED))


async def refused(stage: Stage, callers: Callers) -> None:
    await callers.generate(callers.invalid())


async def drained(stage: Stage, callers: Callers) -> None:
    message = callers.request(LIMITED, model="n1000-d20")
    streaming = asyncio.create_task(callers.stream([message]))
    while not (message.request_id in stage.sent and any(stage.sent[message.request_id].texts)):
        await asyncio.sleep(0.005)
    stage.nursery.terminate()
    await streaming


# ---------------------------------------------------------------- the table


@dataclass(frozen=True)
class Case:
    """Kill at `point` in this scenario, and start again: then this holds."""

    point: str
    play: Scenario
    record: str
    """The request's row."""
    attempts: tuple[str, ...] = ()
    """How each attempt on record ended: completed, or its replay safety."""
    calls: int = 0
    """What the provider saw."""
    charged: int = 0
    """Requests that count against the limit of the provider that answers."""
    told: int = NOTHING
    quick: bool = False
    """One of the few that run with every test run; the others are slow."""


UNCERTAIN = ("uncertain",)

CASES = [
    # Before acceptance: nothing was promised, nothing is there.
    Case("accept.before", streamed, ABSENT),
    Case("accept.commit.before", streamed, ABSENT, quick=True),
    Case("accept.commit.before", without_limits, ABSENT),
    Case("submit.before", submitted, ABSENT),
    Case("refuse.before", refused, ABSENT),
    Case("accept.commit.before", refused, ABSENT),
    # Accepted, no intent on record: nothing was sent, and what was reserved is given back.
    Case("accept.commit.after", streamed, INTERRUPTED, quick=True),
    Case("accept.after", streamed, INTERRUPTED),
    Case("reserve.before", streamed, INTERRUPTED, told=EVENTS),
    Case("reserve.commit.before", streamed, INTERRUPTED, told=EVENTS),
    Case("reserve.commit.after", streamed, INTERRUPTED, told=EVENTS),
    Case("reserve.after", streamed, INTERRUPTED, told=EVENTS, quick=True),
    Case("intend.before", streamed, INTERRUPTED, told=EVENTS),
    Case("update.commit.before", streamed, INTERRUPTED, told=EVENTS),
    # An intent without an end: nobody knows what the provider did, so nothing is given back and nothing is sent again.
    Case("update.commit.after", streamed, INTERRUPTED, UNCERTAIN, charged=1, told=EVENTS),
    Case("intend.after", streamed, INTERRUPTED, UNCERTAIN, charged=1, told=EVENTS, quick=True),
    Case("call.before", streamed, INTERRUPTED, UNCERTAIN, charged=1, told=EVENTS),
    Case("accept.commit.after", without_limits, INTERRUPTED, UNCERTAIN),
    Case("call.before", without_limits, INTERRUPTED, UNCERTAIN, told=EVENTS),
    Case("call.after", streamed, INTERRUPTED, UNCERTAIN, calls=1, charged=1, told=EVENTS, quick=True),
    Case("read.after:1", streamed, INTERRUPTED, UNCERTAIN, calls=1, charged=1, told=EVENTS),
    Case("read.after:7", streamed, INTERRUPTED, UNCERTAIN, calls=1, charged=1, told=EVENTS),
    Case("read.after:7", without_limits, INTERRUPTED, UNCERTAIN, calls=1, told=EVENTS),
    Case("read.after:7", submitted, INTERRUPTED, UNCERTAIN, calls=1, charged=1, told=EVENTS),
    Case("keep.commit.before", submitted, INTERRUPTED, UNCERTAIN, calls=1, charged=1, told=EVENTS),
    Case("keep.commit.after:3", submitted, INTERRUPTED, UNCERTAIN, calls=1, charged=1, told=EVENTS),
    Case("drain.before", drained, INTERRUPTED, UNCERTAIN, calls=1, charged=1, told=EVENTS),
    Case("interrupt.before", drained, INTERRUPTED, UNCERTAIN, calls=1, charged=1, told=EVENTS),
    # The answer, or its fault, is complete, but not on record.
    Case("read_end.after", streamed, INTERRUPTED, UNCERTAIN, calls=1, charged=1, told=EVENTS),
    Case("close.before", streamed, INTERRUPTED, UNCERTAIN, calls=1, charged=1, told=EVENTS),
    Case("close.after", streamed, INTERRUPTED, UNCERTAIN, calls=1, charged=1, told=EVENTS),
    Case("finish.before", streamed, INTERRUPTED, UNCERTAIN, calls=1, charged=1, told=EVENTS),
    Case("finish.commit.before", streamed, INTERRUPTED, UNCERTAIN, calls=1, charged=1, told=EVENTS, quick=True),
    Case("finish.commit.before", generated, INTERRUPTED, UNCERTAIN, calls=1, charged=1),
    Case("finish.commit.before", broken_off, INTERRUPTED, ("partial_output",), calls=1, charged=1, told=EVENTS),
    # On record, and perhaps not told: the record stands.
    Case("finish.commit.after", streamed, COMPLETED, ("completed",), calls=1, charged=1, told=EVENTS, quick=True),
    Case("finish.after", streamed, COMPLETED, ("completed",), calls=1, charged=1, told=EVENTS),
    Case("publish_end.before", streamed, COMPLETED, ("completed",), calls=1, charged=1, told=EVENTS),
    Case("publish_end.after", streamed, COMPLETED, ("completed",), calls=1, charged=1, told=EVENTS),
    Case("write_end.before", streamed, COMPLETED, ("completed",), calls=1, charged=1, told=EVENTS),
    Case("write_end.after", streamed, COMPLETED, ("completed",), calls=1, charged=1, told=THE_END, quick=True),
    Case("generate.after", generated, COMPLETED, ("completed",), calls=1, charged=1),
    Case("finish.commit.after", broken_off, "network_error", ("partial_output",), calls=1, charged=1, told=EVENTS),
    Case("write_end.after", broken_off, "network_error", ("partial_output",), calls=1, charged=1, told=THE_END),
    Case("accept.commit.after", refused, INVALID, quick=True),
    Case("refuse.after", refused, INVALID),
    Case("interrupt.after", drained, INTERRUPTED, UNCERTAIN, calls=1, charged=1, told=EVENTS),
    Case("drain.after", drained, INTERRUPTED, ("partial_output",), calls=1, charged=1, told=THE_END),
    # Between two attempts: the first is what the counter took it for, the second was never sent.
    Case("settle.before", retried, INTERRUPTED, UNCERTAIN, calls=1, charged=1, told=EVENTS),
    Case("settle.commit.before", retried, INTERRUPTED, UNCERTAIN, calls=1, charged=1, told=EVENTS),
    Case("settle.commit.after", retried, INTERRUPTED, UNCERTAIN, calls=1, charged=1, told=EVENTS),
    Case("settle.after", retried, INTERRUPTED, UNCERTAIN, calls=1, charged=1, told=EVENTS),
    Case("reserve.after:2", retried, INTERRUPTED, UNCERTAIN, calls=1, charged=1, told=EVENTS),
    Case("intend.after:2", retried, INTERRUPTED, UNCERTAIN * 2, calls=1, charged=2, told=EVENTS),
    Case("call.after", retried, INTERRUPTED, UNCERTAIN * 2, calls=2, charged=2, told=EVENTS),
    Case("settle.after", fallen_back, INTERRUPTED, ("not_sent",), told=EVENTS, quick=True),
    Case("reserve.after:2", fallen_back, INTERRUPTED, ("not_sent",), told=EVENTS),
    Case("call.after", fallen_back, INTERRUPTED, ("not_sent", "uncertain"), calls=1, charged=1, told=EVENTS),
]


@pytest.mark.parametrize("case", [pytest.param(c, marks=() if c.quick else SLOW, id=f"{c.point}-{c.play.__name__}") for c in CASES])
async def test_nothing_is_lost_when_killed(stage: Stage, case: Case) -> None:
    address = await stage.start(case.point)
    async with stage.callers(address) as callers:
        await case.play(stage, callers)
    assert await stage.nursery.ended() == KILLED

    (sent,) = stage.sent.values()
    assert told(sent) <= case.told
    await stage.start()
    assert violations(stage.database, stage.sent, stage.calls(), LIMITS) == []
    assert on_record(stage, sent.request_id) == (case.record, case.attempts)
    assert stage.calls()[sent.request_id] == case.calls
    assert charged(stage) == case.charged


@SLOW
async def test_a_submitted_request_is_on_record_when_killed_before_its_answer_leaves(stage: Stage) -> None:
    async with stage.callers(await stage.start("submit.after")) as callers:
        await submitted(stage, callers)
    assert await stage.nursery.ended() == KILLED

    (sent,) = stage.sent.values()
    assert told(sent) == NOTHING
    await stage.start()
    assert violations(stage.database, stage.sent, stage.calls(), LIMITS) == []
    assert on_record(stage, sent.request_id)[0] == INTERRUPTED


@pytest.mark.parametrize(
    "point",
    ["recover.commit.before", *(pytest.param(p, marks=SLOW) for p in ("recover.before", "recover.commit.after", "recover.after"))],
)
async def test_a_recovery_is_taken_up_again_when_killed(stage: Stage, point: str) -> None:
    async with stage.callers(await stage.start("read.after:7")) as callers:
        await streamed(stage, callers)
    assert await stage.nursery.ended() == KILLED
    with pytest.raises(DiedAtStart, match=str(KILLED)):
        await stage.start(point)

    (sent,) = stage.sent.values()
    await stage.start()
    assert violations(stage.database, stage.sent, stage.calls(), LIMITS) == []
    assert on_record(stage, sent.request_id) == (INTERRUPTED, UNCERTAIN)
    assert stage.calls()[sent.request_id] == charged(stage) == 1


@pytest.mark.parametrize(
    "point",
    ["migrate.commit.after:1", *(pytest.param(f"migrate.commit.{p}", marks=SLOW) for p in ("before:1", "before:3", "after:3"))],
)
async def test_a_migration_is_taken_up_again_when_killed(stage: Stage, point: str) -> None:
    with pytest.raises(DiedAtStart, match=str(KILLED)):
        await stage.start(point)

    async with stage.callers(await stage.start()) as callers:
        await streamed(stage, callers)
    (sent,) = stage.sent.values()
    assert told(sent) == THE_END
    assert violations(stage.database, stage.sent, stage.calls(), LIMITS) == []


async def test_kept_chunks_are_read_again_after_a_crash(stage: Stage) -> None:
    async with stage.callers(await stage.start("keep.commit.after:3")) as callers:
        await callers.submit(callers.request(LIMITED, model="n50-d20"))
    assert await stage.nursery.ended() == KILLED

    (sent,) = stage.sent.values()
    async with stage.callers(await stage.start()) as callers:
        await callers.attach(sent.request_id)
    before, after = sent.texts
    assert after.startswith(" tok0 tok1 tok2")
    assert before.startswith(after) or after.startswith(before)
    assert sent.failed == {INTERRUPTED}
    assert violations(stage.database, stage.sent, stage.calls(), LIMITS) == []


@SLOW
async def test_the_requests_of_a_dead_process_end_when_another_process_has_its_number(stage: Stage) -> None:
    """As in a container, where every process is number 1: only the lease tells that the one before is dead."""
    unfrozen = ["--config", str(stage.config)]
    address = await stage.nursery.start(*unfrozen, "--failpoint", "read.after:7")
    async with stage.callers(address) as callers:
        await streamed(stage, callers)
    assert await stage.nursery.ended() == KILLED
    with closing(sqlite3.connect(stage.database)) as db, db:
        db.execute("UPDATE nodes SET pid = ?", (os.getpid(),))

    (sent,) = stage.sent.values()
    await stage.nursery.start(*unfrozen)
    async with asyncio.timeout(20):
        while on_record(stage, sent.request_id) != (INTERRUPTED, UNCERTAIN):
            await asyncio.sleep(0.2)


async def test_the_same_id_is_answered_from_its_record_after_a_crash(stage: Stage) -> None:
    async with stage.callers(await stage.start("write_end.before")) as callers:
        message = callers.request(LIMITED)
        await callers.stream([message])
    assert await stage.nursery.ended() == KILLED
    async with stage.callers(await stage.start("read.after:3")) as callers:
        await callers.stream([message])
        await streamed(stage, callers)
    assert await stage.nursery.ended() == KILLED
    completed, interrupted = stage.sent.values()
    (text,) = completed.completed
    assert message.request_id in text
    assert completed.texts[1] == text

    async with stage.callers(await stage.start()) as callers:
        await callers.stream([interrupted.message])
        await callers.attach(message.request_id)
    assert interrupted.failed == {INTERRUPTED}
    assert violations(stage.database, stage.sent, stage.calls(), LIMITS) == []
    assert list(stage.calls().values()) == [1, 1]


def told(sent: Sent) -> int:
    return THE_END if sent.completed or sent.failed else EVENTS if sent.accepted else NOTHING


def on_record(stage: Stage, request_id: str) -> tuple[str, tuple[str, ...]]:
    with closing(sqlite3.connect(stage.database)) as db:
        row = db.execute("SELECT coalesce(error_code, state) FROM provider_logs WHERE request_id = ?", (request_id,)).fetchone()
        attempts = db.execute(
            "SELECT coalesce(attempt.value ->> 'replay_safety', attempt.value ->> 'state')"
            " FROM provider_logs, json_each(attempts) AS attempt WHERE request_id = ?",
            (request_id,),
        ).fetchall()
    return (row[0] if row else ABSENT), tuple(how for (how,) in attempts)


def charged(stage: Stage) -> int:
    with closing(sqlite3.connect(stage.database)) as db:
        statement = "SELECT coalesce(sum(current_usage + reserved), 0) FROM provider_rate_limits WHERE provider = ? AND limit_type = ?"
        used: int = db.execute(statement, (LIMITED, "requests_per_day")).fetchone()[0]
    return used
