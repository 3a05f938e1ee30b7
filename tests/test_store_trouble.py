"""A store in trouble: no provider is called that could not be put on record, no end is lost, health tells, and all is well afterwards."""

import asyncio
import contextlib
import os
import re
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from headrace.v1 import generation_service_pb2_grpc, request_pb2, request_service_pb2
from headrace_server.app import check_store, running
from headrace_server.domain.errors import StoreUnavailable
from headrace_server.fake_provider import FakeProvider, Step
from support.service import Service, command, details, events_of, kinds, request, service, settings
from support.trouble import NOT_SERVING, SERVING, a_lock, full, health_turns, locked, read_only, status_of


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as ever, sooner."""
    monkeypatch.setattr("headrace_server.store.connection.BUSY_TIMEOUT", 20)
    monkeypatch.setattr("headrace_server.app.HEALTH_INTERVAL", 0.02)


async def refused_by_storage(running: Service, wanted: request_pb2.GenerateRequest) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.generation.Generate(wanted)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert details(caught.value)["ErrorInfo"].metadata["subreason"] == "STORAGE"


async def row_of(running: Service, request_id: str) -> tuple[Any, ...] | None:
    store: Any = running.app.store
    rows = await store._readers.fetch("SELECT state, error_code FROM provider_logs WHERE request_id = ?", (request_id,))
    return tuple(rows[0]) if rows else None


async def is_row(running: Service, request_id: str, expected: tuple[Any, ...]) -> bool:
    return await row_of(running, request_id) == expected


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.01)


# ---------------------------------------------------------------- at admission


@pytest.mark.parametrize("trouble", [a_lock, read_only, full])
async def test_nobody_is_called_and_nothing_is_written_when_the_store_fails_at_admission(tmp_path: Path, trouble: Any) -> None:
    database = tmp_path / "headrace.db"
    async with service(tmp_path) as running:
        wanted = request("x" * 100_000)
        async with trouble(running, database):
            await refused_by_storage(running, wanted)
            events = []
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                events += await events_of(running.generation.StreamGenerate(iter([command(wanted)])))
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "completed" not in kinds(events)
        assert running.provider.requests == []
        assert await row_of(running, wanted.request_id) is None

        # The same id may be tried again: nothing of it is on record.
        await until(lambda: row_is_taken(running, wanted))
        assert len(running.provider.requests) == 1
    assert check_store(database) == []


async def row_is_taken(running: Service, wanted: request_pb2.GenerateRequest) -> bool:
    with contextlib.suppress(grpc.aio.AioRpcError):
        await running.generation.Generate(wanted)
    return await row_of(running, wanted.request_id) == ("completed", None)


@pytest.mark.parametrize("trouble", [a_lock, read_only])
async def test_health_is_not_serving_while_the_store_takes_no_writes(
    tmp_path: Path, trouble: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with service(tmp_path) as running:
        assert await status_of(running.channel) == SERVING
        async with trouble(running, tmp_path / "headrace.db"):
            await health_turns(running.channel, NOT_SERVING)
        await health_turns(running.channel, SERVING)
        await running.generation.Generate(request())
    assert "the store is out of reach" in caplog.text


@pytest.mark.parametrize("spares_leases", [False, True], ids=["damaged everywhere", "but for the page that health writes"])
async def test_a_damaged_file_is_told_while_serving_and_at_the_next_start(tmp_path: Path, spares_leases: bool) -> None:
    database = tmp_path / "headrace.db"
    async with service(tmp_path) as running:
        await running.generation.Generate(request())
        await asyncio.to_thread(empty_log, database)
        if spares_leases:
            await running.app.store.ping()  # from here on that page stands in the write-ahead log
        await asyncio.to_thread(damage, database)
        wanted = request()
        await refused_by_storage(running, wanted)
        await health_turns(running.channel, NOT_SERVING)
        assert len(running.provider.requests) == 1
    assert check_store(database) != []
    async with FakeProvider() as provider:
        with pytest.raises(StoreUnavailable, match="damaged"):
            async with running_app(tmp_path, provider):
                pass


def running_app(tmp_path: Path, provider: FakeProvider) -> Any:
    return running(settings(tmp_path, provider))


def empty_log(database: Path) -> None:
    """No page is in the write-ahead log any more, nor in the memory of a connection."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("UPDATE provider_configs SET priority = priority + 1")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def damage(database: Path) -> None:
    """Overwrite all pages of the file but the first."""
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(database.stat().st_size - 4096))


# ---------------------------------------------------------------- while a request runs


