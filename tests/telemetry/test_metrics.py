"""What requests leave in the metrics, and that callers cannot blow them up."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from headrace_server.domain.errors import ErrorCode
from headrace_server.domain.provider import Dialect, Provider
from headrace_server.domain.record import LogRow
from headrace_server.domain.request import GenerateRequest
from headrace_server.telemetry.metrics import MOST_LABELS
from headrace_server.telemetry.request import Telemetry

Play = Callable[..., None]


def collected(reader: InMemoryMetricReader) -> dict[str, dict[frozenset[tuple[str, Any]], Any]]:
    """The data points by metric and labels; of a histogram its count and sum."""
    data = reader.get_metrics_data()
    assert data is not None
    points: dict[str, dict[frozenset[tuple[str, Any]], Any]] = {}
    for metric in (metric for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics):
        for point in metric.data.data_points:
            value = point.value if hasattr(point, "value") else (point.count, point.sum)
            points.setdefault(metric.name, {})[frozenset((point.attributes or {}).items())] = value
    return points


def labels(**values: str) -> frozenset[tuple[str, Any]]:
    return frozenset(values.items())


@pytest.fixture
def play(telemetry: Telemetry, request_data: GenerateRequest, row_of: Callable[[str], LogRow]) -> Play:
    def play(kind: str, **changes: object) -> None:
        telemetry.start(request_data, None).end(row_of(kind).model_copy(update=changes))

    return play


def test_completed_request_is_counted_and_measured(play: Play, reader: InMemoryMetricReader) -> None:
    play("completed")
    play("completed")
    of_model = {"provider": "claude", "model": "claude-x"}
    assert collected(reader) == {
        "headrace.requests": {labels(**of_model, state="completed", code=""): 2},
        "headrace.calls": {labels(**of_model, code=""): 2},
        "headrace.tokens": {labels(**of_model, type="input"): 24, labels(**of_model, type="output"): 60},
        "headrace.request.duration": {labels(**of_model, state="completed"): (2, 2.0)},
        "headrace.request.first_token": {labels(**of_model): (2, 0.304)},
        "headrace.requests.in_flight": {labels(): 0},
    }


@pytest.mark.parametrize(
    ("kind", "metric", "expected"),
    [
        ("failed", "headrace.requests", {"provider": "claude", "model": "claude-x", "state": "failed", "code": "rate_limit_exceeded"}),
        ("cancelled", "headrace.requests", {"provider": "claude", "model": "claude-x", "state": "failed", "code": "cancelled"}),
        ("retried", "headrace.retries", {"provider": "claude"}),
        ("retried", "headrace.calls", {"provider": "claude", "model": "claude-x", "code": "server_error"}),
        ("fell_back", "headrace.fallbacks", {"provider": "claude"}),
        ("fell_back", "headrace.calls", {"provider": "claude", "model": "claude-x", "code": "network_error"}),
        ("fell_back", "headrace.requests", {"provider": "spare", "model": "gpt-x", "state": "completed", "code": ""}),
        ("cancelled", "headrace.tokens", {"provider": "claude", "model": "claude-x", "type": "output"}),
    ],
)
def test_detours_and_errors_are_counted_by_provider(
    kind: str, metric: str, expected: Mapping[str, str], play: Play, reader: InMemoryMetricReader
) -> None:
    play(kind)
    assert collected(reader)[metric][labels(**expected)] == (2 if metric == "headrace.tokens" else 1)


def test_in_flight_counts_requests_that_run(
    telemetry: Telemetry, reader: InMemoryMetricReader, request_data: GenerateRequest, row_of: Callable[[str], LogRow]
) -> None:
    def in_flight() -> object:
        return collected(reader)["headrace.requests.in_flight"][labels()]

    first, second, third = (telemetry.start(request_data, None) for _ in range(3))
    telemetry.start(None, None)
    assert in_flight() == 3
    first.end(row_of("completed"))
    first.end(row_of("completed"))
    second.drop()
    assert in_flight() == 1
    third.end(row_of("failed"))
    telemetry.recovered(row_of("cancelled"))
    assert in_flight() == 0


def test_unsampled_request_is_counted(telemetry: Telemetry, reader: InMemoryMetricReader, row_of: Callable[[str], LogRow]) -> None:
    telemetry.start(None, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00").end(row_of("completed"))
    assert sum(collected(reader)["headrace.requests"].values()) == 1


@pytest.mark.parametrize("code", [ErrorCode.INVALID_REQUEST, ErrorCode.MODEL_NOT_FOUND])
def test_model_is_no_label_when_it_may_not_exist(code: ErrorCode, play: Play, reader: InMemoryMetricReader) -> None:
    for number in range(3):
        play("refused", model=f"made-up-{number}", provider=f"made-up-{number}", error_code=code)
    assert collected(reader)["headrace.requests"] == {labels(provider="other", model="other", state="failed", code=code.value): 3}


def test_labels_are_bounded_when_callers_name_ever_new_models(play: Play, reader: InMemoryMetricReader) -> None:
    for number in range(MOST_LABELS + 50):
        play("completed", model=f"m-{number}")
    points = collected(reader)["headrace.requests"]
    assert MOST_LABELS - 2 <= len(points) <= MOST_LABELS
    assert points[labels(provider="claude", model="other", state="completed", code="")] > 50
    assert sum(points.values()) == MOST_LABELS + 50


def test_what_no_dialect_understands_is_counted(telemetry: Telemetry, reader: InMemoryMetricReader) -> None:
    provider = Provider(
        id="01890a5d-ac96-774b-bcce-b302099a8057",
        provider="spare",
        dialect=Dialect.OPENAI,
        api_url="http://spare.test",
        default_model="m",
        created_at=0,
        updated_at=0,
    )
    telemetry.unknown_error(provider, 418)
    telemetry.unknown_error(provider, 418)
    telemetry.unknown_error(provider, 200)
    telemetry.unknown_events(provider, 7)
    assert collected(reader)["headrace.unknown_errors"] == {
        labels(provider="spare", dialect="openai", http_status="418"): 2,
        labels(provider="spare", dialect="openai", http_status="200"): 1,
    }
    assert collected(reader)["headrace.unknown_events"] == {labels(provider="spare", dialect="openai"): 7}
