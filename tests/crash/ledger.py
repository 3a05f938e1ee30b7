"""Requests by number: a program writes them to a store and says what was acknowledged, and this is how they must be found afterwards.

As a program, in the folder of the tests: `python -m crash.ledger DATABASE DURABILITY [BUG]`. Each line of its output names an
acknowledgement, written as soon as the store has given it. It opens and closes the store several times, and ends without closing it.
"""

import argparse
import asyncio
import os
import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from functools import cache
from pathlib import Path

from headrace_server.domain.errors import ErrorCode, ReplaySafety
from headrace_server.domain.lifecycle import Event, State, Transition
from headrace_server.domain.limits import LimitType
from headrace_server.domain.message import TextPart
from headrace_server.domain.ports import Reservation, Settlement
from headrace_server.domain.record import LogRow, MetricsRow
from headrace_server.domain.request import GenerateRequest
from headrace_server.domain.result import Attempt, GenerationResult
from headrace_server.domain.usage import Usage, UsageSource
from headrace_server.store import connection, spill
from headrace_server.store.check import check
from headrace_server.store.connection import Durability
from headrace_server.store.nodes import LEASE
from headrace_server.store.spilling import SpillingStore
from support.store import salvaged

NOW = 1_790_000_000_000
CHECKPOINT = 60
"""Pages of the write-ahead log after which it is written back, few, so that it happens often."""
SESSIONS, PER_SESSION = 3, 25
"""How often the store is opened, and how many requests there are each time."""
_LIMITS = {LimitType.REQUESTS_PER_MINUTE: 1_000_000, LimitType.TOKENS_PER_MINUTE: 1_000_000}
_MODEL = "m"
_USAGE = Usage(input_tokens=3, output_tokens=4, total_tokens=7, source=UsageSource.PROVIDER)


# ---------------------------------------------------------------- requests


class Told(StrEnum):
    """What was acknowledged of a request."""

    ACCEPTED = "accepted"
    INTENDED = "intended"
    KEPT = "kept"
    ENDED = "ended"


@cache
def request_id(number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(number)))


def text(number: int) -> str:
    """Of very different lengths: some fill many pages."""
    return f"{number} " * (3, 200, 3_000)[number % 3]


def step(before: State, event: Event, after: State) -> Transition:
    return Transition(from_state=before, to_state=after, event=event, time=NOW, provider="claude", model=_MODEL)


