from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_server.domain.answer import PART_WEIGHT, Answer
from headrace_server.domain.errors import ErrorCode, ProviderFault, Subreason
from headrace_server.domain.events import (
    Delta,
    ProviderDataDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    merge,
)
from headrace_server.domain.message import ContentPart, ProviderDataPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from headrace_server.domain.result import GenerationResult
from headrace_server.domain.usage import Usage


def content(*deltas: Delta | None) -> tuple[ContentPart, ...]:
    """What an answer holds after these pieces; None ends a block."""
    answer = Answer()
    for delta in deltas:
        if delta is None:
            answer.seal()
        else:
            answer.add(delta)
    return answer.content()


def test_an_answer_is_empty_until_something_comes() -> None:
    answer = Answer()
    assert answer.is_empty
    assert answer.content() == ()
    answer.add(TextDelta(""))
    assert not answer.is_empty


def test_pieces_of_one_kind_grow_one_part() -> None:
    assert content(TextDelta("a"), TextDelta("b"), RefusalDelta("n"), RefusalDelta("o"), TextDelta("c")) == (
        TextPart(text="ab"),
        RefusalPart(refusal="no"),
        TextPart(text="c"),
    )


@pytest.mark.parametrize(
    ("later", "fell"),
    [((9, 5), False), ((9, 4), False), ((9, 3), True), ((8, 5), True)],
)
def test_answer_remembers_that_its_usage_fell(later: tuple[int, int], fell: bool) -> None:
    answer = Answer()
    for read, written in ((9, 1), (9, 4), later, (20, 20)):
        answer.usage = Usage(input_tokens=read, output_tokens=written)
    assert answer.usage == Usage(input_tokens=20, output_tokens=20)
    assert answer.usage_fell is fell


def test_an_answer_takes_only_so_many_pieces() -> None:
    answer = Answer()
    answer.most_pieces = PART_WEIGHT + 3
    for _ in range(3):
        answer.add(TextDelta("a"))
    with pytest.raises(ProviderFault) as caught:
        answer.add(TextDelta("a"))
    assert (caught.value.fault.code, caught.value.fault.subreason) == (ErrorCode.SERVER_ERROR, Subreason.EVENT_TOO_LARGE)
    assert answer.content() == (TextPart(text="aaa"),)


def test_a_part_weighs_more_than_a_piece() -> None:
    answer = Answer()
    answer.most_pieces = 10 * (PART_WEIGHT + 1)
    parts: list[Delta] = [TextDelta("a"), RefusalDelta("b")]
    for i in range(10):
        answer.add(parts[i % 2])
    with pytest.raises(ProviderFault):
        answer.add(TextDelta("a"))


def test_a_block_that_ended_is_not_grown_by_the_next() -> None:
    assert content(TextDelta("a"), None, TextDelta("b"), TextDelta("c")) == (TextPart(text="a"), TextPart(text="bc"))


def test_calls_grow_by_their_position_wherever_their_pieces_stand() -> None:
    parts = content(
        ToolCallDelta(position=0, id="a", name="f"),
        ToolCallDelta(position=1, id="b", name="g", arguments_delta="{"),
        TextDelta("meanwhile"),
        ToolCallDelta(position=0, arguments_delta="{}", signature="s"),
        ToolCallDelta(position=1, arguments_delta="}"),
    )
    assert parts == (
        ToolCallPart(id="a", name="f", arguments_json="{}", signature="s"),
        ToolCallPart(id="b", name="g", arguments_json="{}"),
        TextPart(text="meanwhile"),
    )


def test_a_signature_closes_a_piece_of_reasoning() -> None:
    parts = content(
        ReasoningDelta(text="a"),
        ReasoningDelta(text="b", id="r1"),
        ReasoningDelta(signature="s"),
        ReasoningDelta(text="next"),
        ReasoningDelta(redacted_data="secret"),
        ReasoningDelta(text="after"),
    )
    assert parts == (
        ReasoningPart(text="ab", signature="s", id="r1"),
        ReasoningPart(text="next"),
        ReasoningPart(redacted_data="secret"),
        ReasoningPart(text="after"),
    )


