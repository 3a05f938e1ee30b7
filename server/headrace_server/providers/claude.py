"""The dialect claude: Anthropic's Messages API, and every server that speaks it.

Follows https://platform.claude.com/docs/en/api/messages. What this API does not model travels as `provider_data`, in three forms, each of
which is understood again when a caller sends it back:

- a content block of a type of its own (`server_tool_use`, `web_search_tool_result`, …), joined from its deltas, whole;
- `citations` of a text or the `caller` of a tool call: fields of the block before it, without a `type`;
- `container`, `stop_sequence`, `stop_details`, `context_management`: what the answer says about itself. Of these the container
  goes back, as the request's `container`; the others are not for the model.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import msgspec

from headrace_server.domain.answer import Answer
from headrace_server.domain.errors import Fault, ProviderFault, Violation
from headrace_server.domain.events import Delta, ProviderDataDelta, ReasoningDelta, TextDelta, ToolCallDelta
from headrace_server.domain.provider import Provider
from headrace_server.domain.request import GenerateRequest
from headrace_server.domain.result import FinishReason
from headrace_server.domain.usage import Usage, UsageSource, clamp
from headrace_server.providers.claude_errors import LIMIT_HEADERS, classify_error
from headrace_server.providers.claude_request import Encoder
from headrace_server.providers.dialect import HttpFailure, HttpRequest
from headrace_server.providers.faults import ended_badly, malformed, truncated
from headrace_server.providers.history import made_id
from headrace_server.providers.json_values import UNREADABLE

API_VERSION = "2023-06-01"


class Claude:
    """The dialect claude."""

    default_api_url = "https://api.anthropic.com"
    limit_headers = LIMIT_HEADERS

    def check(self, request: GenerateRequest, provider: Provider) -> Sequence[Violation]:
        """What of the request the Messages API cannot express."""
        return Encoder(request, provider, request.model or provider.default_model).violations

    def encode(self, request: GenerateRequest, provider: Provider, model: str, *, stream: bool) -> HttpRequest:
        """The request as a POST to /v1/messages."""
        encoder = Encoder(request, provider, model)
        headers = {"content-type": "application/json", "anthropic-version": API_VERSION}
        if provider.api_key is not None:
            headers["x-api-key"] = provider.api_key.get_secret_value()
        if encoder.betas:
            headers["anthropic-beta"] = ",".join(encoder.betas)
        body = msgspec.json.encode(encoder.body | {"stream": stream})
        return HttpRequest(provider.api_url.rstrip("/") + "/v1/messages", headers, body)

    def decoder(self, provider: Provider) -> "ClaudeDecoder":
        """A decoder for one answer."""
        return ClaudeDecoder()

    def classify(self, failure: HttpFailure) -> Fault:
        """What an error answer means."""
        return classify_error(failure)


# ---------------------------------------------------------------- answers

FINISH = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "tool_use": FinishReason.TOOL_CALLS,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    # Not done: the answer goes on when it is sent back.
    "pause_turn": FinishReason.LENGTH,
    "compaction": FinishReason.LENGTH,
    "refusal": FinishReason.CONTENT_FILTER,
}
"""What a stop_reason means; any other is an error."""


class _Delta(msgspec.Struct):
    """The `delta` of a content_block_delta or of a message_delta."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    citation: Any = None
    stop_reason: str | None = None
    stop_sequence: Any = None
    stop_details: Any = None
    container: Any = None


class _Message(msgspec.Struct):
    """A whole answer, or the beginning of a streamed one."""

    type: str = ""
    model: str | None = None
    content: list[msgspec.Raw] | None = None
    usage: Any = None
    stop_reason: str | None = None
    stop_sequence: Any = None
    stop_details: Any = None
    container: Any = None
    context_management: Any = None
    error: Any = None


class _Event(msgspec.Struct):
    """An event of any type. One flat struct decodes faster than a union, and lets unknown types pass."""

    type: str = ""
    index: int = 0
    delta: _Delta | None = None
    content_block: msgspec.Raw = msgspec.Raw()
    message: _Message | None = None
    usage: Any = None
    context_management: Any = None


class _Text(msgspec.Struct):
    text: str | None = None
    citations: list[Any] | None = None

    def begin(self, position: int) -> list[Delta]:
        return [TextDelta(self.text)] if self.text else []

    def grow(self, delta: _Delta, data: bytes) -> Delta | None:
        if delta.type == "citations_delta":
            self.citations = self.citations or []
            self.citations.append(delta.citation)
        return TextDelta(delta.text) if delta.text else None

    def end(self) -> list[Delta]:
        # After the text, so that the text stays in one piece.
        return [ProviderDataDelta({"citations": self.citations})] if self.citations else []


