"""One generation from its request to its last event: the way through the states, and what is left on record."""

import asyncio

import pytest

from headrace_server.domain.errors import ErrorCode, ReplaySafety, Subreason, Violation
from headrace_server.domain.events import Completed, Discontinuity, Failed, ReasoningDelta, StreamChunk, TextDelta
from headrace_server.domain.lifecycle import State
from headrace_server.domain.result import FinishReason
from headrace_server.domain.usage import Usage, UsageSource
from headrace_server.providers.scripted import Script
from support.engine import START, fault, provider, refuses, says, states, text, unreachable


async def test_a_streamed_answer_goes_through_streaming_to_completed(make_bench):
    bench = await make_bench(says("Hello", ", ", "world"))

    generation = await bench.run()

    assert states(generation) == ["idle", "validating", "requesting", "streaming", "completed"]
    outcome = generation.outcome
    assert isinstance(outcome, Completed)
    assert text(generation) == outcome.result.content[0].text == "Hello, world"
    assert outcome.result.finish_reason is FinishReason.STOP
    assert outcome.result.usage.total_tokens == 7
    assert outcome.result.cost == 14
    assert [a.state for a in outcome.result.attempts] == [State.COMPLETED]


async def test_chunks_are_numbered_without_gaps_and_the_last_one_tells_the_finish(make_bench):
    bench = await make_bench(says("a", "b", "c"))

    generation = await bench.run()

    chunks = [e for e in generation.attach(0, lambda: None).take() if isinstance(e, StreamChunk)]
    assert [c.index for c in chunks] == list(range(len(chunks)))
    assert [c.finish_reason for c in chunks] == [None] * (len(chunks) - 1) + [FinishReason.STOP]


async def test_pieces_that_come_together_are_one_chunk(make_bench):
    bench = await make_bench(Script(steps=[[TextDelta("a"), TextDelta("b"), ReasoningDelta(text="c"), TextDelta("d")]]))

    generation = await bench.run()

    chunks = [e for e in generation.attach(0, lambda: None).take() if isinstance(e, StreamChunk) and e.delta]
    assert [(c.delta, c.merged) for c in chunks] == [(TextDelta("ab"), 2), (ReasoningDelta(text="c"), 1), (TextDelta("d"), 1)]


async def test_a_whole_answer_goes_straight_to_completed(make_bench):
    bench = await make_bench(says("All at once", whole=True))

    generation = await bench.run(stream=False)

    assert states(generation) == ["idle", "validating", "requesting", "completed"]
    assert text(generation) == "All at once"


async def test_a_whole_answer_to_a_request_for_a_stream_is_streamed(make_bench):
    bench = await make_bench(says("All at once", whole=True))

    assert states(await bench.run(stream=True)) == ["idle", "validating", "requesting", "streaming", "completed"]


async def test_an_empty_answer_is_completed_without_a_chunk(make_bench):
    bench = await make_bench(Script(finish_reason=FinishReason.LENGTH))

    generation = await bench.run()

    assert states(generation) == ["idle", "validating", "requesting", "completed"]
    assert generation.chunk_count == 0
    assert generation.outcome.result.finish_reason is FinishReason.LENGTH


async def test_hidden_reasoning_is_in_the_result_and_in_no_chunk(make_bench):
    bench = await make_bench(Script(steps=[[ReasoningDelta(text="hm")], [TextDelta("yes")]]))

    generation = await bench.run(reasoning={"hide": True})

    chunks = [e for e in generation.attach(0, lambda: None).take() if isinstance(e, StreamChunk)]
    assert [c.delta for c in chunks] == [TextDelta("yes"), None]
    assert [p.type for p in generation.outcome.result.content] == ["reasoning", "text"]


# ---------------------------------------------------------------- on record


async def test_the_record_holds_the_request_its_answer_and_every_transition(make_bench):
    bench = await make_bench(says("Hello"))

    generation = await bench.run(metadata={"user_id": "u1", "tags": ["t1", "t2"]})

    row = await bench.store.get(generation.request_id)
    assert row.state is State.COMPLETED
    assert row.request_data == generation.request
    assert row.response_data.content[0].text == "Hello"
    assert [t.to_state for t in row.transitions] == ["validating", "requesting", "streaming", "completed"]
    assert (row.provider, row.model, row.user_id, row.tags) == ("first", "first-model", "u1", ("t1", "t2"))
    assert row.start_time == START
    assert row.end_time - row.start_time == row.duration
    assert row.error_code is None


