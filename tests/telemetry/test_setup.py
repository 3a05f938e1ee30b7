"""Exporters over real sockets: what arrives at a collector and at a scrape, and what happens when nobody listens."""

import asyncio
import logging
import os
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from headrace_server.domain.record import LogRow
from headrace_server.domain.request import GenerateRequest
from headrace_server.telemetry.export import Delivery
from headrace_server.telemetry.null import NullTelemetry
from headrace_server.telemetry.request import Telemetry
from headrace_server.telemetry.setup import open_telemetry

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CALLER = f"00-{TRACE_ID}-b7ad6b7169203331-01"


class Collector(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """An OTLP collector; its two services have a method of the same name, so they are told apart by the request."""

    def __init__(self) -> None:
        self.traces: list[trace_service_pb2.ExportTraceServiceRequest] = []
        self.metrics: list[metrics_service_pb2.ExportMetricsServiceRequest] = []
        self.server = grpc.server(ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self.server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(self, self.server)
        self.endpoint = f"http://127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def Export(self, request: object, context: grpc.ServicerContext) -> object:  # type: ignore[override]
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            self.traces.append(request)
            return trace_service_pb2.ExportTraceServiceResponse()
        assert isinstance(request, metrics_service_pb2.ExportMetricsServiceRequest)
        self.metrics.append(request)
        return metrics_service_pb2.ExportMetricsServiceResponse()

    @property
    def spans(self) -> list[Span]:
        return [
            span for export in self.traces for resource in export.resource_spans for scope in resource.scope_spans for span in scope.spans
        ]

    @property
    def metric_names(self) -> set[str]:
        scopes = (scope for export in self.metrics for resource in export.resource_metrics for scope in resource.scope_metrics)
        return {metric.name for scope in scopes for metric in scope.metrics}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.server.stop(None).wait()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def test_spans_and_metrics_arrive_at_a_collector(
    collector: Collector, request_data: GenerateRequest, row_of: Callable[[str], LogRow]
) -> None:
    telemetry = open_telemetry(otlp_endpoint=collector.endpoint, node="node-1")
    trace = telemetry.start(request_data, CALLER)
    sent = [trace.attempt(), trace.attempt()]
    trace.end(row_of("retried"))
    assert await telemetry.flush()
    names = [span.name for span in collector.spans]
    assert names[0] == "generate claude-x"
    assert names.count("requesting") == names.count("chat claude-x") == 2
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE_ID}
    assert collector.spans[0].parent_span_id.hex() == "b7ad6b7169203331"
    assert [f"00-{TRACE_ID}-{span.span_id.hex()}-01" for span in collector.spans if span.kind == Span.SPAN_KIND_CLIENT] == sent
    resource = {pair.key: pair.value.string_value for pair in collector.traces[0].resource_spans[0].resource.attributes}
    assert (resource["service.name"], resource["service.instance.id"]) == ("headrace", "node-1")
    await telemetry.close()
    assert {"headrace.requests", "headrace.request.duration", "headrace.requests.in_flight"} <= collector.metric_names


async def test_last_spans_arrive_when_closed_without_a_flush(
    collector: Collector, request_data: GenerateRequest, row_of: Callable[[str], LogRow]
) -> None:
    telemetry = open_telemetry(otlp_endpoint=collector.endpoint)
    telemetry.start(request_data, CALLER).end(row_of("completed"))
    telemetry.recovered(row_of("cancelled"))
    await telemetry.close()
    await telemetry.close()
    assert {"generate claude-x", "recovered"} <= {span.name for span in collector.spans}


async def test_standard_variables_are_heeded_when_nothing_is_set(
    collector: Collector, request_data: GenerateRequest, row_of: Callable[[str], LogRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "gateway")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    telemetry = open_telemetry()
    telemetry.start(request_data, CALLER).end(row_of("completed"))
    telemetry.start(request_data, None).end(row_of("failed"))
    await telemetry.close()
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE_ID}
    assert collector.metrics == []
    attributes = collector.traces[0].resource_spans[0].resource.attributes
    assert "gateway" in [pair.value.string_value for pair in attributes if pair.key == "service.name"]


async def test_ids_are_there_and_nothing_is_sent_when_no_collector_is_set(
    request_data: GenerateRequest, row_of: Callable[[str], LogRow]
) -> None:
    telemetry = open_telemetry()
    trace = telemetry.start(request_data, None)
    assert trace.attempt().split("-")[1] == trace.trace_id == trace.traceparent.split("-")[1]
    assert trace.traceparent.endswith("-01")
    trace.end(row_of("completed"))
    assert await telemetry.flush()
    await telemetry.close()


@pytest.mark.parametrize("kind", ["closed_port", "silent_port"])
async def test_close_is_bounded_and_tells_once_when_the_collector_is_out_of_reach(
    kind: str,
    request: pytest.FixtureRequest,
    request_data: GenerateRequest,
    row_of: Callable[[str], LogRow],
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint = f"http://127.0.0.1:{request.getfixturevalue(kind)}"
    telemetry = open_telemetry(otlp_endpoint=endpoint)
    for _ in range(200):  # several batches
        telemetry.start(request_data, CALLER).end(row_of("completed"))
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    began = time.monotonic()
    await telemetry.close(within=0.3)
    took = time.monotonic() - began
    ticking.cancel()
    assert took < 1.5
    assert ticks > 10
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert sorted(record.getMessage().split(";")[0] for record in warned) == [
        f"metrics cannot be delivered to {endpoint}",
        f"spans cannot be delivered to {endpoint}",
    ]
    assert not [record for record in warned if record.exc_info]


def test_outage_is_told_when_it_begins_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "headrace_server")
    delivery = Delivery("spans", "http://collector:4317")
    for arrived in (True, False, False, True, True, False):
        delivery.report(arrived)
    assert [(record.levelname, record.getMessage().split(" to ")[0]) for record in caplog.records] == [
        ("WARNING", "spans cannot be delivered"),
        ("INFO", "spans are delivered"),
        ("WARNING", "spans cannot be delivered"),
    ]


async def test_prometheus_reads_the_metrics_when_a_port_is_set(request_data: GenerateRequest, row_of: Callable[[str], LogRow]) -> None:
    telemetry = open_telemetry(prometheus_listen="127.0.0.1:0")
    telemetry.start(request_data, None).end(row_of("completed"))
    telemetry.start(request_data, None)
    address = telemetry.prometheus_address
    assert address is not None

    def scrape() -> str:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    text = await asyncio.to_thread(scrape)
    assert 'headrace_requests_total{code="",model="claude-x",provider="claude",state="completed"} 1.0' in text
    assert 'headrace_request_duration_seconds_count{model="claude-x",provider="claude",state="completed"} 1.0' in text
    assert "headrace_requests_in_flight 1.0" in text
    await telemetry.close()
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(scrape)


async def test_address_for_prometheus_is_named_when_it_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(OSError, match=f"metrics cannot be served at {address}: Address already in use"):
            open_telemetry(prometheus_listen=address)


async def test_two_telemetries_stand_side_by_side(
    collector: Collector, request_data: GenerateRequest, row_of: Callable[[str], LogRow]
) -> None:
    first = open_telemetry(otlp_endpoint=collector.endpoint, prometheus_listen="127.0.0.1:0")
    second = open_telemetry(prometheus_listen="[::1]:0" if socket.has_ipv6 else "127.0.0.1:0")
    second.start(request_data, CALLER).end(row_of("completed"))
    await second.close()
    first.start(request_data, CALLER).end(row_of("failed"))
    await first.close()
    assert [span.name for span in collector.spans].count("generate claude-x") == 1


@pytest.mark.parametrize("telemetry", [NullTelemetry(), Telemetry()])
def test_ids_are_valid_and_nothing_else_happens_when_nothing_is_wanted(
    telemetry: NullTelemetry | Telemetry, row_of: Callable[[str], LogRow]
) -> None:
    trace = telemetry.start(None, None)
    row = LogRow.model_validate({**dict(row_of("completed")), "trace_id": trace.trace_id})
    assert trace.attempt() != trace.attempt()
    assert len(trace.traceparent) == 55
    trace.drop()
    trace.end(row)
    telemetry.recovered(row)
