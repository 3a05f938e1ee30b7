"""ProviderService over real sockets."""

import asyncio

import grpc
import pytest
from google.protobuf import field_mask_pb2

from headrace.v1 import error_pb2, request_pb2, request_service_pb2
from headrace.v1 import provider_service_pb2 as pb
from headrace_server.config import ConfigurationError
from headrace_server.fake_provider import Step
from support.service import command, details, events_of, kinds, request, service


def local(s, **fields) -> pb.Provider:
    plain = {"provider": "local", "dialect": pb.DIALECT_OPENAI, "api_url": s.provider.api_url("openai"), "default_model": "small"}
    return pb.Provider(**(plain | fields))


async def change(s, name: str, **fields) -> pb.Provider:
    """Set these fields of a provider."""
    update = pb.UpdateProviderRequest(
        provider=pb.Provider(provider=name, **fields), update_mask=field_mask_pb2.FieldMask(paths=list(fields))
    )
    return (await s.providers.UpdateProvider(update)).provider


async def test_the_built_in_providers_and_those_of_the_file_are_listed_by_priority(tmp_path):
    async with service(tmp_path) as s:
        listed = (await s.providers.ListProviders(pb.ListProvidersRequest())).providers

        assert [p.provider for p in listed] == ["claude", "gemini", "openai", "fake", "claude-fake"]
        sources = {p.provider: p.source for p in listed}
        assert sources["fake"] == pb.PROVIDER_SOURCE_FILE
        assert sources["claude"] == pb.PROVIDER_SOURCE_STORE


async def test_pages_of_providers_lack_and_repeat_nothing(tmp_path):
    async with service(tmp_path) as s:
        seen, token = [], ""
        while True:
            page = await s.providers.ListProviders(pb.ListProvidersRequest(page_size=2, page_token=token))
            seen += [p.provider for p in page.providers]
            if not (token := page.next_page_token):
                break

        assert seen == ["claude", "gemini", "openai", "fake", "claude-fake"]


async def test_a_key_goes_in_and_never_comes_out(tmp_path):
    async with service(tmp_path) as s:
        created = (await s.providers.CreateProvider(pb.CreateProviderRequest(provider=local(s, api_key="sk-canary-abcdefgh1234")))).provider

        assert created.api_key == ""
        assert (created.has_api_key, created.api_key_last_four) == (True, "1234")
        await s.generation.Generate(request(provider="local"))
        assert s.provider.requests[0].headers["authorization"] == "Bearer sk-canary-abcdefgh1234"
    for file in tmp_path.iterdir():
        assert b"sk-canary" not in file.read_bytes()


async def test_a_change_is_effective_for_the_next_request_and_survives_a_restart(tmp_path):
    async with service(tmp_path) as s:
        await s.providers.CreateProvider(pb.CreateProviderRequest(provider=local(s, api_key="sk-first-key-0000")))
        change = pb.Provider(provider="local", default_model="bigger", api_key="sk-other-key-1111", priority=0)
        mask = field_mask_pb2.FieldMask(paths=["default_model", "api_key", "priority"])
        await s.providers.UpdateProvider(pb.UpdateProviderRequest(provider=change, update_mask=mask))

        await s.generation.Generate(request(provider=""))
        assert s.provider.requests[0].json["model"] == "bigger"
        assert s.provider.requests[0].headers["authorization"] == "Bearer sk-other-key-1111"
    async with service(tmp_path) as s:
        kept = (await s.providers.GetProvider(pb.GetProviderRequest(provider="local"))).provider
        assert (kept.default_model, kept.api_key_last_four, kept.priority) == ("bigger", "1111", 0)


