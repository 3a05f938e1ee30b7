"""What one transaction does: the rows that its operations touch are read, the operations carried out in memory in their order, and
the outcome written by one statement of each kind. The number of round trips to the database does not grow with that of operations.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import uuid4

from headrace_server.domain.lifecycle import TERMINAL, State
from headrace_server.domain.limits import LimitType, Refused
from headrace_server.domain.ports import Reservation, Settlement
from headrace_server.domain.record import LogRow
from headrace_server.store.connection import Database
from headrace_server.store.counters import Counters, settlement_of
from headrace_server.store.recovery import is_refused
from headrace_server.store.rows import (
    HELD_COLUMNS,
    LOGS,
    METRICS,
    PROGRESS,
    WINDOW_COLUMNS,
    held_from,
    held_values,
    keep_fixed,
    window_from,
    window_values,
)


def _list(columns: Iterable[str], form: str = "{}") -> str:
    return ", ".join(form.format(column) for column in columns)


def _marks(columns: Sequence[str]) -> str:
    return ", ".join("?" * len(columns))


_TERMINAL = _list(sorted(TERMINAL), "'{}'")
_COUNTED = ("limit_value", "current_usage", "previous_usage", "reserved", "reset_at", "lowered")

SELECT_LOGS = f"SELECT {_list(LOGS.names())} FROM provider_logs"
SELECT_METRICS = f"SELECT {_list(METRICS.names())} FROM provider_metrics"
SELECT_WINDOWS = f"SELECT id, {_list(WINDOW_COLUMNS)} FROM provider_rate_limits"
SELECT_HELD = f"SELECT {_list(HELD_COLUMNS)} FROM rate_limit_reservations"

_LOGS_OF = f"{SELECT_LOGS} WHERE request_id IN (SELECT value FROM json_each(?))"
_STANDING = f"""SELECT asked.value, log.state, {_list(HELD_COLUMNS, "held.{}")} FROM json_each(?) AS asked
    LEFT JOIN provider_logs AS log ON log.request_id = asked.value
    LEFT JOIN rate_limit_reservations AS held ON held.request_id = asked.value"""
_WINDOWS_OF = f"""{SELECT_WINDOWS} WHERE (provider, model) IN
    (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"""

# Only a row that validation refused is ever replaced: the others are left out before.
_INSERT_LOG = f"""INSERT INTO provider_logs ({_list(LOGS.names())}) VALUES ({_marks(LOGS.names())})
    ON CONFLICT (request_id) DO UPDATE SET {_list(LOGS.names(), "{0} = excluded.{0}")}, revision = revision + 1"""
_UPDATE_LOG = f"""UPDATE provider_logs SET {_list(PROGRESS.names(), "{} = ?")}, revision = revision + 1
    WHERE request_id = ? AND state NOT IN ({_TERMINAL})"""
_INSERT_METRICS = f"INSERT INTO provider_metrics ({_list(METRICS.names())}) VALUES ({_marks(METRICS.names())})"
_SAVE_WINDOW = f"""INSERT INTO provider_rate_limits (id, created_at, updated_at, {_list(WINDOW_COLUMNS)})
    VALUES (?, ?, ?, {_marks(WINDOW_COLUMNS)}) ON CONFLICT (provider, model, limit_type) DO UPDATE
    SET {_list((*_COUNTED, "updated_at"), "{0} = excluded.{0}")}, revision = revision + 1"""
# What does not follow the last piece is left out: one before it was lost, and readers must not meet a gap.
_KEEP = """INSERT INTO stream_chunks (request_id, first_index, chunk_count, payload, created_at) SELECT ?1, ?2, ?3, ?4, ?5
    WHERE ?2 = coalesce((SELECT first_index + chunk_count FROM stream_chunks WHERE request_id = ?1 ORDER BY first_index DESC LIMIT 1), 0)"""
_INSERT_HELD = f"INSERT INTO rate_limit_reservations ({_list(HELD_COLUMNS)}) VALUES ({_marks(HELD_COLUMNS)})"
_DELETE_HELD = "DELETE FROM rate_limit_reservations WHERE request_id = ? AND attempt = ?"


Values = list[Any]
"""A row as it is written. Rows are encoded before they are queued: while the database is at work on others, and so that one that
cannot be written is refused alone."""


def update_values(row: LogRow) -> Values:
    """The values of an update. Raises CorruptRow."""
    return [*PROGRESS.encode(row), row.request_id]


@dataclass(slots=True)
class Plan:
    """The touched rows as they stand after the operations so far, and what is to be written of them."""

    node: str
    now: int = 0
    """The time of the last reservation or settlement, in milliseconds since the epoch."""
    rows: dict[str, LogRow] = field(default_factory=dict)
    states: dict[str, State] = field(default_factory=dict)
    """Of rows that were not read in full."""
    counters: Counters = field(default_factory=Counters)
    inserted: dict[str, Values] = field(default_factory=dict)
    updated: dict[str, Values] = field(default_factory=dict)
    metrics: list[Values] = field(default_factory=list)
    kept: list[Values] = field(default_factory=list)
    _read: Counters = field(default_factory=Counters)

    def state(self, request_id: str) -> State | None:
        """How a request stands; None where no row was read."""
        row = self.rows.get(request_id)
        return self.states.get(request_id) if row is None else row.state

    def insert(self, row: LogRow, values: Values) -> None:
        """A new row, or one that takes another's place."""
        self.rows[row.request_id] = row
        self.inserted[row.request_id] = values
        self.updated.pop(row.request_id, None)

    def update(self, row: LogRow, values: Values) -> None:
        """A row that is there, unless the database knows it to be terminal. Of several updates the last one is written."""
        self.updated[row.request_id] = values
        standing = self.rows.get(row.request_id)
        if standing is not None:
            self.rows[row.request_id] = keep_fixed(standing, row)

    async def read_counters(self, db: Database, targets: Iterable[tuple[str, str]]) -> None:
        """Read the windows of providers and models."""
        for record in await db.execute_fetchall(_WINDOWS_OF, (json.dumps(sorted(set(targets))),)):
            window = window_from(record)
            self.counters.windows[window.provider, window.model, window.limit_type] = window
        self._read = Counters(windows=dict(self.counters.windows), held=dict(self.counters.held))

    async def write(self, db: Database) -> None:
        """Write everything that has changed."""
        if self.inserted:
            await db.executemany(_INSERT_LOG, self.inserted.values())
        if self.updated:
            await db.executemany(_UPDATE_LOG, self.updated.values())
        if self.kept:
            await db.executemany(_KEEP, self.kept)
        if self.metrics:
            await db.executemany(_INSERT_METRICS, self.metrics)
        old, new = self._read, self.counters
        if windows := [window for key, window in new.windows.items() if old.windows.get(key) != window]:
            await db.executemany(_SAVE_WINDOW, [[str(uuid4()), self.now, self.now, *window_values(window)] for window in windows])
        if gone := [key for key, held in old.held.items() if new.held.get(key) != held]:
            await db.executemany(_DELETE_HELD, gone)
        if added := [held for key, held in new.held.items() if old.held.get(key) != held]:
            await db.executemany(_INSERT_HELD, [held_values(held) for held in added])


class Operation(Protocol):
    """Something to do in a transaction."""

    def apply(self, plan: Plan) -> Any:
        """Do it, in memory; the result for the caller."""
        ...


@dataclass(frozen=True, slots=True)
class Accept:
    """See Journal.accept."""

    row: LogRow
    values: Values

    def apply(self, plan: Plan) -> LogRow | None:
        """None, or the row that is there already."""
        standing = plan.rows.get(self.row.request_id)
        if standing is not None and not is_refused(standing):
            return standing
        plan.insert(self.row, self.values)
        return None


@dataclass(frozen=True, slots=True)
class Update:
    """See Journal.update."""

    row: LogRow
    values: Values

    def apply(self, plan: Plan) -> None:
        """Nothing to tell."""
        if plan.state(self.row.request_id) not in TERMINAL:
            plan.update(self.row, self.values)


@dataclass(frozen=True, slots=True)
class Keep:
    """See Journal.keep_events."""

    values: Values

    def apply(self, plan: Plan) -> None:
        """Nothing to tell."""
        plan.kept.append(self.values)


@dataclass(frozen=True, slots=True)
class Finish:
    """See Journal.finish. What the request still holds is settled as well, whether it was named or not."""

    row: LogRow
    values: Values
    metrics: Sequence[Values]
    settlements: Sequence[Settlement]

    def apply(self, plan: Plan) -> LogRow:
        """The row that stands."""
        request_id, now = self.row.request_id, self.row.updated_at
        plan.now = now
        for settlement in self.settlements:
            plan.counters.settle(settlement, now)
        for held in plan.counters.of(request_id):
            plan.counters.settle(settlement_of(held, self.row), now)
        state = plan.state(request_id)
        if state in TERMINAL:
            return plan.rows[request_id]
        if state is None:
            plan.insert(self.row, LOGS.encode(self.row))
        else:
            plan.update(self.row, self.values)
            plan.rows[request_id] = self.row
        plan.metrics += self.metrics
        return self.row


@dataclass(frozen=True, slots=True)
class Reserve:
    """See Journal.reserve."""

    reservation: Reservation
    limits: Mapping[LimitType, int]
    now: int

    def apply(self, plan: Plan) -> Refused | None:
        """None, or the window that is full."""
        plan.now = self.now
        return plan.counters.reserve(self.reservation, self.limits, plan.node, self.now)


@dataclass(frozen=True, slots=True)
class Settle:
    """See Journal.settle."""

    settlement: Settlement
    now: int

    def apply(self, plan: Plan) -> None:
        """Nothing to tell."""
        plan.now = self.now
        plan.counters.settle(self.settlement, self.now)


@dataclass(frozen=True, slots=True)
class Work:
    """Rare work with statements of its own, done after the others of its transaction."""

    run: Callable[[Database], Awaitable[Any]]


async def carry_out(db: Database, operations: Sequence[Operation | Work], node: str) -> list[Any]:
    """Carry out operations in an open transaction; the result of each."""
    plan = Plan(node)
    await _read(db, plan, operations)
    results = [None if isinstance(operation, Work) else operation.apply(plan) for operation in operations]
    await plan.write(db)
    for i, operation in enumerate(operations):
        if isinstance(operation, Work):
            results[i] = await operation.run(db)
    return results


async def _read(db: Database, plan: Plan, operations: Sequence[Operation | Work]) -> None:
    """Read what the operations must know. A plain update needs nothing: its statement leaves terminal rows alone."""
    whole, standing = set(), set()
    targets = set()
    for operation in operations:
        match operation:
            case Accept(row):
                whole.add(row.request_id)
            case Finish(row):
                standing.add(row.request_id)
            case Reserve(reservation) | Settle(Settlement(reservation=reservation)):
                standing.add(reservation.request_id)
                targets.add((reservation.provider, reservation.model))
    if standing:
        await _read_standing(db, plan, standing)
        finished = {operation.row.request_id for operation in operations if isinstance(operation, Finish)}
        whole |= {request_id for request_id in finished if plan.states.get(request_id) in TERMINAL}
    if whole:
        await read_rows(db, plan, whole)
    targets |= {(held.reservation.provider, held.reservation.model) for held in plan.counters.held.values()}
    if targets:
        await plan.read_counters(db, targets)


async def _read_standing(db: Database, plan: Plan, request_ids: Iterable[str]) -> None:
    for request_id, state, *held in await db.execute_fetchall(_STANDING, (json.dumps(sorted(request_ids)),)):
        if state is not None:
            plan.states[request_id] = State(state)
        if held[0] is not None:
            plan.counters.held[held[0], held[1]] = held_from(held)


async def read_rows(db: Database, plan: Plan, request_ids: Iterable[str]) -> None:
    """Read rows in full."""
    for record in await db.execute_fetchall(_LOGS_OF, (json.dumps(sorted(request_ids)),)):
        row = LOGS.decode(record)
        plan.rows[row.request_id] = row
