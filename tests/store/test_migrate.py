"""The runner of migrations."""

import hashlib
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from headrace_server.store.migrate import MigrationError, find_folder, migrate, read_migrations

Sql = Callable[..., list[Any]]
REAL = ["0001_tables.sql", "0002_views.sql", "0003_default_providers.sql", "0004_lowered_limits.sql", "0005_lists.sql", "0006_sums.sql"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_one.sql").write_text("-- migrate:up\nCREATE TABLE one (a);\n-- migrate:down\nDROP TABLE one;\n")
    (folder / "0002_two.sql").write_text("-- migrate:up\nCREATE TABLE two (a);\nINSERT INTO two VALUES ('; --');\n-- migrate:down\n")
    return folder


def tables(sql: Sql) -> set[str]:
    return {name for (name,) in sql("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def test_migrate_applies_all_in_order_when_the_database_is_new(path: Path, sql: Sql) -> None:
    assert migrate(path) == REAL
    recorded = sql("SELECT version, checksum, applied_at > 0 FROM schema_migrations ORDER BY version")
    files = [find_folder("sqlite") / name for name in REAL]
    assert recorded == [(file.name[:4], hashlib.sha256(file.read_bytes()).hexdigest(), 1) for file in files]


def test_a_new_database_is_readable_by_its_owner_only(path: Path) -> None:
    migrate(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_database_that_is_there_keeps_its_mode(path: Path) -> None:
    migrate(path)
    path.chmod(0o640)
    migrate(path)
    assert path.stat().st_mode & 0o777 == 0o640


def test_migrate_applies_nothing_when_all_is_applied(path: Path) -> None:
    migrate(path)
    assert migrate(path) == []


def test_migrate_applies_what_is_new(path: Path, folder: Path, sql: Sql) -> None:
    migrate(path, folder)
    (folder / "0003_three.sql").write_text("-- migrate:up\nCREATE TABLE three (a);\n-- migrate:down\n")
    assert migrate(path, folder) == ["0003_three.sql"]
    assert {"one", "two", "three"} < tables(sql)
    assert sql("SELECT a FROM two") == [("; --",)]


def test_migrate_changes_nothing_when_a_statement_fails(path: Path, folder: Path, sql: Sql) -> None:
    (folder / "0003_three.sql").write_text("-- migrate:up\nCREATE TABLE three (a);\nCREATE TABLE one (a);\n-- migrate:down\n")
    with pytest.raises(MigrationError, match=r"0003_three\.sql failed: table one already exists"):
        migrate(path, folder)
    assert "three" not in tables(sql)
    assert [version for (version,) in sql("SELECT version FROM schema_migrations")] == ["0001", "0002"]


def test_migrate_refuses_when_an_applied_file_was_changed(path: Path, folder: Path) -> None:
    migrate(path, folder)
    with (folder / "0001_one.sql").open("a") as file:
        file.write("-- a word more\n")
    with pytest.raises(MigrationError, match=r"0001_one\.sql was changed"):
        migrate(path, folder)


def test_migrate_refuses_when_an_applied_file_is_missing(path: Path, folder: Path) -> None:
    migrate(path, folder)
    (folder / "0001_one.sql").unlink()
    with pytest.raises(MigrationError, match="migration 0001 is applied, but its file is missing"):
        migrate(path, folder)


def test_migrate_refuses_when_the_database_is_newer(path: Path, folder: Path) -> None:
    migrate(path, folder)
    (folder / "0002_two.sql").unlink()
    with pytest.raises(MigrationError, match="newer than this program: it has the migration 0002"):
        migrate(path, folder)


def test_migrate_refuses_when_a_file_comes_before_what_is_applied(path: Path, folder: Path) -> None:
    migrate(path, folder)
    (folder / "0001_one.sql").rename(folder / "0000_zero.sql")
    (folder / "0001_one.sql").write_text((folder / "0000_zero.sql").read_text())
    with pytest.raises(MigrationError, match=r"0000_zero\.sql comes before 0002"):
        migrate(path, folder)


def test_migrate_refuses_when_the_file_is_no_database(path: Path) -> None:
    path.write_text("This is a letter to somebody, and long enough to be read as a header of a database file.\n" * 50)
    with pytest.raises(MigrationError, match=f"{re.escape(str(path))} is not a SQLite database"):
        migrate(path)


def test_migrate_refuses_when_the_database_is_another_programs(path: Path, sql: Sql) -> None:
    sql("CREATE TABLE bookmarks (a)")
    with pytest.raises(MigrationError, match="belongs to another program: it has the table bookmarks"):
        migrate(path)
    assert tables(sql) == {"bookmarks"}


def test_migrate_accepts_what_dbmate_applied(path: Path, folder: Path, sql: Sql) -> None:
    sql('CREATE TABLE "schema_migrations" (version varchar(128) primary key)')
    sql("CREATE TABLE one (a)")
    sql("INSERT INTO schema_migrations VALUES ('0001')")
    assert migrate(path, folder) == ["0002_two.sql"]


@pytest.mark.parametrize("name", ["1_short.sql", "0003-dash.sql", "notes.sql"])
def test_read_migrations_refuses_when_a_name_is_wrong(folder: Path, name: str) -> None:
    (folder / name).write_text("-- migrate:up\n-- migrate:down\n")
    with pytest.raises(MigrationError, match=re.escape(name)):
        read_migrations(folder)


def test_read_migrations_refuses_when_two_have_one_number(folder: Path) -> None:
    (folder / "0002_other.sql").write_text("-- migrate:up\n-- migrate:down\n")
    with pytest.raises(MigrationError, match=r"same number: 0002_other\.sql and 0002_two\.sql"):
        read_migrations(folder)


def test_migrate_applies_each_once_when_programs_start_at_once(path: Path, sql: Sql) -> None:
    program = f"import pathlib, headrace_server.store.migrate as m; print(len(m.migrate(pathlib.Path({str(path)!r}))))"
    started = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", program], stdout=subprocess.PIPE, env={"PYTHONPATH": ":".join(sys.path)})
        for _ in range(4)
    ]
    printed = [process.communicate(timeout=50)[0] for process in started]
    assert [process.returncode for process in started] == [0] * 4
    assert sum(int(text) for text in printed) == len(REAL)
    assert sql("SELECT count(*) FROM schema_migrations") == [(len(REAL),)]


def test_down_undoes_up(path: Path) -> None:
    migrate(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for migration in reversed(read_migrations(find_folder("sqlite"))):
            down = (find_folder("sqlite") / migration.name).read_text().split("-- migrate:down")[1]
            connection.executescript(down)
        left = connection.execute("SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'").fetchall()
    assert left == [("schema_migrations",)]


def test_migrations_need_nothing_newer_than_sqlite_3_35() -> None:
    for name in REAL:
        text = (find_folder("sqlite") / name).read_text()
        # STRICT came with 3.37, ->> and unixepoch with 3.38, subsecond times with 3.42.
        assert not re.search(r"->>|unixepoch\(|subsec|\bSTRICT\b", text), name
