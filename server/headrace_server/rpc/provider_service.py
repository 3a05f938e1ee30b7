"""ProviderService: the providers, for operators."""

import asyncio
import time
from collections.abc import Mapping

from headrace.v1 import provider_service_pb2 as pb
from headrace_server.catalog import Catalog
from headrace_server.domain.errors import Refusal, Subreason
from headrace_server.domain.events import Completed
from headrace_server.domain.identity import new_id
from headrace_server.domain.message import ChatMessage, MessageRole, TextPart
from headrace_server.domain.ports import WallClock
from headrace_server.domain.provider import Dialect
from headrace_server.domain.request import FallbackConfig, GenerateRequest, RequestMetadata, RetryConfig
from headrace_server.domain.violations import refuse
from headrace_server.engine import Caller, Engine
from headrace_server.rpc.codec_provider import decode_create_provider, decode_update_provider, encode_provider
from headrace_server.rpc.codec_result import encode_error
from headrace_server.rpc.codec_values import Wrong, duration_of
from headrace_server.rpc.generation_service import traceparent_of
from headrace_server.rpc.methods import Context
from headrace_server.rpc.page import decode_page, encode_page_token


class ProviderServicer:
    """See provider_service.proto."""

    def __init__(self, catalog: Catalog, engine: Engine, *, clock: WallClock, default_urls: Mapping[Dialect, str]) -> None:
        self._catalog = catalog
        self._default_urls = default_urls
        self._engine = engine
        self._clock = clock
        self._changes = asyncio.Lock()

    async def ListProviders(self, request: pb.ListProvidersRequest, context: Context) -> pb.ListProvidersResponse:  # noqa: D102
        wrong: Wrong = []
        page = decode_page(request, (int, str), wrong)
        refuse(wrong)
        rest = [p for p in self._catalog.all() if (p.priority, p.provider) > page.after]
        shown = rest[: page.size]
        position = (shown[-1].priority, shown[-1].provider) if shown else ()
        return pb.ListProvidersResponse(
            providers=[encode_provider(p) for p in shown],
            next_page_token=encode_page_token(request, position) if len(rest) > len(shown) else "",
        )

    async def GetProvider(self, request: pb.GetProviderRequest, context: Context) -> pb.GetProviderResponse:  # noqa: D102
        return pb.GetProviderResponse(provider=encode_provider(self._catalog.get(request.provider)))

    async def CreateProvider(self, request: pb.CreateProviderRequest, context: Context) -> pb.CreateProviderResponse:  # noqa: D102
        now = self._clock()
        edit = decode_create_provider(request, row_id=new_id(now), now=now, default_urls=self._default_urls)
        async with self._changes:
            provider = await self._catalog.create(edit.row, edit.new_key)
        return pb.CreateProviderResponse(provider=encode_provider(provider))

    async def UpdateProvider(self, request: pb.UpdateProviderRequest, context: Context) -> pb.UpdateProviderResponse:  # noqa: D102
        async with self._changes:
            stored = self._catalog.editable(request.provider.provider)
            edit = decode_update_provider(request, stored, now=self._clock(), default_urls=self._default_urls)
            provider = await self._catalog.update(edit.row, edit.new_key)
        return pb.UpdateProviderResponse(provider=encode_provider(provider))

    async def CheckProvider(self, request: pb.CheckProviderRequest, context: Context) -> pb.CheckProviderResponse:
        """The check is a request like any other: it is journalled, traced, and its cost is on record."""
        provider = self._catalog.get(request.provider)
        generation = self._engine.start(_check(provider.provider, request.model, new_id(self._clock())), _caller(context))
        began = time.monotonic()
        outcome = await generation.wait()
        latency = duration_of(round((time.monotonic() - began) * 1000))
        if isinstance(outcome, Completed):
            return pb.CheckProviderResponse(ok=True, latency=latency, model=outcome.result.model)
        if outcome.error.subreason == Subreason.SHUTTING_DOWN:
            raise Refusal(outcome.error.code, outcome.error.message, Subreason.SHUTTING_DOWN)
        return pb.CheckProviderResponse(ok=False, latency=latency, error=encode_error(outcome.error))


def _check(provider: str, model: str, request_id: str) -> GenerateRequest:
    return GenerateRequest(
        request_id=request_id,
        provider=provider,
        model=model or None,
        messages=(ChatMessage(role=MessageRole.USER, content=(TextPart(text="Say OK."),)),),
        max_tokens=16,
        metadata=RequestMetadata(tags=("headrace-check",)),
        retry=RetryConfig(max_attempts=1),
        fallback=FallbackConfig(enabled=False),
    )


def _caller(context: Context) -> Caller:
    return Caller(traceparent=traceparent_of(context), time_left=context.time_remaining())
