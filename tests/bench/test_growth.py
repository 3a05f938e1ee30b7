import sqlite3
import time
from contextlib import closing

import grpc
from fill import fill
from growth import Growth, queries, table

from headrace.v1.analytics_service_pb2_grpc import AnalyticsServiceStub
from headrace.v1.request_service_pb2_grpc import RequestServiceStub
from headrace_server.app import check_store, running
from headrace_server.config import Settings


def test_rows_put_in_by_sql_are_as_the_service_would_have_written_them(tmp_path):
    path = tmp_path / "headrace.db"
    fill(path, 300)

    assert check_store(path) == []
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*), count(DISTINCT user_id), min(created_at) < max(created_at) FROM provider_logs").fetchone() == (
            300,
            300,
            1,
        )
        assert db.execute("SELECT count(*), sum(success) FROM provider_metrics").fetchone() == (300, 290)


async def test_every_query_is_answered(tmp_path):
    fill(tmp_path / "headrace.db", 200)
    settings = Settings(listen="127.0.0.1:0", database=f"sqlite:///{tmp_path}/headrace.db")
    async with running(settings) as app, grpc.aio.insecure_channel(f"127.0.0.1:{app.port}") as channel:
        stubs = RequestServiceStub(channel), AnalyticsServiceStub(channel)
        answers = {name: await query(*stubs) for name, query in queries(time.time())}

    assert len(answers["ListRequests, common provider"].requests) == 50
    assert len(answers["ListRequests, rare provider"].requests) == 1
    assert not answers["ListRequests, unknown tag"].requests
    assert len(answers["GetUsage by user, a month"].groups) == 200
    assert sum(group.request_count for group in answers["GetUsage by tag, a month"].groups) == 400


def test_the_table_says_which_bar_is_missed():
    growth = Growth(
        queries={"quick": {10: [1.0, 2.0, 3.0], 1000: [5.0]}, "slow": {1000: [500.0]}}, failed={"slow, 1,000 rows": "UNAVAILABLE"}
    )
    growth.cost("rows on record", 0, 900.0)
    text = table(growth)

    assert "| quick | 2 | 5 | met |" in text
    assert "| slow |  | 500 | NOT MET |" in text
    assert "FAILED: slow, 1,000 rows: UNAVAILABLE" in text
