"""Group commit: one writer takes everything that waits, writes it in one transaction, and answers everybody at once.

It never waits in order to gather more: while one transaction is being committed the next one's operations gather by themselves. A
lone operation pays for one commit, under load a commit is shared by hundreds.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from headrace_server.domain.errors import CorruptRow, StoreUnavailable
from headrace_server.store.connection import Database, WriterConnection, is_busy, is_damage, unavailable

BUSY_TRIES = 3
"""How often a transaction is tried when another program holds the lock; each try waits for the busy timeout."""


Transaction = Callable[[Database, list[Any]], Awaitable[list[Any]]]
"""Carries out operations in one open transaction; one result for each."""


@dataclass(slots=True)
class _Waiting:
    operation: Any
    answer: asyncio.Future[Any]

    def succeed(self, result: Any) -> None:
        if not self.answer.done():
            self.answer.set_result(result)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Writer:
    """The only one who writes. `check` is called before each transaction and raises StoreUnavailable where writing is pointless."""

    def __init__(self, connection: WriterConnection, transaction: Transaction, check: Callable[[], None]) -> None:
        self._connection = connection
        self._transaction = transaction
        self._check = check
        self._waiting: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._damage = ""
        """What the database said of its file, once that is broken."""
        self._task = asyncio.create_task(self._run(), name="store writer")

    def submit(self, operation: Any) -> asyncio.Future[Any]:
        """Queue an operation; the result is there once it is committed. It is carried out even if nobody waits for it.

        The result raises what the operation raised, or StoreUnavailable. Raises StoreUnavailable once the writer is closing.
        """
        if self._closing:
            raise StoreUnavailable("the store is closed")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(operation, answer))
        self._wake.set()
        return answer

    async def close(self) -> None:
        """Commit everything that waits, then disconnect."""
        self._closing = True
        self._wake.set()
        await self._task
        await self._connection.close()

    async def _run(self) -> None:
        while self._waiting or not self._closing:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                # Whoever is ready at this moment comes along: a transaction costs more than what it holds.
                await asyncio.sleep(0)
                batch, self._waiting = self._waiting, []
                await self._commit(batch)

    async def _commit(self, batch: list[_Waiting]) -> None:
        try:
            results = await self._try([waiting.operation for waiting in batch])
        except StoreUnavailable as error:
            for waiting in batch:
                waiting.fail(StoreUnavailable(str(error)))
        except Exception as error:  # noqa: BLE001 - whatever an operation raises is its caller's, and must not stop the writer
            if len(batch) == 1:
                batch[0].fail(_named(error, batch[0].operation))
            else:
                # One of them is wrong; alone, each stands or falls for itself.
                for waiting in batch:
                    await self._commit([waiting])
        else:
            for waiting, result in zip(batch, results, strict=True):
                waiting.succeed(result)

    async def _try(self, operations: list[Any]) -> list[Any]:
        for _ in range(BUSY_TRIES - 1):
            try:
                return await self._once(operations)
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
        try:
            return await self._once(operations)
        except sqlite3.OperationalError as error:
            raise unavailable(error) or error from error

    async def _once(self, operations: list[Any]) -> list[Any]:
        self._check()
        if self._damage:
            # Pages that are still whole would take rows on, and health would call well what refuses every request.
            raise StoreUnavailable(self._damage)

        async def transact(db: Database) -> list[Any]:
            await db.execute("BEGIN IMMEDIATE")
            results = await self._transaction(db, operations)
            await db.execute("COMMIT")
            return results

        try:
            # Alone, an operation is done soonest all at once. Where many wait, the loop would fight for the interpreter with a thread
            # that needs it all along, and batches would be smaller: that cost a fifth more (bench/run.py).
            results = await (self._connection.at_once(transact) if len(operations) == 1 else transact(self._connection))
        except BaseException as error:
            await self._roll_back()
            if isinstance(error, Exception) and not is_busy(error) and (gone := unavailable(error)):
                self._damage = str(gone) if is_damage(error) else ""
                raise gone from error
            raise
        return results

    async def _roll_back(self) -> None:
        # SQLite has often rolled back by itself; if this fails as well, the next transaction tells.
        with contextlib.suppress(sqlite3.Error, ValueError):
            if self._connection.in_transaction:
                await self._connection.execute("ROLLBACK")


def _named(error: Exception, operation: Any) -> Exception:
    """The database's own refusal of a row, with the row's name."""
    row = getattr(operation, "row", None)
    if row is None or not isinstance(error, sqlite3.Error | OverflowError | UnicodeError):
        return error
    return CorruptRow("provider_logs", row.id, "?", "it is no valid Unicode" if isinstance(error, UnicodeError) else str(error))
