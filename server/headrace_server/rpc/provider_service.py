"""ProviderService: the providers, for operators."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from headrace.v1 import provider_service_pb2 as pb
from headrace_server.catalog import Catalog
from headrace_server.domain import refusals
from headrace_server.domain.errors import Refusal, Subreason
from headrace_server.domain.events import Completed
from headrace_server.domain.identity import new_id
from headrace_server.domain.limits import Window, used
from headrace_server.domain.message import ChatMessage, MessageRole, TextPart
from headrace_server.domain.ports import Store, WallClock
from headrace_server.domain.provider import Dialect, Provider
from headrace_server.domain.request import FallbackConfig, GenerateRequest, RequestMetadata, RetryConfig
from headrace_server.domain.violations import refuse
from headrace_server.engine import Caller, Engine
from headrace_server.quotas import in_force
from headrace_server.rpc.codec_provider import decode_create_provider, decode_update_provider, encode_provider, encode_quota
from headrace_server.rpc.codec_result import encode_error
from headrace_server.rpc.codec_values import Wrong, duration_of
from headrace_server.rpc.generation_service import traceparent_of
from headrace_server.rpc.methods import Context
from headrace_server.rpc.page import decode_page, encode_page_token

T = TypeVar("T")


WATCH_INTERVAL = 1.0
"""Seconds between two looks at quotas that are watched."""


class ProviderServicer:
    """See provider_service.proto."""

    def __init__(self, catalog: Catalog, engine: Engine, store: Store, *, clock: WallClock, default_urls: Mapping[Dialect, str]) -> None:
        self._catalog = catalog
        self._default_urls = default_urls
        self._engine = engine
        self._store = store
        self._clock = clock
        self._change = asyncio.Lock()
        self._changes: set[asyncio.Task[Any]] = set()

    # ------------------------------------------------------------ providers

    async def ListProviders(self, request: pb.ListProvidersRequest, context: Context) -> pb.ListProvidersResponse:  # noqa: D102
        wrong: Wrong = []
        page = decode_page(request, (int, str), wrong)
        refuse(wrong)
        rest = [p for p in self._catalog.all() if (p.priority, p.provider) > page.after]
        shown = rest[: page.size]
        position = (shown[-1].priority, shown[-1].provider) if shown else ()
        return pb.ListProvidersResponse(
            providers=map(self._encode, shown),
            next_page_token=encode_page_token(request, position) if len(rest) > len(shown) else "",
        )

    async def GetProvider(self, request: pb.GetProviderRequest, context: Context) -> pb.GetProviderResponse:  # noqa: D102
        return pb.GetProviderResponse(provider=self._encode(self._catalog.get(request.provider)))

    async def CreateProvider(self, request: pb.CreateProviderRequest, context: Context) -> pb.CreateProviderResponse:  # noqa: D102
        now = self._clock()
        edit = decode_create_provider(request, row_id=new_id(now), now=now, default_urls=self._default_urls)
        provider = await self._alone(lambda: self._catalog.create(edit.row, edit.new_key))
        return pb.CreateProviderResponse(provider=self._encode(provider))

    async def UpdateProvider(self, request: pb.UpdateProviderRequest, context: Context) -> pb.UpdateProviderResponse:  # noqa: D102
        async def update() -> Provider:
            stored = self._catalog.editable(request.provider.provider)
            # Attempts tell by that time which settings they were made with: no two settings may have the same.
            now = max(self._clock(), stored.updated_at + 1)
            edit = decode_update_provider(request, stored, now=now, default_urls=self._default_urls)
            sets_fallbacks = "fallback_providers" in request.update_mask.paths
            return await self._catalog.update(edit.row, edit.new_key, sets_fallbacks=sets_fallbacks)

        return pb.UpdateProviderResponse(provider=self._encode(await self._alone(update)))

    async def DeleteProvider(self, request: pb.DeleteProviderRequest, context: Context) -> pb.DeleteProviderResponse:  # noqa: D102
        await self._alone(lambda: self._catalog.delete(request.provider, running_on=self._engine.count_running_on))
        return pb.DeleteProviderResponse()

    async def _alone(self, change: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Make a change while no other is made, and to its end also when the caller leaves: the catalog must know what the store knows."""

        async def run() -> T:
            async with self._change:
                return await change()

        task = asyncio.create_task(run(), name="change of a provider")
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    def _encode(self, provider: Provider) -> pb.Provider:
        return encode_provider(provider, self._engine.health.view(provider))

    # ------------------------------------------------------------ health

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

    async def ResetCircuit(self, request: pb.ResetCircuitRequest, context: Context) -> pb.ResetCircuitResponse:  # noqa: D102
        provider = self._catalog.get(request.provider)
        self._engine.health.reset(provider.provider)
        return pb.ResetCircuitResponse(provider=self._encode(provider))

    # ------------------------------------------------------------ quotas

    async def ListQuotas(self, request: pb.ListQuotasRequest, context: Context) -> pb.ListQuotasResponse:  # noqa: D102
        wrong: Wrong = []
        page = decode_page(request, (str, str, str), wrong)
        refuse(wrong)
        now = self._clock()
        rest = [window for window in await self._quotas(request.provider, request.model, now) if _position(window) > page.after]
        shown = rest[: page.size]
        return pb.ListQuotasResponse(
            quotas=[encode_quota(window, now) for window in shown],
            next_page_token=encode_page_token(request, _position(shown[-1])) if len(rest) > len(shown) else "",
        )

    async def WatchQuotas(self, request: pb.WatchQuotasRequest, context: Context) -> None:
        """Looks at the store: what other processes use is seen too."""
        shown: list[Any] | None = None
        while not self._engine.draining.is_set():
            now = self._clock()
            windows = await self._quotas(request.provider, request.model, now)
            # The window of a limit that nobody uses moves on with time; that alone is no news.
            standing = [(*_position(w), w.limit_value, used(w, now), w.reserved) for w in windows]
            if standing != shown:
                shown = standing
                await context.write(pb.WatchQuotasResponse(quotas=[encode_quota(w, now) for w in windows]).SerializeToString())
            with suppress(TimeoutError):
                await asyncio.wait_for(self._engine.draining.wait(), WATCH_INTERVAL)
        raise refusals.shutting_down()

    async def _quotas(self, provider: str, model: str, now: int) -> list[Window]:
        windows = await self._store.list_windows(provider or None, model or None)
        return sorted(in_force(windows, self._catalog.all(), now), key=_position)


def _position(window: Window) -> tuple[str, str, str]:
    """Where a quota stands in lists."""
    return window.provider, window.model, window.limit_type.value


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
