"""The dialect claude: whatever bytes come, its decoder ends in a ProviderFault or in a sound answer."""

import json

from hypothesis import given
from hypothesis import strategies as st

from headrace_server.domain.errors import Fault, ProviderFault
from headrace_server.providers.claude import FINISH, ClaudeDecoder
from headrace_server.providers.sse import Scanner

STREAM = [
    {"type": "message_start", "message": {"type": "message", "model": "m", "content": [], "usage": {"input_tokens": 10}}},
    {"type": "ping"},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "h€h"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "sig"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Grüße, 日本"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"q": 1}'}},
    {"type": "content_block_stop", "index": 2},
    {"type": "content_block_start", "index": 3, "content_block": {"type": "brand_new", "parts": []}},
    {"type": "content_block_delta", "index": 3, "delta": {"type": "brand_new_delta", "parts": [1]}},
    {"type": "content_block_stop", "index": 3},
    {"type": "content_block_start", "index": 4, "content_block": {"type": "tool_use", "id": "t", "name": "n", "input": {}}},
    {"type": "content_block_delta", "index": 4, "delta": {"type": "input_json_delta", "partial_json": '{"a": "b"}'}},
    {"type": "content_block_stop", "index": 4},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
]
FRAMES = [f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode() for event in STREAM]
WHOLE = json.dumps(
    {
        "type": "message",
        "content": [{"type": "text", "text": "x"}, {"type": "tool_use", "id": "t", "name": "n", "input": {"a": 1}}],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 1},
    }
).encode()


def read(body: bytes) -> ClaudeDecoder | Fault:
    """Read a streamed body to its end. Any exception but ProviderFault fails the test."""
    scanner, decoder = Scanner(), ClaudeDecoder()
    try:
        for name, data in scanner.feed(body) + scanner.close():
            decoder.event(name, data)
        decoder.finish()
    except ProviderFault as error:
        return error.fault
    return decoder


def read_whole(body: bytes) -> ClaudeDecoder | Fault:
    decoder = ClaudeDecoder()
    try:
        decoder.whole(body)
        decoder.finish()
    except ProviderFault as error:
        return error.fault
    return decoder


def is_sound(outcome: ClaudeDecoder | Fault) -> bool:
    """Whether an outcome is a fault, or an answer that ended for a reason and can be put together."""
    if isinstance(outcome, Fault):
        return bool(outcome.message)
    return outcome.answer.finish_reason in FINISH.values() and isinstance(outcome.answer.content(), tuple)


@given(st.binary(max_size=400))
def test_random_bytes_are_never_a_success(body):
    assert isinstance(read(body), Fault)
    assert isinstance(read_whole(body), Fault)


@given(st.integers(0, sum(map(len, FRAMES))))
def test_a_stream_cut_anywhere_is_a_success_only_with_its_last_event(at):
    body = b"".join(FRAMES)
    is_complete = at >= len(body) - 2  # the blank line after the last event may be missing
    assert isinstance(read(body[:at]), ClaudeDecoder) == is_complete


@given(st.permutations(FRAMES))
def test_events_in_any_order_are_a_fault_or_a_sound_answer(frames):
    assert is_sound(read(b"".join(frames)))


@given(st.data())
def test_changed_bytes_are_a_fault_or_a_sound_answer(data):
    for original, reader in ((b"".join(FRAMES), read), (WHOLE, read_whole)):
        body = bytearray(original)
        for _ in range(data.draw(st.integers(1, 5))):
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
        assert is_sound(reader(bytes(body)))


_JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5), st.lists, max_leaves=4)
_FIELDS = ["delta", "content_block", "message", "usage", "index", "type", "context_management"]


@given(st.sampled_from(STREAM), st.sampled_from(_FIELDS), _JSON)
def test_fields_of_another_kind_are_a_fault_or_a_sound_answer(event, name, value):
    body = b"".join(FRAMES[:-1]) + b"data: " + json.dumps(event | {name: value}).encode() + b"\n\n" + FRAMES[-1]
    assert is_sound(read(body))
