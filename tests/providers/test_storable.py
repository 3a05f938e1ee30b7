"""Whatever a decoder makes of damaged answers, the store takes it, and gives the same back; and the chunks say what the result says."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace_server.domain.answer import Answer
from headrace_server.domain.events import Delta, ProviderDataDelta, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from headrace_server.domain.lifecycle import State
from headrace_server.domain.record import LogRow
from headrace_server.domain.result import FinishReason, GenerationResult
from headrace_server.providers.upstream import MAX_EVENT
from headrace_server.store.rows import LOGS
from support.exchanges import CASES, Case, Said, ToolUse
from support.reading import Reading

ID = "01890a5d-ac96-774b-bcce-b302099a8057"

EVERYTHING = Said(texts=("one", " two"), reasoning=("hm", "m"), calls=(ToolUse(), ToolUse("peek", "{}", "call_2")), refusal="no")


def nested(levels: int) -> Any:
    value: Any = "deep"
    for _ in range(levels):
        value = {"in": [value]}
    return value


NASTY = st.sampled_from(
    [
        *("", "\0", "a\0b", "\ud800", "\U0001f4a5", "\u2028", "x" * 300, "{", '{"a":"\\u0000"}', "call_1", "text", "brand_new"),
        *(None, True, 0, -1, 3, 10**30, 10**400, 1e308, 0.5, -0.0),
        *([], {}, [None], {"\0": "\0"}, {"": {"text": "\0"}}, nested(12), nested(60), ["\0"] * 3),
    ]
)
"""What takes the place of something in an answer."""


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Everything inside a JSON value: what holds it, and its key there."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def damage(data: st.DataObject, value: Any) -> None:
    """Replace, rename or remove something in it."""
    holder, key = data.draw(st.sampled_from(list(places(value)) or [({"": 0}, "")]))
    match data.draw(st.sampled_from(["replace", "replace", "rename", "remove"])):
        case "replace":
            holder[key] = copy.deepcopy(data.draw(NASTY))
        case "rename" if isinstance(holder, dict):
            holder[data.draw(st.sampled_from(["brand_new", "\0", "provider_data", "text", "name", "id"]))] = holder.pop(key)
        case _:
            del holder[key]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
@given(st.data())
def test_a_damaged_stream_leaves_what_can_be_stored(case: Case, data: st.DataObject) -> None:
    frames = [frame.partition(b"data: ")[2].strip() for frame in case.stream(EVERYTHING)]
    events = [json.loads(frame) for frame in frames if frame != b"[DONE]"]
    for _ in range(data.draw(st.integers(1, 4))):
        damage(data, events)
    Reading(case).events([json.dumps(event).encode() for event in events]).check()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
@given(st.data())
def test_a_damaged_whole_answer_leaves_what_can_be_stored(case: Case, data: st.DataObject) -> None:
    body = copy.deepcopy(case.whole_json(EVERYTHING))
    for _ in range(data.draw(st.integers(1, 4))):
        damage(data, body)
    Reading(case).whole(json.dumps(body).encode()).check()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_every_place_of_an_answer_may_hold_what_databases_refuse(case: Case) -> None:
    for nasty in ("a\0b", "", None, 10**400, nested(60)):
        total = len(list(places(case.whole_json(EVERYTHING))))
        for number in range(total):
            body = copy.deepcopy(case.whole_json(EVERYTHING))
            holder, key = list(places(body))[number]
            holder[key] = nasty
            Reading(case).whole(json.dumps(body).encode()).check()


texts = st.text(st.characters(), max_size=4) | st.sampled_from(["\0", "\ud800", "\udc00", "\ud83d\udca5"])
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
deltas = st.lists(
    st.builds(TextDelta, texts)
    | st.builds(RefusalDelta, texts)
    | st.builds(ReasoningDelta, text=texts, signature=texts, redacted_data=texts, id=texts)
    | st.builds(ToolCallDelta, position=st.integers(0, 2), id=texts, name=texts, arguments_delta=texts, signature=texts)
    | st.builds(ProviderDataDelta, st.dictionaries(texts, jsons, max_size=3)),
    max_size=8,
)


@given(deltas, texts)
@example([ProviderDataDelta({"deep": nested(60), "x": float("nan")})], "\0" * MAX_EVENT)
def test_an_answer_can_be_stored_whatever_a_decoder_puts_in(run: list[Delta], word: str) -> None:
    answer = Answer()
    answer.model = answer.native_finish_reason = answer.provider_request_id = word
    for delta in run:
        answer.add(delta)
    result = GenerationResult.model_construct(
        content=answer.content(), model=answer.model, native_finish_reason=answer.native_finish_reason, finish_reason=FinishReason.STOP
    )
    row = LogRow(id=ID, request_id=ID, state=State.COMPLETED, response_data=result, start_time=0, created_at=0, updated_at=0)
    assert LOGS.decode(LOGS.encode(row)) == row
    told = Answer()
    for delta in run:  # as readers get them: the pieces themselves are mended
        told.add(delta)
    assert told.content() == answer.content()
