"""What happens to the cost when things grow: open streams, rows on record, the conversation, the answer.

    python bench/growth.py [--quick] [--runs 3] [--rows 1000000] [--out bench/results]

The cost of a request is its processor time, with eight streams that ask again and again for 64 chunks without delay. Lists, views and
sums are timed through gRPC, alone, over rows that SQL has put into the store. Written are growth.md, growth.svg and growth.json.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chart
import grpc
from fill import MONTH, fill
from google.protobuf.timestamp_pb2 import Timestamp
from load import Plan
from meter import chunks_of
from processes import Cores, Running, cores, running
from report import machine
from run import run_load, settle
from systems import BURST, HERE, Around, start_headrace

from headrace.v1 import analytics_service_pb2 as analytics
from headrace.v1 import error_pb2, lifecycle_pb2
from headrace.v1 import request_service_pb2 as requests
from headrace.v1.analytics_service_pb2_grpc import AnalyticsServiceStub
from headrace.v1.request_service_pb2_grpc import RequestServiceStub

BAR = 200.0
"""Milliseconds that a list or a sum may take."""
DEADLINE = 120.0
ENOUGH = 10_000.0
"""Milliseconds after which a query is not asked again."""
OPEN_STREAMS = (0, 10, 100, 300, 1000)
MESSAGES = (1, 10, 100, 1000)
ANSWERS = (1, 4, 16, 64, 256, 1024)
"""KiB, in chunks of 1 KiB each."""
ROWS = (0, 10_000, 100_000, 1_000_000)
ON_RECORD, EMPTY = "rows on record", "rows on record, of a service with none, in turn with it"
"""Filling takes minutes, in which a shared machine becomes slower or faster: only what was measured in turn can be compared."""


@dataclass
class Growth:
    """Everything that was measured: for each curve its points, by what grows."""

    costs: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    """Microseconds of processor time a request: by curve and size, one for each run."""
    queries: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    """Milliseconds: by query and rows, one for each run."""
    failed: dict[str, str] = field(default_factory=dict)
    """Queries that ended in an error."""

    def cost(self, curve: str, size: int, microseconds: float) -> None:
        """Note the cost of a request."""
        self.costs.setdefault(curve, {}).setdefault(size, []).append(microseconds)
        print(f"{curve}, {size:,}: {microseconds:,.0f} µs a request", flush=True)

    def rows(self) -> list[dict[str, Any]]:
        """What growth.json holds."""
        return [
            {"what": name, "size": size, "unit": unit, "median": statistics.median(values), "min": min(values), "max": max(values)}
            for unit, curves in (("µs", self.costs), ("ms", self.queries))
            for name, points in curves.items()
            for size, values in points.items()
        ]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the service and its provider run, and for how long a load is put on them."""

    process: Running
    provider: Running
    on: Cores
    folder: Path
    seconds: float

    def cost(self, model: str = BURST, **more: Any) -> float:
        """Microseconds of processor time that a request takes. Raises Failed."""
        plan = Plan(
            kind="closed",
            speaks="grpc",
            host=self.process.host,
            port=self.process.port,
            provider="bench",
            model=model,
            streams=8,
            seconds=self.seconds,
            watched={"system": self.process.pid},
            **more,
        )
        result = run_load(plan, self.on.others, self.folder)
        if result.broken or not result.chunks:
            print(f"{model} {more}: {result.broken} broken answers: {result.why}", flush=True)
        return result.cpu["system"] / max(1, result.chunks) * chunks_of(model) * 1e6


