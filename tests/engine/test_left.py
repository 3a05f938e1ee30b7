"""What a provider says is left of its limits lowers what is left of ours, and its own words stand in the record."""

from collections.abc import Mapping

import pytest

from headrace_server.domain.errors import ErrorCode
from headrace_server.domain.events import Completed, Failed, TextDelta
from headrace_server.domain.limits import LimitType
from headrace_server.ledger import MOST_TEXT
from headrace_server.providers.scripted import Script
from headrace_server.replay import replay
from support.engine import Bench, fault, provider, refuses, says

RPM, TPM, RPD = LimitType.REQUESTS_PER_MINUTE, LimitType.TOKENS_PER_MINUTE, LimitType.REQUESTS_PER_DAY


async def bench(*scripts: Script, **limits: int) -> Bench:
    return await Bench(scripts, [provider("first", **(limits or {"rate_limit_rpm": 10, "rate_limit_tpm": 100_000}))]).open()


async def counted(bench: Bench) -> Mapping[LimitType, tuple[int, int]]:
    """What is counted, and what is reserved."""
    return {window.limit_type: (window.current_usage, window.reserved) for window in await bench.store.list_windows()}


async def test_a_good_answer_lowers_what_is_left() -> None:
    made = await bench(says("hi", left={RPM: 4, RPD: 1}))
    await made.run()
    assert await counted(made) == {RPM: (6, 0), TPM: (7, 0)}


async def test_a_refusal_lowers_what_is_left_and_the_answer_after_it_does_too() -> None:
    made = await bench(refuses(ErrorCode.RATE_LIMIT_EXCEEDED, http_status=429, left={RPM: 3}), says("hi", left={RPM: 2}))
    generation = await made.run()
    assert isinstance(generation.outcome, Completed)
    assert (await counted(made))[RPM] == (8, 0)


@pytest.mark.parametrize("fails_with", [{}, {"left": {RPM: 2}}], ids=["headers", "headers and fault"])
async def test_an_answer_that_breaks_off_lowers_what_is_left(fails_with: Mapping[str, Mapping[LimitType, int]]) -> None:
    broken = Script(steps=[[TextDelta("h")], fault(http_status=200, **fails_with)], left={RPM: 2})
    made = await bench(broken)
    await made.run()
    assert (await counted(made))[RPM] == (8, 0)


async def test_a_call_that_reached_nobody_says_nothing() -> None:
    made = await bench(says("hi", left={RPM: 2}), refuses(ErrorCode.NETWORK_ERROR, http_status=0, retryable=False))
    await made.run()
    await made.run()
    assert (await counted(made))[RPM] == (9, 0)


async def test_the_next_request_waits_or_fails_when_a_provider_has_nothing_left() -> None:
    made = await bench(says("hi", left={RPM: 0}))
    await made.run()
    generation = await made.run(timeouts={"total": 1_000})
    assert isinstance(generation.outcome, Failed)
    assert generation.outcome.error.code is ErrorCode.RATE_LIMIT_EXCEEDED
    assert generation.outcome.error.http_status == 0
    assert len(made.upstream.calls) == 1


# ---------------------------------------------------------------- the provider's own words


async def test_the_providers_words_stand_in_the_attempts_of_the_row_and_nowhere_else() -> None:
    made = await bench(*(refuses(provider_text=f"<html>words {n}</html>", retryable=n < 2) for n in range(3)))
    generation = await made.run(retry={"initial_delay": 1, "max_attempts": 3})
    row = await made.store.get(generation.request_id)
    assert row is not None
    assert [attempt.error.provider_text for attempt in row.attempts if attempt.error] == [f"<html>words {n}</html>" for n in range(3)]
    assert "words" not in row.model_dump_json(exclude={"attempts"})
    assert "words" not in repr(generation.attach(0, lambda: None).take())
    assert "words" not in repr(replay(row))


async def test_the_words_of_failed_attempts_stay_when_a_later_one_succeeds() -> None:
    made = await bench(refuses(provider_text="words"), says("hi"))
    generation = await made.run()
    row = await made.store.get(generation.request_id)
    assert row is not None
    assert [attempt.error.provider_text if attempt.error else None for attempt in row.attempts] == ["words", None]
    assert row.response_data is not None
    assert [attempt.error.provider_text if attempt.error else None for attempt in row.response_data.attempts] == ["", None]
    assert isinstance(generation.outcome, Completed)
    assert generation.outcome.result == row.response_data


async def test_a_row_holds_only_so_many_words_of_providers() -> None:
    long = "w" * (MOST_TEXT // 2 - 1)
    made = await bench(*(refuses(provider_text=long, retryable=n < 3) for n in range(4)))
    generation = await made.run(retry={"initial_delay": 1, "max_attempts": 4})
    row = await made.store.get(generation.request_id)
    assert row is not None
    assert [len(attempt.error.provider_text) for attempt in row.attempts if attempt.error] == [len(long), len(long), 2, 0]


async def test_what_one_provider_says_is_not_held_against_the_next_when_that_stands_in() -> None:
    cut = Script(steps=[[TextDelta("h")], fault()], left={RPM: 2})
    providers = [provider(name, rate_limit_rpm=10) for name in ("first", "second")]
    made = await Bench([cut, refuses(retryable=False)], providers).open()
    await made.run(fallback={"mid_stream": "restart"})
    windows = await made.store.list_windows()
    assert [(window.provider, window.current_usage) for window in windows] == [("first", 8), ("second", 1)]
