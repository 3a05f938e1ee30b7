"""Reads answers of the Chat Completions API: of OpenAI, and of the many servers that speak it with accents of their own.

A chunk of a stream and a whole answer have one form but for a name (`delta`, `message`), and so they share one reader.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from headrace_server.domain.answer import Answer
from headrace_server.domain.errors import ProviderFault
from headrace_server.domain.events import Delta, ProviderDataDelta, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from headrace_server.domain.result import FinishReason
from headrace_server.domain.usage import Usage, UsageSource, clamp
from headrace_server.providers import faults
from headrace_server.providers.faults import ErrorBody
from headrace_server.providers.history import MADE_ID, made_id
from headrace_server.providers.json_values import UNREADABLE, compact
from headrace_server.providers.openai_errors import error_inside, read_error

FUNCTION_ID = MADE_ID + "function_"
"""How ids begin that were made for OpenAI's first form of a call, `function_call`, which has no id at all."""

FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
    "eos": FinishReason.STOP,  # Together
    "model_length": FinishReason.LENGTH,  # Mistral: the context is full
}
"""By the provider's own word; every other word means an error."""


_OBJECTS = ("chat.completion.chunk", "chat.completion", "", None)
"""What chunks call themselves. One of them may hold no choice: the results of a filter, on Azure."""


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    custom: Any = None
    extra_content: Any = None


class _Message(msgspec.Struct):
    content: str | list[msgspec.Raw] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[dict[str, Any]] | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None
    # What the API does not model.
    annotations: Any = None
    audio: Any = None
    images: Any = None
    executed_tools: Any = None
    extra_content: Any = None


class _Choice(msgspec.Struct):
    index: int | None = None
    delta: _Message | None = None
    message: _Message | None = None
    finish_reason: str | None = None
    logprobs: Any = None


