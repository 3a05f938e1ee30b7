"""ProviderService over real sockets."""

import grpc
import pytest
from google.protobuf import field_mask_pb2

from headrace.v1 import provider_service_pb2 as pb
from headrace.v1 import request_service_pb2
from headrace_server.fake_provider import Step
from support.service import details, request, service


def local(s, **fields) -> pb.Provider:
    plain = {"provider": "local", "dialect": pb.DIALECT_OPENAI, "api_url": s.provider.api_url("openai"), "default_model": "small"}
    return pb.Provider(**(plain | fields))


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
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
