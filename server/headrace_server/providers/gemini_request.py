"""The request of the dialect gemini: from a GenerateRequest to the body of generateContent, https://ai.google.dev/api/generate-content.

What Google documents, and we rely on:

- System messages are one `systemInstruction`; there is no place for one between turns.
- Results of parallel calls stand in one content, in the order of the calls. Texts of a result are its `output` or `error`; provider data
  alone is the `response` as it is.
- A signature goes back on the part that it came with; Gemini 3 refuses a turn whose calls lack theirs.
- Schemas are `parametersJsonSchema` and `responseJsonSchema`, which take any JSON Schema; `parameters` and `responseSchema` do not.
- `strict` is the mode VALIDATED, which holds for all tools. Several calls at once cannot be forbidden.
- Effort is a `thinkingLevel`, before Gemini 3 a `thinkingBudget`; effort NONE is a budget of 0, which not every model takes.
- `provider_options` may add fields, also inside `generationConfig`, its `thinkingConfig` and `toolConfig`, and further `tools` (those
  that Google runs), but replace nothing that the request sets.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import msgspec

from headrace_server.domain.errors import Violation
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
from headrace_server.domain.request import GenerateRequest, JsonObjectFormat, JsonSchemaFormat, ReasoningEffort, ToolChoiceMode
from headrace_server.providers.history import CALL_ARGUMENTS, FOREIGN, INEXPRESSIBLE, MADE_ID, REFUSAL, is_openai_made
from headrace_server.providers.json_values import is_object

ANSWER_METADATA = frozenset({"groundingMetadata", "citationMetadata", "urlContextMetadata", "logprobsResult"})
"""What stands beside the parts of an answer. The decoder passes it on as provider data; it is no part, so it does not go back."""

MODELLED: Mapping[str, frozenset[str]] = {
    "": frozenset({"contents", "systemInstruction", "model", "candidateCount"}),
    "generationConfig.": frozenset(
        {
            "candidateCount",
            "maxOutputTokens",
            "temperature",
            "topP",
            "topK",
            "seed",
            "stopSequences",
            "responseMimeType",
            "responseSchema",
            "responseJsonSchema",
            "_responseJsonSchema",
            "responseFormat",
        }
    ),
    "generationConfig.thinkingConfig.": frozenset({"thinkingBudget", "thinkingLevel"}),
    "toolConfig.": frozenset(),
    # The last would send the arguments of calls in pieces of a form of their own, which the decoder does not read.
    "toolConfig.functionCallingConfig.": frozenset({"mode", "allowedFunctionNames", "streamFunctionCallArguments"}),
}
"""What `provider_options` must not hold, by the object it stands in. Options are merged into these objects, and replace elsewhere."""

_DATA_URI = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,([A-Za-z0-9+/=]+)", re.IGNORECASE)
_MODES = {ToolChoiceMode.AUTO: "AUTO", ToolChoiceMode.NONE: "NONE", ToolChoiceMode.REQUIRED: "ANY"}

THINKING_BUDGETS = {ReasoningEffort.LOW: 1_024, ReasoningEffort.MEDIUM: 8_192, ReasoningEffort.HIGH: 24_576}
"""Tokens for models before Gemini 3, which know no thinkingLevel; as Google's own OpenAI endpoint translates efforts."""


