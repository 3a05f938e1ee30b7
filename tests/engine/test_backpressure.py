"""A run waits for its readers when they take too little; and how many runs there may be at once."""

import asyncio

import pytest

from headrace_server.clocks import Clocks
from headrace_server.domain import refusals
from headrace_server.domain.errors import ErrorCode, Refusal, Subreason
from headrace_server.domain.events import Completed, Failed, TextDelta
from headrace_server.engine import Caller
from headrace_server.generation import Generation, Room
from headrace_server.providers.scripted import Script
from support.engine import request, says, text

PIECE = "x" * 1_000
LIMIT = 10_000


def long(count: int = 40) -> Script:
    """An answer that comes piece by piece."""
    return Script(steps=[step for _ in range(count) for step in ([TextDelta(PIECE)], 0.0)])


def started(bench, **fields) -> Generation:
    generation = bench.start(**fields)
    generation.room = Room(LIMIT)
    return generation


async def comes_to_rest(generation: Generation) -> int:
    """How many chunks there are, once no more come."""
    still, count = 0, -1
    while still < 50:
        still, count = (still + 1 if generation.chunk_count == count else 0), generation.chunk_count
        await asyncio.sleep(0)
    return count


async def test_a_run_waits_while_its_reader_takes_nothing_and_goes_on_when_it_does(make_bench):
    bench = await make_bench(long())
    generation = started(bench)
    reader = generation.attach(0, lambda: None)

    first = await comes_to_rest(generation)
    assert LIMIT // 1_200 <= first <= LIMIT // 1_000 + 1
    reader.take()
    second = await comes_to_rest(generation)
    assert first < second < 40
    while generation.outcome is None:
        reader.take()
        await asyncio.sleep(0)
    assert isinstance(generation.outcome, Completed)
    assert text(generation) == PIECE * 40


@pytest.mark.parametrize("policy", ["drain", "keep"])
async def test_a_run_that_outlives_its_readers_waits_for_none(make_bench, policy):
    bench = await make_bench(long())
    generation = started(bench, on_disconnect=policy)
    generation.attach(0, lambda: None)
    assert isinstance(await generation.wait(), Completed)


async def test_one_who_looks_on_neither_holds_a_run_up_nor_lets_it_go_on(make_bench):
    bench = await make_bench(long(), long())
    alone, watched = started(bench), started(bench)
    alone.attach(0, lambda: None, looks_on=True)
    watched.attach(0, lambda: None)
    onlooker = watched.attach(0, lambda: None, looks_on=True)

    assert isinstance(await alone.wait(), Completed)
    rest = await comes_to_rest(watched)
    onlooker.take()
    assert await comes_to_rest(watched) == rest


async def test_the_fastest_reader_sets_the_pace(make_bench):
    bench = await make_bench(long())
    generation = started(bench)
    generation.attach(0, lambda: None)
    fast = generation.attach(0, lambda: None)
    fast.wake = fast.take
    assert isinstance(await generation.wait(), Completed)


async def test_a_run_that_waits_can_be_stopped(make_bench):
    bench = await make_bench(long())
    generation = started(bench)
    reader = generation.attach(0, lambda: None)
    await comes_to_rest(generation)

    reader.close(refusals.slow_client(60))

    outcome = await generation.wait()
    assert isinstance(outcome, Failed)
    assert (outcome.error.code, outcome.error.subreason) == (ErrorCode.CANCELLED, Subreason.SLOW_CLIENT)
    assert [call.closed for call in bench.upstream.calls] == [True]


def test_clocks_that_stood_still_run_out_later():
    clocks = Clocks(first_token=9, idle=3, progress=5, started=100)
    clocks.saw(101, content=True)
    clocks.saw(102, content=False)
    assert clocks.next() == (105, Subreason.STREAM_IDLE)
    clocks.stop(103)
    assert clocks.look(106) == 109  # nothing runs out meanwhile
    clocks.go_on(113)
    assert clocks.next() == (115, Subreason.STREAM_IDLE)
    clocks.saw(115, content=False)
    assert clocks.next() == (116, Subreason.PROGRESS)


async def test_more_generations_than_may_run_at_once_are_refused_until_one_has_ended(make_bench):
    bench = await make_bench(Script(steps=[[TextDelta("a")], 0.02]), says("b"), max_concurrent=1)
    wanted = request()
    first = bench.engine.start(wanted, Caller())

    with pytest.raises(Refusal) as caught:
        bench.start()
    assert caught.value.fault.subreason == Subreason.TOO_MANY_IN_FLIGHT
    assert caught.value.fault.retry_after == 1_000
    assert bench.engine.start(wanted, Caller()) is first
    await first.wait()
    await asyncio.sleep(0)
    assert isinstance(await bench.start().wait(), Completed)


@pytest.mark.parametrize("raised", [asyncio.CancelledError("secret"), TimeoutError("secret"), ValueError("secret")])
async def test_what_a_library_raises_by_itself_is_a_bug_and_neither_a_stop_nor_a_timeout(make_bench, raised):
    bench = await make_bench()

    async def call(*_args, **_fields):
        raise raised

    bench.upstream.call = call
    outcome = (await asyncio.wait_for(bench.run(), 1)).outcome
    assert isinstance(outcome, Failed)
    assert (outcome.error.code, outcome.error.subreason) == (ErrorCode.UNKNOWN_ERROR, Subreason.INTERNAL)
    assert "secret" not in outcome.error.message