class _Thinking(msgspec.Struct):
    thinking: str | None = None
    signature: str | None = None

    def begin(self, position: int) -> list[Delta]:
        whole = ReasoningDelta(text=self.thinking or "", signature=self.signature or "")
        return [whole] if whole.text or whole.signature else []

    def grow(self, delta: _Delta, data: bytes) -> Delta | None:
        if delta.thinking:
            return ReasoningDelta(text=delta.thinking)
        return ReasoningDelta(signature=delta.signature) if delta.signature else None

    def end(self) -> list[Delta]:
        return []


class _RedactedThinking(msgspec.Struct):
    data: str

    def begin(self, position: int) -> list[Delta]:
        return [ReasoningDelta(redacted_data=self.data)]

    def grow(self, delta: _Delta, data: bytes) -> Delta | None:
        return None

    def end(self) -> list[Delta]:
        return []


class _ToolUse(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(min_length=1)]
    id: str | None = None
    input: msgspec.Raw = msgspec.Raw()
    caller: dict[str, Any] | None = None
    position: int = 0
    is_streamed: bool = False

    def begin(self, position: int) -> list[Delta]:
        self.position = position
        self.is_streamed = False
        return [ToolCallDelta(position=position, id=self.id or made_id(), name=self.name)]

    def grow(self, delta: _Delta, data: bytes) -> Delta | None:
        if not delta.partial_json:
            return None
        self.is_streamed = True
        return ToolCallDelta(position=self.position, arguments_delta=delta.partial_json)

    def end(self) -> list[Delta]:
        deltas: list[Delta] = []
        if not self.is_streamed:  # a whole answer, or a call without arguments, whose deltas are empty
            whole = bytes(self.input).decode()
            deltas.append(ToolCallDelta(position=self.position, arguments_delta="{}" if whole in ("", "null") else whole))
        if self.caller and self.caller != {"type": "direct"}:
            deltas.append(ProviderDataDelta({"caller": self.caller}))
        return deltas


class _Foreign:
    """A block that the API does not model: passed on whole, with its deltas laid over it."""

    def __init__(self, block: dict[str, Any]) -> None:
        self.block = block
        self.input: list[str] = []
        self.texts: dict[str, list[str]] = {}
        """Pieces of texts, by field; joined at the end."""

    def begin(self, position: int) -> list[Delta]:
        return []

    def grow(self, delta: _Delta, data: bytes) -> Delta | None:
        if delta.partial_json is not None:
            self.input.append(delta.partial_json)
            return None
        for name, piece in msgspec.json.decode(data)["delta"].items():
            match self.block.get(name), piece:
                case str() as text, str() if name != "type":
                    self.texts.setdefault(name, [text]).append(piece)
                case list() as items, list():
                    items += piece
                case _ if name != "type":
                    self.block[name] = piece
                    self.texts.pop(name, None)
        return None

    def end(self) -> list[Delta]:
        self.block |= {name: "".join(pieces) for name, pieces in self.texts.items()}
        if text := "".join(self.input):
            try:
                self.block["input"] = msgspec.json.decode(text)
            except msgspec.DecodeError:  # cut short by max_tokens
                self.block["input"] = text
        return [ProviderDataDelta(self.block)]


_Block = _Text | _Thinking | _RedactedThinking | _ToolUse | _Foreign


class _Type(msgspec.Struct):
    type: str = ""


_EVENT = msgspec.json.Decoder(_Event)
_MESSAGE = msgspec.json.Decoder(_Message)
_TYPE = msgspec.json.Decoder(_Type)
_FOREIGN = msgspec.json.Decoder(dict[str, Any])
_BLOCKS: dict[str, msgspec.json.Decoder[Any]] = {
    "text": msgspec.json.Decoder(_Text),
    "thinking": msgspec.json.Decoder(_Thinking),
    "redacted_thinking": msgspec.json.Decoder(_RedactedThinking),
    "tool_use": msgspec.json.Decoder(_ToolUse),
}


def _block(data: msgspec.Raw) -> _Block:
    decoder = _BLOCKS.get(_TYPE.decode(data).type)
    if decoder is None:
        return _Foreign(_FOREIGN.decode(data))
    block: _Block = decoder.decode(data)
    return block