async def test_a_named_field_that_is_not_set_goes_back_to_its_default(tmp_path):
    async with service(tmp_path) as s:
        await s.providers.CreateProvider(pb.CreateProviderRequest(provider=local(s, rate_limit_rpm=5, api_key="sk-canary-abcdefgh")))
        mask = field_mask_pb2.FieldMask(paths=["rate_limit_rpm", "api_key"])
        changed = await s.providers.UpdateProvider(pb.UpdateProviderRequest(provider=pb.Provider(provider="local"), update_mask=mask))

        assert not changed.provider.HasField("rate_limit_rpm")
        assert not changed.provider.has_api_key


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"provider": "Bad Name"}, "provider.provider"),
        ({"dialect": 0}, "provider.dialect"),
        ({"default_model": ""}, "provider.default_model"),
        ({"rate_limit_rpm": 0}, "provider.rate_limit_rpm"),
        ({"fallback_providers": ["nobody"]}, "provider.fallback_providers[0]"),
        ({"fallback_providers": ["local"]}, "provider.fallback_providers[0]"),
        ({"config_json": '{"zone": "Nowhere"}'}, "provider.config_json.zone"),
    ],
)
async def test_settings_that_cannot_work_are_refused_by_name(tmp_path, fields, wrong):
    async with service(tmp_path) as s:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.providers.CreateProvider(pb.CreateProviderRequest(provider=local(s, **fields)))

        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert wrong in [v.field for v in details(caught.value)["BadRequest"].field_violations]


async def test_fallbacks_that_would_make_a_cycle_are_refused_and_nothing_changes(tmp_path):
    async with service(tmp_path) as s:
        await change(s, "gemini", fallback_providers=["openai"])
        await change(s, "claude", fallback_providers=["gemini"])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await change(s, "openai", fallback_providers=["fake", "claude", "fake"])

        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert [(v.field, v.description) for v in details(caught.value)["BadRequest"].field_violations] == [
            ("provider.fallback_providers[1]", "makes a cycle: openai → claude → gemini → openai"),
            ("provider.fallback_providers[2]", "names 'fake' a second time"),
        ]
        kept = (await s.providers.GetProvider(pb.GetProviderRequest(provider="openai"))).provider
        assert list(kept.fallback_providers) == []


async def test_a_provider_can_be_disabled_while_others_name_it_but_not_be_named_then(tmp_path):
    async with service(tmp_path) as s:
        await s.providers.CreateProvider(pb.CreateProviderRequest(provider=local(s)))
        await change(s, "claude", fallback_providers=["local"])
        await change(s, "local", enabled=False)
        await change(s, "claude", priority=9)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await change(s, "claude", fallback_providers=["local"])

        (violation,) = details(caught.value)["BadRequest"].field_violations
        assert (violation.field, violation.description) == ("provider.fallback_providers[0]", "the provider 'local' is disabled")


@pytest.mark.parametrize(
    ("fallbacks", "why"),
    [
        (["nobody"], "providers.mine.fallback_providers[0]: there is no provider named 'nobody'"),
        (["gemini", "claude"], "providers.mine.fallback_providers[1]: makes a cycle: mine → claude → mine"),
    ],
)
async def test_the_service_does_not_start_with_fallbacks_that_could_not_stand_in(tmp_path, fallbacks, why):
    mine = {"dialect": "openai", "default_model": "m", "api_url": "http://127.0.0.1:1/v1"}
    async with service(tmp_path, providers={"mine": mine}) as s:
        await change(s, "claude", fallback_providers=["mine"])
    with pytest.raises(ConfigurationError) as caught:
        async with service(tmp_path, providers={"mine": mine | {"fallback_providers": fallbacks}}):
            raise AssertionError("it started")
    assert caught.value.lines == [why]


async def test_a_name_that_is_taken_already_exists(tmp_path):
    async with service(tmp_path) as s:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.providers.CreateProvider(pb.CreateProviderRequest(provider=local(s, provider="claude")))

        assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS


