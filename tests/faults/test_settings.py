"""Row F85: settings that change while requests run, and wrong ones."""

from typing import Any

import grpc
import pytest
from google.protobuf import field_mask_pb2
from grpc import StatusCode
from pydantic import ValidationError

from headrace.v1 import provider_service_pb2 as pb
from headrace_server.fake_provider import Recorded
from support.faults import Row, Stage
from support.service import details

OF_OLD, NEW = "AIza-of-old-0123456789", "AIza-new-0123456789"


async def change(stage: Stage, **fields: Any) -> pb.Provider:
    """Set these fields of the provider of the store; as it is then."""
    request = pb.UpdateProviderRequest(
        provider=pb.Provider(provider="stored", **fields), update_mask=field_mask_pb2.FieldMask(paths=list(fields))
    )
    changed: pb.Provider = (await stage.providers.UpdateProvider(request)).provider
    return changed


def asked_with(call: Recorded) -> tuple[str, str]:
    """The key, and the model in the address."""
    return call.headers["x-goog-api-key"], call.request.path.partition("/models/")[2].partition(":")[0]


async def test_F85(row: Row) -> None:
    async with row.stage("F85") as stage:
        plain = {"dialect": pb.DIALECT_GEMINI, "api_url": stage.provider.api_urls()["p"]}
        settings = pb.Provider(provider="stored", default_model="of-old", api_key=OF_OLD, **plain)
        before = (await stage.providers.CreateProvider(pb.CreateProviderRequest(provider=settings))).provider

        call, request = stage.begin({"provider": "stored"})
        events = []
        async for event in stage.events(call):
            events.append(event)
            if event.HasField("transition") and event.transition.HasField("wait"):
                await change(stage, api_key=NEW, default_model="new", max_retries=1)
            elif event.HasField("chunk") and event.chunk.index == 0:
                after = await change(stage, enabled=False, timeout_ms=1)
                stage.clock.advance(10)
        seen = await stage.seen(request, events, None)
        seen.answers(by="stored", text="one two three four", path="validating requesting retrying requesting streaming completed")
        seen.waits((0.8, 1.2))
        assert [asked_with(call) for call in stage.provider.requests] == [(OF_OLD, "of-old")] * 2
        assert [attempt.provider_updated_at for attempt in seen.record.attempts] == [before.updated_at] * 2
        row.add(seen, "it ends with those that it began with")

        wrong = (
            ({"timeout_ms": -1}, "provider.timeout_ms"),
            ({"default_model": ""}, "provider.default_model"),
            ({"config_json": '{"zone": "Nowhere"}'}, "provider.config_json.zone"),
        )
        for fields, name in wrong:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await change(stage, enabled=True, **fields)
            assert caught.value.code() is StatusCode.INVALID_ARGUMENT
            assert [violation.field for violation in details(caught.value)["BadRequest"].field_violations] == [name]
        stands = (await stage.providers.GetProvider(pb.GetProviderRequest(provider="stored"))).provider
        for shown in (stands, after):
            shown.ClearField("health")
        assert stands == after
        row.tell("F85", "wrong settings", "INVALID_ARGUMENT, INVALID_REQUEST; BadRequest", "the settings stand", "none")

        last = await change(stage, enabled=True, timeout_ms=30_000)
        assert before.updated_at.ToMilliseconds() < after.updated_at.ToMilliseconds() < last.updated_at.ToMilliseconds()
        stage.leave_out_calls()
        seen = await stage.ask({"provider": "stored"})
        seen.answers(by="stored")
        assert [asked_with(call) for call in seen.asked["p"]] == [(NEW, "new")]
        assert [attempt.provider_updated_at for attempt in seen.record.attempts] == [last.updated_at]
        row.add(seen, "the next request has the new ones")

    with pytest.raises(ValidationError, match="default_total_timeout"):
        async with row.stage("F85", default_total_timeout=-1):
            raise AssertionError("it started")
    row.tell("F85", "wrong settings in the configuration file", "the service does not start, and names them", "", "none")
