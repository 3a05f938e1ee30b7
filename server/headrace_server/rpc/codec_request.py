"""GenerateRequest between protobuf and the domain.

Written by hand, field by field: a request of 20 messages takes some 30 µs so, and several times that by reflection. The rules stand in
the domain type; here only what a domain value could not tell any more (a duration below zero, a struct with NaN) is found wrong.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from headrace.v1 import message_pb2
from headrace.v1 import request_pb2 as pb
from headrace_server.domain.request import MAX_MESSAGES, GenerateRequest, JsonObjectFormat, JsonSchemaFormat, TextFormat
from headrace_server.domain.violations import Loc, validate
from headrace_server.rpc.codec_message import encode_part, part_fields
from headrace_server.rpc.codec_values import (
    DISCONNECT_POLICY,
    MID_STREAM_FALLBACK,
    REASONING_EFFORT,
    RETRY_STRATEGY,
    ROLE,
    TOOL_CHOICE_MODE,
    Wrong,
    dict_of_struct,
    maybe_duration,
    millis_of_duration,
    struct_of_dict,
)

MAX_PARTS = 20_000
"""Most parts in the messages of one request. A small message can hold millions of empty ones, and each costs time to refuse."""

_OPTIONAL_SCALARS: Final = ("max_tokens", "temperature", "top_p", "top_k", "seed", "parallel_tool_calls", "priority")
_DURATIONS: Final = ("first_token", "idle", "progress", "total")


def decode_generate_request(
    message: pb.GenerateRequest, *, stream: bool, request_id: str | None, max_messages: int = MAX_MESSAGES
) -> GenerateRequest:
    """The domain request. One without an id of its own takes the given `request_id`.

    Raises a Refusal (invalid_request) that names every wrong field at once.
    """
    wrong: Wrong = []
    fields: dict[str, Any] = {
        "stream": stream,
        "messages": _messages_fields(message, min(max_messages, MAX_MESSAGES), wrong),
        "quiet": message.quiet,
        "timing": message.timing,
    }
    if message.request_id or request_id:
        fields["request_id"] = message.request_id or request_id
    if message.provider:
        fields["provider"] = message.provider
    if message.model:
        fields["model"] = message.model
    for scalar in _OPTIONAL_SCALARS:
        if message.HasField(scalar):
            fields[scalar] = getattr(message, scalar)
    if message.stop_sequences:
        fields["stop_sequences"] = message.stop_sequences[:65]
    if message.tools:
        fields["tools"] = [_tool_fields(tool) for tool in message.tools[:1_001]]
    if message.on_disconnect:
        fields["on_disconnect"] = DISCONNECT_POLICY.member(message.on_disconnect)
    for name, read in _MESSAGES.items():
        if message.HasField(name):
            fields[name] = read(getattr(message, name), (name,), wrong)
    return validate(GenerateRequest.model_validate, fields, wrong)


def _messages_fields(message: pb.GenerateRequest, most: int, wrong: Wrong) -> list[dict[str, Any]]:
    messages: Sequence[message_pb2.ChatMessage] = message.messages
    if len(messages) > most:
        wrong.append((("messages",), f"must have at most {most:,} items"))
        messages = messages[:1]
    fields: list[dict[str, Any]] = []
    parts_left = MAX_PARTS
    for i, entry in enumerate(messages):
        parts = entry.content
        parts_left -= len(parts)
        if parts_left < 0:
            wrong.append((("messages",), f"must have at most {MAX_PARTS:,} content parts in all"))
            break
        content = [
            # Most parts are text; asking here saves them a call.
            {"type": "text", "text": part.text} if part.HasField("text") else part_fields(part, ("messages", i, "content", j), wrong)
            for j, part in enumerate(parts)
        ]
        fields.append({"role": ROLE.member(entry.role), "content": content} if entry.role else {"content": content})
    return fields


def _tool_fields(tool: pb.Tool) -> dict[str, Any]:
    fields: dict[str, Any] = {"name": tool.name, "description": tool.description, "parameters_json": tool.parameters_json}
    if tool.HasField("strict"):
        fields["strict"] = tool.strict
    return fields


def _tool_choice_fields(choice: pb.ToolChoice, at: Loc, wrong: Wrong) -> dict[str, Any]:
    match choice.WhichOneof("choice"):
        case "name":
            return {"name": choice.name}
        case "mode":
            return {"mode": TOOL_CHOICE_MODE.member(choice.mode)}
    return {}


def _response_format_fields(form: pb.ResponseFormat, at: Loc, wrong: Wrong) -> dict[str, Any]:
    kind = form.WhichOneof("format")
    if kind != "json_schema":
        return {"type": kind} if kind else {}
    schema = form.json_schema
    fields: dict[str, Any] = {"type": "json_schema", "name": schema.name, "schema_json": schema.schema_json}
    if schema.HasField("strict"):
        fields["strict"] = schema.strict
    return fields


def _reasoning_fields(reasoning: pb.ReasoningConfig, at: Loc, wrong: Wrong) -> dict[str, Any]:
    match reasoning.WhichOneof("amount"):
        case "effort":
            return {"effort": REASONING_EFFORT.member(reasoning.effort), "hide": reasoning.hide}
        case "budget_tokens":
            return {"budget_tokens": reasoning.budget_tokens, "hide": reasoning.hide}
    return {"hide": reasoning.hide}


def _metadata_fields(metadata: pb.RequestMetadata, at: Loc, wrong: Wrong) -> dict[str, Any]:
    return {"conversation_id": metadata.conversation_id or None, "user_id": metadata.user_id, "tags": metadata.tags[:65]}


def _retry_fields(retry: pb.RetryConfig, at: Loc, wrong: Wrong) -> dict[str, Any]:
    fields: dict[str, Any] = {"strategy": RETRY_STRATEGY.member(retry.strategy)}
    if retry.HasField("max_attempts"):
        fields["max_attempts"] = retry.max_attempts
    if retry.HasField("backoff_multiplier"):
        fields["backoff_multiplier"] = retry.backoff_multiplier
    if retry.HasField("initial_delay"):
        fields["initial_delay"] = millis_of_duration(retry.initial_delay, (*at, "initial_delay"), wrong)
    if retry.HasField("max_delay"):
        fields["max_delay"] = millis_of_duration(retry.max_delay, (*at, "max_delay"), wrong)
    return fields


def _fallback_fields(fallback: pb.FallbackConfig, at: Loc, wrong: Wrong) -> dict[str, Any]:
    return {
        "enabled": fallback.enabled if fallback.HasField("enabled") else None,
        "providers": fallback.providers[:65],
        "model_mapping": dict(islice(fallback.model_mapping.items(), 1_001)),
        "mid_stream": MID_STREAM_FALLBACK.member(fallback.mid_stream),
        "on_context_length": fallback.on_context_length or None,
        "on_content_filter": fallback.on_content_filter or None,
    }


def _timeouts_fields(timeouts: pb.Timeouts, at: Loc, wrong: Wrong) -> dict[str, Any]:
    return {name: millis_of_duration(getattr(timeouts, name), (*at, name), wrong) for name in _DURATIONS if timeouts.HasField(name)}


_MESSAGES: Mapping[Any, Callable[[Any, Loc, Wrong], dict[str, Any]]] = {
    "tool_choice": _tool_choice_fields,
    "response_format": _response_format_fields,
    "reasoning": _reasoning_fields,
    "metadata": _metadata_fields,
    "retry": _retry_fields,
    "fallback": _fallback_fields,
    "timeouts": _timeouts_fields,
    "provider_options": dict_of_struct,
}
"""The fields that are messages of their own, and who reads them."""


def encode_generate_request(request: GenerateRequest) -> pb.GenerateRequest:
    """The request in protobuf. `stream` is told by the RPC and has no field; what holds defaults only is left out."""
    message = pb.GenerateRequest(
        request_id=request.request_id,
        provider=request.provider or "",
        model=request.model or "",
        messages=[
            message_pb2.ChatMessage(role=ROLE.numbers[m.role], content=[encode_part(part) for part in m.content]) for m in request.messages
        ],
        stop_sequences=request.stop_sequences,
        tools=[
            pb.Tool(name=tool.name, description=tool.description, parameters_json=tool.parameters_json, strict=tool.strict)
            for tool in request.tools
        ],
        on_disconnect=DISCONNECT_POLICY.numbers[request.on_disconnect],
        quiet=request.quiet,
        timing=request.timing,
        priority=request.priority,
        provider_options=struct_of_dict(request.provider_options) if request.provider_options else None,
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        seed=request.seed,
        parallel_tool_calls=request.parallel_tool_calls,
        response_format=_encode_response_format(request),
        tool_choice=_encode_tool_choice(request),
        reasoning=_encode_reasoning(request),
    )
    if request.metadata != type(request.metadata)():
        metadata = request.metadata
        message.metadata.CopyFrom(
            pb.RequestMetadata(conversation_id=metadata.conversation_id or "", user_id=metadata.user_id, tags=metadata.tags)
        )
    if request.retry != type(request.retry)():
        retry = request.retry
        message.retry.CopyFrom(
            pb.RetryConfig(
                strategy=RETRY_STRATEGY.numbers[retry.strategy],
                max_attempts=retry.max_attempts,
                initial_delay=maybe_duration(retry.initial_delay),
                max_delay=maybe_duration(retry.max_delay),
                backoff_multiplier=retry.backoff_multiplier,
            )
        )
    if request.fallback != type(request.fallback)():
        fallback = request.fallback
        message.fallback.CopyFrom(
            pb.FallbackConfig(
                enabled=fallback.enabled,
                providers=fallback.providers,
                model_mapping=fallback.model_mapping,
                mid_stream=MID_STREAM_FALLBACK.numbers[fallback.mid_stream],
                on_context_length=bool(fallback.on_context_length),
                on_content_filter=bool(fallback.on_content_filter),
            )
        )
    if request.timeouts != type(request.timeouts)():
        message.timeouts.CopyFrom(pb.Timeouts(**{name: maybe_duration(getattr(request.timeouts, name)) for name in _DURATIONS}))
    return message


def _encode_tool_choice(request: GenerateRequest) -> pb.ToolChoice | None:
    choice = request.tool_choice
    if choice is None:
        return None
    return pb.ToolChoice(name=choice.name or "") if choice.mode is None else pb.ToolChoice(mode=TOOL_CHOICE_MODE.numbers[choice.mode])


def _encode_response_format(request: GenerateRequest) -> pb.ResponseFormat | None:
    match request.response_format:
        case TextFormat():
            return pb.ResponseFormat(text=pb.TextFormat())
        case JsonObjectFormat():
            return pb.ResponseFormat(json_object=pb.JsonObjectFormat())
        case JsonSchemaFormat(name=name, schema_text=schema, strict=strict):
            return pb.ResponseFormat(json_schema=pb.JsonSchemaFormat(name=name, schema_json=schema, strict=strict))
        case _:
            return None


def _encode_reasoning(request: GenerateRequest) -> pb.ReasoningConfig | None:
    reasoning = request.reasoning
    if reasoning is None:
        return None
    if reasoning.effort is not None:
        return pb.ReasoningConfig(effort=REASONING_EFFORT.numbers[reasoning.effort], hide=reasoning.hide)
    if reasoning.budget_tokens is not None:
        return pb.ReasoningConfig(budget_tokens=reasoning.budget_tokens, hide=reasoning.hide)
    return pb.ReasoningConfig(hide=reasoning.hide)
