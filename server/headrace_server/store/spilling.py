"""The SQLite store with a spill file: the end of a request is told once it is in the database or in that file, and never lost."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from headrace_server.domain.errors import CorruptRow, StoreUnavailable
from headrace_server.domain.ports import Salvage, Settlement, WallClock
from headrace_server.domain.record import LogRow, MetricsRow
from headrace_server.store.connection import Database, Durability
from headrace_server.store.nodes import LEASE
from headrace_server.store.spill import End, SpillFile, UnreadableEnd, spill_files
from headrace_server.store.sqlite import SqliteStore

T = TypeVar("T")

_log = logging.getLogger(__name__)


class SpillingStore(SqliteStore):
    """A SqliteStore whose `finish` goes to the spill file where the database takes no writes.

    What is there is written to the database by the next `ping` that gets through: `finish` changes nothing where a row has ended, so
    doing it twice is the same as once. The files of dead processes are replayed at start and by `recover`, before it ends what they
    left running.
    """

    def __init__(self, path: Path, *, node: str, durability: Durability = Durability.NORMAL, readers: int = 4, clock: WallClock) -> None:
        super().__init__(path, node=node, durability=durability, readers=readers, clock=clock)
        self._spill: SpillFile | None = None
        self._disk: ThreadPoolExecutor
        self._waiting: dict[str, End] = {}
        """The ends that are in the file and not yet in the database, by request id."""
        self._spilled_to = 0
        self._given_up: set[Path] = set()
        """Files that hold what cannot be replayed; said once, and left to a person or another version."""
        self._holds_unwritable = False
        """Whether this process's own file does."""

    async def open(self) -> None:
        """See Store.open."""
        await super().open()
        # One thread, so that what is done to the file is done in order, also when whoever waits for it is cancelled.
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spill")
        try:
            await self._replay_dead()
            self._spill = await self._on_disk(partial(SpillFile.make, self._path, self._node_id))
        except BaseException as error:
            self._disk.shutdown()
            await super().close()
            if isinstance(error, OSError):
                raise StoreUnavailable(f"{self._path}: the spill file cannot be made: {error}") from error
            raise

    async def close(self) -> None:
        """See Store.close. What the database does not take now waits in the file for the next start."""
        spill, self._spill = self._spill, None
        if spill is not None:
            if self._waiting:
                with contextlib.suppress(StoreUnavailable):
                    await self._replay(spill)
            await self._on_disk(spill.close)
            self._disk.shutdown()
        await super().close()

    async def ping(self) -> None:
        """See Store.ping: well is a store that takes writes and has every end."""
        await super().ping()
        if self._spill is not None and self._waiting:
            await self._replay(self._spill)

    # ------------------------------------------------------------ ends

    async def finish(self, row: LogRow, metrics: Sequence[MetricsRow], settlements: Sequence[Settlement]) -> LogRow:
        """See Journal.finish."""
        try:
            return await super().finish(row, metrics, settlements)
        except StoreUnavailable as error:
            if self._spill is None:
                raise
            await self._put_by(self._spill, End(row=row, metrics=tuple(metrics), settlements=tuple(settlements)), error)
            return row

    async def get(self, request_id: str) -> LogRow | None:
        """See Journal.get. An end in the spill file is as good as committed."""
        waiting = self._waiting.get(request_id)
        return await super().get(request_id) if waiting is None else waiting.row

    async def _put_by(self, spill: SpillFile, end: End, why: StoreUnavailable) -> None:
        where = {"request_id": end.row.request_id}
        line = end.to_line()
        try:
            self._spilled_to = await self._on_disk(partial(spill.append, line))
        except OSError as error:
            _log.error("the end of a request fits neither into the database (%s) nor into %s: %s", why, spill.path, error, extra=where)
            raise why from error
        self._waiting[end.row.request_id] = end
        _log.warning("the end of a request waits in %s: %s", spill.path, why, extra=where)

    async def _replay(self, spill: SpillFile) -> None:
        """Write to the database what waits, then clear the file. Raises StoreUnavailable."""
        everything, end_of_file = list(self._waiting.items()), self._spilled_to
        for request_id, end in everything:
            try:
                await super().finish(end.row, end.metrics, end.settlements)
                _log.info("the end of a request was written from the spill file", extra={"request_id": request_id})
            except CorruptRow as error:
                self._holds_unwritable = True
                _log.error("the end of a request stays in %s: %s", spill.path, error, extra={"request_id": request_id})
            self._waiting.pop(request_id, None)
        if not self._holds_unwritable:
            try:
                await self._on_disk(partial(spill.clear, end_of_file))
            except OSError as error:
                _log.warning("%s has no room kept for the next ends: %s", spill.path, error)

    # ------------------------------------------------------------ other processes' files

    async def recover(self, node: str, now: int, salvage: Salvage) -> list[LogRow]:
        """See Store.recover. What a dead process has spilled has not been interrupted, and one that holds its file's lock is alive."""
        await self._vouch_for(await self._replay_dead())
        return await super().recover(node, now, salvage)

    async def _replay_dead(self) -> list[str]:
        """Write to the database what dead processes have spilled; the nodes that are alive. Raises StoreUnavailable."""
        living = []
        try:
            for node, path in (await self._on_disk(partial(spill_files, self._path))).items():
                if path in self._given_up or (self._spill is not None and path == self._spill.path):
                    continue
                if (file := await self._on_disk(partial(SpillFile.take, path))) is None:
                    living.append(node)
                    continue
                all_done = False
                try:
                    all_done = await self._replay_file(file)
                finally:
                    await self._on_disk(file.remove if all_done else file.close)
        except OSError as error:
            raise StoreUnavailable(f"the spill files cannot be read: {error}") from error
        return living

    async def _replay_file(self, file: SpillFile) -> bool:
        """Whether everything in it is in the database now. Raises StoreUnavailable."""
        done, left = 0, []
        for number, line in enumerate(await self._on_disk(file.lines), start=1):
            try:
                end = End.from_line(line)
                await super().finish(end.row, end.metrics, end.settlements)
                done += 1
            except (UnreadableEnd, CorruptRow) as error:
                left.append(f"line {number} {error}")
        if done:
            _log.info("%d ends of requests were written from %s", done, file.path)
        if left:
            self._given_up.add(file.path)
            _log.error("ends of requests stay in %s, for they cannot be written to the database: %s", file.path, "; ".join(left))
        return not left

    async def _vouch_for(self, nodes: Sequence[str]) -> None:
        """Renew the leases of processes that are alive: while the database was locked they could not do it themselves."""
        if not nodes:
            return

        async def run(db: Database) -> None:
            lease = self._clock() + LEASE
            await db.executemany("UPDATE nodes SET lease_until = max(lease_until, ?) WHERE id = ?", [(lease, node) for node in nodes])

        await self._work(run)

    async def _on_disk(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)