@pytest.mark.parametrize("trouble", [a_lock, read_only])
async def test_an_answer_is_told_as_complete_and_recorded_once_when_the_store_fails_at_its_end(tmp_path: Path, trouble: Any) -> None:
    database = tmp_path / "headrace.db"
    async with service(tmp_path) as running:
        wanted = request(model="n30-d20")
        call = running.generation.StreamGenerate(iter([command(wanted)]))
        stream = aiter(call)
        events = [*(await anext(stream)).events]
        await until(lambda: is_row(running, wanted.request_id, ("streaming", None)))
        async with trouble(running, database):
            events += await events_of(stream)
            assert kinds(events)[-1] == "completed"
            assert await call.code() is grpc.StatusCode.OK
            record = (await running.requests.GetRequest(request_service_pb2.GetRequestRequest(request_id=wanted.request_id))).request
            assert record.response_data == events[-1].completed
            assert await row_of(running, wanted.request_id) == ("streaming", None)
            await health_turns(running.channel, NOT_SERVING)
        await health_turns(running.channel, SERVING)
        assert await row_of(running, wanted.request_id) == ("completed", None)
        assert len(running.provider.requests) == 1
        again = await events_of(running.generation.StreamGenerate(iter([command(wanted)])))
        assert again[-1] == events[-1]
        assert check_store(database) == []


async def test_the_next_attempt_is_not_sent_when_its_intent_cannot_be_written(tmp_path: Path) -> None:
    database = tmp_path / "headrace.db"
    async with service(tmp_path, [Step(status=500)]) as running:
        wanted = request(retry=request_pb2.RetryConfig(max_attempts=3, initial_delay={"nanos": 400_000_000}))
        call = running.generation.StreamGenerate(iter([command(wanted)]))
        stream = aiter(call)
        events = [*(await anext(stream)).events]
        await until(lambda: is_row(running, wanted.request_id, ("retrying", None)))
        async with locked(database):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for response in stream:
                    events += response.events
            assert details(caught.value)["ErrorInfo"].metadata["subreason"] == "STORAGE"
            assert kinds(events)[-1] == "failed"
        await health_turns(running.channel, SERVING)
        await until(lambda: is_row(running, wanted.request_id, ("failed", "server_error")))
        assert len(running.provider.requests) == 1
        assert check_store(database) == []


async def test_limits_are_settled_once_when_the_end_was_spilled(tmp_path: Path) -> None:
    async with FakeProvider() as provider:
        limits = {"rate_limit_rpd": 100, "rate_limit_tpm": 100_000}
        fake = {"dialect": "openai", "api_url": provider.api_url("openai"), "default_model": "echo", **limits}
        async with service(tmp_path, providers={"fake": fake}) as running:
            wanted = request(model="n30-d20")
            stream = aiter(running.generation.StreamGenerate(iter([command(wanted)])))
            events = [*(await anext(stream)).events]
            await until(lambda: is_row(running, wanted.request_id, ("streaming", None)))
            async with locked(tmp_path / "headrace.db"):
                events += await events_of(stream)
                await health_turns(running.channel, NOT_SERVING)
            await health_turns(running.channel, SERVING)
            windows = {str(window.limit_type): window for window in await running.app.store.list_windows()}
    tokens, requests = windows["tokens_per_minute"], windows["requests_per_day"]
    assert (requests.current_usage, requests.reserved, tokens.reserved) == (1, 0, 0)
    assert tokens.current_usage + tokens.previous_usage == events[-1].completed.usage.total_tokens
    assert check_store(tmp_path / "headrace.db") == []


async def test_an_end_outlives_the_database_file(tmp_path: Path) -> None:
    database = tmp_path / "headrace.db"
    async with service(tmp_path) as first:
        wanted = request(model="n30-d20")
        call = first.generation.StreamGenerate(iter([command(wanted)]))
        stream = aiter(call)
        events = [*(await anext(stream)).events]
        await until(lambda: is_row(first, wanted.request_id, ("streaming", None)))
        for name in ("headrace.db", "headrace.db-wal", "headrace.db-shm"):
            (tmp_path / name).unlink()
        events += await events_of(stream)
        assert kinds(events)[-1] == "completed"
        await refused_by_storage(first, request())
        await health_turns(first.channel, NOT_SERVING)
    async with service(tmp_path) as second:
        again = await events_of(second.generation.StreamGenerate(iter([command(wanted)])))
        assert again[-1] == events[-1]
        assert second.provider.requests == []
    assert check_store(database) == []
    assert list(tmp_path.glob("*.spill")) == []


# ---------------------------------------------------------------- a slow disk


