"""The dialect gemini: Google's generateContent and streamGenerateContent, https://ai.google.dev/api/generate-content.

Thought signatures come out as reasoning without text, right after the text that they stood on, or as `signature` of a call, and
go back the same way. Ids made here for calls that come without one are never sent back.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import msgspec

from headrace_server.domain.answer import Answer, too_many_pieces
from headrace_server.domain.errors import ErrorCode, Fault, ProviderFault, ReplaySafety, Violation
from headrace_server.domain.events import Delta, ProviderDataDelta, ReasoningDelta, TextDelta, ToolCallDelta
from headrace_server.domain.provider import Provider
from headrace_server.domain.request import GenerateRequest
from headrace_server.domain.result import FinishReason
from headrace_server.domain.usage import Usage, UsageSource, clamp
from headrace_server.providers.dialect import HttpFailure, HttpRequest
from headrace_server.providers.faults import MAX_MESSAGE, MAX_TEXT, MAX_WORD, clean, empty, ended_badly, malformed, truncated
from headrace_server.providers.gemini_errors import classify_failure, error_inside
from headrace_server.providers.gemini_request import ANSWER_METADATA, RequestWriter
from headrace_server.providers.history import made_id
from headrace_server.providers.json_values import UNREADABLE

FINISH_REASONS = {
    "STOP": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    "SAFETY": FinishReason.CONTENT_FILTER,
    "BLOCKLIST": FinishReason.CONTENT_FILTER,
    "PROHIBITED_CONTENT": FinishReason.CONTENT_FILTER,
    "SPII": FinishReason.CONTENT_FILTER,
    "RECITATION": FinishReason.CONTENT_FILTER,
    "IMAGE_SAFETY": FinishReason.CONTENT_FILTER,
    "IMAGE_PROHIBITED_CONTENT": FinishReason.CONTENT_FILTER,
    "IMAGE_RECITATION": FinishReason.CONTENT_FILTER,
    "MODEL_ARMOR": FinishReason.CONTENT_FILTER,
}
"""All others mean an error. Google adds words at any time, hence strings."""


class Gemini:
    """Google's own API with a key. The model goes into the URL; `tunedModels/…` is left as it is, all else stands under `models/`."""

    default_api_url = "https://generativelanguage.googleapis.com"
    limit_headers = ()  # it sends none

    def check(self, request: GenerateRequest, provider: Provider) -> Sequence[Violation]:
        """What generateContent has no words for."""
        model = request.model or provider.default_model
        written = RequestWriter(request, model)
        return [*_unsafe_path(model), *written.violations]

    def encode(self, request: GenerateRequest, provider: Provider, model: str, *, stream: bool) -> HttpRequest:
        """The POST. Raises ProviderFault for a model whose name would lead to another path of the server."""
        if violations := _unsafe_path(model):
            raise ProviderFault(
                Fault(
                    code=ErrorCode.INVALID_REQUEST,
                    message=f"model {model!r} cannot be part of a URL",
                    replay_safety=ReplaySafety.NOT_SENT,
                    violations=violations,
                )
            )
        path = model if model.startswith(("models/", "tunedModels/")) else f"models/{model}"
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        headers = {"content-type": "application/json"}
        if provider.api_key is not None:
            headers["x-goog-api-key"] = provider.api_key.get_secret_value()
        return HttpRequest(
            url=f"{provider.api_url.rstrip('/')}/v1beta/{quote(path, safe='/')}:{method}",
            headers=headers,
            body=msgspec.json.encode(RequestWriter(request, model).body),
        )

    def decoder(self, provider: Provider) -> "GeminiDecoder":
        """A decoder for one answer."""
        return GeminiDecoder()

    def classify(self, failure: HttpFailure) -> Fault:
        """By the table of Google's status words, and by its details for limits and wrong fields."""
        return classify_failure(failure)


def _unsafe_path(model: str) -> tuple[Violation, ...]:
    if any(segment in ("", ".", "..") for segment in model.split("/")):
        return (Violation(field="model", description="must not have a path segment that is empty, '.' or '..'"),)
    return ()


class _FunctionCall(msgspec.Struct):
    id: str | None = None
    name: str | None = None
    args: msgspec.Raw = msgspec.Raw(b"{}")


