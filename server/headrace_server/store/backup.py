"""`headrace db backup`: a copy of a database while it is served."""

import contextlib
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from headrace_server.store.check import open_snapshot

PAGES = 128
"""Pages that are copied in one go: half a megabyte."""
PAUSE = 0.002
"""Seconds between two of them, so that the disk is the service's too."""


def backup(database: Path, target: Path) -> None:
    """Copy the database as it is at this moment; what is committed later is not in the copy. No writer waits for it.

    `target` appears whole or not at all. Raises FileExistsError where it is there already, OSError, sqlite3.Error, MigrationError.
    """
    with closing(open_snapshot(database)) as source:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # the name is taken from here on
        part = target.with_name(target.name + ".part")
        try:
            os.close(os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600))
            _copy(source, part)
            os.replace(part, target)
        except BaseException:
            for file in (part, target):
                with contextlib.suppress(OSError):
                    file.unlink(missing_ok=True)
            raise
    _flush(target.parent)


def _copy(source: sqlite3.Connection, part: Path) -> None:
    # The snapshot that `source` holds keeps the copy from beginning anew whenever something is committed.
    with closing(sqlite3.connect(part, isolation_level=None)) as copy:
        source.backup(copy, pages=PAGES, progress=lambda *_: time.sleep(PAUSE))
        copy.execute("PRAGMA journal_mode = delete")  # one file that is whole by itself; serving turns the write-ahead log on again
    _flush(part)


def _flush(path: Path) -> None:
    """Make sure that a file, or the names in a folder, survive the loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
