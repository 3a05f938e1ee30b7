"""The dialect openai: the Chat Completions API of OpenAI, and of the many servers that speak it.

https://platform.openai.com/docs/api-reference/chat. Servers differ in what they take; a table by host says how, and a host that is
not in it (Ollama, llama.cpp, vLLM, …) is taken to be as liberal as they are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
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
    ReasoningEffort,
    ResponseFormat,
    Tool,
    ToolChoice,
)
from headrace_server.providers import openai_errors
from headrace_server.providers.dialect import Decoder, HttpFailure, HttpRequest
from headrace_server.providers.history import CALL_ID, FOREIGN, INEXPRESSIBLE, is_openai_made
from headrace_server.providers.json_values import UNREADABLE
from headrace_server.providers.openai_decoder import FUNCTION_ID, ChatDecoder

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Vendor:
    """How a vendor's form of the API differs from the others'."""

    max_tokens: str = "max_tokens"
    """Name of the field; OpenAI has renamed it, and its newer models refuse the old name."""
    top_k: bool = True
    """Whether `top_k` is sent. OpenAI has none; most open servers take it."""
    stream_options: bool = True
    """Whether a stream must be asked for its usage. Mistral sends it unasked and refuses the question."""
    reasoning: tuple[str, ...] = ("reasoning_details", "reasoning_content", "reasoning")
    """The fields in which reasoning of earlier turns goes back; none: it cannot. Details go alone, where there are any."""
    key_header: str = "authorization"


_OPENAI = _Vendor(max_tokens="max_completion_tokens", top_k=False, reasoning=())
_LIBERAL = _Vendor()
_VENDORS = {
    "api.openai.com": _OPENAI,
    "openai.azure.com": _Vendor(max_tokens="max_completion_tokens", top_k=False, reasoning=(), key_header="api-key"),
    "azure.com": _Vendor(key_header="api-key"),
    "openrouter.ai": _Vendor(reasoning=("reasoning_details",)),
    "api.deepseek.com": _Vendor(reasoning=("reasoning_content",)),
    "api.z.ai": _Vendor(reasoning=("reasoning_content",)),
    "api.moonshot.ai": _Vendor(reasoning=("reasoning_content",)),
    "api.groq.com": _Vendor(reasoning=("reasoning",)),
    "api.cerebras.ai": _Vendor(reasoning=("reasoning",)),
    "api.mistral.ai": _Vendor(stream_options=False, reasoning=("thinking",)),
}
"""By the host of api_url or a domain above it; the first that fits."""

_MODELLED = {
    "model": "model",
    "messages": "messages",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "seed": "seed",
    "stop": "stop_sequences",
    "tool_choice": "tool_choice",
    "parallel_tool_calls": "parallel_tool_calls",
    "response_format": "response_format",
}
"""Fields of the body that provider_options may not set, and the fields of the request that do."""

_OUTPUT_ONLY = frozenset(
    ("annotations", "citations", "search_results", "related_questions", "moderation", "images", "executed_tools", "logprobs", "tool_call")
)
"""What an answer may hold beside its message, and no message of a request takes. It has been delivered, and stays out of the next turn."""


class OpenAIChat:
    """Chat Completions. `api_url` is what OpenAI's own SDK calls its base URL; a query in it is kept, as Azure's older addresses need."""

    default_api_url = "https://api.openai.com/v1"
    limit_headers = openai_errors.LIMIT_HEADERS

    def check(self, request: GenerateRequest, provider: Provider) -> Sequence[Violation]:
        """What of the request the provider's form of the API has no words for."""
        encoder = _Encoder(_vendor(provider.api_url))
        encoder.body(request, "", stream=request.stream)
        return encoder.wrong

    def encode(self, request: GenerateRequest, provider: Provider, model: str, *, stream: bool) -> HttpRequest:
        """The same request always gives the same bytes."""
        vendor = _vendor(provider.api_url)
        headers = {"content-type": "application/json", "accept": "text/event-stream" if stream else "application/json"}
        if provider.api_key is not None:
            key = provider.api_key.get_secret_value()
            headers[vendor.key_header] = f"Bearer {key}" if vendor.key_header == "authorization" else key
        body = _Encoder(vendor).body(request, model, stream=stream)
        return HttpRequest(url=_url(provider.api_url), headers=headers, body=msgspec.json.encode(body))

    def decoder(self, provider: Provider) -> Decoder:
        """All vendors' accents are understood, whoever the provider is."""
        return ChatDecoder()

    def classify(self, failure: HttpFailure) -> Fault:
        """By the table of errors that this dialect shares with the Responses API."""
        return openai_errors.classify(failure)