class _Part(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _FunctionCall | None = None


class _Content(msgspec.Struct):
    parts: list[msgspec.Raw] | None = None


class _Candidate(msgspec.Struct, rename="camel"):
    index: int | None = None
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    grounding_metadata: dict[str, Any] | None = None
    citation_metadata: dict[str, Any] | None = None
    url_context_metadata: dict[str, Any] | None = None
    logprobs_result: dict[str, Any] | None = None


class _UsageMetadata(msgspec.Struct, rename="camel"):
    prompt_token_count: Any = None
    tool_use_prompt_token_count: Any = None
    candidates_token_count: Any = None
    thoughts_token_count: Any = None
    cached_content_token_count: Any = None
    total_token_count: Any = None


class _PromptFeedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None
    block_reason_message: str | None = None


class _Response(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _PromptFeedback | None = None
    usage_metadata: _UsageMetadata | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: Any = None


_METADATA = {field.name: field.encode_name for field in msgspec.structs.fields(_Candidate) if field.encode_name in ANSWER_METADATA}
"""What stands beside an answer's parts and is passed on as provider data: the attribute, and the name it goes by."""

_NO_USAGE = _UsageMetadata()
_NOTHING = _Response()

_response = msgspec.json.Decoder(_Response)
_responses = msgspec.json.Decoder(list[msgspec.Raw])
_part = msgspec.json.Decoder(_Part)
_object = msgspec.json.Decoder(dict[str, Any])


class _Answer(Answer):
    """An answer that works its usage out when it is asked for: Google sends counts with every event, and the last ones hold."""

    __slots__ = ("counts", "is_final")

    def __init__(self) -> None:
        self.counts: _UsageMetadata | None = None
        self.is_final = False
        super().__init__()

    @property
    def usage(self) -> Usage | None:
        """As Headrace counts: the prompts of Google's own tools are input, thoughts are output."""
        return self._usage or (_usage(self.counts, UsageSource.PROVIDER if self.is_final else UsageSource.PARTIAL) if self.counts else None)

    @usage.setter
    def usage(self, usage: Usage | None) -> None:
        self._usage = usage

    def count(self, counts: "_UsageMetadata") -> None:
        """Take in what an event says."""
        if self.counts is not None and _written(counts) < _written(self.counts):
            self.usage_fell = True
        self.counts = counts


class GeminiDecoder:
    """Reads one answer: server-sent events, a whole object, or the JSON array of a stream asked for without `alt=sse`."""

    answer: Answer

    def __init__(self) -> None:
        self.answer = self._answer = _Answer()
        self._answered = False
        self._feedback: _PromptFeedback | None = None
        self._finish_reason = ""
        self._finish_message = ""
        self._calls = 0

    def event(self, name: str, data: bytes) -> list[Delta]:
        """One GenerateContentResponse. An error may stand in a list, also in the middle of a stream."""
        if data.lstrip()[:1] == b"[":
            return self.whole(data)
        return self._read(data)

    def whole(self, body: bytes) -> list[Delta]:
        """A response, or all responses of a stream as an array."""
        if body.lstrip()[:1] != b"[":
            return self._read(body)
        try:
            responses = _responses.decode(body)
        except UNREADABLE as error:
            raise malformed(f"the answer is no JSON: {error}", body) from None
        return [delta for response in responses for delta in self._read(bytes(response))]

    def finish(self) -> None:
        """The last finish reason counts: translators in front of Gemini are known to send an early empty STOP."""
        if self._finish_reason:
            self._finish(self._finish_reason)
        elif self._feedback is not None and (self._feedback.block_reason or not self._answered):
            self._finish_blocked(self._feedback)
        elif self._answered:
            raise truncated("the answer ended without a finish reason")
        else:
            raise empty("the answer holds no candidate")

    def _finish(self, native: str) -> None:
        answer = self.answer
        self._answer.is_final = True
        answer.native_finish_reason = native
        reason = FINISH_REASONS.get(native, FinishReason.ERROR)
        if reason is FinishReason.ERROR:
            fault = ended_badly(native).fault
            raise ProviderFault(replace(fault, provider_text=clean(self._finish_message, MAX_TEXT)))
        if reason is FinishReason.STOP and answer.is_empty:
            raise empty("the answer ended with STOP and holds nothing")
        answer.finish_reason = FinishReason.TOOL_CALLS if reason is FinishReason.STOP and answer.has_tool_calls else reason

    def _finish_blocked(self, feedback: _PromptFeedback) -> None:
        """The prompt was refused: an error, unless something had been said before."""
        self._answer.is_final = True
        self.answer.native_finish_reason = feedback.block_reason or ""
        if not self.answer.is_empty:
            self.answer.finish_reason = FinishReason.CONTENT_FILTER
            return
        said = ("the provider blocked the prompt", feedback.block_reason, feedback.block_reason_message)
        why = clean(": ".join(filter(None, said)), MAX_MESSAGE)
        raise ProviderFault(
            Fault(
                code=ErrorCode.CONTENT_FILTER,
                message=why,
                fallback=False,
                http_status=200,
                provider_code=clean(feedback.block_reason or "", MAX_WORD),
                violations=(Violation(field="messages", description=why),),
            )
        )

    def _read(self, data: bytes) -> list[Delta]:
        try:
            return self._take(data)
        except (*UNREADABLE, ValueError) as error:
            raise malformed(f"not a GenerateContentResponse: {error}", data) from None

    def _take(self, data: bytes) -> list[Delta]:
        """Everything is decoded before anything is taken over, so that a broken event leaves no half of itself in the answer."""
        response = _response.decode(data)
        candidates = [candidate for candidate in response.candidates or () if not candidate.index]
        if sum(len(c.content.parts or ()) for c in candidates if c.content is not None) > self.answer.most_pieces:
            raise too_many_pieces(self.answer.most_pieces)
        parts = [_read_part(raw) for c in candidates if c.content is not None for raw in c.content.parts or ()]
        if response.error is not None:
            raise ProviderFault(error_inside(response.error, data))
        self._feedback = response.prompt_feedback or self._feedback
        self.answer.model = response.model_version or self.answer.model
        self.answer.provider_request_id = response.response_id or self.answer.provider_request_id
        if response.usage_metadata is not None and response.usage_metadata != _NO_USAGE:
            self._answer.count(response.usage_metadata)
        deltas: list[Delta] = []
        for part in parts:
            self._add_part(part, deltas)
        for candidate in candidates:
            self._answered = True
            if candidate.finish_reason:
                self._finish_reason, self._finish_message = candidate.finish_reason, candidate.finish_message or ""
            for field, name in _METADATA.items():
                if metadata := getattr(candidate, field):
                    self._add(ProviderDataDelta({name: metadata}), deltas)
        if not deltas and response == _NOTHING:
            self.answer.unknown_events += 1
        return deltas

    def _add_part(self, part: "_Part | dict[str, Any]", deltas: list[Delta]) -> None:
        if isinstance(part, dict):
            self._add(ProviderDataDelta(part), deltas)
        elif part.function_call is not None:
            self._add_call(part.function_call, part.thought_signature or "", deltas)
        elif part.thought:
            self._add_thought(part.text or "", part.thought_signature or "", deltas)
        else:
            self._add_text(part.text or "", part.thought_signature or "", deltas)

    def _add_text(self, text: str, signature: str, deltas: list[Delta]) -> None:
        if text:
            if signature:
                self.answer.seal()  # Google: 'Don't merge one part with a signature with another part without a signature'
            self._add(TextDelta(text), deltas)
        if signature:
            self.answer.seal()  # it belongs to the text, even to an empty one, and not to a thought before it
            self._add(ReasoningDelta(signature=signature), deltas)
            self.answer.seal()

    def _add_thought(self, text: str, signature: str, deltas: list[Delta]) -> None:
        if text or signature:
            self._add(ReasoningDelta(text=text, signature=signature), deltas)
        if signature:
            self.answer.seal()

    def _add_call(self, call: _FunctionCall, signature: str, deltas: list[Delta]) -> None:
        delta = ToolCallDelta(
            position=self._calls,
            id=call.id or made_id(),
            name=call.name or "",
            arguments_delta=bytes(call.args).decode(),
            signature=signature,
        )
        self._calls += 1
        self._add(delta, deltas)

    def _add(self, delta: Delta, deltas: list[Delta]) -> None:
        self.answer.add(delta)
        deltas.append(delta)


def _read_part(raw: msgspec.Raw) -> _Part | dict[str, Any]:
    """A part of a kind that the API models, or the whole of any other. Raises one of UNREADABLE, or ValueError."""
    part = _part.decode(raw)
    if part.function_call is not None:
        if not part.function_call.name:
            raise ValueError("a functionCall without a name")
        arguments = msgspec.json.format(part.function_call.args, indent=-1)
        if not arguments.startswith((b"{", b"null")):
            raise ValueError("a functionCall whose args are no object")
        part.function_call.args = msgspec.Raw(arguments if arguments != b"null" else b"{}")
    elif part.text is None:
        whole = _object.decode(raw)
        if whole.keys() - {"text", "thought", "thoughtSignature"}:
            return whole
    return part


def _written(sent: _UsageMetadata) -> int:
    return clamp(sent.candidates_token_count) + clamp(sent.thoughts_token_count)


def _usage(sent: _UsageMetadata, source: UsageSource) -> Usage:
    thoughts = clamp(sent.thoughts_token_count)
    input_tokens = clamp(clamp(sent.prompt_token_count) + clamp(sent.tool_use_prompt_token_count))
    output_tokens = clamp(clamp(sent.candidates_token_count) + thoughts)
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        total_tokens=clamp(input_tokens + output_tokens),
        cached_input_tokens=clamp(sent.cached_content_token_count),
        reasoning_tokens=thoughts,
        source=source,
    )
