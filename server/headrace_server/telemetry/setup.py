"""Telemetry as the settings ask for it: exporters by OTLP, a port for Prometheus, or neither."""

import os
from importlib.metadata import PackageNotFoundError, version
from wsgiref.simple_server import WSGIServer

from opentelemetry.sdk.environment_variables import (
    OTEL_EXPORTER_OTLP_ENDPOINT,
    OTEL_EXPORTER_OTLP_METRICS_ENDPOINT,
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
)
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from headrace_server.telemetry.pipeline import Exporter, Pipeline
from headrace_server.telemetry.request import Telemetry


def open_telemetry(*, otlp_endpoint: str | None = None, prometheus_listen: str | None = None, node: str = "") -> Telemetry:
    """Telemetry that exports to a collector, such as `http://127.0.0.1:4317` (OTLP over gRPC), and serves metrics at `HOST:PORT`.

    Without an endpoint the standard variables OTEL_EXPORTER_OTLP_ENDPOINT, …_TRACES_ENDPOINT and …_METRICS_ENDPOINT name the collector;
    the SDK's other variables (headers, certificates, batch sizes, intervals, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
    OTEL_TRACES_SAMPLER) hold as well. `node` is the id of this process. Nothing is connected yet: a collector that is out of reach is
    logged once for spans and once for metrics. Raises OSError where the address for Prometheus cannot be had, ImportError where its extra
    is not installed.
    """
    traces = otlp_endpoint or os.environ.get(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) or os.environ.get(OTEL_EXPORTER_OTLP_ENDPOINT)
    metrics = otlp_endpoint or os.environ.get(OTEL_EXPORTER_OTLP_METRICS_ENDPOINT) or os.environ.get(OTEL_EXPORTER_OTLP_ENDPOINT)
    exporters: list[Exporter] = []
    readers: list[MetricReader] = []
    span_processor: SpanProcessor | None = None
    server: WSGIServer | None = None
    if prometheus_listen:  # first, because it is what may fail
        reader, server = _serve_prometheus(prometheus_listen)
        readers.append(reader)
    if traces:
        from headrace_server.telemetry.export import Delivery, SpanExporter  # here: without a collector nobody needs it

        span_exporter = SpanExporter(otlp_endpoint, Delivery("spans", traces))
        span_processor = BatchSpanProcessor(span_exporter)
        exporters.append(span_exporter)
    if metrics:
        from headrace_server.telemetry.export import Delivery, MetricExporter

        metric_exporter = MetricExporter(otlp_endpoint, Delivery("metrics", metrics))
        readers.append(PeriodicExportingMetricReader(metric_exporter))
        exporters.append(metric_exporter)
    resource = _resource(node)
    pipeline = Pipeline(resource, span_processor=span_processor, metric_readers=readers, exporters=exporters, server=server)
    # A provider of the SDK is made for its sampler only: it reads OTEL_TRACES_SAMPLER, and follows the parent where that is not set.
    return Telemetry(pipeline, sampler=TracerProvider(resource=resource, shutdown_on_exit=False).sampler)


def _resource(node: str) -> Resource:
    try:
        release = version("headrace")
    except PackageNotFoundError:
        release = ""
    ours = {SERVICE_NAME: "headrace", SERVICE_VERSION: release, SERVICE_INSTANCE_ID: node}
    return Resource.create({name: value for name, value in ours.items() if value}).merge(OTELResourceDetector().detect())


def _serve_prometheus(address: str) -> tuple[MetricReader, WSGIServer]:
    try:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError as error:
        raise ImportError("metrics for Prometheus need an extra: pip install 'headrace[server,prometheus]'") from error
    registry = CollectorRegistry()
    host, _, port = address.rpartition(":")
    try:
        server, _ = start_http_server(int(port), host.strip("[]"), registry)
    except OSError as error:
        raise OSError(error.errno, f"metrics cannot be served at {address}: {error.strerror}") from error
    return PrometheusMetricReader(registry=registry, scope_info_enabled=False), server
