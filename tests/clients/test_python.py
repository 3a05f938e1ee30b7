"""The scenario of tests/clients/README.md, with the Python client for blocking callers."""

import json
import time

import grpc
import pytest
from google.protobuf import json_format, symbol_database
from google.protobuf.message import Message

import headrace
from headrace.v1 import analytics_service_pb2, generation_service_pb2, provider_service_pb2
from headrace.v1.error_pb2 import ERROR_CODE_CANCELLED, ERROR_CODE_TIMEOUT
from headrace.v1.lifecycle_pb2 import REQUEST_STATE_COMPLETED, REQUEST_STATE_FAILED
from headrace.v1.request_pb2 import DISCONNECT_POLICY_KEEP
from support.scenario import (
    EMPTY_PART,
    EMPTY_PART_FIELDS,
    FIELDS,
    PROMPT,
    SAID,
    TOKENS,
    WEATHER,
    check_stream,
    check_tool_call,
    check_unary,
    way,
)

pytestmark = pytest.mark.slow  # `make test-clients` runs them with those of the other languages


def test_unary_gives_the_whole_answer(client, step):
    with step("unary"):
        request_id = headrace.new_id()
        request = headrace.GenerateRequest(request_id=request_id, provider="echo", messages=[headrace.user(PROMPT)])
        answer = client.generate(request, **FIELDS)

        assert answer.request_id == request_id
        assert (answer.text, answer.finish_reason, answer.provider) == (SAID, "stop", "echo")
        check_unary(answer.result)
        again = headrace.request.build_request(request, {"on_disconnect": DISCONNECT_POLICY_KEEP, **FIELDS})
        _, call = client.generation.Generate.with_call(request=again)
        assert dict(call.initial_metadata())["x-request-id"] == request_id


def test_stream_gives_every_event(client, step):
    with step("stream"):
        with client.stream(PROMPT, provider="slow", timeout=20, **FIELDS) as stream:
            events = list(stream.events())

        check_stream(events)
        assert stream.text == "".join(TOKENS)
        assert stream.answer().finish_reason == "stop"


def test_stream_gives_the_pieces_of_the_text(client):
    with client.stream(PROMPT, provider="slow", **FIELDS) as stream:
        assert list(stream) == TOKENS


def test_tool_call_and_its_result_make_a_conversation(client, step):
    with step("tool_call"):
        with client.stream(PROMPT, provider="tool", tools=[WEATHER], **FIELDS) as stream:
            check_tool_call(list(stream.events()))
        answer = stream.answer()
        (call,) = answer.tool_calls
        assert answer.finish_reason == "tool_calls"
        assert json.loads(call.arguments_json) == {"city": "Paris"}

        conversation = [headrace.user(PROMPT), answer.message, headrace.tool_result(call.id, "sunny")]
        assert client.generate(conversation, provider="echo", tools=[WEATHER], **FIELDS).text.startswith("You said: sunny ")


def test_two_on_one_stream_end_each_with_its_own_answer(client, step):
    with step("two_on_one_stream"), client.session() as session:
        slow = session.stream(PROMPT, provider="slow", **FIELDS)
        echo = session.stream(PROMPT, provider="echo", **FIELDS)

        assert echo.answer().text == SAID
        assert slow.text != "".join(TOKENS), "the fast one waited for the slow one"
        assert slow.answer().text == "".join(TOKENS)


def test_cancel_ends_the_generation_and_tells_what_there_was(client, step):
    with step("cancel"):
        with client.session() as session:
            stream = session.stream(PROMPT, provider="slow", **FIELDS)
            next(stream)
            stream.cancel()
            with pytest.raises(headrace.Cancelled) as caught:
                stream.answer()

        partial = caught.value.partial
        assert partial is not None
        assert partial.text
        assert partial.text != "".join(TOKENS)
        assert "".join(TOKENS).startswith(partial.text)
        record = client.get(stream.request_id)
        assert (record.state, record.error_code) == (REQUEST_STATE_FAILED, ERROR_CODE_CANCELLED)


