"""Requests of the Responses API: each part of a request, recorded requests, and recorded answers that go back for the next turn."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from headrace_server.domain.message import ChatMessage, ContentPart, ToolCallPart
from headrace_server.domain.provider import Dialect, Provider
from headrace_server.domain.request import GenerateRequest
from headrace_server.providers.openai_responses import OpenAIResponses
from headrace_server.providers.openai_responses_decoder import RAW, ResponsesDecoder
from headrace_server.providers.sse import Scanner

Json = dict[str, Any]

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
PROVIDER = Provider(
    id=ID,
    provider="openai",
    dialect=Dialect.OPENAI,
    api_url=OpenAIResponses.default_api_url,
    default_model="gpt-5",
    api_key=SecretStr("sk-test"),
    created_at=0,
    updated_at=0,
)
TOOL = {"name": "weather", "parameters_json": '{"type":"object"}'}


def text(said: str) -> Json:
    return {"type": "text", "text": said}


def data(value: Json) -> Json:
    return {"type": "provider_data", "provider_data": value}


def turn(role: str, *parts: Json | str) -> Json:
    return {"role": role, "content": [text(part) if isinstance(part, str) else part for part in parts]}


def ask(*messages: Json, **fields: Any) -> GenerateRequest:
    return GenerateRequest.model_validate({"request_id": ID, "messages": messages or [turn("user", "Hi")], **fields})


def body_of(request: GenerateRequest, *, stream: bool = False) -> Json:
    assert OpenAIResponses().check(request, PROVIDER) == []
    body: Json = json.loads(OpenAIResponses().encode(request, PROVIDER, "gpt-5", stream=stream).body)
    return body


def input_of(*messages: Json) -> list[Json]:
    items: list[Json] = body_of(ask(*messages))["input"]
    return items


def violations(request: GenerateRequest) -> list[str]:
    return [violation.field for violation in OpenAIResponses().check(request, PROVIDER)]


# ---------------------------------------------------------------- the call


@pytest.mark.parametrize(
    ("api_url", "url", "header", "value"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1/responses", "authorization", "Bearer sk-test"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1/responses", "authorization", "Bearer sk-test"),
        (
            "https://x.openai.azure.com/openai?api-version=preview",
            "https://x.openai.azure.com/openai/responses?api-version=preview",
            "api-key",
            "sk-test",
        ),
    ],
)
def test_call_goes_where_the_provider_wants_it(api_url: str, url: str, header: str, value: str) -> None:
    encoded = OpenAIResponses().encode(ask(), PROVIDER.model_copy(update={"api_url": api_url}), "gpt-5", stream=True)
    assert encoded.url == url
    assert encoded.headers == {"content-type": "application/json", "accept": "text/event-stream", header: value}


def test_call_has_no_key_when_the_provider_has_none() -> None:
    encoded = OpenAIResponses().encode(ask(), PROVIDER.model_copy(update={"api_key": None}), "gpt-5", stream=False)
    assert encoded.headers == {"content-type": "application/json", "accept": "application/json"}


def test_body_is_the_least_when_little_is_asked_for() -> None:
    assert body_of(ask()) == {"model": "gpt-5", "input": [{"role": "user", "content": "Hi"}]}
    assert body_of(ask(), stream=True)["stream"] is True


# ---------------------------------------------------------------- settings


def test_settings_have_the_names_of_this_api() -> None:
    tool = {"name": "weather", "description": "tells it", "parameters_json": '{"type":"object"}', "strict": True}
    request = ask(max_tokens=5, temperature=0.5, top_p=0.9, tools=[tool], tool_choice={"name": "weather"}, parallel_tool_calls=False)
    assert body_of(request) == {
        "model": "gpt-5",
        "input": [{"role": "user", "content": "Hi"}],
        "max_output_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "tools": [{"type": "function", "name": "weather", "description": "tells it", "parameters": {"type": "object"}, "strict": True}],
        "tool_choice": {"type": "function", "name": "weather"},
        "parallel_tool_calls": False,
    }


def test_choice_of_tools_stays_out_when_there_are_none() -> None:
    assert body_of(ask(tool_choice={"mode": "none"}, parallel_tool_calls=True)).keys() == {"model", "input"}


@pytest.mark.parametrize(
    ("response_format", "encoded"),
    [
        ({"type": "text"}, {"type": "text"}),
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "name": "n", "schema_json": '{"b":1,"a":1.0}', "strict": False},
            {"type": "json_schema", "name": "n", "schema": {"b": 1, "a": 1.0}, "strict": False},
        ),
    ],
)
def test_form_of_the_answer_stands_under_text(response_format: Json, encoded: Json) -> None:
    assert body_of(ask(response_format=response_format))["text"] == {"format": encoded}
    verbose = body_of(ask(response_format=response_format, provider_options={"text": {"verbosity": "low"}}))
    assert verbose["text"] == {"format": encoded, "verbosity": "low"}


def test_schemas_go_out_as_they_came() -> None:
    schema = '{"z": 1, "a": 12345678901234567890.5}'
    encoded = OpenAIResponses().encode(ask(tools=[{"name": "f", "parameters_json": schema}]), PROVIDER, "m", stream=False)
    assert schema.encode() in encoded.body


@pytest.mark.parametrize("effort", ["low", "medium", "high"])
def test_reasoning_asks_for_what_the_next_turn_needs(effort: str) -> None:
    body = body_of(ask(reasoning={"effort": effort}))
    assert (body["store"], body["include"]) == (False, ["reasoning.encrypted_content"])
    assert body["reasoning"] == {"effort": effort, "summary": "auto"}


def test_reasoning_asks_for_no_summary_when_it_is_hidden() -> None:
    assert body_of(ask(reasoning={"effort": "low", "hide": True}))["reasoning"] == {"effort": "low"}


def test_no_reasoning_asks_for_nothing_else() -> None:
    assert body_of(ask(reasoning={"effort": "none"})).keys() == {"model", "input", "reasoning"}
    assert body_of(ask(reasoning={"hide": True})).keys() == {"model", "input"}


def test_options_of_the_provider_are_laid_over_the_body() -> None:
    options = {
        "store": True,
        "include": ["reasoning.encrypted_content", "web_search_call.action.sources"],
        "reasoning": {"summary": "detailed"},
        "tools": [{"type": "web_search", "max_results": 3}],
        "metadata": {"a": "b"},
        "max_tool_calls": 2,
        "background": False,
    }
    body = body_of(ask(reasoning={"effort": "low"}, tools=[TOOL], provider_options=options))
    assert body["store"] is True
    assert body["include"] == ["reasoning.encrypted_content", "web_search_call.action.sources"]
    assert body["reasoning"] == {"effort": "low", "summary": "detailed"}
    assert [tool["type"] for tool in body["tools"]] == ["function", "web_search"]
    assert (repr(body["max_tool_calls"]), repr(body["tools"][1]["max_results"])) == ("2", "3")


def test_options_may_say_what_the_api_has_no_word_for() -> None:
    choice = {"type": "web_search"}
    body = body_of(ask(provider_options={"reasoning": {"effort": "minimal"}, "tools": [{"type": "web_search"}], "tool_choice": choice}))
    assert (body["reasoning"], body["tool_choice"]) == ({"effort": "minimal"}, choice)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"model": "x"}, "model"),
        ({"input": []}, "input"),
        ({"instructions": "x"}, "instructions"),
        ({"max_output_tokens": 1}, "max_output_tokens"),
        ({"temperature": 1}, "temperature"),
        ({"top_p": 1}, "top_p"),
        ({"parallel_tool_calls": True}, "parallel_tool_calls"),
        ({"stream": True}, "stream"),
        ({"background": True}, "background"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
        ({"tools": [{"type": "function", "name": "f"}]}, "tools"),
        ({"tools": "all"}, "tools"),
        ({"text": {"format": {"type": "text"}}}, "text.format"),
        ({"text": "plain"}, "text"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
        ({"reasoning": None}, "reasoning"),
    ],
)
def test_options_that_the_request_has_fields_for_are_refused(options: Json, field: str) -> None:
    assert violations(ask(provider_options=options)) == [f"provider_options.{field}"]


def test_every_field_that_cannot_be_expressed_is_named_at_once() -> None:
    request = ask(top_k=1, seed=1, stop_sequences=["x"], reasoning={"budget_tokens": 1_024})
    assert violations(request) == ["top_k", "seed", "stop_sequences", "reasoning.budget_tokens"]


# ---------------------------------------------------------------- messages


def test_system_messages_before_the_first_turn_are_instructions() -> None:
    body = body_of(ask(turn("system", "Be brief."), turn("system", "Be kind."), turn("user", "Hi"), turn("system", "Be quick.")))
    assert body["instructions"] == "Be brief.\n\nBe kind."
    assert body["input"] == [{"role": "user", "content": "Hi"}, {"role": "system", "content": "Be quick."}]


def test_system_messages_stay_where_they_stand_when_they_are_no_mere_text_or_all_there_is() -> None:
    marked = {"type": "input_text", "text": "Long.", "prompt_cache_breakpoint": {"mode": "explicit"}}
    body = body_of(ask(turn("system", data(marked)), turn("user", "Hi")))
    assert body["input"][0] == {"role": "system", "content": [marked]}
    assert "instructions" not in body
    assert body_of(ask(turn("system", "Write.")))["input"] == [{"role": "system", "content": "Write."}]


def test_pictures_and_files_are_content() -> None:
    file = {"type": "input_file", "file_id": "file-1"}
    picture = {"type": "image", "media_type": "image/png", "data": "AAEC"}
    address = {"type": "image", "uri": "https://example.com/a.png"}
    assert input_of(turn("user", "See", picture, address, data(file))) == [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "See"},
                {"type": "input_image", "image_url": "data:image/png;base64,AAEC"},
                {"type": "input_image", "image_url": "https://example.com/a.png"},
                file,
            ],
        }
    ]


@pytest.mark.parametrize(
    ("picture", "field"),
    [({"media_type": "application/pdf", "data": "AAEC"}, "media_type"), ({"uri": "gs://bucket/a.png"}, "uri")],
)
def test_picture_that_is_none_is_refused(picture: Json, field: str) -> None:
    assert violations(ask(turn("user", {"type": "image", **picture}))) == [f"messages[0].content[0].image.{field}"]


def test_items_stand_between_messages_when_they_stand_between_texts() -> None:
    compaction = {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAA"}
    assert input_of(turn("user", "One", data(compaction), "two")) == [
        {"role": "user", "content": "One"},
        compaction,
        {"role": "user", "content": "two"},
    ]


@pytest.mark.parametrize(
    ("content", "is_error", "output"),
    [
        ([], False, ""),
        ([text("sunny")], False, "sunny"),
        ([text("no such city")], True, "Error: no such city"),
        ([text("a"), text("b")], False, [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]),
        (
            [{"type": "image", "uri": "https://example.com/a.png"}],
            True,
            [{"type": "input_text", "text": "Error: "}, {"type": "input_image", "image_url": "https://example.com/a.png"}],
        ),
        ([data({"type": "input_file", "file_id": "f"})], False, [{"type": "input_file", "file_id": "f"}]),
    ],
)
def test_result_of_a_tool_is_an_item(content: list[Json], is_error: bool, output: Any) -> None:
    call = {"type": "tool_call", "id": "call_1", "name": "weather"}
    result = {"type": "tool_result", "tool_call_id": "call_1", "content": content, "is_error": is_error}
    assert input_of(turn("user", "Hi"), turn("assistant", call), turn("tool", result))[1:] == [
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": output},
    ]


def test_turn_of_the_model_goes_back_in_the_order_of_its_items() -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    items = input_of(
        turn("user", "Hi"),
        turn(
            "assistant",
            {"type": "reasoning", "text": "one", "id": "rs_1"},
            {"type": "reasoning", "text": "two", "id": "rs_1"},
            {"type": "reasoning", "redacted_data": "gAAA", "id": "rs_1"},
            data(search),
            {"type": "reasoning", "text": "raw", "signature": RAW, "id": "rs_2"},
            "Looking.",
            data({"annotations": [{"type": "url_citation"}], "logprobs": [{"token": "Look"}]}),
            data({"id": "msg_1", "phase": "commentary"}),
            "Plain.",
            {"type": "tool_call", "id": "call_1", "name": "f", "arguments_json": "{}", "signature": "fc_1"},
            {"type": "tool_call", "id": "call_2", "name": "f", "signature": '{"id":"fc_2","namespace":"n"}'},
            {"type": "refusal", "refusal": "No."},
        ),
    )
    assert items[1:] == [
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "one"}, {"type": "summary_text", "text": "two"}],
            "encrypted_content": "gAAA",
        },
        search,
        {"type": "reasoning", "id": "rs_2", "summary": [], "content": [{"type": "reasoning_text", "text": "raw"}]},
        {
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "id": "msg_1",
            "phase": "commentary",
            "content": [{"type": "output_text", "text": "Looking.", "annotations": [{"type": "url_citation"}]}],
        },
        {"role": "assistant", "content": "Plain."},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "id": "fc_2", "namespace": "n", "call_id": "call_2", "name": "f", "arguments": "{}"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    ]


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"type": "reasoning", "text": "x", "signature": "EqQBCkgIARAB", "id": "rs_1"}, "reasoning.signature"),
        ({"type": "reasoning", "redacted_data": "EmwKAhgB"}, "reasoning.id"),
        ({"type": "tool_call", "name": "f"}, "tool_call.id"),
        ({"type": "tool_call", "id": "c", "name": "f", "signature": "AVSoXO4/" * 20}, "tool_call.signature"),
        ({"type": "tool_call", "id": "c", "name": "f", "signature": '{"google":{"thought_signature":"x"}}'}, "tool_call.signature"),
        (data({"citations": ["x"]}), "provider_data"),
    ],
)
def test_part_of_another_dialect_is_refused(part: Json, field: str) -> None:
    assert violations(ask(turn("user", "Hi"), turn("assistant", part))) == [f"messages[1].content[0].{field}"]


def test_content_is_refused_where_no_message_can_hold_it() -> None:
    assert violations(ask(turn("tool", data({"type": "input_text", "text": "x"})))) == ["messages[0].content[0].provider_data"]
    call = {"type": "tool_call", "id": "c", "name": "f"}
    result = {"type": "tool_result", "tool_call_id": "c", "content": [data({"type": "web_search_call"})]}
    field = "messages[2].content[0].tool_result.content[0].provider_data"
    assert violations(ask(turn("user", "Hi"), turn("assistant", call), turn("tool", result))) == [field]


# ---------------------------------------------------------------- recordings

CORPUS = Path(os.environ.get("HEADRACE_WIRE") or Path(__file__).parents[3] / "shared" / "wire") / "openai-responses"
RECORDED = sorted(path.parent for path in CORPUS.glob("*/meta.json"))
ABSENT = pytest.param(None, marks=pytest.mark.skip(reason=f"no recordings in {CORPUS}: set HEADRACE_WIRE"), id="none")


def answered() -> list[Any]:
    """The recordings whose answers hold something that may go back."""
    kept = [folder for folder in RECORDED if json.loads((folder / "expected.json").read_text()).get("blocks")]
    return [pytest.param(folder, id=folder.name) for folder in kept] or [ABSENT]


def recorded_answer(folder: Path) -> tuple[tuple[ContentPart, ...], list[Json]]:
    """The content of a recorded answer as decoded, and its items as they were sent."""
    decoder = ResponsesDecoder()
    if (folder / "response.sse").exists():
        scanner = Scanner()
        events = [*scanner.feed((folder / "response.sse").read_bytes()), *scanner.close()]
        for name, event in events:
            decoder.event(name, event)
        response = next(e["response"] for e in (json.loads(event) for _, event in events if event != b"[DONE]") if is_last(e))
    else:
        body = (folder / "response.json").read_bytes()
        decoder.whole(body)
        response = json.loads(body)
    decoder.finish()
    return decoder.answer.content(), response["output"]


def is_last(event: Json) -> bool:
    return event["type"] in ("response.completed", "response.incomplete")


@pytest.mark.wire
@pytest.mark.parametrize("folder", answered())
def test_recorded_answer_goes_back_as_it_came(folder: Path) -> None:
    """The API takes the items of an answer, in their order and with their ids, as input of the next turn."""
    content, output = recorded_answer(folder)
    calls = [part for part in content if isinstance(part, ToolCallPart)]
    results = [{"type": "tool_result", "tool_call_id": call.id, "content": [text(call.name)]} for call in calls]
    following = turn("tool", *results) if results else turn("user", "go on")
    items = input_of(turn("user", "Hi"), ChatMessage.model_validate({"role": "assistant", "content": content}).model_dump(), following)
    middle = items[1 : -len(results) or -1]
    assert [returned(item) for item in middle] == [sent(item, output) for item in output]
    assert [item["call_id"] for item in items if item.get("type") == "function_call_output"] == [call.id for call in calls]


def returned(item: Json) -> Json:
    """What of an item that goes back can be compared."""
    return without(item, "encrypted_content", "id") if item.get("type") == "reasoning" else without(item)


def sent(item: Json, output: Sequence[Json]) -> Json:
    """What of an item as it was sent must go back.

    A message goes back as mere text when nothing but its id is known of it, and no reasoning needs the id. The ids and encrypted content of
    reasoning change between an item's end and the answer's, in some streams.
    """
    if item["type"] == "reasoning":
        return without(item, "encrypted_content", "id", "status")
    if item["type"] == "function_call":
        return without(item, "status")
    if item["type"] != "message":
        return without(item)
    item = item | {"content": [without(part, "logprobs") for part in item["content"]]}
    has_more = any("annotations" in part or part["type"] == "refusal" for part in item["content"])
    if item.get("phase") or item["status"] != "completed" or any(earlier["type"] == "reasoning" for earlier in output):
        return without(item)
    return {"role": "assistant", "content": item["content"] if has_more else item["content"][0]["text"]}


def without(value: Any, *names: str) -> Any:
    """Without some names, and without what says nothing."""
    if isinstance(value, list):
        return [without(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {name: without(item) for name, item in value.items() if name not in names}
    return {name: item for name, item in kept.items() if item is not None and item != []}


@pytest.mark.wire
def test_two_turns_with_reasoning_and_a_call_are_what_the_api_documents() -> None:
    folder = CORPUS / "pydai-openai-responses-phase-live-0"
    if not folder.exists():
        pytest.skip(f"no recordings in {CORPUS}: set HEADRACE_WIRE")
    content, (reasoning, message, call) = recorded_answer(folder)
    body = body_of(
        ask(
            turn("system", "Narrate."),
            turn("user", "What is the capital of PotatoLand?"),
            ChatMessage.model_validate({"role": "assistant", "content": content}).model_dump(),
            turn("tool", {"type": "tool_result", "tool_call_id": call["call_id"], "content": [text("Potato City")]}),
            tools=[{"name": "get_capital", "parameters_json": '{"type":"object"}'}],
            reasoning={"effort": "low"},
        )
    )
    assert body == {
        "model": "gpt-5",
        "instructions": "Narrate.",
        "input": [
            {"role": "user", "content": "What is the capital of PotatoLand?"},
            {"type": "reasoning", "id": reasoning["id"], "summary": [], "encrypted_content": reasoning["encrypted_content"]},
            {
                "type": "message",
                "role": "assistant",
                "id": message["id"],
                "phase": "commentary",
                "status": "completed",
                "content": [{"type": "output_text", "text": message["content"][0]["text"], "annotations": []}],
            },
            {"type": "function_call"} | {name: call[name] for name in ("id", "call_id", "name", "arguments")},
            {"type": "function_call_output", "call_id": call["call_id"], "output": "Potato City"},
        ],
        "tools": [{"type": "function", "name": "get_capital", "parameters": {"type": "object"}}],
        "reasoning": {"effort": "low", "summary": "auto"},
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }


EQUIVALENT = (
    "input is a string, or one message of the user",
    "the role developer is the role system; such messages before the first turn are the instructions",
    "a single text of a message is a string, or a list of one",
    "null, an empty list, stream: false, store: true and the status completed of a call say nothing",
    "function tools come before the provider's own",
)
"""How an encoded request may differ from the recorded one and still be the same request."""

DEFERRED = "a function has no defer_loading"
SCHEMA = "a schema has a name, and no description"
NOT_EXPRESSIBLE = {
    "mira-structured-output-openai-gpt-4o-responses-async-stream-0": SCHEMA,
    "pydai-background-mode-with-tool-vcr-2": "an answer is read where it was asked for",
    "pydai-live-tool-search-handoff-openai-to-anthropic-0": DEFERRED,
    "pydai-openai-native-tool-search-with-deferred-capability-gpt-5-6-sol-1": DEFERRED,
    "pydai-tool-availability-portability-matrix-r5-t3-native-search-0": DEFERRED,
}
"""Recordings whose requests the API has no words for, and why."""


class NotExpressible(Exception):
    """The API has no words for something in a recorded request."""


@pytest.mark.wire
@pytest.mark.parametrize("folder", [pytest.param(folder, id=folder.name) for folder in RECORDED] or [ABSENT])
def test_recorded_request_is_encoded_as_it_was_sent(folder: Path) -> None:
    recorded = json.loads((folder / "request.json").read_text())
    if folder.name in NOT_EXPRESSIBLE:
        with pytest.raises(NotExpressible, match=NOT_EXPRESSIBLE[folder.name]):
            request_of(recorded)
        return
    request = request_of(recorded)
    assert list(OpenAIResponses().check(request, PROVIDER)) == []
    encoded = OpenAIResponses().encode(request, PROVIDER, recorded["model"], stream=request.stream)
    assert canonical(json.loads(encoded.body)) == canonical(recorded)


def request_of(recorded: Json) -> GenerateRequest:
    """A recorded request as a caller of Headrace would make it."""
    body = {name: value for name, value in recorded.items() if value is not None}
    if body.get("background"):
        raise NotExpressible("an answer is read where it was asked for")
    tools = body.pop("tools", [])
    hosted = [tool for tool in tools if tool["type"] != "function"]
    fields: Json = {
        "model": body.pop("model"),
        "stream": body.pop("stream", False),
        "tools": [tool_of(tool) for tool in tools if tool not in hosted],
    }
    instructions = body.pop("instructions", None)
    messages = [turn("system", instructions)] if instructions else []
    items = body.pop("input")
    messages += messages_of([{"role": "user", "content": items}] if isinstance(items, str) else items)
    if "max_output_tokens" in body:
        fields["max_tokens"] = body.pop("max_output_tokens")
    if "temperature" in body:
        fields["temperature"] = body.pop("temperature")
    choice = body.get("tool_choice")
    if isinstance(choice, str) or (choice and choice["type"] == "function"):
        body.pop("tool_choice")
        fields["tool_choice"] = {"mode": choice} if isinstance(choice, str) else {"name": choice["name"]}
        if choice == "required" and not fields["tools"]:
            raise NotExpressible("there is no function to choose")
    if form := body.pop("text", {}).get("format"):
        fields["response_format"] = format_of(form)
    if effort := body.get("reasoning", {}).get("effort"):
        fields["reasoning"] = {"effort": effort}
        body["reasoning"] = {name: value for name, value in body["reasoning"].items() if name != "effort"}
        body.setdefault("store", True)  # or it would be false
        if "summary" not in body["reasoning"]:
            fields["reasoning"]["hide"] = True
    try:
        return ask(*messages, **fields, provider_options=body | ({"tools": hosted} if hosted else {}))
    except ValidationError as error:
        raise NotExpressible(str(error)) from None


def messages_of(items: Sequence[Json]) -> list[Json]:
    """Items that follow one another and are of the model are one message."""
    messages: list[Json] = []
    calls: set[str] = set()
    for item in items:
        role, parts = parts_of(item, calls)
        if role == "assistant" and messages and messages[-1]["role"] == role and not is_message(item):
            messages[-1]["content"] += parts
        else:
            messages.append({"role": role, "content": parts})
    return messages


def is_message(item: Json) -> bool:
    return "role" in item and "id" not in item


def parts_of(item: Json, calls: set[str]) -> tuple[str, list[Json]]:
    """The role and the parts that say an item; what they cannot say is said as data of the provider."""
    match item.get("type", "message"):
        case "message":
            return message_of(item)
        case "function_call":
            calls.add(item["call_id"])
            about = {name: item[name] for name in ("id", "namespace") if name in item}
            signature = json.dumps(about) if len(about) > 1 else about.get("id", "")
            call = {"type": "tool_call", "id": item["call_id"], "name": item["name"], "arguments_json": item["arguments"]}
            return "assistant", [call | {"signature": signature}]
        case "function_call_output" if item["call_id"] in calls:
            return "tool", [{"type": "tool_result", "tool_call_id": item["call_id"], "content": [text(item["output"])]}]
        case "function_call_output":
            return "tool", [data(item)]
        case "reasoning" if "id" in item:
            parts = [{"type": "reasoning", "id": item["id"], "text": part["text"]} for part in item["summary"]]
            raw = [part["text"] for part in item.get("content") or []]
            parts += [{"type": "reasoning", "id": item["id"], "text": said, "signature": RAW} for said in raw]
            encrypted = item.get("encrypted_content") or ""
            return "assistant", [*parts, {"type": "reasoning", "id": item["id"], "redacted_data": encrypted}]
        case _:
            return "assistant", [data(item)]


def message_of(item: Json) -> tuple[str, list[Json]]:
    role = {"developer": "system"}.get(item["role"], item["role"])
    parts: list[Json] = []
    for part in [{"type": "text", "text": item["content"]}] if isinstance(item["content"], str) else item["content"]:
        if part.keys() <= {"type", "text", "annotations", "logprobs"}:
            parts.append(text(part["text"]))
            if about := {name: part[name] for name in ("annotations", "logprobs") if part.get(name)}:
                parts.append(data(about))
        else:
            parts.append(data(part))
    about = {name: item[name] for name in ("id", "phase") if name in item}
    return role, [*parts, *([data(about)] if about else [])]


def tool_of(tool: Json) -> Json:
    if "defer_loading" in tool:
        raise NotExpressible(DEFERRED)
    return {
        "name": tool["name"],
        "description": tool.get("description") or "",
        "parameters_json": json.dumps(tool["parameters"]),
        "strict": tool.get("strict"),
    }


def format_of(form: Json) -> Json:
    if form["type"] != "json_schema":
        return form
    if "description" in form:
        raise NotExpressible(SCHEMA)
    return {"type": "json_schema", "name": form["name"], "schema_json": json.dumps(form["schema"]), "strict": form.get("strict")}


def canonical(body: Mapping[str, Any]) -> Json:
    """One spelling for what EQUIVALENT lists."""
    plain: Json = {name: value for name, value in body.items() if value is not None and value != []}
    for name, default in (("stream", False), ("store", True)):
        plain.setdefault(name, default)
    items = plain["input"]
    items = [canonical_item(item) for item in ([{"role": "user", "content": items}] if isinstance(items, str) else items)]
    while items and items[0].get("role") == "system" and "instructions" not in plain:
        plain["instructions"] = items.pop(0)["content"][0]["text"]
    tools = [{name: value for name, value in tool.items() if value not in (None, "")} for tool in plain.get("tools", [])]
    return plain | {"input": items, "tools": sorted(tools, key=lambda tool: tool["type"] != "function")}


def canonical_item(item: Json) -> Json:
    plain = {name: value for name, value in item.items() if value is not None}
    if plain.get("type") == "function_call":
        plain.pop("status", None)
    if "role" not in plain:
        return plain
    kind = "output_text" if plain["role"] == "assistant" else "input_text"
    content = plain["content"]
    content = [{"type": kind, "text": content}] if isinstance(content, str) else content
    plain["content"] = [{name: value for name, value in part.items() if value != []} for part in content]
    plain["role"] = {"developer": "system"}.get(plain["role"], plain["role"])
    return plain
