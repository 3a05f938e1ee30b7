"""The conversation: messages and their parts. Requests and answers use the same parts."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from headrace_server.domain.base import JsonStruct, Model, Text


class MessageRole(StrEnum):
    """Who speaks."""

    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"
    TOOL = "tool"


class TextPart(Model):
    """Plain text."""

    type: Literal["text"] = "text"
    text: Text


class ImagePart(Model):
    """A picture, by its bytes or by an address."""

    type: Literal["image"] = "image"
    media_type: Annotated[Text, Field(max_length=127)] = ""
    data: bytes | None = None
    uri: Annotated[Text, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.data is None) == (self.uri is None):
            raise ValueError("exactly one of data and uri must be set")
        if self.data is not None and not self.media_type:
            raise ValueError("media_type must be set beside data")
        return self


class ToolCallPart(Model):
    """A call of a tool, made by the model."""

    type: Literal["tool_call"] = "tool_call"
    id: Text = ""
    name: Annotated[Text, Field(min_length=1)]
    arguments_json: Text = ""
    signature: Text = ""


class ToolResultPart(Model):
    """What a tool answered: texts, pictures, and what only its provider knows."""

    type: Literal["tool_result"] = "tool_result"
    tool_call_id: Annotated[Text, Field(min_length=1)]
    content: tuple["ToolResultContent", ...] = ()
    is_error: bool = False


class ReasoningPart(Model):
    """Reasoning of the model, with what makes the next turn valid."""

    type: Literal["reasoning"] = "reasoning"
    text: Text = ""
    signature: Text = ""
    redacted_data: Text = ""
    id: Text = ""


class RefusalPart(Model):
    """The model's refusal to answer."""

    type: Literal["refusal"] = "refusal"
    refusal: Text


class ProviderDataPart(Model):
    """What the API does not model, in the provider's own words."""

    type: Literal["provider_data"] = "provider_data"
    provider_data: JsonStruct


ToolResultContent = Annotated[TextPart | ImagePart | ProviderDataPart, Field(discriminator="type")]
"""What a tool's answer is made of."""

ContentPart = Annotated[
    TextPart | ImagePart | ToolCallPart | ToolResultPart | ReasoningPart | RefusalPart | ProviderDataPart,
    Field(discriminator="type"),
]
"""One part of a message or of an answer."""

ToolResultPart.model_rebuild()

PARTS_BY_ROLE: dict[MessageRole, frozenset[str]] = {
    MessageRole.USER: frozenset({"text", "image", "tool_result", "provider_data"}),
    MessageRole.ASSISTANT: frozenset({"text", "tool_call", "reasoning", "refusal", "provider_data"}),
    MessageRole.SYSTEM: frozenset({"text", "provider_data"}),
    MessageRole.TOOL: frozenset({"tool_result", "provider_data"}),
}
"""Which parts each role may hold."""


class ChatMessage(Model):
    """One message of a conversation."""

    role: MessageRole
    content: Annotated[tuple[ContentPart, ...], Field(min_length=1)]
