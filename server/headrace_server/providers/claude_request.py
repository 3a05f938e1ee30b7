"""The request of the dialect claude: from a GenerateRequest to the body of POST /v1/messages.

What the Messages API documents, and we rely on:

- System messages before the first turn become `system`. A later one stays where it stands, as a message of role system; models before
  Claude Opus 4.8 refuse that with an error that names it.
- Turns of one role that follow one another are one turn; results of tools are part of the user's.
- `max_tokens` is required and bounds thinking and answer together.
- Effort is `output_config.effort` with adaptive thinking; models up to the generation 4.5 know only a budget of tokens.
- `provider_options` may add fields, also inside `thinking` and `output_config`, but replace nothing. Its `tools` are further ones (those
  that Anthropic runs), or add fields to the tool of the same name, such as `cache_control`. Its `betas` become the header
  `anthropic-beta`, as in Anthropic's own SDKs.
"""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from headrace_server.domain.errors import Violation
from headrace_server.domain.message import (
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
from headrace_server.domain.provider import Provider
from headrace_server.domain.request import GenerateRequest, JsonObjectFormat, JsonSchemaFormat, ReasoningEffort, Tool, ToolChoiceMode
from headrace_server.providers.history import CALL_ARGUMENTS, CALL_ID, FOREIGN, INEXPRESSIBLE, OWN_REASONING, REFUSAL, is_openai_made
from headrace_server.providers.json_values import Json, is_object

DEFAULT_MAX_TOKENS = 4_096
"""For the answer, where the request is silent; a budget for thinking is added."""

EFFORT_BUDGET = {ReasoningEffort.LOW: 1_024, ReasoningEffort.MEDIUM: 4_096, ReasoningEffort.HIGH: 16_384}
"""Tokens of thinking for models that know no effort; at most half of `max_tokens`, and never below the API's least, 1,024."""

_LEAST_BUDGET = 1_024
_KNOWS_BUDGETS_ONLY = re.compile(r"claude-(?:3|instant|2|(?:opus|sonnet|haiku)-4(?:-[0-5])?(?:$|-?\d{8}|@|-v\d|-latest))")

_MODELLED = {
    "model": "model",
    "messages": "messages",
    "system": "messages",
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "stop_sequences": "stop_sequences",
    "tool_choice": "tool_choice",
    "stream": "the choice between Generate and StreamGenerate",
}
"""Fields of the body that provider_options may not set, each with what sets it."""

_ROLES = {MessageRole.USER: "user", MessageRole.TOOL: "user", MessageRole.ASSISTANT: "assistant", MessageRole.SYSTEM: "system"}
_CHOICES = {ToolChoiceMode.AUTO: "auto", ToolChoiceMode.NONE: "none", ToolChoiceMode.REQUIRED: "any"}
_DATA_URI = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,([A-Za-z0-9+/=]+)")
_BETA = re.compile(r"[A-Za-z0-9._-]{1,128}")

_OF_A_BLOCK = frozenset({"citations", "caller"})
_OF_AN_ANSWER = frozenset({"container", "stop_sequence", "stop_details", "context_management"})


class Encoder:
    """Encodes one request when it is made: `body` (all but `stream`) and `betas`, of use only where `violations` is empty."""

    def __init__(self, request: GenerateRequest, provider: Provider, model: str) -> None:
        self.violations: list[Violation] = []
        self.betas: list[str] = []
        self._is_anthropic = urlsplit(provider.api_url).hostname == "api.anthropic.com"
        self._container = ""
        options = dict(request.provider_options)
        self._take_betas(options.pop("betas", None))
        tools = self._tools(request, options.pop("tools", []))
        self.body: Json = {"model": model} | self._settings(request, model, tools)
        self._merge(self.body, options, "provider_options")
        self._add_messages(request)
        if self._container:
            self.body.setdefault("container", self._container)

    def _wrong(self, field: str, description: str) -> None:
        self.violations.append(Violation(field=field, description=description))

    # ------------------------------------------------------------ settings

    def _settings(self, request: GenerateRequest, model: str, tools: list[Json]) -> Json:
        if request.temperature is not None and request.temperature > 1:
            self._wrong("temperature", "must be at most 1 for this provider")
        if request.seed is not None:
            self._wrong("seed", INEXPRESSIBLE)
        if isinstance(request.response_format, JsonObjectFormat):
            self._wrong("response_format.json_object", f"{INEXPRESSIBLE}: json_schema can")
        given = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "stop_sequences": list(request.stop_sequences) or None,
            "tools": tools or None,
            "tool_choice": _tool_choice(request) if tools else None,
        }
        return _reasoning(request, model) | {name: value for name, value in given.items() if value is not None}

    def _take_betas(self, betas: object) -> None:
        if betas is None:
            return
        if isinstance(betas, list) and all(isinstance(beta, str) and _BETA.fullmatch(beta) for beta in betas):
            self.betas = betas
        else:
            self._wrong("provider_options.betas", "must be a list of names such as context-1m-2025-08-07")

    def _tools(self, request: GenerateRequest, more: object) -> list[Json]:
        tools = {tool.name: _tool(tool) for tool in request.tools}
        if not isinstance(more, list) or not all(isinstance(tool, dict) and isinstance(tool.get("name"), str) for tool in more):
            self._wrong("provider_options.tools", "must be a list of tools, each with its name")
            return list(tools.values())
        for i, tool in enumerate(more):
            added = {name: value for name, value in tool.items() if name != "name"}
            self._merge(tools.setdefault(tool["name"], {"name": tool["name"]}), added, f"provider_options.tools[{i}]")
        return list(tools.values())

    def _merge(self, into: Json, options: Json, at: str) -> None:
        for name, value in options.items():
            mine = into.get(name)
            if at == "provider_options" and name in _MODELLED:
                self._wrong(f"{at}.{name}", f"is set by {_MODELLED[name]}")
            elif name not in into:
                into[name] = value
            elif isinstance(mine, dict) and isinstance(value, dict):
                self._merge(mine, value, f"{at}.{name}")
            else:
                self._wrong(f"{at}.{name}", "is set by a field of the request already")

    # ------------------------------------------------------------ messages

    def _add_messages(self, request: GenerateRequest) -> None:
        system: list[Any] = []
        turns: list[Json] = []
        for i, message in enumerate(request.messages):
            blocks = self._blocks(message.content, f"messages[{i}].content")
            role = _ROLES[message.role]
            if not blocks:
                continue  # it held nothing but what an answer said about itself
            if role == "system" and not turns:
                system += blocks
            elif turns and turns[-1]["role"] == role:
                turns[-1]["content"] += blocks
            else:
                turns.append({"role": role, "content": blocks})
        if not turns and not self.violations:
            self._wrong("messages", "must hold a message of another role than system")
        if system:
            self.body["system"] = system
        self.body["messages"] = turns

    def _blocks(self, parts: Sequence[ContentPart], at: str) -> list[Json]:
        blocks: list[Json] = []
        for j, part in enumerate(parts):
            here = f"{at}[{j}]"
            match part:
                case TextPart():
                    blocks.append({"type": "text", "text": part.text})
                case ImagePart():
                    blocks.append({"type": "image", "source": self._image(part, here)})
                case ToolCallPart():
                    blocks.append(self._tool_use(part, here))
                case ToolResultPart():
                    blocks.append(self._tool_result(part, here))
                case ReasoningPart():
                    blocks.append(self._thinking(part, here))
                case RefusalPart():
                    self._wrong(f"{here}.refusal", REFUSAL)
                case ProviderDataPart():
                    self._add_provider_data(blocks, part.provider_data, here)
        return blocks

    def _image(self, part: ImagePart, at: str) -> Json:
        if part.data is not None:
            return {"type": "base64", "media_type": part.media_type, "data": part.data}
        uri = part.uri or ""
        if inline := _DATA_URI.fullmatch(uri):
            return {"type": "base64", "media_type": inline[1], "data": inline[2]}
        if not uri.startswith(("https://", "http://")):
            self._wrong(f"{at}.image.uri", "must be an https:// or a base64 data: address for this provider")
        return {"type": "url", "url": uri}

    def _tool_use(self, part: ToolCallPart, at: str) -> Json:
        if not part.id:
            self._wrong(f"{at}.tool_call.id", CALL_ID)
        if part.signature:
            self._wrong(f"{at}.tool_call.signature", FOREIGN)
        arguments = part.arguments_json.strip() or "{}"
        if not is_object(arguments):
            self._wrong(f"{at}.tool_call.arguments_json", CALL_ARGUMENTS)
        # As it came: no number, order or depth is lost.
        return {"type": "tool_use", "id": part.id, "name": part.name, "input": msgspec.Raw(arguments.encode())}

    def _tool_result(self, part: ToolResultPart, at: str) -> Json:
        block: Json = {"type": "tool_result", "tool_use_id": part.tool_call_id}
        if content := self._blocks(part.content, f"{at}.tool_result.content"):
            block["content"] = content
        if part.is_error:
            block["is_error"] = True
        return block

    def _thinking(self, part: ReasoningPart, at: str) -> Json:
        if part.id:
            self._wrong(f"{at}.reasoning.id", FOREIGN)
        for name, opaque in (("signature", part.signature), ("redacted_data", part.redacted_data)):
            if is_openai_made(opaque):
                self._wrong(f"{at}.reasoning.{name}", FOREIGN)
        if part.redacted_data:
            return {"type": "redacted_thinking", "data": part.redacted_data}
        if not part.signature and self._is_anthropic:
            self._wrong(f"{at}.reasoning.signature", OWN_REASONING)
        return {"type": "thinking", "thinking": part.text, "signature": part.signature}

    def _add_provider_data(self, blocks: list[Json], data: Json, at: str) -> None:
        if isinstance(data.get("type"), str):
            blocks.append(data)
        elif data.keys() <= _OF_A_BLOCK and blocks:
            blocks[-1] = blocks[-1] | data
        elif data.keys() <= _OF_AN_ANSWER:
            container = data.get("container")
            if isinstance(container, dict) and isinstance(container.get("id"), str):
                self._container = container["id"]
        else:
            self._wrong(f"{at}.provider_data", f"{INEXPRESSIBLE}: a content block must have a type")


