import base64
import json
from collections.abc import AsyncIterator, Iterable

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from headrace.v1 import request_service_pb2 as pb
from headrace_server.domain.errors import ErrorCode, Refusal, Violation
from headrace_server.domain.lifecycle import Event, State, Transition
from headrace_server.domain.message import ChatMessage, MessageRole, TextPart
from headrace_server.domain.record import LogRow, RequestQuery, UnreadRequest
from headrace_server.domain.request import GenerateRequest
from headrace_server.domain.result import Attempt, GenerationResult, ProviderError
from headrace_server.rpc.codec_record import decode_list_requests, encode_list_requests, encode_record

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
REQUEST = GenerateRequest(request_id=ID, messages=(ChatMessage(role=MessageRole.USER, content=(TextPart(text="hi"),)),))


def row(number: int = 0, **fields: object) -> LogRow:
    row_id = f"00000000-0000-0000-0000-{number:012}"
    return LogRow.model_validate(
        {
            **{
                "id": row_id,
                "request_id": ID,
                "state": State.FAILED,
                "start_time": 1_000,
                "created_at": 1_000 + number,
                "updated_at": 2_000,
            },
            **fields,
        }
    )


def violations(message: pb.ListRequestsRequest) -> dict[str, str]:
    with pytest.raises(Refusal) as caught:
        decode_list_requests(message)
    return {v.field: v.description for v in caught.value.fault.violations}


def test_a_record_shows_its_row_column_by_column() -> None:
    error = ProviderError(code=ErrorCode.TIMEOUT, message="late", field_violations=(Violation(field="x", description="y"),))
    full = row(
        conversation_id=ID,
        user_id="u",
        provider="claude",
        model="m",
        request_data=REQUEST,
        response_data=GenerationResult(content=(TextPart(text="part"),)),
        error=error,
        error_message="late",
        error_code=ErrorCode.TIMEOUT,
        end_time=1_500,
        duration=500,
        retry_attempt=1,
        tags=("a", "b"),
        request_fingerprint="f",
        attempts=(Attempt(provider="claude", model="m", state=State.FAILED, start_time=1_001, error=error),),
        transitions=(Transition(from_state=State.IDLE, to_state=State.VALIDATING, event=Event.INITIATE_REQUEST, time=1_000),),
        trace_id="0" * 32,
        owner="o",
        node="n",
    )
    message = pb.RequestRecord.FromString(encode_record(full).SerializeToString())
    unset = [field.name for field in message.DESCRIPTOR.fields if field.name not in {f.name for f, _ in message.ListFields()}]
    assert unset == []
    assert message.request_data.messages[0].content[0].text == "hi"
    assert message.response_data.content[0].text == "part"
    assert message.end_time.ToMilliseconds() == 1_500
    assert message.duration.ToMilliseconds() == 500
    assert message.transitions[0].event == 1
    assert message.error.field_violations[0].field == "x"


def test_a_request_that_could_not_be_read_is_left_out_of_its_record() -> None:
    message = encode_record(row(request_data=UnreadRequest(unread={"a": 1})))
    assert not message.HasField("request_data")
    assert not message.HasField("end_time")
    assert message.state == 8


def test_a_list_without_filters_is_the_newest_fifty() -> None:
    assert decode_list_requests(pb.ListRequestsRequest()) == RequestQuery(page_size=50)


def test_filters_are_read_and_times_rounded_up() -> None:
    message = pb.ListRequestsRequest(
        page_size=7,
        state="REQUEST_STATE_FAILED",
        provider="claude",
        model="m",
        user_id="u",
        conversation_id=ID,
        tag="t",
        start_time=Timestamp(seconds=1, nanos=1),
        end_time=Timestamp(seconds=2),
        error_code="ERROR_CODE_TIMEOUT",
    )
    assert decode_list_requests(message) == RequestQuery(
        page_size=7,
        state=State.FAILED,
        provider="claude",
        model="m",
        user_id="u",
        conversation_id=ID,
        tag="t",
        start_time=1_001,
        end_time=2_000,
        error_code=ErrorCode.TIMEOUT,
    )


def test_everything_wrong_with_a_list_request_is_named_at_once() -> None:
    message = pb.ListRequestsRequest(page_size=1_001, page_token="?", state=99, tag="\0", start_time=Timestamp(seconds=-1), error_code=99)
    assert set(violations(message)) == {"page_size", "page_token", "state", "tag", "start_time", "error_code"}


async def each(rows: Iterable[LogRow]) -> AsyncIterator[LogRow]:
    for one in rows:
        yield one


async def test_pages_follow_one_another_without_gap_or_overlap() -> None:
    rows = [row(number) for number in range(7, 0, -1)]
    message = pb.ListRequestsRequest(page_size=3, provider="")
    seen: list[str] = []
    for _ in range(5):
        query = decode_list_requests(message)
        rest = [r for r in rows if query.before is None or (r.created_at, r.id) < query.before]
        response = await encode_list_requests(message, query, each(rest[: query.page_size + 1]))
        seen += [record.id for record in response.requests]
        if not response.next_page_token:
            break
        message.page_token = response.next_page_token
    assert seen == [r.id for r in rows]


async def test_the_last_page_has_no_token_also_when_it_is_full() -> None:
    message = pb.ListRequestsRequest(page_size=2)
    query = decode_list_requests(message)
    assert (await encode_list_requests(message, query, each([row(2), row(1)]))).next_page_token == ""
    assert (await encode_list_requests(message, query, each([]))).next_page_token == ""


async def token_of(message: pb.ListRequestsRequest) -> str:
    query = decode_list_requests(message)
    return (await encode_list_requests(message, query, each(row(number) for number in range(query.page_size + 1)))).next_page_token


async def test_a_token_given_for_other_filters_is_refused_but_another_page_size_is_not() -> None:
    token = await token_of(pb.ListRequestsRequest(page_size=1, provider="claude"))
    assert "page_token" in violations(pb.ListRequestsRequest(page_token=token, provider="gemini"))
    assert decode_list_requests(pb.ListRequestsRequest(page_token=token, provider="claude", page_size=9)).before is not None


@given(st.text(max_size=40) | st.binary(max_size=40).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_a_made_up_token_is_a_violation_never_an_exception(token: str) -> None:
    if token:
        assert set(violations(pb.ListRequestsRequest(page_token=token))) == {"page_token"}


@pytest.mark.parametrize("position", [[], [1], ["1", "x"], [-1, "x"], [2**80, "x"], [True, "x"], [1, "\0"], [1, "x", 2], [1.5, "x"], None])
async def test_a_forged_position_is_a_violation(position: object) -> None:
    filters, *_ = json.loads(base64.urlsafe_b64decode(await token_of(pb.ListRequestsRequest(page_size=1)) + "=="))
    forged = base64.urlsafe_b64encode(json.dumps([filters, *position] if isinstance(position, list) else position).encode()).decode()
    assert set(violations(pb.ListRequestsRequest(page_token=forged))) == {"page_token"}
