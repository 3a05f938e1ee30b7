"""The composition root: opens everything in order, and closes it in the reverse one."""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from headrace_server.catalog import Catalog
from headrace_server.config import Settings, environment_keys
from headrace_server.domain.errors import HeadraceError
from headrace_server.domain.events import StreamChunk
from headrace_server.domain.ports import Store
from headrace_server.domain.provider import Dialect
from headrace_server.domain.record import LogRow
from headrace_server.domain.result import GenerationResult
from headrace_server.engine import Engine, EngineSettings
from headrace_server.health import Health, loop_ticks
from headrace_server.keeper import without_gaps
from headrace_server.prices import Prices
from headrace_server.providers.http import make_transport
from headrace_server.providers.registry import DIALECTS, dialect_for
from headrace_server.providers.upstream import HttpUpstream
from headrace_server.replay import salvage
from headrace_server.rpc.analytics_service import AnalyticsServicer
from headrace_server.rpc.codec_event import StoredEvents
from headrace_server.rpc.generation_service import GenerationServicer, StreamSettings
from headrace_server.rpc.listener import Listener, ListenerSettings
from headrace_server.rpc.provider_service import ProviderServicer
from headrace_server.rpc.request_service import RequestServicer
from headrace_server.security.keyring import KeyRing
from headrace_server.store.check import check
from headrace_server.store.retention import Retention, prune
from headrace_server.store.sqlite import Durability
from headrace_server.store.url import MEMORY, open_url, sqlite_path
from headrace_server.telemetry.request import Telemetry
from headrace_server.telemetry.setup import open_telemetry

log = logging.getLogger(__name__)

DEFAULT_URLS: dict[Dialect, str] = {name: dialect.default_api_url for (name, _), dialect in DIALECTS.items()}

HEALTH_INTERVAL = 1.0
"""Seconds between two looks at the store."""
SWEEP_INTERVAL = 15.0
"""Seconds between two looks for the requests of dead processes."""
PRUNE_INTERVAL = 60.0
"""Seconds between two looks for what has been kept long enough."""
LAST_WORDS = 1.0
"""Seconds that finished RPCs get to send their status at shutdown."""


def wall_clock() -> int:
    """The system's time, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def node_id() -> str:
    """A fresh name for this process."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


class App:
    """The running service, with what its tests look at."""

    def __init__(self, *, store: Store, engine: Engine, catalog: Catalog, listener: Listener, port: int) -> None:
        self.store = store
        self.engine = engine
        self.catalog = catalog
        self.listener = listener
        self.port = port

    async def drain(self, seconds: float) -> None:
        """Say so, take no new work, and let what runs end."""
        await self.listener.set_serving(False)
        await self.engine.drain(seconds)


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[App]:
    """The service from its first to its last moment. Leaving drains it.

    Raises OSError where the address is not to be had, StoreUnavailable, MigrationError, KeyRingError, ConfigurationError.
    """
    node = node_id()
    async with contextlib.AsyncExitStack() as stack:
        telemetry = open_telemetry(otlp_endpoint=settings.otlp_endpoint, prometheus_listen=settings.prometheus_listen, node=node)
        stack.push_async_callback(telemetry.close)
        keyring = _keyring(settings.database)
        store = open_url(settings.database, node=node, clock=wall_clock, durability=Durability(settings.durability))
        await store.open()
        stack.push_async_callback(store.close)
        await _recover(store, telemetry, node)
        health = Health(loop_ticks, wall_clock, retry_budget=settings.retry_budget)
        catalog = Catalog(
            store,
            keyring,
            from_file=settings.file_providers(DEFAULT_URLS, now=wall_clock()),
            environment_keys=environment_keys(),
            health_rank=health.rank,
        )
        await catalog.load()
        settings.check_fallbacks({provider.provider: provider.fallback_providers for provider in catalog.all()})
        transport = make_transport(settings.transport)
        stack.push_async_callback(transport.aclose)
        prices = Prices()
        loading = asyncio.get_running_loop().run_in_executor(None, prices.load)
        stack.push_async_callback(lambda: asyncio.wait([loading]))
        engine = Engine(
            journal=store,
            upstream=HttpUpstream(
                transport,
                dialect_for,
                wall_clock,
                max_response=settings.max_response_bytes,
                max_event=settings.max_event_bytes,
                max_pieces=settings.max_response_pieces,
                unknowns=telemetry,
            ),
            routes=catalog,
            codec=StoredEvents(),
            telemetry=telemetry,
            node=node,
            clock=wall_clock,
            settings=EngineSettings(
                total_timeout=round(settings.default_total_timeout * 1000),
                progress_timeout=round(settings.progress_timeout * 1000),
                max_concurrent=settings.max_concurrent_generations,
                replay_window=round(settings.replay_window * 1000),
                replay_memory=settings.replay_memory_bytes,
                memory_per_generation=settings.memory_per_generation_bytes,
                tell_before_commit=settings.durability == "relaxed",
            ),
            price=prices.cost,
            health=health,
        )
        listener = _listener(settings, engine, store, catalog)
        port = await listener.start()
        stack.push_async_callback(listener.stop, LAST_WORDS)
        app = App(store=store, engine=engine, catalog=catalog, listener=listener, port=port)
        stack.push_async_callback(app.drain, settings.drain_timeout)
        for work in (_watch_store(app), _sweep(store, telemetry, node), _prune(store, retention(settings))):
            stack.callback(asyncio.create_task(work).cancel)
        yield app


