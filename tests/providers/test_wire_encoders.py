"""Every recorded request of the chat dialect, read into a GenerateRequest and encoded again, is the same request; every recorded
answer can be sent back to the provider that gave it.

What may differ stands in `canonical`; the requests that the API cannot express stand in NOT_EXPRESSIBLE, each with the reason.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from headrace_server.domain.errors import ProviderFault
from headrace_server.domain.message import TextPart, ToolCallPart
from headrace_server.domain.provider import Dialect as Name
from headrace_server.domain.provider import Provider
from headrace_server.domain.request import GenerateRequest
from headrace_server.providers.openai import OpenAIChat
from headrace_server.providers.openai_decoder import ChatDecoder
from headrace_server.providers.sse import Scanner

CORPUS = Path(os.environ.get("HEADRACE_WIRE") or Path(__file__).parents[3] / "shared" / "wire") / "openai-chat"

pytestmark = pytest.mark.wire

Json = dict[str, Any]
ID = "01890a5d-ac96-774b-bcce-b302099a8057"

API_URLS = {
    "openai": "https://api.openai.com/v1",
    "azure": "https://example.services.ai.azure.com/models?api-version=2024-05-01-preview",
    "openrouter": "https://openrouter.ai/api/v1",
    "deepseek": "https://api.deepseek.com",
    "groq": "https://api.groq.com/openai/v1",
    "mistral": "https://api.mistral.ai/v1",
    "zai": "https://api.z.ai/api/paas/v4",
    "cerebras": "https://api.cerebras.ai/v1",
}
"""By the corpus' vendor; the others' servers are taken to be as liberal as a local one."""

DEVELOPER = "no message has the role developer: system says it"
CHOICES = "a generation has one choice"
NAME = "no message has a name"
SCHEMA = "a schema has a name, and no description"
NOT_EXPRESSIBLE = {
    "ddtrace-chat-completion-0": CHOICES,
    "ddtrace-chat-completion-error-0": CHOICES,
    "ddtrace-completion-multiple-choices-0": CHOICES,
    "ddtrace-completion-multiple-choices-with-tools-0": CHOICES,
    "ddtrace-completion-stream-multiple-choices-proxy-0": CHOICES,
    "ddtrace-completion-stream-multiple-choices-with-tools-0": CHOICES,
    "ddtrace-openai-chat-completions-post-5244958a-0": DEVELOPER,
    "envoy-chat-bad-request-0": "temperature\n  Input should be greater than or equal to 0",
    "envoy-chat-no-messages-0": "a request holds at least one message",
    "mira-structured-output-openai-gpt-4o-completions-async-stream-0": SCHEMA,
    "oinf-instrumenting-model-client-0": NAME,
    "oinf-testassistantagent-test-agent-run-1": NAME,
    "otel-async-chat-completion-multiple-choices-streaming-0": CHOICES,
    "pydai-groq-native-output-0": SCHEMA,
    "pydai-openrouter-cache-all-settings-real-api-0": "a function has no cache_control",
    "rubyllm-chat-function-calling-openrouter-claude-haiku-4-5-can-handle-mu-668a98f1-0": DEVELOPER,
    "rubyllm-chat-function-calling-openrouter-claude-haiku-4-5-can-use-tools-fa9b9260-0": DEVELOPER,
    "rubyllm-chat-function-calling-openrouter-claude-haiku-4-5-can-use-tools-fa9b9260-2": DEVELOPER,
    "rubyllm-chat-tool-choice-and-calls-control-openrouter-claude-haiku-4-5-74e41404-1": DEVELOPER,
    "rubyllm-chat-with-params-perplexity-sonar-supports-json-schema-response-a0c1c589-0": SCHEMA,
}
"""Recordings whose requests the API has no words for, and why."""


class NotExpressible(Exception):
    """The API has no words for something in a recorded request."""


def recorded_requests() -> list[Any]:
    folders = sorted(path.parent for path in CORPUS.glob("*/meta.json"))
    absent = pytest.param(None, marks=pytest.mark.skip(reason=f"no recordings in {CORPUS}: set HEADRACE_WIRE"), id="none")
    return [pytest.param(folder, id=folder.name) for folder in folders] or [absent]


# ---------------------------------------------------------------- a recorded body in the API's words


def request_of(recorded: Json, max_tokens: str) -> GenerateRequest:
    """`max_tokens`: the name under which the encoder sends it to this vendor."""
    body = {name: value for name, value in recorded.items() if value is not None}
    if body.get("n", 1) != 1:
        raise NotExpressible(CHOICES)
    tools = body.pop("tools", [])
    hosted = [tool for tool in tools if tool["type"] != "function"]
    fields: Json = {
        "request_id": ID,
        "stream": body.pop("stream", False),
        "model": body.pop("model"),
        "messages": [message_of(message) for message in body.pop("messages")],
        "tools": [tool_of(tool) for tool in tools if tool not in hosted],
    }
    if not fields["messages"]:
        raise NotExpressible("a request holds at least one message")
    fields |= {name: body.pop(name) for name in ("temperature", "top_p", "seed", "parallel_tool_calls") if name in body}
    if max_tokens in body:
        fields["max_tokens"] = body.pop(max_tokens)
    if choice := body.pop("tool_choice", None):
        fields["tool_choice"] = {"mode": choice} if isinstance(choice, str) else {"name": choice["function"]["name"]}
    if form := body.pop("response_format", None):
        fields["response_format"] = format_of(form)
    if body.get("reasoning_effort") in ("none", "low", "medium", "high"):
        fields["reasoning"] = {"effort": body.pop("reasoning_effort")}
    body.pop("stream_options", None)
    try:
        return GenerateRequest.model_validate(fields | {"provider_options": body | ({"tools": hosted} if hosted else {})})
    except ValidationError as error:
        raise NotExpressible(str(error)) from None


def message_of(message: Json) -> Json:
    if message.get("name"):
        raise NotExpressible(NAME)
    role, content = message["role"], message.get("content")
    if role == "developer":
        raise NotExpressible(DEVELOPER)
    if role == "tool":
        result = {"type": "tool_result", "tool_call_id": message["tool_call_id"], "content": parts_of(content)}
        return {"role": "tool", "content": [result]}
    parts: list[Json] = []
    reasoning = message.get("reasoning_content", message.get("reasoning"))
    if reasoning is not None:
        parts.append({"type": "reasoning", "text": reasoning})
    parts += parts_of(content)
    for call in message.get("tool_calls") or []:
        function = call["function"]
        parts.append({"type": "tool_call", "id": call["id"], "name": function["name"], "arguments_json": function["arguments"]})
    return {"role": role, "content": parts or [{"type": "text", "text": ""}]}


def parts_of(content: str | list[Json] | None) -> list[Json]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [part_of(part) for part in content or []]


def part_of(part: Json) -> Json:
    if part.keys() == {"type", "text"}:
        return part
    if part["type"] == "thinking":
        return {"type": "reasoning", "text": "".join(inner["text"] for inner in part["thinking"])}
    return {"type": "provider_data", "provider_data": part}


def tool_of(tool: Json) -> Json:
    if tool.keys() != {"type", "function"}:
        raise NotExpressible("a function has no cache_control")
    function = tool["function"]
    return {
        "name": function["name"],
        "description": function.get("description", ""),
        "parameters_json": json.dumps(function["parameters"]),
        "strict": function.get("strict"),
    }


def format_of(form: Json) -> Json:
    if form["type"] != "json_schema":
        return form
    schema = form["json_schema"]
    if not {"name", "schema"} <= schema.keys() <= {"name", "schema", "strict"}:
        raise NotExpressible(SCHEMA)
    return {"type": "json_schema", "name": schema["name"], "schema_json": json.dumps(schema["schema"]), "strict": schema.get("strict")}


# ---------------------------------------------------------------- what makes no difference


def canonical(body: Json) -> Json:
    """Without what says nothing: nulls, empty lists, `stream: false`, and on streams the question for usage that is always asked."""
    plain = {name: value for name, value in body.items() if value is not None and value != []}
    plain["messages"] = [canonical_message(message) for message in body["messages"]]
    if not plain.pop("stream", False):
        plain["stream"] = False
    plain.pop("stream_options", None)
    if "tools" in plain:
        plain["tools"] = [canonical_tool(tool) for tool in plain["tools"]]
    return plain


def canonical_tool(tool: Json) -> Json:
    """An empty description says nothing."""
    function = {name: value for name, value in tool.get("function", {}).items() if value != ""}
    return tool | ({"function": function} if function else {})


def canonical_message(message: Json) -> Json:
    """A text may stand alone or in a list of one, no text may be null, empty or absent, and so may what is false.

    Reasoning has two names.
    """
    plain = {name: value for name, value in message.items() if value is not None and value != [] and value is not False}
    content = plain.pop("content", "")
    plain["content"] = [{"type": "text", "text": content}] if isinstance(content, str) and content else content or []
    if reasoning := [plain.pop(name) for name in ("reasoning", "reasoning_content") if name in plain]:
        plain["reasoning"] = reasoning[0]
    return plain


def provider_of(folder: Path) -> Provider:
    vendor = json.loads((folder / "meta.json").read_text())["vendor"]
    return Provider(
        id="00000000-0000-7000-8000-000000000000",
        provider=vendor,
        dialect=Name.OPENAI,
        api_url=API_URLS.get(vendor, "http://127.0.0.1:8080/v1"),
        default_model="wire",
        created_at=0,
        updated_at=0,
    )


@pytest.mark.parametrize("folder", recorded_requests())
def test_recorded_request_is_encoded_as_it_was_sent(folder: Path) -> None:
    provider = provider_of(folder)
    recorded = json.loads((folder / "request.json").read_text())
    max_tokens = "max_completion_tokens" if provider.provider == "openai" else "max_tokens"
    if folder.name in NOT_EXPRESSIBLE:
        with pytest.raises(NotExpressible, match=NOT_EXPRESSIBLE[folder.name]):
            request_of(recorded, max_tokens)
        return
    request = request_of(recorded, max_tokens)
    assert OpenAIChat().check(request, provider) == []
    encoded = OpenAIChat().encode(request, provider, recorded["model"], stream=request.stream)
    assert canonical(json.loads(encoded.body)) == canonical(recorded)


@pytest.mark.parametrize("folder", recorded_requests())
def test_recorded_answer_goes_back_to_its_provider(folder: Path) -> None:
    decoder = ChatDecoder()
    try:
        if (folder / "response.json").exists():
            decoder.whole((folder / "response.json").read_bytes())
        else:
            scanner = Scanner()
            for name, data in [*scanner.feed((folder / "response.sse").read_bytes()), *scanner.close()]:
                decoder.event(name, data)
    except ProviderFault:
        return  # an error: nothing to send back
    parts = decoder.answer.content()
    texts = "".join(part.text for part in parts if isinstance(part, TextPart))
    calls = [part for part in parts if isinstance(part, ToolCallPart)]
    results = [{"type": "tool_result", "tool_call_id": call.id, "content": []} for call in calls]
    ask: Json = {"role": "user", "content": [{"type": "text", "text": "hi"}, *results]}
    turn = {"role": "assistant", "content": [part.model_dump() for part in parts] or [{"type": "text", "text": ""}]}
    request = GenerateRequest.model_validate({"request_id": ID, "messages": [turn, ask]})
    assert OpenAIChat().check(request, provider_of(folder)) == []
    sent = json.loads(OpenAIChat().encode(request, provider_of(folder), "m", stream=True).body)["messages"][0]
    content = sent["content"] or ""
    assert (content if isinstance(content, str) else "".join(piece.get("text", "") for piece in content)) == texts
    sent_calls = [call["function"] for call in sent.get("tool_calls", [])] or [sent[name] for name in sent if name == "function_call"]
    assert sent_calls == [{"name": call.name, "arguments": call.arguments_json} for call in calls]