def queries(now: float) -> Iterator[tuple[str, Callable[[RequestServiceStub, AnalyticsServiceStub], object]]]:
    """Every way to ask for what is on record, by name."""
    begin = int(now - MONTH / 1000)
    month = Timestamp(seconds=begin)
    day = (Timestamp(seconds=begin + 86400), Timestamp(seconds=begin + 2 * 86400))
    lists: dict[str, dict[str, Any]] = {
        "ListRequests": {},
        "ListRequests, state failed": {"state": lifecycle_pb2.REQUEST_STATE_FAILED},
        "ListRequests, common provider": {"provider": "openai"},
        "ListRequests, rare provider": {"provider": "rare"},
        "ListRequests, model": {"model": "model-3"},
        "ListRequests, unknown model": {"model": "model-99"},
        "ListRequests, user": {"user_id": "user-77"},
        "ListRequests, conversation": {"conversation_id": "00000005-0000-7000-9000-000000000005"},
        "ListRequests, tag": {"tag": "team-7"},
        "ListRequests, unknown tag": {"tag": "nobody"},
        "ListRequests, a day a month ago": {"start_time": day[0], "end_time": day[1]},
        "ListRequests, error code": {"error_code": error_pb2.ERROR_CODE_SERVER_ERROR},
        "ListRequests, unseen error code": {"error_code": error_pb2.ERROR_CODE_TIMEOUT},
        "ListRequests, page of 1,000": {"page_size": 1000},
    }
    for name, fields in lists.items():
        yield name, lambda stub, _, fields=fields: stub.ListRequests(requests.ListRequestsRequest(**fields), timeout=DEADLINE)  # type: ignore[misc]
    for span, chosen in (("as by default", {}), ("a month", {"range": analytics.TimeRange(start_time=month)})):
        yield (
            f"ListSuccessRates, {span}",
            lambda _, stub, chosen=chosen: stub.ListSuccessRates(analytics.ListSuccessRatesRequest(**chosen), timeout=DEADLINE),  # type: ignore[misc]
        )
        yield (
            f"ListHourlyPerformance, {span}",
            lambda _, stub, chosen=chosen: stub.ListHourlyPerformance(analytics.ListHourlyPerformanceRequest(**chosen), timeout=DEADLINE),  # type: ignore[misc]
        )
        yield (
            f"ListFailedRequests, {span}",
            lambda _, stub, chosen=chosen: stub.ListFailedRequests(analytics.ListFailedRequestsRequest(**chosen), timeout=DEADLINE),  # type: ignore[misc]
        )
        for dimension in ("DAY", "PROVIDER", "MODEL", "USER", "TAG"):
            by = [analytics.UsageDimension.Value(f"USAGE_DIMENSION_{dimension}")]
            yield (
                f"GetUsage by {dimension.lower()}, {span}",
                lambda _, stub, chosen=chosen, by=by: stub.GetUsage(  # type: ignore[misc]
                    analytics.GetUsageRequest(group_by=by, **chosen), timeout=DEADLINE
                ),
            )


def ask(process: Running, rows: int, runs: int, growth: Growth) -> None:
    """Time every query."""
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"{process.host}:{process.port}", options=options) as channel:
        stubs = RequestServiceStub(channel), AnalyticsServiceStub(channel)
        for name, query in queries(time.time()):
            times = growth.queries.setdefault(name, {}).setdefault(rows, [])
            try:
                while len(times) < runs and sum(times) < ENOUGH:
                    began = time.perf_counter()
                    query(*stubs)
                    times.append((time.perf_counter() - began) * 1000)
            except grpc.RpcError as error:
                growth.failed[f"{name}, {rows:,} rows"] = f"{error.code().name}: {error.details()}"
                times.append(DEADLINE * 1000)
            print(f"{rows:,} rows: {name}: {statistics.median(times):,.1f} ms", flush=True)


def grow(place: Place, runs: int, growth: Growth) -> None:
    """What grows with the load: streams that are open meanwhile, the conversation, the answer."""
    for _ in range(runs):
        for number in OPEN_STREAMS:
            growth.cost("streams open meanwhile", number, place.cost(silent=number))
        for number in MESSAGES:
            growth.cost("messages of the conversation", number, place.cost("bench-n8-d0", messages=number))
        for kib in ANSWERS:
            growth.cost("KiB of the answer", kib, place.cost(f"bench-n{kib}-d0-k1"))


def pictures(growth: Growth) -> str:
    """The charts."""
    panels = [
        chart.Lines(
            "processor time of a request, as things grow",
            "how many",
            "µs",
            {name: [(max(1, size), statistics.median(values)) for size, values in points.items()] for name, points in growth.costs.items()},
        )
    ]
    for title, kind in (("lists", "ListRequests"), ("views", "ListSuccess ListHourly ListFailed"), ("sums", "GetUsage")):
        curves = {
            name.removeprefix("ListRequests, ").removeprefix("GetUsage "): [
                (max(1, size), statistics.median(values)) for size, values in points.items()
            ]
            for name, points in growth.queries.items()
            if name.startswith(tuple(kind.split()))
        }
        if curves:
            panels.append(chart.Lines(f"{title}, by rows on record", "rows", "ms", curves))
    return chart.lines(panels)


