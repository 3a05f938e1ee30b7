"""The encoder of the dialect openai, field by field, and a second turn made from a first answer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from headrace_server.domain.provider import Dialect, Provider
from headrace_server.domain.request import GenerateRequest
from headrace_server.providers.dialect import HttpRequest
from headrace_server.providers.openai import OpenAIChat
from headrace_server.providers.openai_decoder import ChatDecoder

Json = dict[str, Any]

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
OPENAI, AZURE, LOCAL = "https://api.openai.com/v1", "https://me.openai.azure.com/openai/v1/", "http://127.0.0.1:8080/v1"
OPENROUTER, GROQ, MISTRAL = "https://openrouter.ai/api/v1", "https://api.groq.com/openai/v1", "https://api.mistral.ai/v1"
HI = {"role": "user", "content": [{"type": "text", "text": "hi"}]}
TOOL = {"name": "weather", "description": "Tells it.", "parameters_json": '{"type": "object", "z": 1.0, "a": 12345678901234567890123}'}


def provider(api_url: str = OPENAI, key: str | None = "sk-test") -> Provider:
    return Provider(
        id=ID,
        provider="openai",
        dialect=Dialect.OPENAI,
        api_url=api_url,
        default_model="m",
        created_at=0,
        updated_at=0,
        api_key=SecretStr(key) if key else None,
    )


def request(*messages: Json, **fields: Any) -> GenerateRequest:
    return GenerateRequest.model_validate({"request_id": ID, "messages": messages or [HI]} | fields)


def sent(*messages: Json, to: str = OPENAI, stream: bool = False, key: str | None = "sk-test", **fields: Any) -> HttpRequest:
    asked = request(*messages, stream=stream, **fields)
    assert OpenAIChat().check(asked, provider(to)) == []
    return OpenAIChat().encode(asked, provider(to, key), "gpt-test", stream=stream)


def body(*messages: Json, to: str = OPENAI, **fields: Any) -> Json:
    encoded: Json = json.loads(sent(*messages, to=to, **fields).body)
    return encoded


def encoded(*messages: Json, to: str = OPENAI) -> list[Json]:
    """The messages as they go out."""
    out: list[Json] = body(*messages, to=to)["messages"]
    return out


def refused(*messages: Json, to: str = OPENAI, **fields: Any) -> list[str]:
    """The fields that cannot be expressed."""
    return [violation.field for violation in OpenAIChat().check(request(*messages, **fields), provider(to))]


def said(role: str, *parts: Json | str) -> Json:
    return {"role": role, "content": [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]}


def call(id: str = "a", name: str = "weather", arguments: str = '{"city": "Oslo"}', signature: str = "") -> Json:
    return {"type": "tool_call", "id": id, "name": name, "arguments_json": arguments, "signature": signature}


def result(*content: Json | str, id: str = "a", is_error: bool = False) -> Json:
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    return {"type": "tool_result", "tool_call_id": id, "content": parts, "is_error": is_error}


def reasoning(text: str = "", **more: str) -> Json:
    return {"type": "reasoning", "text": text} | more


def data(**fields: Any) -> Json:
    return {"type": "provider_data", "provider_data": fields}


# ---------------------------------------------------------------- the request around the body


def test_the_request_is_a_post_with_the_key_in_its_header():
    asked = sent(stream=True)
    assert asked.url == "https://api.openai.com/v1/chat/completions"
    assert asked.headers == {"content-type": "application/json", "accept": "text/event-stream", "authorization": "Bearer sk-test"}
    assert sent().headers["accept"] == "application/json"


def test_no_key_is_sent_when_there_is_none():
    assert sent(key=None).headers.keys() == {"content-type", "accept"}


def test_azure_gets_the_key_in_its_own_header():
    assert sent(to=AZURE).headers["api-key"] == "sk-test"
    assert "authorization" not in sent(to=AZURE).headers


@pytest.mark.parametrize(
    ("api_url", "url"),
    [
        ("http://h:1/v1/", "http://h:1/v1/chat/completions"),
        ("http://h", "http://h/chat/completions"),
        (
            "https://r.openai.azure.com/openai/deployments/d?api-version=2024-02-01",
            "https://r.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-02-01",
        ),
    ],
)
def test_the_path_is_added_to_any_base_url(api_url, url):
    assert sent(to=api_url).url == url


def test_a_stream_is_asked_for_with_its_usage():
    assert body(stream=True) == {
        "model": "gpt-test",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert body() == {"model": "gpt-test", "messages": [{"role": "user", "content": "hi"}]}
    assert "stream_options" not in body(to=MISTRAL, stream=True)


def test_the_same_request_gives_the_same_bytes():
    fields: Json = {"tools": [TOOL], "provider_options": {"b": 1.0, "a": {"d": 1, "c": 2}}, "temperature": 0.5}
    assert sent(**fields).body == sent(**fields).body


# ---------------------------------------------------------------- settings


def test_settings_have_the_names_of_the_provider():
    fields: Json = {
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": -7,
        "stop_sequences": ["a", "b"],
        "reasoning": {"effort": "high", "hide": True},
    }
    expected = {"temperature": 0.5, "top_p": 0.9, "seed": -7, "stop": ["a", "b"], "reasoning_effort": "high"}
    assert body(**fields) == body() | expected


@pytest.mark.parametrize(
    ("to", "name"),
    [(OPENAI, "max_completion_tokens"), ("https://eu.api.openai.com/v1", "max_completion_tokens"), (AZURE, "max_completion_tokens")],
)
def test_openai_knows_max_tokens_by_its_new_name(to, name):
    assert body(to=to, max_tokens=9) == body() | {name: 9}


@pytest.mark.parametrize("to", [LOCAL, OPENROUTER, GROQ, "https://api.openai.com.example/v1"])
def test_compatible_servers_know_max_tokens_by_its_old_name(to):
    assert body(to=to, max_tokens=9) == body() | {"max_tokens": 9}


def test_the_other_name_of_max_tokens_is_an_option():
    assert body(to=LOCAL, provider_options={"max_completion_tokens": 9.0})["max_completion_tokens"] == 9
    assert refused(to=LOCAL, provider_options={"max_tokens": 9}) == ["provider_options.max_tokens"]
    assert refused(to=LOCAL, max_tokens=9, provider_options={"max_completion_tokens": 9}) == ["provider_options.max_completion_tokens"]


def test_top_k_is_sent_where_servers_take_it():
    assert body(to=LOCAL, top_k=40)["top_k"] == 40
    assert refused(top_k=40) == refused(to=AZURE, top_k=40) == ["top_k"]


def test_a_budget_for_reasoning_is_refused():
    assert refused(reasoning={"budget_tokens": 1024}) == ["reasoning.budget_tokens"]


def test_what_the_record_is_found_by_is_never_sent():
    assert body(metadata={"user_id": "u", "tags": ["t"]}, quiet=True, timing=True) == body()


def test_tools_keep_their_schemas_to_the_letter():
    bare = {"name": "now", "parameters_json": "{}", "strict": True}
    raw = sent(tools=[TOOL, bare], tool_choice={"name": "weather"}, parallel_tool_calls=False).body
    assert b'"parameters":{"type": "object", "z": 1.0, "a": 12345678901234567890123}' in raw
    out = json.loads(raw)
    assert [tool["type"] for tool in out["tools"]] == ["function", "function"]
    assert out["tools"][0]["function"].keys() == {"name", "description", "parameters"}
    assert out["tools"][1]["function"] == {"name": "now", "parameters": {}, "strict": True}
    assert out["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert out["parallel_tool_calls"] is False


@pytest.mark.parametrize("mode", ["auto", "none", "required"])
def test_tool_choice_is_sent_as_its_mode(mode):
    assert body(tools=[TOOL], tool_choice={"mode": mode})["tool_choice"] == mode


def test_tool_choice_is_left_out_when_there_are_no_tools():
    assert body(tool_choice={"mode": "auto"}, parallel_tool_calls=True) == body()


def test_forms_of_the_answer():
    assert body(response_format={"type": "text"})["response_format"] == {"type": "text"}
    assert body(response_format={"type": "json_object"})["response_format"] == {"type": "json_object"}
    schema = {"type": "json_schema", "name": "s", "schema_json": '{"b": 1.0, "a": 2}', "strict": True}
    assert (
        b'"response_format":{"type":"json_schema","json_schema":{"name":"s","schema":{"b": 1.0, "a": 2},"strict":true}}'
        in sent(response_format=schema).body
    )


# ---------------------------------------------------------------- messages


def test_system_messages_stay_where_they_stand():
    assert encoded(said("system", "a", "b"), HI, said("system", "c")) == [
        {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "user", "content": "hi"},
        {"role": "system", "content": "c"},
    ]


def test_images_are_sent_inline_or_by_address():
    pictures = [
        {"type": "image", "media_type": "image/png", "data": b"\x00\xff\xfe"},
        {"type": "image", "uri": "https://h/p.png"},
        {"type": "image", "uri": "data:image/gif;base64,AA=="},
    ]
    assert [part["image_url"]["url"] for part in encoded(said("user", *pictures))[0]["content"]] == [
        "data:image/png;base64,AP/+",
        "https://h/p.png",
        "data:image/gif;base64,AA==",
    ]


def test_images_of_other_kinds_are_refused():
    pictures = [{"type": "image", "uri": "gs://b/p.png"}, {"type": "image", "media_type": "application/pdf", "data": b"x"}]
    assert refused(HI, said("assistant", "a"), said("user", *pictures)) == [
        "messages[2].content[0].image.uri",
        "messages[2].content[1].image.media_type",
    ]


def test_calls_and_results_go_back_to_the_letter():
    arguments = '{"city":  "Oslo\\u00e9", "n": 1.0}'
    turn = said("assistant", "Let me see.", call(arguments=arguments), call(id="b", arguments=""))
    out = encoded(HI, turn, said("tool", result("cold", id="a"), result(id="b")))
    assert out[1:] == [
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "weather", "arguments": arguments}},
                {"id": "b", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "cold"},
        {"role": "tool", "tool_call_id": "b", "content": ""},
    ]
    assert encoded(HI, said("assistant", call()))[1]["content"] is None


def test_results_in_a_message_of_the_user_are_messages_of_their_own():
    out = encoded(HI, said("assistant", call()), said("user", result("cold", "wet"), "and now?"))
    assert out[2:] == [
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "cold"}, {"type": "text", "text": "wet"}]},
        {"role": "user", "content": "and now?"},
    ]


def test_a_failed_tool_is_told_in_words():
    out = encoded(HI, said("assistant", call()), said("tool", result("no such city", is_error=True)))
    assert out[2]["content"] == "Error: no such city"
    out = encoded(HI, said("assistant", call()), said("tool", result("a", "b", is_error=True)))
    assert [part["text"] for part in out[2]["content"]] == ["Error:", "a", "b"]


def test_pictures_in_results_are_refused():
    turn = said("tool", result("a", {"type": "image", "uri": "https://h/p.png"}))
    assert refused(HI, said("assistant", call()), turn) == ["messages[2].content[0].tool_result.content[1].image"]


def test_refusals_go_back_in_their_field():
    assert encoded(HI, said("assistant", {"type": "refusal", "refusal": "No."}))[1] == {
        "role": "assistant",
        "content": None,
        "refusal": "No.",
    }


def test_an_answer_that_said_nothing_goes_back_empty():
    assert encoded(HI, said("assistant", data(citations=["x"])))[1] == {"role": "assistant", "content": ""}


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        (LOCAL, {"reasoning_content": "hm", "reasoning": "hm", "content": "4"}),
        ("https://api.deepseek.com", {"reasoning_content": "hm", "content": "4"}),
        (GROQ, {"reasoning": "hm", "content": "4"}),
        (OPENROUTER, {"reasoning_details": [{"type": "reasoning.text", "text": "hm"}], "content": "4"}),
        (MISTRAL, {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "4"}]}),
    ],
)
def test_reasoning_goes_back_in_the_vendors_form(to, expected):
    assert encoded(HI, said("assistant", reasoning("hm"), "4"), to=to)[1] == {"role": "assistant"} | expected


@pytest.mark.parametrize("to", [OPENAI, AZURE])
def test_reasoning_is_refused_where_the_provider_takes_none(to):
    assert refused(HI, said("assistant", reasoning("hm"), "4"), to=to) == ["messages[1].content[0].reasoning"]


def test_what_only_other_providers_understand_is_refused():
    foreign = said(
        "assistant", reasoning("hm", signature="c2ln"), reasoning(redacted_data="Zm9v"), reasoning(id="rs_1"), call(signature="c2ln")
    )
    assert refused(HI, foreign, to=LOCAL) == [
        "messages[1].content[0].reasoning.signature",
        "messages[1].content[1].reasoning.redacted_data",
        "messages[1].content[2].reasoning.id",
        "messages[1].content[3].tool_call.signature",
    ]


def test_provider_data_is_sent_where_it_belongs():
    audio = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}
    cached = {"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}}
    assert encoded(said("system", data(**cached)), said("user", "hear", data(**audio)))[0]["content"] == [cached]
    assert encoded(said("user", "hear", data(**audio)))[0]["content"] == [{"type": "text", "text": "hear"}, audio]
    heard = said(
        "assistant", data(audio={"id": "audio_1", "data": "AA==", "transcript": "hi"}), data(annotations=[{"type": "url_citation"}])
    )
    assert encoded(HI, heard)[1] == {"role": "assistant", "content": "", "audio": {"id": "audio_1"}}


def test_provider_data_that_belongs_nowhere_is_refused():
    assert refused(said("user", "a", data(cachePoint={}))) == ["messages[0].content[1].provider_data"]
    assert refused(HI, said("assistant", data(groundingMetadata={}))) == ["messages[1].content[0].provider_data"]
    assert refused(HI, said("assistant", call()), said("tool", result("a"), data(type="x"))) == ["messages[2].content[1].provider_data"]


# ---------------------------------------------------------------- options


def test_options_add_what_the_api_does_not_model():
    options = {"logprobs": True, "top_logprobs": 2, "user": "u", "logit_bias": {"50256": -100}, "n": 1, "presence_penalty": 0.5}
    out = sent(provider_options=options | {"stream_options": {"include_obfuscation": False}}, stream=True).body
    assert b'"top_logprobs":2,' in out
    assert json.loads(out) == body(stream=True) | options | {"stream_options": {"include_obfuscation": False, "include_usage": True}}


def test_options_replace_nothing():
    options = {
        "model": "x",
        "messages": [],
        "temperature": 1,
        "top_p": 1,
        "top_k": 1,
        "seed": 1,
        "stop": "x",
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "response_format": {},
        "max_completion_tokens": 1,
        "stream": False,
        "n": 2,
        "reasoning_effort": "low",
        "tools": [{"type": "function"}],
        "stream_options": {"include_usage": False},
    }
    assert sorted(refused(provider_options=options)) == sorted(f"provider_options.{name}" for name in options)


def test_rarer_efforts_and_tools_of_the_providers_own_are_options():
    search = {"type": "openrouter:web_search", "parameters": {"max_uses": 1.0}}
    out = body(to=OPENROUTER, tools=[TOOL], provider_options={"reasoning_effort": "minimal", "tools": [search]})
    assert out["reasoning_effort"] == "minimal"
    assert out["tools"][1:] == [{"type": "openrouter:web_search", "parameters": {"max_uses": 1}}]
    both = refused(reasoning={"effort": "low"}, provider_options={"reasoning_effort": "minimal"})
    assert both == ["provider_options.reasoning_effort"]


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_arguments_and_texts_arrive_as_they_are(text):
    out = encoded(said("user", text), said("assistant", call(arguments=text)))
    assert out[0]["content"] == text
    assert out[1]["tool_calls"][0]["function"]["arguments"] == (text or "{}")


# ---------------------------------------------------------------- the next turn


def next_turn(message: Json, *results: Json, to: str) -> list[Json]:
    """What goes out after an answer, with its content sent back as it came."""
    decoder = ChatDecoder()
    decoder.whole(json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode())
    decoder.finish()
    content = [part.model_dump() for part in decoder.answer.content()]
    ids = [part["id"] for part in content if part["type"] == "tool_call"]
    answered = [said("tool", part | {"tool_call_id": id}) for part, id in zip(results, ids, strict=True)]
    return encoded(HI, {"role": "assistant", "content": content}, *answered, to=to)[1:]


def test_function_call_of_old_goes_back_without_the_id_made_for_it():
    old = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"x": 1}'}}
    assert next_turn(old, result("2"), to=OPENAI) == [old, {"role": "function", "name": "f", "content": "2"}]


def test_details_of_reasoning_go_back_unchanged():
    details = [
        {"type": "reasoning.summary", "summary": "Thought.", "format": "openai-responses-v1", "index": 0},
        {"type": "reasoning.encrypted", "data": "Z0FB", "id": "rs_1", "format": "openai-responses-v1", "index": 0},
        {"type": "reasoning.text", "text": "hm", "signature": "c2ln", "format": "anthropic-claude-v1", "index": 1},
    ]
    answer = {"role": "assistant", "content": "4", "reasoning": "Thought.hm", "reasoning_details": details}
    for to in (OPENROUTER, LOCAL):
        assert next_turn(answer, to=to) == [{"role": "assistant", "content": "4", "reasoning_details": details}]


def test_signature_of_a_call_goes_back_beside_it():
    extra = {"google": {"thought_signature": "c2ln"}}
    tool_call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_content": extra}
    answer = {"role": "assistant", "content": None, "tool_calls": [tool_call], "extra_content": {"google": {"thought": True}}}
    (turn, answered) = next_turn(answer, result("2"), to=LOCAL)
    assert turn == answer
    assert answered == {"role": "tool", "tool_call_id": "a", "content": "2"}


def test_id_that_was_made_ties_call_and_result():
    answer = {"content": None, "tool_calls": [{"id": "", "function": {"name": "f", "arguments": "{}"}}]}
    (turn, answered) = next_turn(answer, result("2"), to=LOCAL)
    assert turn["tool_calls"][0]["id"] == answered["tool_call_id"] != ""