async def test_the_intent_is_on_record_before_the_call_goes_out(make_bench):
    bench = await make_bench(refuses(), says("ok"))
    seen = []
    call = bench.upstream.call

    async def look_first(request, *args, **kwargs):
        row = await bench.store.get(request.request_id)
        seen.append((row.state, [a.state for a in row.attempts]))
        return await call(request, *args, **kwargs)

    bench.upstream.call = look_first
    await bench.run()

    assert seen == [
        (State.REQUESTING, [State.REQUESTING]),
        (State.REQUESTING, [State.FAILED, State.REQUESTING]),
    ]


async def test_nothing_is_told_before_the_row_is_committed(make_bench):
    bench = await make_bench(says("ok"))
    committed = asyncio.Event()
    accept = bench.store.accept

    async def slow_accept(row):
        await committed.wait()
        return await accept(row)

    bench.store.accept = slow_accept
    generation = bench.start()
    for _ in range(20):
        await asyncio.sleep(0)
    assert generation.attach(0, lambda: None).take() == []
    assert bench.upstream.calls == []
    committed.set()
    assert isinstance(await generation.wait(), Completed)


async def test_the_end_is_not_told_before_it_is_committed(make_bench):
    bench = await make_bench(says("ok"))
    committed = asyncio.Event()
    finish = bench.store.finish

    async def slow_finish(*args):
        await committed.wait()
        return await finish(*args)

    bench.store.finish = slow_finish
    generation = bench.start()
    while not (bench.upstream.calls and bench.upstream.calls[0].closed):
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert generation.state is State.STREAMING
    assert generation.outcome is None
    committed.set()
    await generation.wait()
    assert generation.state is State.COMPLETED


async def test_a_row_that_was_ended_by_another_hand_is_the_outcome(make_bench):
    bench = await make_bench(says("ok"))
    finish = bench.store.finish

    async def beaten(row, metrics, settlements):
        stored = await bench.store.get(row.request_id)
        other = stored.model_copy(update={"state": State.FAILED, "error_code": ErrorCode.INTERRUPTED, "error_message": "swept"})
        await finish(other, [], [])
        return await finish(row, metrics, settlements)

    bench.store.finish = beaten
    generation = await bench.run()

    assert isinstance(generation.outcome, Failed)
    assert generation.outcome.error.code is ErrorCode.INTERRUPTED
    assert (await bench.store.get(generation.request_id)).state is State.FAILED


# ---------------------------------------------------------------- retry


async def test_a_retryable_error_is_tried_again(make_bench):
    bench = await make_bench(refuses(), says("ok"))

    generation = await bench.run()

    assert states(generation) == ["idle", "validating", "requesting", "retrying", "requesting", "streaming", "completed"]
    row = await bench.store.get(generation.request_id)
    assert [a.state for a in row.attempts] == [State.FAILED, State.COMPLETED]
    assert row.retry_attempt == 1
    assert row.attempts[0].error.http_status == 500


async def test_a_rate_limit_waits_in_rate_limited(make_bench):
    bench = await make_bench(refuses(ErrorCode.RATE_LIMIT_EXCEEDED, retry_after=5), says("ok"))

    generation = await bench.run(retry={"initial_delay": 1, "max_delay": 100})

    assert states(generation) == ["idle", "validating", "requesting", "rate_limited", "retrying", "requesting", "streaming", "completed"]
    row = await bench.store.get(generation.request_id)
    assert next(t.wait for t in row.transitions if t.to_state is State.RATE_LIMITED) >= 5


async def test_attempts_end_at_max_attempts_and_the_last_error_is_told(make_bench):
    bench = await make_bench(refuses(), refuses(), refuses(ErrorCode.NETWORK_ERROR))

    generation = await bench.run(fallback={"enabled": False})

    error = generation.outcome.error
    assert len(bench.upstream.calls) == 3
    assert error.code is ErrorCode.NETWORK_ERROR
    assert len(error.attempts) == 3
    assert states(generation)[-1] == "failed"


async def test_nothing_is_retried_once_a_chunk_was_delivered(make_bench):
    bench = await make_bench(Script(steps=[[TextDelta("half")], fault(ErrorCode.NETWORK_ERROR, subreason=Subreason.STREAM_TRUNCATED)]))

    generation = await bench.run()

    error = generation.outcome.error
    assert states(generation) == ["idle", "validating", "requesting", "streaming", "failed"]
    assert error.partial.content[0].text == "half"
    assert error.partial.usage.source is UsageSource.ESTIMATED
    assert error.partial.finish_reason is FinishReason.ERROR
    assert error.attempts[0].replay_safety is ReplaySafety.PARTIAL_OUTPUT
    row = await bench.store.get(generation.request_id)
    assert row.response_data.content[0].text == "half"
    assert row.error_code is ErrorCode.NETWORK_ERROR


