"""The dialect gemini: what its encoder makes of requests. Recorded ones: test_gemini_requests.py."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import SecretStr

from headrace_server.domain.errors import ErrorCode, ProviderFault
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
from headrace_server.domain.request import (
    GenerateRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    ReasoningConfig,
    ReasoningEffort,
    TextFormat,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from headrace_server.providers.gemini import Gemini
from headrace_server.providers.gemini_request import MADE_ID

Json = dict[str, Any]

PROVIDER = Provider(
    id="01890a5d-ac96-774b-bcce-b302099a8057",
    provider="gemini",
    dialect=Dialect.GEMINI,
    api_url="https://generativelanguage.googleapis.com",
    default_model="gemini-2.5-flash",
    created_at=0,
    updated_at=0,
    api_key=SecretStr("AIza-test"),
)
WEATHER = Tool(name="weather", description="The weather", parameters_json='{"type":"object","properties":{"city":{"type":"string"}}}')


def user(*parts: ContentPart | str) -> ChatMessage:
    return message(MessageRole.USER, *parts)


def message(role: MessageRole, *parts: ContentPart | str) -> ChatMessage:
    return ChatMessage(role=role, content=tuple(TextPart(text=part) if isinstance(part, str) else part for part in parts))


def ask(*messages: ChatMessage, **fields: Any) -> GenerateRequest:
    return GenerateRequest(request_id="01890a5d-ac96-774b-bcce-b302099a8057", messages=messages or (user("hi"),), **fields)


def encode(request: GenerateRequest, model: str = "gemini-3-flash-preview") -> Json:
    """The body; the request must be one that can be expressed."""
    assert list(Gemini().check(request, PROVIDER)) == []
    body: Json = json.loads(Gemini().encode(request, PROVIDER, model, stream=False).body)
    return body


def refused(request: GenerateRequest) -> list[str]:
    return [violation.field for violation in Gemini().check(request, PROVIDER)]


def call(id: str, **more: Any) -> ToolCallPart:
    return ToolCallPart(**{"id": id, "name": "weather", "arguments_json": "{}"} | more)


def result(id: str, *content: TextPart | ImagePart | ProviderDataPart, is_error: bool = False) -> ToolResultPart:
    return ToolResultPart(tool_call_id=id, content=content, is_error=is_error)


# ---------------------------------------------------------------- URL and headers


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-2.5-flash", "models/gemini-2.5-flash"),
        ("models/gemini-2.5-flash", "models/gemini-2.5-flash"),
        ("tunedModels/mine-1", "tunedModels/mine-1"),
        ("wire/some-slug", "models/wire/some-slug"),
        ("a:b@c", "models/a%3Ab%40c"),
    ],
)
def test_model_stands_in_the_path(model: str, path: str) -> None:
    base = "https://generativelanguage.googleapis.com/v1beta"
    assert Gemini().encode(ask(), PROVIDER, model, stream=False).url == f"{base}/{path}:generateContent"
    assert Gemini().encode(ask(), PROVIDER, model, stream=True).url == f"{base}/{path}:streamGenerateContent?alt=sse"


@pytest.mark.parametrize("model", ["../../v1/x", "a/../b", "./a", "a//b", "/a", "a/"])
def test_model_that_leads_elsewhere_is_refused(model: str) -> None:
    assert refused(ask(model=model)) == ["model"]
    with pytest.raises(ProviderFault) as caught:
        Gemini().encode(ask(), PROVIDER, model, stream=False)
    assert caught.value.fault.code is ErrorCode.INVALID_REQUEST


def test_key_goes_into_a_header_only() -> None:
    request = Gemini().encode(ask(), PROVIDER, "m", stream=True)
    assert request.headers == {"content-type": "application/json", "x-goog-api-key": "AIza-test"}
    assert "AIza-test" not in request.url
    keyless = PROVIDER.model_copy(update={"api_key": None, "api_url": "http://127.0.0.1:8099/"})
    request = Gemini().encode(ask(), keyless, "m", stream=False)
    assert request.headers == {"content-type": "application/json"}
    assert request.url == "http://127.0.0.1:8099/v1beta/models/m:generateContent"


# ---------------------------------------------------------------- messages


def test_system_messages_become_the_system_instruction() -> None:
    body = encode(
        ask(message(MessageRole.SYSTEM, "a", "b"), message(MessageRole.SYSTEM, "c"), user("hi"), message(MessageRole.ASSISTANT, "ho"))
    )
    assert body == {
        "systemInstruction": {"parts": [{"text": "a"}, {"text": "b"}, {"text": "c"}]},
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}, {"role": "model", "parts": [{"text": "ho"}]}],
    }


def test_system_message_is_refused_when_it_is_not_first_or_alone() -> None:
    assert refused(ask(user("hi"), message(MessageRole.SYSTEM, "late"))) == ["messages[1].role"]
    assert refused(ask(message(MessageRole.SYSTEM, "alone"))) == ["messages"]


def test_pictures_are_sent_as_data_or_by_address() -> None:
    pictures = (
        ImagePart(media_type="image/png", data=b"\x00\xff\xfe"),
        ImagePart(uri="https://example.com/a.png"),
        ImagePart(media_type="image/jpeg", uri="https://generativelanguage.googleapis.com/v1beta/files/x"),
        ImagePart(uri="data:image/gif;base64,R0lG"),
    )
    assert encode(ask(user(*pictures)))["contents"][0]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": "AP/+"}},
        {"fileData": {"fileUri": "https://example.com/a.png"}},
        {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://generativelanguage.googleapis.com/v1beta/files/x"}},
        {"inlineData": {"mimeType": "image/gif", "data": "R0lG"}},
    ]
    assert refused(ask(user("x", ImagePart(uri="data:text,abc")))) == ["messages[0].content[1].image.uri"]


def test_made_ids_are_kept_out_and_given_ones_sent() -> None:
    messages = (
        user("hi"),
        message(MessageRole.ASSISTANT, call(MADE_ID + "1", arguments_json='{"n":1.0}'), call("given", name="other")),
        message(MessageRole.TOOL, result(MADE_ID + "1", TextPart(text="a")), result("given", TextPart(text="b"))),
    )
    request = Gemini().encode(ask(*messages), PROVIDER, "m", stream=False)
    assert b'"args":{"n":1.0}' in request.body
    assert json.loads(request.body)["contents"][1:] == [
        {
            "role": "model",
            "parts": [
                {"functionCall": {"name": "weather", "args": {"n": 1.0}}},
                {"functionCall": {"id": "given", "name": "other", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "weather", "response": {"output": "a"}}},
                {"functionResponse": {"id": "given", "name": "other", "response": {"output": "b"}}},
            ],
        },
    ]


def test_results_of_parallel_calls_are_one_content_in_the_order_of_the_calls() -> None:
    messages = (
        user("hi"),
        message(MessageRole.ASSISTANT, call(MADE_ID + "1"), call(MADE_ID + "2"), call(MADE_ID + "3")),
        message(MessageRole.TOOL, result(MADE_ID + "3", TextPart(text="third"))),
        message(MessageRole.TOOL, result(MADE_ID + "1", TextPart(text="first"))),
        user(result(MADE_ID + "2", TextPart(text="second"))),
        user("and now?"),
    )
    contents = encode(ask(*messages))["contents"]
    assert [content["role"] for content in contents] == ["user", "model", "user", "user"]
    assert [part["functionResponse"]["response"]["output"] for part in contents[2]["parts"]] == ["first", "second", "third"]


@pytest.mark.parametrize(
    ("answer", "response"),
    [
        (result("1"), {"output": ""}),
        (result("1", TextPart(text='{"a":1}')), {"output": '{"a":1}'}),
        (result("1", TextPart(text="a"), TextPart(text="b")), {"output": ["a", "b"]}),
        (result("1", TextPart(text="it broke"), is_error=True), {"error": "it broke"}),
        (result("1", ProviderDataPart(provider_data={"celsius": 20.0})), {"celsius": 20}),
        (result("1", ProviderDataPart(provider_data={"celsius": 20.0}), TextPart(text="x")), {"output": [{"celsius": 20}, "x"]}),
        (result("1", ProviderDataPart(provider_data={"why": "x"}), is_error=True), {"error": {"why": "x"}}),
    ],
)
def test_result_of_a_tool_is_written_as_google_documents(answer: ToolResultPart, response: Json) -> None:
    body = encode(ask(user("hi"), message(MessageRole.ASSISTANT, call("1")), message(MessageRole.TOOL, answer)))
    assert body["contents"][2]["parts"] == [{"functionResponse": {"id": "1", "name": "weather", "response": response}}]


def test_pictures_of_a_tool_stand_beside_its_output() -> None:
    def request(picture: ImagePart) -> GenerateRequest:
        shown = result("1", TextPart(text="see"), picture)
        return ask(user("hi"), message(MessageRole.ASSISTANT, call("1")), message(MessageRole.TOOL, shown))

    (part,) = encode(request(ImagePart(media_type="image/png", data=b"\x00")))["contents"][2]["parts"]
    assert part["functionResponse"]["response"] == {"output": "see"}
    assert part["functionResponse"]["parts"] == [{"inlineData": {"mimeType": "image/png", "data": "AA=="}}]
    assert refused(request(ImagePart(uri="https://example.com/a.png"))) == ["messages[2].content[0].tool_result.content[1].image.uri"]


def test_signatures_go_back_to_where_they_came_from() -> None:
    answer = message(
        MessageRole.ASSISTANT,
        ReasoningPart(text="hm", signature="s0"),
        ReasoningPart(signature="s1"),
        "a",
        ReasoningPart(signature="s2"),
        ReasoningPart(signature="s3"),
        "b",
        call("1", signature="s4"),
        ReasoningPart(signature="s5"),
        ReasoningPart(),
    )
    assert encode(ask(user("hi"), answer))["contents"][1]["parts"] == [
        {"text": "hm", "thought": True, "thoughtSignature": "s0"},
        {"text": "", "thoughtSignature": "s1"},
        {"text": "a", "thoughtSignature": "s2"},
        {"text": "", "thoughtSignature": "s3"},
        {"text": "b"},
        {"functionCall": {"id": "1", "name": "weather", "args": {}}, "thoughtSignature": "s4"},
        {"text": "", "thoughtSignature": "s5"},
    ]


def test_provider_data_goes_back_as_it_came_but_for_metadata_of_the_answer() -> None:
    code = {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "s"}
    answer = message(
        MessageRole.ASSISTANT,
        ProviderDataPart(provider_data=code),
        "a",
        ProviderDataPart(provider_data={"groundingMetadata": {"webSearchQueries": ["x"]}}),
    )
    assert encode(ask(user("hi"), answer))["contents"][1]["parts"] == [code, {"text": "a"}]
    video = {"fileData": {"fileUri": "https://youtu.be/x"}, "videoMetadata": {"fps": 5.0}}
    assert encode(ask(user(ProviderDataPart(provider_data=video))))["contents"][0]["parts"][0]["videoMetadata"] == {"fps": 5}
    assert refused(ask(user(ProviderDataPart(provider_data={"type": "web_search_tool_result"})))) == [
        "messages[0].content[0].provider_data"
    ]


def test_every_part_without_words_is_named_at_once() -> None:
    answer = message(
        MessageRole.ASSISTANT,
        RefusalPart(refusal="no"),
        ReasoningPart(redacted_data="x", id="rs_1"),
        call("1", arguments_json='{"cut'),
        call("2", arguments_json="[1]"),
        call("3", arguments_json='{"a":NaN}'),
    )
    assert refused(ask(user("hi"), answer, tools=(WEATHER,), parallel_tool_calls=False, seed=2**40)) == [
        "messages[1].content[0].refusal",
        "messages[1].content[1].reasoning.redacted_data",
        "messages[1].content[1].reasoning.id",
        "messages[1].content[2].tool_call.arguments_json",
        "messages[1].content[3].tool_call.arguments_json",
        "messages[1].content[4].tool_call.arguments_json",
        "parallel_tool_calls",
        "seed",
    ]


# ---------------------------------------------------------------- tools and settings


def test_tools_keep_their_schemas_to_the_byte() -> None:
    schema = '{"type": "object", "properties": {"n": {"type": "number", "maximum": 1e400, "multipleOf": 1.0}}, "$defs": {}}'
    request = ask(tools=(Tool(name="f", parameters_json=schema), WEATHER))
    body = Gemini().encode(request, PROVIDER, "m", stream=False).body.decode()
    assert f'"parametersJsonSchema":{schema}' in body
    declarations = json.loads(body)["tools"][0]["functionDeclarations"]
    assert [(tool["name"], tool.get("description")) for tool in declarations] == [("f", None), ("weather", "The weather")]
    assert "toolConfig" not in json.loads(body)


@pytest.mark.parametrize(
    ("choice", "strict", "config"),
    [
        (ToolChoice(mode=ToolChoiceMode.AUTO), None, {"mode": "AUTO"}),
        (ToolChoice(mode=ToolChoiceMode.NONE), True, {"mode": "NONE"}),
        (ToolChoice(mode=ToolChoiceMode.REQUIRED), False, {"mode": "ANY"}),
        (ToolChoice(name="weather"), True, {"mode": "ANY", "allowedFunctionNames": ["weather"]}),
        (ToolChoice(mode=ToolChoiceMode.AUTO), True, {"mode": "VALIDATED"}),
        (None, True, {"mode": "VALIDATED"}),
    ],
)
def test_tool_choice_is_written_as_a_mode(choice: ToolChoice | None, strict: bool | None, config: Json) -> None:
    body = encode(ask(tools=(WEATHER.model_copy(update={"strict": strict}),), tool_choice=choice, parallel_tool_calls=True))
    assert body["toolConfig"] == {"functionCallingConfig": config}


def test_tool_choice_is_left_out_when_there_are_no_tools() -> None:
    assert "toolConfig" not in encode(ask(tool_choice=ToolChoice(mode=ToolChoiceMode.AUTO)))


def test_settings_stand_in_the_generation_config() -> None:
    request = ask(max_tokens=100, temperature=0.0, top_p=0.5, top_k=40, seed=-7, stop_sequences=("a", "b"), response_format=TextFormat())
    assert encode(request)["generationConfig"] == {
        "maxOutputTokens": 100,
        "temperature": 0.0,
        "topP": 0.5,
        "topK": 40,
        "seed": -7,
        "stopSequences": ["a", "b"],
    }
    assert "generationConfig" not in encode(ask())


def test_response_format_is_a_media_type_with_a_schema() -> None:
    assert encode(ask(response_format=JsonObjectFormat()))["generationConfig"] == {"responseMimeType": "application/json"}
    wanted = JsonSchemaFormat(name="city", schema_json='{"type":"object","additionalProperties":false}', strict=True)
    assert encode(ask(response_format=wanted))["generationConfig"] == {
        "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "object", "additionalProperties": False},
    }


@pytest.mark.parametrize(
    ("reasoning", "model", "config"),
    [
        (ReasoningConfig(), "gemini-3-pro", {"includeThoughts": True}),
        (ReasoningConfig(hide=True), "gemini-3-pro", {"includeThoughts": True}),
        (ReasoningConfig(budget_tokens=6_400), "gemini-3-pro", {"includeThoughts": True, "thinkingBudget": 6_400}),
        (ReasoningConfig(effort=ReasoningEffort.HIGH), "gemini-3-pro", {"includeThoughts": True, "thinkingLevel": "HIGH"}),
        (ReasoningConfig(effort=ReasoningEffort.LOW), "gemini-flash-latest", {"includeThoughts": True, "thinkingLevel": "LOW"}),
        (ReasoningConfig(effort=ReasoningEffort.LOW), "models/gemini-2.5-pro", {"includeThoughts": True, "thinkingBudget": 1_024}),
        (ReasoningConfig(effort=ReasoningEffort.NONE), "gemini-2.5-flash", {"thinkingBudget": 0}),
    ],
)
def test_reasoning_is_a_level_or_a_budget_by_model(reasoning: ReasoningConfig, model: str, config: Json) -> None:
    assert encode(ask(reasoning=reasoning), model)["generationConfig"] == {"thinkingConfig": config}


def test_reasoning_is_refused_when_it_is_both_effort_and_budget() -> None:
    assert refused(ask(reasoning=ReasoningConfig(effort=ReasoningEffort.LOW, budget_tokens=1))) == ["reasoning.budget_tokens"]


# ---------------------------------------------------------------- provider_options


def test_options_are_merged_into_the_body() -> None:
    options = {
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        "cached_content": "cachedContents/x",
        "generation_config": {"responseModalities": ["TEXT"], "logprobs": 3, "thinking_config": {"include_thoughts": False}},
        "toolConfig": {"retrievalConfig": {"latLng": {"latitude": 1.5, "longitude": 2}}},
        "tools": [{"googleSearch": {}}],
    }
    request = ask(
        tools=(WEATHER,),
        tool_choice=ToolChoice(mode=ToolChoiceMode.AUTO),
        top_k=4,
        reasoning=ReasoningConfig(effort=ReasoningEffort.LOW),
        provider_options=options,
    )
    sent = Gemini().encode(request, PROVIDER, "gemini-3-pro", stream=False).body
    body = json.loads(sent)
    assert body["safetySettings"] == options["safetySettings"]
    assert body["cachedContent"] == "cachedContents/x"
    assert body["generationConfig"] == {
        "topK": 4,
        "responseModalities": ["TEXT"],
        "logprobs": 3,
        "thinkingConfig": {"includeThoughts": False, "thinkingLevel": "LOW"},
    }
    assert b'"logprobs":3}' in sent or b'"logprobs":3,' in sent
    assert body["toolConfig"] == {
        "functionCallingConfig": {"mode": "AUTO"},
        "retrievalConfig": {"latLng": {"latitude": 1.5, "longitude": 2}},
    }
    assert [sorted(tool) for tool in body["tools"]] == [["functionDeclarations"], ["googleSearch"]]


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"contents": []}, ["contents"]),
        ({"system_instruction": {}}, ["system_instruction"]),
        ({"model": "x"}, ["model"]),
        ({"candidateCount": 2}, ["candidateCount"]),
        ({"generationConfig": {"candidateCount": 2, "topK": 1}}, ["generationConfig.candidateCount", "generationConfig.topK"]),
        ({"generation_config": {"candidate_count": 2}}, ["generation_config.candidate_count"]),
        ({"generationConfig": {"thinkingConfig": {"thinkingBudget": 1}}}, ["generationConfig.thinkingConfig.thinkingBudget"]),
        ({"generationConfig": [1]}, ["generationConfig"]),
        ({"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}, ["toolConfig.functionCallingConfig.mode"]),
        ({"tools": [{"googleSearch": {}}, {"function_declarations": []}]}, ["tools[1].functionDeclarations"]),
        ({"tools": {"googleSearch": {}}}, ["tools"]),
    ],
)
def test_option_that_the_request_models_is_refused(options: Json, fields: Sequence[str]) -> None:
    assert refused(ask(provider_options=options)) == [f"provider_options.{field}" for field in fields]
