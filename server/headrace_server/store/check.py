"""`headrace db check`: what must hold of a database at any moment, also while it is served.

It is read in one transaction, so what is compared belongs together; nothing is written and no writer waits. Verified is:

- the file: SQLite's integrity check, the foreign keys (so that metrics and kept chunks have their request), and the schema's version;
- that every row of every table can be read as what it is;
- each request: it has ended, or its process is alive; its last transition is its state; what has ended has a time of end;
- its metrics: of a completed request at most one line says success, of any other none (the lines may have been pruned);
- the sums: each is that of its rows;
- its kept chunks: without a gap from 0 on;
- reservations: their request runs;
- limits: `reserved` is the sum of the reservations. What is counted of `current_usage`, all but what a provider's word added (`lowered`),
  is never negative, and in a window for requests at most the number of calls on record that may fall into it. It may be less, for a
  limit counts from when it was set; the tokens of a call that was settled by its estimate are not on record, so that windows for
  tokens cannot be compared;
- spill files: none of a dead process is left, for its ends are not in the database yet.
"""

import socket
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import quote

from headrace_server.domain.analytics import HOUR
from headrace_server.domain.errors import CorruptRow, ReplaySafety
from headrace_server.domain.lifecycle import TERMINAL
from headrace_server.domain.limits import MINUTE, LimitType, Window
from headrace_server.domain.record import LogRow
from headrace_server.store.connection import BUSY_TIMEOUT
from headrace_server.store.counters import Held
from headrace_server.store.migrate import MigrationError, check_version
from headrace_server.store.nodes import is_alive
from headrace_server.store.rows import LOGS, METRICS, PROVIDERS, Table, held_from, window_from
from headrace_server.store.spill import SpillFile, spill_files
from headrace_server.store.sums import wrong_sums
from headrace_server.store.transaction import SELECT_HELD, SELECT_LOGS, SELECT_METRICS, SELECT_WINDOWS

DAY = 25 * 60 * MINUTE
"""The longest calendar day that there is, in milliseconds."""
SLACK = 5_000
"""Milliseconds between the time of a call's end that its row tells and the one at which it was counted, at most."""

CountChunks = Callable[[bytes], int]
"""How many chunks a kept payload holds. Raises an exception for one that cannot be read."""


def check(path: Path, *, now: int | None = None, count_chunks: CountChunks | None = None) -> list[str]:
    """Everything that is wrong with a database, one line each. `now` in milliseconds since the epoch; default: the system's time."""
    now = int(time() * 1000) if now is None else now
    found: list[str] = []
    try:
        with closing(open_snapshot(path)) as db:
            for finding in chain(_file(db), _Check(db, now, count_chunks).findings(), _spill_files(path)):
                found.append(finding)  # noqa: PERF402 - one by one, so that those before an error are told
    except MigrationError as error:
        found.append(str(error))
    except (sqlite3.Error, OSError) as error:
        found.append(f"{path} cannot be read: {error}")
    return found


def open_snapshot(path: Path) -> sqlite3.Connection:
    """A connection that reads a database as it is now, and keeps no writer waiting. Raises sqlite3.Error, MigrationError."""
    db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, timeout=BUSY_TIMEOUT / 1000)
    try:
        db.execute("BEGIN")
        check_version(db, path)
    except BaseException:
        db.close()
        raise
    return db


def count_requests(path: Path) -> int:
    """How many requests are on record. Raises sqlite3.Error, MigrationError."""
    with closing(open_snapshot(path)) as db:
        return int(db.execute("SELECT count(*) FROM provider_logs").fetchone()[0])


def _file(db: sqlite3.Connection) -> Iterator[str]:
    yield from (f"the file is damaged: {told}" for (told,) in db.execute("PRAGMA integrity_check") if told != "ok")
    for table, rowid, parent, _ in db.execute("PRAGMA foreign_key_check").fetchall():
        (request_id,) = db.execute(f"SELECT request_id FROM {table} WHERE rowid = ?", (rowid,)).fetchone()
        yield f"{table} row {rowid}: its request {request_id} is not in {parent}"


def _spill_files(database: Path) -> Iterator[str]:
    for path in spill_files(database).values():
        if (file := SpillFile.take(path)) is not None:
            if lines := file.lines():
                yield f"{path} holds {len(lines)} ends of requests that are not in the database; the next start writes them"
            file.close()


@dataclass(slots=True)
class _Calls:
    """The calls on record that may have been counted in a window for requests."""

    window: Window
    begin: int
    number: int = 0

    def see(self, row: LogRow) -> None:
        for attempt in row.attempts:
            ended = attempt.start_time + (attempt.duration or 0)
            is_its = (attempt.provider, attempt.model) == (self.window.provider, self.window.model)
            self.number += is_its and ended >= self.begin and attempt.replay_safety is not ReplaySafety.NOT_SENT