async def test_a_delay_longer_than_the_deadline_is_not_waited_for(make_bench):
    bench = await make_bench(refuses(ErrorCode.RATE_LIMIT_EXCEEDED, retry_after=20_000))

    generation = bench.start(time_left=5, fallback={"enabled": False})
    outcome = await asyncio.wait_for(generation.wait(), 1)

    assert outcome.error.code is ErrorCode.RATE_LIMIT_EXCEEDED
    assert outcome.error.rate_limit.retry_after == 20_000


# ---------------------------------------------------------------- fallback


async def test_the_next_provider_stands_in_when_the_first_is_used_up(make_bench):
    bench = await make_bench(refuses(), refuses(), refuses(), says("from the second"))

    generation = await bench.run()

    result = generation.outcome.result
    assert states(generation)[-5:] == ["requesting", "validating", "requesting", "streaming", "completed"]
    assert (result.provider, result.model) == ("second", "second-model")
    assert result.fallback.provider == "second"
    assert result.fallback.reason.startswith("first: ")
    first, second = await bench.store.list_metrics(generation.request_id)
    assert (first.provider, first.success, first.retry_count, first.is_fallback, first.fallback_provider) == (
        "first",
        False,
        2,
        False,
        "second",
    )
    assert (second.provider, second.success, second.retry_count, second.is_fallback) == ("second", True, 0, True)


async def test_a_fallback_that_is_passed_over_does_not_hide_the_real_cause(make_bench):
    bench = await make_bench(refuses(), refuses(), refuses(), providers=(provider("first"), provider("second", enabled=False)))

    generation = await bench.run(fallback={"providers": ["second"]})

    error = generation.outcome.error
    assert (error.code, error.http_status, error.provider) == (ErrorCode.SERVER_ERROR, 500, "first")
    assert len(error.attempts) == 3
    row = await bench.store.get(generation.request_id)
    assert (row.provider, row.model) == ("first", "first-model")
    assert "'second' is disabled" not in row.error_message
    (line,) = await bench.store.list_metrics(generation.request_id)
    assert line.fallback_provider is None


async def test_an_error_that_every_provider_would_repeat_does_not_fall_back(make_bench):
    bench = await make_bench(refuses(ErrorCode.INVALID_REQUEST, retryable=False, fallback=False, http_status=400))

    generation = await bench.run()

    assert generation.outcome.error.code is ErrorCode.INVALID_REQUEST
    assert len(bench.upstream.calls) == 1


async def test_the_model_of_a_fallback_is_the_mapped_one(make_bench):
    bench = await make_bench(refuses(ErrorCode.MODEL_NOT_FOUND, retryable=False), says("ok"))

    generation = await bench.run(model="big", fallback={"providers": ["second"], "model_mapping": {"big": "large"}})

    assert generation.outcome.result.model == "large"
    assert [call.model for call in bench.upstream.calls] == ["big", "large"]


async def test_a_cut_stream_restarts_at_the_next_provider_when_asked(make_bench):
    bench = await make_bench(Script(steps=[[TextDelta("lost")], fault()]), says("whole ", "answer"))

    generation = await bench.run(fallback={"mid_stream": "restart"})

    events = generation.attach(0, lambda: None).take()
    gap = next(e for e in events if isinstance(e, Discontinuity))
    assert (gap.discard_from_index, gap.provider, gap.attempt) == (0, "second", 2)
    after = [e for e in events[events.index(gap) :] if isinstance(e, StreamChunk)]
    assert [c.index for c in after] == [1, 2, 3]
    assert {c.attempt for c in after} == {2}
    assert generation.outcome.result.content[0].text == "whole answer"


async def test_an_unknown_fallback_provider_is_refused_by_name(make_bench):
    bench = await make_bench()

    generation = await bench.run(fallback={"providers": ["second", "nobody"]})

    error = generation.outcome.error
    assert [v.field for v in error.field_violations] == ["fallback.providers[1]"]
    assert states(generation) == ["idle", "validating", "failed"]


async def test_a_disabled_provider_is_passed_over(make_bench):
    bench = await make_bench(says("ok"), providers=(provider("first", enabled=False), provider("second")))

    generation = await bench.run()

    assert states(generation)[:4] == ["idle", "validating", "validating", "requesting"]
    assert generation.outcome.result.provider == "second"


async def test_a_provider_without_its_key_is_a_clear_error(make_bench):
    alone = provider("first", api_url="https://api.openai.com/v1", api_key=None)
    bench = await make_bench(providers=(alone,))

    generation = await bench.run()

    assert generation.outcome.error.code is ErrorCode.AUTHENTICATION_ERROR
    assert generation.outcome.error.subreason == Subreason.NO_API_KEY
    assert (await bench.store.get(generation.request_id)).attempts == ()


