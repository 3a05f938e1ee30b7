from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from headrace_server.domain.events import (
    Delta,
    ProviderDataDelta,
    ReasoningDelta,
    RefusalDelta,
    StreamChunk,
    TextDelta,
    ToolCallDelta,
    merge,
)

texts = st.text(max_size=5)
rare = st.just("") | texts
deltas = (
    st.builds(TextDelta, texts)
    | st.builds(ReasoningDelta, text=texts, signature=rare, redacted_data=rare, id=rare)
    | st.builds(ToolCallDelta, position=st.integers(0, 2), id=rare, name=rare, arguments_delta=texts, signature=rare)
    | st.builds(RefusalDelta, texts)
    | st.builds(ProviderDataDelta, st.dictionaries(texts, texts, max_size=1))
)


def spelled_out(run: list[Delta]) -> list[tuple[Any, ...]]:
    """Everything that deltas say, piece by piece and character by character, in order."""
    said: list[tuple[Any, ...]] = []
    for delta in run:
        match delta:
            case TextDelta(text):
                said += [("text", c) for c in text]
            case RefusalDelta(refusal):
                said += [("refusal", c) for c in refusal]
            case ReasoningDelta():
                marks = (delta.id, delta.signature, delta.redacted_data)
                said += [("reasoning", c) for c in delta.text] + ([("marks", *marks)] if any(marks) else [])
            case ToolCallDelta():
                at = delta.position
                said += [("call", at, delta.id, delta.name)] if delta.id or delta.name else []
                said += [("arguments", at, c) for c in delta.arguments_delta]
                said += [("signature", at, delta.signature)] if delta.signature else []
            case ProviderDataDelta(data):
                said.append(("data", str(data)))
    return said


@given(st.lists(deltas, max_size=20))
def test_merging_loses_and_reorders_nothing(run: list[Delta]) -> None:
    merged = merge(run)
    assert spelled_out([delta for delta, _ in merged]) == spelled_out(run)
    assert sum(count for _, count in merged) == len(run)
    assert all(count >= 1 for _, count in merged)


@given(st.lists(deltas, max_size=20))
def test_merging_changes_no_delta_that_it_was_given_and_does_nothing_twice(run: list[Delta]) -> None:
    before = [repr(delta) for delta in run]
    once = [delta for delta, _ in merge(run)]
    assert [repr(delta) for delta in run] == before
    assert [delta for delta, _ in merge(once)] == once


@given(st.lists(texts, min_size=1, max_size=50))
def test_texts_become_one_text(pieces: list[str]) -> None:
    assert merge([TextDelta(piece) for piece in pieces]) == [(TextDelta("".join(pieces)), len(pieces))]


def test_pieces_of_one_call_are_joined_and_of_two_calls_kept_apart() -> None:
    pieces = [
        ToolCallDelta(position=0, id="a", name="f"),
        ToolCallDelta(position=0, arguments_delta='{"x":'),
        ToolCallDelta(position=0, arguments_delta="1}"),
        ToolCallDelta(position=1, id="b", name="g"),
        ToolCallDelta(position=0, arguments_delta=" "),
    ]
    assert merge(pieces) == [
        (ToolCallDelta(position=0, id="a", name="f", arguments_delta='{"x":1}'), 3),
        (ToolCallDelta(position=1, id="b", name="g"), 1),
        (ToolCallDelta(position=0, arguments_delta=" "), 1),
    ]


def test_nothing_is_joined_across_a_signature_or_provider_data() -> None:
    run = [ReasoningDelta(text="a"), ReasoningDelta(signature="s"), ReasoningDelta(text="b"), ProviderDataDelta({}), ProviderDataDelta({})]
    assert [delta for delta, _ in merge(run)] == run


def test_nothing_is_merged_out_of_nothing() -> None:
    assert merge([]) == []


CHUNK: TypeAdapter[StreamChunk] = TypeAdapter(StreamChunk)


@pytest.mark.parametrize("delta", [TextDelta("x"), ReasoningDelta(text="x"), RefusalDelta("no"), ToolCallDelta(position=1), None])
def test_a_chunk_survives_json(delta: Delta | None) -> None:
    chunk = StreamChunk(index=3, delta=delta, attempt=1, merged=2, received=5)
    assert CHUNK.validate_json(CHUNK.dump_json(chunk)) == chunk


@pytest.mark.parametrize(
    "wrong",
    [
        {"index": -1, "delta": None, "attempt": 1},
        {"index": 0, "delta": None, "attempt": 0},
        {"index": 0, "delta": None, "attempt": 1, "merged": -1},
        {"index": 0, "delta": None, "attempt": 1, "finish_reason": "bored"},
        {"index": 0, "delta": {"text": 5}, "attempt": 1},
        {"index": 0, "delta": {"position": -1}, "attempt": 1},
        {"delta": None, "attempt": 1},
    ],
)
def test_a_chunk_with_wrong_fields_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CHUNK.validate_python(wrong)
