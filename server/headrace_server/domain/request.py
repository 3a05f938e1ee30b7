"""What a caller asks for, and the rules a request must obey."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from headrace_server.domain.base import JsonObjectText, JsonStruct, Millis, Model, ModelName, ProviderName, Text, Uuid, Word
from headrace_server.domain.message import PARTS_BY_ROLE, ChatMessage
from headrace_server.domain.retry import RetryStrategy

MAX_MESSAGES = 5_000
MAX_TIMEOUT = 7 * 24 * 3600 * 1000

PositiveMillis = Annotated[int, Field(gt=0, le=MAX_TIMEOUT)]
Delay = Annotated[Millis, Field(le=MAX_TIMEOUT)]
PositiveInt32 = Annotated[int, Field(gt=0, le=2**31 - 1)]


class MidStreamFallback(StrEnum):
    """What happens when a provider fails after a part of its answer was delivered."""

    NEVER = "never"
    RESTART = "restart"


class DisconnectPolicy(StrEnum):
    """What happens to a generation when its caller goes away."""

    CANCEL = "cancel"
    DRAIN = "drain"
    KEEP = "keep"


class ToolChoiceMode(StrEnum):
    """Whether tools are called."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


class ReasoningEffort(StrEnum):
    """How much the model is to reason."""

    NONE = "none"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Tool(Model):
    """A tool that the model may call; `parameters_json` is the JSON Schema of its arguments."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")]
    description: Text = ""
    parameters_json: JsonObjectText
    strict: bool | None = None


class ToolChoice(Model):
    """Whether, or which, tool is to be called: a mode or one name."""

    mode: ToolChoiceMode | None = None
    name: Annotated[Text, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        if (self.mode is None) == (self.name is None):
            raise ValueError("exactly one of mode and name must be set")
        return self


class TextFormat(Model):
    """Plain text."""

    type: Literal["text"] = "text"


class JsonObjectFormat(Model):
    """Any JSON object."""

    type: Literal["json_object"] = "json_object"


class JsonSchemaFormat(Model):
    """JSON that follows a schema."""

    type: Literal["json_schema"] = "json_schema"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    schema_text: JsonObjectText = Field(alias="schema_json")
    """The JSON Schema; `schema_json` in the API and in JSON (that name is taken in Python)."""
    strict: bool | None = None


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]
"""Form of the answer."""


class ReasoningConfig(Model):
    """How much the model reasons, in words or in tokens, and whether the caller's chunks show it."""

    effort: ReasoningEffort | None = None
    budget_tokens: PositiveInt32 | None = None
    hide: bool = False


class RequestMetadata(Model):
    """What the record is to be found by; never sent to a provider."""

    conversation_id: Uuid | None = None
    user_id: Word = ""
    tags: Annotated[tuple[Annotated[Word, Field(min_length=1)], ...], Field(max_length=64)] = ()


class RetryConfig(Model):
    """How a failing provider is tried again; what is None is the provider's or the service's default."""

    strategy: RetryStrategy | None = None
    max_attempts: Annotated[int, Field(ge=1, le=100)] | None = None
    initial_delay: Delay | None = None
    max_delay: Delay | None = None
    backoff_multiplier: Annotated[float, Field(ge=1, le=100)] | None = None


