"""URLs of databases."""

from pathlib import Path
from typing import Any

import pytest

from headrace_server.store import Durability, MemoryStore, SqliteStore, open_url
from headrace_server.store.url import sqlite_path


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///headrace.db", "headrace.db"),
        ("sqlite:////srv/data/headrace.db", "/srv/data/headrace.db"),
        ("sqlite:///a%20b%3F.db", "a b?.db"),
        ("sqlite:///sub/dir.db", "sub/dir.db"),
    ],
)
def test_sqlite_path_is_the_file_that_the_url_names(url: str, path: str) -> None:
    assert sqlite_path(url) == Path(path)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://u:secret@h/db", "not supported yet"),
        ("postgres://u:secret@h/db", "not supported yet"),
        ("mysql://u:secret@h/db", "'mysql' is unknown"),
        ("headrace.db", "must be a URL such as sqlite:///headrace.db"),
        ("", "must be a URL"),
        ("sqlite://secret.db", "third slash"),
        ("sqlite:///", "must be followed by the path"),
        ("sqlite:///:memory:", "must be followed by the path"),
        ("sqlite:///a.db?mode=ro", "nothing after the path"),
        ("sqlite:///a%00.db", "NUL"),
        ("memory:", "has no file"),
    ],
)
def test_sqlite_path_says_what_is_wrong(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        sqlite_path(url)
    assert "secret" not in str(raised.value)


async def test_open_url_gives_the_store_of_the_file(path: Path, clock: Any) -> None:
    store = open_url(f"sqlite:///{path}", node="here", clock=clock, durability=Durability.STRICT, readers=1)
    assert isinstance(store, SqliteStore)
    await store.open()
    assert path.is_file()
    await store.close()


def test_open_url_gives_a_store_without_a_file_when_it_is_memory(clock: Any) -> None:
    assert isinstance(open_url("memory:", node="here", clock=clock), MemoryStore)
