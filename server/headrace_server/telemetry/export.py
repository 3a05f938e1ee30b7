"""OTLP exporters that tell of an outage once, instead of once for each batch."""

import logging
from collections.abc import Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

logger = logging.getLogger(__name__)

# Its warnings (one for each try of each batch, for as long as the collector is away) are replaced by `Delivery`.
logging.getLogger("opentelemetry.exporter.otlp.proto.grpc").setLevel(logging.CRITICAL)


class Delivery:
    """Whether the exports of one kind arrive. Called by the thread that exports them."""

    def __init__(self, what: str, endpoint: str) -> None:
        self._what = what
        self._endpoint = endpoint
        self._arrives = True

    def report(self, arrived: bool) -> None:
        """An export has succeeded or failed; only a change is worth a line."""
        if arrived and not self._arrives:
            logger.info("%s are delivered to %s again", self._what, self._endpoint)
        elif self._arrives and not arrived:
            logger.warning("%s cannot be delivered to %s; more of them are lost until they can be", self._what, self._endpoint)
        self._arrives = arrived


class SpanExporter(OTLPSpanExporter):
    """Sends spans."""

    def __init__(self, endpoint: str | None, delivery: Delivery) -> None:
        """None: the endpoint that the standard environment variables name."""
        super().__init__(endpoint=endpoint)
        self._delivery = delivery

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch, with the retries of the protocol."""
        try:
            result = super().export(spans)
        except Exception:  # noqa: BLE001 - a channel that was closed in the middle raises; its text is of no use
            result = SpanExportResult.FAILURE
        self._delivery.report(result is SpanExportResult.SUCCESS)
        return result


class MetricExporter(OTLPMetricExporter):
    """Sends metrics."""

    def __init__(self, endpoint: str | None, delivery: Delivery) -> None:
        """None: the endpoint that the standard environment variables name."""
        super().__init__(endpoint=endpoint)
        self._delivery = delivery

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Send what was collected, with the retries of the protocol."""
        try:
            result = super().export(metrics_data, timeout_millis, **kwargs)
        except Exception:  # noqa: BLE001 - as above
            result = MetricExportResult.FAILURE
        self._delivery.report(result is MetricExportResult.SUCCESS)
        return result