class _Chunk(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    object: Any = None
    x_groq: Any = None
    # What the API does not model.
    citations: Any = None
    search_results: Any = None
    related_questions: Any = None
    moderation: Any = None


class _Piece(msgspec.Struct):
    """A member of `content`, where that is a list (Mistral)."""

    type: str | None = None
    text: str | None = None
    thinking: str | list["_Piece"] | None = None


_chunk = msgspec.json.Decoder(_Chunk).decode
_piece = msgspec.json.Decoder(_Piece).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode


class ChatDecoder:
    """One answer. Of several choices the first alone is read."""

    def __init__(self) -> None:
        self.answer = Answer()
        self._model = ""
        self._has_id = False
        self._done = False
        self._failed: ProviderFault | None = None
        self._refused = False
        self._calls: list[_Call] = []
        self._by_id: dict[str, _Call] = {}
        self._begun = 0
        self._at: dict[int, _Call] = {}  # the call that the provider's index means now
        self._detail: dict[str, Any] | None = None
        self._passed_on: dict[str, Any] = {}
        self._logprobs: dict[str, list[Any]] = {}

    def event(self, name: str, data: bytes) -> Sequence[Delta]:
        """One chunk of a stream, or the word [DONE], after which nothing counts."""
        if self._done:
            return ()
        if data == b"[DONE]":
            self._done = True
            return ()
        try:
            chunk = _chunk(data)
            if chunk.error is None and name != "error" and (chunk.choices or chunk.object != "error"):
                deltas = self._read(chunk, whole=False)
                if not (deltas or chunk.choices or chunk.usage or chunk.x_groq) and (chunk.choices is None or chunk.object not in _OBJECTS):
                    self.answer.unknown_events += 1
                return deltas
        except UNREADABLE as error:
            if name not in ("", "message", "error") or not data.strip():
                self.answer.unknown_events += 1
                return ()
            if data.strip() == b"[DONE]":
                self._done = True
                return ()
            raise self._broken(data, f"an event is not a chunk of a chat completion: {error}") from None
        raise self._broken(data, "an error event does not tell what is wrong")

    def whole(self, body: bytes) -> Sequence[Delta]:
        """An answer that came all at once."""
        try:
            chunk = _chunk(body)
            if chunk.error is None and chunk.choices:
                return self._read(chunk, whole=True)
        except UNREADABLE as error:
            raise self._broken(body, f"the answer is not a chat completion: {error}") from None
        raise self._broken(body, "the answer holds no choice")

    def finish(self) -> None:
        """The end of the body. A finish reason is the evidence that the answer is complete; [DONE] is not needed, and not enough."""
        if self._failed is not None:
            raise self._failed
        answer, native = self.answer, self.answer.native_finish_reason
        if not native:
            raise faults.empty() if self._done and answer.is_empty else faults.truncated("the answer ended without a finish reason")
        if answer.usage is not None:
            answer.usage = answer.usage.model_copy(update={"source": UsageSource.PROVIDER})
        reason = FINISH_REASONS.get(native)
        if reason is None:
            raise faults.ended_badly(native)
        if any(call.position is None for call in self._calls):
            raise faults.malformed("a tool call without a name")
        if reason is FinishReason.TOOL_CALLS and answer.is_empty:
            raise faults.empty("the answer ended for tool calls, but holds none")
        if reason is FinishReason.STOP and answer.has_tool_calls:
            reason = FinishReason.TOOL_CALLS
        answer.finish_reason = FinishReason.CONTENT_FILTER if self._refused else reason

    # ---------------------------------------------------------------- one chunk

    def _read(self, chunk: _Chunk, *, whole: bool) -> list[Delta]:
        answer = self.answer
        if chunk.model and chunk.model != self._model:
            answer.model = self._model = chunk.model
        if chunk.id and not self._has_id:
            self._has_id = True
            answer.provider_request_id = answer.provider_request_id or chunk.id
        deltas: list[Delta] = []
        for choice in chunk.choices or ():
            if choice.index:
                continue
            # Perplexity sends both in both forms, and in a stream `message` repeats what came before.
            message = (choice.message or choice.delta) if whole else (choice.delta or choice.message)
            if message is not None:
                self._message(message, deltas)
            if choice.logprobs:
                self._collect(choice.logprobs)
            if choice.finish_reason and not answer.native_finish_reason:
                answer.native_finish_reason = choice.finish_reason
                self._close_detail(deltas)
                if self._logprobs:
                    deltas.append(_data("logprobs", self._logprobs))
        if chunk.usage or chunk.x_groq:
            answer.usage = _usage(chunk.usage, chunk.x_groq) or answer.usage
        if chunk.citations or chunk.search_results or chunk.related_questions or chunk.moderation:
            self._pass_on(chunk, ("citations", "search_results", "related_questions", "moderation"), deltas)
        for delta in deltas:
            answer.add(delta)
        return deltas

    def _message(self, message: _Message, deltas: list[Delta]) -> None:
        reasoning = message.reasoning_content or message.reasoning
        if message.reasoning_details:
            self._details(reasoning or "", message.reasoning_details, deltas)
        elif reasoning:
            deltas.append(ReasoningDelta(text=reasoning))
        content = message.content
        if content:
            if self._detail is not None:
                self._close_detail(deltas)
            if isinstance(content, str):
                deltas.append(TextDelta(content))
            else:
                self._pieces(content, deltas)
        if message.refusal:
            self._refused = True
            deltas.append(RefusalDelta(message.refusal))
        if message.tool_calls:
            self._close_detail(deltas)
            for call in message.tool_calls:
                self._tool_call(call, deltas)
        if message.function_call is not None:
            self._function_call(message.function_call, deltas)
        if message.annotations or message.audio or message.images or message.executed_tools or message.extra_content:
            self._pass_on(message, ("annotations", "audio", "images", "executed_tools", "extra_content"), deltas)

    def _pieces(self, pieces: Iterable[msgspec.Raw], deltas: list[Delta]) -> None:
        for raw in pieces:
            piece = _piece(raw)
            if piece.type == "text":
                deltas.append(TextDelta(piece.text or ""))
            elif piece.type == "thinking":
                thinking = piece.thinking
                text = thinking if isinstance(thinking, str) else "".join(inner.text or "" for inner in thinking or ())
                deltas.append(ReasoningDelta(text=text))
            else:
                deltas.append(ProviderDataDelta(_object(raw)))

    # ---------------------------------------------------------------- tool calls

    def _tool_call(self, piece: _ToolCall, deltas: list[Delta]) -> None:
        if piece.function is None:
            if piece.custom:
                deltas.append(_data("tool_call", {"id": piece.id or "", "custom": piece.custom}))
            return
        self._grow(self._call(piece), piece.function, _signature(piece.extra_content), deltas)

    def _grow(self, call: "_Call", function: _Function, signature: str, deltas: list[Delta]) -> None:
        """Pass on a piece of a call. What comes before the call's name waits for it."""
        if (delta := call.take(function, signature, self._begun)) is not None:
            self._begun += bool(delta.id)
            deltas.append(delta)

    def _call(self, piece: _ToolCall) -> "_Call":
        """The call that a piece belongs to.

        The index says so; yet some servers send none, or the same for every call. Where a piece bears another id than the call
        at its index, or has a name and nothing that ties it to an earlier one, it begins a call.
        """
        known = self._at.get(piece.index) if piece.index is not None else None
        if known is None and piece.index is None and self._calls:
            same = self._by_id.get(piece.id) if piece.id else None
            names = piece.function is not None and bool(piece.function.name)
            known = same or (None if names else self._calls[-1])
        if known is None or (piece.id and known.id != piece.id and piece.function is not None and piece.function.name):
            known = _Call(piece.id or made_id())
            self._calls.append(known)
            self._by_id.setdefault(known.id, known)
        if piece.index is not None:
            self._at[piece.index] = known
        return known

    def _function_call(self, function: _Function, deltas: list[Delta]) -> None:
        if not self._calls:
            self._calls.append(_Call(made_id().replace(MADE_ID, FUNCTION_ID)))
        self._grow(self._calls[0], function, "", deltas)

    # ---------------------------------------------------------------- reasoning with details (OpenRouter)

    def _details(self, reasoning: str, details: Sequence[dict[str, Any]], deltas: list[Delta]) -> None:
        """Details must go back as they came, or the next turn is not valid.

        What a part has no field for (format, index, kind) goes with it as JSON: encrypted details whole in `redacted_data`, of signed
        ones and of summaries all but the text in `signature`, once the detail has ended. Plain reasoning needs nothing but its text.
        """
        texts = [_detail_text(detail) for detail in details]
        if reasoning and "".join(texts) != reasoning:
            texts = [reasoning] + [""] * (len(details) - 1)
        for detail, text in zip(details, texts, strict=True):
            if "data" in detail:
                self._close_detail(deltas)
                if text:
                    deltas.append(ReasoningDelta(text=text))
                deltas.append(ReasoningDelta(redacted_data=compact(detail)))
                continue
            rest = {key: value for key, value in detail.items() if key not in ("text", "summary") and value is not None}
            if self._detail is not None and (rest.get("type"), rest.get("index")) != (self._detail.get("type"), self._detail.get("index")):
                self._close_detail(deltas)
            self._detail = self._detail or {}
            self._detail |= rest
            if text:
                deltas.append(ReasoningDelta(text=text))

    def _close_detail(self, deltas: list[Delta]) -> None:
        detail, self._detail = self._detail, None
        if detail is not None and (detail.get("signature") or detail.get("type") != "reasoning.text"):
            deltas.append(ReasoningDelta(signature=compact(detail)))

    # ---------------------------------------------------------------- the rest

    def _pass_on(self, holder: msgspec.Struct, names: Iterable[str], deltas: list[Delta]) -> None:
        """What the API does not model goes out as it came; what is merely repeated from chunk to chunk goes out once."""
        for name in names:
            value = getattr(holder, name)
            if value and value != self._passed_on.get(name):
                self._passed_on[name] = value
                deltas.append(_data(name, value))

    def _collect(self, logprobs: Any) -> None:
        """Log probabilities come token by token; they go out together at the end, or they would tear the text apart."""
        if isinstance(logprobs, dict):
            for name, values in logprobs.items():
                if isinstance(values, list):
                    self._logprobs.setdefault(name, []).extend(values)

    def _broken(self, data: bytes, why: str) -> ProviderFault:
        """The fault of an event or a body that is an error, or that is nothing this dialect knows. It stays the outcome."""
        body = read_error(data) if b'"error"' in data else ErrorBody()
        self._done = True
        self._failed = faults.malformed(why, data) if body == ErrorBody() else ProviderFault(error_inside(data, body))
        return self._failed


class _Call:
    """A tool call under way. It begins, and has a position, when its name is known."""

    __slots__ = ("_arguments", "_name", "_signature", "id", "position")

    def __init__(self, id: str) -> None:
        self.id = id
        self.position: int | None = None
        self._name = ""
        self._arguments: list[str] = []  # these two wait for the name
        self._signature: list[str] = []

    def take(self, function: _Function, signature: str, position: int) -> ToolCallDelta | None:
        """A piece of it, as it is passed on; None while there is no name. `position` is what it gets if it begins now.

        Id and name go out once, though some servers repeat them.
        """
        name = function.name or ""
        if name == self._name:
            name = ""
        self._name += name
        arguments = function.arguments
        text = arguments if isinstance(arguments, str) else compact(arguments) if arguments is not None else ""
        if not self._name:
            self._arguments.append(text)
            self._signature.append(signature)
            return None
        if self.position is not None:
            return ToolCallDelta(position=self.position, name=name, arguments_delta=text, signature=signature)
        self.position = position
        return ToolCallDelta(
            position=position,
            id=self.id,
            name=name,
            arguments_delta="".join(self._arguments) + text,
            signature="".join(self._signature) + signature,
        )


def _signature(extra_content: Any) -> str:
    """Google's thought signature on a call, with the object around it: that is the form in which it goes back."""
    return compact(extra_content) if isinstance(extra_content, dict) and extra_content else ""


def _detail_text(detail: dict[str, Any]) -> str:
    text = detail.get("text") or detail.get("summary")
    return text if isinstance(text, str) else ""


def _data(name: str, value: Any) -> ProviderDataDelta:
    return ProviderDataDelta({name: value})


def _usage(usage: Any, x_groq: Any) -> Usage | None:
    """Token counts; on Groq's streams they stand in a field of Groq's own. Partial until the answer has ended properly."""
    if not isinstance(usage, dict):
        usage = x_groq.get("usage") if isinstance(x_groq, dict) else None
        if not isinstance(usage, dict):
            return None
    given, taken = clamp(usage.get("prompt_tokens")), clamp(usage.get("completion_tokens"))
    cached = _inside(usage, "prompt_tokens_details", "cached_tokens")
    if cached is None:
        cached = usage.get("prompt_cache_hit_tokens", usage.get("cached_tokens"))  # DeepSeek; Together
    return Usage(
        input_tokens=given,
        output_tokens=taken,
        total_tokens=clamp(usage.get("total_tokens")) or clamp(given + taken),
        cached_input_tokens=clamp(cached),
        reasoning_tokens=clamp(_inside(usage, "completion_tokens_details", "reasoning_tokens")),
        source=UsageSource.PARTIAL,
    )


def _inside(usage: dict[str, Any], outer: str, inner: str) -> Any:
    details = usage.get(outer)
    return details.get(inner) if isinstance(details, dict) else None
