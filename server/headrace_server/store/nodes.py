"""Which processes are alive: each holds a lease that it renews. The requests of dead ones are ended."""

import json
import logging
import os
import socket
from dataclasses import dataclass

from headrace_server.domain.errors import CorruptRow, ErrorCode
from headrace_server.domain.lifecycle import TERMINAL, State
from headrace_server.domain.ports import Salvage
from headrace_server.domain.record import LogRow
from headrace_server.store.connection import Database
from headrace_server.store.counters import settlement_of
from headrace_server.store.recovery import INTERRUPTED, interrupted, metrics_of
from headrace_server.store.rows import LOGS, METRICS, held_from
from headrace_server.store.transaction import SELECT_HELD, SELECT_LOGS, Plan, read_rows, update_values

LEASE = 15_000
"""Milliseconds that a process counts as alive after it last said so."""
RENEWAL = 5.0
"""Seconds between renewals."""

_log = logging.getLogger(__name__)
_RUNNING = ", ".join(f"'{state}'" for state in State if state not in TERMINAL)


@dataclass(frozen=True, slots=True)
class Node:
    """This process."""

    id: str
    host: str
    pid: int
    started_at: int

    @classmethod
    def here(cls, node: str, now: int) -> "Node":
        """The process that calls."""
        return cls(id=node, host=socket.gethostname(), pid=os.getpid(), started_at=now)

    async def renew(self, db: Database, now: int) -> None:
        """Say that this process is alive."""
        await db.execute(
            "INSERT INTO nodes (id, host, pid, started_at, lease_until) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until",
            (self.id, self.host, self.pid, self.started_at, now + LEASE),
        )

    async def leave(self, db: Database) -> None:
        """Say that this process has ended."""
        await db.execute("DELETE FROM nodes WHERE id = ?", (self.id,))

    async def recover(self, db: Database, now: int, salvage: Salvage) -> list[LogRow]:
        """End the requests of dead processes and settle what they hold; the rows as they now are."""
        living = json.dumps(sorted(await self._living(db, now)))
        plan = Plan(self.id, now)
        not_living = "node NOT IN (SELECT value FROM json_each(?))"
        ended = []
        for record in await db.execute_fetchall(f"{SELECT_LOGS} WHERE state IN ({_RUNNING}) AND {not_living}", (living,)):
            try:
                running = LOGS.decode(record)
                row = interrupted(running, now, await _kept(db, running.request_id), salvage)
            except CorruptRow as error:
                await _end_corrupt(db, error, now)
            else:
                plan.rows[row.request_id] = row
                plan.update(row, update_values(row))
                plan.metrics += [METRICS.encode(line) for line in metrics_of(row)]
                ended.append(row)
        for record in await db.execute_fetchall(f"{SELECT_HELD} WHERE {not_living}", (living,)):
            held = held_from(record)
            plan.counters.held[held.reservation.request_id, held.reservation.attempt] = held
        if plan.counters.held:
            await self._settle(db, plan, now)
        await plan.write(db)
        await db.execute("DELETE FROM nodes WHERE id NOT IN (SELECT value FROM json_each(?))", (living,))
        return ended

    async def _living(self, db: Database, now: int) -> set[str]:
        nodes = await db.execute_fetchall("SELECT id, host, pid FROM nodes WHERE lease_until > ?", (now,))
        return {self.id} | {id for id, host, pid in nodes if host != self.host or is_alive(pid)}

    async def _settle(self, db: Database, plan: Plan, now: int) -> None:
        everything = list(plan.counters.held.values())
        await plan.read_counters(db, {(held.reservation.provider, held.reservation.model) for held in everything})
        # A request may have ended while its reservation stayed: its row says what was used.
        await read_rows(db, plan, {held.reservation.request_id for held in everything} - plan.rows.keys())
        for held in everything:
            plan.counters.settle(settlement_of(held, plan.rows.get(held.reservation.request_id)), now)


def is_alive(pid: int) -> bool:
    """Whether this machine has a process of this number. Where that cannot be asked, only the lease tells."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # It is there, and somebody else's.
    return True


async def _kept(db: Database, request_id: str) -> list[bytes]:
    rows = await db.execute_fetchall("SELECT payload FROM stream_chunks WHERE request_id = ? ORDER BY first_index", (request_id,))
    return [payload for (payload,) in rows]


async def _end_corrupt(db: Database, error: CorruptRow, now: int) -> None:
    """End a row that cannot be read, leaving what is in it: it must not keep the others from being recovered."""
    _log.error("the request of a dead process is ended without its history: %s", error)
    await db.execute(
        "UPDATE provider_logs SET state = ?, error_code = ?, error_message = ?, end_time = ?, updated_at = ?, revision = revision + 1"
        " WHERE id = ?",
        (State.FAILED.value, ErrorCode.INTERRUPTED.value, INTERRUPTED, now, now, error.row_id),
    )
