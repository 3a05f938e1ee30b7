"""The Python client of Headrace.

    import headrace

    with headrace.Client("localhost:50051") as client:
        print(client.generate("What does a river do?").text)
        with client.stream("And a lake?", provider="claude", max_tokens=200, timeout=30) as stream:
            for piece in stream:
                print(piece, end="", flush=True)

`Client` is for blocking callers, `headrace.aio.Client` for asyncio; errors are `HeadraceError` and its subclasses. The messages of the
contract are in `headrace.v1`; those that a caller writes or reads are here too.
"""

from headrace.answer import Answer
from headrace.client import Client
from headrace.errors import (
    AuthenticationFailed,
    Cancelled,
    ConnectionLost,
    ContentFiltered,
    HeadraceError,
    Interrupted,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    QuotaExceeded,
    RateLimited,
    TimedOut,
    Unavailable,
)
from headrace.request import Prompt, RequestFields, assistant, new_id, system, tool, tool_result, user
from headrace.retry import Retry
from headrace.session import Session
from headrace.stream import Stream
from headrace.v1.event_pb2 import GenerationEvent, StreamChunk
from headrace.v1.lifecycle_pb2 import RequestState, StateTransition
from headrace.v1.message_pb2 import ChatMessage, ContentPart, Image, Reasoning, ToolCall, ToolResult
from headrace.v1.request_pb2 import (
    DisconnectPolicy,
    FallbackConfig,
    GenerateRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    MidStreamFallback,
    ReasoningConfig,
    ReasoningEffort,
    RequestMetadata,
    ResponseFormat,
    RetryConfig,
    RetryStrategy,
    Timeouts,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from headrace.v1.request_service_pb2 import RequestRecord
from headrace.v1.result_pb2 import Attempt, FieldViolation, GenerationResult, ProviderError
from headrace.v1.usage_pb2 import Usage

__all__ = [
    "Answer",
    "Attempt",
    "AuthenticationFailed",
    "Cancelled",
    "ChatMessage",
    "Client",
    "ConnectionLost",
    "ContentFiltered",
    "ContentPart",
    "DisconnectPolicy",
    "FallbackConfig",
    "FieldViolation",
    "GenerateRequest",
    "GenerationEvent",
    "GenerationResult",
    "HeadraceError",
    "Image",
    "Interrupted",
    "InvalidRequest",
    "JsonObjectFormat",
    "JsonSchemaFormat",
    "MidStreamFallback",
    "ModelNotFound",
    "NotFound",
    "Prompt",
    "ProviderError",
    "QuotaExceeded",
    "RateLimited",
    "Reasoning",
    "ReasoningConfig",
    "ReasoningEffort",
    "RequestFields",
    "RequestMetadata",
    "RequestRecord",
    "RequestState",
    "ResponseFormat",
    "Retry",
    "RetryConfig",
    "RetryStrategy",
    "Session",
    "StateTransition",
    "Stream",
    "StreamChunk",
    "TimedOut",
    "Timeouts",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "ToolChoiceMode",
    "ToolResult",
    "Unavailable",
    "Usage",
    "assistant",
    "new_id",
    "system",
    "tool",
    "tool_result",
    "user",
]
