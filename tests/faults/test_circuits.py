"""Rows F71 to F75: providers that keep failing, and those that stand in for them."""

import asyncio
from collections import Counter
from typing import Any

import grpc
import pytest
from google.protobuf import field_mask_pb2
from grpc import StatusCode

from headrace.v1 import provider_service_pb2 as pb
from headrace_server.config import ConfigurationError
from headrace_server.domain.record import RequestQuery
from support.faults import Row, Stage
from support.seen import Seen
from support.service import details
from support.store import listed

FAILURES = 5
"""In a row, that open a circuit."""
COOLDOWN = 60
"""Seconds that it stays open, the first time."""
AT_ONCE = 50
NOBODY = {"dialect": "openai", "default_model": "m", "api_url": "http://127.0.0.1:9/v1"}
CIRCLE = {"p": NOBODY | {"fallback_providers": ["f"]}, "f": NOBODY | {"fallback_providers": ["p"]}}
"""Two providers of a configuration file that name each other."""


async def provider(stage: Stage, name: str) -> pb.Provider:
    """A provider as operators see it."""
    shown: pb.Provider = (await stage.providers.GetProvider(pb.GetProviderRequest(provider=name))).provider
    return shown


async def circuit(stage: Stage) -> str:
    """Of the provider that fails."""
    state = (await provider(stage, "p")).health.circuit_state
    return pb.CircuitState.Name(state).removeprefix("CIRCUIT_STATE_").lower()


async def ask(stage: Stage, changes: dict[str, Any] | None = None) -> Seen:
    """One request after others."""
    stage.leave_out_calls()
    return await stage.ask(changes)


async def fail(stage: Stage, times: int = FAILURES) -> None:
    """Let the provider fail so often, each time with another request."""
    for _ in range(times):
        seen = await ask(stage)
        assert [attempt for attempt in seen.attempts if attempt.startswith("p ")] == [seen.attempts[0]]
        assert seen.calls["p"] == 1


async def test_F71(row: Row) -> None:
    for script in ("F71a", "F71b", "F71c"):
        async with row.stage(script) as stage:
            await fail(stage, FAILURES - 1)
            assert await circuit(stage) == "closed"
            await fail(stage, 1)
            assert await circuit(stage) == "open"
            seen = await ask(stage)
            retry_time = (await provider(stage, "p")).health.circuit_retry_time
        seen.answers(by="f", path="validating validating requesting streaming completed")
        seen.waits()
        assert seen.row is not None
        assert "the circuit of the provider 'p' is open" in seen.row.transitions[1].reason
        assert 0 < retry_time.ToMilliseconds() - seen.row.start_time <= COOLDOWN * 1000
        assert seen.attempts == ["f completed"]
        assert seen.calls == {"p": 0, "f": 1}
        row.add(seen)

    async with row.stage("F71d") as stage:
        await fail(stage, 20)
        assert await circuit(stage) == "closed"
        seen = await ask(stage)
    seen.answers(by="p")
    assert seen.calls == {"p": 1}
    row.add(seen)


async def test_F72(row: Row) -> None:
    async with row.stage("F72") as stage:
        await fail(stage)
        stage.clock.advance(20)
        seen = await ask(stage)
    seen.fails(StatusCode.UNAVAILABLE, "SERVER_ERROR", "CIRCUIT_OPEN", path="validating failed")
    seen.waits()
    assert seen.info["origin"] == "gateway"
    assert seen.retry_after is not None
    assert COOLDOWN - 20 - 10 < seen.retry_after <= COOLDOWN - 20
    seen.words["RetryInfo"] = f"what remains of {COOLDOWN} s"
    assert seen.attempts == []
    assert seen.calls == {"p": 0}
    row.add(seen)


async def test_F73(row: Row) -> None:
    for script, by_f in (("F73a", AT_ONCE - 1), ("F73b", AT_ONCE)):
        async with row.stage(script) as stage:
            await fail(stage)
            stage.clock.advance(COOLDOWN)
            assert await circuit(stage) == "half_open"
            stage.leave_out_calls()
            calls = [stage.begin() for _ in range(AT_ONCE)]
            running = [asyncio.create_task(answered_by(stage, call)) for call, _ in calls]
            while sum(task.done() for task in running) < AT_ONCE - 1:
                await asyncio.sleep(0.005)
            assert (called(stage, "p"), called(stage, "f")) == (1, AT_ONCE - 1), "one probe, and nobody waits for it"
            stage.clock.advance(10)
            answers = Counter(await asyncio.gather(*running))
            assert (called(stage, "p"), called(stage, "f")) == (1, by_f)
            probe = answers["p"] or answers["f"] - (AT_ONCE - 1)
            assert (probe, answers.total()) == (1, AT_ONCE)
            if script == "F73a":
                assert await circuit(stage) == "closed"
                afterwards = "the circuit is closed"
            else:
                stage.clock.advance(COOLDOWN + 30)
                assert await circuit(stage) == "open"
                stage.clock.advance(COOLDOWN - 30)
                assert await circuit(stage) == "half_open"
                (await ask(stage)).answers(by="p")
                afterwards = f"the circuit is open for {2 * COOLDOWN} s, then a probe closes it"
        told = ", ".join(f"{count} × answered by {name}" for name, count in sorted(answers.items(), reverse=True))
        row.tell(script, stage.script.about, f"OK, {told}", f"{AT_ONCE} × completed; {afterwards}", f"p 1, f {by_f}")