@lru_cache(maxsize=1024)
def _url(api_url: str) -> str:
    parts = urlsplit(api_url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + "/chat/completions"))


@lru_cache(maxsize=1024)
def _vendor(api_url: str) -> _Vendor:
    host = urlsplit(api_url).hostname or ""
    return next((vendor for name, vendor in _VENDORS.items() if host == name or host.endswith("." + name)), _LIBERAL)


class _Encoder:
    """Writes one body and notes in `wrong` what cannot be said in it: one walk serves the check and the request."""

    def __init__(self, vendor: _Vendor) -> None:
        self._vendor = vendor
        self._functions: dict[str, str] = {}  # names of calls that went out in OpenAI's first form, by the ids made for them
        self.wrong: list[Violation] = []

    def _refuse(self, field: str, description: str) -> None:
        self.wrong.append(Violation(field=field, description=description))

    def body(self, request: GenerateRequest, model: str, *, stream: bool) -> Body:
        """The whole body, in a fixed order."""
        body: Body = {"model": model, "messages": self._messages(request.messages)}
        settings = {
            self._vendor.max_tokens: request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "seed": request.seed,
            "stop": list(request.stop_sequences) or None,
            "tools": [_tool(tool) for tool in request.tools] or None,
            "tool_choice": _tool_choice(request.tool_choice) if request.tool_choice else None,
            "parallel_tool_calls": request.parallel_tool_calls,
            "response_format": _response_format(request.response_format) if request.response_format else None,
            "reasoning_effort": request.reasoning.effort if request.reasoning else None,
        }
        body |= {name: value for name, value in settings.items() if value is not None}
        if request.top_k is not None and not self._vendor.top_k:
            self._refuse("top_k", INEXPRESSIBLE)
        if request.reasoning and request.reasoning.budget_tokens is not None:
            self._refuse("reasoning.budget_tokens", f"{INEXPRESSIBLE}: reasoning.effort can")
        if stream:
            body["stream"] = True
            if self._vendor.stream_options:
                body["stream_options"] = {"include_usage": True}
        self._options(request, body)
        if "tools" not in body:  # OpenAI refuses them then, and they mean nothing
            body.pop("tool_choice", None)
            body.pop("parallel_tool_calls", None)
        return body

    # ---------------------------------------------------------------- messages

    def _messages(self, messages: Sequence[ChatMessage]) -> list[Body]:
        encoded: list[Body] = []
        for i, message in enumerate(messages):
            parts = [(f"messages[{i}].content[{j}]", part) for j, part in enumerate(message.content)]
            if message.role == MessageRole.ASSISTANT:
                encoded.append(self._assistant(parts))
                continue
            # Results are messages of their own here; what stands between them stays between them.
            for is_result, group in groupby(parts, lambda at_part: isinstance(at_part[1], ToolResultPart)):
                if is_result:
                    encoded += [self._tool_result(at, part) for at, part in group if isinstance(part, ToolResultPart)]
                elif message.role == MessageRole.TOOL:
                    for at, _ in group:
                        self._refuse(f"{at}.provider_data", f"{INEXPRESSIBLE}: it takes such a part only inside a tool_result")
                else:
                    encoded.append({"role": message.role, "content": self._content(group)})
        return encoded

    def _content(self, parts: Iterable[tuple[str, ContentPart]]) -> str | list[Body]:
        """A single text goes as a string, which every server takes; anything else as a list."""
        content: list[Body] = []
        for at, part in parts:
            if isinstance(part, TextPart):
                content.append({"type": "text", "text": part.text})
            elif isinstance(part, ImagePart):
                content.append({"type": "image_url", "image_url": {"url": self._image(at, part)}})
            elif isinstance(part, ProviderDataPart):
                if not isinstance(part.provider_data.get("type"), str):
                    self._refuse(f"{at}.provider_data", f"{INEXPRESSIBLE}: a part of a message must have a type")
                content.append(part.provider_data)
        if not content:
            return ""
        return content[0]["text"] if len(content) == 1 and content[0].keys() == {"type", "text"} else content

    def _image(self, at: str, image: ImagePart) -> str:
        if image.media_type and not image.media_type.startswith("image/"):
            self._refuse(f"{at}.image.media_type", f"{INEXPRESSIBLE}: it takes pictures only")
        if image.uri is None:
            return f"data:{image.media_type};base64,{msgspec.json.encode(image.data)[1:-1].decode()}"
        if not image.uri.lower().startswith(("https://", "http://", "data:")):
            self._refuse(f"{at}.image.uri", "must be an https, http or data address")
        return image.uri

    def _tool_result(self, at: str, result: ToolResultPart) -> Body:
        for k, part in enumerate(result.content):
            if isinstance(part, ImagePart):
                self._refuse(f"{at}.tool_result.content[{k}].image", f"{INEXPRESSIBLE}: it takes no pictures in results of tools")
        content = self._content((f"{at}.tool_result.content[{k}]", part) for k, part in enumerate(result.content))
        if result.is_error:
            # The API has no flag for it: the model is told in words.
            content = f"Error: {content}" if isinstance(content, str) else [{"type": "text", "text": "Error:"}, *content]
        if result.tool_call_id in self._functions:
            return {"role": "function", "name": self._functions[result.tool_call_id], "content": content}
        return {"role": "tool", "tool_call_id": result.tool_call_id, "content": content}

    def _assistant(self, parts: Sequence[tuple[str, ContentPart]]) -> Body:
        message: Body = {"role": MessageRole.ASSISTANT}
        said = [(at, p) for at, p in parts if isinstance(p, TextPart) or (isinstance(p, ProviderDataPart) and "type" in p.provider_data)]
        content = self._content(said) or None
        calls = [part for _, part in parts if isinstance(part, ToolCallPart)]
        refusals = [part.refusal for _, part in parts if isinstance(part, RefusalPart)]
        message["content"] = content if content or calls or refusals else ""
        if refusals:
            message["refusal"] = "".join(refusals)
        self._reasoning([(at, part) for at, part in parts if isinstance(part, ReasoningPart)], message)
        if len(calls) == 1 and calls[0].id.startswith(FUNCTION_ID):
            self._functions[calls[0].id] = calls[0].name
            message["function_call"] = {"name": calls[0].name, "arguments": calls[0].arguments_json}
        elif calls:
            message["tool_calls"] = [self._tool_call(at, part) for at, part in parts if isinstance(part, ToolCallPart)]
        for at, part in parts:
            if isinstance(part, ProviderDataPart) and "type" not in part.provider_data:
                self._message_data(at, part.provider_data, message)
        return message

    def _tool_call(self, at: str, call: ToolCallPart) -> Body:
        if not call.id:
            self._refuse(f"{at}.tool_call.id", CALL_ID)
        function = {"name": call.name, "arguments": call.arguments_json or "{}"}
        encoded: Body = {"id": call.id, "type": "function", "function": function}
        if call.signature:
            extra = _detail(call.signature)
            if extra is None or not self._vendor.reasoning:
                self._refuse(f"{at}.tool_call.signature", FOREIGN)
            encoded["extra_content"] = extra
        return encoded

    def _message_data(self, at: str, data: Body, message: Body) -> None:
        """Fields of an answer's message, as the decoder passes them on."""
        for name, value in data.items():
            if name == "extra_content":
                message[name] = value
            elif name == "audio":  # comes in pieces; its id alone is asked for
                if isinstance(value, dict) and "id" in value:
                    message[name] = {"id": value["id"]}
            elif name not in _OUTPUT_ONLY:
                self._refuse(f"{at}.provider_data", f"{INEXPRESSIBLE}: it knows no `{name}` in a message")

    def _reasoning(self, parts: Sequence[tuple[str, ReasoningPart]], message: Body) -> None:
        """Reasoning goes back in the form in which the vendor sends it, with the details that the decoder kept as JSON."""
        if not parts:
            return
        fields = self._vendor.reasoning
        if not fields:
            for at, _ in parts:
                self._refuse(f"{at}.reasoning", f"{INEXPRESSIBLE}: it takes no reasoning back")
            return
        for at, part in parts:
            for name, opaque in (("signature", part.signature), ("redacted_data", part.redacted_data), ("id", part.id)):
                if opaque and not ("reasoning_details" in fields and _detail(opaque)):
                    self._refuse(f"{at}.reasoning.{name}", FOREIGN)
        text = "".join(part.text for _, part in parts)
        if fields == ("reasoning_details",) or any(part.signature or part.redacted_data for _, part in parts):
            message["reasoning_details"] = [_reasoning_detail(part) for _, part in parts]
        elif fields == ("thinking",):
            said = message["content"]
            pieces = said if isinstance(said, list) else [{"type": "text", "text": said}] if said else []
            message["content"] = [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}, *pieces]
        else:
            message |= {field: text for field in fields if field != "reasoning_details"}

    # ---------------------------------------------------------------- options

    def _options(self, request: GenerateRequest, body: Body) -> None:
        """Lay provider_options over the body: what the API does not model, and its rarer values of what it does."""
        options: Body = request.provider_options
        for name, value in options.items():
            at = f"provider_options.{name}"
            if name in _MODELLED or (name in ("max_tokens", "max_completion_tokens") and not self._may_rename(name, request)):
                self._refuse(at, f"is set by {_MODELLED.get(name, 'max_tokens')}")
            elif name == "stream":
                self._refuse(at, "is set by the choice between Generate and StreamGenerate")
            elif name == "n" and value != 1:
                self._refuse(at, "a generation has one choice")
            elif name == "stream_options" and (not isinstance(value, dict) or "include_usage" in value):
                self._refuse(at, "must be an object; include_usage is always set")
            elif name == "reasoning_effort" and (value in list(ReasoningEffort) or "reasoning_effort" in body):
                self._refuse(at, "is set by reasoning.effort")
            elif name == "tools" and not _hosted(value):
                self._refuse(at, "functions are set by tools; here may stand tools of the provider's own")
            elif name == "tools":
                body[name] = [*body.get(name, []), *value]
            elif name == "stream_options":
                body[name] = {**value, **body.get(name, {})}
            else:
                body[name] = value

    def _may_rename(self, name: str, request: GenerateRequest) -> bool:
        """A server may want the other of the two names of max_tokens; then that one may be set here."""
        return name != self._vendor.max_tokens and request.max_tokens is None


