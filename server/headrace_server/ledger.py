"""What a running request writes down: its attempts, what each provider did, and from that its row, its metrics and its result.

No I/O and no clock: times come in as arguments, what comes out is stored and told by others.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from headrace_server.domain.answer import Answer
from headrace_server.domain.errors import Fault, RateLimitInfo, ReplaySafety
from headrace_server.domain.identity import fingerprint, new_id
from headrace_server.domain.lifecycle import Event, State
from headrace_server.domain.limits import LimitType, still_true
from headrace_server.domain.machine import Context
from headrace_server.domain.message import ContentPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart, ToolResultPart
from headrace_server.domain.ports import Reservation, Settlement
from headrace_server.domain.provider import Provider
from headrace_server.domain.record import LogRow, MetricsRow
from headrace_server.domain.request import GenerateRequest
from headrace_server.domain.result import Attempt, FallbackInfo, FinishReason, GenerationResult, ProviderError, told
from headrace_server.domain.usage import MOST_TOKENS, Usage, UsageSource, estimate_tokens

MOST_TEXT = 512 * 1024
"""Characters of providers' own texts that one request's attempts may hold: a row is written anew with every step."""

Price = Callable[[Provider, str, Usage], int | None]
"""Cost of an answer in micro-USD, by provider, model and usage; None where no price is known."""


@dataclass(slots=True, kw_only=True)
class Tried:
    """What one provider did for the request; becomes a row of provider_metrics."""

    provider: Provider
    model: str
    began: int
    calls: int = 0
    chunks: int = 0
    first_token_latency: int | None = None
    ended: int | None = None
    usage: Usage | None = None
    success: bool = False
    stood_in_by: str | None = None


class Ledger:
    """The books of one request."""

    def __init__(self, request: GenerateRequest, *, started: int, owner: str, node: str, trace_id: str, price: Price) -> None:
        self.request = request
        self.started = started
        self._ended: list[Attempt] = []
        self._began_at: int | None = None
        """When the call at hand began; None where none is under way."""
        self.tried: list[Tried] = []
        self.reservation: Reservation | None = None
        self.left: Mapping[LimitType, int] = {}
        """What the provider says is left of its limits, in the answer to the call at hand."""
        self._row_id = new_id(started)
        self._fingerprint = fingerprint(request)
        self._owner = owner
        self._node = node
        self._trace_id = trace_id
        self._price = price
        self._input_estimate: int | None = None

    # ------------------------------------------------------------ attempts

    def begin_attempt(self, tried: Tried, now: int) -> None:
        """A call of a provider is about to go out."""
        if not tried.calls:
            self.tried.append(tried)
        tried.calls += 1
        self.left = {}
        self._began_at = now

    @property
    def attempt_is_open(self) -> bool:
        """Whether a call is under way."""
        return self._began_at is not None

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """All calls that were begun. The one under way is made anew each time: kept, it would take a KiB of every open stream."""
        if self._began_at is None:
            return tuple(self._ended)
        return *self._ended, self._attempt(self._began_at, state=State.REQUESTING)

    def _attempt(self, began: int, **how: Any) -> Attempt:
        tried = self.tried[-1]
        updated_at = tried.provider.updated_at
        return Attempt(provider=tried.provider.provider, model=tried.model, start_time=began, provider_updated_at=updated_at, **how)

    def end_attempt(self, fault: Fault | None, answer: Answer, now: int, *, sent: bool, delivered: bool) -> Settlement | None:
        """The call at hand has ended: write down how, and return what becomes of its reservation."""
        assert self._began_at is not None
        began, self._began_at = self._began_at, None
        error = safety = None
        if fault is not None:
            error = provider_error(fault, request_id=self.request.request_id, provider=self.tried[-1].provider.provider)
            error = error.model_copy(update={"provider_text": fault.provider_text[: self._room_for_text()]})
            safety = _safety(fault, sent=sent, delivered=delivered)
        usage = self._usage(fault, answer, sent=safety is not ReplaySafety.NOT_SENT)
        self._ended.append(
            self._attempt(
                began,
                state=State.COMPLETED if fault is None else State.FAILED,
                error=error,
                usage=usage,
                duration=max(0, now - began),
                replay_safety=safety,
            )
        )
        tried = self.tried[-1]
        if usage is not None:
            tried.usage = usage if tried.usage is None else tried.usage + usage
        settlement = self._settlement(safety, usage)
        if settlement is None:
            return None
        left = fault.left if fault is not None and fault.left else self.left
        return replace(settlement, left=still_true(left, began, now, settlement.reservation.zone))

    def _room_for_text(self) -> int:
        return max(0, MOST_TEXT - sum(len(attempt.error.provider_text) for attempt in self._ended if attempt.error is not None))

    def _usage(self, fault: Fault | None, answer: Answer, *, sent: bool) -> Usage | None:
        """The provider's count, or an estimate where it is missing, cannot be true, or is too low for what came.

        None for a call that cost nothing as far as anyone can tell.
        """
        usage = answer.usage
        if usage is None and fault is not None and answer.is_empty and (not sent or fault.http_status >= 300):
            return None
        said = estimate_tokens(answer.characters)
        if usage is not None and _can_be_true(usage, answer):
            # What a provider told of an answer that had ended is exact, also where that end was no good one.
            if fault is None or usage.source is UsageSource.PROVIDER:
                return usage
            if usage.output_tokens >= said:
                return usage.model_copy(update={"source": UsageSource.PARTIAL})
        usage = usage or Usage()
        read = usage.input_tokens if 0 < usage.input_tokens < MOST_TOKENS else self.input_estimate
        written = max(said, usage.output_tokens if usage.output_tokens < MOST_TOKENS else 0)
        return Usage(
            input_tokens=read,
            output_tokens=written,
            total_tokens=min(read + written, MOST_TOKENS),
            cached_input_tokens=min(usage.cached_input_tokens, read),
            reasoning_tokens=min(usage.reasoning_tokens, written),
            source=UsageSource.ESTIMATED,
        )

    def _settlement(self, safety: ReplaySafety | None, usage: Usage | None) -> Settlement | None:
        """What was not sent is given back; unknown usage never is, and an estimate only ever adds."""
        reservation, self.reservation = self.reservation, None
        if reservation is None:
            return None
        if safety is ReplaySafety.NOT_SENT:
            return Settlement(reservation=reservation, requests=0, tokens=0)
        if usage is None:
            return Settlement(reservation=reservation)
        known = usage.source is UsageSource.PROVIDER
        return Settlement(reservation=reservation, tokens=usage.total_tokens if known else max(usage.total_tokens, reservation.tokens))

    def release(self) -> Settlement | None:
        """Give back a reservation for which no call was begun."""
        return self._settlement(ReplaySafety.NOT_SENT, None)

    @property
    def input_estimate(self) -> int:
        """Tokens of the request, by the length of its texts."""
        if self._input_estimate is None:
            self._input_estimate = input_tokens(self.request)
        return self._input_estimate

    # ------------------------------------------------------------ what comes out

    def result(self, context: Context, answer: Answer, fault: Fault | None) -> GenerationResult:
        """The answer, or what there is of one."""
        attempts = self.attempts
        usage = attempts[-1].usage if attempts else None
        costs = [cost for tried in self.tried if (cost := self._cost(tried, answer)) is not None]
        return GenerationResult.model_construct(
            content=answer.content(),
            finish_reason=answer.finish_reason if fault is None else FinishReason.ERROR,
            native_finish_reason=answer.native_finish_reason,
            usage=usage,
            provider=context.provider,
            model=answer.model or context.model,
            duration=context.metrics.total_duration,
            first_token_latency=context.metrics.first_token_latency,
            attempts=told(attempts),
            fallback=_fallback(context),
            cost=sum(costs) if costs else None,
        )

    def _cost(self, tried: Tried, answer: Answer) -> int | None:
        if tried.usage is None:
            return None
        model = answer.model if tried is self.tried[-1] and answer.model else tried.model
        return self._price(tried.provider, model, tried.usage)

    def error(self, context: Context, fault: Fault, partial: GenerationResult) -> ProviderError:
        """Why there is no answer, with the attempts and what was delivered."""
        error = provider_error(fault, request_id=self.request.request_id, provider=context.provider)
        return error.model_copy(update={"attempts": told(self.attempts), "partial": partial if self.attempts else None})

    def row(self, context: Context, now: int, *, result: GenerationResult | None = None, error: ProviderError | None = None) -> LogRow:
        """The request's row as it stands."""
        attempts = self.attempts
        return LogRow(
            id=self._row_id,
            request_id=self.request.request_id,
            conversation_id=context.conversation_id,
            user_id=context.user_id,
            provider=context.provider,
            model=context.model,
            state=context.state,
            request_data=self.request,
            response_data=result if error is None or attempts else None,
            error=None if error is None else error.model_copy(update={"partial": None, "attempts": ()}),
            error_message=None if error is None else error.message,
            error_code=None if error is None else error.code,
            start_time=self.started,
            end_time=context.metrics.end_time,
            duration=context.metrics.total_duration,
            retry_attempt=max(0, len(attempts) - 1),
            tags=context.tags,
            request_fingerprint=self._fingerprint,
            attempts=attempts,
            transitions=context.history,
            trace_id=self._trace_id,
            owner=self._owner,
            node=self._node,
            created_at=self.started,
            updated_at=now,
        )

    def metrics(self, context: Context, answer: Answer, now: int) -> list[MetricsRow]:
        """One row for each provider that was tried."""
        rows = []
        for number, tried in enumerate(self.tried):
            usage = tried.usage or Usage()
            rows.append(
                MetricsRow(
                    id=new_id(now),
                    request_id=self.request.request_id,
                    provider=tried.provider.provider,
                    model=tried.model,
                    input_tokens=usage.input_tokens,
                    output_tokens=usage.output_tokens,
                    total_tokens=usage.total_tokens,
                    cached_input_tokens=usage.cached_input_tokens,
                    reasoning_tokens=usage.reasoning_tokens,
                    usage_source=usage.source,
                    cost_micro_usd=self._cost(tried, answer),
                    first_token_latency=tried.first_token_latency,
                    total_duration=max(0, (now if tried.ended is None else tried.ended) - tried.began),
                    chunks_received=tried.chunks,
                    retry_count=max(0, tried.calls - 1),
                    is_fallback=number > 0 or context.fallback_provider == tried.provider.provider,
                    fallback_provider=tried.stood_in_by,
                    success=tried.success and context.state is State.COMPLETED,
                    created_at=self.started,
                )
            )
        return rows