class FallbackConfig(Model):
    """Who stands in when a provider fails."""

    enabled: bool | None = None
    providers: Annotated[tuple[ProviderName, ...], Field(max_length=64)] = ()
    model_mapping: Annotated[dict[ModelName, ModelName], Field(max_length=1_000)] = Field(default_factory=dict)
    mid_stream: MidStreamFallback | None = None
    on_context_length: bool | None = None
    """Also where the prompt is too long for the model: for providers whose models take more."""
    on_content_filter: bool | None = None
    """Also where the prompt was refused by a filter."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.providers)) < len(self.providers):
            raise ValueError("providers must not name one twice")
        return self


class Timeouts(Model):
    """How long a call may take, in milliseconds; what is None is the provider's or the service's default."""

    first_token: PositiveMillis | None = None
    idle: PositiveMillis | None = None
    progress: PositiveMillis | None = None
    total: PositiveMillis | None = None


def _shared(value: Any) -> Any:
    """A default that all requests share: pydantic would copy a model that is a plain default, deeply, for every one."""
    return Field(default_factory=lambda: value)


_NOT_KEPT: set[str] = set()


class GenerateRequest(Model):
    """One generation. `stream` tells by which kind of RPC it was asked for."""

    request_id: Uuid
    stream: bool = False
    provider: ProviderName | None = None
    model: ModelName | None = None
    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: PositiveInt32 | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: PositiveInt32 | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop_sequences: Annotated[tuple[Annotated[Text, Field(min_length=1)], ...], Field(max_length=64)] = ()
    tools: Annotated[tuple[Tool, ...], Field(max_length=1_000)] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning: ReasoningConfig | None = None
    metadata: RequestMetadata = _shared(RequestMetadata())
    retry: RetryConfig = _shared(RetryConfig())
    fallback: FallbackConfig = _shared(FallbackConfig())
    timeouts: Timeouts = _shared(Timeouts())
    on_disconnect: DisconnectPolicy | None = None
    quiet: bool = False
    timing: bool = False
    priority: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    provider_options: JsonStruct = Field(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _every_violation_at_once(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Pydantic checks rules across fields only when each field is right; a caller is told of both at once."""
        if isinstance(data, cls):
            return data  # checked when it was made
        wrong: list[InitErrorDetails] = []
        checked = None
        try:
            checked = handler(data)
        except ValidationError as error:
            wrong = [
                InitErrorDetails(type=line["type"], loc=line["loc"], input=None, ctx=line.get("ctx", {}))
                for line in error.errors(include_url=False, include_input=False)
            ]
        wrong += [_violation(at, text) for at, text in _rules_across_fields(data)]
        if wrong or checked is None:
            raise ValidationError.from_exception_data(cls.__name__, wrong)
        for model in (checked, *checked.messages, *(part for message in checked.messages for part in message.content)):
            # Which fields were given is asked by nobody, and takes a KiB of every open stream, more of long conversations.
            object.__setattr__(model, "__pydantic_fields_set__", _NOT_KEPT)
        return checked


def _violation(at: tuple[str | int, ...], text: str) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("rule", "{text}", {"text": text}), loc=at, input=None)


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


def _word(value: Any, name: str) -> str | None:
    """A text field, or None where anything else stands in its place."""
    word = _get(value, name)
    return word if isinstance(word, str) else None


def _items(value: Any, name: str) -> Iterator[tuple[int, Any]]:
    items = _get(value, name)
    return enumerate(items if isinstance(items, list | tuple) else ())


def _rules_across_fields(request: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What is wrong between fields of a request that may itself be wrong anywhere: (path, text) for each."""
    calls: set[str | None] = set()
    for i, message in _items(request, "messages"):
        role = _word(message, "role")
        allowed = PARTS_BY_ROLE.get(role)  # type: ignore[call-overload]  # a role may come as its bare text
        for j, part in _items(message, "content"):
            kind, at = _word(part, "type"), ("messages", i, "content", j)
            if allowed is not None and kind is not None and kind not in allowed:
                yield at, f"a message of role {role} cannot hold a part of the kind {kind}"
            if kind == "tool_call":
                calls.add(_word(part, "id"))
            elif kind == "tool_result" and (call := _word(part, "tool_call_id")) and call not in calls:
                yield (*at, "tool_result", "tool_call_id"), "no earlier message holds a tool_call with this id"
    names: set[str | None] = set()
    for i, tool in _items(request, "tools"):
        name = _word(tool, "name")
        if name is not None and name in names:
            yield ("tools", i, "name"), "is already the name of an earlier tool"
        names.add(name)
    choice, retry = _get(request, "tool_choice"), _get(request, "retry")
    if _word(choice, "name") and _word(choice, "name") not in names:
        yield ("tool_choice", "name"), "is not the name of one of the tools"
    if _get(choice, "mode") == ToolChoiceMode.REQUIRED and not names:
        yield ("tool_choice", "mode"), "there are no tools to choose from"
    first, longest = _get(retry, "initial_delay"), _get(retry, "max_delay")
    if isinstance(first, int) and isinstance(longest, int) and first > longest:
        yield ("retry", "max_delay"), "must not be shorter than initial_delay"


def is_streaming_request(request: GenerateRequest) -> bool:
    """Whether the answer was asked for as a stream."""
    return request.stream


def is_non_streaming_request(request: GenerateRequest) -> bool:
    """Whether the answer was asked for as a whole."""
    return not request.stream
