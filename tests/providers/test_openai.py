"""The decoder of the dialect openai: accents of its servers, ends and faults."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from headrace_server.domain.base import MAX_STRUCT_DEPTH
from headrace_server.domain.errors import ErrorCode, ProviderFault, Subreason
from headrace_server.domain.events import Delta, ProviderDataDelta, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from headrace_server.domain.message import ProviderDataPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from headrace_server.domain.result import FinishReason
from headrace_server.domain.usage import MOST_TOKENS, Usage, UsageSource
from headrace_server.providers.openai_decoder import FUNCTION_ID, MADE_ID, ChatDecoder

Json = dict[str, Any]
DONE = b"[DONE]"


def chunk(delta: Json | None = None, finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    return json.dumps({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m-1", "choices": [choice], **more}).encode()


def call(index: int | None, arguments: str | None, id: str | None = None, name: str | None = None, **more: Any) -> Json:
    return {"tool_calls": [{"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}, **more}]}


USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
STOP = chunk(finish="stop")
END = (chunk(finish="tool_calls"), DONE)


def read(*events: bytes) -> tuple[ChatDecoder, list[Delta]]:
    """A stream that ends properly."""
    decoder = ChatDecoder()
    deltas = [delta for data in events for delta in decoder.event("", data)]
    decoder.finish()
    return decoder, deltas


def fails(*events: bytes, decoder: ChatDecoder | None = None) -> ProviderFault:
    """A stream that fails somewhere, at the latest with its end."""
    decoder = decoder or ChatDecoder()
    with pytest.raises(ProviderFault) as caught:
        for data in events:
            decoder.event("", data)
        decoder.finish()
    return caught.value


def whole(message: Json, finish: str | None = "stop", **more: Any) -> tuple[ChatDecoder, Sequence[Delta]]:
    decoder = ChatDecoder()
    choice = {"index": 0, "message": message, "finish_reason": finish}
    deltas = decoder.whole(json.dumps({"id": "1", "model": "m-1", "choices": [choice], "usage": USAGE, **more}).encode())
    decoder.finish()
    return decoder, deltas


# ---------------------------------------------------------------- text, ends, usage


def test_text_is_joined_and_the_end_is_told():
    decoder, deltas = read(chunk({"role": "assistant", "content": ""}), chunk({"content": "Hé"}), chunk({"content": "llo"}), STOP, DONE)
    assert deltas == [TextDelta("Hé"), TextDelta("llo")]
    answer = decoder.answer
    assert answer.content() == (TextPart(text="Héllo"),)
    assert (answer.finish_reason, answer.native_finish_reason) == (FinishReason.STOP, "stop")
    assert (answer.model, answer.provider_request_id, answer.usage) == ("m-1", "chatcmpl-1", None)


def test_request_id_of_the_headers_is_not_overwritten():
    decoder = ChatDecoder()
    decoder.answer.provider_request_id = "req_1"
    decoder.event("", STOP)
    assert decoder.answer.provider_request_id == "req_1"


def test_whole_answer_reads_like_a_stream():
    decoder, deltas = whole({"role": "assistant", "content": "Hello", "refusal": None, "tool_calls": None})
    assert deltas == [TextDelta("Hello")]
    assert decoder.answer.usage == Usage(input_tokens=10, output_tokens=5, total_tokens=15, source=UsageSource.PROVIDER)


@pytest.mark.parametrize("native", ["stop", "length", "content_filter"])
def test_empty_answer_is_complete_when_its_end_is_told(native):
    decoder, deltas = read(chunk(finish=native), DONE)
    assert deltas == []
    assert decoder.answer.finish_reason == native


def test_done_is_not_needed():
    assert read(chunk({"content": "a"}), STOP)[0].answer.finish_reason == FinishReason.STOP


def test_nothing_counts_after_done():
    decoder, deltas = read(chunk({"content": "a"}), STOP, DONE, chunk({"content": "b"}), b"garbage", chunk(finish="length"), b" [DONE] ")
    assert deltas == [TextDelta("a")]
    assert decoder.answer.finish_reason == FinishReason.STOP


def test_first_of_two_ends_counts():
    assert read(chunk({"content": "a"}), chunk(finish="length"), STOP, DONE)[0].answer.finish_reason == FinishReason.LENGTH


@pytest.mark.parametrize(
    "events", [(), (chunk({"content": "a"}),), (chunk({"content": "a"}), DONE), (chunk(finish=""), chunk({"content": "a"}))]
)
def test_answer_without_a_finish_reason_is_truncated(events):
    fault = fails(*events).fault
    assert (fault.code, fault.subreason, fault.retryable) == (ErrorCode.NETWORK_ERROR, Subreason.STREAM_TRUNCATED, True)


def test_done_alone_is_an_empty_answer():
    assert fails(DONE).fault.subreason == Subreason.EMPTY


@pytest.mark.parametrize("native", ["error", "insufficient_system_resource", "abort", "brand_new"])
def test_unknown_end_is_an_error(native):
    decoder = ChatDecoder()
    fault = fails(chunk({"content": "a"}), chunk(finish=native), DONE, decoder=decoder).fault
    assert (fault.code, fault.retryable) == (ErrorCode.SERVER_ERROR, True)
    assert decoder.answer.native_finish_reason == native
    assert decoder.answer.content() == (TextPart(text="a"),)


def test_first_of_several_choices_is_read():
    decoder, deltas = read(chunk({"content": "a"}), chunk({"content": "b"}, index=1), chunk(finish="length", index=1), STOP)
    assert deltas == [TextDelta("a")]
    assert decoder.answer.finish_reason == FinishReason.STOP


@pytest.mark.parametrize(
    "events",
    [
        (STOP, chunk(usage=USAGE)),
        (STOP, json.dumps({"choices": [], "usage": USAGE}).encode()),
        (chunk(finish="stop", usage=USAGE),),
        (chunk(finish="stop", x_groq={"id": "req", "usage": USAGE}),),
        (chunk({"content": "a"}, usage={"prompt_tokens": 10}), chunk(finish="stop", usage=USAGE), chunk(usage=None), chunk(usage={})),
    ],
)
def test_usage_is_found_wherever_it_stands(events):
    usage = read(*events)[0].answer.usage
    assert usage == Usage(input_tokens=10, output_tokens=5, total_tokens=15, source=UsageSource.PROVIDER)


@pytest.mark.parametrize(
    ("details", "cached", "reasoning"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 3}}, 4, 3),
        ({"prompt_cache_hit_tokens": 4}, 4, 0),
        ({"cached_tokens": 4, "prompt_tokens_details": None, "completion_tokens_details": "?"}, 4, 0),
    ],
)
def test_cached_and_reasoning_tokens_are_read_in_all_forms(details, cached, reasoning):
    usage = read(chunk(finish="stop", usage=USAGE | details))[0].answer.usage
    assert usage is not None
    assert (usage.cached_input_tokens, usage.reasoning_tokens) == (cached, reasoning)


def test_nonsense_in_usage_is_clamped():
    usage = read(chunk(finish="stop", usage={"prompt_tokens": -4, "completion_tokens": 1e18, "total_tokens": "many"}))[0].answer.usage
    assert usage == Usage(input_tokens=0, output_tokens=MOST_TOKENS, total_tokens=MOST_TOKENS, source=UsageSource.PROVIDER)


def test_usage_is_partial_when_the_answer_is_cut():
    decoder = ChatDecoder()
    fails(chunk({"content": "a"}, usage=USAGE), decoder=decoder)
    assert decoder.answer.usage is not None
    assert decoder.answer.usage.source == UsageSource.PARTIAL


# ---------------------------------------------------------------- tool calls


def test_parallel_calls_are_told_apart_by_index():
    decoder, deltas = read(
        chunk({"role": "assistant", "content": None, **call(0, "", "a", "f")}),
        chunk(call(0, '{"x":')),
        chunk(call(1, "", "b", "g")),
        chunk(call(0, "1}")),
        chunk(call(1, "{}")),
        *END,
    )
    assert decoder.answer.content() == (
        ToolCallPart(id="a", name="f", arguments_json='{"x":1}'),
        ToolCallPart(id="b", name="g", arguments_json="{}"),
    )
    assert deltas[1] == ToolCallDelta(position=0, arguments_delta='{"x":')
    assert decoder.answer.finish_reason == FinishReason.TOOL_CALLS


@pytest.mark.parametrize("index", [0, None])
def test_calls_are_told_apart_by_id_when_the_index_does_not(index):
    decoder, _ = read(chunk(call(index, "{}", "a", "f")), chunk(call(index, '{"y":', "b", "g")), chunk(call(index, "2}")), *END)
    assert decoder.answer.content() == (
        ToolCallPart(id="a", name="f", arguments_json="{}"),
        ToolCallPart(id="b", name="g", arguments_json='{"y":2}'),
    )


def test_calls_without_index_and_id_begin_with_their_names():
    decoder, _ = read(chunk(call(None, "{", "", "f")), chunk(call(None, "}")), chunk(call(None, "{}", "", "f")), *END)
    first, second = decoder.answer.content()
    assert isinstance(first, ToolCallPart)
    assert isinstance(second, ToolCallPart)
    assert (first.arguments_json, second.arguments_json) == ("{}", "{}")
    assert first.id.startswith(MADE_ID)
    assert first.id != second.id


def test_id_and_name_go_out_once_when_every_piece_repeats_them():
    decoder, deltas = read(chunk(call(0, "{", "a", "f")), chunk(call(0, "}", "a", "f")), *END)
    assert deltas == [ToolCallDelta(position=0, id="a", name="f", arguments_delta="{"), ToolCallDelta(position=0, arguments_delta="}")]
    assert decoder.answer.content() == (ToolCallPart(id="a", name="f", arguments_json="{}"),)


def test_arguments_that_are_an_object_become_json():
    message = {"tool_calls": [{"function": {"name": "f", "arguments": {"x": [1]}}}]}
    decoder, _ = whole(message)
    (part,) = decoder.answer.content()
    assert isinstance(part, ToolCallPart)
    assert part.arguments_json == '{"x":[1]}'


def test_stop_with_calls_is_tool_calls():
    assert read(chunk(call(0, "{}", "a", "f")), STOP)[0].answer.finish_reason == FinishReason.TOOL_CALLS


def test_call_cut_by_length_is_not_tool_calls():
    assert read(chunk(call(0, '{"x', "a", "f")), chunk(finish="length"))[0].answer.finish_reason == FinishReason.LENGTH


def test_end_for_calls_without_any_is_empty():
    assert fails(*END).fault.subreason == Subreason.EMPTY


def test_function_call_of_old_gets_an_id_of_its_own_kind():
    decoder, _ = read(
        chunk({"content": None, "function_call": {"name": "f", "arguments": ""}}),
        chunk({"function_call": {"arguments": '{"x":1}'}}),
        chunk(finish="function_call"),
    )
    (part,) = decoder.answer.content()
    assert isinstance(part, ToolCallPart)
    assert (part.name, part.arguments_json) == ("f", '{"x":1}')
    assert part.id.startswith(FUNCTION_ID)
    assert decoder.answer.finish_reason == FinishReason.TOOL_CALLS


def test_signature_beside_a_call_is_kept():
    extra = {"google": {"thought_signature": "c2ln"}}
    decoder, _ = read(chunk(call(0, "{}", "a", "f", extra_content=extra)), *END)
    (part,) = decoder.answer.content()
    assert isinstance(part, ToolCallPart)
    assert json.loads(part.signature) == extra


# ---------------------------------------------------------------- refusals, reasoning, what the API does not model


def test_refusal_is_a_content_filter_though_the_provider_says_stop():
    decoder, deltas = read(chunk({"refusal": "I can"}), chunk({"refusal": "not."}), STOP, DONE)
    assert deltas == [RefusalDelta("I can"), RefusalDelta("not.")]
    assert decoder.answer.content() == (RefusalPart(refusal="I cannot."),)
    assert (decoder.answer.finish_reason, decoder.answer.native_finish_reason) == (FinishReason.CONTENT_FILTER, "stop")


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_read_from_either_field(field):
    decoder, _ = read(chunk({field: "Let me", "content": None}), chunk({field: " think"}), chunk({"content": "4", field: None}), STOP)
    assert decoder.answer.content() == (ReasoningPart(text="Let me think"), TextPart(text="4"))


def test_reasoning_in_both_fields_is_read_once():
    assert read(chunk({"reasoning": "a", "reasoning_content": "a"}), STOP)[0].answer.content() == (ReasoningPart(text="a"),)


def test_content_in_pieces_is_read_by_kind():
    pieces = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "closed": True},
        {"type": "text", "text": "144"},
        {"type": "reference", "reference_ids": [1]},
    ]
    decoder, _ = whole({"role": "assistant", "content": pieces})
    assert decoder.answer.content() == (ReasoningPart(text="hm"), TextPart(text="144"), ProviderDataPart(provider_data=pieces[2]))


def test_signed_details_are_kept_with_their_text():
    detail = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}
    decoder, deltas = read(
        chunk({"reasoning": "Let me", "reasoning_details": [detail | {"text": "Let me"}]}),
        chunk({"reasoning": " think", "reasoning_details": [detail | {"text": " think", "signature": None}]}),
        chunk({"reasoning_details": [detail | {"signature": "c2ln"}]}),
        chunk({"content": "4"}),
        STOP,
    )
    reasoning, text = decoder.answer.content()
    assert isinstance(reasoning, ReasoningPart)
    assert (reasoning.text, text) == ("Let me think", TextPart(text="4"))
    assert json.loads(reasoning.signature) == detail | {"signature": "c2ln"}
    assert [delta.text for delta in deltas if isinstance(delta, ReasoningDelta)] == ["Let me", " think", ""]


def test_encrypted_details_are_kept_whole():
    summary = {"type": "reasoning.summary", "summary": "Thought.", "format": "openai-responses-v1", "index": 0}
    encrypted = {"type": "reasoning.encrypted", "data": "Z0FB", "id": "rs_1", "format": "openai-responses-v1", "index": 0}
    decoder, _ = whole({"content": "4", "reasoning": "Thought.", "reasoning_details": [summary, encrypted]})
    first, second, _ = decoder.answer.content()
    assert isinstance(first, ReasoningPart)
    assert isinstance(second, ReasoningPart)
    assert first.text == "Thought."
    assert json.loads(first.signature) == {key: value for key, value in summary.items() if key != "summary"}
    assert json.loads(second.redacted_data) == encrypted


def test_plain_details_leave_nothing_but_their_text():
    decoder, _ = whole({"content": "4", "reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm", "index": 0}]})
    assert decoder.answer.content() == (ReasoningPart(text="hm"), TextPart(text="4"))


def test_what_is_not_modelled_is_passed_on_once():
    sources = ["https://a.example"]
    _, deltas = read(
        chunk({"content": "a"}, citations=sources),
        chunk({"content": "b"}, citations=sources),
        chunk(finish="stop", citations=[*sources, "x"]),
    )
    assert deltas == [
        TextDelta("a"),
        ProviderDataDelta({"citations": sources}),
        TextDelta("b"),
        ProviderDataDelta({"citations": [*sources, "x"]}),
    ]
    _, deltas = whole({"content": "a", "annotations": [{"type": "url_citation"}], "audio": None})
    assert deltas == [TextDelta("a"), ProviderDataDelta({"annotations": [{"type": "url_citation"}]})]


def test_what_is_deeper_than_a_struct_may_be_goes_out_as_json():
    deep: Any = "x"
    for _ in range(40):
        deep = [deep]
    _, (_, delta) = whole({"content": "a", "audio": deep})
    assert isinstance(delta, ProviderDataDelta)
    inner: Any = delta.provider_data["audio"]
    for _ in range(MAX_STRUCT_DEPTH - 1):
        (inner,) = inner
    assert inner == "[" * 16 + '"x"' + "]" * 16


def test_log_probabilities_come_together_at_the_end():
    def token(text: str) -> bytes:
        choice = {"index": 0, "delta": {"content": text}, "logprobs": {"content": [{"token": text}], "refusal": None}}
        return json.dumps({"choices": [choice]}).encode()

    decoder, _ = read(token("a"), token("b"), STOP)
    assert decoder.answer.content() == (
        TextPart(text="ab"),
        ProviderDataPart(provider_data={"logprobs": {"content": [{"token": "a"}, {"token": "b"}]}}),
    )


def test_message_that_repeats_the_stream_is_passed_over():
    choice = {"index": 0, "delta": {"content": "b"}, "message": {"content": "ab"}}
    assert read(chunk({"content": "a"}), json.dumps({"choices": [choice]}).encode(), STOP)[0].answer.content() == (TextPart(text="ab"),)


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"message": "boom", "type": "server_error", "code": None}, ErrorCode.SERVER_ERROR),
        ({"message": "overloaded"}, ErrorCode.SERVER_ERROR),
        ("overloaded", ErrorCode.SERVER_ERROR),
        ({"message": "slower", "code": 429}, ErrorCode.RATE_LIMIT_EXCEEDED),
        ({"message": "no", "type": "invalid_request_error", "code": "x", "status_code": 400}, ErrorCode.INVALID_REQUEST),
        ({"message": "empty", "code": "insufficient_quota"}, ErrorCode.QUOTA_EXCEEDED),
        ({}, ErrorCode.SERVER_ERROR),
    ],
)
def test_error_within_a_stream_stays_the_outcome(error, code):
    decoder = ChatDecoder()
    decoder.event("", chunk({"content": "a"}))
    with pytest.raises(ProviderFault) as caught:
        decoder.event("", json.dumps({"error": error}).encode())
    assert caught.value.fault.code == code
    assert decoder.event("", chunk({"content": "b"}, finish="stop")) == ()
    assert decoder.event("", DONE) == ()
    with pytest.raises(ProviderFault):
        decoder.finish()
    assert decoder.answer.content() == (TextPart(text="a"),)


def test_event_that_is_named_error_is_one():
    decoder = ChatDecoder()
    with pytest.raises(ProviderFault) as caught:
        decoder.event("error", b'{"message": "boom", "choices": []}')
    assert caught.value.fault.code == ErrorCode.SERVER_ERROR


def test_error_in_place_of_a_whole_answer_is_classified():
    decoder = ChatDecoder()
    with pytest.raises(ProviderFault) as caught:
        decoder.whole(b'{"error": {"message": "no credit", "code": "insufficient_quota"}}')
    fault = caught.value.fault
    assert (fault.code, fault.http_status) == (ErrorCode.QUOTA_EXCEEDED, 200)
    assert "no credit" in fault.provider_text


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b"<html>", b'{"choices":[]}', b'{"choices":[{"message":{"content":1}}]}', b"[" * 99999]
)
def test_whole_answer_that_is_none_is_malformed(body):
    decoder = ChatDecoder()
    with pytest.raises(ProviderFault) as caught:
        decoder.whole(body)
    assert (caught.value.fault.code, caught.value.fault.subreason) == (ErrorCode.SERVER_ERROR, Subreason.MALFORMED_EVENT)


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"7",
        b"null",
        b'{"choices":{}}',
        b'{"choices":[{"delta":{"content":7}}]}',
        b'{"choices":[{"delta":{"content":[7]}}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"index":"0"}]}}]}',
        b'{"choices":[{"index":0,"delta":{"content":"\\ud800"}}]}',
        b'{"choices":[{"delta":{"content":"\xff"}}]}',
        b'{"model":' + b"[" * 100_000,
    ],
)
def test_event_of_a_wrong_form_is_malformed(data):
    fault = fails(chunk({"content": "a"}), data, STOP).fault
    assert (fault.code, fault.subreason, fault.retryable) == (ErrorCode.SERVER_ERROR, Subreason.MALFORMED_EVENT, True)


def test_unknown_events_fields_and_nulls_are_passed_over():
    decoder = ChatDecoder()
    assert decoder.event("ping", b"x") == ()
    assert decoder.event("", b'{"type":"ping"}') == []
    nothing = {"content": None, "tool_calls": None, "function_call": None, "reasoning_details": [], "brand_new": {"a": 1}}
    assert decoder.event("", chunk(nothing, usage=None, brand_new=[1])) == []
    assert decoder.event("", b'{"choices":null}') == []
    assert decoder.event("", b'{"choices":[{"delta":null,"finish_reason":null,"index":null}]}') == []
