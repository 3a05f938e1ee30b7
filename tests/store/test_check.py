"""`check` finds what it says it finds, and nothing in a database that is well."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace_server.domain.lifecycle import State
from headrace_server.domain.limits import LimitType
from headrace_server.domain.ports import Reservation, Settlement
from headrace_server.store.check import DAY, check
from headrace_server.store.migrate import migrate
from headrace_server.store.nodes import LEASE
from headrace_server.store.spill import End, SpillFile
from headrace_server.store.sqlite import SqliteStore

Sql = Callable[..., list[Any]]
RPM, TPM, RPD = LimitType.REQUESTS_PER_MINUTE, LimitType.TOKENS_PER_MINUTE, LimitType.REQUESTS_PER_DAY
LONG_AGO = 2 * DAY


class Filled:
    """A store with one request of each kind: ended long ago, ended now with kept chunks, failed, and one that runs."""

    def __init__(self, store: SqliteStore, path: Path, make: Any, now: int) -> None:
        self.store, self.path, self.make, self.now = store, path, make, now

    async def fill(self) -> "Filled":
        make, now = self.make, self.now
        old = self.told(make.ended(make.row(start_time=now - LONG_AGO, created_at=now - LONG_AGO, updated_at=now - LONG_AGO)))
        await self.store.accept(old)
        self.done = await self.run(State.COMPLETED)
        self.failed = await self.run(State.FAILED)
        self.running = await self.begin()
        for request in (self.done, self.running):
            await self.store.keep_events(request.request_id, 0, 2, b"xx", now)
            await self.store.keep_events(request.request_id, 2, 1, b"x", now)
        return self

    async def begin(self) -> Any:
        row = self.make.row(model="m")
        await self.store.accept(row)
        limits = {RPM: 10, TPM: 1_000, RPD: 10}
        assert await self.store.reserve(self.reservation(row.request_id), limits, self.now) is None
        running = self.told(self.make.running(row))
        await self.store.update(running)
        return running

    async def run(self, state: State) -> Any:
        running = await self.begin()
        attempt = running.attempts[0].model_copy(update={"state": state, "duration": 5})
        ended = self.told(self.make.ended(running, state, attempts=(attempt,)))
        metrics = [self.make.metrics(ended, success=state is State.COMPLETED)]
        await self.store.finish(ended, metrics, [Settlement(reservation=self.reservation(ended.request_id), tokens=7)])
        return ended

    def told(self, row: Any) -> Any:
        """With the transition that led to its state."""
        last = row.transitions[-1]
        return row.model_copy(update={"transitions": (*row.transitions, self.make.transition(last.to_state, last.event, row.state))})

    def reservation(self, request_id: str) -> Reservation:
        return Reservation(request_id=request_id, attempt=1, provider="claude", model="m", tokens=100)

    def check(self, **more: Any) -> list[str]:
        return check(self.path, now=self.now, count_chunks=len, **more)


@pytest.fixture
async def filled(open_sqlite: Any, path: Path, make: Any, now: int) -> Filled:
    return await Filled(await open_sqlite(), path, make, now).fill()


async def test_nothing_is_found_when_all_is_well(filled: Filled) -> None:
    assert filled.check() == []


async def test_nothing_is_found_when_a_provider_said_that_little_is_left(filled: Filled, sql: Sql) -> None:
    running = await filled.begin()
    left = {RPM: 2, TPM: 50, RPD: 1}
    await filled.store.settle(Settlement(reservation=filled.reservation(running.request_id), tokens=7, left=left), filled.now)
    assert sql("SELECT limit_type, lowered FROM provider_rate_limits ORDER BY 1") == [
        ("requests_per_day", 5),
        ("requests_per_minute", 4),
        ("tokens_per_minute", 829),
    ]
    assert filled.check() == []


async def test_nothing_is_written_and_no_writer_waits_while_it_is_served(filled: Filled, sql: Sql) -> None:
    before = sql("SELECT * FROM provider_logs")
    filled.check()
    assert sql("SELECT * FROM provider_logs") == before
    await filled.run(State.COMPLETED)


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        (
            "UPDATE provider_rate_limits SET reserved = 3 WHERE limit_type = 'requests_per_day'",
            "limit claude m requests_per_day: 3 are reserved, the reservations make 1",
        ),
        (
            "UPDATE provider_rate_limits SET reserved = 0 WHERE limit_type = 'tokens_per_minute'",
            "limit claude m tokens_per_minute: 0 are reserved, the reservations make 100",
        ),
        (
            "DELETE FROM provider_rate_limits WHERE limit_type = 'tokens_per_minute'",
            "limit claude m tokens_per_minute: 100 are reserved, and there is no counter",
        ),
        (
            "UPDATE provider_rate_limits SET current_usage = 4 WHERE limit_type = 'requests_per_minute'",
            "limit claude m requests_per_minute: 4 are counted, and 3 calls are on record",
        ),
        (
            "UPDATE provider_rate_limits SET current_usage = 9 WHERE limit_type = 'requests_per_day'",
            "limit claude m requests_per_day: 9 are counted, and 3 calls are on record",
        ),
        (
            "UPDATE provider_rate_limits SET current_usage = 9, lowered = 5 WHERE limit_type = 'requests_per_minute'",
            "limit claude m requests_per_minute: 4 are counted, and 3 calls are on record",
        ),
        (
            "UPDATE provider_rate_limits SET lowered = 20 WHERE limit_type = 'tokens_per_minute'",
            "limit claude m tokens_per_minute: 14 are counted, and a provider's word added 20 of them",
        ),
        ("DELETE FROM stream_chunks WHERE request_id = '{done}' AND first_index = 0", "request {done}: kept chunk 0 is followed by 2"),
        (
            "UPDATE stream_chunks SET chunk_count = 3 WHERE request_id = '{done}' AND first_index = 0",
            "request {done}: kept chunk 3 is followed by 2",
        ),
        (
            "UPDATE stream_chunks SET payload = X'00' WHERE request_id = '{done}' AND first_index = 0",
            "request {done}: 1 chunks are kept from 0 on, not 2",
        ),
        (
            "UPDATE stream_chunks SET payload = 7 WHERE request_id = '{done}' AND first_index = 2",
            "request {done}: the chunks kept from 2 on cannot be read: TypeError",
        ),
        ("UPDATE provider_metrics SET success = 1", "request {failed}: it is failed, and 1 lines of its metrics say success"),
        ("UPDATE provider_logs SET end_time = NULL WHERE request_id = '{done}'", "request {done}: it is completed and has no time of end"),
        (
            "UPDATE provider_logs SET state = 'failed' WHERE request_id = '{done}'",
            "request {done}: it is failed, and its last transition leads to completed",
        ),
        (
            "UPDATE provider_logs SET state = 'failed', end_time = 1 WHERE request_id = '{running}'",
            "request {running}: its attempt 1 holds a reservation, and it does not run",
        ),
        ("DELETE FROM nodes", "request {running}: it stands in requesting, and its process here is dead"),
        ("DELETE FROM nodes", "request {running}: its attempt 1 holds a reservation, and its process here is dead"),
        ("UPDATE provider_logs SET user_id = char(7) WHERE request_id = '{done}'", "provider_logs row {id}: column user_id is corrupt"),
        (
            "UPDATE provider_logs SET request_data = 'none' WHERE request_id = '{done}'",
            "provider_logs row {id}: column request_data is corrupt",
        ),
        ("UPDATE provider_metrics SET cost_micro_usd = 'dear' WHERE request_id = '{done}'", "column cost_micro_usd is corrupt"),
        ("UPDATE provider_configs SET fallback_providers = '7' WHERE provider = 'claude'", "column fallback_providers is corrupt"),
        ("UPDATE rate_limit_reservations SET limit_types = '[\"x\"]'", "column limit_types is corrupt"),
        ("UPDATE provider_rate_limits SET reset_at = 'soon'", "column reset_at is corrupt"),
        (
            "UPDATE schema_migrations SET checksum = 'x' WHERE version = '0002'",
            "the migration 0002_views.sql was changed after it was applied",
        ),
        ("DELETE FROM schema_migrations WHERE version = '0003'", "0003_default_providers.sql is not applied; run `headrace db migrate`"),
    ],
)
async def test_what_is_wrong_is_found(filled: Filled, sql: Sql, statement: str, finding: str) -> None:
    names = {"done": filled.done.request_id, "failed": filled.failed.request_id, "running": filled.running.request_id, "id": filled.done.id}
    sql(statement.format(**names) if "{" in statement else statement)
    found = filled.check()
    assert any(finding.format(**names) in line for line in found), found


async def test_rows_without_their_request_are_found(filled: Filled, path: Path) -> None:
    with sqlite3.connect(path) as connection:  # foreign keys are off
        connection.execute("UPDATE provider_metrics SET request_id = 'nobody' WHERE request_id = ?", (filled.done.request_id,))
        connection.execute("DELETE FROM provider_logs WHERE request_id = ?", (filled.done.request_id,))
        connection.execute("UPDATE provider_metrics SET request_id = ? WHERE request_id = 'nobody'", (filled.done.request_id,))
    connection.close()
    found = filled.check()
    assert sum("is not in provider_logs" in line and filled.done.request_id in line for line in found) == 3
    assert any(line.startswith("provider_metrics row") for line in found)
    assert any(line.startswith("stream_chunks row") for line in found)


async def test_a_window_is_not_compared_when_it_is_over_or_its_requests_may_be_gone(filled: Filled, sql: Sql) -> None:
    sql("UPDATE provider_rate_limits SET current_usage = 99 WHERE limit_type <> 'tokens_per_minute'")
    assert sum("are counted" in line for line in filled.check()) == 2
    assert not any("are counted" in line for line in check(filled.path, now=filled.now + 2 * DAY))
    sql("DELETE FROM provider_logs WHERE created_at < ?", (filled.now - DAY,))
    assert not any("are counted" in line for line in filled.check())


async def test_a_process_is_dead_when_its_lease_has_run_out(filled: Filled) -> None:
    found = check(filled.path, now=filled.now + LEASE + 1)
    assert any("its process here is dead" in line for line in found)


async def test_ends_in_a_dead_processs_spill_file_are_found(filled: Filled) -> None:
    file = SpillFile.make(filled.path, "gone")
    file.append(End(row=filled.done, metrics=(), settlements=()).to_line())
    assert not any("ends of requests" in line for line in filled.check())  # its process holds the lock
    file.close()
    assert any("headrace.db.gone.spill holds 1 ends of requests" in line for line in filled.check())


def test_a_missing_a_foreign_and_a_damaged_file_are_findings(path: Path) -> None:
    (found,) = check(path)
    assert "unable to open" in found
    assert not path.exists()

    sqlite3.connect(path).execute("CREATE TABLE notes (x)").connection.close()
    (found,) = check(path)
    assert found.endswith("is no database of Headrace")
    os.unlink(path)

    path.write_bytes(b"these are notes and no database " * 100)
    (found,) = check(path)
    assert "not a database" in found
    os.unlink(path)

    migrate(path)
    assert check(path) == []
    with path.open("r+b") as file:
        file.seek(8 * 4096)
        file.write(os.urandom(4096 * 4))
    assert any("damaged" in line or "malformed" in line for line in check(path))


async def test_kept_chunks_have_no_gap_when_the_write_of_some_was_lost(filled: Filled, sql: Sql) -> None:
    request_id = filled.running.request_id
    await filled.store.keep_events(request_id, 5, 1, b"x", filled.now)  # 3 and 4 never came
    assert sql("SELECT max(first_index) FROM stream_chunks WHERE request_id = ?", (request_id,)) == [(2,)]
    await filled.store.keep_events(request_id, 3, 1, b"x", filled.now)
    assert len(await filled.store.kept_events(request_id)) == 3
    assert filled.check() == []
