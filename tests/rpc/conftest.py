"""Generated values for the conversions: domain values that obey the rules, and protobuf messages that need not."""

import uuid
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import strategies as st

from headrace_server.domain.errors import ErrorCode, RateLimitInfo, ReplaySafety, Violation
from headrace_server.domain.events import (
    Completed,
    Discontinuity,
    Failed,
    ProviderDataDelta,
    ReasoningDelta,
    RefusalDelta,
    StreamChunk,
    TextDelta,
    ToolCallDelta,
)
from headrace_server.domain.lifecycle import Event, State, Transition
from headrace_server.domain.message import (
    ChatMessage,
    ImagePart,
    MessageRole,
    ProviderDataPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from headrace_server.domain.request import (
    DisconnectPolicy,
    FallbackConfig,
    GenerateRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    MidStreamFallback,
    ReasoningConfig,
    ReasoningEffort,
    RequestMetadata,
    RetryConfig,
    TextFormat,
    Timeouts,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from headrace_server.domain.result import Attempt, FallbackInfo, FinishReason, GenerationResult, ProviderError
from headrace_server.domain.retry import RetryStrategy
from headrace_server.domain.usage import Usage, UsageSource

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
filled = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
uuids = st.uuids().map(str)
models = st.text("abcXYZ019._:/@-", min_size=1, max_size=12)
names = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)
millis = st.integers(0, 4_000_000_000_000)
delays = st.integers(0, 600_000)
positives = st.integers(1, 600_000)
int32s = st.integers(1, 2**31 - 1)
numbers = st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: not x.is_integer())
scalars = st.none() | st.booleans() | texts | numbers | st.integers(-(2**53), 2**53)
json_values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6)
objects = st.dictionaries(texts, json_values, max_size=3)
schemas = st.sampled_from(["{}", '{"type":"object"}', '{"type": "object", "properties": {"x": {"type": "number"}}}'])


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


text_parts = st.builds(TextPart, text=texts)
image_parts = st.builds(ImagePart, media_type=st.just("image/png"), data=st.binary(min_size=1, max_size=8)) | st.builds(
    ImagePart, media_type=st.sampled_from(["", "image/webp"]), uri=filled
)
tool_calls = st.builds(ToolCallPart, id=texts, name=filled, arguments_json=texts, signature=texts)
reasoning_parts = st.builds(ReasoningPart, text=texts, signature=texts, redacted_data=texts, id=texts)
refusal_parts = st.builds(RefusalPart, refusal=texts)
data_parts = st.builds(ProviderDataPart, provider_data=objects)
tool_results = st.builds(
    ToolResultPart,
    tool_call_id=filled,
    content=st.lists(text_parts | image_parts | data_parts, max_size=2).map(tuple),
    is_error=st.booleans(),
)
answer_parts = text_parts | tool_calls | reasoning_parts | refusal_parts | data_parts


@st.composite
def conversations(draw: st.DrawFn) -> tuple[ChatMessage, ...]:
    """Messages whose results of tools answer calls that stand before them."""
    messages = [ChatMessage(role=MessageRole.USER, content=(draw(text_parts | image_parts | data_parts),))]
    for _ in range(draw(st.integers(0, 3))):
        content = tuple(draw(st.lists(answer_parts, min_size=1, max_size=3)))
        messages.append(ChatMessage(role=MessageRole.ASSISTANT, content=content))
        calls = [part.id for part in content if isinstance(part, ToolCallPart) and part.id]
        if calls:
            role = draw(st.sampled_from([MessageRole.TOOL, MessageRole.USER]))
            results = tuple(draw(tool_results).model_copy(update={"tool_call_id": call}) for call in calls)
            messages.append(ChatMessage(role=role, content=results))
    return tuple(messages)


