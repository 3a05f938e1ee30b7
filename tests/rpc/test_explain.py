"""ExplainGeneration over real sockets."""

from headrace.v1 import generation_service_pb2 as pb
from headrace.v1 import provider_service_pb2, request_pb2
from headrace.v1 import request_service_pb2 as requests_pb
from headrace_server.fake_provider import Step
from support.service import request, service

EVERYONE = request_pb2.FallbackConfig()


async def explained(s, *, seconds: float | None = None, **fields) -> pb.ExplainGenerationResponse:
    return await s.generation.ExplainGeneration(pb.ExplainGenerationRequest(request=request(**fields)), timeout=seconds)


def chain(plan: pb.ExplainGenerationResponse) -> list[tuple[str, str, str]]:
    return [(p.provider, p.model, p.skip_reason) for p in plan.providers]


async def test_a_plan_is_told_without_calling_anyone_and_without_leaving_a_record(tmp_path):
    async with service(tmp_path) as s:
        plan = await explained(s, model="large", fallback=EVERYONE)

        assert chain(plan) == [("fake", "large", ""), ("claude-fake", "echo", "")]
        assert plan.HasField("expected_wait")
        assert plan.expected_wait.ToMilliseconds() == 0
        assert list(plan.field_violations) == []
        assert s.provider.requests == []
        assert list((await s.requests.ListRequests(requests_pb.ListRequestsRequest())).requests) == []


async def test_what_is_wrong_with_a_request_is_the_answer(tmp_path):
    async with service(tmp_path) as s:
        plan = await explained(s, messages=[], temperature=3, request_id="x")

        assert {v.field for v in plan.field_violations} == {"messages", "temperature", "request_id"}
        assert (list(plan.providers), plan.HasField("expected_wait")) == ([], False)
        assert list((await s.requests.ListRequests(requests_pb.ListRequestsRequest())).requests) == []
        plan = await explained(s, provider="nobody")
        assert [(v.field, v.description) for v in plan.field_violations] == [("provider", "there is no provider named 'nobody'")]


async def test_fields_that_a_provider_cannot_express_are_named(tmp_path):
    async with service(tmp_path) as s:
        why = "the provider 'claude-fake' cannot express the request: seed (seed cannot be expressed in this provider's API)"

        plan = await explained(s, provider="fake", seed=5, fallback=EVERYONE)
        assert chain(plan) == [("fake", "echo", ""), ("claude-fake", "echo", why)]
        assert list(plan.field_violations) == []

        plan = await explained(s, provider="claude-fake", seed=5, fallback=EVERYONE)
        assert chain(plan) == [("claude-fake", "echo", why)]  # nobody stands in for one that the caller chose
        assert [v.field for v in plan.field_violations] == ["seed"]
        assert not plan.HasField("expected_wait")


async def test_a_provider_that_would_be_passed_over_says_why_and_limits_say_what_is_left(tmp_path):
    async with service(tmp_path, [Step(text="well"), Step(status=500)]) as s:
        plain = {"dialect": provider_service_pb2.DIALECT_OPENAI, "api_url": s.provider.api_url("openai"), "default_model": "m"}
        for name, fields in {
            "off": {"enabled": False},
            "broken": {"config_json": '{"circuit_failures": 1}'},
            "limited": {"rate_limit_rpm": 1, "rate_limit_rpd": 9},
        }.items():
            provider = provider_service_pb2.Provider(provider=name, **(plain | fields))
            await s.providers.CreateProvider(provider_service_pb2.CreateProviderRequest(provider=provider))
        await s.generation.Generate(request(provider="limited"))
        await s.providers.CheckProvider(provider_service_pb2.CheckProviderRequest(provider="broken"))

        fallback = request_pb2.FallbackConfig(providers=["openai", "broken", "limited"])
        plan = await explained(s, provider="off", fallback=fallback)
        reasons = {name: reason for name, _, reason in chain(plan)}
        assert reasons["off"] == "the provider 'off' is disabled"
        assert reasons["openai"] == "the provider 'openai' has no API key"
        assert reasons["broken"].startswith("the circuit of the provider 'broken' is open: it failed too often; possible in ")
        assert reasons["limited"] == ""
        assert 0 < plan.expected_wait.ToMilliseconds() <= 120_000
        quotas = {provider_service_pb2.LimitType.Name(q.limit_type): (q.used, q.reserved, q.limit) for q in plan.providers[3].quotas}
        assert quotas == {"LIMIT_TYPE_REQUESTS_PER_MINUTE": (1, 0, 1), "LIMIT_TYPE_REQUESTS_PER_DAY": (1, 0, 9)}

        hurried = await explained(s, seconds=0.5, provider="off", fallback=fallback)
        assert hurried.providers[3].skip_reason.startswith("over Headrace's own limit of 1 requests per minute for limited/m")
        assert not hurried.HasField("expected_wait")
