"""Connections to a SQLite file, and what their failures mean."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import aiosqlite

from headrace_server.domain.errors import StoreUnavailable

BUSY_TIMEOUT = 2_000
"""Milliseconds that a statement waits for another program's lock."""

T = TypeVar("T")

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_GONE = {
    sqlite3.SQLITE_PERM: "access to the database file is refused",
    sqlite3.SQLITE_NOMEM: "the database is out of memory",
    sqlite3.SQLITE_READONLY: "the database is read-only",
    sqlite3.SQLITE_IOERR: "reading or writing the database file failed",
    sqlite3.SQLITE_CORRUPT: "the database file is damaged",
    sqlite3.SQLITE_FULL: "the disk of the database is full",
    sqlite3.SQLITE_CANTOPEN: "the database file cannot be opened",
    sqlite3.SQLITE_PROTOCOL: "the database's lock protocol failed",
    sqlite3.SQLITE_NOTADB: "the database file is no SQLite database",
}

_CLOSED = frozenset({"Connection closed", "no active connection", "Cannot operate on a closed database."})
"""What aiosqlite and sqlite3 say of a connection that was closed; there is no code for it."""


class Durability(StrEnum):
    """What a commit survives."""

    STRICT = "strict"
    """Loss of power: every commit is flushed to the disk."""
    NORMAL = "normal"
    """The death of the process at any instant."""
    RELAXED = "relaxed"
    """As NORMAL, but after a loss of power the file may be damaged."""


_SYNCHRONOUS = {Durability.STRICT: "FULL", Durability.NORMAL: "NORMAL", Durability.RELAXED: "OFF"}


def primary_code(error: Exception) -> int | None:
    """SQLite's code of an error, without the extension."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def is_busy(error: Exception) -> bool:
    """Whether another program holds the lock."""
    return primary_code(error) in _BUSY


def is_damage(error: Exception) -> bool:
    """Whether the file is broken, which it stays."""
    return primary_code(error) in _DAMAGE


def unavailable(error: Exception) -> StoreUnavailable | None:
    """What the caller is told of an error that is the database's and not the statement's; None for one of the statement's."""
    if is_busy(error):
        return StoreUnavailable("the database is locked by another program")
    if str(error) in _CLOSED:
        return StoreUnavailable("the store is closed")
    text = _GONE.get(primary_code(error) or 0)
    return None if text is None else StoreUnavailable(text)


class Cursor(Protocol):
    """What a statement has done."""

    @property
    def rowcount(self) -> int:
        """How many rows it changed."""
        ...


class Database(Protocol):
    """What statements are run on."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Awaitable[Cursor]:
        """Run a statement; its cursor."""
        ...

    def executemany(self, sql: str, parameters: Any, /) -> Awaitable[Any]:
        """Run a statement for each of many rows."""
        ...

    def execute_fetchall(self, sql: str, parameters: Any = ..., /) -> Awaitable[Iterable[Any]]:
        """Run a query; its rows."""
        ...


class WriterConnection(aiosqlite.Connection):
    """A connection that can run several statements with one hand-over to its thread."""

    async def at_once(self, work: Callable[[Database], Coroutine[Any, Any, T]]) -> T:
        """Run work that waits for nothing but the database, from its begin to its end, in the connection's own thread."""
        result: T = await self._execute(_run_here, work, self._conn)  # type: ignore[no-untyped-call]
        return result


def _run_here(work: Callable[[Database], Coroutine[Any, Any, T]], connection: sqlite3.Connection) -> T:
    """Nothing in it ever waits, so that its first step is its last."""
    way = work(_Here(connection))
    try:
        way.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    way.close()
    raise AssertionError("it waits for more than the database")


class _Here:
    """A connection as it is seen in its own thread: statements are done when they are called."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        return self._connection.execute(sql, parameters)

    async def executemany(self, sql: str, parameters: Any) -> sqlite3.Cursor:
        return self._connection.executemany(sql, parameters)

    async def execute_fetchall(self, sql: str, parameters: Any = ()) -> list[Any]:
        return self._connection.execute(sql, parameters).fetchall()


async def open_writer(path: Path, durability: Durability) -> WriterConnection:
    """The one connection that writes; transactions are begun by hand."""
    connection = WriterConnection(lambda: sqlite3.connect(path, isolation_level=None, cached_statements=64), iter_chunk_size=64)
    await connection
    await connection.executescript(
        f"PRAGMA busy_timeout = {BUSY_TIMEOUT}; PRAGMA synchronous = {_SYNCHRONOUS[durability]};"
        "PRAGMA foreign_keys = ON; PRAGMA cache_size = -32768; PRAGMA wal_autocheckpoint = 4000;"
    )
    return connection


async def open_reader(path: Path) -> aiosqlite.Connection:
    """A connection that cannot write."""
    connection = await aiosqlite.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)
    await connection.executescript(f"PRAGMA busy_timeout = {BUSY_TIMEOUT}; PRAGMA query_only = ON;")
    return connection


class Readers:
    """A bounded pool of connections for reading. A write-ahead log lets them read while the writer commits."""

    def __init__(self) -> None:
        self._all: list[aiosqlite.Connection] = []
        self._idle: asyncio.LifoQueue[aiosqlite.Connection] = asyncio.LifoQueue()

    async def open(self, path: Path, size: int) -> None:
        """Open all connections."""
        for _ in range(size):
            connection = await open_reader(path)
            self._all.append(connection)
            self._idle.put_nowait(connection)

    async def close(self) -> None:
        """Stop what is being read, and disconnect."""
        for connection in self._all:
            await connection.interrupt()
            await connection.close()
        self._all.clear()
        self._idle = asyncio.LifoQueue()

    async def fetch(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query. Raises StoreUnavailable."""
        if not self._all:
            raise StoreUnavailable("the store is not open")
        async with self._borrow() as connection:
            try:
                return list(await connection.execute_fetchall(sql, parameters))
            except (sqlite3.Error, ValueError) as error:
                raise unavailable(error) or error from error
            except asyncio.CancelledError:
                await connection.interrupt()
                raise

    @asynccontextmanager
    async def _borrow(self) -> AsyncIterator[aiosqlite.Connection]:
        idle = self._idle
        connection = await idle.get()
        try:
            yield connection
        finally:
            idle.put_nowait(connection)