async def serve(settings: Settings, *, ready: Callable[[str], None]) -> None:
    """Run until SIGTERM or SIGINT, then drain; a second signal ends at once, still writing everything down.

    `ready` is told the address once the service takes calls.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with running(settings) as app:

        def asked_to_stop() -> None:
            if stop.is_set():
                app.engine.interrupt()
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked_to_stop)
        host, _, _ = settings.listen.rpartition(":")
        ready(f"{host}:{app.port}")
        await stop.wait()
        log.info("draining", extra={"drain_timeout": settings.drain_timeout})


def _stream_settings(settings: Settings) -> StreamSettings:
    return StreamSettings(
        max_in_flight=settings.max_in_flight_per_stream,
        max_unread=settings.max_unread_bytes,
        patience=settings.slow_client_timeout,
    )


def _listener(settings: Settings, engine: Engine, store: Store, catalog: Catalog) -> Listener:
    return Listener(
        ListenerSettings(
            address=settings.listen,
            reflection=settings.reflection,
            max_receive_message_bytes=settings.max_receive_message_bytes,
            keepalive_time=settings.keepalive_time,
            keepalive_timeout=settings.keepalive_timeout,
            min_ping_interval=settings.min_ping_interval,
            max_streams_per_connection=settings.max_streams_per_connection,
            max_connection_age=settings.max_connection_age,
        ),
        {
            "GenerationService": GenerationServicer(engine, clock=wall_clock, settings=_stream_settings(settings)),
            "RequestService": RequestServicer(engine, store),
            "ProviderService": ProviderServicer(catalog, engine, store, clock=wall_clock, default_urls=DEFAULT_URLS),
            "AnalyticsService": AnalyticsServicer(store.analytics, clock=wall_clock),
        },
    )


async def _recover(store: Store, telemetry: Telemetry, node: str) -> None:
    """End the requests of processes that died."""
    for row in await store.recover(node, wall_clock(), _salvage):
        telemetry.recovered(row)


def _salvage(row: LogRow, payloads: Sequence[bytes]) -> GenerationResult:
    return salvage(row, without_gaps(StoredEvents.decode(payload) for payload in payloads))


async def _sweep(store: Store, telemetry: Telemetry, node: str) -> None:
    """Look for the requests of processes that died while this one lives."""
    while True:
        await asyncio.sleep(SWEEP_INTERVAL)
        try:
            await _recover(store, telemetry, node)
        except HeadraceError as error:
            log.warning("the requests of dead processes could not be looked for: %s", error)


def retention(settings: Settings) -> Retention:
    """How long the store keeps things."""

    def milliseconds(seconds: float | None) -> int | None:
        return None if seconds is None else round(seconds * 1000)

    return Retention(
        requests=milliseconds(settings.retention_requests),
        metrics=milliseconds(settings.retention_metrics),
        chunks=milliseconds(settings.retention_chunks),
        at_least=round(settings.replay_window * 1000),
    )


async def _prune(store: Store, retention: Retention) -> None:
    """Delete what has been kept long enough."""
    while True:
        try:
            if gone := await prune(store, retention, wall_clock):
                log.info("deleted for their age: %d requests, %d rows of metrics, %d of chunks", gone.requests, gone.metrics, gone.chunks)
        except HeadraceError as error:
            log.warning("what has been kept long enough could not be deleted: %s", error)
        await asyncio.sleep(PRUNE_INTERVAL)


def check_store(database: Path) -> list[str]:
    """See store.check, with kept chunks that can be read."""
    return check(database, count_chunks=lambda payload: sum(isinstance(event, StreamChunk) for event in StoredEvents.decode(payload)))


async def _watch_store(app: App) -> None:
    """Health follows the store: without it no request would be taken."""
    serving = True
    while True:
        await asyncio.sleep(HEALTH_INTERVAL)
        try:
            await app.store.ping()
            well = True
        except HeadraceError as error:
            well = False
            if serving:
                log.error("the store is out of reach: %s", error)
        if well != serving and not app.engine.draining.is_set():
            serving = well
            await app.listener.set_serving(well)


def _keyring(database: str) -> KeyRing:
    """The key ring beside the database, whose folder is made here; that of a store in memory is gone with it."""
    if database == MEMORY:
        return KeyRing.ephemeral()
    path = sqlite_path(database)
    path.parent.mkdir(parents=True, exist_ok=True)
    return KeyRing.open(path.with_name(path.name + ".keys"))