async def test_what_the_chosen_provider_cannot_express_is_refused_and_not_sent_elsewhere(make_bench):
    bench = await make_bench()
    bench.upstream._violations = [Violation(field="seed", description="has no such parameter")]

    generation = await bench.run()

    assert [v.field for v in generation.outcome.error.field_violations] == ["seed"]
    assert states(generation) == ["idle", "validating", "failed"]
    assert (await bench.store.get(generation.request_id)).transitions[-1].event == "validation_failed"


# ---------------------------------------------------------------- clocks, cancel, deadline


async def test_a_stream_without_a_first_token_is_given_up(make_bench):
    bench = await make_bench(Script(delay=30), says("ok"))

    generation = await bench.run(timeouts={"first_token": 20})

    row = await bench.store.get(generation.request_id)
    assert row.attempts[0].error.subreason == Subreason.TTFT
    assert row.attempts[0].replay_safety is ReplaySafety.UNCERTAIN
    assert row.state is State.COMPLETED


async def test_a_stream_that_falls_silent_fails_with_what_was_delivered(make_bench):
    bench = await make_bench(Script(steps=[[TextDelta("half")], 30.0]))

    generation = await bench.run(timeouts={"idle": 20})

    error = generation.outcome.error
    assert (error.code, error.subreason) == (ErrorCode.TIMEOUT, Subreason.STREAM_IDLE)
    assert error.partial.content[0].text == "half"
    assert bench.upstream.calls[0].closed


async def test_pings_without_content_do_not_keep_a_stream_alive(make_bench):
    pings: list[object] = [[TextDelta("half")]]
    for _ in range(100):
        pings += [0.005, []]
    bench = await make_bench(Script(steps=pings))

    generation = await bench.run(timeouts={"progress": 50})

    assert generation.outcome.error.subreason == Subreason.PROGRESS


async def test_the_deadline_ends_a_generation_wherever_it_is(make_bench):
    bench = await make_bench(Script(steps=[[TextDelta("half")], 30.0]))

    generation = bench.start(time_left=0.03)
    outcome = await generation.wait()

    assert outcome.error.code is ErrorCode.TIMEOUT
    assert bench.upstream.calls[0].closed
    assert (await bench.store.get(generation.request_id)).error_code is ErrorCode.TIMEOUT


async def test_the_rpcs_deadline_does_not_end_a_generation_that_is_kept(make_bench):
    bench = await make_bench(Script(steps=[0.05, [TextDelta("late")]]))

    outcome = await bench.start(time_left=0.001, on_disconnect="keep").wait()

    assert isinstance(outcome, Completed)


async def test_cancelling_ends_the_call_and_records_what_came(make_bench):
    bench = await make_bench(Script(steps=[[TextDelta("half")], 30.0]))
    generation = bench.start()
    await generation.until(lambda: generation.chunk_count > 0)

    row = await bench.engine.cancel(generation.request_id)

    assert (row.state, row.error_code) == (State.FAILED, ErrorCode.CANCELLED)
    assert row.response_data.content[0].text == "half"
    assert row.response_data.usage.source is UsageSource.ESTIMATED
    assert bench.upstream.calls[0].closed


async def test_a_generation_that_is_stopped_before_its_first_step_ends_on_record(make_bench):
    bench = await make_bench()
    generation = bench.start()

    row = await bench.engine.cancel(generation.request_id)

    assert (row.state, row.error_code, row.attempts) == (State.FAILED, ErrorCode.CANCELLED, ())
    assert bench.upstream.calls == []


async def test_relaxed_durability_tells_the_end_before_it_is_committed(make_bench):
    bench = await make_bench(says("ok"), tell_before_commit=True)
    committed = asyncio.Event()
    finish = bench.store.finish

    async def slow_finish(*args):
        await committed.wait()
        return await finish(*args)

    bench.store.finish = slow_finish
    generation = bench.start()
    assert isinstance(await asyncio.wait_for(generation.wait(), 1), Completed)
    assert (await bench.store.get(generation.request_id)).state is not State.COMPLETED
    committed.set()
    await generation.task
    assert (await bench.store.get(generation.request_id)).state is State.COMPLETED


async def test_cancelling_during_a_backoff_makes_no_further_call(make_bench):
    bench = await make_bench(refuses(), says("never"))
    generation = bench.start(retry={"initial_delay": 10_000})
    await generation.until(lambda: generation.state is State.RETRYING)

    row = await bench.engine.cancel(generation.request_id)

    assert row.error_code is ErrorCode.CANCELLED
    assert len(bench.upstream.calls) == 1


