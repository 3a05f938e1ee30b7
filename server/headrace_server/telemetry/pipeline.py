"""Where spans and metrics go, and how all of it ends in time. Nothing here is global: several pipelines may stand side by side."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol
from wsgiref.simple_server import WSGIServer

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor

from headrace_server.telemetry.metrics import Metrics
from headrace_server.telemetry.spans import SpanBuilder

logger = logging.getLogger(__name__)

_GRACE = 1.0
"""Seconds that an export has for giving up, once it has been cut off."""


class Exporter(Protocol):
    """What can be cut off: an export under way fails soon after, and later ones at once."""

    def shutdown(self) -> None:
        """Cut it off. Does not block."""
        ...


class Pipeline:
    """The exporters of one process. Without arguments nothing goes anywhere."""

    def __init__(
        self,
        resource: Resource | None = None,
        *,
        span_processor: SpanProcessor | None = None,
        metric_readers: Sequence[MetricReader] = (),
        exporters: Sequence[Exporter] = (),
        server: WSGIServer | None = None,
    ) -> None:
        """`exporters` are those behind the processor and the readers, to be cut off when they do not end; `server` serves the metrics."""
        resource = resource or Resource({})
        self.span_processor = span_processor
        self.spans = SpanBuilder(resource)
        self._meters = MeterProvider(metric_readers, resource, shutdown_on_exit=False) if metric_readers else None
        self.metrics = Metrics(self._meters.get_meter("headrace")) if self._meters else None
        self._server = server
        self._exporters = exporters
        self._closed = False

    @property
    def metrics_address(self) -> str | None:
        """Where metrics are served: HOST:PORT."""
        if self._server is None:
            return None
        host, port = self._server.server_address[:2]
        return f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"

    async def flush(self, within: float) -> bool:
        """Export what is waiting, for at most `within` seconds; whether it ended in that time."""
        return await _done(_start(self._flush), within)

    async def close(self, within: float) -> None:
        """Export what is waiting, for at most `within` seconds, and stop. Never raises."""
        if self._closed:
            return
        self._closed = True
        stopped = _start(self._stop)
        if not await _done(stopped, within):
            for exporter in self._exporters:
                exporter.shutdown()
            await _done(stopped, _GRACE)

    def _flush(self) -> None:
        if self.span_processor is not None:
            self.span_processor.force_flush()
        if self._meters is not None:
            self._meters.force_flush()

    def _stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        if self.span_processor is not None:
            self.span_processor.shutdown()
        if self._meters is not None:
            self._meters.shutdown()


def _start(work: Callable[[], None]) -> asyncio.Event:
    """Do something that blocks in a thread; the event is set when it is done.

    It is a daemon thread, because the threads of an executor are waited for at the end of the loop, however long they take.
    """
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - telemetry never fails anything else
            logger.warning("telemetry was not delivered: %s", error)
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has ended without waiting
                loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name="telemetry", daemon=True).start()
    return done


async def _done(done: asyncio.Event, within: float) -> bool:
    try:
        async with asyncio.timeout(within):
            await done.wait()
    except TimeoutError:
        return False
    return True