class RequestWriter:
    """One request in Gemini's words: `body`, and `violations` for what it has no words for."""

    def __init__(self, request: GenerateRequest, model: str) -> None:
        self.violations: list[Violation] = []
        self._request = request
        self._model = model
        self._calls: dict[str, tuple[int, str]] = {}
        """Of each call so far, by its id: how many came before it, and the function's name."""
        self.body: dict[str, Any] = {}
        self._write_messages()
        self._write_tools()
        self._write_generation_config()
        self._merge_options(request.provider_options, self.body, "", "provider_options")

    def _refuse(self, field: str, description: str) -> None:
        self.violations.append(Violation(field=field, description=description))

    # ------------------------------------------------------------ messages

    def _write_messages(self) -> None:
        system: list[Any] = []
        contents: list[Any] = []
        for only_results, run in groupby(enumerate(self._request.messages), key=lambda item: _only_results(item[1])):
            if only_results:
                contents.append({"role": "user", "parts": self._results(list(run))})
                continue
            for i, message in run:
                parts = self._parts(message, f"messages[{i}]")
                if message.role is not MessageRole.SYSTEM:
                    role = "model" if message.role is MessageRole.ASSISTANT else "user"
                    contents += [{"role": role, "parts": parts}] if parts else []
                elif contents:
                    self._refuse(f"messages[{i}].role", f"{INEXPRESSIBLE}: it takes system messages before all others only")
                else:
                    system += parts
        if not contents:
            self._refuse("messages", "must hold a message of another role than system")
        self.body["contents"] = contents
        if system:
            self.body["systemInstruction"] = {"parts": system}

    def _results(self, run: Sequence[tuple[int, ChatMessage]]) -> list[Any]:
        """The results of parallel calls belong into one content, in the order of the calls: without ids Google goes by it."""
        numbered: list[tuple[int, Any]] = []
        for i, message in run:
            for j, part in enumerate(message.content):
                number = self._calls.get(part.tool_call_id, (0, ""))[0] if isinstance(part, ToolResultPart) else len(self._calls)
                numbered += [(number, written) for written in self._part(part, f"messages[{i}].content[{j}]")]
        return [written for _, written in sorted(numbered, key=lambda item: item[0])]

    def _parts(self, message: ChatMessage, at: str) -> list[Any]:
        parts: list[Any] = []
        for j, part in enumerate(message.content):
            if isinstance(part, ReasoningPart) and part.signature and not part.text:
                self._sign(parts, part.signature)
            parts += self._part(part, f"{at}.content[{j}]")
        return parts

    @staticmethod
    def _sign(parts: list[Any], signature: str) -> None:
        """Give a signature back to the text that it came with; where there is none it stood on an empty text."""
        last = parts[-1] if parts else {}
        if last.keys() != {"text"}:
            last = {"text": ""}
            parts.append(last)
        last["thoughtSignature"] = signature

    def _part(self, part: ContentPart, at: str) -> Iterator[Any]:
        match part:
            case TextPart():
                yield {"text": part.text}
            case ImagePart():
                yield self._image(part, at)
            case ToolCallPart():
                yield self._call(part, at)
            case ToolResultPart():
                yield self._result(part, at)
            case ReasoningPart():
                if is_openai_made(part.signature):
                    self._refuse(f"{at}.reasoning.signature", FOREIGN)
                for field in ("redacted_data", "id"):
                    if getattr(part, field):
                        self._refuse(f"{at}.reasoning.{field}", FOREIGN)
                if part.text:
                    yield {"text": part.text, "thought": True} | _signature(part.signature)
            case RefusalPart():
                self._refuse(f"{at}.refusal", REFUSAL)
            case ProviderDataPart() if not part.provider_data.keys() <= ANSWER_METADATA:
                if "type" in part.provider_data:
                    self._refuse(f"{at}.provider_data", f"{FOREIGN}: its parts have no type")
                yield part.provider_data

    def _image(self, part: ImagePart, at: str) -> dict[str, Any]:
        if part.data is not None:
            return {"inlineData": {"mimeType": part.media_type, "data": part.data}}
        uri = part.uri or ""
        if inline := _DATA_URI.fullmatch(uri):
            return {"inlineData": {"mimeType": inline[1], "data": inline[2]}}
        if uri.lower().startswith("data:"):
            self._refuse(f"{at}.image.uri", "must name its media type and be in base64, as a data address")
        return {"fileData": ({"mimeType": part.media_type} if part.media_type else {}) | {"fileUri": uri}}

    def _call(self, part: ToolCallPart, at: str) -> dict[str, Any]:
        self._calls[part.id] = (len(self._calls), part.name)
        if is_openai_made(part.signature):
            self._refuse(f"{at}.tool_call.signature", FOREIGN)
        arguments = part.arguments_json or "{}"
        if not is_object(arguments):
            self._refuse(f"{at}.tool_call.arguments_json", CALL_ARGUMENTS)
        return {"functionCall": _id(part.id) | {"name": part.name, "args": msgspec.Raw(arguments.encode())}} | _signature(part.signature)

    def _result(self, part: ToolResultPart, at: str) -> dict[str, Any]:
        """Google: `output` holds what the function gave, `error` what went wrong; any other object is the output as a whole."""
        _, name = self._calls.get(part.tool_call_id, (0, ""))
        if not name:
            self._refuse(f"{at}.tool_result.tool_call_id", "no earlier message holds a tool_call with this id")
        pictures: list[Any] = []
        for k, picture in enumerate(part.content):
            if isinstance(picture, ImagePart):
                pictures.append(self._image(picture, f"{at}.tool_result.content[{k}]"))
                if "inlineData" not in pictures[-1]:
                    self._refuse(
                        f"{at}.tool_result.content[{k}].image.uri",
                        f"{INEXPRESSIBLE}: it takes pictures in results of tools by their bytes only",
                    )
        values = [p.provider_data if isinstance(p, ProviderDataPart) else p.text for p in part.content if not isinstance(p, ImagePart)]
        output = values[0] if len(values) == 1 else values or ""
        response = output if isinstance(output, dict) and not part.is_error else {"error" if part.is_error else "output": output}
        result = _id(part.tool_call_id) | {"name": name, "response": response}
        return {"functionResponse": result | ({"parts": pictures} if pictures else {})}

    # ------------------------------------------------------------ tools

    def _write_tools(self) -> None:
        tools, choice = self._request.tools, self._request.tool_choice
        if not tools:
            return
        if self._request.parallel_tool_calls is False:
            self._refuse("parallel_tool_calls", f"{INEXPRESSIBLE}: it cannot be kept from calling several tools at once")
        self.body["tools"] = [
            {
                "functionDeclarations": [
                    {"name": tool.name}
                    | ({"description": tool.description} if tool.description else {})
                    | {"parametersJsonSchema": msgspec.Raw(tool.parameters_json.encode())}
                    for tool in tools
                ]
            }
        ]
        config: dict[str, Any] = {}
        if choice is not None:
            config["mode"] = _MODES[choice.mode] if choice.mode is not None else "ANY"
        if choice is not None and choice.name is not None:
            config["allowedFunctionNames"] = [choice.name]
        if any(tool.strict for tool in tools) and config.get("mode", "AUTO") == "AUTO":
            # ANY keeps to the schemas anyway; VALIDATED is AUTO that does. Either holds for all tools.
            config["mode"] = "VALIDATED"
        if config:
            self.body["toolConfig"] = {"functionCallingConfig": config}

    # ------------------------------------------------------------ generationConfig

    def _write_generation_config(self) -> None:
        request = self._request
        config: dict[str, Any] = {
            "maxOutputTokens": request.max_tokens,
            "temperature": request.temperature,
            "topP": request.top_p,
            "topK": request.top_k,
            "seed": request.seed,
            "stopSequences": request.stop_sequences or None,
            "thinkingConfig": self._thinking(),
        }
        if request.seed is not None and not -(2**31) <= request.seed < 2**31:
            self._refuse("seed", "must fit into 32 bits")
        match request.response_format:
            case JsonObjectFormat():
                config["responseMimeType"] = "application/json"
            case JsonSchemaFormat() as wanted:  # its name has no place, and Gemini is always strict
                config["responseMimeType"] = "application/json"
                config["responseJsonSchema"] = msgspec.Raw(wanted.schema_text.encode())
        config = {name: value for name, value in config.items() if value is not None}
        if config:
            self.body["generationConfig"] = config

    def _thinking(self) -> dict[str, Any] | None:
        reasoning = self._request.reasoning
        if reasoning is None:
            return None
        if reasoning.effort is not None and reasoning.budget_tokens is not None:
            self._refuse("reasoning.budget_tokens", f"{INEXPRESSIBLE} beside reasoning.effort")
        if reasoning.effort is ReasoningEffort.NONE:
            return {"thinkingBudget": 0}
        # Also where the caller hides it: that is about chunks, and the result holds it all the same.
        config: dict[str, Any] = {"includeThoughts": True}
        if reasoning.budget_tokens is not None:
            config["thinkingBudget"] = reasoning.budget_tokens
        elif reasoning.effort is not None and re.search(r"gemini-[12]\b", self._model):
            config["thinkingBudget"] = THINKING_BUDGETS[reasoning.effort]
        elif reasoning.effort is not None:
            config["thinkingLevel"] = reasoning.effort.value.upper()
        return config

    # ------------------------------------------------------------ provider_options

    def _merge_options(self, options: Mapping[str, Any], into: dict[str, Any], inside: str, at: str) -> None:
        for key, value in options.items():
            name = _camel(key)
            if name in MODELLED[inside]:
                self._refuse(f"{at}.{key}", "is set by a field of the request, or cannot be asked for")
            elif f"{inside}{name}." in MODELLED:
                if isinstance(value, dict):
                    self._merge_options(value, into.setdefault(name, {}), f"{inside}{name}.", f"{at}.{key}")
                else:
                    self._refuse(f"{at}.{key}", "must be an object")
            elif inside == "" and name == "tools":
                self._add_tools(value, f"{at}.{key}")
            else:
                into[name] = value

    def _add_tools(self, tools: Any, at: str) -> None:
        """Google's own tools, such as googleSearch, beside the functions."""
        if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
            self._refuse(at, "must be a list of objects")
            return
        for n, tool in enumerate(tools):
            if any(_camel(key) == "functionDeclarations" for key in tool):
                self._refuse(f"{at}[{n}].functionDeclarations", "functions are set by the field tools of the request")
        self.body["tools"] = [*self.body.get("tools", ()), *tools]


def _only_results(message: ChatMessage) -> bool:
    return message.role is MessageRole.TOOL or all(isinstance(part, ToolResultPart) for part in message.content)


def _id(call_id: str) -> dict[str, str]:
    return {"id": call_id} if call_id and not call_id.startswith(MADE_ID) else {}


def _signature(signature: str) -> dict[str, str]:
    return {"thoughtSignature": signature} if signature else {}


def _camel(key: str) -> str:
    """Google takes field names in either form."""
    return re.sub(r"(?<=[a-z0-9])_([a-z])", lambda match: match[1].upper(), key)
