import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.v1 import request_pb2 as pb
from headrace_server.domain.errors import ErrorCode, Refusal
from headrace_server.domain.request import GenerateRequest
from headrace_server.rpc.codec_request import MAX_PARTS, decode_generate_request, encode_generate_request

ID = "01890a5d-ac96-774b-bcce-b302099a8057"


def violations(message: pb.GenerateRequest | None = None, /, **fields: Any) -> dict[str, str]:
    """What is found wrong with a request that is right but for the given fields."""
    right: dict[str, Any] = {"messages": [{"role": "MESSAGE_ROLE_USER", "content": [{"text": "hi"}]}]}
    with pytest.raises(Refusal) as caught:
        decode_generate_request(message or pb.GenerateRequest(**(right | fields)), stream=True, request_id=ID)
    fault = caught.value.fault
    assert fault.code is ErrorCode.INVALID_REQUEST
    assert not fault.fallback
    found = {v.field: v.description for v in fault.violations}
    for description in found.values():
        for jargon in ("Input should", "Value error", "Tuple", "validation", "Field required", "tag"):
            assert jargon not in description
    return found


def user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "MESSAGE_ROLE_USER", "content": list(parts)}]


@given(data=st.data())
def test_a_request_survives_the_wire_unchanged(data: st.DataObject, generated: SimpleNamespace) -> None:
    request = data.draw(generated.requests)
    raw = encode_generate_request(request).SerializeToString()
    assert decode_generate_request(pb.GenerateRequest.FromString(raw), stream=request.stream, request_id=None) == request


def canonical(message: pb.GenerateRequest) -> pb.GenerateRequest:
    """The message as it would be written after reading: what is not told apart from 'not set' is not set, times are milliseconds."""
    message.request_id = message.request_id.lower() or ID
    if message.metadata.conversation_id:
        message.metadata.conversation_id = message.metadata.conversation_id.lower()
    for name in ("retry", "fallback", "timeouts", "metadata", "provider_options"):
        if not getattr(message, name).ByteSize():
            message.ClearField(name)
    if message.HasField("reasoning") and not message.reasoning.effort:
        message.reasoning.ClearField("effort")
    for holder, names in (
        (message.retry, ("initial_delay", "max_delay")),
        (message.timeouts, ("first_token", "idle", "progress", "total")),
    ):
        for name in names:
            if holder.HasField(name):
                duration = getattr(holder, name)
                whole = duration.seconds * 1000 - -duration.nanos // 1_000_000
                duration.seconds, duration.nanos = whole // 1000, whole % 1000 * 1_000_000
    return message


@settings(max_examples=300)
@given(data=st.data())
def test_any_message_is_read_or_refused_with_every_wrong_field_named(data: st.DataObject, generated: SimpleNamespace) -> None:
    fields = data.draw(generated.messages_of(pb.GenerateRequest.DESCRIPTOR))
    # Half of the messages get a conversation that is right, or hardly any would be accepted.
    if data.draw(st.booleans()):
        fields["messages"] = user({"text": "hi"})
    message = pb.GenerateRequest.FromString(pb.GenerateRequest(**fields).SerializeToString())
    refused = None
    try:
        request = decode_generate_request(message, stream=False, request_id=ID)
    except Refusal as refusal:
        refused = refusal.fault
    if refused is None:
        assert encode_generate_request(request) == canonical(message)
    else:
        assert refused.violations
        assert all(v.field and v.description for v in refused.violations)


def test_an_empty_request_id_takes_the_given_one() -> None:
    message = pb.GenerateRequest(messages=user({"text": "hi"}))
    assert decode_generate_request(message, stream=False, request_id=ID).request_id == ID
    message.request_id = "11111111-2222-3333-4444-555555555555"
    assert decode_generate_request(message, stream=False, request_id=ID).request_id == message.request_id


def test_the_kind_of_rpc_is_told_by_stream() -> None:
    message = pb.GenerateRequest(messages=user({"text": "hi"}))
    assert [decode_generate_request(message, stream=stream, request_id=ID).stream for stream in (True, False)] == [True, False]


def test_an_empty_request_says_what_it_lacks() -> None:
    assert violations(pb.GenerateRequest()) == {"messages": "must not be empty"}