@st.composite
def requests(draw: st.DrawFn) -> GenerateRequest:
    tool_names = draw(st.lists(st.from_regex(r"[A-Za-z0-9_.:-]{1,8}", fullmatch=True), max_size=3, unique=True))
    choices = st.builds(ToolChoice, mode=st.sampled_from([ToolChoiceMode.AUTO, ToolChoiceMode.NONE]))
    if tool_names:
        choices |= st.builds(ToolChoice, name=st.sampled_from(tool_names)) | st.just(ToolChoice(mode=ToolChoiceMode.REQUIRED))
    first, longest = sorted(draw(st.tuples(delays, delays)))
    reasoning = (
        st.builds(ReasoningConfig, effort=st.sampled_from(ReasoningEffort), hide=st.booleans())
        | st.builds(ReasoningConfig, budget_tokens=int32s, hide=st.booleans())
        | st.builds(ReasoningConfig, hide=st.booleans())
    )
    formats = (
        st.just(TextFormat())
        | st.just(JsonObjectFormat())
        | st.builds(
            JsonSchemaFormat,
            name=st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True),
            schema_json=schemas,
            strict=maybe(st.booleans()),
        )
    )
    return GenerateRequest(
        request_id=draw(uuids),
        stream=draw(st.booleans()),
        provider=draw(maybe(names)),
        model=draw(maybe(models)),
        messages=draw(conversations()),
        max_tokens=draw(maybe(int32s)),
        temperature=draw(maybe(st.floats(0, 2))),
        top_p=draw(maybe(st.floats(0, 1))),
        top_k=draw(maybe(int32s)),
        seed=draw(maybe(st.integers(-(2**63), 2**63 - 1))),
        stop_sequences=tuple(draw(st.lists(filled, max_size=2))),
        tools=tuple(
            Tool(name=name, description=draw(texts), parameters_json=draw(schemas), strict=draw(maybe(st.booleans())))
            for name in tool_names
        ),
        tool_choice=draw(maybe(choices)),
        parallel_tool_calls=draw(maybe(st.booleans())),
        response_format=draw(maybe(formats)),
        reasoning=draw(maybe(reasoning)),
        metadata=draw(
            st.builds(
                RequestMetadata, conversation_id=maybe(uuids), user_id=words | st.just(""), tags=st.lists(words, max_size=2).map(tuple)
            )
        ),
        retry=draw(
            st.builds(
                RetryConfig,
                strategy=maybe(st.sampled_from(RetryStrategy)),
                max_attempts=maybe(st.integers(1, 100)),
                initial_delay=st.sampled_from([None, first]),
                max_delay=st.sampled_from([None, longest]),
                backoff_multiplier=maybe(st.floats(1, 100)),
            )
        ),
        fallback=draw(
            st.builds(
                FallbackConfig,
                enabled=maybe(st.booleans()),
                providers=st.lists(names, max_size=2, unique=True).map(tuple),
                model_mapping=st.dictionaries(models, models, max_size=2),
                mid_stream=maybe(st.sampled_from(MidStreamFallback)),
                on_context_length=st.sampled_from([None, True]),
                on_content_filter=st.sampled_from([None, True]),
            )
        ),
        timeouts=draw(
            st.builds(Timeouts, first_token=maybe(positives), idle=maybe(positives), progress=maybe(positives), total=maybe(positives))
        ),
        on_disconnect=draw(maybe(st.sampled_from(DisconnectPolicy))),
        quiet=draw(st.booleans()),
        timing=draw(st.booleans()),
        provider_options=draw(objects),
    )


counts = st.integers(0, 2**31 - 1)
usages = st.builds(
    Usage,
    input_tokens=counts,
    output_tokens=counts,
    total_tokens=counts,
    cached_input_tokens=counts,
    reasoning_tokens=counts,
    source=maybe(st.sampled_from(UsageSource)),
)
int64s = st.integers(-(2**63), 2**63 - 1)
rate_limits = st.builds(RateLimitInfo, retry_after=maybe(positives), limit=maybe(int64s), remaining=maybe(int64s), reset_time=maybe(millis))
error_fields: dict[str, Any] = {
    "request_id": texts,
    "message": texts,
    "code": st.sampled_from(ErrorCode),
    "subreason": texts,
    "provider": texts,
    "http_status": st.integers(0, 999),
    "provider_type": texts,
    "provider_code": texts,
    "retryable": st.booleans(),
    "rate_limit": maybe(rate_limits),
    "field_violations": st.lists(st.builds(Violation, field=texts, description=texts), max_size=2).map(tuple),
    "provider_request_id": texts,
    "provider_text": texts,
}
bare_errors = st.builds(ProviderError, **error_fields)
attempts = st.builds(
    Attempt,
    provider=texts,
    model=texts,
    state=st.sampled_from(State),
    error=maybe(bare_errors),
    usage=maybe(usages),
    start_time=millis,
    duration=maybe(millis),
    replay_safety=maybe(st.sampled_from(ReplaySafety)),
    provider_updated_at=maybe(millis),
)
results = st.builds(
    GenerationResult,
    content=st.lists(answer_parts | image_parts | tool_results, max_size=3).map(tuple),
    finish_reason=maybe(st.sampled_from(FinishReason)),
    native_finish_reason=texts,
    usage=maybe(usages),
    provider=texts,
    model=texts,
    duration=maybe(millis),
    first_token_latency=maybe(millis),
    attempts=st.lists(attempts, max_size=2).map(tuple),
    fallback=maybe(st.builds(FallbackInfo, provider=texts, model=texts, reason=texts)),
    cost=maybe(int64s),
)
errors = st.builds(ProviderError, **error_fields, attempts=st.lists(attempts, max_size=2).map(tuple), partial=maybe(results))
transitions = st.builds(
    Transition,
    from_state=st.sampled_from(State),
    to_state=st.sampled_from(State),
    event=st.sampled_from(Event),
    time=millis,
    attempt=counts,
    provider=texts,
    model=texts,
    reason=texts,
    wait=maybe(delays),
)
deltas = (
    st.builds(TextDelta, texts)
    | st.builds(ReasoningDelta, text=texts, signature=texts, redacted_data=texts, id=texts)
    | st.builds(ToolCallDelta, position=counts, id=texts, name=texts, arguments_delta=texts, signature=texts)
    | st.builds(RefusalDelta, texts)
    | st.builds(ProviderDataDelta, objects)
)
chunks = st.builds(
    StreamChunk,
    index=counts,
    delta=maybe(deltas),
    attempt=int32s,
    finish_reason=maybe(st.sampled_from(FinishReason)),
    merged=counts,
)
discontinuities = st.builds(Discontinuity, attempt=counts, provider=texts, model=texts, discard_from_index=counts, reason=texts)
events = transitions | chunks | discontinuities | st.builds(Completed, results) | st.builds(Failed, errors)


