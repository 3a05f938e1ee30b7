"""The dialect claude: its encoder, field by field. Recorded requests have a test file of their own."""

import json
from typing import Any

import pytest
from pydantic import SecretStr

from headrace_server.domain.message import (
    ChatMessage,
    ContentPart,
    ImagePart,
    MessageRole,
    ProviderDataPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from headrace_server.domain.provider import Dialect, Provider
from headrace_server.domain.request import GenerateRequest
from headrace_server.providers.claude import Claude, ClaudeDecoder
from headrace_server.providers.dialect import HttpRequest

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
NEW, OLD = "claude-opus-4-8", "claude-sonnet-4-5-20250929"


def provider(api_url: str = "https://api.anthropic.com", key: str | None = "sk-ant-test") -> Provider:
    return Provider(
        id=ID,
        provider="claude",
        dialect=Dialect.CLAUDE,
        api_url=api_url,
        default_model=NEW,
        created_at=0,
        updated_at=0,
        api_key=SecretStr(key) if key else None,
    )


def message(role: MessageRole, *parts: ContentPart | str) -> ChatMessage:
    return ChatMessage(role=role, content=tuple(TextPart(text=part) if isinstance(part, str) else part for part in parts))


def user(*parts: ContentPart | str) -> ChatMessage:
    return message(MessageRole.USER, *parts)


def assistant(*parts: ContentPart | str) -> ChatMessage:
    return message(MessageRole.ASSISTANT, *parts)


def request(*messages: ChatMessage, **fields: Any) -> GenerateRequest:
    return GenerateRequest.model_validate({"request_id": ID, "messages": messages or (user("hi"),)} | fields)


def sent(*messages: ChatMessage, model: str = NEW, to: Provider | None = None, **fields: Any) -> HttpRequest:
    asked, to = request(*messages, **fields), to or provider()
    assert Claude().check(asked, to) == []
    return Claude().encode(asked, to, model, stream=True)


def body(*messages: ChatMessage, **fields: Any) -> dict[str, Any]:
    encoded: dict[str, Any] = json.loads(sent(*messages, **fields).body)
    return encoded


def refused(*messages: ChatMessage, to: Provider | None = None, **fields: Any) -> list[str]:
    """The fields that cannot be expressed."""
    return [violation.field for violation in Claude().check(request(*messages, **fields), to or provider())]


WEATHER = {"name": "weather", "description": "Tells it.", "parameters_json": '{"type": "object", "z": 1.0, "a": 12345678901234567890123}'}
NOW = {"name": "now", "parameters_json": "{}"}

# ---------------------------------------------------------------- the call


def test_the_request_is_a_post_with_key_and_version():
    encoded = sent()
    assert encoded.url == "https://api.anthropic.com/v1/messages"
    assert encoded.headers == {"content-type": "application/json", "anthropic-version": "2023-06-01", "x-api-key": "sk-ant-test"}
    assert json.loads(encoded.body) == {
        "model": NEW,
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "stream": True,
    }


def test_no_key_is_sent_when_there_is_none():
    assert "x-api-key" not in sent(to=provider(key=None)).headers


def test_the_path_is_added_to_any_base_url():
    assert sent(to=provider("http://127.0.0.1:8080/proxy/")).url == "http://127.0.0.1:8080/proxy/v1/messages"


def test_a_whole_answer_is_asked_for_when_no_stream_is_wanted():
    assert json.loads(Claude().encode(request(), provider(), NEW, stream=False).body)["stream"] is False


# ---------------------------------------------------------------- settings


def test_settings_have_the_names_of_the_provider():
    encoded = body(max_tokens=7, temperature=0.5, top_p=0.25, top_k=3, stop_sequences=["END", "STOP"])
    expected = {"max_tokens": 7, "temperature": 0.5, "top_p": 0.25, "top_k": 3, "stop_sequences": ["END", "STOP"]}
    assert expected.items() <= encoded.items()


def test_every_setting_that_cannot_be_expressed_is_named():
    wrong = refused(temperature=1.5, seed=1, response_format={"type": "json_object"}, provider_options={"top_k": 1})
    assert wrong == ["temperature", "seed", "response_format.json_object", "provider_options.top_k"]


def test_a_temperature_of_one_is_sent():
    assert body(temperature=1)["temperature"] == 1


def test_tools_keep_their_schemas_to_the_letter():
    encoded = sent(tools=[WEATHER | {"strict": True}, NOW])
    assert b'"input_schema":{"type": "object", "z": 1.0, "a": 12345678901234567890123}' in encoded.body
    tools = json.loads(encoded.body)["tools"]
    assert [tool["name"] for tool in tools] == ["weather", "now"]
    assert (tools[0]["description"], tools[0]["strict"]) == ("Tells it.", True)
    assert tools[1] == {"name": "now", "input_schema": {}}


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (None, None, None),
        ({"mode": "auto"}, None, {"type": "auto"}),
        ({"mode": "none"}, None, {"type": "none"}),
        ({"mode": "required"}, None, {"type": "any"}),
        ({"name": "now"}, None, {"type": "tool", "name": "now"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (None, True, {"type": "auto", "disable_parallel_tool_use": False}),
        ({"name": "now"}, False, {"type": "tool", "name": "now", "disable_parallel_tool_use": True}),
        ({"mode": "none"}, False, {"type": "none"}),
    ],
)
def test_tool_choice_and_parallel_calls_are_one_field(choice, parallel, expected):
    assert body(tools=[NOW], tool_choice=choice, parallel_tool_calls=parallel).get("tool_choice") == expected


def test_tool_choice_is_left_out_when_there_are_no_tools():
    assert "tool_choice" not in body(tool_choice={"mode": "auto"}, parallel_tool_calls=False)


def test_a_schema_for_the_answer_is_the_format_of_the_output():
    form = {"type": "json_schema", "name": "city", "schema_json": '{"type":"object"}', "strict": True}
    assert body(response_format=form)["output_config"] == {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    assert "output_config" not in body(response_format={"type": "text"})


# ---------------------------------------------------------------- reasoning


def test_effort_is_sent_as_effort_with_adaptive_thinking():
    encoded = body(reasoning={"effort": "medium"}, max_tokens=100)
    assert encoded["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert encoded["output_config"] == {"effort": "medium"}
    assert encoded["max_tokens"] == 100


def test_hidden_reasoning_is_not_asked_to_be_shown():
    assert body(reasoning={"effort": "low", "hide": True})["thinking"] == {"type": "adaptive"}


def test_effort_stands_beside_the_form_of_the_answer():
    form = {"type": "json_schema", "name": "x", "schema_json": "{}"}
    assert set(body(reasoning={"effort": "high"}, response_format=form)["output_config"]) == {"effort", "format"}


@pytest.mark.parametrize(
    "model",
    [
        *("claude-3-7-sonnet-20250219", "claude-3-7-sonnet-latest", "claude-sonnet-4-20250514", "claude-sonnet-4-0", "claude-opus-4-1"),
        *("claude-opus-4-5", "claude-haiku-4-5-20251001", "claude-haiku-4-5@20251001", "us.anthropic.claude-sonnet-4-20250514-v1:0"),
    ],
)
def test_effort_is_a_budget_when_the_model_is_older(model):
    encoded = body(model=model, reasoning={"effort": "medium"})
    assert encoded["thinking"] == {"type": "enabled", "budget_tokens": 4096}
    assert encoded["max_tokens"] == 4096 + 4096
    assert "output_config" not in encoded


@pytest.mark.parametrize(
    "model", ["claude-opus-4-6", "claude-opus-4-8-20260528", "claude-sonnet-5", "claude-haiku-5-5", "claude-fable-5-1"]
)
def test_effort_is_adaptive_when_the_model_is_newer(model):
    assert body(model=model, reasoning={"effort": "low"})["output_config"] == {"effort": "low"}


@pytest.mark.parametrize(("max_tokens", "budget"), [(100_000, 16_384), (8_192, 4_096), (1_500, 1_024)])
def test_the_budget_of_an_effort_leaves_room_for_the_answer(max_tokens, budget):
    encoded = body(model=OLD, reasoning={"effort": "high"}, max_tokens=max_tokens)
    assert (encoded["thinking"]["budget_tokens"], encoded["max_tokens"]) == (budget, max_tokens)


def test_a_budget_is_sent_as_it_is_and_added_to_the_default_for_the_answer():
    encoded = body(reasoning={"budget_tokens": 3000})
    assert (encoded["thinking"], encoded["max_tokens"]) == ({"type": "enabled", "budget_tokens": 3000}, 7096)


def test_no_effort_turns_thinking_off():
    assert body(reasoning={"effort": "none"})["thinking"] == {"type": "disabled"}


def test_a_request_that_only_hides_reasoning_asks_for_none():
    assert "thinking" not in body(reasoning={"hide": True})


# ---------------------------------------------------------------- messages


def test_system_messages_before_the_first_turn_become_system_in_order():
    cached = ProviderDataPart(provider_data={"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}})
    encoded = body(message(MessageRole.SYSTEM, "a", cached), message(MessageRole.SYSTEM, "c"), user("hi"))
    assert encoded["system"] == [{"type": "text", "text": "a"}, cached.provider_data, {"type": "text", "text": "c"}]
    assert [turn["role"] for turn in encoded["messages"]] == ["user"]


def test_a_later_system_message_stays_where_it_stands():
    encoded = body(user("hi"), message(MessageRole.SYSTEM, "be brief"), assistant("ok"))
    assert "system" not in encoded
    assert encoded["messages"][1] == {"role": "system", "content": [{"type": "text", "text": "be brief"}]}


def test_a_conversation_of_system_messages_alone_is_refused():
    assert refused(message(MessageRole.SYSTEM, "be brief")) == ["messages"]


def test_turns_of_one_role_are_joined():
    call = ToolCallPart(id="t1", name="now"), ToolCallPart(id="t2", name="now")
    results = [message(MessageRole.TOOL, ToolResultPart(tool_call_id=part.id, content=(TextPart(text="x"),))) for part in call]
    turns = body(user("a"), user("b"), assistant(*call), *results, user("c"))["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert [block["type"] for block in turns[2]["content"]] == ["tool_result", "tool_result", "text"]


def test_images_are_sent_inline_or_by_address():
    parts = [
        ImagePart(media_type="image/png", data=b"\x89PNG"),
        ImagePart(uri="https://example.com/a.png"),
        ImagePart(uri="data:image/jpeg;base64,/9j/4A=="),
    ]
    assert [block["source"] for block in body(user(*parts))["messages"][0]["content"]] == [
        {"type": "base64", "media_type": "image/png", "data": "iVBORw=="},
        {"type": "url", "url": "https://example.com/a.png"},
        {"type": "base64", "media_type": "image/jpeg", "data": "/9j/4A=="},
    ]


@pytest.mark.parametrize("uri", ["gs://bucket/a.png", "file:///etc/passwd", "data:image/png,plain"])
def test_an_image_at_another_kind_of_address_is_refused(uri):
    assert refused(user("see", ImagePart(uri=uri))) == ["messages[0].content[1].image.uri"]


def test_results_of_tools_hold_texts_images_and_errors():
    call = assistant(ToolCallPart(id="t1", name="now", arguments_json=""), ToolCallPart(id="t2", name="now", arguments_json='{"n": 1.0}'))
    content = (TextPart(text="x"), ImagePart(media_type="image/png", data=b"\x89"))
    results = user(ToolResultPart(tool_call_id="t1", content=content, is_error=True), ToolResultPart(tool_call_id="t2"))
    turns = body(user("hi"), call, results)["messages"]
    assert turns[1]["content"] == [
        {"type": "tool_use", "id": "t1", "name": "now", "input": {}},
        {"type": "tool_use", "id": "t2", "name": "now", "input": {"n": 1.0}},
    ]
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iQ=="}}
    assert turns[2]["content"] == [
        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "x"}, image], "is_error": True},
        {"type": "tool_result", "tool_use_id": "t2"},
    ]


def test_arguments_go_back_to_the_letter():
    call = ToolCallPart(id="t1", name="now", arguments_json='{"b": 1.0, "a": 12345678901234567890123}')
    assert b'"input":{"b": 1.0, "a": 12345678901234567890123}' in sent(user("hi"), assistant(call)).body


@pytest.mark.parametrize("arguments", ["[]", "{", "7", '{"a": NaN}', '{"city": "K'])
def test_arguments_that_are_no_object_are_refused(arguments):
    call = ToolCallPart(id="t1", name="now", arguments_json=arguments)
    assert refused(user("hi"), assistant(call)) == ["messages[1].content[0].tool_call.arguments_json"]


def test_what_only_other_providers_understand_is_refused():
    parts = (
        ToolCallPart(id="", name="now"),
        ToolCallPart(id="t", name="now", signature="gemini's"),
        ReasoningPart(text="unsigned"),
        ReasoningPart(id="rs_1", redacted_data="openai's"),
        RefusalPart(refusal="no"),
        ProviderDataPart(provider_data={"groundingMetadata": {}}),
    )
    assert refused(user("hi"), assistant(*parts)) == [
        "messages[1].content[0].tool_call.id",
        "messages[1].content[1].tool_call.signature",
        "messages[1].content[2].reasoning.signature",
        "messages[1].content[3].reasoning.id",
        "messages[1].content[4].refusal",
        "messages[1].content[5].provider_data",
    ]


def test_unsigned_reasoning_goes_back_to_a_compatible_server():
    turns = body(user("hi"), assistant(ReasoningPart(text="hm"), "yes"), to=provider("http://127.0.0.1:8080"))["messages"]
    assert turns[1]["content"][0] == {"type": "thinking", "thinking": "hm", "signature": ""}


def test_provider_data_goes_back_where_it_came_from():
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    cited, container = {"citations": [{"type": "char_location", "start_char_index": 3}]}, {"id": "container_1", "expires_at": "…"}
    said = [ProviderDataPart(provider_data=data) for data in (search, cited, {"container": container, "stop_sequence": "END"})]
    encoded = body(user("hi"), assistant(said[0], "It rains", said[1], said[2]), user("more"))
    assert encoded["messages"][1]["content"] == [search, {"type": "text", "text": "It rains"} | cited]
    assert encoded["container"] == "container_1"


def test_a_message_that_holds_nothing_for_the_model_is_left_out():
    refusal = ProviderDataPart(provider_data={"stop_details": {"type": "refusal", "category": "cyber"}})
    assert body(user("a"), assistant(refusal), user("b"))["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    ]


def test_a_container_that_the_caller_names_wins():
    said = ProviderDataPart(provider_data={"container": {"id": "old"}})
    assert body(user("hi"), assistant("x", said), provider_options={"container": "new"})["container"] == "new"


# ---------------------------------------------------------------- provider_options


def test_provider_options_add_what_the_api_does_not_model():
    options = {
        "service_tier": "auto",
        "metadata": {"user_id": "u"},
        "thinking": {"display": "omitted"},
        "output_config": {"task_budget": {"total": 9}},
        "tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}],
    }
    encoded = body(tools=[NOW], reasoning={"effort": "low", "hide": True}, provider_options=options)
    assert (encoded["service_tier"], encoded["metadata"]) == ("auto", {"user_id": "u"})
    assert encoded["thinking"] == {"type": "adaptive", "display": "omitted"}
    assert encoded["output_config"] == {"effort": "low", "task_budget": {"total": 9}}
    assert encoded["tools"] == [{"name": "now", "input_schema": {}}, {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}]


def test_provider_options_replace_nothing():
    modelled = ["model", "messages", "system", "max_tokens", "temperature", "top_p", "top_k", "stop_sequences", "tool_choice", "stream"]
    assert sorted(refused(provider_options=dict.fromkeys(modelled, 1))) == sorted(f"provider_options.{name}" for name in modelled)
    wrong = refused(reasoning={"effort": "low"}, provider_options={"output_config": {"effort": "max"}, "thinking": 7})
    assert wrong == ["provider_options.output_config.effort", "provider_options.thinking"]


def test_provider_options_add_fields_to_a_tool_of_the_request():
    options = {"tools": [{"name": "now", "cache_control": {"type": "ephemeral"}}]}
    assert body(tools=[NOW], provider_options=options)["tools"] == [
        {"name": "now", "input_schema": {}, "cache_control": {"type": "ephemeral"}}
    ]
    replacing = {"tools": [{"name": "now", "input_schema": {}}]}
    assert refused(tools=[NOW], provider_options=replacing) == ["provider_options.tools[0].input_schema"]


@pytest.mark.parametrize("tools", ["x", [7], [{"type": "web_search_20250305"}]])
def test_tools_in_provider_options_that_are_no_tools_are_refused(tools):
    assert refused(provider_options={"tools": tools}) == ["provider_options.tools"]


def test_tool_choice_is_sent_when_the_only_tools_are_the_providers():
    options = {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}
    assert body(tool_choice={"mode": "auto"}, provider_options=options)["tool_choice"] == {"type": "auto"}


def test_betas_are_a_header():
    encoded = sent(provider_options={"betas": ["context-1m-2025-08-07", "mcp-client-2025-11-20"]})
    assert encoded.headers["anthropic-beta"] == "context-1m-2025-08-07,mcp-client-2025-11-20"
    assert "betas" not in json.loads(encoded.body)


@pytest.mark.parametrize("betas", ["x", [7], ["a\r\nx-evil: 1"], {"a": 1}])
def test_betas_that_are_no_names_are_refused(betas):
    assert refused(provider_options={"betas": betas}) == ["provider_options.betas"]


# ---------------------------------------------------------------- the next turn


def next_turn(decoder: ClaudeDecoder, *results: ContentPart) -> list[dict[str, Any]]:
    """The turns of a request that sends a decoded answer back, unchanged."""
    answer = ChatMessage(role=MessageRole.ASSISTANT, content=decoder.answer.content())
    turns: list[dict[str, Any]] = body(user("hi"), answer, message(MessageRole.TOOL, *results) if results else user("go on"))["messages"]
    return turns


def test_an_answer_with_thinking_and_calls_goes_back_as_anthropic_documents():
    """Thinking first, with its signature, untouched; then the call; all results together at the start of the user's turn."""
    stream: list[dict[str, Any]] = [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Two cities."}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "EqQB"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "redacted_thinking", "data": "EmwK"}},
        {"type": "content_block_stop", "index": 1},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "I look."}},
        {"type": "content_block_stop", "index": 2},
    ]
    for index, city in ((3, "Paris"), (4, "Rome")):
        call = {"type": "tool_use", "id": f"toolu_{index}", "name": "weather", "input": {}}
        arguments = json.dumps({"city": city})
        stream += [
            {"type": "content_block_start", "index": index, "content_block": call},
            {"type": "content_block_delta", "index": index, "delta": {"type": "input_json_delta", "partial_json": arguments[:5]}},
            {"type": "content_block_delta", "index": index, "delta": {"type": "input_json_delta", "partial_json": arguments[5:]}},
            {"type": "content_block_stop", "index": index},
        ]
    stream += [{"type": "message_delta", "delta": {"stop_reason": "tool_use"}}, {"type": "message_stop"}]
    decoder = ClaudeDecoder()
    for event in stream:
        decoder.event(event["type"], json.dumps(event).encode())
    decoder.finish()

    results = [ToolResultPart(tool_call_id=f"toolu_{index}", content=(TextPart(text="20 °C"),)) for index in (3, 4)]
    assert next_turn(decoder, *results) == [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Two cities.", "signature": "EqQB"},
                {"type": "redacted_thinking", "data": "EmwK"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "toolu_3", "name": "weather", "input": {"city": "Paris"}},
                {"type": "tool_use", "id": "toolu_4", "name": "weather", "input": {"city": "Rome"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_3", "content": [{"type": "text", "text": "20 °C"}]},
                {"type": "tool_result", "tool_use_id": "toolu_4", "content": [{"type": "text", "text": "20 °C"}]},
            ],
        },
    ]
