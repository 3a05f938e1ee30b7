"""What the commands of the service's own side run: logging, the event loop, and every reason not to start as one exception."""

import asyncio
import os
import sqlite3
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

from headrace_server.config import ConfigurationError, Settings
from headrace_server.domain.errors import HeadraceError
from headrace_server.domain.ports import Pruned
from headrace_server.garbage import collect_garbage
from headrace_server.security.keyring import KeyRingError
from headrace_server.store import backup as backups
from headrace_server.store import check as checks
from headrace_server.store import migrate as migrations
from headrace_server.store import retention as retentions
from headrace_server.store.sqlite import SqliteStore
from headrace_server.store.url import MEMORY, sqlite_path
from headrace_server.telemetry.logging import configure_logging

T = TypeVar("T")


class StartError(Exception):
    """Why the service cannot start, in words for the person who starts it."""


def serve(settings: Settings, ready: Callable[[str], None]) -> None:
    """Run the service until SIGTERM or SIGINT. `ready` is told its address once it takes calls. Raises StartError."""
    if settings.scheduling == "batch":
        _schedule_as_batch()
    from headrace_server import app  # here, because it brings everything with it, and the other commands need little of that

    configure_logging(settings.log_level, settings.log_json)
    if settings.database != MEMORY:
        _database_path(settings)

    def started(address: str) -> None:
        collect_garbage()
        ready(address)

    with _explained():
        run(app.serve(settings, ready=started), uvloop=settings.uvloop)


def migrate(settings: Settings) -> list[str]:
    """Bring the database up to date; the names of the migrations that were applied now. Raises StartError."""
    path = _database_path(settings)
    with _explained():
        path.parent.mkdir(parents=True, exist_ok=True)
        return migrations.migrate(path)


def check(settings: Settings) -> list[str]:
    """Everything that is wrong with the database, one line each. Raises StartError."""
    from headrace_server import app

    return app.check_store(_existing_database(settings))


def count_requests(settings: Settings) -> int:
    """How many requests are on record. Raises StartError."""
    with _explained():
        return checks.count_requests(_existing_database(settings))


def backup(settings: Settings, target: Path) -> None:
    """Copy the database, also while it is served. Raises StartError."""
    path = _existing_database(settings)
    with _explained():
        try:
            backups.backup(path, target)
        except FileExistsError:
            raise StartError(f"{target} exists already: a backup overwrites nothing") from None


def prune(settings: Settings, *, dry_run: bool) -> Pruned:
    """Delete what has been kept long enough, or only count it. Raises StartError."""
    from headrace_server import app

    path, retention = _existing_database(settings), app.retention(settings)
    with _explained():
        over = retentions.count_over(path, retention.horizon(app.wall_clock()))  # also makes sure that the database is up to date
        return over if dry_run else run(_prune(path, retention))


async def _prune(path: Path, retention: retentions.Retention) -> Pruned:
    from headrace_server.app import node_id, wall_clock

    store = SqliteStore(path, node=node_id(), clock=wall_clock, readers=1)
    await store.open()
    try:
        return await retentions.prune(store, retention, wall_clock)
    finally:
        await store.close()


def log_warnings() -> None:
    """Log what goes wrong and nothing else, for a service inside another command."""
    configure_logging("warning")


def run(work: Coroutine[Any, Any, T], *, uvloop: Literal["auto", "on", "off"] = "auto") -> T:
    """Run the coroutine to its end on a loop of its own: uvloop where it is wanted and installed."""
    with asyncio.Runner(loop_factory=_loop_factory(uvloop)) as runner:
        return runner.run(work)


def _schedule_as_batch() -> None:
    """Let no thread of ours interrupt another one that runs, nor those of other processes; see SCHED_BATCH in sched(7).

    Threads begun from here on inherit it. Under load gRPC's thread and the store's are woken some twenty times a request, each time to
    find the interpreter taken: on one core that was a fifth of all processor time. Where the system has or allows none of it, all runs
    as it would.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _database_path(settings: Settings) -> Path:
    try:
        return sqlite_path(settings.database)
    except ValueError as error:
        raise StartError(f"database: {error}") from None


def _existing_database(settings: Settings) -> Path:
    path = _database_path(settings)
    if not path.exists():
        raise StartError(f"there is no database {path}")
    return path


def _loop_factory(uvloop: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if uvloop == "off":
        return None
    try:
        from uvloop import new_event_loop
    except ImportError:
        if uvloop == "on":
            raise StartError("uvloop (HEADRACE_UVLOOP) is not installed") from None
        return None
    return new_event_loop


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (HeadraceError, migrations.MigrationError, KeyRingError, ConfigurationError, OSError, sqlite3.Error) as error:
        raise StartError(str(error)) from error