def test_another_id_begins_another_piece_of_reasoning() -> None:
    assert content(ReasoningDelta(text="a", id="1"), ReasoningDelta(text="b", id="2")) == (
        ReasoningPart(text="a", id="1"),
        ReasoningPart(text="b", id="2"),
    )


def test_what_the_api_does_not_model_stays_as_it_came() -> None:
    assert content(ProviderDataDelta({"a": 1}), ProviderDataDelta({"b": 2})) == (
        ProviderDataPart(provider_data={"a": 1}),
        ProviderDataPart(provider_data={"b": 2}),
    )


def test_what_a_provider_says_can_be_stored_and_read_again() -> None:
    deep: dict[str, Any] = {"nul": "a\0b"}
    for _ in range(40):
        deep = {"in": deep}
    nul = "a\0b"
    answer = Answer()
    run = [
        TextDelta(nul),
        RefusalDelta(nul),
        ReasoningDelta(text=nul, signature=nul, redacted_data=nul, id=nul),
        ToolCallDelta(position=0, id=nul, name=nul, arguments_delta=nul, signature=nul),
        TextDelta("half \ud83d"),
        ProviderDataDelta(deep),
    ]
    for delta in run:
        answer.add(delta)
    result = GenerationResult.model_construct(content=answer.content())
    assert GenerationResult.model_validate_json(result.model_dump_json()) == result
    assert run[0] == TextDelta("a\ufffdb")
    assert run[-2] == TextDelta("half \ufffd")
    last = answer.content()[-1]
    assert isinstance(last, ProviderDataPart)
    for _ in range(25):
        last = last.provider_data if isinstance(last, ProviderDataPart) else last
        last = last["in"]
    assert isinstance(last, str)
    assert last.endswith('{"nul":"a\\u0000b"}' + "}" * 15)


def test_a_call_that_begins_without_a_name_gets_one_that_can_be_stored() -> None:
    delta = ToolCallDelta(position=0, id="a")
    (part,) = content(delta)
    assert isinstance(part, ToolCallPart)
    assert part.name == delta.name == "\ufffd"
    assert ToolCallPart.model_validate(part.model_dump()) == part


def test_a_providers_words_are_cut_and_can_be_stored() -> None:
    answer = Answer()
    answer.model = answer.native_finish_reason = answer.provider_request_id = "\0" + "x" * 1_000
    assert answer.model == answer.native_finish_reason == answer.provider_request_id == "\ufffd" + "x" * 255


def test_an_answer_knows_whether_it_calls_tools_and_how_long_it_is() -> None:
    answer = Answer()
    answer.add(TextDelta("12345"))
    assert not answer.has_tool_calls
    assert answer.characters == 5
    answer.add(ToolCallDelta(position=0, name="f"))
    assert answer.has_tool_calls
    assert answer.characters > 5


texts = st.text(min_size=1, max_size=4)
deltas = (
    st.builds(TextDelta, texts)
    | st.builds(RefusalDelta, texts)
    | st.builds(ReasoningDelta, text=texts)
    | st.builds(ToolCallDelta, position=st.integers(0, 2), id=texts, name=texts, arguments_delta=texts)
    | st.builds(ToolCallDelta, position=st.integers(0, 2), arguments_delta=texts)
)


@given(st.lists(deltas, max_size=20))
def test_merged_chunks_make_the_same_answer_as_single_ones(run: list[Delta]) -> None:
    assert content(*[delta for delta, _ in merge(run)]) == content(*run)


@given(st.lists(deltas, max_size=20))
def test_no_character_of_an_answer_is_lost(run: list[Delta]) -> None:
    parts = content(*run)
    said = "".join(delta.text for delta in run if isinstance(delta, TextDelta))
    assert "".join(part.text for part in parts if isinstance(part, TextPart)) == said
    for position in range(3):
        asked = [delta for delta in run if isinstance(delta, ToolCallDelta) and delta.position == position]
        arguments = "".join(delta.arguments_delta for delta in asked)
        assert not asked or arguments in [part.arguments_json for part in parts if isinstance(part, ToolCallPart)]
