"""Named points at which the service is made to die by SIGKILL. They are put around the real parts of a process that will be killed;
nothing of the service knows of them.

A point is named for what is done there, with `.before` or `.after`:

    migrate      a migration's transaction
    recover      the end of a dead process's requests, at start
    accept       Journal.accept: the request's first row
    reserve      Journal.reserve: a place in the provider's limits
    intend       Journal.update with an attempt that is about to go out
    settle       Journal.settle: the end of an attempt that is followed by another
    finish       Journal.finish: the terminal row, metrics and limits
    refuse       Engine.refuse: the row of a request that is not valid
    call         Upstream.call: encoding, connecting, sending, up to the answer's headers
    read         Call.read: bytes of the answer
    read_end     the Call.read that tells the answer's end (only .after)
    close        Call.close
    publish_end  Generation.publish of `completed` or `failed`
    write_end    the message of StreamGenerate that holds `completed` or `failed`
    generate     the whole RPC Generate; `.after`: its answer is about to leave
    submit       the whole RPC SubmitGeneration; `.after`: its answer is about to leave
    drain        Engine.drain
    interrupt    Engine.interrupt, at the end of the drain time

and, around the COMMIT of the transaction itself, in SQLite's own thread: `migrate.commit`, `recover.commit`, and `accept.commit`,
`update.commit`, `keep.commit`, `reserve.commit`, `settle.commit`, `finish.commit` for a transaction that holds such an operation.
"""

import os
import signal
import sqlite3
from collections.abc import Sequence
from typing import Any, NoReturn

from headrace.v1.generation_service_pb2 import StreamGenerateResponse
from headrace_server.domain.events import Completed, Failed
from headrace_server.domain.lifecycle import TERMINAL
from headrace_server.engine import Engine
from headrace_server.generation import Generation
from headrace_server.providers.upstream import HttpCall, HttpUpstream
from headrace_server.rpc.generation_service import GenerationServicer
from headrace_server.store import sqlite
from headrace_server.store.sqlite import SqliteStore


class Failpoint:
    """One point, and how many times it is passed before it kills; written `NAME` or `NAME:TIMES`."""

    def __init__(self, text: str) -> None:
        self.name, _, times = text.partition(":")
        self.left = int(times or 1)

    def passed(self, name: str) -> None:
        """The process has come to a point."""
        if name == self.name:
            self.left -= 1
            if self.left == 0:
                die()


def die() -> NoReturn:
    """As `kill -9`: nothing is flushed, closed or told."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def install(point: Failpoint) -> None:
    """Put every point into this process; the one that was chosen kills it."""
    for owner, names in (
        (SqliteStore, ("accept", "reserve", "settle", "finish", "recover")),
        (Engine, ("refuse", "drain")),
        (HttpUpstream, ("call",)),
        (HttpCall, ("read", "close")),
    ):
        for name in names:
            _surround(owner, name, point, name)
    _surround(GenerationServicer, "Generate", point, "generate")
    _surround(GenerationServicer, "SubmitGeneration", point, "submit")
    _watch_interrupt(point)
    _watch_intents(point)
    _watch_ends(point)
    _watch_writes(point)
    _watch_commits(point)


def _surround(owner: type, method: str, point: Failpoint, name: str) -> None:
    original = getattr(owner, method)

    async def surrounded(*args: Any, **kwargs: Any) -> Any:
        point.passed(f"{name}.before")
        result = await original(*args, **kwargs)
        point.passed(f"{name}.after")
        if name == "read" and result is None:
            point.passed("read_end.after")
        return result

    setattr(owner, method, surrounded)


def _watch_interrupt(point: Failpoint) -> None:
    original = Engine.interrupt

    def interrupt(self: Engine) -> None:
        point.passed("interrupt.before")
        original(self)
        point.passed("interrupt.after")

    Engine.interrupt = interrupt


def _watch_intents(point: Failpoint) -> None:
    original = SqliteStore.update
    intended: set[tuple[str, int]] = set()

    def update(self: SqliteStore, row: Any) -> Any:
        intent = (row.request_id, len(row.attempts))
        is_new = bool(row.attempts) and row.attempts[-1].state not in TERMINAL and intent not in intended
        if not is_new:
            return original(self, row)
        intended.add(intent)
        point.passed("intend.before")
        written = original(self, row)
        written.add_done_callback(lambda _: point.passed("intend.after"))
        return written

    SqliteStore.update = update


def _watch_ends(point: Failpoint) -> None:
    original = Generation.publish

    def publish(self: Generation, events: Sequence[Any]) -> None:
        is_end = any(isinstance(event, Completed | Failed) for event in events)
        if is_end:
            point.passed("publish_end.before")
        original(self, events)
        if is_end:
            point.passed("publish_end.after")

    Generation.publish = publish


def _watch_writes(point: Failpoint) -> None:
    original = GenerationServicer.StreamGenerate

    class WatchedContext:
        def __init__(self, context: Any) -> None:
            self._context = context

        def __getattr__(self, name: str) -> Any:
            return getattr(self._context, name)

        async def write(self, message: bytes) -> None:
            events = StreamGenerateResponse.FromString(message).events
            is_end = any(event.WhichOneof("event") in ("completed", "failed") for event in events)
            if is_end:
                point.passed("write_end.before")
            await self._context.write(message)
            if is_end:
                point.passed("write_end.after")

    async def stream_generate(self: GenerationServicer, requests: Any, context: Any) -> None:
        await original(self, requests, WatchedContext(context))

    GenerationServicer.StreamGenerate = stream_generate


def _watch_commits(point: Failpoint) -> None:
    """What a transaction holds is learned from the store's `carry_out`, which the COMMIT of that transaction follows."""
    kinds: set[str] = {"migrate"}  # the first transactions of a process are the migrations'
    carry_out, connect, recover = sqlite.carry_out, sqlite3.connect, SqliteStore.recover
    recovering: list[bool] = []

    async def watched_carry_out(db: Any, operations: Sequence[Any], node: str) -> list[Any]:
        results = await carry_out(db, operations, node)
        kinds.clear()
        for operation in operations:
            name = type(operation).__name__.lower()
            if name != "work":
                kinds.add(name)
            elif recovering:
                kinds.add("recover")
        return results

    async def watched_recover(*args: Any) -> Any:
        recovering.append(True)
        try:
            return await recover(*args)
        finally:
            recovering.clear()

    class WatchedConnection(sqlite3.Connection):
        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            if statement != "COMMIT":
                return super().execute(statement, *values)
            names = sorted(kinds)
            for name in names:
                point.passed(f"{name}.commit.before")
            done = super().execute(statement, *values)
            for name in names:
                point.passed(f"{name}.commit.after")
            return done

    sqlite.carry_out = watched_carry_out
    SqliteStore.recover = watched_recover
    sqlite3.connect = lambda *args, **kwargs: connect(*args, **{"factory": WatchedConnection, **kwargs})
