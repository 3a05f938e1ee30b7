"""What would become of a request is told without calling anyone, and is what then becomes of it."""

import asyncio
from typing import Any

import pytest

from headrace_server.domain.errors import Violation
from headrace_server.domain.lifecycle import State
from headrace_server.domain.limits import LimitType
from headrace_server.domain.plan import Plan, PlannedProvider
from headrace_server.domain.provider import Provider, ProviderRow
from headrace_server.domain.request import GenerateRequest
from headrace_server.engine import Caller
from support.engine import START, Bench, provider, refuses, request, says
from support.store import listed

RPM, TPM, RPD = LimitType.REQUESTS_PER_MINUTE, LimitType.TOKENS_PER_MINUTE, LimitType.REQUESTS_PER_DAY


async def plan_of(bench: Bench, *, time_left: float | None = None, **fields: Any) -> Plan:
    return await bench.engine.explain(request(**fields), Caller(time_left=time_left))


def row(name: str, **fields: Any) -> ProviderRow:
    """A provider of the store."""
    ready = provider(name, **fields).model_dump(include=set(ProviderRow.model_fields))
    return ProviderRow.model_validate(ready)


def skipped(plan: Plan) -> dict[str, str]:
    return {planned.provider: planned.skip_reason for planned in plan.providers}


def windows(planned: PlannedProvider) -> dict[LimitType, tuple[int, int, int]]:
    """Of each limit: its value, what was used, what is reserved."""
    return {w.limit_type: (w.limit_value, w.current_usage, w.reserved) for w in planned.windows}


async def test_plan_is_the_chosen_provider_then_its_fallbacks_with_their_models(make_bench):
    bench = await make_bench()

    plan = await plan_of(bench, model="large", fallback={"model_mapping": {"large": "big"}})

    assert [(p.provider, p.model, p.skip_reason, p.windows) for p in plan.providers] == [
        ("first", "large", "", ()),
        ("second", "big", "", ()),
    ]
    assert (plan.time, plan.expected_wait, plan.violations) == (START, 0, ())


async def test_explaining_calls_nobody_and_writes_nothing(make_bench):
    bench = await make_bench(providers=(provider("first", rate_limit_rpm=5, rate_limit_tpm=5_000),))

    await plan_of(bench)

    assert bench.upstream.calls == []
    assert await listed(bench.store) == []
    assert await bench.store.list_windows() == []


async def test_provider_is_passed_over_with_the_reason_when_it_could_not_be_asked(make_bench):
    providers = (
        provider("off", enabled=False),
        provider("keyless", api_url="https://api.openai.com/v1", api_key=None),
        provider("small", rate_limit_tpm=10),
        provider("last"),
    )
    bench = await make_bench(providers=providers)

    plan = await plan_of(bench, provider="off", max_tokens=100, fallback={"providers": ["keyless", "small", "last"]})

    assert skipped(plan) == {
        "off": "the provider 'off' is disabled",
        "keyless": "the provider 'keyless' has no API key",
        "small": "over Headrace's own limit of 10 tokens per minute for small/small-model: the request alone is larger than that",
        "last": "",
    }
    assert plan.expected_wait == 0


async def test_open_circuit_is_told_with_the_time_until_its_probe(make_bench):
    fragile = provider("first", config={"circuit_failures": 1, "circuit_cooldown_ms": 30_000})
    bench = await make_bench(refuses(), says("ok"), providers=(fragile, provider("second", priority=200)))
    await bench.run(retry={"max_attempts": 1})

    plan = await plan_of(bench)

    assert skipped(plan)["second"] == ""
    assert skipped(plan)["first"].startswith("the circuit of the provider 'first' is open: it failed too often; possible in ")
    assert skipped(plan)["first"].endswith((" 30 s", " 29.9 s"))
    bench.engine.health.reset("first")
    assert skipped(await plan_of(bench)) == {"first": "", "second": ""}


def only_second(request: GenerateRequest, provider: Provider) -> list[Violation]:
    """What of the request a provider cannot express."""
    return [] if provider.provider == "second" else [Violation(field="top_k", description="is unknown to this dialect")]


async def test_provider_that_routing_chose_is_passed_over_when_it_cannot_express_the_request(make_bench):
    bench = await make_bench()
    bench.upstream.check = only_second

    plan = await plan_of(bench, provider=None)

    assert skipped(plan) == {
        "first": "the provider 'first' cannot express the request: top_k (top_k is unknown to this dialect)",
        "second": "",
    }
    assert plan.violations == ()


async def test_request_is_refused_when_the_provider_that_it_names_cannot_express_it(make_bench):
    bench = await make_bench()
    bench.upstream.check = only_second

    plan = await plan_of(bench, provider="first")

    assert [p.provider for p in plan.providers] == ["first"]  # nobody stands in for it
    assert plan.expected_wait is None
    assert plan.violations == (Violation(field="top_k", description="is unknown to this dialect"),)


