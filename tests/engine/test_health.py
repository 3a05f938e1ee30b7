"""Circuit breaker, retry budget and choice by health, seen through the engine."""

import asyncio
import json
from typing import Any

import pytest

from headrace_server.domain.errors import ErrorCode
from headrace_server.domain.events import Failed
from headrace_server.domain.provider import CircuitState, Provider
from headrace_server.generation import Generation
from headrace_server.health import Health
from headrace_server.providers.scripted import Script
from support.engine import START, Bench, fault, provider, refuses, says, states, text


class Ticks:
    """A clock in milliseconds that is set by hand."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


async def bench(scripts: list[Script], providers: list[Provider], ticks: Ticks | None = None) -> Bench:
    made = Bench(scripts, providers)
    if ticks is not None:
        made.engine.health._ticks = ticks
    return await made.open()


def fragile(name: str = "first", **config: Any) -> Provider:
    return provider(name, config={"circuit_failures": 2, "circuit_cooldown_ms": 1_000} | config)


def error_of(generation: Generation) -> Any:
    assert isinstance(generation.outcome, Failed)
    return generation.outcome.error


ONCE = {"max_attempts": 1}
ALONE = {"enabled": False}


async def test_an_open_circuit_is_passed_over_and_the_reason_is_on_record() -> None:
    made = await bench([refuses(), refuses(), says("from second")], [fragile(), provider("second")])
    for _ in range(2):
        await made.run(retry=ONCE, fallback=ALONE)
    generation = await made.run()
    assert text(generation) == "from second"
    assert [call.provider.provider for call in made.upstream.calls] == ["first", "first", "second"]
    row = await made.engine.record(generation.request_id)
    assert [attempt.provider for attempt in row.attempts] == ["second"]
    assert states(generation)[:4] == ["idle", "validating", "validating", "requesting"]
    assert row.transitions[1].reason.startswith("first: the circuit of the provider 'first' is open")


async def test_without_a_fallback_an_open_circuit_is_told_with_the_time_that_is_left() -> None:
    ticks = Ticks()
    made = await bench([refuses(), refuses()], [fragile()], ticks)
    for _ in range(2):
        await made.run(retry=ONCE)
    ticks.now = 400
    error = error_of(await made.run())
    assert (error.code, error.subreason, error.attempts) == (ErrorCode.SERVER_ERROR, "CIRCUIT_OPEN", ())
    assert error.rate_limit is not None
    assert error.rate_limit.retry_after == 600
    assert len(made.upstream.calls) == 2


async def test_a_retry_stops_at_a_circuit_that_opened_and_the_real_cause_is_told() -> None:
    made = await bench([refuses(), refuses(), says("never asked")], [fragile()])
    error = error_of(await made.run(retry={"max_attempts": 5, "initial_delay": 1}))
    assert (error.code, error.subreason) == (ErrorCode.SERVER_ERROR, "")
    assert len(made.upstream.calls) == 2


async def test_of_many_at_once_one_is_the_probe_and_its_failure_doubles_the_wait() -> None:
    ticks = Ticks()
    made = await bench([refuses(), refuses(), refuses(), says("well again")], [fragile()], ticks)
    for _ in range(2):
        await made.run(retry=ONCE)
    ticks.now = 1_000
    generations = [made.start(retry=ONCE) for _ in range(50)]
    await asyncio.gather(*(generation.wait() for generation in generations))
    assert len(made.upstream.calls) == 3
    assert sorted(error_of(generation).subreason for generation in generations) == [""] + ["CIRCUIT_OPEN"] * 49
    ticks.now = 2_999
    assert error_of(await made.run(retry=ONCE)).subreason == "CIRCUIT_OPEN"
    ticks.now = 3_000
    assert text(await made.run(retry=ONCE)) == "well again"
    assert made.engine.health.view(made.catalog.get("first")).circuit_state is CircuitState.CLOSED


async def test_a_probe_that_is_cancelled_leaves_the_way_to_another() -> None:
    ticks = Ticks()
    made = await bench([refuses(), refuses(), says("slow", delay=60), says("next")], [fragile()], ticks)
    for _ in range(2):
        await made.run(retry=ONCE)
    ticks.now = 1_000
    probe = made.start(retry=ONCE)
    await probe.until(lambda: len(made.upstream.calls) == 3)
    await made.engine.cancel(probe.request_id)
    assert text(await made.run(retry=ONCE)) == "next"


async def test_errors_of_the_callers_making_do_not_open_it() -> None:
    wrong = [refuses(ErrorCode.INVALID_REQUEST, retryable=False, http_status=400) for _ in range(20)]
    limited = [refuses(ErrorCode.RATE_LIMIT_EXCEEDED, http_status=429) for _ in range(20)]
    made = await bench([*wrong, *limited, says("fine")], [fragile()])
    for _ in range(40):
        await made.run(retry=ONCE)
    assert text(await made.run(retry=ONCE)) == "fine"


async def test_a_reset_by_hand_closes_it() -> None:
    made = await bench([refuses(), refuses(), says("again")], [fragile()])
    for _ in range(2):
        await made.run(retry=ONCE)
    made.engine.health.reset("first")
    assert text(await made.run(retry=ONCE)) == "again"


async def test_a_probe_counts_as_any_other_call_when_its_circuit_was_reset_meanwhile() -> None:
    ticks = Ticks()
    health, first = Health(ticks, lambda: START), fragile()
    down = fault()

    def open_it() -> None:
        for _ in range(2):
            health.begin(first, again=False).ended(down, 0)

    open_it()
    ticks.now = 1_000
    former = health.begin(first, again=False)
    health.reset("first")
    another = health.begin(first, again=False)
    another.ended(None, 1)
    former.ended(down, 0)
    assert health.view(first).circuit_state is CircuitState.CLOSED

    health.reset("first")
    open_it()
    ticks.now = 5_000
    former = health.begin(first, again=False)
    health.reset("first")
    open_it()
    ticks.now = 10_000
    probe = health.begin(first, again=False)
    former.given_up()
    assert probe.probe
    assert not health.lets_through(first)


async def test_under_a_total_outage_retries_are_a_fifth_of_the_calls_at_most() -> None:
    lasting = {"circuit_failures": 1_000_000, "circuit_least_calls": 1_000_000}
    made = await bench([refuses() for _ in range(3_000)], [provider("first", config=lasting)])
    generations = [made.start(retry={"max_attempts": 3, "initial_delay": 1}) for _ in range(1_000)]
    await asyncio.gather(*(generation.wait() for generation in generations))
    assert 1_010 <= len(made.upstream.calls) <= 1_200
    assert all(error_of(generation).code is ErrorCode.SERVER_ERROR for generation in generations)


async def test_a_delay_that_a_rate_limit_names_costs_nothing_of_the_budget() -> None:
    limited = [refuses(ErrorCode.RATE_LIMIT_EXCEEDED, http_status=429, retry_after=1) for _ in range(30)]
    made = await bench([*limited, *(says("ok") for _ in range(30))], [provider("first")])
    generations = [made.start(retry={"max_attempts": 2, "initial_delay": 1}) for _ in range(30)]
    await asyncio.gather(*(generation.wait() for generation in generations))
    assert [text(generation) for generation in generations] == ["ok"] * 30


async def test_among_equals_the_healthier_goes_first() -> None:
    made = await bench([refuses(), says("ok"), says("healthy")], [provider("a", priority=1), provider("b", priority=1)])
    made.catalog._health_rank = made.engine.health.rank
    await made.run(provider=None, retry=ONCE)
    assert [call.provider.provider for call in made.upstream.calls] == ["a", "b"]
    await made.run(provider=None, retry=ONCE)
    assert made.upstream.calls[-1].provider.provider == "b"


async def test_what_was_reserved_is_given_back_before_another_provider_is_asked() -> None:
    # The circuit opens while the request waits for its limit, so the call is never begun.
    made = await bench([says("from second")], [fragile(), provider("second")])
    health: Health = made.engine.health
    first = made.catalog.get("first").model_copy(update={"rate_limit_rpm": 5})
    made.catalog._providers["first"] = first
    began = health.begin

    def refuse_first(wanted: Provider, *, again: bool) -> Any:
        if wanted.provider == "first":
            raise health._is_open(wanted)
        return began(wanted, again=again)

    health.begin = refuse_first  # type: ignore[method-assign]
    assert text(await made.run()) == "from second"
    windows = await made.store.list_windows()
    assert [(window.provider, window.current_usage, window.reserved) for window in windows] == [("first", 0, 0)]


async def test_the_view_tells_rate_latency_and_when_a_probe_may_go() -> None:
    ticks = Ticks()
    made = await bench([says("a"), refuses(), refuses()], [fragile()], ticks)
    for _ in range(3):
        await made.run(retry=ONCE)
    ticks.now = 250
    view = made.engine.health.view(made.catalog.get("first"))
    assert view.circuit_state is CircuitState.OPEN
    assert view.circuit_retry_time == START + 750
    assert view.error_rate == pytest.approx(2 / 3)
    assert view.calls == 3
    assert view.latency is not None
    ticks.now = 1_000
    assert made.engine.health.view(made.catalog.get("first")).circuit_state is CircuitState.HALF_OPEN
    assert json.loads(made.catalog.get("first").config.model_dump_json())["circuit_failures"] == 2
