"""The dialect claude: its decoder. Errors, requests and any bytes at all have test files of their own."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from headrace_server.domain.errors import ErrorCode, Fault, ProviderFault
from headrace_server.domain.events import Delta, ProviderDataDelta, ReasoningDelta, TextDelta, ToolCallDelta
from headrace_server.domain.message import ProviderDataPart, ReasoningPart, TextPart, ToolCallPart
from headrace_server.domain.result import FinishReason
from headrace_server.domain.usage import Usage, UsageSource
from headrace_server.providers.claude import FINISH, ClaudeDecoder

Event = dict[str, Any]


def start(index: int, **block: Any) -> Event:
    return {"type": "content_block_start", "index": index, "content_block": block}


def piece(index: int, kind: str, **delta: Any) -> Event:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind} | delta}


def stop(index: int) -> Event:
    return {"type": "content_block_stop", "index": index}


def ended(reason: str | None, *, usage: Any = None, **delta: Any) -> list[Event]:
    return [{"type": "message_delta", "delta": {"stop_reason": reason} | delta, "usage": usage}, {"type": "message_stop"}]


def message_start(**usage: Any) -> Event:
    return {"type": "message_start", "message": {"type": "message", "model": "claude-sonnet-4-6", "content": [], "usage": usage or None}}


BEGIN = message_start(input_tokens=10, output_tokens=1)


def text_block(index: int, *pieces: str) -> list[Event]:
    return [start(index, type="text", text=""), *(piece(index, "text_delta", text=p) for p in pieces), stop(index)]


def feed(events: Iterable[Event], *, finish: bool = True) -> tuple[ClaudeDecoder, list[Delta]]:
    """Decode events; check that exactly what was returned went into the answer."""
    decoder = ClaudeDecoder()
    deltas = [delta for event in events for delta in decoder.event(event["type"], json.dumps(event).encode())]
    if finish:
        decoder.finish()
    return decoder, deltas


def fault_of(call: Callable[[], object]) -> Fault:
    with pytest.raises(ProviderFault) as raised:
        call()
    return raised.value.fault


# ---------------------------------------------------------------- streams


def test_text_is_streamed_and_joined():
    decoder, deltas = feed([BEGIN, *text_block(0, "Hel", "lo"), *ended("end_turn")])
    assert deltas == [TextDelta("Hel"), TextDelta("lo")]
    assert decoder.answer.content() == (TextPart(text="Hello"),)
    assert decoder.answer.finish_reason is FinishReason.STOP
    assert decoder.answer.native_finish_reason == "end_turn"
    assert decoder.answer.model == "claude-sonnet-4-6"


def test_text_blocks_stay_apart_when_they_follow_one_another():
    decoder, _ = feed([BEGIN, *text_block(0, "one"), *text_block(1, "two"), *ended("end_turn")])
    assert decoder.answer.content() == (TextPart(text="one"), TextPart(text="two"))


def test_text_that_stands_in_the_start_of_its_block_is_kept():
    decoder, _ = feed([BEGIN, start(0, type="text", text="Hel"), piece(0, "text_delta", text="lo"), stop(0), *ended("end_turn")])
    assert decoder.answer.content() == (TextPart(text="Hello"),)


def test_thinking_keeps_its_signature_and_each_block_its_own():
    events = [
        BEGIN,
        start(0, type="thinking", thinking="", signature=""),
        piece(0, "thinking_delta", thinking="I "),
        piece(0, "thinking_delta", thinking="think"),
        piece(0, "signature_delta", signature="sig0"),
        stop(0),
        start(1, type="thinking", thinking="", signature=""),
        piece(1, "signature_delta", signature="sig1"),
        stop(1),
        start(2, type="redacted_thinking", data="secret"),
        stop(2),
        *text_block(3, "so"),
        *ended("end_turn"),
    ]
    decoder, deltas = feed(events)
    assert deltas[:3] == [ReasoningDelta(text="I "), ReasoningDelta(text="think"), ReasoningDelta(signature="sig0")]
    assert decoder.answer.content() == (
        ReasoningPart(text="I think", signature="sig0"),
        ReasoningPart(signature="sig1"),
        ReasoningPart(redacted_data="secret"),
        TextPart(text="so"),
    )


def test_tool_calls_are_numbered_and_their_arguments_joined():
    events = [
        BEGIN,
        *text_block(0, "Let me see."),
        start(1, type="tool_use", id="toolu_1", name="weather", input={}),
        piece(1, "input_json_delta", partial_json=""),
        piece(1, "input_json_delta", partial_json='{"city": '),
        piece(1, "input_json_delta", partial_json='"Köln"}'),
        stop(1),
        start(2, type="tool_use", id="toolu_2", name="now", input={}),
        piece(2, "input_json_delta", partial_json=""),
        stop(2),
        *ended("tool_use"),
    ]
    decoder, deltas = feed(events)
    assert deltas[1:] == [
        ToolCallDelta(position=0, id="toolu_1", name="weather"),
        ToolCallDelta(position=0, arguments_delta='{"city": '),
        ToolCallDelta(position=0, arguments_delta='"Köln"}'),
        ToolCallDelta(position=1, id="toolu_2", name="now"),
        ToolCallDelta(position=1, arguments_delta="{}"),
    ]
    assert decoder.answer.content()[1:] == (
        ToolCallPart(id="toolu_1", name="weather", arguments_json='{"city": "Köln"}'),
        ToolCallPart(id="toolu_2", name="now", arguments_json="{}"),
    )
    assert decoder.answer.finish_reason is FinishReason.TOOL_CALLS


def test_tool_arguments_cut_by_length_are_kept_as_they_came():
    events = [
        BEGIN,
        start(0, type="tool_use", id="toolu_1", name="weather", input={}),
        piece(0, "input_json_delta", partial_json='{"city": "K'),
        stop(0),
        *ended("max_tokens"),
    ]
    decoder, _ = feed(events)
    assert decoder.answer.content() == (ToolCallPart(id="toolu_1", name="weather", arguments_json='{"city": "K'),)
    assert decoder.answer.finish_reason is FinishReason.LENGTH


def test_a_caller_other_than_the_model_is_told_after_its_call():
    caller = {"type": "code_execution_20250825", "tool_id": "srvtoolu_1"}
    events = [
        BEGIN,
        start(0, type="tool_use", id="toolu_1", name="a", input={}, caller={"type": "direct"}),
        stop(0),
        start(1, type="tool_use", id="toolu_2", name="b", input={"x": 1}, caller=caller),
        stop(1),
        *ended("tool_use"),
    ]
    decoder, _ = feed(events)
    assert decoder.answer.content() == (
        ToolCallPart(id="toolu_1", name="a", arguments_json="{}"),
        ToolCallPart(id="toolu_2", name="b", arguments_json='{"x": 1}'),
        ProviderDataPart(provider_data={"caller": caller}),
    )


def test_a_server_tool_is_passed_on_whole_when_its_block_ends():
    result = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"type": "web_search_result", "url": "https://x"}]}
    events = [
        BEGIN,
        start(0, type="server_tool_use", id="srvtoolu_1", name="web_search", input={}),
        piece(0, "input_json_delta", partial_json='{"query":'),
        piece(0, "input_json_delta", partial_json=' "rain"}'),
        stop(0),
        start(1, **result),
        stop(1),
        *text_block(2, "It rains."),
        *ended("end_turn"),
    ]
    decoder, deltas = feed(events)
    call = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "rain"}}
    assert deltas == [ProviderDataDelta(call), ProviderDataDelta(result), TextDelta("It rains.")]
    assert decoder.answer.finish_reason is FinishReason.STOP


def test_a_server_tool_whose_input_was_cut_keeps_it_as_text():
    events = [
        BEGIN,
        start(0, type="server_tool_use", id="srvtoolu_1", name="web_search", input={}),
        piece(0, "input_json_delta", partial_json='{"query": "ra'),
        stop(0),
        *ended("max_tokens"),
    ]
    _, deltas = feed(events)
    call = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": '{"query": "ra'}
    assert deltas == [ProviderDataDelta(call)]


def test_a_block_of_an_unknown_type_is_passed_on_with_its_deltas_laid_over_it():
    events = [
        BEGIN,
        start(0, type="compaction", content="", notes=["a"], seal=None),
        piece(0, "compaction_delta", content="We spoke "),
        piece(0, "compaction_delta", content="of rain.", notes=["b"], seal={"v": 1}),
        stop(0),
        *text_block(1, "Yes."),
        *ended("end_turn"),
    ]
    decoder, deltas = feed(events)
    block = {"type": "compaction", "content": "We spoke of rain.", "notes": ["a", "b"], "seal": {"v": 1}}
    assert deltas == [ProviderDataDelta(block), TextDelta("Yes.")]
    assert decoder.answer.content()[1] == TextPart(text="Yes.")


def test_citations_come_after_the_text_they_belong_to():
    one, two = {"type": "char_location", "start_char_index": 0}, {"type": "char_location", "start_char_index": 7}
    events = [
        BEGIN,
        start(0, type="text", text="", citations=[]),
        piece(0, "citations_delta", citation=one),
        piece(0, "text_delta", text="It "),
        piece(0, "citations_delta", citation=two),
        piece(0, "text_delta", text="rains"),
        stop(0),
        *ended("end_turn"),
    ]
    decoder, _ = feed(events)
    assert decoder.answer.content() == (TextPart(text="It rains"), ProviderDataPart(provider_data={"citations": [one, two]}))


def test_what_an_answer_says_about_itself_is_passed_on():
    container = {"id": "container_1", "expires_at": "2026-01-01T00:00:00Z"}
    _, deltas = feed([BEGIN, *text_block(0, "x"), *ended("stop_sequence", stop_sequence="END", container=container, stop_details=None)])
    assert deltas[-1] == ProviderDataDelta({"stop_sequence": "END", "container": container})


@pytest.mark.parametrize(
    "event",
    [
        {"type": "ping"},
        {"type": "brand_new_event", "delta": "of another shape", "index": "x"},
        piece(0, "brand_new_delta", novelty=1),
        {"type": "content_block_stop", "index": 9},
        {"type": "message_delta", "usage": {"output_tokens": 3}},
    ],
)
def test_what_need_not_be_known_is_passed_over(event):
    decoder, deltas = feed([BEGIN, start(0, type="text", text=""), event, piece(0, "text_delta", text="x"), stop(0), *ended("end_turn")])
    assert deltas == [TextDelta("x")]
    assert decoder.answer.finish_reason is FinishReason.STOP


def test_new_fields_and_nulls_are_passed_over():
    events = [
        BEGIN | {"novelty": [1]},
        start(0, type="text", text=None, citations=None, novelty=2),
        piece(0, "text_delta", text=None),
        piece(0, "text_delta", text="x", novelty=3),
        stop(0),
        *ended("end_turn", novelty=4),
    ]
    assert feed(events)[1] == [TextDelta("x")]


def test_the_name_of_an_event_counts_where_its_data_has_no_type():
    decoder = ClaudeDecoder()
    fault = fault_of(lambda: decoder.event("error", b'{"error":{"type":"overloaded_error","message":"Overloaded"}}'))
    assert (fault.code, fault.subreason) == (ErrorCode.SERVER_ERROR, "OVERLOADED")


def test_events_after_message_stop_change_nothing():
    decoder, _ = feed([BEGIN, *text_block(0, "x"), *ended("end_turn")], finish=False)
    assert decoder.event("", json.dumps(piece(0, "text_delta", text="y")).encode()) == ()
    assert decoder.event("", b"{nonsense") == ()
    decoder.finish()
    assert decoder.answer.content() == (TextPart(text="x"),)


# ---------------------------------------------------------------- usage


def test_usage_counts_cached_tokens_as_input_and_later_counts_win():
    first = {"input_tokens": 10, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 1000, "output_tokens": 1}
    later = {"input_tokens": 20, "output_tokens": 7, "cache_read_input_tokens": None, "output_tokens_details": {"thinking_tokens": 5}}
    decoder, _ = feed([message_start(**first), *text_block(0, "x"), *ended("end_turn", usage=later)])
    assert decoder.answer.usage == Usage(
        input_tokens=1120,
        output_tokens=7,
        total_tokens=1127,
        cached_input_tokens=100,
        reasoning_tokens=5,
        source=UsageSource.PROVIDER,
    )


def test_usage_is_partial_when_the_stream_is_cut():
    decoder, _ = feed([message_start(input_tokens=10, output_tokens=1), *text_block(0, "x")], finish=False)
    assert fault_of(decoder.finish).subreason == "STREAM_TRUNCATED"
    assert decoder.answer.usage == Usage(input_tokens=10, output_tokens=1, total_tokens=11, source=UsageSource.PARTIAL)


def test_an_unknown_event_is_passed_over_when_it_is_not_even_json():
    decoder = ClaudeDecoder()
    assert decoder.event("hologram", b"not even JSON") == ()
    assert decoder.answer.unknown_events == 1
    for name in ("content_block_delta", "error", ""):
        with pytest.raises(ProviderFault):
            ClaudeDecoder().event(name, b"not even JSON")


def test_usage_is_unknown_when_none_is_told():
    decoder, _ = feed([message_start(), *text_block(0, "x"), *ended("end_turn")])
    assert decoder.answer.usage is None


@pytest.mark.parametrize("count", [-5, 1e18, "many", None, [], True, 2.0])
def test_usage_is_made_sane_when_a_count_is_not(count):
    usage = {"input_tokens": count, "output_tokens": count, "output_tokens_details": count}
    decoder, _ = feed([message_start(input_tokens=0), *text_block(0, "x"), *ended("end_turn", usage=usage)])
    assert decoder.answer.usage is not None
    assert 0 <= decoder.answer.usage.input_tokens <= 2**31 - 1
    assert 0 <= decoder.answer.usage.total_tokens <= 2**31 - 1


@pytest.mark.parametrize("usage", ["many", [], 7])
def test_usage_of_another_shape_is_passed_over(usage):
    decoder, _ = feed([BEGIN, *text_block(0, "x"), *ended("end_turn", usage=usage)])
    assert decoder.answer.usage == Usage(input_tokens=10, output_tokens=1, total_tokens=11, source=UsageSource.PROVIDER)


# ---------------------------------------------------------------- ends


@pytest.mark.parametrize(("native", "finish"), FINISH.items())
def test_stop_reason_is_mapped_and_kept(native, finish):
    decoder, _ = feed([BEGIN, *text_block(0, "x"), *ended(native)])
    assert decoder.answer.finish_reason is finish
    assert decoder.answer.native_finish_reason == native


def test_an_answer_that_stopped_normally_with_tool_calls_has_tool_calls_as_its_reason():
    decoder, _ = feed([BEGIN, start(0, type="tool_use", id="t", name="n", input={}), stop(0), *ended("end_turn")])
    assert decoder.answer.finish_reason is FinishReason.TOOL_CALLS


@pytest.mark.parametrize(
    ("native", "finish"),
    [("end_turn", FinishReason.STOP), ("max_tokens", FinishReason.LENGTH), ("refusal", FinishReason.CONTENT_FILTER)],
)
def test_an_empty_answer_with_a_stop_reason_is_complete(native, finish):
    decoder, deltas = feed([BEGIN, *ended(native)])
    assert deltas == []
    assert decoder.answer.finish_reason is finish


def test_a_refusal_tells_why():
    details = {"type": "refusal", "category": "cyber", "explanation": "no"}
    decoder, deltas = feed([BEGIN, *text_block(0, "Well"), *ended("refusal", stop_details=details)])
    assert deltas == [TextDelta("Well"), ProviderDataDelta({"stop_details": details})]
    assert decoder.answer.finish_reason is FinishReason.CONTENT_FILTER


@pytest.mark.parametrize("reason", [None, "", "brand_new_reason"])
def test_an_answer_fails_when_its_stop_reason_is_missing_or_unknown(reason):
    decoder, _ = feed([BEGIN, *text_block(0, "x"), *ended(reason)], finish=False)
    fault = fault_of(decoder.finish)
    assert (fault.code, fault.subreason, fault.retryable) == (ErrorCode.SERVER_ERROR, "", True)
    assert decoder.answer.finish_reason is FinishReason.ERROR
    assert decoder.answer.content() == (TextPart(text="x"),)


@pytest.mark.parametrize("kept", range(6))
def test_a_stream_cut_before_message_stop_fails_and_keeps_what_came(kept):
    events = [BEGIN, *text_block(0, "Hel", "lo"), *ended("end_turn")][:kept]
    decoder, _ = feed(events, finish=False)
    fault = fault_of(decoder.finish)
    assert (fault.code, fault.subreason, fault.retryable) == (ErrorCode.NETWORK_ERROR, "STREAM_TRUNCATED", True)
    assert "".join(part.text for part in decoder.answer.content() if isinstance(part, TextPart)) == "Hello"[: max(0, kept - 2) * 3]


def test_an_error_event_is_classified_and_keeps_what_came():
    decoder, _ = feed([BEGIN, *text_block(0, "Hel")], finish=False)
    data = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    fault = fault_of(lambda: decoder.event("error", data))
    assert (fault.code, fault.subreason, fault.retryable) == (ErrorCode.SERVER_ERROR, "OVERLOADED", True)
    assert fault.provider_type == "overloaded_error"
    assert decoder.answer.content() == (TextPart(text="Hel"),)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"type":"message_stop"} trailing',
        b"[" * 100_000,
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":7}}',
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\xff"}}',
        b'{"type":"content_block_delta","index":5,"delta":{"type":"text_delta","text":"x"}}',
        b'{"type":"content_block_delta","index":0}',
        b'{"type":"content_block_start","index":0}',
        b'{"type":"content_block_start","index":1,"content_block":null}',
        b'{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":1,"name":"x"}}',
        b'{"type":"content_block_start","index":1,"content_block":{"type":"odd","x":' + b"[" * 100_000 + b"}}",
    ],
)
def test_an_event_that_is_not_valid_is_a_fault(data):
    decoder, _ = feed([BEGIN, start(0, type="text", text="")], finish=False)
    fault = fault_of(lambda: decoder.event("content_block_delta", data))
    assert (fault.code, fault.subreason, fault.retryable) == (ErrorCode.SERVER_ERROR, "MALFORMED_EVENT", True)


# ---------------------------------------------------------------- whole answers


def whole(**message: Any) -> tuple[ClaudeDecoder, list[Delta]]:
    decoder = ClaudeDecoder()
    deltas = decoder.whole(json.dumps({"type": "message", "model": "claude-haiku-4-5"} | message).encode())
    decoder.finish()
    return decoder, list(deltas)


def test_a_whole_answer_gives_the_parts_a_stream_would_give():
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "rain"}}
    content = [
        {"type": "thinking", "thinking": "I think", "signature": "sig"},
        {"type": "redacted_thinking", "data": "secret"},
        search,
        {"type": "text", "text": "It rains", "citations": [{"type": "x"}]},
        {"type": "text", "text": "."},
        {"type": "tool_use", "id": "t", "name": "n", "input": {"big": 12345678901234567890123, "f": 1.0}},
    ]
    usage = {"input_tokens": 3, "output_tokens": 4}
    decoder, _ = whole(content=content, stop_reason="tool_use", usage=usage, container={"id": "c"}, context_management=None)
    assert decoder.answer.content() == (
        ReasoningPart(text="I think", signature="sig"),
        ReasoningPart(redacted_data="secret"),
        ProviderDataPart(provider_data=search),
        TextPart(text="It rains"),
        ProviderDataPart(provider_data={"citations": [{"type": "x"}]}),
        TextPart(text="."),
        ToolCallPart(id="t", name="n", arguments_json='{"big": 12345678901234567890123, "f": 1.0}'),
        ProviderDataPart(provider_data={"container": {"id": "c"}}),
    )
    assert decoder.answer.finish_reason is FinishReason.TOOL_CALLS
    assert decoder.answer.usage == Usage(input_tokens=3, output_tokens=4, total_tokens=7, source=UsageSource.PROVIDER)
    assert decoder.answer.model == "claude-haiku-4-5"


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"null", b"", b"<html>", b'{"content":7}', b'{"content":["x"]}', b'{"content":[{"type":"text","text":7}]}']
)
def test_a_whole_answer_that_is_no_message_is_a_fault(body):
    fault = fault_of(lambda: ClaudeDecoder().whole(body))
    assert (fault.code, fault.subreason) == (ErrorCode.SERVER_ERROR, "MALFORMED_EVENT")


def test_a_whole_answer_that_is_an_error_is_classified_by_its_body():
    body = b'{"type":"error","error":{"type":"rate_limit_error","message":"slow down"},"request_id":"req_1"}'
    fault = fault_of(lambda: ClaudeDecoder().whole(body))
    assert (fault.code, fault.provider_request_id) == (ErrorCode.RATE_LIMIT_EXCEEDED, "req_1")


def test_a_whole_answer_without_a_stop_reason_fails():
    decoder = ClaudeDecoder()
    decoder.whole(b'{"type":"message","content":[{"type":"text","text":"x"}],"stop_reason":null}')
    assert fault_of(decoder.finish).code is ErrorCode.SERVER_ERROR
