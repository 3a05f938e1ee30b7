"""The Responses API of the dialect openai: of OpenAI, and of the servers that speak it.

Follows https://platform.openai.com/docs/api-reference/responses. From a GenerateRequest to the body of POST /responses:

- System messages before the first turn become `instructions`, if they are text; any other stays where it stands, with the role system.
- Each turn becomes items: messages, calls and results of functions, reasoning. Where a message of the model has the id that came with
  it, it goes back as the item that it was: reasoning with an id is refused without the item that followed it.
- Asked for an effort of reasoning, the request also asks for a summary of it, unless it is to be hidden, and for its encrypted content
  (`include`), and nothing is stored (`store: false`): so the next turn needs nothing of the server. provider_options may say otherwise.
- A result of a tool has no flag for errors: `Error: ` before its text tells the model.
- A `provider_data` part with a type is content of a message where the type says so (`input_file`, `output_text`, …), else an item of its
  own: what the decoder gave out, `custom_tool_call_output`, `mcp_approval_response`, `item_reference`, …
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from headrace_server.domain.errors import Fault, Violation
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
from headrace_server.domain.provider import Provider
from headrace_server.domain.request import (
    GenerateRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    ReasoningConfig,
    ReasoningEffort,
    ResponseFormat,
    Tool,
    ToolChoice,
)
from headrace_server.providers import openai_errors
from headrace_server.providers.dialect import HttpFailure, HttpRequest
from headrace_server.providers.history import CALL_ID, FOREIGN, INEXPRESSIBLE, OWN_REASONING
from headrace_server.providers.json_values import Json
from headrace_server.providers.openai_responses_decoder import RAW, ResponsesDecoder, about_call

_ENCRYPTED = "reasoning.encrypted_content"

_MODELLED = {
    "model": "model",
    "input": "messages",
    "instructions": "messages",
    "max_output_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "parallel_tool_calls": "parallel_tool_calls",
    "stream": "the choice between Generate and StreamGenerate",
}
"""Fields of the body that provider_options may not set, each with what sets it."""

_OF_A_TEXT = frozenset(("annotations", "logprobs"))
_OF_A_MESSAGE = frozenset(("id", "phase", "status"))


class OpenAIResponses:
    """The Responses API. `api_url` is what OpenAI's own SDK calls its base URL; a query in it is kept, as Azure's older addresses need."""

    default_api_url = "https://api.openai.com/v1"
    limit_headers = openai_errors.LIMIT_HEADERS

    def check(self, request: GenerateRequest, provider: Provider) -> Sequence[Violation]:
        """What of the request the API has no words for."""
        return _Encoder(request, "", stream=request.stream).violations

    def encode(self, request: GenerateRequest, provider: Provider, model: str, *, stream: bool) -> HttpRequest:
        """The request as a POST to /responses. The same request always gives the same bytes."""
        url = urlsplit(provider.api_url)
        headers = {"content-type": "application/json", "accept": "text/event-stream" if stream else "application/json"}
        if provider.api_key is not None:
            key = provider.api_key.get_secret_value()
            is_azure = (url.hostname or "").endswith(".azure.com")
            headers |= {"api-key": key} if is_azure else {"authorization": f"Bearer {key}"}
        body = msgspec.json.encode(_Encoder(request, model, stream=stream).body)
        return HttpRequest(urlunsplit(url._replace(path=url.path.rstrip("/") + "/responses")), headers, body)

    def decoder(self, provider: Provider) -> ResponsesDecoder:
        """A decoder for one answer."""
        return ResponsesDecoder()

    def classify(self, failure: HttpFailure) -> Fault:
        """By the table of errors that this API shares with Chat Completions."""
        return openai_errors.classify(failure)


class _Encoder:
    """Encodes one request when it is made: `body`, of use only where `violations` is empty."""

    def __init__(self, request: GenerateRequest, model: str, *, stream: bool) -> None:
        self.violations: list[Violation] = []
        self.body: Json = {"model": model, **self._input(request.messages), **self._settings(request)}
        if stream:
            self.body["stream"] = True
        self._options(request)
        if "tools" not in self.body:  # without tools they mean nothing, and are refused
            self.body.pop("tool_choice", None)
            self.body.pop("parallel_tool_calls", None)

    def _wrong(self, field: str, description: str) -> None:
        self.violations.append(Violation(field=field, description=description))

    # ---------------------------------------------------------------- settings

    def _settings(self, request: GenerateRequest) -> Json:
        unknown = {"top_k": request.top_k, "seed": request.seed, "stop_sequences": request.stop_sequences or None}
        for name, value in unknown.items():
            if value is not None:
                self._wrong(name, f"{INEXPRESSIBLE}; a server that knows more takes it in provider_options")
        if request.reasoning and request.reasoning.budget_tokens is not None:
            self._wrong("reasoning.budget_tokens", f"{INEXPRESSIBLE}: reasoning.effort can")
        settings = {
            "max_output_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "tools": [_tool(tool) for tool in request.tools] or None,
            "tool_choice": _tool_choice(request.tool_choice) if request.tool_choice else None,
            "parallel_tool_calls": request.parallel_tool_calls,
            "text": {"format": _format(request.response_format)} if request.response_format else None,
        }
        return {name: value for name, value in settings.items() if value is not None} | _reasoning(request.reasoning)

    def _options(self, request: GenerateRequest) -> None:
        """Lay provider_options over the body: what the API does not model, and its rarer values of what it does."""
        options: Json = request.provider_options
        for name, value in options.items():
            at, mine = f"provider_options.{name}", self.body.get(name)
            if name in _MODELLED:
                self._wrong(at, f"is set by {_MODELLED[name]}")
            elif name == "background" and value:
                self._wrong(at, "an answer is read where it was asked for")
            elif name == "tool_choice" and (mine is not None or not _is_hosted(value)):
                self._wrong(at, "is set by tool_choice; here may stand a choice among tools of the provider's own")
            elif name == "tools" and not (isinstance(value, list) and all(map(_is_hosted, value))):
                self._wrong(at, "functions are set by tools; here may stand tools of the provider's own")
            elif name in ("text", "reasoning") and not isinstance(value, dict):
                self._wrong(at, "must be an object")
            elif name == "text" and "format" in value:
                self._wrong(f"{at}.format", "is set by response_format")
            elif name == "reasoning" and "effort" in value and ("effort" in (mine or {}) or value["effort"] in list(ReasoningEffort)):
                self._wrong(f"{at}.effort", "is set by reasoning.effort")
            elif isinstance(mine, dict) and isinstance(value, dict):
                self.body[name] = mine | value
            elif isinstance(mine, list) and isinstance(value, list):
                self.body[name] = mine + [item for item in value if item not in mine]
            else:
                self.body[name] = value

    # ---------------------------------------------------------------- input

    def _input(self, messages: Sequence[ChatMessage]) -> Json:
        first = next((i for i, message in enumerate(messages) if not _is_instruction(message)), 0)
        instructions = [part.text for message in messages[:first] for part in message.content if isinstance(part, TextPart)]
        items: list[Json] = []
        for i, message in enumerate(messages[first:], first):
            items += _Turn(message, f"messages[{i}].content", self.violations).items
        return ({"instructions": "\n\n".join(instructions)} if instructions else {}) | {"input": items}


class _Turn:
    """The items of one message: parts are collected into a message until one comes that is an item of its own."""

    def __init__(self, message: ChatMessage, at: str, violations: list[Violation]) -> None:
        self.items: list[Json] = []
        self._role = message.role
        self._content: list[Json] = []
        self._violations = violations
        self._reasoning: dict[str, Json] = {}  # items by their ids
        for j, part in enumerate(message.content):
            self._add(part, f"{at}[{j}]")
        self._end_message({})

    def _wrong(self, field: str, description: str) -> None:
        self._violations.append(Violation(field=field, description=description))

    def _add(self, part: ContentPart, at: str) -> None:
        match part:
            case TextPart():
                self._content.append(self._text(part.text))
            case RefusalPart():
                self._content.append({"type": "refusal", "refusal": part.refusal})
            case ImagePart():
                self._content.append(self._image(part, at))
            case ToolCallPart():
                self._add_item(self._call(part, at))
            case ToolResultPart():
                self._add_item(self._result(part, at))
            case ReasoningPart():
                self._add_reasoning(part, at)
            case ProviderDataPart():
                self._add_provider_data(part.provider_data, at)

    def _add_item(self, item: Json) -> None:
        self._end_message({})
        self.items.append(item)

    def _end_message(self, about: Json) -> None:
        """What was collected is a message. With what the provider said about it, it is the item that it was."""
        content, self._content = self._content, []
        if not content:
            return
        if about:
            item: Json = {"type": "message", "role": "assistant", "status": "completed", **about, "content": content}
        else:
            is_plain = len(content) == 1 and content[0].keys() <= {"type", "text", "annotations"} and not content[0].get("annotations")
            item = {"role": self._role, "content": content[0]["text"] if is_plain else content}
        self.items.append(item)

    def _text(self, text: str) -> Json:
        if self._role is MessageRole.ASSISTANT:
            return {"type": "output_text", "text": text, "annotations": []}
        return {"type": "input_text", "text": text}

    def _image(self, image: ImagePart, at: str) -> Json:
        if image.media_type and not image.media_type.startswith("image/"):
            self._wrong(f"{at}.image.media_type", f"{INEXPRESSIBLE}: it takes pictures only")
        if image.uri is None:
            url = f"data:{image.media_type};base64,{msgspec.json.encode(image.data)[1:-1].decode()}"
        else:
            url = image.uri
            if not url.lower().startswith(("https://", "http://", "data:")):
                self._wrong(f"{at}.image.uri", "must be an https, http or data address")
        return {"type": "input_image", "image_url": url}

    def _call(self, call: ToolCallPart, at: str) -> Json:
        if not call.id:
            self._wrong(f"{at}.tool_call.id", CALL_ID)
        about = about_call(call.signature)
        if call.signature and not about:
            self._wrong(f"{at}.tool_call.signature", FOREIGN)
        return {"type": "function_call", **about, "call_id": call.id, "name": call.name, "arguments": call.arguments_json or "{}"}

    def _result(self, result: ToolResultPart, at: str) -> Json:
        output: list[Json] = []
        for k, part in enumerate(result.content):
            here = f"{at}.tool_result.content[{k}]"
            match part:
                case TextPart():
                    output.append({"type": "input_text", "text": part.text})
                case ImagePart():
                    output.append(self._image(part, here))
                case ProviderDataPart():
                    if not _is_content(part.provider_data):
                        self._wrong(f"{here}.provider_data", f"{INEXPRESSIBLE}: its type must be input_text, input_file, …")
                    output.append(part.provider_data)
        if result.is_error:
            output = [{"type": "input_text", "text": "Error: "}, *output]
        is_plain = len(result.content) <= 1 and all(part["type"] == "input_text" and part.keys() == {"type", "text"} for part in output)
        said: Any = "".join(part["text"] for part in output) if is_plain else output
        return {"type": "function_call_output", "call_id": result.tool_call_id, "output": said}

    def _add_reasoning(self, part: ReasoningPart, at: str) -> None:
        """Parts of one id are one item, which stands where the first of them stood."""
        if part.signature not in ("", RAW):
            self._wrong(f"{at}.reasoning.signature", FOREIGN)
        if not part.id and part.signature != RAW:
            self._wrong(f"{at}.reasoning.id", OWN_REASONING)
        item = self._reasoning.get(part.id) if part.id else None
        if item is None:
            item = self._reasoning[part.id] = {"type": "reasoning", **({"id": part.id} if part.id else {}), "summary": []}
            self._add_item(item)
        if part.text and part.signature == RAW:
            item.setdefault("content", []).append({"type": "reasoning_text", "text": part.text})
        elif part.text:
            item["summary"].append({"type": "summary_text", "text": part.text})
        if part.redacted_data:
            item["encrypted_content"] = part.redacted_data

    def _add_provider_data(self, data: Json, at: str) -> None:
        content = self._content
        if _is_content(data):
            if self._role is MessageRole.TOOL:
                self._wrong(f"{at}.provider_data", f"{INEXPRESSIBLE}: it takes such a part only inside a tool_result")
            content.append(data)
        elif isinstance(data.get("type"), str):
            self._add_item(data)
        elif content and data.keys() <= _OF_A_TEXT:
            content[-1] |= {name: value for name, value in data.items() if name != "logprobs"}  # of no use to the model
        elif data.keys() & _OF_A_MESSAGE and self._role is MessageRole.ASSISTANT:
            self._end_message(data)
        else:
            self._wrong(f"{at}.provider_data", f"{INEXPRESSIBLE}: an item or a part of a message must have a type")


def _is_instruction(message: ChatMessage) -> bool:
    return message.role is MessageRole.SYSTEM and all(isinstance(part, TextPart) for part in message.content)


def _is_content(data: Json) -> bool:
    kind = data.get("type")
    return isinstance(kind, str) and (kind.startswith(("input_", "output_")) or kind == "refusal")


def _is_hosted(tool: Any) -> bool:
    return isinstance(tool, dict) and tool.get("type") not in (None, "function")


def _tool(tool: Tool) -> Json:
    encoded: Json = {"type": "function", "name": tool.name}
    if tool.description:
        encoded["description"] = tool.description
    encoded["parameters"] = msgspec.Raw(tool.parameters_json.encode())
    if tool.strict is not None:
        encoded["strict"] = tool.strict
    return encoded


def _tool_choice(choice: ToolChoice) -> str | Json:
    return choice.mode or {"type": "function", "name": choice.name}


def _format(format: ResponseFormat) -> Json:
    if isinstance(format, JsonSchemaFormat):
        strict = {} if format.strict is None else {"strict": format.strict}
        return {"type": "json_schema", "name": format.name, "schema": msgspec.Raw(format.schema_text.encode()), **strict}
    return {"type": "json_object" if isinstance(format, JsonObjectFormat) else "text"}


def _reasoning(reasoning: ReasoningConfig | None) -> Json:
    if reasoning is None or reasoning.effort is None:
        return {}
    if reasoning.effort is ReasoningEffort.NONE:
        return {"reasoning": {"effort": reasoning.effort}}
    summary = {} if reasoning.hide else {"summary": "auto"}
    return {"reasoning": {"effort": reasoning.effort, **summary}, "store": False, "include": [_ENCRYPTED]}