def _reasoning_detail(part: ReasoningPart) -> Body:
    if encrypted := _detail(part.redacted_data):
        return encrypted
    detail = _detail(part.signature) or {"type": "reasoning.text"}
    return {**detail, "summary" if detail.get("type") == "reasoning.summary" else "text": part.text}


def _detail(opaque: str) -> Body | None:
    """The JSON object that the decoder put into a signature or into encrypted data; None for those of another dialect."""
    if not is_openai_made(opaque):
        return None
    try:
        value = msgspec.json.decode(opaque)
    except UNREADABLE:
        return None
    return value if isinstance(value, dict) else None


def _tool(tool: Tool) -> Body:
    function: Body = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = msgspec.Raw(tool.parameters_json.encode())
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice) -> str | Body:
    return choice.mode or {"type": "function", "function": {"name": choice.name}}


def _response_format(format: ResponseFormat) -> Body:
    if isinstance(format, JsonSchemaFormat):
        schema: Body = {"name": format.name, "schema": msgspec.Raw(format.schema_text.encode())}
        if format.strict is not None:
            schema["strict"] = format.strict
        return {"type": "json_schema", "json_schema": schema}
    return {"type": "json_object" if isinstance(format, JsonObjectFormat) else "text"}


def _hosted(tools: Any) -> bool:
    return isinstance(tools, list) and all(isinstance(tool, dict) and tool.get("type") not in (None, "function") for tool in tools)
