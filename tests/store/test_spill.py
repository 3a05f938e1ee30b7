"""Ends of requests while the database takes no writes: into the spill file, and from there into the database, once."""

import asyncio
import errno
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace_server.domain.errors import StoreUnavailable
from headrace_server.domain.lifecycle import State
from headrace_server.domain.limits import LimitType
from headrace_server.domain.message import TextPart
from headrace_server.domain.ports import Reservation, Settlement
from headrace_server.domain.result import GenerationResult
from headrace_server.domain.usage import Usage, UsageSource
from headrace_server.store.nodes import LEASE
from headrace_server.store.spill import ROOM, End, SpillFile, UnreadableEnd, spill_files
from headrace_server.store.spilling import SpillingStore
from support.store import salvaged

Sql = Callable[..., list[Any]]
Open = Callable[..., Awaitable[SpillingStore]]
RPM, TPM = LimitType.REQUESTS_PER_MINUTE, LimitType.TOKENS_PER_MINUTE


@pytest.fixture
async def open_store(path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Open]:
    """Opens stores on one file that give up on another program's lock soon; closes them at the end."""
    monkeypatch.setattr("headrace_server.store.connection.BUSY_TIMEOUT", 20)
    opened: list[SpillingStore] = []

    async def open_one(node: str = "here") -> SpillingStore:
        store = SpillingStore(path, node=node, clock=clock)
        await store.open()
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        await store.close()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program holds the lock for writing."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def file_of(path: Path, node: str = "here") -> Path:
    return spill_files(path)[node]


def text_of(file: Path) -> bytes:
    return file.read_bytes().rstrip(b"\0")


def reservation(request_id: str) -> Reservation:
    return Reservation(request_id=request_id, attempt=1, provider="claude", model="m", tokens=100)


async def under_way(store: SpillingStore, make: Any, now: int, **fields: Any) -> Any:
    """A request with a call out and a reservation."""
    row = make.row(model="m", **fields)
    await store.accept(row)
    assert await store.reserve(reservation(row.request_id), {RPM: 10, TPM: 1_000}, now) is None
    running = make.running(row)
    await store.update(running)
    return running


def end_of(make: Any, running: Any) -> tuple[Any, list[Any], list[Settlement]]:
    usage = Usage(input_tokens=3, output_tokens=4, total_tokens=7, source=UsageSource.PROVIDER)
    attempt = running.attempts[0].model_copy(update={"state": State.COMPLETED, "usage": usage, "duration": 5})
    row = make.ended(running, response_data=GenerationResult(content=(TextPart(text="héllo"),), usage=usage), attempts=(attempt,))
    return row, [make.metrics(row)], [Settlement(reservation=reservation(row.request_id), tokens=7, left={RPM: 4})]


# ---------------------------------------------------------------- a store that fails at the end


async def test_an_end_is_kept_in_the_file_and_replayed_once_when_the_database_is_back(
    path: Path, open_store: Open, make: Any, now: int, sql: Sql
) -> None:
    store = await open_store()
    row, metrics, settlements = end_of(make, await under_way(store, make, now))
    with locked(path):
        assert await store.finish(row, metrics, settlements) == row
        with pytest.raises(StoreUnavailable):
            await store.ping()
    assert row.request_id.encode() in text_of(file_of(path))
    assert sql("SELECT state FROM provider_logs") == [("requesting",)]

    for _ in range(3):
        await store.ping()
    assert await store.get(row.request_id) == row
    assert await store.list_metrics(row.request_id) == metrics
    assert {window.limit_type: (window.current_usage, window.reserved) for window in await store.list_windows()} == {
        RPM: (6, 0),  # the provider said that four are left of ten
        TPM: (7, 0),
    }
    assert sql("SELECT count(*) FROM rate_limit_reservations") == [(0,)]
    assert text_of(file_of(path)) == b""


async def test_an_end_in_the_file_is_what_get_tells_while_the_row_is_behind(path: Path, open_store: Open, make: Any, now: int) -> None:
    store = await open_store()
    row, metrics, settlements = end_of(make, await under_way(store, make, now))
    with locked(path):
        await store.finish(row, metrics, settlements)
        assert await store.get(row.request_id) == row