@pytest.fixture
def slow_commits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How many seconds each commit of a connection opened from now on takes; put a number in."""
    delay = [0.0]
    connect = sqlite3.connect

    class SlowConnection(sqlite3.Connection):
        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            if statement == "COMMIT":
                time.sleep(delay[0])
            return super().execute(statement, *values)

    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: connect(*args, **{"factory": SlowConnection, **kwargs}))
    return delay


async def test_requests_wait_for_a_slow_disk_and_are_whole(tmp_path: Path, slow_commits: list[float]) -> None:
    async with service(tmp_path) as running:
        slow_commits[0] = 0.1
        streams = [events_of(running.generation.StreamGenerate(iter([command(request())]))) for _ in range(5)]
        assert {kinds(events)[-1] for events in await asyncio.gather(*streams)} == {"completed"}
        assert await status_of(running.channel) == SERVING
        slow_commits[0] = 0
    assert check_store(tmp_path / "headrace.db") == []


async def test_a_request_ends_on_record_and_unsent_when_its_deadline_passes_while_the_disk_is_slow(
    tmp_path: Path, slow_commits: list[float]
) -> None:
    async with service(tmp_path) as running:
        slow_commits[0] = 0.3
        wanted = request()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.generation.Generate(wanted, timeout=0.1)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        slow_commits[0] = 0
        await until(lambda: is_ended(running, wanted.request_id))
        assert running.provider.requests == []
    assert check_store(tmp_path / "headrace.db") == []


async def is_ended(running: Service, request_id: str) -> bool:
    row = await row_of(running, request_id)
    return row is not None and row[0] == "failed"


# ---------------------------------------------------------------- a disk that is really full


@asynccontextmanager
async def process(tmp_path: Path, provider: FakeProvider) -> AsyncIterator[tuple[asyncio.subprocess.Process, grpc.aio.Channel]]:
    """`headrace serve` as a process of its own, whose files may be forbidden to grow."""
    config = tmp_path / "headrace.toml"
    config.write_text(f'[providers.fake]\ndialect = "openai"\napi_url = "{provider.api_url("openai")}"\ndefault_model = "echo"\n')
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "OTEL_"))}
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headrace_server", "serve", "--listen", "127.0.0.1:0"),
        *("--database", f"sqlite:///{tmp_path}/headrace.db", "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=plain,
    )
    assert started.stdout is not None
    try:
        found = re.search(r"127\.0\.0\.1:\d+", (await started.stdout.readline()).decode())
        assert found is not None
        async with grpc.aio.insecure_channel(found[0]) as channel:
            yield started, channel
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


def forbid_growth(pid: int, database: Path) -> None:
    """No file of the process grows beyond what the write-ahead log has now: as on a full disk."""
    import resource

    resource.prlimit(pid, resource.RLIMIT_FSIZE, (database.with_name(database.name + "-wal").stat().st_size, resource.RLIM_INFINITY))


def allow_growth(pid: int) -> None:
    import resource

    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


needs_prlimit = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forbid another process's files to grow")


@needs_prlimit
async def test_a_full_disk_refuses_new_requests_keeps_the_end_of_running_ones_and_recovers(tmp_path: Path) -> None:
    database = tmp_path / "headrace.db"
    async with FakeProvider() as provider, process(tmp_path, provider) as (headrace, channel):
        stub = generation_service_pb2_grpc.GenerationServiceStub(channel)
        wanted = request(model="n30-d20")
        call = stub.StreamGenerate(iter([command(wanted)]))
        stream = aiter(call)
        events = [*(await anext(stream)).events]
        await until(lambda: asyncio.to_thread(stands, database, "streaming"))
        forbid_growth(headrace.pid, database)
        events += await events_of(stream)
        assert kinds(events)[-1] == "completed"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(request())
        assert details(caught.value)["ErrorInfo"].metadata["subreason"] == "STORAGE"
        assert len(provider.requests) == 1
        await health_turns(channel, NOT_SERVING)

        allow_growth(headrace.pid)
        await health_turns(channel, SERVING)
        assert await asyncio.to_thread(stands, database, "completed")
        assert check_store(database) == []


@needs_prlimit
async def test_an_end_that_was_spilled_is_on_record_at_the_next_start_when_the_process_was_killed(tmp_path: Path) -> None:
    database = tmp_path / "headrace.db"
    async with FakeProvider() as provider:
        async with process(tmp_path, provider) as (headrace, channel):
            stub = generation_service_pb2_grpc.GenerationServiceStub(channel)
            wanted = request(model="n30-d20")
            call = stub.StreamGenerate(iter([command(wanted)]))
            stream = aiter(call)
            events = [*(await anext(stream)).events]
            await until(lambda: asyncio.to_thread(stands, database, "streaming"))
            forbid_growth(headrace.pid, database)
            events += await events_of(stream)
            headrace.send_signal(signal.SIGKILL)
            assert await headrace.wait() == -signal.SIGKILL
        assert kinds(events)[-1] == "completed"
        assert any("holds 1 ends of requests" in line for line in check_store(database))

        async with process(tmp_path, provider) as (_, channel):
            assert check_store(database) == []
            again = await events_of(generation_service_pb2_grpc.GenerationServiceStub(channel).StreamGenerate(iter([command(wanted)])))
            assert again[-1] == events[-1]
            assert len(provider.requests) == 1


def stands(database: Path, state: str) -> bool:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT state FROM provider_logs").fetchall() == [(state,)]
