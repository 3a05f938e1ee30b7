"""Starting, finding and draining generations; ids that come twice."""

import asyncio

import pytest

from headrace_server.domain.errors import ErrorCode, Refusal, StoreUnavailable, Subreason
from headrace_server.domain.events import Completed, Failed, StreamChunk, TextDelta
from headrace_server.domain.lifecycle import State
from headrace_server.engine import Caller
from headrace_server.providers.scripted import Script
from support.engine import refuses, request, says, states, text


async def test_the_same_id_and_content_attaches_to_the_running_generation(make_bench):
    bench = await make_bench(says("once"))
    wanted = request()

    one, two = bench.engine.start(wanted, Caller()), bench.engine.start(wanted, Caller())

    assert one is two
    await one.wait()
    assert len(bench.upstream.calls) == 1


async def test_the_same_id_with_other_content_is_refused(make_bench):
    bench = await make_bench(says("once"))
    wanted = request()
    generation = bench.engine.start(wanted, Caller())

    with pytest.raises(Refusal) as caught:
        bench.engine.start(request(request_id=wanted.request_id, temperature=1), Caller())

    assert caught.value.fault.subreason == Subreason.ALREADY_EXISTS
    await generation.wait()


async def test_what_goes_without_saying_does_not_make_another_request(make_bench):
    bench = await make_bench(says("once"))
    wanted = request()
    said = request(
        request_id=wanted.request_id,
        stream=False,
        quiet=True,
        on_disconnect="cancel",
        response_format={"type": "text"},
        reasoning={},
        retry={"initial_delay": 1, "strategy": "exponential"},
        fallback={"enabled": True, "mid_stream": "never"},
    )

    assert bench.engine.start(wanted, Caller()) is bench.engine.start(said, Caller())


async def test_a_finished_request_is_replayed_from_the_store_and_not_sent_again(make_bench):
    bench = await make_bench(says("the ", "answer"), replay_window=1)
    wanted = request()
    first = bench.engine.start(wanted, Caller())
    await first.wait()
    while bench.engine.running(wanted.request_id):
        await asyncio.sleep(0.002)

    again = bench.engine.start(wanted, Caller())
    outcome = await again.wait()

    assert isinstance(outcome, Completed)
    assert text(again) == "the answer"
    assert states(again) == states(first)
    assert len(bench.upstream.calls) == 1
    assert outcome.result == first.outcome.result


async def test_other_content_under_a_stored_id_is_refused(make_bench):
    bench = await make_bench(says("once"), replay_window=1)
    wanted = request()
    await bench.engine.start(wanted, Caller()).wait()
    while bench.engine.running(wanted.request_id):
        await asyncio.sleep(0.002)

    outcome = await bench.engine.start(request(request_id=wanted.request_id, seed=1), Caller()).wait()

    assert isinstance(outcome, Failed)
    assert outcome.error.subreason == Subreason.ALREADY_EXISTS
    assert outcome.error.message.endswith("with other content in seed")
    assert (await bench.engine.find(wanted.request_id)).state is State.COMPLETED


async def test_a_failed_id_stays_failed(make_bench):
    bench = await make_bench(refuses(retryable=False, fallback=False))
    wanted = request()
    await bench.engine.start(wanted, Caller()).wait()

    outcome = await bench.engine.start(wanted, Caller()).wait()

    assert outcome.error.code is ErrorCode.SERVER_ERROR
    assert len(bench.upstream.calls) == 1


async def test_an_id_that_validation_refused_may_be_used_again(make_bench):
    bench = await make_bench(says("ok"))
    refused = request(fallback={"providers": ["nobody"]})
    assert isinstance(await bench.engine.start(refused, Caller()).wait(), Failed)

    outcome = await bench.engine.start(request(request_id=refused.request_id), Caller()).wait()

    assert isinstance(outcome, Completed)
    assert (await bench.store.get(refused.request_id)).state is State.COMPLETED


async def test_a_request_that_could_not_be_read_leaves_a_row(make_bench):
    bench = await make_bench()
    refusal = Refusal(ErrorCode.INVALID_REQUEST, "the request is not valid: temperature")
    request_id = request().request_id

    await bench.engine.refuse(refusal.fault, request_id=request_id, unread={"temperature": 3}, caller=Caller())

    row = await bench.store.get(request_id)
    assert (row.state, row.error_code, row.attempts) == (State.FAILED, ErrorCode.INVALID_REQUEST, ())
    assert row.request_data.unread == {"temperature": 3}
    assert [t.event for t in row.transitions] == ["initiate_request", "validation_failed"]


async def test_finding_an_unknown_request_says_so(make_bench):
    bench = await make_bench()

    with pytest.raises(Refusal) as caught:
        await bench.engine.find(request().request_id)

    assert caught.value.fault.subreason == Subreason.REQUEST_NOT_FOUND


async def test_a_reader_gets_exactly_the_chunks_it_lacks(make_bench):
    bench = await make_bench(Script(steps=[[TextDelta("a")], [TextDelta("b")], 0.01, [TextDelta("c")]]))
    generation = bench.start()
    await generation.until(lambda: generation.chunk_count == 2)

    reader = generation.attach(1, lambda: None)
    await generation.wait()

    assert [c.index for c in reader.take() if isinstance(c, StreamChunk)] == [1, 2, 3]


async def test_a_chunk_that_is_not_there_is_out_of_range(make_bench):
    bench = await make_bench(says("a"))
    generation = await bench.run()

    with pytest.raises(Refusal) as caught:
        generation.attach(99, lambda: None)

    assert caught.value.fault.subreason == Subreason.OUT_OF_RANGE


async def test_without_a_store_nobody_is_called(make_bench):
    bench = await make_bench()

    async def gone(row):
        raise StoreUnavailable("the database is gone")

    bench.store.accept = gone
    generation = await bench.run()

    assert (generation.outcome.error.code, generation.outcome.error.subreason) == (ErrorCode.SERVER_ERROR, Subreason.STORAGE)
    assert bench.upstream.calls == []
    assert bench.engine.running(generation.request_id) is None


async def test_an_end_that_cannot_be_recorded_is_no_success(make_bench, caplog):
    bench = await make_bench(says("ok"))

    async def gone(*args):
        raise StoreUnavailable("the disk is full")

    bench.store.finish = gone
    generation = await bench.run()

    assert isinstance(generation.outcome, Failed)
    assert generation.outcome.error.subreason == Subreason.STORAGE
    assert "could not be recorded" in caplog.text


async def test_draining_lets_what_runs_end_and_takes_nothing_new(make_bench):
    bench = await make_bench(Script(steps=[0.02, [TextDelta("in time")]]))
    generation = bench.start()
    await generation.until(lambda: generation.state is State.REQUESTING)
    drained = asyncio.create_task(bench.engine.drain(5))
    await asyncio.sleep(0)

    with pytest.raises(Refusal) as caught:
        bench.start()
    await drained

    assert caught.value.fault.subreason == Subreason.SHUTTING_DOWN
    assert isinstance(generation.outcome, Completed)


async def test_draining_interrupts_what_does_not_end_in_time(make_bench):
    bench = await make_bench(Script(steps=[[TextDelta("half")], 30.0]))
    generation = bench.start()
    await generation.until(lambda: generation.chunk_count > 0)

    await bench.engine.drain(0.01)

    error = generation.outcome.error
    assert (error.code, error.subreason) == (ErrorCode.INTERRUPTED, Subreason.SHUTTING_DOWN)
    assert error.partial.content[0].text == "half"
    assert (await bench.store.get(generation.request_id)).error_code is ErrorCode.INTERRUPTED
