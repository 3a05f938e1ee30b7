"""Stores to test, and rows to put into them."""

import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from headrace_server.domain.lifecycle import Event, State, Transition
from headrace_server.domain.record import LogRow, MetricsRow
from headrace_server.domain.request import GenerateRequest
from headrace_server.domain.result import Attempt
from headrace_server.store import MemoryStore, SqliteStore

NOW = 1_790_000_000_000


class Clock:
    """A wall clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


class Make:
    """Rows with everything filled in that a test does not care about."""

    def row(self, request_id: str | None = None, **fields: Any) -> LogRow:
        request_id = request_id or str(uuid.uuid4())
        request = GenerateRequest.model_validate(
            {"request_id": request_id, "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]}
        )
        values = {
            "id": str(uuid.uuid4()),
            "request_id": request_id,
            "provider": "claude",
            "model": "claude-sonnet-5-5",
            "state": State.VALIDATING,
            "request_data": request,
            "start_time": NOW,
            "transitions": (self.transition(State.IDLE, Event.INITIATE_REQUEST, State.VALIDATING),),
            "node": "here",
            "created_at": NOW,
            "updated_at": NOW,
        }
        return LogRow.model_validate(values | fields)

    def transition(self, before: State, event: Event, after: State) -> Transition:
        return Transition(from_state=before, to_state=after, event=event, time=NOW, provider="claude", model="claude-sonnet-5-5")

    def running(self, row: LogRow, state: State = State.REQUESTING, **fields: Any) -> LogRow:
        """The row one step on, with an attempt under way."""
        attempt = Attempt(provider=row.provider, model=row.model, state=state, start_time=NOW)
        return row.model_copy(update={"state": state, "attempts": (attempt,), "updated_at": row.updated_at + 5, **fields})

    def ended(self, row: LogRow, state: State = State.COMPLETED, **fields: Any) -> LogRow:
        """The row at its end."""
        end = row.updated_at + 5
        return row.model_copy(update={"state": state, "end_time": end, "duration": end - row.start_time, "updated_at": end, **fields})

    def metrics(self, row: LogRow, **fields: Any) -> MetricsRow:
        values = {
            "id": str(uuid.uuid4()),
            "request_id": row.request_id,
            "provider": "claude",
            "model": row.model,
            "success": True,
            "created_at": NOW,
        }
        return MetricsRow.model_validate(values | fields)


@pytest.fixture
def now() -> int:
    return NOW


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make() -> Make:
    return Make()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "headrace.db"


OpenStore = Callable[..., Any]


@pytest.fixture
async def open_sqlite(path: Path, clock: Clock) -> AsyncIterator[OpenStore]:
    """Opens stores on one file, as several processes would; closes them at the end."""
    opened: list[SqliteStore] = []

    async def open_one(node: str = "here", **options: Any) -> SqliteStore:
        store = SqliteStore(path, node=node, clock=clock, **options)
        await store.open()
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, clock: Clock, open_sqlite: OpenStore) -> AsyncIterator[Any]:
    """An open store of each kind, node `here`."""
    if request.param == "sqlite":
        yield await open_sqlite()
    else:
        memory = MemoryStore(node="here", clock=clock)
        await memory.open()
        yield memory
        await memory.close()


@pytest.fixture
def sql(path: Path) -> Iterator[Callable[..., list[Any]]]:
    """Runs one statement on the file of the SQLite store, from outside; the rows that it gives."""

    def run(statement: str, values: Any = ()) -> list[Any]:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA foreign_keys = ON")
            return connection.execute(statement, values).fetchall()

    return run
