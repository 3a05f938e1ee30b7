"""Requests from what a caller gives: a text or a conversation, and fields by their names."""

import json
import re
import secrets
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypedDict

from google.protobuf.struct_pb2 import Struct

from headrace.v1.message_pb2 import (
    MESSAGE_ROLE_ASSISTANT,
    MESSAGE_ROLE_SYSTEM,
    MESSAGE_ROLE_TOOL,
    MESSAGE_ROLE_USER,
    ChatMessage,
    ContentPart,
    MessageRole,
    ToolResult,
)
from headrace.v1.request_pb2 import (
    DisconnectPolicy,
    FallbackConfig,
    GenerateRequest,
    ReasoningConfig,
    RequestMetadata,
    ResponseFormat,
    RetryConfig,
    Timeouts,
    Tool,
    ToolChoice,
)

Prompt: TypeAlias = str | ChatMessage | Sequence[ChatMessage] | GenerateRequest
"""What is asked: a text of the user, a message, a conversation, or a whole request."""

_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
"""The form of a request id. What has another one is sent as it is, for the service to refuse."""


class RequestFields(TypedDict, total=False):
    """The fields of a GenerateRequest; what each means and may be stands there."""

    request_id: str
    """UUID, the idempotency key, sent in lower case; by default the client makes one."""
    provider: str
    model: str
    system: str
    """Instructions to the model: a message of the role SYSTEM before the others."""
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int
    stop_sequences: Iterable[str]
    tools: Iterable[Tool]
    tool_choice: ToolChoice
    parallel_tool_calls: bool
    response_format: ResponseFormat
    reasoning: ReasoningConfig
    metadata: RequestMetadata
    retry: RetryConfig
    fallback: FallbackConfig
    timeouts: Timeouts
    on_disconnect: DisconnectPolicy.ValueType
    """What becomes of the generation when its reader leaves: asked for with DRAIN or KEEP it runs on, else it is cancelled.

    By default it goes on while the client makes a lost connection again; with CANCEL it ends with the connection too.
    """
    quiet: bool
    timing: bool
    provider_options: Mapping[str, Any]
    priority: int


def build_request(prompt: Prompt, fields: RequestFields, timeout: float | None = None) -> GenerateRequest:
    """The request. It has an id, and a total timeout of at most `timeout` seconds."""
    plain: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    system = plain.pop("system", None)
    options = plain.pop("provider_options", None)
    request = GenerateRequest()
    if system is not None:
        request.messages.append(_message(MESSAGE_ROLE_SYSTEM, (system,)))
    if isinstance(prompt, GenerateRequest):
        request.MergeFrom(prompt)
    else:
        request.messages.extend(_conversation(prompt))
    request.MergeFrom(GenerateRequest(**plain))
    if options is not None:
        request.provider_options.CopyFrom(Struct())
        request.provider_options.update(dict(options))
    if not request.request_id:
        request.request_id = new_id()
    elif _UUID.fullmatch(request.request_id):
        request.request_id = request.request_id.lower()  # as events tell it
    if timeout is not None:
        total, ours = request.timeouts.total, max(1, round(timeout * 1e9))
        total.FromNanoseconds(min(total.ToNanoseconds() or ours, ours))
    return request


def new_id() -> str:
    """A fresh UUIDv7, which sorts by time."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    value = value & ~(0xF000 << 64) | 0x7000 << 64
    return str(uuid.UUID(int=value & ~(0xC000 << 48) | 0x8000 << 48))


def user(*parts: str | ContentPart) -> ChatMessage:
    """A message of the user: texts, and parts such as `ContentPart(image=Image(uri="https://…"))`."""
    return _message(MESSAGE_ROLE_USER, parts)


def assistant(*parts: str | ContentPart) -> ChatMessage:
    """A message of the model. What the model answered is better sent back as `Answer.message`, which has its signatures."""
    return _message(MESSAGE_ROLE_ASSISTANT, parts)


def system(*parts: str | ContentPart) -> ChatMessage:
    """Instructions to the model."""
    return _message(MESSAGE_ROLE_SYSTEM, parts)


def tool_result(tool_call_id: str, *parts: str | ContentPart, is_error: bool = False) -> ChatMessage:
    """What a tool answered to the call of this id."""
    result = ToolResult(tool_call_id=tool_call_id, content=_parts(parts), is_error=is_error)
    return ChatMessage(role=MESSAGE_ROLE_TOOL, content=[ContentPart(tool_result=result)])


def tool(name: str, description: str, parameters: Mapping[str, Any] | str, *, strict: bool | None = None) -> Tool:
    """A tool that the model may call. `parameters`: the JSON Schema of its arguments, as an object or as a string."""
    as_json = parameters if isinstance(parameters, str) else json.dumps(parameters, ensure_ascii=False)
    return Tool(name=name, description=description, parameters_json=as_json, strict=strict)


def _conversation(prompt: str | ChatMessage | Sequence[ChatMessage]) -> Iterable[ChatMessage]:
    if isinstance(prompt, str):
        return (user(prompt),)
    return (prompt,) if isinstance(prompt, ChatMessage) else prompt


def _message(role: MessageRole.ValueType, parts: Iterable[str | ContentPart]) -> ChatMessage:
    return ChatMessage(role=role, content=_parts(parts))


def _parts(parts: Iterable[str | ContentPart]) -> list[ContentPart]:
    return [ContentPart(text=part) if isinstance(part, str) else part for part in parts]
