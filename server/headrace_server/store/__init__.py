"""Where requests are kept: the Store port of the domain, in a SQLite file and in memory."""

from headrace_server.store.connection import Durability
from headrace_server.store.memory import MemoryStore
from headrace_server.store.migrate import MigrationError
from headrace_server.store.sqlite import SqliteStore
from headrace_server.store.url import open_url

__all__ = ["Durability", "MemoryStore", "MigrationError", "SqliteStore", "open_url"]
