"""From a database's URL to its store."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from headrace_server.domain.ports import Store, WallClock
from headrace_server.store.connection import Durability
from headrace_server.store.memory import MemoryStore
from headrace_server.store.spilling import SpillingStore

MEMORY = "memory:"
"""The URL of a store that nothing survives in; for tests and demos."""


def open_url(url: str, *, node: str, clock: WallClock, durability: Durability = Durability.NORMAL, readers: int = 4) -> Store:
    """The store of a URL, not yet opened. Raises ValueError saying what is wrong with the URL."""
    if url == MEMORY:
        return MemoryStore(node=node, clock=clock)
    return SpillingStore(sqlite_path(url), node=node, clock=clock, durability=durability, readers=readers)


def sqlite_path(url: str) -> Path:
    """The file that `sqlite:///PATH` names: `sqlite:///a.db` in the working directory, `sqlite:////srv/a.db` from the root.

    Raises ValueError saying what is wrong with the URL. The text never shows the URL, which may hold a password.
    """
    if url == MEMORY:
        raise ValueError("a store in memory has no file")
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise ValueError("the database must be a URL such as sqlite:///headrace.db")
    if scheme in ("postgres", "postgresql"):
        raise ValueError("a PostgreSQL database is not supported yet; use sqlite:///PATH")
    if scheme != "sqlite":
        raise ValueError(f"the database's scheme {scheme!r} is unknown; use sqlite:///PATH")
    parts = urlsplit(url)
    if parts.netloc:
        raise ValueError(
            "sqlite:// is followed by a third slash and the path of a file: sqlite:///headrace.db, or sqlite:////srv/headrace.db"
        )
    if parts.query or parts.fragment:
        raise ValueError("sqlite:///PATH takes nothing after the path; write ? as %3F and # as %23")
    path = unquote(parts.path.removeprefix("/"))
    if not path or path == ":memory:":
        raise ValueError("sqlite:/// must be followed by the path of a file")
    if "\0" in path:
        raise ValueError("the path of the database must not contain the character NUL")
    return Path(path)
