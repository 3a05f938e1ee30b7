"""Migrations: numbered SQL files in the format of dbmate, applied in order, each in a transaction and recorded with its checksum."""

import hashlib
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path

OLDEST_SQLITE = (3, 35, 0)
LOCK_TIMEOUT = 30.0
"""Seconds that one program waits while another migrates."""

_FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_UP = re.compile(r"^-- migrate:up.*?$(.*?)^-- migrate:down", re.DOTALL | re.MULTILINE)


class MigrationError(Exception):
    """The database does not fit this program; the text says why and names the file."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. `version` is the number that its name begins with."""

    version: str
    name: str
    checksum: str
    up: str


def migrate(path: Path, folder: Path | None = None) -> list[str]:
    """Bring a database up to date, creating it if need be; the names of the files that were applied now.

    Raises MigrationError, or sqlite3.Error where the file cannot be read or written. Safe when several programs do it at once.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise MigrationError(f"SQLite {sqlite3.sqlite_version} is too old: 3.35 or later is needed")
    migrations = read_migrations(folder or find_folder("sqlite"))
    _make_private(path)
    try:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=LOCK_TIMEOUT)) as connection:
            _use_write_ahead_log(connection, path)
            return [migration.name for migration in migrations if _apply(connection, path, migration, migrations)]
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise MigrationError(f"{path} is not a SQLite database") from error
        raise


def _make_private(path: Path) -> None:
    """Make a missing database file readable by its owner only: it will hold prompts and answers. What SQLite puts beside it follows."""
    with suppress(OSError):  # one that is there stays as its owner wants it; what is wrong with the place, SQLite says better
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def check_version(connection: sqlite3.Connection, path: Path, folder: Path | None = None) -> None:
    """Raise MigrationError unless the database is exactly up to date. Writes nothing."""
    known = read_migrations(folder or find_folder("sqlite"))
    try:
        applied = dict(connection.execute("SELECT version, checksum FROM schema_migrations"))
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_ERROR:
            raise
        raise MigrationError(f"{path} is no database of Headrace") from None
    _check_applied(path, applied, known)
    if missing := [migration.name for migration in known if migration.version not in applied]:
        raise MigrationError(f"{path} is older than this program: {missing[0]} is not applied; run `headrace db migrate`")


def find_folder(engine: str) -> Path:
    """The folder of an engine's migrations: in the package where it was installed from a wheel, else in the repository."""
    packaged = Path(str(resources.files("headrace_server"))) / "migrations" / engine
    repository = Path(__file__).resolve().parents[3] / "migrations" / engine
    for folder in (packaged, repository):
        if folder.is_dir():
            return folder
    raise MigrationError(f"the migrations are neither in {packaged} nor in {repository}")


def read_migrations(folder: Path) -> list[Migration]:
    """The migrations in a folder, in the order of their numbers."""
    migrations = [_read(file) for file in sorted(folder.glob("*.sql"))]
    for one, following in pairwise(migrations):
        if one.version == following.version:
            raise MigrationError(f"two migrations have the same number: {one.name} and {following.name}")
    return migrations


def _read(file: Path) -> Migration:
    name = _FILE_NAME.fullmatch(file.name)
    text = file.read_bytes()
    up = _UP.search(text.decode())
    if name is None or up is None:
        raise MigrationError(f"{file} is no migration: its name must be NNNN_name.sql, with -- migrate:up and -- migrate:down inside")
    return Migration(version=name[1], name=file.name, checksum=hashlib.sha256(text).hexdigest(), up=up[1])


def _use_write_ahead_log(connection: sqlite3.Connection, path: Path) -> None:
    # SQLite does not wait for a lock when the mode of a journal changes, so that two programs at once must try again.
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = wal").fetchone()[0]
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    if mode != "wal":
        raise MigrationError(f"{path} cannot have a write-ahead log (it is in the mode {mode}): it must lie on a local disk")


def _apply(connection: sqlite3.Connection, path: Path, migration: Migration, known: list[Migration]) -> bool:
    """Apply one migration unless that was done before; whether it was done now."""
    with _transaction(connection):
        applied = _read_applied(connection, path)
        _check_applied(path, applied, known)
        if migration.version in applied:
            return False
        newest = max(applied, default="")
        if newest > migration.version:
            raise MigrationError(f"{path}: the migration {migration.name} comes before {newest}, which is applied already")
        try:
            for statement in _statements(migration.up):
                connection.execute(statement)
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_ERROR:
                raise
            raise MigrationError(f"{path}: the migration {migration.name} failed: {error}") from error
        connection.execute(
            "INSERT INTO schema_migrations (version, checksum, applied_at) VALUES (?, ?, ?)",
            (migration.version, migration.checksum, int(time.time() * 1000)),
        )
        return True


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _read_applied(connection: sqlite3.Connection, path: Path) -> dict[str, str | None]:
    """Versions and checksums on record; None for a checksum where dbmate applied the file. Makes the table where it is missing."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if "schema_migrations" not in tables:
        if tables:
            raise MigrationError(f"{path} belongs to another program: it has the table {min(tables)}, and no schema_migrations")
        connection.execute("CREATE TABLE schema_migrations (version TEXT PRIMARY KEY NOT NULL, checksum TEXT, applied_at INTEGER)")
    columns = {column[1] for column in connection.execute("PRAGMA table_info(schema_migrations)")}
    for column, kind in (("checksum", "TEXT"), ("applied_at", "INTEGER")):
        if column not in columns:
            connection.execute(f"ALTER TABLE schema_migrations ADD COLUMN {column} {kind}")
    return dict(connection.execute("SELECT version, checksum FROM schema_migrations"))


def _check_applied(path: Path, applied: dict[str, str | None], known: list[Migration]) -> None:
    by_version = {migration.version: migration for migration in known}
    for version, checksum in sorted(applied.items()):
        migration = by_version.get(version)
        if migration is None and version > max(by_version, default=""):
            raise MigrationError(f"{path} is newer than this program: it has the migration {version}; use a newer program")
        if migration is None:
            raise MigrationError(f"{path}: the migration {version} is applied, but its file is missing")
        if checksum is not None and checksum != migration.checksum:
            raise MigrationError(f"{path}: the migration {migration.name} was changed after it was applied")


def _statements(script: str) -> Iterator[str]:
    """The statements of a script; a trigger with its inner semicolons is one."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if re.sub(r"--.*", "", statement).strip():
        yield statement
