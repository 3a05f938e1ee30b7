"""Rows F64 to F70: what is too large, and Headrace's own limits, whatever the clock does."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from headrace.v1 import lifecycle_pb2, request_service_pb2
from headrace.v1 import provider_service_pb2 as pb
from headrace_server import app
from headrace_server.domain.record import RequestQuery
from support.clock import ClockLoop
from support.faults import NO_FALLBACK, Row, Stage
from support.seen import Seen
from support.service import details
from support.store import listed

NOON = datetime(2026, 7, 15, 12, 0, 20, tzinfo=UTC)
"""Twenty seconds into a minute: what is used now counts in full for another 40 s, then less and less for 60."""
HOUR = timedelta(hours=1)
SOON = {"timeouts": {"total": "30s"}}
"""A request that has less time than any wait in these rows."""

PATIENT = {"slow_client_timeout": 3600}
"""A wait that is let pass at once is no minute in which the caller has read nothing."""


class Wall:
    """A wall clock that stands still, but for the waits that are let pass, and jumps as it is told."""

    def __init__(self, loop: ClockLoop) -> None:
        self._loop = loop
        self._base = 0
        self.set(NOON)

    def __call__(self) -> int:
        return self._base + round(self._loop.offset * 1000)

    def set(self, when: datetime) -> None:
        self._base += round(when.timestamp() * 1000) - self()

    def jump(self, by: timedelta) -> None:
        self._base += round(by.total_seconds() * 1000)


@pytest.fixture
def wall(clock: ClockLoop, monkeypatch: pytest.MonkeyPatch) -> Wall:
    """The wall clock of the service."""
    wall = Wall(clock)
    monkeypatch.setattr(app, "wall_clock", wall)
    return wall


async def quota(stage: Stage) -> Any:
    """What is used and reserved of the one limit there is."""
    (found,) = (await stage.providers.ListQuotas(pb.ListQuotasRequest(provider="p"))).quotas
    return found


async def is_let_in(stage: Stage) -> bool:
    """Whether another request is, or else is over our own limit."""
    stage.leave_out_calls()
    seen = await stage.ask(SOON)
    if seen.error is not None:
        refused(seen)
    return seen.error is None


def refused(seen: Seen) -> float:
    """By our own limit, at once, and nobody was called; after how many seconds there is room."""
    seen.fails(StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMIT_EXCEEDED", path="validating failed")
    seen.waits()
    assert seen.info["origin"] == "gateway"
    assert "QuotaFailure" in seen.details
    assert seen.attempts == []
    assert seen.retry_after is not None
    return seen.retry_after


async def test_F64(row: Row) -> None:
    for request in ({}, NO_FALLBACK):
        seen = await row.play("F64", "no fallback" if request else "", request=request)
        if request:
            seen.fails(StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", "BILLING")
            assert seen.error is not None
            assert len(seen.error.details() or "") <= 1_000
            assert seen.row is not None
            assert len(seen.row.error_message or "") <= 1_024
        else:
            seen.answers(by="f")
        assert seen.attempts[0] == "p quota_exceeded/BILLING"
        text = seen.record.attempts[0].error.provider_text
        assert len(text.encode()) == 64 * 1024
        assert text.startswith('{"error": {"message": "an error text of words without end, an error')
        assert not any(attempt.error.provider_text for event in seen.events for attempt in event.completed.attempts)
        assert seen.calls == {"p": 1, "f": 0 if request else 1}


async def test_F65(row: Row, wall: Wall) -> None:
    async with row.stage("F65", **PATIENT) as stage:
        (await stage.ask()).answers(by="p")
        stage.leave_out_calls()
        seen = await stage.ask()
    seen.answers(by="p", text="The answer.", path="validating rate_limited retrying requesting streaming completed")
    seen.waits((100, 100))
    assert seen.calls == {"p": 1}
    row.add(seen, "the wait fits into the deadline")

    wall.set(NOON)
    async with row.stage("F65", **PATIENT) as stage:
        (await stage.ask()).answers(by="p")
        stage.leave_out_calls()
        seen = await stage.ask(SOON)
    assert refused(seen) == 100
    assert seen.calls == {"p": 0}
    row.add(seen, "the wait does not fit")


async def test_F66(row: Row) -> None:
    seen = await row.play("F66")
    seen.fails(StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMIT_EXCEEDED", "NEVER_FITS", path="validating failed")
    assert seen.info["origin"] == "gateway"
    assert seen.retry_after is None
    assert seen.calls == {"p": 0}


async def test_F67(row: Row, wall: Wall) -> None:
    async with row.stage("F67") as stage:
        async with stage.callers(4) as callers:
            told = Counter(await asyncio.gather(*(ends(callers[i % 4], stage.request()) for i in range(200))))
        listed = await stage.requests.ListRequests(request_service_pb2.ListRequestsRequest(page_size=1000))
        on_record = Counter(lifecycle_pb2.RequestState.Name(r.state) for r in listed.requests)
        left = await quota(stage)
    assert told == {("OK", "", ""): 50, ("RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED", "gateway"): 150}
    assert on_record == {"REQUEST_STATE_COMPLETED": 50, "REQUEST_STATE_FAILED": 150}
    assert (left.used, left.reserved) == (50, 0)
    assert len(stage.provider.requests) == 50
    row.tell("F67", stage.script.about, "50 × OK; 150 × RESOURCE_EXHAUSTED, RATE_LIMIT_EXCEEDED", "50 × completed; 150 × failed", "p 50")


async def ends(caller: Any, request: Any) -> tuple[str, str, str]:
    """How a request ended for its caller: the status, the reason, and whose it is."""
    try:
        await caller.Generate(request)
    except grpc.aio.AioRpcError as error:
        info = details(error)["ErrorInfo"]
        return error.code().name, info.reason, info.metadata["origin"]
    return "OK", "", ""


async def test_F68(row: Row, wall: Wall) -> None:
    given_back, kept = ("3,880 are given back", 120), ("nothing is given back", 4_000)
    for script, (case, charged) in (("F68a", given_back), ("F68b", given_back), ("F68c", given_back), ("F68d", kept)):
        async with row.stage(script) as stage:
            call, request = stage.begin()
            events: list[Any] = []
            error = None
            try:
                async for event in stage.events(call):
                    events.append(event)
                    if event.HasField("chunk") and stage.script.providers["p"].calls[0].pace_ms and event.chunk.index == 0:
                        assert (await quota(stage)).reserved == 4_000
                        stage.clock.advance(10)
            except grpc.aio.AioRpcError as failed:
                error = failed
            seen = await stage.seen(request, events, error)
            left = await quota(stage)
        assert (left.used, left.reserved) == (charged, 0)
        assert seen.status is StatusCode.UNAVAILABLE
        assert seen.partial_text
        assert seen.calls == {"p": 1}
        row.add(seen, case)


async def test_F69(row: Row, wall: Wall) -> None:
    for script, case, midnight, hours in (
        ("F69a", "a day of 24 hours", datetime(2026, 7, 15, 4, tzinfo=UTC), 24),
        ("F69a", "a day of 23 hours", datetime(2026, 3, 8, 5, tzinfo=UTC), 23),
        ("F69a", "a day of 25 hours", datetime(2026, 11, 1, 4, tzinfo=UTC), 25),
        ("F69b", "the first one begins the day", datetime(2026, 11, 1, 4, tzinfo=UTC), 25),
        ("F69c", "the day begins at one", datetime(2026, 4, 23, 22, tzinfo=UTC), 23),
        ("F69d", "the leap second before 2017", datetime(2017, 1, 1, tzinfo=UTC), 24),
    ):
        wall.set(midnight - 2 * HOUR)
        async with row.stage(script) as stage:
            assert [await is_let_in(stage) for _ in range(3)] == [True, True, False]
            wall.set(midnight - timedelta(minutes=1))
            assert not await is_let_in(stage)
            wall.set(midnight)
            assert await is_let_in(stage)
            # As a leap second is shown by most clocks: its second comes once more.
            wall.set(midnight - timedelta(seconds=1))
            assert await is_let_in(stage)
            assert not await is_let_in(stage)
            wall.set(midnight)
            stage.leave_out_calls()
            seen = await stage.ask(SOON)
            assert refused(seen) == hours * 3600
            row.add(seen, case)
            wall.set(midnight + HOUR)
            assert not await is_let_in(stage)
            wall.set(midnight + hours * HOUR)
            assert await is_let_in(stage)


async def test_F70(row: Row, wall: Wall) -> None:
    for case, jump in (("an hour ahead", HOUR), ("an hour back", -HOUR)):
        async with row.stage("F70a") as stage:
            seen = await jumps_within(stage, wall, jump)
        seen.answers(by="p", text="The second try answers.", path="validating requesting retrying requesting streaming completed")
        seen.waits((0.8, 1.2))
        runs_forward(seen)
        assert seen.calls == {"p": 2}
        row.add(seen, case)

        wall.set(NOON)
        async with row.stage("F70b", **PATIENT) as stage:
            assert [await is_let_in(stage) for _ in range(4)] == [True, True, True, False]
            wall.jump(jump)
            fresh = [await is_let_in(stage) for _ in range(4)]
            # Time that seems to have passed is a minute that begins, and never more; time that seems not to have passed gives nothing.
            assert fresh == ([True, True, True, False] if jump > timedelta(0) else [False] * 4)
            wall.jump(-jump)
            assert [await is_let_in(stage) for _ in range(2)] == [False, False]
            ids = [found.id for found in await listed(stage.app.store, RequestQuery(page_size=1000))]
            assert len(ids) == len(set(ids)) == 10

        wall.set(NOON)
        async with row.stage("F70b", **PATIENT) as stage:
            assert [await is_let_in(stage) for _ in range(3)] == [True] * 3
            stage.leave_out_calls()
            seen = await jumps_within(stage, wall, jump)
        if jump > timedelta(0):
            seen.answers(by="p")
        else:
            seen.fails(StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMIT_EXCEEDED")
            assert seen.retry_after == 3600
        seen.waits((60, 60))
        runs_forward(seen)
        row.add(seen, f"{case} while a fourth one waits")


async def jumps_within(stage: Stage, wall: Wall, jump: timedelta) -> Seen:
    """A request, and a jump of the wall clock when it begins to wait."""
    call, request = stage.begin()
    events: list[Any] = []
    error = None
    try:
        async for event in stage.events(call):
            events.append(event)
            if event.HasField("transition") and event.transition.HasField("wait"):
                wall.jump(jump)
    except grpc.aio.AioRpcError as failed:
        error = failed
    return await stage.seen(request, events, error)


def runs_forward(seen: Seen) -> None:
    """No time on record lies before the one before it."""
    assert seen.row is not None
    times = [seen.row.start_time, *(step.time for step in seen.row.transitions), seen.row.end_time or 0]
    assert all(before <= after for before, after in pairwise(times))
    assert seen.row.duration == times[-1] - times[0]
