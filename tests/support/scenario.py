"""What the scenario of tests/clients/README.md sends, and what must be seen of it, for the Python client."""

from collections.abc import Sequence
from typing import Any

from headrace import ContentPart, FallbackConfig, GenerationEvent, GenerationResult, RequestState, StateTransition, tool, user

PROMPT = "one two three"
SAID = "You said: one two three This answer comes from the fake provider, one word at a time."
TOKENS = [f" tok{number}" for number in range(64)]
FIELDS: dict[str, Any] = {"fallback": FallbackConfig(enabled=False)}
"""Of every request."""

WEATHER = tool("get_weather", "The weather in a city.", '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}')
EMPTY_PART = user(ContentPart())
EMPTY_PART_FIELDS = {"messages[0].content[0]", "temperature"}

WAY = ["IDLE", "VALIDATING", "REQUESTING", "STREAMING", "COMPLETED"]
"""The states of a request that goes well."""


def check_unary(result: GenerationResult) -> None:
    assert [part.text for part in result.content] == [SAID]
    assert result.provider == "echo"
    assert (result.usage.input_tokens, result.usage.output_tokens, result.usage.total_tokens, result.usage.source) == (3, 17, 20, 1)


def check_stream(events: Sequence[GenerationEvent]) -> None:
    chunks = [event.chunk for event in events if event.HasField("chunk")]
    assert way([event.transition for event in events if event.HasField("transition")]) == WAY
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert "".join(chunk.text for chunk in chunks) == "".join(TOKENS)
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == [chunks[-1].finish_reason] == [1]
    completed = events[-1].completed
    assert [part.text for part in completed.content] == ["".join(TOKENS)]
    assert completed.usage.output_tokens == 64


def check_tool_call(events: Sequence[GenerationEvent]) -> None:
    pieces = [event.chunk.tool_call for event in events if event.chunk.HasField("tool_call")]
    assert {piece.position for piece in pieces} == {0}
    assert (pieces[0].id, pieces[0].name) == ("call_weather_1", "get_weather")
    assert "".join(piece.arguments_delta for piece in pieces) == '{"city":"Paris"}'
    (part,) = events[-1].completed.content
    assert (part.tool_call.id, part.tool_call.name, part.tool_call.arguments_json) == ("call_weather_1", "get_weather", '{"city":"Paris"}')


def way(transitions: Sequence[StateTransition]) -> list[str]:
    """The states that were gone through."""
    return [_word(transitions[0].from_state), *(_word(transition.to_state) for transition in transitions)]


def _word(state: RequestState.ValueType) -> str:
    return RequestState.Name(state).removeprefix("REQUEST_STATE_")
