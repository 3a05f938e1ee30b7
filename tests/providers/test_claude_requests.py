"""The dialect claude on recorded exchanges: a recorded request is encoded as it was sent, and a recorded answer goes back as it came."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from headrace_server.domain.message import ChatMessage, MessageRole, TextPart
from headrace_server.domain.provider import Dialect, Provider
from headrace_server.domain.request import GenerateRequest
from headrace_server.providers.claude import Claude, ClaudeDecoder
from headrace_server.providers.sse import Scanner

pytestmark = pytest.mark.wire

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
PROVIDER = Provider(
    id=ID,
    provider="claude",
    dialect=Dialect.CLAUDE,
    api_url=Claude.default_api_url,
    default_model="claude-sonnet-4-6",
    created_at=0,
    updated_at=0,
)

WIRE = Path(os.environ.get("HEADRACE_WIRE", Path(__file__).parents[3] / "shared" / "wire")) / "anthropic-messages"
RECORDED = sorted(path.parent.name for path in WIRE.glob("*/request.json"))

ANSWERED = [slug for slug in RECORDED if json.loads((WIRE / slug / "expected.json").read_bytes()).get("blocks")]

EQUIVALENT = (
    "a string as content or as system is one block of text",
    "output_format is the older name of output_config.format",
    "stream, is_error: false and description: '' are defaults",
    "turns of one role that follow one another are one turn",
    "tools are a set: those of the request come before those of provider_options",
)
"""How an encoded request may differ from the recorded one and still be the same request."""

NOT_EXPRESSIBLE = {
    "ddtrace-anthropic-completion-error-0": "its message is a string, recorded to provoke an error",
    "ddtrace-anthropic-completion-tools-call-with-tool-result-stream-0": "its tool_result answers a call that is in no message",
}
"""Recorded requests that a GenerateRequest cannot hold, each with the reason."""


@pytest.fixture(scope="module")
def wire() -> Path:
    if not RECORDED:
        pytest.skip(f"the recorded exchanges are not at {WIRE}: set HEADRACE_WIRE")
    return WIRE


def generate_request(recorded: dict[str, Any]) -> GenerateRequest:
    """A recorded request in the words of the API."""
    fields = dict(recorded)
    fields.pop("stream", None)
    options: dict[str, Any] = {}
    asked: dict[str, Any] = {"request_id": ID, "model": fields.pop("model"), "max_tokens": fields.pop("max_tokens")}
    messages = [{"role": "system", "content": _parts(fields.pop("system"))}] if "system" in fields else []
    messages += [{"role": turn["role"], "content": _parts(turn["content"])} for turn in fields.pop("messages")]
    asked["messages"] = messages

    for tool in fields.pop("tools", []):
        rest = dict(tool)
        if "input_schema" in tool:
            modelled = {name: rest.pop(name) for name in ("description", "strict") if name in tool}
            modelled |= {"name": tool["name"], "parameters_json": json.dumps(rest.pop("input_schema"))}
            asked.setdefault("tools", []).append(modelled)
        if rest.keys() > {"name"}:
            options.setdefault("tools", []).append(rest)
    if choice := fields.pop("tool_choice", None):
        modes = {"auto": "auto", "any": "required", "none": "none"}
        asked["tool_choice"] = {"mode": modes[choice["type"]]} if choice["type"] in modes else {"name": choice["name"]}
        if "disable_parallel_tool_use" in choice:
            asked["parallel_tool_calls"] = not choice["disable_parallel_tool_use"]
    form = fields.pop("output_format", None) or fields.pop("output_config", {}).get("format")
    if form:
        asked["response_format"] = {"type": "json_schema", "name": "answer", "schema_json": json.dumps(form["schema"])}
    if thinking := fields.pop("thinking", None):
        asked["reasoning"] = {"budget_tokens": thinking["budget_tokens"]}
    for name in ("temperature", "top_p", "top_k", "stop_sequences"):
        if name in fields:
            asked[name] = fields.pop(name)
    return GenerateRequest.model_validate(asked | {"provider_options": options | fields})


def _parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else [_part(block) for block in content]


def _part(block: dict[str, Any]) -> dict[str, Any]:
    kind, names = block["type"], set(block) - {"type"}
    if kind == "text" and names == {"text"}:
        return block
    if kind == "thinking" and names == {"thinking", "signature"}:
        return {"type": "reasoning", "text": block["thinking"], "signature": block["signature"]}
    if kind == "tool_use" and names == {"id", "name", "input"}:
        return {"type": "tool_call", "id": block["id"], "name": block["name"], "arguments_json": json.dumps(block["input"])}
    if kind == "tool_result" and names <= {"tool_use_id", "content", "is_error"}:
        content = _parts(block.get("content", []))
        return {"type": "tool_result", "tool_call_id": block["tool_use_id"], "content": content, "is_error": block.get("is_error", False)}
    return {"type": "provider_data", "provider_data": block}


def canonical(sent: dict[str, Any]) -> dict[str, Any]:
    """A request with everything in EQUIVALENT made equal."""
    same = dict(sent) | {"stream": sent.get("stream", False)}
    if "output_format" in same:
        same["output_config"] = {"format": same.pop("output_format")}
    if "system" in same:
        same["system"] = _blocks(same["system"])
    turns: list[dict[str, Any]] = []
    for turn in same["messages"]:
        if turns and turns[-1]["role"] == turn["role"]:
            turns[-1]["content"] += _blocks(turn["content"])
        else:
            turns.append({"role": turn["role"], "content": _blocks(turn["content"])})
    tools = [{name: value for name, value in tool.items() if (name, value) != ("description", "")} for tool in same.pop("tools", [])]
    return same | {"messages": turns, "tools": sorted(tools, key=lambda tool: str(tool["name"]))}


def _blocks(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    blocks = [{name: value for name, value in block.items() if (name, value) != ("is_error", False)} for block in content]
    return [block | {"content": _blocks(block["content"])} if block["type"] == "tool_result" else block for block in blocks]


@pytest.mark.parametrize("slug", [slug for slug in RECORDED if slug not in NOT_EXPRESSIBLE] or ["none"])
def test_a_recorded_request_is_encoded_as_it_was_sent(slug, wire):
    recorded = json.loads((wire / slug / "request.json").read_bytes())
    asked = generate_request(recorded)
    assert Claude().check(asked, PROVIDER) == []
    encoded = Claude().encode(asked, PROVIDER, asked.model or "", stream=recorded.get("stream", False))
    assert canonical(json.loads(encoded.body)) == canonical(recorded)


@pytest.mark.parametrize("slug", NOT_EXPRESSIBLE)
def test_a_recorded_request_on_the_list_cannot_be_expressed(slug, wire):
    recorded = json.loads((wire / slug / "request.json").read_bytes())
    with pytest.raises((ValueError, TypeError)):
        generate_request(recorded)


# ---------------------------------------------------------------- recorded answers


@pytest.mark.parametrize("slug", ANSWERED or ["none"])
def test_a_recorded_answer_goes_back_as_it_came(slug, wire):
    meta = json.loads((wire / slug / "meta.json").read_bytes())
    recorded = (wire / slug / meta["response_file"]).read_bytes()
    decoder = ClaudeDecoder()
    if meta["streaming"]:
        for name, data in (scanner := Scanner()).feed(recorded) + scanner.close():
            decoder.event(name, data)
    else:
        decoder.whole(recorded)
    decoder.finish()
    answer = ChatMessage(role=MessageRole.ASSISTANT, content=decoder.answer.content())
    go_on = ChatMessage(role=MessageRole.USER, content=(TextPart(text="go on"),))
    asked = GenerateRequest(request_id=ID, messages=(answer, go_on))
    assert Claude().check(asked, PROVIDER) == []
    sent_back = json.loads(Claude().encode(asked, PROVIDER, "m", stream=False).body)["messages"][0]["content"]
    assert [block["type"] for block in sent_back] == json.loads((wire / slug / "expected.json").read_bytes())["blocks"]
    if not meta["streaming"]:
        assert sent_back == [_without_defaults(block) for block in json.loads(recorded)["content"]]


def _without_defaults(block: dict[str, Any]) -> dict[str, Any]:
    """A block without what says nothing: no citations, and a call by the model itself."""
    is_client = block["type"] in ("text", "tool_use")
    return {name: value for name, value in block.items() if not (is_client and value in (None, [], {"type": "direct"}) and name != "input")}
