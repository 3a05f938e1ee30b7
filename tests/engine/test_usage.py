"""What a call has cost: as the provider counted, estimated where that cannot be true, and nothing where nothing was sent."""

import pytest

from headrace_server.domain.errors import ErrorCode, ReplaySafety
from headrace_server.domain.events import TextDelta
from headrace_server.domain.usage import MOST_TOKENS, Usage, UsageSource
from headrace_server.providers.scripted import Script
from support.engine import START, fault, provider, says, unreachable

SAID = "x" * 40
"""Ten tokens by its length; the request has three."""
ESTIMATED = Usage(input_tokens=3, output_tokens=10, total_tokens=13, source=UsageSource.ESTIMATED)


def counted(read: int, written: int, **more: int) -> Usage:
    return Usage(input_tokens=read, output_tokens=written, total_tokens=read + written, source=UsageSource.PROVIDER, **more)


@pytest.mark.parametrize(
    ("told", "believed"),
    [
        (counted(5, 4), counted(5, 4)),
        (counted(5, 900), counted(5, 900)),
        (None, ESTIMATED),
        (counted(0, 0), ESTIMATED),
        (counted(5, 0), Usage(input_tokens=5, output_tokens=10, total_tokens=15, source=UsageSource.ESTIMATED)),
        (counted(0, 12), Usage(input_tokens=3, output_tokens=12, total_tokens=15, source=UsageSource.ESTIMATED)),
        (
            Usage(input_tokens=5, output_tokens=MOST_TOKENS, total_tokens=MOST_TOKENS),
            ESTIMATED.model_copy(update={"input_tokens": 5, "total_tokens": 15}),
        ),
        (
            Usage(input_tokens=MOST_TOKENS, output_tokens=0, cached_input_tokens=MOST_TOKENS),
            ESTIMATED.model_copy(update={"cached_input_tokens": 3}),
        ),
    ],
)
async def test_usage_that_cannot_be_true_is_estimated(make_bench, told, believed):
    bench = await make_bench(Script(steps=[[TextDelta(SAID)]], usage=told))
    assert (await bench.run()).outcome.result.usage == believed


async def test_answer_that_holds_nothing_may_have_cost_no_output(make_bench):
    bench = await make_bench(Script(steps=[], usage=counted(5, 0)))
    assert (await bench.run()).outcome.result.usage == counted(5, 0)


async def test_nonsense_of_a_provider_neither_uses_up_the_limit_nor_gives_anything_back(make_bench):
    nonsense = Usage(input_tokens=5, output_tokens=MOST_TOKENS, total_tokens=MOST_TOKENS, source=UsageSource.PROVIDER)
    bench = await make_bench(Script(steps=[[TextDelta(SAID)]], usage=nonsense), providers=(provider("first", rate_limit_tpm=10_000),))

    await bench.run(max_tokens=1_000)

    (window,) = await bench.store.list_windows()
    assert (window.current_usage, window.reserved) == (1_003, 0)


async def test_connection_that_does_not_come_cost_nothing(make_bench):
    never = Script(refused=fault(ErrorCode.NETWORK_ERROR, replay_safety=ReplaySafety.NOT_SENT), delay=30)
    bench = await make_bench(never, says("ok"), providers=(provider("first", rate_limit_tpm=10_000, max_retries=2),))

    generation = await bench.run(timeouts={"first_token": 20}, retry={"initial_delay": 1})

    row = await bench.store.get(generation.request_id)
    first, second = row.attempts
    assert (first.error.code, first.error.subreason) == (ErrorCode.NETWORK_ERROR, "")
    assert (first.replay_safety, first.usage) == (ReplaySafety.NOT_SENT, None)
    (window,) = await bench.store.list_windows()
    assert window.current_usage == second.usage.total_tokens


async def test_refused_connection_cost_nothing(make_bench):
    bench = await make_bench(unreachable())

    generation = await bench.run(fallback={"enabled": False}, retry={"max_attempts": 1})

    row = await bench.store.get(generation.request_id)
    assert [(attempt.replay_safety, attempt.usage) for attempt in row.attempts] == [(ReplaySafety.NOT_SENT, None)]
    assert row.response_data.usage is None
    assert row.start_time >= START


@pytest.mark.parametrize(("written", "source"), [(1, UsageSource.ESTIMATED), (10, UsageSource.PARTIAL), (30, UsageSource.PARTIAL)])
async def test_count_of_an_answer_that_broke_off_covers_at_least_what_came(make_bench, written, source):
    partial = Usage(input_tokens=5, output_tokens=written, total_tokens=5 + written, source=UsageSource.PARTIAL)
    bench = await make_bench(Script(steps=[[TextDelta(SAID)], fault()]))
    call = bench.upstream.call

    async def counting(*arguments, **named):
        made = await call(*arguments, **named)
        made.answer.usage = partial
        return made

    bench.upstream.call = counting
    error = (await bench.run()).outcome.error
    assert error.partial.usage.source is source
    assert (error.partial.usage.input_tokens, error.partial.usage.output_tokens) == (5, max(10, written))