@dataclass(slots=True)
class _Check:
    """One look at the tables of an open snapshot."""

    db: sqlite3.Connection
    now: int
    count_chunks: CountChunks | None
    unreadable: list[str] = field(default_factory=list)

    def findings(self) -> Iterator[str]:
        living = self._living()
        windows = list(self._decoded(SELECT_WINDOWS, window_from))
        held = list(self._decoded(SELECT_HELD, held_from))
        calls = [_Calls(window, begin) for window in windows if (begin := self._begin(window)) is not None]
        running = set()
        for row in self._rows(SELECT_LOGS, LOGS):
            for window in calls:
                window.see(row)
            if row.state not in TERMINAL:
                running.add(row.request_id)
            yield from (f"request {row.request_id}: {what}" for what in _request(row, living))
        yield from self._metrics()
        for kind, length, begin, number in wrong_sums(self.db):
            yield f"sums of {kind}, {length // HOUR} h from {begin} on: {number} are not those of their rows"
        yield from self._chunks()
        for _ in self._rows(f"SELECT {', '.join(PROVIDERS.names())} FROM provider_configs", PROVIDERS):
            pass  # that they can be read is all
        yield from _reservations(held, running, living)
        yield from _limits(windows, held)
        yield from (_overcounted(window) for window in calls if _counted(window.window) > window.number)
        yield from self.unreadable

    def _rows(self, statement: str, table: Table[Any]) -> Iterator[Any]:
        return self._decoded(statement, table.decode)

    def _decoded(self, statement: str, decode: Callable[[Sequence[Any]], Any]) -> Iterator[Any]:
        """The rows that can be read."""
        for record in self.db.execute(statement):
            try:
                yield decode(record)
            except CorruptRow as error:
                self.unreadable.append(str(error))

    def _living(self) -> set[str]:
        nodes = self.db.execute("SELECT id, host, pid FROM nodes WHERE lease_until > ?", (self.now,))
        here = socket.gethostname()
        return {id for id, host, pid in nodes if host != here or is_alive(pid)}

    def _begin(self, window: Window) -> int | None:
        """From when on calls may count in a window; None where that cannot be said: it is over, or some may have been pruned."""
        if window.limit_type is LimitType.TOKENS_PER_MINUTE or window.reset_at <= self.now:
            return None
        length = DAY if window.limit_type is LimitType.REQUESTS_PER_DAY else MINUTE
        begin = window.reset_at - length - SLACK
        # Pruning takes the oldest first: where an older request is there, all later ones are.
        older = "SELECT 1 FROM provider_logs WHERE created_at < ? AND end_time < ? LIMIT 1"
        return begin if self.db.execute(older, (begin, begin)).fetchone() else None

    def _metrics(self) -> Iterator[str]:
        for _ in self._rows(SELECT_METRICS, METRICS):
            pass
        told = self.db.execute(
            "SELECT log.request_id, log.state, sum(line.success) FROM provider_logs AS log JOIN provider_metrics AS line USING (request_id)"
            " GROUP BY log.request_id HAVING sum(line.success) > (log.state = 'completed')"
        )
        yield from (f"request {request_id}: it is {state}, and {n} lines of its metrics say success" for request_id, state, n in told)

    def _chunks(self) -> Iterator[str]:
        expected: defaultdict[str, int] = defaultdict(int)
        for request_id, first, count, payload in self.db.execute(
            "SELECT request_id, first_index, chunk_count, payload FROM stream_chunks ORDER BY request_id, first_index"
        ):
            if first != expected[request_id]:
                yield f"request {request_id}: kept chunk {expected[request_id]} is followed by {first}"
            expected[request_id] = first + count
            if self.count_chunks is not None:
                yield from self._payload(request_id, first, count, payload)

    def _payload(self, request_id: str, first: int, count: int, payload: bytes) -> Iterator[str]:
        assert self.count_chunks is not None
        try:
            found = self.count_chunks(payload)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it is the finding
            yield f"request {request_id}: the chunks kept from {first} on cannot be read: {type(error).__name__}"
        else:
            if found != count:
                yield f"request {request_id}: {found} chunks are kept from {first} on, not {count}"


def _request(row: LogRow, living: set[str]) -> Iterator[str]:
    if row.state not in TERMINAL:
        if row.node not in living:
            yield f"it stands in {row.state}, and its process {row.node or '?'} is dead"
    elif row.end_time is None:
        yield f"it is {row.state} and has no time of end"
    if row.transitions and row.transitions[-1].to_state is not row.state:
        yield f"it is {row.state}, and its last transition leads to {row.transitions[-1].to_state}"


def _reservations(held: Iterable[Held], running: set[str], living: set[str]) -> Iterator[str]:
    for one in held:
        what = f"request {one.reservation.request_id}: its attempt {one.reservation.attempt} holds a reservation"
        if one.node not in living:
            yield f"{what}, and its process {one.node or '?'} is dead"
        elif one.reservation.request_id not in running:
            yield f"{what}, and it does not run"


def _limits(windows: Iterable[Window], held: Iterable[Held]) -> Iterator[str]:
    expected: Counter[tuple[str, str, LimitType]] = Counter()
    for one in held:
        for limit_type in one.limit_types:
            amount = one.reservation.tokens if limit_type is LimitType.TOKENS_PER_MINUTE else 1
            expected[one.reservation.provider, one.reservation.model, limit_type] += amount
    for window in windows:
        reserved = expected.pop((window.provider, window.model, window.limit_type), 0)
        if window.reserved != reserved:
            yield f"{_name(window)}: {window.reserved} are reserved, the reservations make {reserved}"
        if _counted(window) < 0:
            yield f"{_name(window)}: {window.current_usage} are counted, and a provider's word added {window.lowered} of them"
    yield from (f"limit {' '.join(key)}: {amount} are reserved, and there is no counter" for key, amount in expected.items())


def _counted(window: Window) -> int:
    """What was settled in the window, without what a provider's word added."""
    return window.current_usage - window.lowered


def _overcounted(calls: _Calls) -> str:
    return f"{_name(calls.window)}: {_counted(calls.window)} are counted, and {calls.number} calls are on record"


def _name(window: Window) -> str:
    return f"limit {window.provider} {window.model} {window.limit_type}"
