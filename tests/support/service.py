"""The real service on a free port, in front of the scriptable provider."""

import contextlib
import uuid
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from headrace.v1 import (
    analytics_service_pb2_grpc,
    generation_service_pb2,
    generation_service_pb2_grpc,
    message_pb2,
    provider_service_pb2_grpc,
    request_pb2,
    request_service_pb2_grpc,
    result_pb2,
)
from headrace_server.app import App, running
from headrace_server.config import Settings
from headrace_server.fake_provider import FakeProvider, Step

Generate = generation_service_pb2.StreamGenerateRequest


@dataclass
class Service:
    """The service, its provider, and stubs to it."""

    app: App
    provider: FakeProvider
    channel: grpc.aio.Channel

    @property
    def generation(self) -> Any:
        return generation_service_pb2_grpc.GenerationServiceStub(self.channel)

    @property
    def requests(self) -> Any:
        return request_service_pb2_grpc.RequestServiceStub(self.channel)

    @property
    def providers(self) -> Any:
        return provider_service_pb2_grpc.ProviderServiceStub(self.channel)

    @property
    def analytics(self) -> Any:
        return analytics_service_pb2_grpc.AnalyticsServiceStub(self.channel)


def settings(tmp_path: Path, provider: FakeProvider, **more: Any) -> Settings:
    """Settings of a service whose only provider, `fake`, speaks openai at this address; `claude-fake` speaks claude there."""
    fake = {"dialect": "openai", "api_url": provider.api_url("openai"), "default_model": "echo", "api_key": "sk-canary-0123456789"}
    claude = {
        "dialect": "claude",
        "api_url": provider.api_url("claude"),
        "default_model": "echo",
        "api_key": "sk-ant-canary-01234",
        "priority": 200,
    }
    plain: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "database": f"sqlite:///{tmp_path}/headrace.db",
        "drain_timeout": 5,
        "providers": {"fake": fake, "claude-fake": claude},
    }
    return Settings(**(plain | more))


@contextlib.asynccontextmanager
async def service(tmp_path: Path, script: Iterable[Step] = (), **more: Any) -> AsyncIterator[Service]:
    """The service in this event loop."""
    async with (
        FakeProvider(script) as provider,
        running(settings(tmp_path, provider, **more)) as app,
        grpc.aio.insecure_channel(f"127.0.0.1:{app.port}") as channel,
    ):
        yield Service(app, provider, channel)


def request(text: str = "Say hello", **fields: Any) -> request_pb2.GenerateRequest:
    """A small valid request without retries and fallbacks, unless the fields say otherwise."""
    plain: dict[str, Any] = {
        "request_id": str(uuid.uuid4()),
        "provider": "fake",
        "messages": [said(text)],
        "retry": request_pb2.RetryConfig(max_attempts=1),
        "fallback": request_pb2.FallbackConfig(enabled=False),
    }
    return request_pb2.GenerateRequest(**(plain | fields))


def said(text: str, role: message_pb2.MessageRole = message_pb2.MESSAGE_ROLE_USER) -> message_pb2.ChatMessage:
    return message_pb2.ChatMessage(role=role, content=[message_pb2.ContentPart(text=text)])


def command(wanted: request_pb2.GenerateRequest) -> Generate:
    return Generate(generate=wanted)


async def events_of(call: Any) -> list[Any]:
    """All events of a stream, in order."""
    return [event async for response in call for event in response.events]


def kinds(events: Iterable[Any]) -> list[str]:
    return [event.WhichOneof("event") for event in events]


def text_of(events: Iterable[Any]) -> str:
    return "".join(event.chunk.text for event in events if event.WhichOneof("event") == "chunk")


def details(error: grpc.RpcError) -> dict[str, Any]:
    """The `google.rpc` details of an error, by the names of their types."""
    known = {
        message.DESCRIPTOR.full_name: message
        for message in (
            error_details_pb2.ErrorInfo,
            error_details_pb2.BadRequest,
            error_details_pb2.RetryInfo,
            error_details_pb2.QuotaFailure,
            error_details_pb2.ResourceInfo,
            result_pb2.ProviderError,
        )
    }
    status = rpc_status.from_call(error)
    found = {}
    for detail in status.details if status is not None else ():
        name = detail.TypeName()
        found[name.rpartition(".")[2]] = known[name].FromString(detail.value)
    return found
