"""The whole of a dialect, as small as one can be: CONTRIBUTING.md shows it to whoever adds one, and the contract suite runs on it.

Its provider takes a request in Headrace's own words, and answers in them: each event says one delta, by its kind, and the last how the
answer ended. A whole answer is `{"says": […]}`, a list of events.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from headrace_server.domain.answer import Answer
from headrace_server.domain.errors import ErrorCode, Fault, ProviderFault, Subreason, Violation
from headrace_server.domain.events import Delta, ProviderDataDelta, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from headrace_server.domain.provider import Provider
from headrace_server.domain.request import GenerateRequest
from headrace_server.domain.result import FinishReason
from headrace_server.domain.usage import Usage, UsageSource, clamp
from headrace_server.providers.dialect import HttpFailure, HttpRequest
from headrace_server.providers.faults import ErrorBody, Rule, classify, empty, ended_badly, malformed, truncated
from headrace_server.providers.history import made_id
from headrace_server.providers.json_values import UNREADABLE, Json, text_of

RULES = (
    Rule(ErrorCode.INVALID_REQUEST, Subreason.CONTEXT_LENGTH, fallback=False, type=("too_long",)),
    Rule(ErrorCode.INVALID_REQUEST, fallback=False, status=(400,)),
    Rule(ErrorCode.AUTHENTICATION_ERROR, status=(401,)),
    Rule(ErrorCode.QUOTA_EXCEEDED, Subreason.BILLING, type=("broke",)),
    Rule(ErrorCode.MODEL_NOT_FOUND, status=(404,)),
    Rule(ErrorCode.RATE_LIMIT_EXCEEDED, retryable=True, status=(429,)),
    Rule(ErrorCode.SERVER_ERROR, Subreason.OVERLOADED, retryable=True, type=("busy",)),
)
FINISH = {"done": FinishReason.STOP, "cut": FinishReason.LENGTH, "filtered": FinishReason.CONTENT_FILTER}
DELTAS: dict[str, type[Delta]] = {
    "text": TextDelta,
    "reasoning": ReasoningDelta,
    "tool_call": ToolCallDelta,
    "refusal": RefusalDelta,
    "provider_data": ProviderDataDelta,
}
OURS = {
    "request_id",
    "stream",
    "provider",
    "model",
    "metadata",
    "retry",
    "fallback",
    "timeouts",
    "on_disconnect",
    "quiet",
    "timing",
    "priority",
}


class Tiny:
    """The dialect: the encoder, and what finds the decoder and the table of errors."""

    default_api_url = "https://api.tiny.test"
    limit_headers = ()

    def check(self, request: GenerateRequest, provider: Provider) -> Sequence[Violation]:
        """All can be said, but an option must not say what a field says."""
        taken = [name for name in request.provider_options if name in GenerateRequest.model_fields]
        return [Violation(field=f"provider_options.{name}", description=f"is set by {name}") for name in taken]

    def encode(self, request: GenerateRequest, provider: Provider, model: str, *, stream: bool) -> HttpRequest:
        """The fields of the request that are for the provider, under their own names."""
        key = provider.api_key.get_secret_value() if provider.api_key else ""
        fields = request.model_dump(mode="json", exclude=OURS | {"provider_options"}, exclude_none=True)
        body = {"model": model, "stream": stream} | fields | request.provider_options
        return HttpRequest(f"{provider.api_url}/say", {"x-key": key}, msgspec.json.encode(body))

    def decoder(self, provider: Provider) -> "TinyDecoder":
        """A decoder for one answer."""
        return TinyDecoder()

    def classify(self, failure: HttpFailure) -> Fault:
        """By the error's type first, then by the status."""
        return classify(RULES, failure, _error(failure.body))


class TinyDecoder:
    """Reads one answer."""

    def __init__(self) -> None:
        self.answer = Answer()
        self._refused = False
        self._begun: set[int] = set()

    def event(self, name: str, data: bytes) -> Sequence[Delta]:
        """One event: a delta, the end, or an error; other kinds are passed over."""
        try:
            return self._take(msgspec.json.decode(data, type=Json), data)
        except UNREADABLE as error:
            raise malformed(f"an event is not valid: {error}", data) from None

    def whole(self, body: bytes) -> Sequence[Delta]:
        """A list of events."""
        try:
            says = msgspec.json.decode(body, type=dict[str, list[Json]])["says"]
            return [delta for event in says for delta in self._take(event, body)]
        except (*UNREADABLE, KeyError):
            raise malformed("the answer is not valid", body) from None

    def _take(self, event: Json, data: bytes) -> list[Delta]:
        kind = text_of(event.pop("kind", ""))
        if kind == "error":
            raise ProviderFault(classify(RULES, HttpFailure(200, {}, data), _error(data)))
        if kind == "end":
            count = event.get
            self.answer.model, self.answer.native_finish_reason = text_of(count("model")), text_of(count("why"))
            given, cached, said, thought = (clamp(count(name)) for name in ("given", "cached", "said", "thought"))
            self.answer.usage = Usage(
                input_tokens=clamp(given + cached),
                output_tokens=clamp(said + thought),
                total_tokens=clamp(given + cached + said + thought),
                cached_input_tokens=cached,
                reasoning_tokens=thought,
                source=UsageSource.PROVIDER,
            )
        if kind not in DELTAS:
            self.answer.unknown_events += kind != "end"
            return []
        delta = msgspec.convert(event, DELTAS[kind])
        if isinstance(delta, ToolCallDelta) and delta.position not in self._begun:
            if not delta.name:
                raise malformed("a tool call without a name", data)
            self._begun.add(delta.position)
            delta.id = delta.id or made_id()
        self._refused = self._refused or isinstance(delta, RefusalDelta)
        self.answer.add(delta)
        return [delta]

    def finish(self) -> None:
        """The event `end` must have come, and must tell of a good end."""
        answer = self.answer
        if not answer.native_finish_reason:
            raise truncated()
        reason = FINISH.get(answer.native_finish_reason)
        if reason is None:
            raise ended_badly(answer.native_finish_reason)
        if reason is FinishReason.STOP and answer.is_empty:
            raise empty()
        if reason is FinishReason.STOP and answer.has_tool_calls:
            reason = FinishReason.TOOL_CALLS
        answer.finish_reason = FinishReason.CONTENT_FILTER if self._refused else reason


def _error(data: bytes) -> ErrorBody:
    try:
        error: Any = msgspec.json.decode(data, type=Json)
    except UNREADABLE:
        return ErrorBody()
    return ErrorBody(type=text_of(error.get("type")), message=text_of(error.get("message")))
