"""Copies of a database that is written to all the while."""

import asyncio
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from headrace_server.store import MigrationError
from headrace_server.store.backup import backup
from headrace_server.store.check import check, count_requests


async def write_until(stop: asyncio.Event, store: Any, make: Any) -> int:
    """Run requests one after the other."""
    number = 0
    while not stop.is_set() or not number:
        row = make.row(user_id="x" * 200)
        await store.accept(row)
        ended = make.ended(make.running(row))
        ended = ended.model_copy(
            update={"transitions": (*row.transitions, make.transition(row.state, row.transitions[0].event, ended.state)), "attempts": ()}
        )
        await store.finish(ended, [make.metrics(ended)], [])
        number += 1
    return number


async def test_a_backup_is_whole_when_it_is_made_under_load(
    open_sqlite: Any, path: Path, tmp_path: Path, make: Any, now: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace_server.store.backup.PAGES", 4)  # so that hundreds of commits fall between its steps
    store = await open_sqlite()
    stop = asyncio.Event()
    writers = [asyncio.create_task(write_until(stop, store, make)) for _ in range(4)]
    while count_requests(path) < 50:
        await asyncio.sleep(0.01)
    target = tmp_path / "copy.db"
    at_the_start = count_requests(path)
    await asyncio.to_thread(backup, path, target)
    at_the_end = count_requests(path)
    stop.set()
    await asyncio.gather(*writers)

    assert check(target, now=now) == []
    assert at_the_start <= count_requests(target) < at_the_end
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sorted(file.name for file in tmp_path.iterdir() if file.name.startswith("copy")) == ["copy.db"]


async def test_a_backup_can_be_served_when_it_takes_the_databases_place(open_sqlite: Any, path: Path, tmp_path: Path, make: Any) -> None:
    store = await open_sqlite()
    row = make.row()
    await store.accept(row)
    backup(path, tmp_path / "copy.db")
    await store.close()
    for file in path.parent.glob("headrace.db*"):
        file.unlink()
    (tmp_path / "copy.db").rename(path)

    again = await open_sqlite("next")
    assert await again.get(row.request_id) == row


async def test_nothing_is_overwritten(open_sqlite: Any, path: Path, tmp_path: Path) -> None:
    await open_sqlite()
    target = tmp_path / "copy.db"
    target.write_text("precious")
    with pytest.raises(FileExistsError):
        backup(path, target)
    assert target.read_text() == "precious"
    with pytest.raises(FileExistsError):
        backup(path, path)


async def test_nothing_is_left_when_the_copy_fails(open_sqlite: Any, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await open_sqlite()

    def fails(_: float) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr("headrace_server.store.backup.PAGES", 4)
    monkeypatch.setattr("time.sleep", fails)
    with pytest.raises(sqlite3.OperationalError):
        backup(path, tmp_path / "copy.db")
    assert not list(tmp_path.glob("copy*"))


def test_a_file_of_another_program_is_refused(path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (x)")
    with pytest.raises(MigrationError):
        backup(path, tmp_path / "copy.db")
    assert not list(tmp_path.glob("copy*"))
