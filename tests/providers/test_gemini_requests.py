"""The dialect gemini: the requests of recorded exchanges, encoded again, and recorded answers sent back in a second turn.

The recordings stand in the folder that HEADRACE_WIRE names (default: `shared/wire` beside this repository).
"""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from headrace_server.domain.message import (
    ChatMessage,
    ContentPart,
    MessageRole,
    ProviderDataPart,
    ReasoningPart,
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
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from headrace_server.providers.gemini import Gemini, GeminiDecoder
from headrace_server.providers.gemini_request import MADE_ID
from headrace_server.providers.sse import Scanner

pytestmark = pytest.mark.wire

Json = dict[str, Any]

CORPUS = Path(os.environ.get("HEADRACE_WIRE") or Path(__file__).parents[3] / "shared" / "wire")
RECORDED = sorted(CORPUS.glob("gemini-generate/*"))

PROVIDER = Provider(
    id="01890a5d-ac96-774b-bcce-b302099a8057",
    provider="gemini",
    dialect=Dialect.GEMINI,
    api_url="https://generativelanguage.googleapis.com",
    default_model="gemini-2.5-flash",
    created_at=0,
    updated_at=0,
)


def ask(*messages: ChatMessage, **fields: Any) -> GenerateRequest:
    return GenerateRequest(request_id="01890a5d-ac96-774b-bcce-b302099a8057", messages=messages, **fields)


def message(role: MessageRole, *parts: ContentPart | str) -> ChatMessage:
    return ChatMessage(role=role, content=tuple(TextPart(text=part) if isinstance(part, str) else part for part in parts))


# ---------------------------------------------------------------- a second turn


@pytest.mark.skipif(not RECORDED, reason=f"no recordings at {CORPUS}")
@pytest.mark.parametrize(
    ("slug", "parts"),
    [
        ("oinf-streaming-reasoning-with-multiple-tool-calls-0", ["functionCall+", "functionCall"]),
        ("mira-call-with-tools-google-gemini-2-5-flash-async-0", ["functionCall+", "functionCall"]),
        ("mira-strict-mode-with-thinking-google-gemini-3-pro-preview-0", ["thought", "text+"]),
        ("oinf-streaming-reasoning-0", ["thought", "text+"]),
        ("pydai-code-execution-stream-0", ["executableCode+", "codeExecutionResult", "text+"]),
        ("pydai-native-output-with-builtin-tools-0", ["toolCall+", "toolResponse+", "text+"]),
    ],
)
def test_recorded_answer_goes_back_as_google_documents(slug: str, parts: Sequence[str]) -> None:
    """Each part in its place, each signature (+) on the part that it came with, made ids kept out, each result with its name."""
    folder = CORPUS / "gemini-generate" / slug
    answer, recorded = recorded_answer(folder)
    calls = [part for part in answer if isinstance(part, ToolCallPart)]
    results = [
        message(MessageRole.TOOL, ToolResultPart(tool_call_id=part.id, content=(TextPart(text=part.name),))) for part in reversed(calls)
    ]
    following = results or [message(MessageRole.USER, "go on")]
    request = ask(message(MessageRole.USER, "hi"), message(MessageRole.ASSISTANT, *answer), *following)
    assert list(Gemini().check(request, PROVIDER)) == []
    contents = json.loads(Gemini().encode(request, PROVIDER, "gemini-3-flash-preview", stream=True).body)["contents"]

    assert [content["role"] for content in contents] == ["user", "model", "user"]
    kinds = ["thought" if part.get("thought") else next(k for k in part if k != "thoughtSignature") for part in contents[1]["parts"]]
    assert [k + "+" * ("thoughtSignature" in part) for k, part in zip(kinds, contents[1]["parts"], strict=True)] == parts
    for kept in ("functionCall", "thoughtSignature", "executableCode", "toolCall", "toolResponse"):
        sent = [part[kept] for part in contents[1]["parts"] if kept in part]
        assert sent == [part[kept] for part in recorded if kept in part]
    assert "".join(part.get("text", "") for part in contents[1]["parts"]) == "".join(part.get("text", "") for part in recorded)
    if calls:
        answered = [part["functionResponse"] for part in contents[2]["parts"]]
        assert [(r["name"], r.get("id")) for r in answered] == [
            (part["functionCall"]["name"], part["functionCall"].get("id")) for part in recorded if "functionCall" in part
        ]


def recorded_answer(folder: Path) -> tuple[tuple[ContentPart, ...], list[Json]]:
    """The content of a recorded answer, as decoded and as sent."""
    decoder = GeminiDecoder()
    if (folder / "response.sse").exists():
        scanner = Scanner()
        bodies = [data for _, data in [*scanner.feed((folder / "response.sse").read_bytes()), *scanner.close()]]
        for body in bodies:
            decoder.event("", body)
    else:
        bodies = [(folder / "response.json").read_bytes()]
        decoder.whole(bodies[0])
    decoder.finish()
    return decoder.answer.content(), [part for body in bodies for part in json.loads(body)["candidates"][0]["content"]["parts"]]


# ---------------------------------------------------------------- recorded requests

NOT_EXPRESSIBLE: dict[str, str] = {}
"""Slugs of recorded requests that the API cannot express, each with the reason."""


@pytest.mark.parametrize(
    "folder",
    [pytest.param(folder, id=folder.name) for folder in RECORDED]
    or [pytest.param(None, marks=pytest.mark.skip(reason=f"no recordings at {CORPUS}"))],
)
def test_recorded_request_is_encoded_as_it_was_sent(folder: Path) -> None:
    meta, recorded = (json.loads((folder / name).read_text()) for name in ("meta.json", "request.json"))
    request = as_request(recorded)
    violations = Gemini().check(request, PROVIDER)
    if folder.name in NOT_EXPRESSIBLE:
        assert violations
        return
    assert list(violations) == []
    encoded = Gemini().encode(request, PROVIDER, meta["model"], stream=meta["stream_requested"])
    assert canonical(json.loads(encoded.body)) == canonical(recorded)
    if meta["path"].startswith("/v1beta/") and meta["framing"] != "json-array":
        assert encoded.url == PROVIDER.api_url + meta["path"]


def canonical(body: Json) -> Json:
    """A request with one spelling for what Google takes in several, and without what means the same as nothing.

    Field names are in camelCase. A schema stands in parametersJsonSchema or responseJsonSchema, whichever field had it. All functions
    are in one tool, tools are sorted. Left out: the role of a systemInstruction, empty descriptions and objects, includeThoughts false.
    """
    same = {"parameters": "parametersJsonSchema", "responseSchema": "responseJsonSchema"}
    whole = {"args", "response", "parametersJsonSchema", "responseJsonSchema"}

    def spelled(value: Any) -> Any:
        if isinstance(value, list):
            return [spelled(item) for item in value]
        if not isinstance(value, dict):
            return value
        names = [(re.sub(r"_([a-z])", lambda m: m[1].upper(), key), item) for key, item in value.items()]
        return {same.get(name, name): item if same.get(name, name) in whole else spelled(item) for name, item in names}

    made: Json = spelled(body)
    made.get("systemInstruction", {}).pop("role", None)
    functions = [f for tool in made.get("tools", ()) for f in tool.pop("functionDeclarations", ())]
    for function in functions:
        if not function.get("description"):
            function.pop("description", None)
    tools = [tool for tool in made.pop("tools", ()) if tool] + ([{"functionDeclarations": functions}] if functions else [])
    config = made.pop("generationConfig", {})
    thinking = config.pop("thinkingConfig", {})
    if not thinking.get("includeThoughts"):
        thinking.pop("includeThoughts", None)
    if "thinkingLevel" in thinking:
        thinking["thinkingLevel"] = thinking["thinkingLevel"].upper()
    if thinking:
        config["thinkingConfig"] = thinking
    return made | ({"generationConfig": config} if config else {}) | ({"tools": sorted(tools, key=json.dumps)} if tools else {})


def as_request(body: Json) -> GenerateRequest:
    """A recorded request as a caller of Headrace would make it."""
    body = canonical(body)
    config, tool_config = body.pop("generationConfig", {}), body.pop("toolConfig", {})
    calling = tool_config.pop("functionCallingConfig", {})
    tools = body.pop("tools", [])
    functions = [f for tool in tools for f in tool.get("functionDeclarations", ())]
    fields: Json = {
        "max_tokens": config.pop("maxOutputTokens", None),
        "temperature": config.pop("temperature", None),
        "response_format": response_format(config),
        "reasoning": reasoning(config),
        "tools": tuple(
            Tool(
                name=f["name"],
                description=f.get("description", ""),
                parameters_json=json.dumps(f.get("parametersJsonSchema", {})),
                strict=calling.get("mode") == "VALIDATED" or None,
            )
            for f in functions
        ),
        "tool_choice": tool_choice(calling),
    }
    messages = as_messages(body.pop("systemInstruction", None), body.pop("contents"))
    options = body | {"generationConfig": config, "toolConfig": tool_config, "tools": [t for t in tools if "functionDeclarations" not in t]}
    return ask(*messages, provider_options={name: value for name, value in options.items() if value}, **fields)


def response_format(config: Json) -> Any:
    media_type, schema = config.pop("responseMimeType", None), config.pop("responseJsonSchema", None)
    if schema is not None:
        return JsonSchemaFormat(name="schema", schema_json=json.dumps(schema))
    return JsonObjectFormat() if media_type == "application/json" else None


def reasoning(config: Json) -> ReasoningConfig | None:
    thinking = config.pop("thinkingConfig", None)
    if thinking is None:
        return None
    if not thinking.get("includeThoughts"):
        config["thinkingConfig"] = {"includeThoughts": False}
    level = thinking.get("thinkingLevel")
    return ReasoningConfig(effort=ReasoningEffort(level.lower()) if level else None, budget_tokens=thinking.get("thinkingBudget"))


def tool_choice(calling: Json) -> ToolChoice | None:
    if names := calling.get("allowedFunctionNames"):
        (name,) = names
        return ToolChoice(name=name)
    modes = {"AUTO": ToolChoiceMode.AUTO, "NONE": ToolChoiceMode.NONE, "ANY": ToolChoiceMode.REQUIRED}
    return ToolChoice(mode=modes[calling["mode"]]) if calling.get("mode") in modes else None


def as_messages(system: Json | None, contents: Sequence[Json]) -> list[ChatMessage]:
    messages = [message(MessageRole.SYSTEM, *(part["text"] for part in system["parts"]))] if system else []
    waiting: list[tuple[str, str]] = []
    for content in contents:
        parts: list[ContentPart] = []
        for part in content["parts"]:
            signature = part.get("thoughtSignature", "")
            if sent := part.get("functionCall"):
                id = sent.get("id") or f"{MADE_ID}{len(waiting)}-{len(messages)}"
                waiting.append((id, sent["name"]))
                parts.append(ToolCallPart(id=id, name=sent["name"], arguments_json=json.dumps(sent["args"]), signature=signature))
            elif sent := part.get("functionResponse"):
                id = sent.get("id") or next(id for id, name in waiting if name == sent["name"])
                waiting.remove((id, sent["name"]))
                output = sent["response"].get("output")
                plain = isinstance(output, str) and len(sent["response"]) == 1
                said = TextPart(text=output) if plain else ProviderDataPart(provider_data=sent["response"])
                parts.append(ToolResultPart(tool_call_id=id, content=(said,)))
            elif part.get("thought"):
                parts.append(ReasoningPart(text=part["text"], signature=signature))
            else:
                parts += [TextPart(text=part["text"])] + ([ReasoningPart(signature=signature)] if signature else [])
        role = MessageRole.ASSISTANT if content["role"] == "model" else MessageRole.USER
        messages.append(message(MessageRole.TOOL if any(isinstance(part, ToolResultPart) for part in parts) else role, *parts))
    return messages