def test_deadline_reaches_the_service(client, step):
    with step("deadline"):
        request = headrace.request.build_request(PROMPT, {"provider": "stuck", **FIELDS})
        request.ClearField("on_disconnect")
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            client.generation.Generate(request, timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - began < 5
        assert _ended(client, request.request_id).error_code == ERROR_CODE_TIMEOUT

        with pytest.raises(headrace.TimedOut) as told:
            client.generate(PROMPT, provider="stuck", timeout=0.3, **FIELDS)
        assert isinstance(told.value, TimeoutError)
        assert _ended(client, told.value.request_id).error_code == ERROR_CODE_TIMEOUT


def test_resume_after_every_cut_loses_nothing(proxy, step):
    with step("resume"), headrace.Client(proxy) as client:
        with client.stream(PROMPT, provider="slow", timeout=20, **FIELDS) as stream:
            check_stream(list(stream.events()))
        assert stream.answer().text == "".join(TOKENS)


def test_rate_limit_says_when_to_come_back(client, step):
    with step("rate_limit"):
        with pytest.raises(headrace.RateLimited) as caught:
            client.generate(PROMPT, provider="limited", **FIELDS)

        error = caught.value
        assert (error.code, error.http_status, error.provider, len(error.attempts)) == ("rate_limit_exceeded", 429, "limited", 1)
        assert error.retry_after is not None
        assert 7 <= error.retry_after <= 8.4


def test_invalid_names_every_wrong_field(client, step):
    with step("invalid"):
        with pytest.raises(headrace.InvalidRequest) as caught:
            client.generate(EMPTY_PART, provider="echo", temperature=3, **FIELDS)

        assert {violation.field for violation in caught.value.field_violations} == EMPTY_PART_FIELDS
        with pytest.raises(headrace.InvalidRequest) as streamed:
            client.stream(EMPTY_PART, provider="echo", temperature=3, **FIELDS).answer()
        assert {violation.field for violation in streamed.value.field_violations} == EMPTY_PART_FIELDS


def test_watch_tells_the_way_of_what_was_submitted(client, step):
    with step("watch"):
        request_id = client.submit(PROMPT, provider="slow", **FIELDS)
        transitions = list(client.watch(request_id))

        assert way(transitions) == ["IDLE", "VALIDATING", "REQUESTING", "STREAMING", "COMPLETED"]
        assert transitions[-1].time.ToMilliseconds() - transitions[0].time.ToMilliseconds() > 1000
        events = list(client.attach(request_id, 60).events())
        assert [event.chunk.index for event in events if event.HasField("chunk")] == [60, 61, 62, 63, 64]
        assert events[-1].HasField("completed")
        assert client.get(request_id).state == REQUEST_STATE_COMPLETED


def test_vectors_are_read_and_written_again(vectors, step):
    with step("vectors"):
        index = json.loads((vectors / "index.json").read_text())
        assert len(index) >= 50
        for row in index:
            kind = _class(row["type"])
            binary = (vectors / f"{row['name']}.binpb").read_bytes()
            message = kind.FromString(binary)
            assert message.SerializeToString(deterministic=True) == binary, row
            assert json_format.Parse((vectors / f"{row['name']}.json").read_text(), kind()) == message, row


def _class(name: str) -> type[Message]:
    assert analytics_service_pb2.DESCRIPTOR.pool is generation_service_pb2.DESCRIPTOR.pool is provider_service_pb2.DESCRIPTOR.pool
    return symbol_database.Default().GetSymbol(name)


def _ended(client: headrace.Client, request_id: str) -> headrace.RequestRecord:
    """The record, once it has ended."""
    for _ in range(500):
        record = client.get(request_id)
        if record.state == REQUEST_STATE_FAILED:
            return record
        time.sleep(0.01)
    raise AssertionError(f"it has not ended: {record}")
