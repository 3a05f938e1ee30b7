"""A whole answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headrace.v1.message_pb2 import MESSAGE_ROLE_ASSISTANT, ChatMessage, ContentPart, ToolCall
from headrace.v1.result_pb2 import FinishReason, GenerationResult
from headrace.v1.usage_pb2 import Usage


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, or, as `HeadraceError.partial`, what there was of one. `result` has everything, this has the short ways to it.

    The next turn of a conversation:

        conversation = [headrace.user("What is the capital of France?")]
        answer = client.generate(conversation)
        conversation += [answer.message, headrace.user("And of Spain?")]
    """

    request_id: str
    """Id of the request, by which its record is found."""
    result: GenerationResult
    """The answer as it came."""

    @property
    def text(self) -> str:
        """Its texts, joined."""
        return "".join(part.text for part in self.result.content)

    @property
    def reasoning(self) -> str:
        """The texts of the model's reasoning, joined, as far as the provider shows it."""
        return "".join(part.reasoning.text for part in self.result.content)

    @property
    def refusal(self) -> str:
        """The model's refusal; empty where it did not refuse."""
        return "".join(part.refusal for part in self.result.content)

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The calls of tools that the model makes, in order."""
        return [part.tool_call for part in self.result.content if part.HasField("tool_call")]

    @property
    def content(self) -> Sequence[ContentPart]:
        """Its parts, in order."""
        return self.result.content

    @property
    def message(self) -> ChatMessage:
        """The answer as a message of the conversation, for the next turn. Signatures are in it, so that the turn is valid."""
        return ChatMessage(role=MESSAGE_ROLE_ASSISTANT, content=self.result.content)

    @property
    def finish_reason(self) -> str:
        """Why it ended: `stop`, `length`, `tool_calls` or `content_filter`; `error` in a partial answer."""
        return enum_word(FinishReason, self.result.finish_reason)

    @property
    def usage(self) -> Usage:
        """Its tokens."""
        return self.result.usage

    @property
    def provider(self) -> str:
        """Name of the provider that answered."""
        return self.result.provider

    @property
    def model(self) -> str:
        """The model, as the provider reports it."""
        return self.result.model

    @property
    def cost(self) -> int | None:
        """Its price in micro-USD (a millionth of a dollar); None where no price is known."""
        return self.result.cost if self.result.HasField("cost") else None


def enum_word(enum: Any, value: int) -> str:
    """An enum's value without its prefix, in lower case; empty where it is not set, its number where this client does not know it."""
    if not value or value not in enum.values():
        return str(value or "")
    prefix = str(enum.Name(0)).removesuffix("UNSPECIFIED")
    return str(enum.Name(value)).removeprefix(prefix).lower()