async def test_a_provider_of_the_file_is_changed_in_the_file(tmp_path):
    async with service(tmp_path) as s:
        update = pb.UpdateProviderRequest(
            provider=pb.Provider(provider="fake", priority=1), update_mask=field_mask_pb2.FieldMask(paths=["priority"])
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.providers.UpdateProvider(update)

        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "configuration file" in caught.value.details()


async def test_a_check_calls_the_provider_and_is_on_record(tmp_path):
    async with service(tmp_path, [Step(text="OK"), Step(status=500)]) as s:
        well = await s.providers.CheckProvider(pb.CheckProviderRequest(provider="fake"))
        ill = await s.providers.CheckProvider(pb.CheckProviderRequest(provider="fake"))

        assert well.ok
        assert well.model == "echo"
        assert not ill.ok
        assert ill.error.http_status == 500
        listed = await s.requests.ListRequests(request_service_pb2.ListRequestsRequest(tag="headrace-check"))
        assert len(listed.requests) == 2


async def test_an_unknown_provider_is_not_found(tmp_path):
    async with service(tmp_path) as s:
        for call in (
            s.providers.GetProvider(pb.GetProviderRequest(provider="nobody")),
            s.providers.CheckProvider(pb.CheckProviderRequest(provider="nobody")),
            s.providers.DeleteProvider(pb.DeleteProviderRequest(provider="nobody")),
            s.providers.ResetCircuit(pb.ResetCircuitRequest(provider="nobody")),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_request_in_flight_keeps_the_settings_that_it_began_with(tmp_path):
    async with service(tmp_path, [Step(status=500), Step(text="a b c d e f", pace_ms=10), Step(text="new")]) as s:
        await s.providers.CreateProvider(pb.CreateProviderRequest(provider=local(s, api_key="sk-first-key-0000")))
        retry = request_pb2.RetryConfig(max_attempts=2)
        retry.initial_delay.FromMilliseconds(50)
        stream = asyncio.ensure_future(events_of(s.generation.StreamGenerate(iter([command(request(provider="local", retry=retry))]))))
        while not s.provider.requests:
            await asyncio.sleep(0.001)
        await change(s, "local", default_model="bigger", api_key="sk-other-key-1111", api_url="http://127.0.0.1:1/v1", max_retries=1)

        assert kinds(await stream)[-1] == "completed"
        sent = [(r.json["model"], r.headers["authorization"]) for r in s.provider.requests]
        assert sent == [("small", "Bearer sk-first-key-0000")] * 2
        await change(s, "local", api_url=s.provider.api_url("openai"))
        await s.generation.Generate(request(provider="local"))
        assert s.provider.requests[2].json["model"] == "bigger"
        assert s.provider.requests[2].headers["authorization"] == "Bearer sk-other-key-1111"


async def test_a_change_is_made_to_its_end_when_its_caller_leaves(tmp_path):
    async with service(tmp_path) as s:
        stored, may_end = asyncio.Event(), asyncio.Event()
        update = s.app.store.update_provider

        async def slow(row):
            done = await update(row)
            stored.set()
            await may_end.wait()
            return done

        s.app.store.update_provider = slow
        caller = asyncio.ensure_future(change(s, "claude", priority=77))
        await stored.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        may_end.set()
        s.app.store.update_provider = update

        await change(s, "gemini", priority=78)
        assert (await s.providers.GetProvider(pb.GetProviderRequest(provider="claude"))).provider.priority == 77


# ---------------------------------------------------------------- deleting


async def refused(call) -> tuple[grpc.StatusCode, str, str]:
    """Status, subreason and message of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), details(caught.value)["ErrorInfo"].metadata["subreason"], caught.value.details()


async def test_a_provider_is_gone_when_it_was_deleted_also_after_a_restart(tmp_path):
    async with service(tmp_path) as s:
        await s.providers.CreateProvider(pb.CreateProviderRequest(provider=local(s, rate_limit_rpm=5)))
        await s.providers.DeleteProvider(pb.DeleteProviderRequest(provider="local"))
        await s.providers.DeleteProvider(pb.DeleteProviderRequest(provider="gemini"))

        assert (await refused(s.generation.Generate(request(provider="local"))))[0] is grpc.StatusCode.NOT_FOUND
    async with service(tmp_path) as s:
        listed = (await s.providers.ListProviders(pb.ListProvidersRequest())).providers
        assert [p.provider for p in listed] == ["claude", "openai", "fake", "claude-fake"]
        again = (await s.providers.CreateProvider(pb.CreateProviderRequest(provider=local(s)))).provider
        assert not again.HasField("rate_limit_rpm")


async def test_deletion_is_refused_while_something_refers_to_the_provider(tmp_path):
    async with service(tmp_path, [Step(status=500), Step(text="well")]) as s:
        await s.providers.CreateProvider(pb.CreateProviderRequest(provider=local(s)))
        await change(s, "claude", fallback_providers=["openai", "gemini"])
        fallback = request_pb2.FallbackConfig(providers=["fake"])
        await s.generation.Generate(request(provider="local", fallback=fallback))  # its row ends with the other provider's name

        for name, subreason, words in [
            ("local", "PROVIDER_IN_USE", "1 rows of the record refer to it; disable it instead"),
            ("gemini", "PROVIDER_IN_USE", "it is a fallback of claude; disable it instead"),
            ("fake", "PROVIDER_IN_FILE", "configuration file"),
        ]:
            status = await refused(s.providers.DeleteProvider(pb.DeleteProviderRequest(provider=name)))
            assert status[:2] == (grpc.StatusCode.FAILED_PRECONDITION, subreason)
            assert words in status[2]
        await change(s, "claude", fallback_providers=[])
        await s.providers.DeleteProvider(pb.DeleteProviderRequest(provider="gemini"))


async def test_deletion_is_refused_while_a_running_request_may_still_call_the_provider(tmp_path):
    async with service(tmp_path) as s:
        await s.providers.CreateProvider(pb.CreateProviderRequest(provider=local(s)))
        fallback = request_pb2.FallbackConfig(providers=["local"])
        asked = request(model="n100-d20", fallback=fallback)
        call = s.generation.StreamGenerate(iter([command(asked)]))
        while "chunk" not in kinds((await call.read()).events):
            pass

        status = await refused(s.providers.DeleteProvider(pb.DeleteProviderRequest(provider="local")))
        assert status[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "PROVIDER_IN_USE")
        assert "1 running requests may call it" in status[2]
        assert (await s.providers.GetProvider(pb.GetProviderRequest(provider="local"))).provider.enabled
        await s.requests.CancelRequest(request_service_pb2.CancelRequestRequest(request_id=asked.request_id))
        await s.providers.DeleteProvider(pb.DeleteProviderRequest(provider="local"))
        call.cancel()


@pytest.mark.parametrize("head_start", [-0.002, -0.001, 0.0, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.006])
async def test_no_record_refers_to_a_deleted_provider_when_requests_and_deletion_race(tmp_path, head_start):
    async with service(tmp_path) as s:
        await s.providers.CreateProvider(pb.CreateProviderRequest(provider=local(s)))

        async def after(seconds: float, call, asked):
            await asyncio.sleep(seconds)
            return await call(asked)

        calls = [asyncio.ensure_future(after(head_start, s.generation.Generate, request(provider="local"))) for _ in range(2)]
        deletion = asyncio.ensure_future(after(-head_start, s.providers.DeleteProvider, pb.DeleteProviderRequest(provider="local")))
        await asyncio.wait([*calls, deletion])

        rows, is_there = await s.app.store.count_requests_of("local"), "local" in [p.provider for p in s.app.catalog.all()]
        if deletion.exception() is None:
            assert (rows, is_there) == (0, False)
            assert {call.exception().code() for call in calls} == {grpc.StatusCode.NOT_FOUND}
        else:
            assert deletion.exception().code() is grpc.StatusCode.FAILED_PRECONDITION
            assert is_there
        assert rows == 2 * sum(call.exception() is None for call in calls)  # each left a row of logs and one of metrics


# ---------------------------------------------------------------- health


async def test_the_health_of_a_provider_is_shown_and_its_circuit_can_be_closed_by_hand(tmp_path):
    async with service(tmp_path, [Step(text="well"), Step(status=500)]) as s:
        fragile = local(s, config_json='{"circuit_failures": 1}')
        created = (await s.providers.CreateProvider(pb.CreateProviderRequest(provider=fragile))).provider
        assert (created.health.circuit_state, created.health.calls) == (pb.CIRCUIT_STATE_CLOSED, 0)
        assert not created.health.HasField("error_rate")
        await s.generation.Generate(request(provider="local"))
        with pytest.raises(grpc.aio.AioRpcError):
            await s.generation.Generate(request(provider="local"))

        shown = (await s.providers.GetProvider(pb.GetProviderRequest(provider="local"))).provider.health
        assert (shown.circuit_state, shown.calls, shown.error_rate) == (pb.CIRCUIT_STATE_OPEN, 2, 0.5)
        assert 0 < shown.latency.ToMilliseconds() < 5_000
        until = shown.circuit_retry_time.ToMilliseconds() - s.app.store._clock()
        assert 50_000 < until <= 60_000
        listed = (await s.providers.ListProviders(pb.ListProvidersRequest())).providers
        assert {p.provider: p.health.circuit_state for p in listed}["local"] == pb.CIRCUIT_STATE_OPEN
        assert (await refused(s.generation.Generate(request(provider="local"))))[1] == "CIRCUIT_OPEN"
        check = await s.providers.CheckProvider(pb.CheckProviderRequest(provider="local"))
        assert (check.ok, check.error.code) == (False, error_pb2.ERROR_CODE_SERVER_ERROR)

        reset = (await s.providers.ResetCircuit(pb.ResetCircuitRequest(provider="local"))).provider
        assert reset.health.circuit_state == pb.CIRCUIT_STATE_CLOSED
        await s.generation.Generate(request(provider="local"))


# ---------------------------------------------------------------- quotas


def shown_quotas(response) -> list[tuple]:
    return [(q.provider, q.model, pb.LimitType.Name(q.limit_type)[11:], q.used, q.reserved, q.limit) for q in response.quotas]


async def with_two_limited(s) -> None:
    """Providers `local` and `other`, each asked once, `local` for a second model too."""
    await s.providers.CreateProvider(pb.CreateProviderRequest(provider=local(s, rate_limit_rpm=5, rate_limit_tpm=90_000)))
    await s.providers.CreateProvider(pb.CreateProviderRequest(provider=local(s, provider="other", rate_limit_rpd=7)))
    for name, model in [("other", "m"), ("local", "n"), ("local", "m")]:
        await s.generation.Generate(request(provider=name, model=model))


async def test_quotas_are_listed_by_provider_model_and_type_and_pages_lack_and_repeat_nothing(tmp_path):
    async with service(tmp_path) as s:
        assert (await s.providers.ListQuotas(pb.ListQuotasRequest())).quotas == []
        await with_two_limited(s)

        listed = shown_quotas(await s.providers.ListQuotas(pb.ListQuotasRequest()))
        assert [row[:3] for row in listed] == [
            ("local", "m", "REQUESTS_PER_MINUTE"),
            ("local", "m", "TOKENS_PER_MINUTE"),
            ("local", "n", "REQUESTS_PER_MINUTE"),
            ("local", "n", "TOKENS_PER_MINUTE"),
            ("other", "m", "REQUESTS_PER_DAY"),
        ]
        assert [row[3:] for row in listed if row[2] != "TOKENS_PER_MINUTE"] == [(1, 0, 5), (1, 0, 5), (1, 0, 7)]
        assert all(0 < row[3] < 100 and row[4:] == (0, 90_000) for row in listed if row[2] == "TOKENS_PER_MINUTE")

        paged, token = [], ""
        while True:
            page = await s.providers.ListQuotas(pb.ListQuotasRequest(page_size=2, page_token=token))
            paged += shown_quotas(page)
            if not (token := page.next_page_token):
                break
        assert [row[:3] for row in paged] == [row[:3] for row in listed]


async def test_quotas_are_filtered(tmp_path):
    async with service(tmp_path) as s:
        await with_two_limited(s)

        async def found(**filters) -> set[tuple[str, str]]:
            return {(q.provider, q.model) for q in (await s.providers.ListQuotas(pb.ListQuotasRequest(**filters))).quotas}

        assert await found(provider="local") == {("local", "m"), ("local", "n")}
        assert await found(model="m") == {("local", "m"), ("other", "m")}
        assert await found(provider="local", model="n") == {("local", "n")}
        assert await found(provider="nobody") == set()


async def test_quotas_show_the_limits_that_are_set_now(tmp_path):
    async with service(tmp_path) as s:
        await with_two_limited(s)
        mask = field_mask_pb2.FieldMask(paths=["rate_limit_rpm", "rate_limit_tpm"])
        await s.providers.UpdateProvider(
            pb.UpdateProviderRequest(provider=pb.Provider(provider="local", rate_limit_rpm=50), update_mask=mask)
        )

        listed = shown_quotas(await s.providers.ListQuotas(pb.ListQuotasRequest(provider="local")))
        assert listed == [("local", model, "REQUESTS_PER_MINUTE", 1, 0, 50) for model in ("m", "n")]


@pytest.mark.parametrize("wrong", [{"page_size": -1}, {"page_size": 1_001}, {"page_token": "nonsense"}])
async def test_a_wrong_page_of_quotas_is_refused_by_name(tmp_path, wrong):
    async with service(tmp_path) as s:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.providers.ListQuotas(pb.ListQuotasRequest(**wrong))

        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert [v.field for v in details(caught.value)["BadRequest"].field_violations] == list(wrong)


async def test_watched_quotas_are_told_at_once_and_again_when_one_has_changed_until_the_service_stops(tmp_path, monkeypatch):
    monkeypatch.setattr("headrace_server.rpc.provider_service.WATCH_INTERVAL", 0.005)
    async with service(tmp_path) as s:
        await s.providers.CreateProvider(pb.CreateProviderRequest(provider=local(s, rate_limit_rpd=5)))
        watch = s.providers.WatchQuotas(pb.WatchQuotasRequest(provider="local"))
        assert shown_quotas(await watch.read()) == []

        async def until(used: int, reserved: int, limit: int) -> None:
            while shown_quotas(told := await watch.read()) != [("local", "n2-d500", "REQUESTS_PER_DAY", used, reserved, limit)]:
                assert len(told.quotas) == 1

        call = asyncio.ensure_future(events_of(s.generation.StreamGenerate(iter([command(request(provider="local", model="n2-d500"))]))))
        await until(used=0, reserved=1, limit=5)
        await until(used=1, reserved=0, limit=5)
        await call
        await change(s, "local", rate_limit_rpd=9)
        await until(used=1, reserved=0, limit=9)

        nothing_new = asyncio.ensure_future(watch.read())
        assert (await asyncio.wait([nothing_new], timeout=0.05))[0] == set()
        drained = asyncio.ensure_future(s.app.drain(1))
        assert (await refused(nothing_new))[:2] == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        await drained


async def test_a_watch_of_quotas_ends_with_its_caller(tmp_path, monkeypatch):
    monkeypatch.setattr("headrace_server.rpc.provider_service.WATCH_INTERVAL", 0.001)
    async with service(tmp_path) as s:
        looks = 0
        list_windows = s.app.store.list_windows

        async def counted(*filters):
            nonlocal looks
            looks += 1
            return await list_windows(*filters)

        s.app.store.list_windows = counted
        watch = s.providers.WatchQuotas(pb.WatchQuotasRequest())
        await watch.read()
        while looks < 3:
            await asyncio.sleep(0.001)
        watch.cancel()

        before = -1
        while looks != before:
            before = looks
            await asyncio.sleep(0.1)