@pytest.mark.parametrize(
    ("fields", "path", "words"),
    [
        ({"request_id": "x"}, "request_id", "must be a UUID"),
        ({"request_id": "urn:01890a5dac96774bbcceb302099a8057"}, "request_id", "must be a UUID"),
        ({"provider": "No Such"}, "provider", "must match the pattern"),
        ({"model": "a\r\nx-evil: 1"}, "model", "must match the pattern"),
        ({"model": " "}, "model", "must match the pattern"),
        ({"max_tokens": 0}, "max_tokens", "must be greater than 0"),
        ({"max_tokens": -5}, "max_tokens", "must be greater than 0"),
        ({"temperature": 3}, "temperature", "must be at most 2"),
        ({"temperature": float("nan")}, "temperature", "must be a finite number"),
        ({"temperature": float("inf")}, "temperature", "must be a finite number"),
        ({"top_p": -0.1}, "top_p", "must be at least 0"),
        ({"top_k": 0}, "top_k", "must be greater than 0"),
        ({"stop_sequences": ["a", ""]}, "stop_sequences[1]", "must not be empty"),
        ({"stop_sequences": ["x"] * 100}, "stop_sequences", "must have at most 64 items"),
        ({"on_disconnect": 9}, "on_disconnect", "must be one of"),
        ({"messages": user({})}, "messages[0].content[0]", "exactly one of its fields must be set"),
        ({"messages": user()}, "messages[0].content", "must not be empty"),
        ({"messages": [{"content": [{"text": "x"}]}]}, "messages[0].role", "must be set"),
        ({"messages": [{"role": 9, "content": [{"text": "x"}]}]}, "messages[0].role", "must be one of"),
        ({"messages": user({"text": "a"}, {"text": "b\0"})}, "messages[0].content[1].text", "must not contain the character NUL"),
        ({"messages": user({"image": {}})}, "messages[0].content[0].image", "exactly one of data and uri must be set"),
        ({"messages": user({"image": {"uri": ""}})}, "messages[0].content[0].image.uri", "must not be empty"),
        ({"messages": user({"image": {"data": b"x"}})}, "messages[0].content[0].image", "media_type must be set beside data"),
        ({"messages": user({"reasoning": {"text": "x"}})}, "messages[0].content[0]", "cannot hold a part of the kind reasoning"),
        (
            {"messages": user({"tool_result": {"tool_call_id": "nobody"}})},
            "messages[0].content[0].tool_result.tool_call_id",
            "no earlier message holds a tool_call with this id",
        ),
        (
            {"messages": user({"tool_result": {"tool_call_id": "x", "content": [{"tool_call": {"name": "x"}}]}})},
            "messages[0].content[0].tool_result.content[0]",
            "cannot be a tool_call",
        ),
        (
            {"messages": user({"tool_result": {"tool_call_id": "x", "content": [{"text": "\0"}]}})},
            "messages[0].content[0].tool_result.content[0].text",
            "NUL",
        ),
        ({"tools": [{"name": "a b", "parameters_json": "{}"}]}, "tools[0].name", "must match the pattern"),
        ({"tools": [{"name": "a"}]}, "tools[0].parameters_json", "must be a JSON object"),
        ({"tools": [{"name": "a", "parameters_json": "[1]"}]}, "tools[0].parameters_json", "must be a JSON object"),
        ({"tools": [{"name": "a", "parameters_json": '{"a":"\\ud83d"}'}]}, "tools[0].parameters_json", "lone surrogate"),
        ({"tools": [{"name": "a", "parameters_json": '{"a":' * 1000 + "1" + "}" * 1000}]}, "tools[0].parameters_json", "deep"),
        ({"tools": [{"name": "a", "parameters_json": "{}"}] * 2}, "tools[1].name", "is already the name of an earlier tool"),
        ({"tool_choice": {}}, "tool_choice", "exactly one of mode and name must be set"),
        ({"tool_choice": {"name": "x"}}, "tool_choice.name", "is not the name of one of the tools"),
        ({"tool_choice": {"mode": "TOOL_CHOICE_MODE_REQUIRED"}}, "tool_choice.mode", "there are no tools to choose from"),
        ({"response_format": {}}, "response_format", "exactly one of its fields must be set"),
        ({"response_format": {"json_schema": {"name": "x"}}}, "response_format.json_schema.schema_json", "must be a JSON object"),
        ({"reasoning": {"budget_tokens": 0}}, "reasoning.budget_tokens", "must be greater than 0"),
        ({"reasoning": {"effort": 77}}, "reasoning.effort", "must be one of"),
        ({"metadata": {"conversation_id": "x"}}, "metadata.conversation_id", "must be a UUID"),
        ({"metadata": {"tags": ["a", "b", "c\n"]}}, "metadata.tags[2]", "must not contain control characters"),
        ({"metadata": {"user_id": "x" * 300}}, "metadata.user_id", "must have at most 256 characters"),
        ({"retry": {"max_attempts": 0}}, "retry.max_attempts", "must be at least 1"),
        ({"retry": {"initial_delay": {"seconds": -1}}}, "retry.initial_delay", "must not be negative"),
        ({"retry": {"initial_delay": {"seconds": 9}, "max_delay": {"seconds": 1}}}, "retry.max_delay", "must not be shorter"),
        ({"fallback": {"model_mapping": {"x": "a b"}}}, 'fallback.model_mapping["x"]', "must match the pattern"),
        ({"fallback": {"model_mapping": {"a b": "x"}}}, 'fallback.model_mapping["a b"]', "its name must match the pattern"),
        ({"fallback": {"providers": ["ok", "Not Ok"]}}, "fallback.providers[1]", "must match the pattern"),
        ({"fallback": {"providers": ["a", "a"]}}, "fallback", "providers must not name one twice"),
        ({"timeouts": {"idle": {}}}, "timeouts.idle", "must be greater than 0"),
        ({"timeouts": {"total": {"seconds": 10**9}}}, "timeouts.total", "must be at most 604800000"),
        ({"timeouts": {"total": {"nanos": 2_000_000_000}}}, "timeouts.total", "is not a valid duration"),
        ({"provider_options": {"fields": {"a": {"string_value": "\0"}}}}, "provider_options", "NUL"),
        ({"provider_options": {"fields": {"a": {"number_value": float("nan")}}}}, "provider_options", "NaN"),
    ],
)
def test_a_wrong_field_is_named_by_its_path_and_in_plain_words(fields: dict[str, Any], path: str, words: str) -> None:
    found = violations(**fields)
    assert words in found[path]
    assert set(found) == {path} or path.startswith("messages")