class ClaudeDecoder:
    """Reads one answer of the Messages API."""

    _EVENTS: ClassVar[frozenset[str]] = frozenset(
        {"message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop"}
    )

    def __init__(self) -> None:
        self.answer = Answer()
        self._blocks: dict[int, _Block] = {}
        self._calls = 0
        self._usage: dict[str, Any] = {}
        self._stopped = False

    def event(self, name: str, data: bytes) -> Sequence[Delta]:
        """One event. The type in its data counts, its name only where there is none."""
        if self._stopped:
            return ()
        try:
            event = _EVENT.decode(data)
            return self._read(event.type or name, event, data)
        except UNREADABLE as error:
            if _is_unknown(name, data, self._EVENTS):
                self.answer.unknown_events += 1
                return ()
            raise malformed(f"an event of the stream is not valid: {error}", data) from None

    def _read(self, kind: str, event: _Event, data: bytes) -> Sequence[Delta]:
        match kind:
            case "content_block_delta":
                block = self._blocks.get(event.index)
                if block is None or event.delta is None:
                    raise malformed("a piece of a block that has not begun", data)
                delta = block.grow(event.delta, data)
                if delta is None:
                    return ()
                self.answer.add(delta)
                return (delta,)
            case "content_block_start":
                block = self._blocks[event.index] = _block(event.content_block)
                return self._begin(block)
            case "content_block_stop":
                block = self._blocks.pop(event.index, None)
                return self._end(block) if block is not None else ()
            case "message_start" if event.message is not None:
                self.answer.model = event.message.model or ""
                self._count(event.message.usage)
            case "message_delta":
                self._count(event.usage)
                return self._conclude(event.delta or _Delta(), event.context_management)
            case "message_stop":
                self._stopped = True
            case "error":
                raise ProviderFault(classify_error(HttpFailure(200, {}, data)))
            case _ if kind not in self._EVENTS and kind != "ping":
                self.answer.unknown_events += 1
        return ()

    def whole(self, body: bytes) -> Sequence[Delta]:
        """A whole answer: its blocks as a stream would have told them."""
        try:
            message = _MESSAGE.decode(body)
            if message.error is not None:
                raise ProviderFault(classify_error(HttpFailure(200, {}, body)))
            if message.content is None:
                raise malformed("the answer is not a message", body)
            self.answer.model = message.model or ""
            deltas: list[Delta] = []
            for block in map(_block, message.content):
                deltas += self._begin(block)
                deltas += self._end(block)
        except UNREADABLE as error:
            raise malformed(f"the answer is not valid: {error}", body) from None
        self._count(message.usage)
        deltas += self._conclude(message, message.context_management)
        self._stopped = True
        return deltas

    def finish(self) -> None:
        """A stream is complete with message_stop, and an answer with a stop_reason that we know."""
        answer = self.answer
        if not self._stopped:
            raise truncated("the stream ended before message_stop")
        if answer.usage is not None:
            answer.usage = answer.usage.model_copy(update={"source": UsageSource.PROVIDER})
        finish = FINISH.get(answer.native_finish_reason)
        if finish is None:
            answer.finish_reason = FinishReason.ERROR
            raise ended_badly(answer.native_finish_reason or "no stop_reason")
        if finish is FinishReason.STOP and answer.has_tool_calls:
            finish = FinishReason.TOOL_CALLS
        answer.finish_reason = finish

    def _begin(self, block: _Block) -> list[Delta]:
        deltas = self._add(block.begin(self._calls))
        self._calls += isinstance(block, _ToolUse)
        return deltas

    def _end(self, block: _Block) -> list[Delta]:
        deltas = self._add(block.end())
        self.answer.seal()
        return deltas

    def _add(self, deltas: list[Delta]) -> list[Delta]:
        for delta in deltas:
            self.answer.add(delta)
        return deltas

    def _conclude(self, end: _Delta | _Message, context_management: object) -> list[Delta]:
        """Take in how the answer ends, and pass on what it says about itself."""
        self.answer.native_finish_reason = end.stop_reason or self.answer.native_finish_reason
        about = {
            "stop_sequence": end.stop_sequence,
            "stop_details": end.stop_details,
            "container": end.container,
            "context_management": context_management,
        }
        told = {name: value for name, value in about.items() if value}
        return self._add([ProviderDataDelta(told)]) if told else []

    def _count(self, usage: object) -> None:
        """Take in token counts. They are cumulative: a later one replaces an earlier one; partial until the answer is complete."""
        if not isinstance(usage, dict):
            return
        self._usage |= {name: count for name, count in usage.items() if count is not None}
        count = self._usage.get
        cached = clamp(count("cache_read_input_tokens"))
        read = clamp(clamp(count("input_tokens")) + cached + clamp(count("cache_creation_input_tokens")))
        written = clamp(count("output_tokens"))
        details = count("output_tokens_details")
        self.answer.usage = Usage(
            input_tokens=read,
            output_tokens=written,
            total_tokens=clamp(read + written),
            cached_input_tokens=cached,
            reasoning_tokens=clamp(details.get("thinking_tokens")) if isinstance(details, dict) else 0,
            source=UsageSource.PARTIAL,
        )


def _is_unknown(name: str, data: bytes, known: frozenset[str]) -> bool:
    """Whether an event that does not fit our struct is of a type that we need not know."""
    try:
        kind = _TYPE.decode(data).type or name
    except UNREADABLE:
        kind = name
    return bool(kind) and kind not in known and kind != "error"
