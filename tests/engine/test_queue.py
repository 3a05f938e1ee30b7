"""At most so many at once; the others wait in their turn."""

import asyncio
from typing import Any
from unittest.mock import ANY

from headrace_server.domain.errors import ErrorCode
from headrace_server.domain.events import Completed, Failed
from headrace_server.domain.lifecycle import State
from headrace_server.domain.provider import Provider
from headrace_server.generation import Generation
from headrace_server.providers.scripted import Script
from headrace_server.queues import Queues
from support.engine import Bench, provider, says, states, text

ALONE = {"enabled": False}


def narrow(places: int = 1, length: int = 100, name: str = "first", **fields: Any) -> Provider:
    return provider(name, config={"max_concurrent_requests": places, "queue_length": length}, **fields)


def slow(word: str) -> Script:
    return says(word, delay=30)


async def waiting(made: Bench, **fields: Any) -> Generation:
    generation = made.start(**fields)
    await generation.until(lambda: generation.state is State.RATE_LIMITED or generation.outcome is not None)
    return generation


async def called(made: Bench, count: int) -> None:
    while len(made.upstream.calls) < count:
        await asyncio.sleep(0)


async def test_no_more_run_at_once_than_there_are_places() -> None:
    made = await Bench([says(str(i), delay=0.01) for i in range(9)], [narrow(places=3)]).open()
    generations = [made.start() for _ in range(9)]
    most = 0
    while not all(generation.outcome for generation in generations):
        most = max(most, sum(not call.closed for call in made.upstream.calls))
        await asyncio.sleep(0.001)
    assert most == 3
    assert all(isinstance(generation.outcome, Completed) for generation in generations)


async def test_one_that_waits_is_on_record_and_says_so() -> None:
    made = await Bench([slow("first"), says("second")], [narrow()]).open()
    first = made.start()
    await called(made, 1)
    second = await waiting(made)
    assert (await made.engine.record(second.request_id)).state is State.RATE_LIMITED
    await made.engine.cancel(first.request_id)
    await second.wait()
    assert states(second) == [
        *("idle", "validating", "rate_limited", "retrying", "requesting", "streaming", "completed"),
    ]
    reason = (await made.engine.record(second.request_id)).transitions[1].reason
    assert reason == "in the queue: all places of first are taken"


async def test_first_come_first_served_within_a_priority() -> None:
    made = await Bench([slow("running"), *(says("x") for _ in range(4))], [narrow()]).open()
    first = made.start()
    await called(made, 1)
    later, late, urgent, idle = [await waiting(made, priority=p) for p in (None, 100, 5, 500)]
    ended: list[Generation] = []

    async def follow(generation: Generation) -> None:
        await generation.wait()
        ended.append(generation)

    followers = [asyncio.create_task(follow(generation)) for generation in (later, late, urgent, idle)]
    await made.engine.cancel(first.request_id)
    await asyncio.gather(*followers)
    assert ended == [urgent, later, late, idle]


async def test_a_full_queue_is_told_at_once_and_another_provider_may_stand_in() -> None:
    made = await Bench([slow("running"), says("elsewhere")], [narrow(length=1), provider("second")]).open()
    made.start()
    await called(made, 1)
    await waiting(made)
    refused = await made.run(fallback=ALONE)
    assert isinstance(refused.outcome, Failed)
    error = refused.outcome.error
    assert (error.code, error.subreason, error.attempts) == (ErrorCode.RATE_LIMIT_EXCEEDED, "QUEUE_FULL", ())
    assert text(await made.run()) == "elsewhere"
    await made.engine.drain(0)


async def test_one_that_cannot_be_served_before_its_deadline_is_refused_at_once() -> None:
    made = await Bench([says("quick", delay=0.05), slow("running")], [narrow()]).open()
    await made.run()
    made.start()
    await called(made, 2)
    refused = await made.run(timeouts={"total": 20})
    assert isinstance(refused.outcome, Failed)
    assert refused.outcome.error.subreason == "QUEUE_FULL"
    assert refused.outcome.error.rate_limit is not None
    assert (refused.outcome.error.rate_limit.retry_after or 0) >= 50
    await made.engine.drain(0)


async def test_cancelling_one_that_waits_frees_no_place_and_makes_no_call() -> None:
    made = await Bench([slow("running"), says("third")], [narrow()]).open()
    running = made.start()
    await called(made, 1)
    second, third = await waiting(made), await waiting(made)
    assert (await made.engine.cancel(second.request_id)).error_code is ErrorCode.CANCELLED
    assert third.state is State.RATE_LIMITED
    await made.engine.cancel(running.request_id)
    await third.wait()
    assert text(third) == "third"
    assert len(made.upstream.calls) == 2


async def test_a_deadline_reaches_the_queue() -> None:
    made = await Bench([slow("running")], [narrow()]).open()
    made.start()
    await called(made, 1)
    late = await waiting(made, timeouts={"total": 30})
    await late.wait()
    assert isinstance(late.outcome, Failed)
    assert late.outcome.error.code is ErrorCode.TIMEOUT
    await made.engine.drain(0)


async def test_more_places_are_used_as_soon_as_they_are_set() -> None:
    made = await Bench([slow("running"), says("second"), says("third")], [narrow()]).open()
    made.start()
    await called(made, 1)
    second = await waiting(made)
    made.catalog._providers["first"] = narrow(places=3)
    third = await made.run()
    await second.wait()
    assert text(third) in ("second", "third")
    await made.engine.drain(0)


async def test_a_place_goes_to_the_next_when_the_first_in_line_is_stopped_at_that_very_moment() -> None:
    queues, free, inside = Queues(lambda provider: None), asyncio.Event(), []

    async def hold(name: str) -> None:
        async with queues.place(narrow(), 100, 1_000, lambda wait: asyncio.sleep(0)):
            inside.append(name)
            await free.wait()

    first, second, third = [asyncio.create_task(hold(name)) for name in ("first", "second", "third")]
    while len(queues._queues["first"].waiting if inside else ()) < 2:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    free.set()
    second.cancel()
    assert await asyncio.gather(first, second, third, return_exceptions=True) == [None, ANY, None]
    assert second.cancelled()
    assert inside == ["first", "third"]
    assert queues._queues["first"].running == 0
