"""What has been kept long enough goes, and nothing else."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from headrace_server.domain.lifecycle import State
from headrace_server.domain.ports import Horizon, Pruned
from headrace_server.store.check import check
from headrace_server.store.retention import Retention, count_over, prune

HOUR = 3_600_000


async def ended(store: Any, make: Any, at: int, **fields: Any) -> Any:
    """A request that began a second before and ended at this time, with metrics and three kept chunks in two pieces."""
    row = make.row(start_time=at - 1_000, created_at=at - 1_000, updated_at=at - 1_000, **fields)
    await store.accept(row)
    await store.keep_events(row.request_id, 0, 2, b"ab", at - 500)
    await store.keep_events(row.request_id, 2, 1, b"c", at - 400)
    last = row.transitions[-1]
    end = row.model_copy(
        update={
            "state": State.COMPLETED,
            "end_time": at,
            "duration": 1_000,
            "updated_at": at,
            "transitions": (*row.transitions, make.transition(last.to_state, last.event, State.COMPLETED)),
        }
    )
    await store.finish(end, [make.metrics(end, created_at=end.created_at)], [])
    return end


async def left(store: Any, row: Any) -> tuple[bool, int, int]:
    """Whether the request is there, how many metrics, how many pieces of chunks."""
    request_id = row.request_id
    return await store.get(request_id) is not None, len(await store.list_metrics(request_id)), len(await store.kept_events(request_id))


@pytest.mark.parametrize(
    ("horizon", "expected"),
    [
        ({}, (True, 1, 2)),
        ({"chunks": 2}, (True, 1, 0)),
        ({"metrics": 2}, (True, 0, 2)),
        ({"chunks": 2, "metrics": 2}, (True, 0, 0)),
        ({"requests": 2}, (False, 0, 0)),
        ({"chunks": 0, "metrics": 0, "requests": 2}, (False, 0, 0)),
    ],
)
async def test_what_ended_before_the_horizon_goes(
    store: Any, make: Any, now: int, horizon: dict[str, int], expected: tuple[bool, int, int]
) -> None:
    old, young = await ended(store, make, now - 3 * HOUR), await ended(store, make, now - HOUR)
    beyond = Horizon(**{name: now - hours * HOUR for name, hours in horizon.items()})
    while await store.prune(beyond, 1):
        pass
    assert await left(store, old) == expected
    young_gone = {name for name, hours in horizon.items() if hours == 0}
    assert await left(store, young) == (True, 1 - ("metrics" in young_gone), 0 if "chunks" in young_gone else 2)


async def test_a_request_that_began_long_ago_stays_while_it_runs_and_when_it_ended_just_now(store: Any, make: Any, now: int) -> None:
    long_ago = now - 9 * HOUR
    running = make.row(start_time=long_ago, created_at=long_ago, updated_at=long_ago)
    await store.accept(running)
    await store.keep_events(running.request_id, 0, 1, b"a", long_ago)
    late = make.ended(make.row(start_time=long_ago, created_at=long_ago, updated_at=now))
    await store.accept(late)
    everything = Horizon(requests=now - HOUR, metrics=now - HOUR, chunks=now - HOUR)
    assert not await store.prune(everything, 100)
    assert await left(store, running) == (True, 0, 1)
    assert await left(store, late) == (True, 0, 0)


async def test_a_batch_is_no_larger_than_its_limit_and_takes_the_oldest_first(store: Any, make: Any, now: int) -> None:
    rows = [await ended(store, make, now - hours * HOUR) for hours in (2, 5, 3, 4)]
    assert await store.prune(Horizon(requests=now - HOUR), 2) == Pruned(requests=2)
    assert [(await left(store, row))[0] for row in rows] == [True, False, True, False]
    assert await store.prune(Horizon(requests=now - HOUR), 9) == Pruned(requests=2)
    assert await store.prune(Horizon(requests=now - HOUR), 9) == Pruned()


async def test_chunks_have_no_gap_while_only_some_have_gone(open_sqlite: Any, make: Any, now: int, path: Path, sql: Any) -> None:
    store = await open_sqlite()
    row = await ended(store, make, now - 2 * HOUR)
    for index in range(3, 23):
        await store.keep_events(row.request_id, index, 1, b"x", now - 2 * HOUR)
    assert await store.prune(Horizon(chunks=now), 1) == Pruned(chunks=10)
    assert sql("SELECT min(first_index), max(first_index), count(*) FROM stream_chunks") == [(0, 12, 12)]
    assert check(path, now=now) == []


async def test_everything_goes_in_batches_and_is_counted(open_sqlite: Any, make: Any, now: int, clock: Any, path: Path) -> None:
    store = await open_sqlite()
    for hours in range(1, 7):
        for _ in range(15):
            await ended(store, make, now - hours * HOUR + 1)
    retention = Retention(requests=4 * HOUR, metrics=3 * HOUR, chunks=2 * HOUR)
    assert count_over(path, retention.horizon(now)) == Pruned(requests=30, metrics=45, chunks=120)
    assert await prune(store, retention, clock) == Pruned(requests=30, metrics=15, chunks=60)
    assert count_over(path, retention.horizon(now)) == Pruned()
    assert check(path, now=now) == []


async def test_writers_go_on_while_it_is_pruned(open_sqlite: Any, make: Any, now: int, clock: Any, path: Path) -> None:
    store = await open_sqlite()
    for _ in range(100):
        await ended(store, make, now - HOUR)
    pruning = asyncio.create_task(prune(store, Retention(requests=1), clock))
    written = 0
    while not pruning.done():
        await store.accept(make.row())
        written += 1
    assert await pruning == Pruned(requests=100)
    assert written > 10
    assert check(path, now=now) == []


def test_nothing_goes_while_readers_may_come_back(now: int) -> None:
    assert Retention(requests=10, chunks=100, at_least=60).horizon(now) == Horizon(requests=now - 60, chunks=now - 100)
