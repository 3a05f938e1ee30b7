"""The statements behind lists."""

from typing import Any

from headrace_server.domain.record import RequestQuery
from headrace_server.store.rows import LOGS

_COLUMNS = ", ".join(f"log.{name}" for name in LOGS.names())
_LOGS = "provider_logs AS log"
_LOGS_OF_TAG = f"request_tags AS tagged CROSS JOIN {_LOGS} ON log.id = tagged.id"

_NARROW = ("conversation_id", "user_id")
_WIDE = ("error_code", "state", "model", "provider")


def requests_page(query: RequestQuery) -> tuple[str, list[Any]]:
    """The statement and its values for a page of requests, newest first, with one row more than the page holds.

    One condition, that which is likely to leave the fewest, chooses the index; each has one that ends with created_at. The plus keeps
    SQLite from the indexes of the others.
    """
    where: list[str] = []
    values: list[Any] = []
    by_tag = query.tag is not None and query.conversation_id is None and query.user_id is None
    source, order = (_LOGS_OF_TAG, "tagged") if by_tag else (_LOGS, "log")

    def must(condition: str, *of: Any) -> None:
        where.append(condition)
        values.extend(of)

    chosen = by_tag
    for column in (*_NARROW, *_WIDE):
        value = getattr(query, column)
        if value is not None:
            must(f"{'+' if chosen else ''}log.{column} = ?", str(value))
            chosen = True
    if by_tag:
        must("tagged.tag = ?", query.tag)
    elif query.tag is not None:
        must("EXISTS (SELECT 1 FROM json_each(log.tags) AS tag WHERE tag.value = ?)", query.tag)
    if query.start_time is not None:
        must(f"{order}.created_at >= ?", query.start_time)
    if query.end_time is not None:
        must(f"{order}.created_at < ?", query.end_time)
    if query.before is not None:
        must(f"({order}.created_at, {order}.id) < (?, ?)", *query.before)
    condition = f" WHERE {' AND '.join(where)}" if where else ""
    sql = f"SELECT {_COLUMNS} FROM {source}{condition} ORDER BY {order}.created_at DESC, {order}.id DESC LIMIT ?"
    return sql, [*values, query.page_size + 1]