def table(growth: Growth) -> str:
    """Everything, for people."""
    parts = [f"# Growth\n\n{machine()}. Medians.\n"]
    for name, points in growth.costs.items():
        parts.append(f"## Processor time of a request by {name}\n\n{_row('', points)}\n{_line(points)}")
        parts.append(_row("µs", [chart.figure(statistics.median(values)) for values in points.values()]) + "\n")
    if EMPTY in growth.costs:
        pairs = zip(growth.costs[ON_RECORD].values(), growth.costs[EMPTY].values(), strict=True)
        ratios = [statistics.median(full / none for full, none in zip(*pair, strict=True)) for pair in pairs]
        parts.append(f"With rows on record a request costs, none = 1: {', '.join(f'{ratio:.2f}' for ratio in ratios)}.\n")
    sizes = sorted({size for points in growth.queries.values() for size in points})
    if growth.queries:
        parts.append(
            f"## Milliseconds of a list, view or sum by rows on record (bar: {BAR:g})\n\n{_row('', sizes, '')}\n{_line([*sizes, ''])}"
        )
        for name, points in growth.queries.items():
            medians = {size: statistics.median(values) for size, values in points.items()}
            verdict = "met" if max(medians.values()) <= BAR else "NOT MET"
            parts.append(_row(name, [chart.figure(medians[size]) if size in medians else "" for size in sizes], verdict))
    parts += [f"\n- FAILED: {name}: {why}" for name, why in growth.failed.items()]
    return "\n".join(parts) + "\n"


def _row(name: str, cells: Sequence[object] | dict[int, Any], *more: str) -> str:
    shown = [f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells]
    return f"| {' | '.join([name, *shown, *more])} |"


def _line(cells: Sequence[object] | dict[int, Any]) -> str:
    return "| --- |" + " ---: |" * len(cells)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one run of a second each, 10,000 rows")
    parser.add_argument("--runs", type=int, help="default: 3; 1 quick one")
    parser.add_argument("--rows", type=int, help="most rows; default: 1,000,000")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    runs, seconds = options.runs or (1 if options.quick else 3), 1.0 if options.quick else 3.0
    most = options.rows or (10_000 if options.quick else 1_000_000)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    on, growth = cores(), Growth()
    os.sched_setaffinity(0, {on.others})
    with tempfile.TemporaryDirectory(prefix="headrace-growth-") as name:
        folder = Path(name)
        with running([sys.executable, str(HERE / "provider.py")], core=on.others, folder=folder) as provider:
            for rows in (size for size in ROWS if size <= most):
                home, empty = folder / f"{rows}", folder / f"{rows}-empty"
                home.mkdir()
                empty.mkdir()
                began = time.monotonic()
                fill(home / "headrace.db", rows)
                print(f"{rows:,} rows filled in {time.monotonic() - began:.0f} s", flush=True)
                with (
                    start_headrace(Around(provider=provider, folder=home, core=on.system)) as process,
                    start_headrace(Around(provider=provider, folder=empty, core=on.system)) as fresh,
                ):
                    settle(process)
                    settle(fresh)
                    place, beside = Place(process, provider, on, home, seconds), Place(fresh, provider, on, empty, seconds)
                    for each in (place, beside):
                        each.cost()  # the first load meets what is only made when it is needed
                    for _ in range(runs):
                        growth.cost(ON_RECORD, rows, place.cost())
                        growth.cost(EMPTY, rows, beside.cost())
                    if rows == 0:
                        grow(place, runs, growth)
                    else:
                        ask(process, rows, max(3, runs), growth)
                for file in home.iterdir():
                    file.unlink()
    options.out.mkdir(parents=True, exist_ok=True)
    name = "quick-growth" if options.quick else "growth"
    (options.out / f"{name}.json").write_text(json.dumps(growth.rows(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (options.out / f"{name}.md").write_text(table(growth), encoding="utf-8")
    (options.out / f"{name}.svg").write_text(pictures(growth), encoding="utf-8")
    print(table(growth))


if __name__ == "__main__":
    main()