def _tool(tool: Tool) -> Json:
    encoded: Json = {"name": tool.name, "input_schema": msgspec.Raw(tool.parameters_json.encode())}
    if tool.description:
        encoded["description"] = tool.description
    if tool.strict is not None:
        encoded["strict"] = tool.strict
    return encoded


def _tool_choice(request: GenerateRequest) -> Json | None:
    choice, parallel = request.tool_choice, request.parallel_tool_calls
    if choice is None and parallel is None:
        return None
    if choice is None or choice.mode is not None:
        encoded: Json = {"type": _CHOICES[choice.mode if choice and choice.mode else ToolChoiceMode.AUTO]}
    else:
        encoded = {"type": "tool", "name": choice.name}
    if parallel is not None and encoded["type"] != "none":
        encoded["disable_parallel_tool_use"] = not parallel
    return encoded


def _reasoning(request: GenerateRequest, model: str) -> Json:
    """What depends on how much the model is to reason: max_tokens, thinking, and output_config with the form of the answer."""
    effort = request.reasoning.effort if request.reasoning else None
    budget = request.reasoning.budget_tokens if request.reasoning else None
    if budget is None and effort in EFFORT_BUDGET and _KNOWS_BUDGETS_ONLY.search(model):
        budget = EFFORT_BUDGET[effort]
        if request.max_tokens is not None:
            budget = max(_LEAST_BUDGET, min(budget, request.max_tokens // 2))
    body: Json = {"max_tokens": request.max_tokens or DEFAULT_MAX_TOKENS + (budget or 0)}
    output: Json = {}
    if budget is not None:
        body["thinking"] = {"type": "enabled", "budget_tokens": budget}
    elif effort is ReasoningEffort.NONE:
        body["thinking"] = {"type": "disabled"}
    elif effort is not None:
        # Newer models keep their reasoning to themselves unless asked to show it.
        is_shown = request.reasoning is not None and not request.reasoning.hide
        body["thinking"] = {"type": "adaptive"} | ({"display": "summarized"} if is_shown else {})
        output["effort"] = effort.value
    if isinstance(request.response_format, JsonSchemaFormat):
        # The API knows no name for a schema, and always keeps to it.
        output["format"] = {"type": "json_schema", "schema": msgspec.Raw(request.response_format.schema_text.encode())}
    return body | ({"output_config": output} if output else {})
