"""The statements behind lists."""

from typing import Any

from headrace_server.domain.record import RequestQuery
from headrace_server.store.transaction import SELECT_LOGS


def requests_page(query: RequestQuery) -> tuple[str, list[Any]]:
    """The statement and its values for a page of requests, newest first, with one row more than the page holds."""
    where: list[str] = []
    values: list[Any] = []

    def must(condition: str, *of: Any) -> None:
        where.append(condition)
        values.extend(of)

    for column in ("state", "model", "user_id", "conversation_id", "error_code"):
        value = getattr(query, column)
        if value is not None:
            must(f"{column} = ?", str(value))
    if query.provider is not None:
        # The plus keeps SQLite from the index of provider and state, by which it would read and sort all that the two have in common.
        must("provider = ?" if query.state is None else "+provider = ?", query.provider)
    if query.tag is not None:
        must("EXISTS (SELECT 1 FROM json_each(provider_logs.tags) AS tag WHERE tag.value = ?)", query.tag)
    if query.start_time is not None:
        must("created_at >= ?", query.start_time)
    if query.end_time is not None:
        must("created_at < ?", query.end_time)
    if query.before is not None:
        must("(created_at, id) < (?, ?)", *query.before)
    condition = f" WHERE {' AND '.join(where)}" if where else ""
    return f"{SELECT_LOGS}{condition} ORDER BY created_at DESC, id DESC LIMIT ?", [*values, query.page_size + 1]
