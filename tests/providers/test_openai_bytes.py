"""Whatever bytes come, the decoder of the dialect openai ends in success or in a ProviderFault."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from headrace_server.domain.errors import ProviderFault, Subreason
from headrace_server.domain.events import Delta, TextDelta
from headrace_server.domain.message import TextPart
from headrace_server.providers.openai_decoder import MADE_ID, ChatDecoder
from headrace_server.providers.sse import Scanner


def event(delta: dict[str, Any], **more: Any) -> bytes:
    return b"data: " + json.dumps({"id": "1", "choices": [{"index": 0, "delta": delta} | more]}).encode() + b"\n\n"


DETAIL = {"type": "reasoning.text", "text": "hm", "signature": "s"}
END = event({}, finish_reason="tool_calls")
BODY = b"".join(
    (
        event({"role": "assistant", "content": ""}),
        event({"reasoning": "hm", "reasoning_details": [DETAIL]}),
        event({"content": "Grüße 👋"}, logprobs={"content": [{"token": "G"}]}),
        event({"content": [{"type": "text", "text": "x"}]}),
        event({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x":'}}]}),
        event({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}),
        event({"function_call": {"name": "g", "arguments": "{}"}}),
        END,
        b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n',
        b"data: [DONE]\n\n",
    )
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = """id model choices usage error object delta message content tool_calls function name arguments index finish_reason logprobs
reasoning reasoning_details refusal function_call x_groq citations extra_content custom type text thinking data summary signature"""
FIELDS = st.sampled_from(NAMES.split())
SHAPED = st.recursive(JSON, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(FIELDS, inner, max_size=4), max_leaves=12)
CALLS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "index": st.none() | st.integers(0, 2),
            "id": st.none() | st.sampled_from(["", "a", "b"]),
            "function": st.fixed_dictionaries(
                {}, optional={"name": st.sampled_from([None, "", "f", "g"]), "arguments": st.sampled_from([None, "", "{}", {}])}
            ),
        },
    ),
    max_size=3,
)


def settle(pieces: Sequence[bytes]) -> ProviderFault | None:
    """How a stream ends: well (None), or by the fault; any other exception fails the test."""
    decoder, scanner = ChatDecoder(), Scanner()
    deltas: list[Delta] = []
    fault = None
    try:
        for piece in pieces:
            for name, data in scanner.feed(piece):
                deltas += decoder.event(name, data)
        for name, data in scanner.close():
            deltas += decoder.event(name, data)
        decoder.finish()
    except ProviderFault as error:
        fault = error
    assert (decoder.answer.finish_reason is None) == (fault is not None)
    texts = [part.text for part in decoder.answer.content() if isinstance(part, TextPart)]
    assert "".join(texts) == "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
    return fault


@given(st.integers(0, len(BODY)))
def test_stream_that_is_cut_succeeds_only_after_its_end_was_told(at):
    fault = settle([BODY[:at]])
    if fault is None:
        assert at >= BODY.index(END) + len(END.rstrip())
    else:
        assert fault.fault.subreason in (Subreason.STREAM_TRUNCATED, Subreason.MALFORMED_EVENT)


def test_stream_that_is_cut_between_its_events_succeeds_only_after_its_end_was_told():
    for at in range(len(BODY)):
        if BODY[:at].endswith(b"\n\n"):
            assert (settle([BODY[:at]]) is None) == (at >= BODY.index(END) + len(END))


@given(st.lists(st.integers(0, len(BODY)), max_size=4), st.randoms(use_true_random=False))
def test_reordered_pieces_settle(cuts, random):
    pieces = [BODY[a:b] for a, b in pairwise(sorted({0, *cuts, len(BODY)}))]
    random.shuffle(pieces)
    settle(pieces)


@given(st.integers(0, len(BODY) - 1), st.binary(max_size=6))
def test_damaged_bytes_settle(at, damage):
    settle([BODY[:at] + damage + BODY[at + len(damage) :]])


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_random_bytes_settle(pieces):
    settle(pieces)


@given(st.lists(SHAPED, max_size=4))
def test_random_json_settles(events):
    settle([b"data: " + json.dumps(data).encode() + b"\n\n" for data in events])


@given(st.dictionaries(FIELDS, SHAPED, max_size=5))
def test_random_messages_settle(message):
    settle([event(message), END])


@given(st.lists(CALLS, max_size=5))
def test_pieces_of_calls_settle_and_join_to_the_answer(events):
    decoder = ChatDecoder()
    pieces: dict[int, str] = {}
    for calls in events:
        for delta in decoder.event("", event({"tool_calls": calls})[6:].strip()):
            pieces[delta.position] = pieces.get(delta.position, "") + delta.arguments_delta
    parts = decoder.answer.content()
    assert sorted(pieces.items()) == list(enumerate(part.arguments_json for part in parts))
    assert all(part.id for part in parts)
    made = [part.id for part in parts if part.id.startswith(MADE_ID)]
    assert len(set(made)) == len(made)


@given(st.binary(max_size=60) | SHAPED.map(lambda value: json.dumps(value).encode()))
def test_random_whole_answers_settle(body):
    decoder = ChatDecoder()
    fault = None
    try:
        decoder.whole(body)
        decoder.finish()
    except ProviderFault as error:
        fault = error
    assert (decoder.answer.finish_reason is None) == (fault is not None)