@cache
def accepted(number: int) -> LogRow:
    message = {"role": "user", "content": [{"type": "text", "text": text(number + 1)}]}
    return LogRow(
        id=request_id(-number - 1),
        request_id=request_id(number),
        provider="claude",
        model=_MODEL,
        state=State.VALIDATING,
        request_data=GenerateRequest.model_validate({"request_id": request_id(number), "messages": [message]}),
        start_time=NOW,
        transitions=(step(State.IDLE, Event.INITIATE_REQUEST, State.VALIDATING),),
        node=node(number // PER_SESSION),
        created_at=NOW,
        updated_at=NOW,
    )


@cache
def intended(number: int) -> LogRow:
    row = accepted(number)
    attempt = Attempt(provider="claude", model=_MODEL, state=State.REQUESTING, start_time=NOW)
    transitions = (*row.transitions, step(State.VALIDATING, Event.VALIDATION_PASSED, State.REQUESTING))
    return row.model_copy(update={"state": State.REQUESTING, "attempts": (attempt,), "transitions": transitions})


@cache
def ended(number: int) -> LogRow:
    row = intended(number)
    attempt = row.attempts[0].model_copy(update={"state": State.COMPLETED, "usage": _USAGE, "duration": 0})
    return row.model_copy(
        update={
            "state": State.COMPLETED,
            "attempts": (attempt,),
            "transitions": (*row.transitions, step(State.REQUESTING, Event.RECEIVE_RESPONSE, State.COMPLETED)),
            "response_data": GenerationResult(content=(TextPart(text=text(number)),), usage=_USAGE),
            "end_time": NOW,
            "duration": 0,
        }
    )


@cache
def metrics(number: int) -> MetricsRow:
    line_id = str(uuid.uuid5(uuid.NAMESPACE_URL, str(number)))
    return MetricsRow(id=line_id, request_id=request_id(number), provider="claude", model=_MODEL, success=True, created_at=NOW)


def reservation(number: int) -> Reservation:
    return Reservation(request_id=request_id(number), attempt=1, provider="claude", model=_MODEL, tokens=100)


# ---------------------------------------------------------------- the program


def node(session: int) -> str:
    return f"node-{session}"


def clock() -> int:
    return NOW


def tell(told: Told, number: int) -> None:
    os.write(1, f"{told} {number}\n".encode())


async def begin(store: SpillingStore, number: int) -> None:
    assert await store.accept(accepted(number)) is None
    tell(Told.ACCEPTED, number)
    assert await store.reserve(reservation(number), _LIMITS, NOW) is None
    await store.update(intended(number))
    tell(Told.INTENDED, number)
    await store.keep_events(request_id(number), 0, 1, text(number).encode(), NOW)
    tell(Told.KEPT, number)


async def end(store: SpillingStore, number: int) -> None:
    assert await store.finish(ended(number), [metrics(number)], [Settlement(reservation=reservation(number), tokens=7)]) == ended(number)
    tell(Told.ENDED, number)


async def whole(store: SpillingStore, number: int) -> None:
    await begin(store, number)
    await end(store, number)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program holds the lock, so that ends go to the spill file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def session(path: Path, durability: Durability, number: int, *, close: bool) -> None:
    """Requests one by one, many at once, and some that never end; ends that come back from the spill file, and some that stay there."""
    store = SpillingStore(path, node=node(number), durability=durability, readers=1, clock=clock)
    await store.open()
    await store._work(lambda db: db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT}"))
    await store.recover(node(number), NOW, salvaged)
    first = number * PER_SESSION
    for lone in range(first, first + 4):
        await whole(store, lone)
    await asyncio.gather(*(whole(store, n) for n in range(first + 4, first + 16)))
    await asyncio.gather(*(begin(store, n) for n in range(first + 16, first + 24)))
    with locked(path):
        await asyncio.gather(*(end(store, n) for n in range(first + 16, first + 19)))
    await store.ping()
    await whole(store, first + 24)
    with locked(path):
        await asyncio.gather(*(end(store, n) for n in range(first + 19, first + 22)))
        if close:
            await store.close()
        else:
            os._exit(0)


BUGS = {
    "database is not flushed": lambda: connection._SYNCHRONOUS.update({Durability.STRICT: "NORMAL"}),
    "spill file is not flushed": lambda: setattr(os, "fsync", lambda descriptor: None),
    "spill file's name is not flushed": lambda: setattr(spill, "_flush_folder", lambda folder: None),
}
"""What would break the promise of `strict`."""


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("database", type=Path)
    parser.add_argument("durability", type=Durability)
    parser.add_argument("bug", nargs="?", choices=BUGS)
    wanted = parser.parse_args()
    if wanted.bug is not None:
        BUGS[wanted.bug]()
    connection.BUSY_TIMEOUT = 5
    for number in range(SESSIONS):
        await session(wanted.database, wanted.durability, number, close=number < SESSIONS - 1)


# ---------------------------------------------------------------- what is found afterwards


async def found_wrong(path: Path, told: Iterable[str]) -> tuple[list[str], list[str]]:
    """A fresh store is opened and recovers: what is damaged or was never written, and what was told and is lost."""
    store = SpillingStore(path, node="afterwards", durability=Durability.RELAXED, readers=1, clock=lambda: NOW + LEASE * 2)
    await store.open()
    try:
        await store.recover("afterwards", NOW + LEASE * 2, salvaged)
        rows = {n: row for n in range(SESSIONS * PER_SESSION) if (row := await store.get(request_id(n)))}
        damaged = [f"{n} is {row}" for n, row in rows.items() if not _is_as_written(n, row)]
        lost = []
        for line in told:
            what, number = line.split()
            row = rows.get(int(number))
            if row is None or not await _stands(store, row, Told(what), int(number)):
                lost.append(line)
    finally:
        await store.close()
    # An end that nobody was told of may be cut off in the spill file, where it stays.
    damaged += [line for line in check(path, now=NOW + LEASE * 2) if ".spill holds " not in line]
    return damaged, lost


def _is_as_written(number: int, row: LogRow) -> bool:
    """Ended as it was, or interrupted after one of the steps before."""
    if row == ended(number):
        return True
    was = intended(number) if row.attempts else accepted(number)
    fixed = ("id", "request_data", "provider", "model", "node", "created_at")
    is_interrupted = row.state is State.FAILED and row.error_code is ErrorCode.INTERRUPTED and row.transitions[:-1] == was.transitions
    return is_interrupted and all(getattr(row, name) == getattr(was, name) for name in fixed)


async def _stands(store: SpillingStore, row: LogRow, told: Told, number: int) -> bool:
    match told:
        case Told.ACCEPTED:
            return True
        case Told.INTENDED:
            return [attempt.replay_safety for attempt in row.attempts] in ([None], [ReplaySafety.UNCERTAIN])
        case Told.KEPT:
            return await store.kept_events(row.request_id) == [text(number).encode()]
        case Told.ENDED:
            return row == ended(number) and await store.list_metrics(row.request_id) == [metrics(number)]


if __name__ == "__main__":
    asyncio.run(main())