async def test_ends_come_while_others_are_replayed(path: Path, open_store: Open, make: Any, now: int, sql: Sql) -> None:
    store = await open_store()
    ends = [end_of(make, await under_way(store, make, now)) for _ in range(10)]
    with locked(path):
        await asyncio.gather(*(store.finish(*end) for end in ends[:5]))
        late = [asyncio.create_task(store.finish(*end)) for end in ends[5:]]
        await asyncio.sleep(0.01)
    await asyncio.gather(store.ping(), store.ping(), *late)
    await store.ping()

    assert sql("SELECT count(*) FROM provider_logs WHERE state = 'completed'") == [(10,)]
    assert sql("SELECT count(*) FROM provider_metrics") == [(10,)]
    assert text_of(file_of(path)) == b""


async def test_the_error_is_the_databases_when_the_file_takes_nothing_either(
    path: Path, open_store: Open, make: Any, now: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = await open_store()
    row, metrics, settlements = end_of(make, await under_way(store, make, now))

    def full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with locked(path), monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.finish(row, metrics, settlements)
    assert "No space left on device" in caplog.text
    assert text_of(file_of(path)) == b""
    await store.ping()
    assert (await store.get(row.request_id)).state is State.REQUESTING


async def test_an_end_of_another_hand_stands_when_the_file_is_replayed(path: Path, open_store: Open, make: Any, now: int, sql: Sql) -> None:
    store = await open_store()
    row, metrics, settlements = end_of(make, await under_way(store, make, now))
    with locked(path):
        await store.finish(row, metrics, settlements)
    sql("UPDATE provider_logs SET state = 'failed', error_code = 'interrupted', end_time = 1")
    await store.ping()

    assert sql("SELECT state FROM provider_logs") == [("failed",)]
    assert sql("SELECT count(*) FROM provider_metrics") == [(0,)]
    assert text_of(file_of(path)) == b""


# ---------------------------------------------------------------- processes that die with a file


async def test_an_end_is_replayed_at_the_next_start_when_the_process_stops_before(
    path: Path, open_store: Open, make: Any, now: int, sql: Sql
) -> None:
    store = await open_store()
    row, metrics, settlements = end_of(make, await under_way(store, make, now))
    with locked(path):
        await store.finish(row, metrics, settlements)
        await store.close()
    assert sql("SELECT state FROM provider_logs") == [("requesting",)]

    again = await open_store("next")
    assert await again.get(row.request_id) == row
    assert await again.recover("next", now + LEASE * 2, salvaged) == []
    assert await again.list_metrics(row.request_id) == metrics
    assert {window.limit_type: window.current_usage for window in await again.list_windows()} == {RPM: 6, TPM: 7}
    assert list(spill_files(path)) == ["next"]


KILLED_WITH_AN_END = """
import asyncio, os, signal, sys
from pathlib import Path
from headrace_server.store import connection
from headrace_server.store.spill import End
from headrace_server.store.spilling import SpillingStore
connection.BUSY_TIMEOUT = 20

async def run(path):
    store = SpillingStore(Path(path), node="killed", clock=lambda: 1_790_000_000_000)
    await store.open()
    end = End.from_line(sys.stdin.buffer.read().rstrip(b"\\n"))
    await store.finish(end.row, end.metrics, end.settlements)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(run(sys.argv[1]))
"""


async def test_an_end_is_replayed_before_the_dead_processs_requests_are_interrupted_when_it_was_killed(
    path: Path, open_store: Open, make: Any, now: int
) -> None:
    store = await open_store()
    running = await under_way(store, make, now, node="killed")
    row, metrics, settlements = end_of(make, running)
    line = End(row=row, metrics=tuple(metrics), settlements=tuple(settlements)).to_line()
    command = [sys.executable, "-c", KILLED_WITH_AN_END, str(path)]
    process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE)
    assert process.stdin is not None
    opened = asyncio.create_task(process.wait())
    while "killed" not in spill_files(path) and not opened.done():
        await asyncio.sleep(0.005)
    with locked(path):
        process.stdin.write(line)
        process.stdin.close()
        assert await opened == -signal.SIGKILL

    assert await store.recover("here", now, salvaged) == []
    assert await store.get(row.request_id) == row
    assert list(spill_files(path)) == ["here"]


async def test_the_requests_of_a_process_whose_lease_ran_out_are_left_alone_while_it_holds_its_file(
    path: Path, open_store: Open, make: Any, now: int, clock: Any
) -> None:
    first, second = await open_store("first"), await open_store("second")
    running = await under_way(first, make, now, node="first")
    clock.now += LEASE * 2
    assert await second.recover("second", clock.now, salvaged) == []
    assert (await second.get(running.request_id)).state is State.REQUESTING

    await first.close()
    (ended,) = await second.recover("second", clock.now, salvaged)
    assert ended.request_id == running.request_id