# ---------------------------------------------------------------- protobuf messages, right or wrong


@cache
def messages_of(descriptor: Any, depth: int = 3) -> st.SearchStrategy[dict[str, Any]]:
    """The fields of any message of this type that its parser accepts: right, wrong, empty, unknown enum numbers, all mixed."""
    if descriptor.full_name == "google.protobuf.Struct":
        return st.fixed_dictionaries({}, optional={"fields": st.dictionaries(st.text(max_size=3), _struct_values(depth), max_size=2)})
    entries = {}
    for field in descriptor.fields:
        if field.message_type is not None and depth == 0:
            continue
        entries[field.name] = _field(field, depth)
    oneofs = [[field.name for field in oneof.fields] for oneof in descriptor.oneofs if len(oneof.fields) > 1]
    return st.fixed_dictionaries({}, optional=entries).map(lambda fields: _one_of_each(fields, oneofs))


def _one_of_each(fields: dict[str, Any], oneofs: list[list[str]]) -> dict[str, Any]:
    for arms in oneofs:
        for arm in [arm for arm in arms if arm in fields][1:]:
            del fields[arm]
    return fields


@cache
def _struct_values(depth: int) -> st.SearchStrategy[dict[str, Any]]:
    flat = (
        st.just({})
        | st.builds(lambda x: {"number_value": x}, st.floats())
        | st.builds(lambda x: {"string_value": x}, st.text(max_size=3))
        | st.builds(lambda x: {"bool_value": x}, st.booleans())
        | st.just({"null_value": 0})
    )
    if depth <= 0:
        return flat
    inner = _struct_values(depth - 1)
    return (
        flat
        | st.builds(lambda x: {"list_value": {"values": x}}, st.lists(inner, max_size=2))
        | st.builds(lambda x: {"struct_value": {"fields": x}}, st.dictionaries(st.text(max_size=3), inner, max_size=2))
    )


def _field(field: Any, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return st.dictionaries(st.text(max_size=3) | models, st.text(max_size=3) | models, max_size=2)
    if field.message_type is not None:
        one: st.SearchStrategy[Any] = messages_of(field.message_type, depth - 1)
    elif field.enum_type is not None:
        one = st.integers(0, len(field.enum_type.values)) | st.integers(-(2**31), 2**31 - 1)
    else:
        one = {
            field.CPPTYPE_STRING: st.binary(max_size=4)
            if field.type == field.TYPE_BYTES
            else st.sampled_from(["", "x", "user", "a b", "\0", "{}", str(uuid.UUID(int=1))]) | texts,
            field.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1) | st.integers(0, 3),
            field.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1) | st.integers(0, 100),
            field.CPPTYPE_BOOL: st.booleans(),
            field.CPPTYPE_DOUBLE: st.floats() | st.floats(0, 2),
        }[field.cpp_type]
    return st.lists(one, max_size=2) if field.is_repeated else one


@pytest.fixture(scope="session")
def generated() -> SimpleNamespace:
    """The strategies, for tests that draw from them."""
    return SimpleNamespace(
        requests=requests(),
        results=results,
        errors=errors,
        attempts=attempts,
        usages=usages,
        events=events,
        chunks=chunks,
        transitions=transitions,
        objects=objects,
        messages_of=messages_of,
    )
