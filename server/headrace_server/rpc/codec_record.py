"""Records of requests, and what is asked of them, between protobuf and the domain."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from headrace.v1 import request_service_pb2 as pb
from headrace_server.domain.record import LogRow, RequestQuery
from headrace_server.domain.request import GenerateRequest
from headrace_server.domain.result import Attempt, told
from headrace_server.domain.violations import validate
from headrace_server.rpc.codec_event import encode_transition
from headrace_server.rpc.codec_request import encode_generate_request
from headrace_server.rpc.codec_result import encode_attempt, encode_bare_error, encode_result
from headrace_server.rpc.codec_values import (
    ERROR_CODE,
    STATE,
    Wrong,
    int32,
    maybe_duration,
    maybe_timestamp,
    millis_of_timestamp,
    timestamp_of,
    utf8,
)
from headrace_server.rpc.page import decode_page, encode_page_token

DEFAULT_PAGE_SIZE = 50


def encode_record(row: LogRow, attempts: Sequence[Attempt] | None = None) -> pb.RequestRecord:
    """A row of provider_logs in protobuf, with these attempts, if not its own. A request that could not be read is left out."""
    return pb.RequestRecord(
        id=row.id,
        request_id=row.request_id,
        conversation_id=row.conversation_id or "",
        user_id=row.user_id,
        provider=row.provider,
        model=utf8(row.model),
        state=STATE.numbers[row.state],
        request_data=encode_generate_request(row.request_data) if isinstance(row.request_data, GenerateRequest) else None,
        response_data=None if row.response_data is None else encode_result(row.response_data),
        error_message=utf8(row.error_message or ""),
        error_code=ERROR_CODE.numbers[row.error_code],
        start_time=timestamp_of(row.start_time),
        end_time=maybe_timestamp(row.end_time),
        duration=maybe_duration(row.duration),
        retry_attempt=int32(row.retry_attempt),
        tags=row.tags,
        request_fingerprint=row.request_fingerprint,
        attempts=[encode_attempt(attempt) for attempt in (row.attempts if attempts is None else attempts)],
        transitions=[encode_transition(transition) for transition in row.transitions],
        trace_id=row.trace_id,
        owner=row.owner,
        node=row.node,
        created_at=timestamp_of(row.created_at),
        updated_at=timestamp_of(row.updated_at),
        error=None if row.error is None else encode_bare_error(row.error),
    )


def decode_list_requests(message: pb.ListRequestsRequest) -> RequestQuery:
    """The domain query. Raises a Refusal that names every wrong field."""
    wrong: Wrong = []
    fields: dict[str, Any] = {"state": STATE.member(message.state), "error_code": ERROR_CODE.member(message.error_code)}
    for name in ("provider", "model", "user_id", "conversation_id", "tag"):
        text: str = getattr(message, name)
        if "\0" in text:
            wrong.append(((name,), "must not contain the character NUL"))
        fields[name] = text or None
    if message.HasField("start_time"):
        fields["start_time"] = millis_of_timestamp(message.start_time, ("start_time",), wrong)
    if message.HasField("end_time"):
        fields["end_time"] = millis_of_timestamp(message.end_time, ("end_time",), wrong)
    page = decode_page(message, (int, str), wrong, default=DEFAULT_PAGE_SIZE)
    return validate(RequestQuery.model_validate, {**fields, "page_size": page.size, "before": page.after or None}, wrong)


async def encode_list_requests(
    message: pb.ListRequestsRequest, query: RequestQuery, rows: AsyncIterator[LogRow]
) -> pb.ListRequestsResponse:
    """A page of rows as the store returns it: with one row more than page_size where another page follows.

    Providers' whole texts are left out: a page of them would be larger than what a caller takes in one message.
    """
    response = pb.ListRequestsResponse()
    last = None
    async for row in rows:
        if len(response.requests) < query.page_size:
            response.requests.append(encode_record(row, told(row.attempts)))
            last = row
        elif last is not None:
            response.next_page_token = encode_page_token(message, (last.created_at, last.id))
    return response