def provider_error(fault: Fault, *, request_id: str, provider: str = "") -> ProviderError:
    """A fault as callers see it, without the provider's whole text."""
    limit = fault.rate_limit
    if fault.retry_after and (limit is None or limit.retry_after is None):
        limit = (limit or RateLimitInfo()).model_copy(update={"retry_after": fault.retry_after})
    return ProviderError.model_construct(
        request_id=request_id,
        message=fault.message,
        code=fault.code,
        subreason=str(fault.subreason),
        provider=provider,
        http_status=fault.http_status,
        provider_type=fault.provider_type,
        provider_code=fault.provider_code,
        retryable=fault.retryable,
        rate_limit=limit,
        field_violations=fault.violations,
        provider_request_id=fault.provider_request_id,
    )


def input_tokens(request: GenerateRequest) -> int:
    """An estimate of a request's tokens, by the length of its texts."""
    said = sum(_characters(part) for message in request.messages for part in message.content)
    return estimate_tokens(said + sum(len(tool.description) + len(tool.parameters_json) for tool in request.tools))


def _can_be_true(usage: Usage, answer: Answer) -> bool:
    """Whether no count fell, none is beyond all measure, and what was read and said cost something."""
    within = 0 < usage.input_tokens < MOST_TOKENS and usage.output_tokens < MOST_TOKENS
    return within and not answer.usage_fell and (usage.output_tokens > 0 or answer.is_empty)


def _safety(fault: Fault, *, sent: bool, delivered: bool) -> ReplaySafety:
    if delivered:
        return ReplaySafety.PARTIAL_OUTPUT
    return fault.replay_safety if sent else ReplaySafety.NOT_SENT


def _fallback(context: Context) -> FallbackInfo | None:
    if not context.fallback_provider:
        return None
    why = next((step.reason for step in reversed(context.history) if step.event is Event.FALLBACK_TO_PROVIDER), "")
    return FallbackInfo(provider=context.provider, model=context.model, reason=why)


def _characters(part: ContentPart) -> int:
    match part:
        case TextPart() | ReasoningPart():
            return len(part.text)
        case ToolCallPart():
            return len(part.name) + len(part.arguments_json)
        case ToolResultPart():
            return sum(_characters(inner) for inner in part.content)
        case RefusalPart():
            return len(part.refusal)
        case _:
            return 0
