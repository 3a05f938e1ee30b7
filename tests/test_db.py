"""`headrace db check`, `backup` and `prune`, on the database of a service that runs."""

import asyncio
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headrace.v1 import request_pb2
from headrace_server import app as composition
from headrace_server.cli import app
from headrace_server.config import ConfigurationError, load
from headrace_server.store.check import check
from support.service import Service, command, events_of, kinds, request, service

DAY = 24 * 3_600_000


async def db(tmp_path: Path, *arguments: str, config: str = "", **environment: str) -> tuple[int, list[str]]:
    """Run `headrace db …` on the service's database: its exit code, its lines."""
    (tmp_path / "headrace.toml").write_text(config)
    line = ["db", *arguments, "--database", f"sqlite:///{tmp_path}/headrace.db", "--config", f"{tmp_path}/headrace.toml"]
    done = await asyncio.to_thread(CliRunner().invoke, app, line, env=environment)
    return done.exit_code, done.output.splitlines()


async def run(running: Service, number: int, *, keep: bool = False) -> None:
    policy = request_pb2.DISCONNECT_POLICY_KEEP if keep else request_pb2.DISCONNECT_POLICY_CANCEL
    for _ in range(number):
        events = await events_of(running.generation.StreamGenerate(iter([command(request(on_disconnect=policy))])))
        assert kinds(events)[-1] == "completed"


async def sql(tmp_path: Path, statement: str, values: Any = ()) -> list[Any]:
    """What a statement gives, run from outside."""

    def run() -> list[Any]:
        with closing(sqlite3.connect(tmp_path / "headrace.db", isolation_level=None)) as connection:
            return connection.execute(statement, values).fetchall()

    return await asyncio.to_thread(run)


async def grow_old(tmp_path: Path, days: int) -> None:
    """Everything that is there happened so many days earlier."""
    then = days * DAY
    await sql(tmp_path, "UPDATE provider_logs SET created_at = created_at - ?, end_time = end_time - ?", (then, then))
    for table in ("provider_metrics", "stream_chunks"):
        await sql(tmp_path, f"UPDATE {table} SET created_at = created_at - ?", (then,))


@pytest.mark.parametrize("name", ["migrate", "check", "backup", "prune"])
def test_help_has_an_example(name: str) -> None:
    shown = CliRunner().invoke(app, ["db", name, "--help"], prog_name="headrace")
    assert shown.exit_code == 0
    assert f"Example:\n    headrace db {name} " in shown.output


@pytest.mark.parametrize("arguments", [["check"], ["backup", "copy.db"], ["prune"]])
async def test_a_database_that_is_not_there_is_told_and_not_made(tmp_path: Path, arguments: list[str]) -> None:
    assert await db(tmp_path, *arguments) == (1, [f"headrace: there is no database {tmp_path}/headrace.db"])
    assert not (tmp_path / "headrace.db").exists()


async def test_check_says_ok_while_requests_run_and_names_what_is_wrong(tmp_path: Path) -> None:
    async with service(tmp_path) as running:
        await run(running, 3, keep=True)
        call = running.generation.StreamGenerate(iter([command(request(model="n1000-d20"))]))
        await call.read()
        assert await db(tmp_path, "check") == (0, ["database ok: 4 requests"])
        call.cancel()

        await sql(tmp_path, "UPDATE provider_metrics SET request_id = '01890a5d-ac96-774b-bcce-b302099a8057' WHERE rowid = 1")
        code, lines = await db(tmp_path, "check")
        assert (code, len(lines)) == (1, 1)
        assert lines[0].startswith("provider_metrics row 1: its request 01890a5d-ac96-774b-bcce-b302099a8057 is not in provider_logs")