@pytest.mark.parametrize(
    ("fields", "field", "why"),
    [
        ({"provider": "nobody"}, "provider", "there is no provider named 'nobody'"),
        ({"fallback": {"providers": ["nobody"]}}, "fallback.providers[0]", "there is no provider named 'nobody'"),
    ],
)
async def test_wrong_name_is_a_violation(make_bench, fields, field, why):
    bench = await make_bench()

    plan = await plan_of(bench, **fields)

    assert (plan.providers, plan.expected_wait) == ((), None)
    assert plan.violations == (Violation(field=field, description=why),)


async def test_violation_says_that_no_provider_is_ready(make_bench):
    bench = await make_bench(providers=(provider("off", enabled=False),))

    (violation,) = (await plan_of(bench, provider=None)).violations

    assert violation.field == "provider"
    assert "no provider is enabled and has an API key" in violation.description


async def test_limits_show_what_is_left_now_and_under_the_settings_of_now(make_bench):
    bench = await make_bench(says("a"), says("b"), providers=())
    await bench.catalog.create(row("first", rate_limit_rpm=5, rate_limit_rpd=7, config={"zone": "Europe/Paris"}), None)
    await bench.run()
    await bench.run(model="other")

    planned = (await plan_of(bench)).providers[0]
    of_other = (await plan_of(bench, model="other")).providers[0]
    of_new = (await plan_of(bench, model="new")).providers[0]
    assert windows(planned) == windows(of_other) == {RPM: (5, 1, 0), RPD: (7, 1, 0)}
    assert windows(of_new) == {RPM: (5, 0, 0), RPD: (7, 0, 0)}
    assert {w.model for w in of_new.windows} == {"new"}

    bench.now += 24 * 3600 * 1000
    await bench.catalog.update(row("first", rate_limit_rpd=9), None)
    planned = (await plan_of(bench)).providers[0]
    assert windows(planned) == {RPD: (9, 0, 0)}


async def test_plan_estimates_the_tokens_that_admission_reserves(make_bench):
    hello = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello there " * 9}]}], "max_tokens": 50}
    bench = await make_bench(says("ok"), providers=())
    await bench.catalog.create(row("first", rate_limit_tpm=1_000_000), None)
    bench.start(**hello)
    while not (held := await bench.store.list_windows()):
        await asyncio.sleep(0)
    reserved = held[0].reserved

    for limit, fits in ((reserved, True), (reserved - 1, False)):
        await bench.catalog.update(row("first", default_model="unused", rate_limit_tpm=limit), None)
        plan = await plan_of(bench, fallback={"enabled": False}, **hello)
        assert (plan.expected_wait == 0) is fits


async def test_expected_wait_is_that_of_the_limits_and_no_provider_is_waited_for_beyond_the_deadline(make_bench):
    full = provider("first", rate_limit_rpm=1)
    bench = await make_bench(says("ok"), providers=(full, provider("second", priority=200)))
    await bench.run()

    patient, hurried = await plan_of(bench), await plan_of(bench, time_left=0.5)

    assert skipped(patient) == {"first": "", "second": ""}
    assert 0 < patient.expected_wait <= 120_000
    assert skipped(hurried)["first"].startswith("over Headrace's own limit of 1 requests per minute for first/first-model; possible in ")
    assert (skipped(hurried)["second"], hurried.expected_wait) == ("", 0)
    # A request that runs on without its caller is not in such a hurry.
    assert (await plan_of(bench, time_left=0.5, on_disconnect="keep")).expected_wait == patient.expected_wait


async def test_full_queue_is_told_and_a_place_in_it_takes_its_time(make_bench):
    one_at_a_time = {"max_concurrent_requests": 1, "queue_length": 1}
    first, second = provider("first", config=one_at_a_time), provider("second")
    bench = await make_bench(says("a", delay=0.05), says("b", delay=60), providers=(first, second))
    await bench.run()
    running = bench.start()
    while len(bench.upstream.calls) < 2:
        await asyncio.sleep(0)

    plan = await plan_of(bench)
    assert skipped(plan) == {"first": "", "second": ""}
    assert plan.expected_wait >= 50  # as long as a call took

    waiting = bench.start()
    while waiting.state is not State.RATE_LIMITED:
        await asyncio.sleep(0)
    plan = await plan_of(bench)
    assert "all places of the provider 'first' are taken and 1 requests wait" in skipped(plan)["first"]
    assert plan.expected_wait == 0
    bench.engine.interrupt()
    await asyncio.gather(running.wait(), waiting.wait())


@pytest.mark.parametrize("enabled", [True, False])
async def test_what_was_told_is_what_becomes_of_the_request(make_bench, enabled):
    providers = (provider("first", enabled=enabled), provider("second", priority=200, rate_limit_rpm=3))
    bench = await make_bench(says("ok"), providers=providers)

    plan = await plan_of(bench)
    generation = await bench.run()

    assert generation.outcome.result.provider == next(p.provider for p in plan.providers if not p.skip_reason)