async def test_the_last_caller_that_leaves_takes_the_generation_along(make_bench):
    bench = await make_bench(Script(steps=[[TextDelta("half")], 30.0]))
    generation = bench.start()
    await generation.until(lambda: generation.chunk_count > 0)
    one, two = generation.attach(0, lambda: None), generation.attach(0, lambda: None)

    one.close()
    assert generation.stopped_by is None
    two.close()

    assert (await generation.wait()).error.code is ErrorCode.CANCELLED


@pytest.mark.parametrize("policy", ["drain", "keep"])
async def test_a_drained_or_kept_generation_goes_on_without_its_caller(make_bench, policy):
    bench = await make_bench(Script(steps=[0.02, [TextDelta("all of it")]]))
    generation = bench.start(on_disconnect=policy)
    generation.attach(0, lambda: None).close()

    assert isinstance(await generation.wait(), Completed)


async def test_a_fault_of_our_own_ends_the_request_without_its_text(make_bench, caplog):
    bench = await make_bench()

    async def broken(*args, **kwargs):
        raise ValueError("secret detail")

    bench.upstream.call = broken
    generation = await bench.run()

    error = generation.outcome.error
    assert (error.code, error.subreason) == (ErrorCode.UNKNOWN_ERROR, Subreason.INTERNAL)
    assert "secret" not in error.model_dump_json()
    assert "secret detail" in caplog.text
    assert (await bench.store.get(generation.request_id)).state is State.FAILED


# ---------------------------------------------------------------- our own limits


async def test_our_own_limit_holds_a_request_back_until_it_fits(make_bench):
    bench = await make_bench(says("one"), says("two"), providers=(provider("first", rate_limit_rpm=1),))
    await bench.run()
    second = bench.start(timeouts={"total": 7_000_000})
    await second.until(lambda: second.state is State.RATE_LIMITED)

    row = await bench.store.get(second.request_id)
    assert row.transitions[-1].wait > 0
    assert len(bench.upstream.calls) == 1
    second.stop(fault(ErrorCode.CANCELLED))
    await second.wait()


async def test_over_our_own_limit_without_time_to_wait_fails_with_the_delay(make_bench):
    bench = await make_bench(says("one"), providers=(provider("first", rate_limit_rpm=1),))
    await bench.run()

    outcome = await bench.start(time_left=0.5).wait()

    assert outcome.error.code is ErrorCode.RATE_LIMIT_EXCEEDED
    assert outcome.error.rate_limit.retry_after > 0
    assert len(bench.upstream.calls) == 1


async def test_a_request_larger_than_the_limit_never_fits(make_bench):
    bench = await make_bench(providers=(provider("first", rate_limit_tpm=10),))

    generation = await bench.run(max_tokens=100)

    assert generation.outcome.error.subreason == Subreason.NEVER_FITS
    assert generation.outcome.error.rate_limit is None


async def test_the_limiter_is_settled_with_what_was_really_used(make_bench):
    bench = await make_bench(says("ok"), providers=(provider("first", rate_limit_tpm=10_000, rate_limit_rpm=10),))

    await bench.run(max_tokens=4_000)

    used = {w.limit_type: (w.current_usage, w.reserved) for w in await bench.store.list_windows()}
    assert used == {"requests_per_minute": (1, 0), "tokens_per_minute": (7, 0)}


async def test_a_call_that_reached_nobody_is_given_back_in_full(make_bench):
    bench = await make_bench(*[unreachable()] * 3, providers=(provider("first", rate_limit_tpm=10_000, rate_limit_rpm=10),))

    await bench.run(max_tokens=4_000)

    assert {(w.current_usage, w.reserved) for w in await bench.store.list_windows()} == {(0, 0)}


async def test_unknown_usage_is_not_given_back(make_bench):
    bench = await make_bench(
        Script(refused=fault(ErrorCode.TIMEOUT, http_status=0, retryable=False)), providers=(provider("first", rate_limit_tpm=10_000),)
    )

    await bench.run(max_tokens=4_000)

    (window,) = await bench.store.list_windows()
    assert window.current_usage >= 4_000
    assert window.reserved == 0


async def test_usage_the_provider_did_not_tell_is_estimated(make_bench):
    bench = await make_bench(Script(steps=[[TextDelta("x" * 40)]]))

    usage = (await bench.run()).outcome.result.usage

    assert usage == Usage(input_tokens=3, output_tokens=10, total_tokens=13, source=UsageSource.ESTIMATED)