# ---------------------------------------------------------------- what cannot be replayed


async def test_what_cannot_be_replayed_stays_in_the_file_and_is_told_once(
    path: Path, open_store: Open, make: Any, now: int, caplog: pytest.LogCaptureFixture
) -> None:
    store = await open_store()
    ends = [end_of(make, await under_way(store, make, now)) for _ in range(4)]
    whole, damaged, refused, torn = (End(row=row, metrics=tuple(m), settlements=tuple(s)).to_line() for row, m, s in ends)
    damaged = damaged.replace(b"claude", b"gemini")
    refused_row, refused_metrics, _ = ends[2]
    refused = End(row=refused_row, metrics=(refused_metrics[0].model_copy(update={"provider": "Not A Name"}),), settlements=()).to_line()
    left = path.with_name(f"{path.name}.dead.spill")
    content = whole + damaged + refused + torn[:-40]
    left.write_bytes(content + bytes(100))

    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            await store.recover("here", now, salvaged)
    assert [(await store.get(row.request_id)).state for row, _, _ in ends] == [State.COMPLETED] + [State.REQUESTING] * 3
    assert text_of(left) == content
    (told,) = [record.getMessage() for record in caplog.records]
    assert "dead.spill" in told
    assert "line 2 is cut off or damaged" in told
    assert "line 3 provider_" in told
    assert "line 4 is cut off or damaged" in told


def test_a_line_is_unreadable_when_it_is_cut_anywhere(make: Any) -> None:
    row, metrics, settlements = end_of(make, make.running(make.row()))
    line = End(row=row, metrics=tuple(metrics), settlements=tuple(settlements)).to_line().rstrip(b"\n")
    assert End.from_line(line).row == row
    for cut in range(len(line)):
        with pytest.raises(UnreadableEnd):
            End.from_line(line[:cut])


def test_a_line_is_unreadable_when_another_version_wrote_it(make: Any) -> None:
    row, *_ = end_of(make, make.running(make.row()))
    line = End(row=row, metrics=(), settlements=()).to_line()
    body = line.split(b" ", 1)[1].rstrip(b"\n").replace(b'"state":', b'"status":')
    with pytest.raises(UnreadableEnd, match="cannot be read: 'state'"):
        End.from_line(b"%08x %b" % (zlib.crc32(body), body))


# ---------------------------------------------------------------- the file


def test_room_is_kept_on_the_disk_while_nothing_is_in_the_file(path: Path) -> None:
    file = SpillFile.make(path, "here")
    assert file_of(path).stat().st_blocks * 512 >= ROOM
    end = file.append(b"a line\n")
    file.clear(end)
    assert file_of(path).stat().st_blocks * 512 >= ROOM
    assert file.lines() == []
    file.close()
    assert spill_files(path) == {}


def test_lines_written_later_survive_when_the_file_is_cleared(path: Path) -> None:
    file = SpillFile.make(path, "a/node with spaces")
    first = file.append(b"one\n")
    file.append(b"two\n")
    file.clear(first)
    assert file.lines() == [b"one", b"two"]
    file.close()
    assert text_of(file_of(path, "a/node with spaces")) == b"one\ntwo\n"


def test_a_write_that_fails_half_way_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = SpillFile.make(path, "here")
    file.append(b"one\n")
    pwrite = os.pwrite
    left = [5]

    def fills_up(descriptor: int, data: bytes, offset: int) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 5
        return pwrite(descriptor, data[:5], offset)

    monkeypatch.setattr(os, "pwrite", fills_up)
    with pytest.raises(OSError, match="No space"):
        file.append(b"two, which does not fit\n")
    monkeypatch.undo()
    file.append(b"3\n")
    assert file.lines() == [b"one", b"3"]
    file.close()


def test_a_file_is_taken_only_when_its_process_has_ended(path: Path) -> None:
    mine = SpillFile.make(path, "here")
    mine.append(b"one\n")
    assert SpillFile.take(file_of(path)) is None
    mine.close()
    taken = SpillFile.take(file_of(path))
    assert taken is not None
    assert SpillFile.take(taken.path) is None
    assert taken.lines() == [b"one"]
    taken.remove()
    assert SpillFile.take(taken.path) is None