def called(stage: Stage, name: str) -> int:
    """How often a provider was called since `leave_out_calls`."""
    return len(stage.provider.requests_of(name)) - stage.others[name]


async def answered_by(stage: Stage, call: Any) -> str:
    """The provider of a stream's answer."""
    last = [event async for event in stage.events(call)][-1]
    return str(last.completed.provider)


async def test_F74(row: Row) -> None:
    async with row.stage("F74") as stage:
        async with stage.callers(20) as callers:
            ends = await asyncio.gather(*(how_it_ends(callers[i % 20], stage.request()) for i in range(1_000)))
        calls = len(stage.provider.requests)
        rows = await listed(stage.app.store, RequestQuery(page_size=1_000))
    assert Counter(ends) == {("UNAVAILABLE", "SERVER_ERROR"): 1_000}
    assert Counter((found.state.value, found.error_code) for found in rows) == {("failed", "server_error"): 1_000}
    assert 1_000 < calls <= 1_200
    row.tell("F74", stage.script.about, "1,000 × UNAVAILABLE, SERVER_ERROR", "1,000 × failed server_error", "p at most 1,200")


async def how_it_ends(caller: Any, request: Any) -> tuple[str, str]:
    """Status and reason of a request that fails."""
    try:
        await caller.Generate(request)
    except grpc.aio.AioRpcError as error:
        return error.code().name, details(error)["ErrorInfo"].reason
    return "OK", ""


async def test_F75(row: Row) -> None:
    async with row.stage("F75") as stage:
        seen = await stage.ask()
        seen.fails(StatusCode.UNAVAILABLE, "SERVER_ERROR")
        assert seen.attempts == ["p server_error", "f server_error", "g server_error"]
        assert seen.calls == {"p": 1, "f": 1, "g": 1}
        row.add(seen)
        for case, named in (("the request names one twice", ["f", "g", "f"]), ("the request names one that is not there", ["f", "nobody"])):
            seen = await ask(stage, {"fallback": {"providers": named}})
            seen.fails(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", path="validating failed")
            assert seen.calls == {"p": 0, "f": 0, "g": 0}
            row.add(seen, case)

        urls = stage.provider.api_urls()
        for name, fallbacks in (("c", []), ("b", ["c"]), ("a", ["b", "g"])):
            await create(stage, provider=name, api_url=urls["p"], default_model=f"{name}-model", fallback_providers=fallbacks)
        before = await stage.app.store.list_providers()
        for case, fallbacks, why in (
            ("a circle", ["a"], "makes a cycle: c → a → b → c"),
            ("itself", ["c"], "is the provider itself"),
            ("one that is not there", ["nobody"], "there is no provider named 'nobody'"),
            ("one that is disabled", ["gemini"], "the provider 'gemini' is disabled"),
            ("one named twice", ["f", "f"], "names 'f' a second time"),
        ):
            if case == "one that is disabled":
                await update(stage, provider="gemini", enabled=False)
                before = await stage.app.store.list_providers()
            error = await refused(update(stage, provider="c", fallback_providers=fallbacks))
            assert [violation.description for violation in details(error)["BadRequest"].field_violations] == [why]
            assert await stage.app.store.list_providers() == before
            row.tell("F75", f"fallbacks are set: {case}", "INVALID_ARGUMENT, INVALID_REQUEST; BadRequest", "the settings stand", "none")
        error = await refused(create(stage, provider="d", api_url=urls["p"]))
        assert [violation.field for violation in details(error)["BadRequest"].field_violations] == ["provider.default_model"]
        row.tell(
            "F75",
            "a provider without a model for requests that map none",
            "INVALID_ARGUMENT, INVALID_REQUEST; BadRequest",
            "no row",
            "none",
        )

        # Who stands in for those that stand in is nobody's business: each is asked once, with its own model where none is mapped.
        stage.leave_out_calls()
        mapped = {"provider": "a", "model": "m", "fallback": {"providers": [], "model_mapping": {"other": "mapped"}}}
        seen = await stage.ask(mapped)
        assert seen.row is not None
        assert [(attempt.provider, attempt.model) for attempt in seen.row.attempts] == [("a", "m"), ("b", "b-model"), ("g", "g-model")]
        row.add(seen, "a names b and g, b names c; no model is mapped (a and b are behind p's address)")

    with pytest.raises(ConfigurationError) as caught:
        async with row.stage("F75", providers=CIRCLE):
            raise AssertionError("it started")
    assert caught.value.lines == [
        "providers.p.fallback_providers[0]: makes a cycle: p → f → p",
        "providers.f.fallback_providers[0]: makes a cycle: f → p → f",
    ]
    row.tell("F75", "a circle in the configuration file", "the service does not start, and names it", "", "none")


async def create(stage: Stage, **fields: Any) -> None:
    await stage.providers.CreateProvider(pb.CreateProviderRequest(provider=pb.Provider(dialect=pb.DIALECT_OPENAI, **fields)))


async def update(stage: Stage, **fields: Any) -> None:
    mask = field_mask_pb2.FieldMask(paths=[name for name in fields if name != "provider"])
    await stage.providers.UpdateProvider(pb.UpdateProviderRequest(provider=pb.Provider(**fields), update_mask=mask))


async def refused(call: Any) -> grpc.aio.AioRpcError:
    """The status of a change that is not made."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is StatusCode.INVALID_ARGUMENT
    return caught.value