def test_every_wrong_field_is_named_at_once() -> None:
    found = violations(
        request_id="x",
        provider="A B",
        temperature=9,
        messages=[{"role": 0, "content": [{"text": "\0"}, {}]}, {"role": 1}],
        tools=[{"name": "t", "parameters_json": "["}, {"name": "t", "parameters_json": "{}"}],
        timeouts={"idle": {"seconds": -1}},
        metadata={"tags": [""]},
    )
    assert set(found) == {
        "request_id",
        "provider",
        "temperature",
        "messages[0].role",
        "messages[0].content[0].text",
        "messages[0].content[1]",
        "messages[1].content",
        "tools[0].parameters_json",
        "tools[1].name",
        "timeouts.idle",
        "metadata.tags[0]",
    }


def test_options_deeper_than_25_levels_are_refused() -> None:
    options = Struct()
    inner = options
    for _ in range(26):
        inner = inner.fields["x"].struct_value
    assert violations(provider_options=options) == {"provider_options": "must be at most 25 levels deep"}


@pytest.mark.parametrize(
    "message",
    [
        pb.GenerateRequest(messages=user({"text": "x"}) * 10_000),
        pb.GenerateRequest(messages=[{"role": 1, "content": [{}] * 200_000}]),
        pb.GenerateRequest(messages=user({"text": "x"}), tools=[{"name": "x", "parameters_json": "{}"}] * 100_000),
        pb.GenerateRequest(messages=user({"text": "x"}), metadata={"tags": ["x"] * 500_000}),
        pb.GenerateRequest(messages=user({"text": "x"}), fallback={"model_mapping": {str(i): "x" for i in range(50_000)}}),
    ],
    ids=["messages", "parts", "tools", "tags", "model_mapping"],
)
def test_a_request_with_far_too_much_of_something_is_refused_quickly(message: pb.GenerateRequest) -> None:
    began = time.process_time()
    found = violations(message)
    assert any("must have at most" in words for words in found.values())
    assert len(found) <= 1_000
    assert time.process_time() - began < 0.5


def test_a_limit_of_messages_below_the_hard_one_is_kept() -> None:
    message = pb.GenerateRequest(messages=user({"text": "x"}) * 3)
    with pytest.raises(Refusal) as caught:
        decode_generate_request(message, stream=False, request_id=ID, max_messages=2)
    assert [v.description for v in caught.value.fault.violations] == ["must have at most 2 items"]
    assert len(decode_generate_request(message, stream=False, request_id=ID, max_messages=3).messages) == 3


def test_as_many_parts_as_are_allowed_are_read() -> None:
    message = pb.GenerateRequest(messages=user(*[{"text": "x"}] * MAX_PARTS))
    assert len(decode_generate_request(message, stream=False, request_id=ID).messages[0].content) == MAX_PARTS


def test_a_full_conversation_is_read_as_it_was_written() -> None:
    message = pb.GenerateRequest(
        messages=[
            {"role": "MESSAGE_ROLE_SYSTEM", "content": [{"text": "Be brief."}]},
            {"role": "MESSAGE_ROLE_USER", "content": [{"text": "What is on it?"}, {"image": {"media_type": "image/png", "data": b"\x89"}}]},
            {"role": "MESSAGE_ROLE_ASSISTANT", "content": [{"tool_call": {"id": "c1", "name": "look", "arguments_json": "{}"}}]},
            {"role": "MESSAGE_ROLE_TOOL", "content": [{"tool_result": {"tool_call_id": "c1", "content": [{"text": "A cat."}]}}]},
        ],
        tools=[{"name": "look", "parameters_json": '{"type":"object"}', "strict": False}],
        tool_choice={"name": "look"},
        response_format={"json_schema": {"name": "s", "schema_json": "{}"}},
    )
    request = decode_generate_request(message, stream=True, request_id=ID)
    assert [m.role for m in request.messages] == ["system", "user", "assistant", "tool"]
    assert request.tools[0].strict is False
    assert json.loads(request.model_dump_json())["response_format"] == {
        "type": "json_schema",
        "name": "s",
        "schema_json": "{}",
        "strict": None,
    }
    assert GenerateRequest.model_validate_json(request.model_dump_json()) == request
