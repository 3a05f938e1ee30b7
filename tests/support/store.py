"""What tests of stores share."""

from collections.abc import Sequence
from typing import Any

from headrace_server.domain.message import TextPart
from headrace_server.domain.record import LogRow, RequestQuery
from headrace_server.domain.result import GenerationResult
from headrace_server.domain.usage import Usage, UsageSource


async def listed(store: Any, query: RequestQuery | None = None) -> list[LogRow]:
    """The rows of a page, with the one that tells whether another follows."""
    return [row async for row in store.list_requests(query or RequestQuery())]


def salvaged(row: LogRow, payloads: Sequence[bytes]) -> GenerationResult:
    """The kept payloads, taken for text, and a token each."""
    usage = Usage(output_tokens=len(payloads), total_tokens=len(payloads), source=UsageSource.ESTIMATED)
    return GenerationResult(content=tuple(TextPart(text=payload.decode()) for payload in payloads), usage=usage)
