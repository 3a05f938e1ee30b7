"""Coming back: a reader that lost its connection gets what it lacks, byte for byte what an undisturbed one gets."""

import asyncio
import gc
import weakref

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from headrace_server.domain.errors import ErrorCode, Refusal, Subreason
from headrace_server.domain.events import Completed, Failed, StreamChunk, TextDelta
from headrace_server.domain.lifecycle import State
from headrace_server.engine import Caller
from headrace_server.generation import Generation, Reader
from headrace_server.keeper import kept_events
from headrace_server.providers.scripted import Script
from headrace_server.replay import salvage
from headrace_server.rpc.codec_event import StoredEvents
from support.engine import Bench, fault, provider, request, says, states, text


async def read_all(reader: Reader) -> list[object]:
    """Everything from a reader's place to the end, as a servicer reads it."""
    events = []
    woken = asyncio.Event()
    reader.wake = woken.set
    while not reader.at_end:
        woken.clear()
        if reader.is_behind:
            events += await reader.catch_up()
        taken = reader.take()
        events += taken
        if not taken and not reader.at_end:
            await woken.wait()
    return events


def chunks(events) -> list[StreamChunk]:
    return [event for event in events if isinstance(event, StreamChunk)]


def paced(count: int, size: int = 1) -> Script:
    return Script(steps=[step for i in range(count) for step in ([TextDelta(f"{i:02}" * size)], 0.0)])


@pytest.mark.parametrize("policy", ["cancel", "drain", "keep"])
@pytest.mark.parametrize("memory", [1_000_000, 3_000])
async def test_a_reader_that_comes_back_at_any_chunk_gets_exactly_the_rest(make_bench, policy, memory):
    bench = await make_bench(paced(40, size=50), memory_per_generation=memory)
    generation = bench.start(on_disconnect=policy)
    whole = asyncio.ensure_future(read_all(generation.attach(0, lambda: None)))
    readers = {}

    while generation.outcome is None:
        await asyncio.sleep(0)
        readers.setdefault(generation.chunk_count, generation.attach(generation.chunk_count, lambda: None))
    rest = {index: await read_all(reader) for index, reader in readers.items()}

    undisturbed = chunks(await whole)
    assert [chunk.index for chunk in undisturbed] == list(range(41))
    for index, events in rest.items():
        assert chunks(events) == undisturbed[index:]
        assert isinstance(events[-1], Completed)


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 12), max_size=6), memory=st.sampled_from([600, 3_000, 1_000_000]), count=st.integers(1, 30))
async def test_any_sequence_of_cuts_adds_up_to_the_undisturbed_stream(make_bench, cuts, memory, count):
    bench = await make_bench(paced(count), memory_per_generation=memory)
    generation = bench.start(on_disconnect="keep")
    undisturbed = asyncio.ensure_future(read_all(generation.attach(0, lambda: None)))

    got: list[StreamChunk] = []
    for wanted in cuts:
        reader = generation.attach(len(got), lambda: None)
        for _ in range(wanted):
            if reader.at_end:
                break
            events = (await reader.catch_up() if reader.is_behind else []) + reader.take()
            got += chunks(events)
            await asyncio.sleep(0)
        reader.close()
    got += chunks(await read_all(generation.attach(len(got), lambda: None)))

    assert got == chunks(await undisturbed)


async def test_memory_is_bounded_and_the_rest_is_in_the_store(make_bench):
    bench = await make_bench(paced(200, size=50), memory_per_generation=10_000)

    generation = await bench.run()

    assert generation.forgotten > 100
    assert len(generation.since(0)) < 100
    assert "".join(c.delta.text for c in chunks(await read_all(generation.attach(0, lambda: None))) if c.delta) == "".join(
        f"{i:02}" * 50 for i in range(200)
    )


async def test_a_kept_generation_is_read_from_the_store_chunk_by_chunk(make_bench):
    bench = await make_bench(paced(10), replay_window=1)
    wanted = request(on_disconnect="keep")
    live = await read_all(bench.engine.start(wanted, Caller()).attach(0, lambda: None))
    while bench.engine.running(wanted.request_id):
        await asyncio.sleep(0.002)

    later = await bench.engine.find(wanted.request_id)

    assert await read_all(later.attach(0, lambda: None)) == live
    assert chunks(await read_all(later.attach(7, lambda: None))) == chunks(live)[7:]


async def test_one_that_was_not_kept_is_replayed_from_its_first_chunk_only(make_bench):
    bench = await make_bench(says("a", "b"), replay_window=1)
    generation = await bench.run()
    while bench.engine.running(generation.request_id):
        await asyncio.sleep(0.002)

    later = await bench.engine.find(generation.request_id)

    assert [c.delta for c in chunks(await read_all(later.attach(0, lambda: None)))] == [TextDelta("ab")]
    with pytest.raises(Refusal) as caught:
        later.attach(1, lambda: None)
    assert caught.value.fault.subreason == Subreason.OUT_OF_RANGE


async def test_what_was_kept_of_a_dead_process_is_read_and_ends_interrupted(make_bench):
    bench = await make_bench(Script(steps=[[TextDelta("one ")], [TextDelta("two")], 30.0]))
    generation = bench.start(on_disconnect="keep")
    await generation.until(lambda: generation.chunk_count == 2)
    await asyncio.sleep(0)
    had = chunks(generation.since(0))
    # The process dies: nothing of it is left but the store, where another node finds the row.
    stored = bench.store
    row = await stored.get(generation.request_id)
    stored._logs[row.request_id] = row.model_copy(update={"node": "dead"})
    bench.engine._generations.clear()
    (ended,) = await stored.recover(
        "node-1", bench.now + 9, lambda row, kept: salvage(row, [e for p in kept for e in StoredEvents.decode(p)])
    )

    later: Generation = await bench.engine.find(generation.request_id)

    assert (ended.state, ended.error_code) == (State.FAILED, ErrorCode.INTERRUPTED)
    assert ended.response_data.content[0].text == "one two"
    (line,) = await stored.list_metrics(ended.request_id)
    assert (line.success, line.output_tokens) == (False, 2)
    events = await read_all(later.attach(0, lambda: None))
    assert chunks(events) == had
    assert isinstance(events[-1], Failed)
    assert events[-1].error.partial.content[0].text == "one two"
    assert states(later)[-1] == "failed"
    # A reader that already had more than was kept gets only the end.
    assert [type(e).__name__ for e in await read_all(later.attach(5, lambda: None))] == ["Transition", "Failed"]
    generation.stop(fault(ErrorCode.CANCELLED))
    await generation.wait()


async def test_events_survive_the_store_as_they_were(make_bench):
    bench = await make_bench(paced(5))
    generation = await bench.run(on_disconnect="keep", timing=True)

    kept = await kept_events(bench.store, StoredEvents(), generation.request_id)

    assert kept == generation.since(0)[: len(kept)]
    assert len(chunks(kept)) == generation.chunk_count


async def test_ended_generations_leave_memory_before_their_time_when_they_take_too_much() -> None:
    bench = await Bench([says("one"), says("two"), says("three")], [provider("first")], replay_memory=25_000).open()
    first, second, third = [await bench.run() for _ in range(3)]
    await asyncio.sleep(0.01)  # a generation has ended once its task is over, a moment after its last event
    assert bench.engine.running(first.request_id) is None
    assert bench.engine.running(second.request_id) is second
    assert bench.engine.running(third.request_id) is third
    again = await bench.engine.find(first.request_id)
    assert again.is_replay
    assert text(again) == "one"
    left = weakref.ref(first)
    del first
    gc.collect()
    assert left() is None  # nothing else holds it, its timer neither