async def test_backup_copies_what_is_served_and_overwrites_nothing(tmp_path: Path) -> None:
    async with service(tmp_path) as running:
        await run(running, 2, keep=True)
        copy = tmp_path / "copy.db"
        code, lines = await db(tmp_path, "backup", str(copy))
        assert code == 0
        assert re.fullmatch(rf"copied to {re.escape(str(copy))}, 0\.\d MB", lines[0])
        assert composition.check_store(copy) == []
        assert await db(tmp_path, "backup", str(copy)) == (1, [f"headrace: {copy} exists already: a backup overwrites nothing"])


async def test_prune_deletes_what_the_settings_say_and_counts_first(tmp_path: Path) -> None:
    async with service(tmp_path) as running:
        await run(running, 3, keep=True)
        await grow_old(tmp_path, 40)
        await run(running, 2, keep=True)
        config = f"retention_requests = {30 * 24 * 3600}\nretention_metrics = {7 * 24 * 3600}\n"
        ((pieces,),) = await sql(tmp_path, "SELECT count(*) FROM stream_chunks WHERE created_at < ?", [int(time.time() * 1000) - 2 * DAY])
        counted = f"3 requests, 3 rows of metrics, {pieces} rows of kept chunks"
        assert await db(tmp_path, "prune", "--dry-run", config=config) == (0, [f"would be deleted: {counted}"])
        assert await sql(tmp_path, "SELECT count(*) FROM provider_logs") == [(5,)]

        assert await db(tmp_path, "prune", config=config) == (0, ["deleted: 3 requests, 0 rows of metrics, 0 rows of kept chunks"])
        assert await db(tmp_path, "prune", config=config) == (0, ["deleted: 0 requests, 0 rows of metrics, 0 rows of kept chunks"])
        assert await db(tmp_path, "check") == (0, ["database ok: 2 requests"])
        await run(running, 1)


async def test_kept_chunks_are_deleted_while_serving_and_the_answer_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace_server.app.PRUNE_INTERVAL", 0.02)
    async with service(tmp_path, replay_window=0) as running:
        wanted = request(on_disconnect=request_pb2.DISCONNECT_POLICY_KEEP)
        first = await events_of(running.generation.StreamGenerate(iter([command(wanted)])))
        assert await sql(tmp_path, "SELECT count(*) > 0 FROM stream_chunks") == [(1,)]
        await grow_old(tmp_path, 2)
        while await sql(tmp_path, "SELECT count(*) FROM stream_chunks") != [(0,)]:
            await asyncio.sleep(0.01)

        again = await events_of(running.generation.StreamGenerate(iter([command(wanted)])))
        assert again[-1].completed.content == first[-1].completed.content
        assert len(running.provider.requests) == 1
    assert check(tmp_path / "headrace.db") == []


async def test_a_running_request_and_one_whose_readers_may_come_back_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace_server.app.PRUNE_INTERVAL", 0.02)
    async with service(tmp_path, retention_requests=60, retention_chunks=60, replay_window=24 * 3600) as running:
        call = running.generation.StreamGenerate(iter([command(request(model="n1000-d20"))]))
        await call.read()
        await run(running, 1)
        await sql(tmp_path, "UPDATE provider_logs SET created_at = created_at - ?", (5 * DAY,))
        await sql(tmp_path, "UPDATE provider_logs SET end_time = end_time - ?", (DAY // 2,))  # within the window of a day
        await asyncio.sleep(0.1)
        assert await sql(tmp_path, "SELECT count(*) FROM provider_logs") == [(2,)]
        await sql(tmp_path, "UPDATE provider_logs SET end_time = end_time - ?", (DAY,))
        while await sql(tmp_path, "SELECT count(*) FROM provider_logs") != [(1,)]:
            await asyncio.sleep(0.01)
        assert await sql(tmp_path, "SELECT state FROM provider_logs") == [("streaming",)]
        call.cancel()


def test_a_retention_that_is_too_short_is_refused_and_chunks_expire_by_default() -> None:
    with pytest.raises(ConfigurationError, match="retention_requests"):
        load({"retention_requests": 1})
    settings = load({})
    assert (settings.retention_requests, settings.retention_metrics, settings.retention_chunks) == (None, None, 24 * 3600)
