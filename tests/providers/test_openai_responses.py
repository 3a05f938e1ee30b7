"""Reading answers of the Responses API: what the recordings do not show, and whatever bytes may come."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_server.domain.errors import ErrorCode, Fault, ProviderFault, Subreason
from headrace_server.domain.events import Delta, ProviderDataDelta, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from headrace_server.domain.message import ProviderDataPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from headrace_server.domain.result import FinishReason
from headrace_server.domain.usage import Usage, UsageSource
from headrace_server.providers.openai_responses_decoder import FINISH_REASONS, RAW, ResponsesDecoder
from headrace_server.providers.sse import Scanner

Json = dict[str, Any]

USAGE = {
    "input_tokens": 20,
    "output_tokens": 9,
    "total_tokens": 29,
    "input_tokens_details": {"cached_tokens": 8},
    "output_tokens_details": {"reasoning_tokens": 5},
}
MESSAGE = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Grüße, 日本", "annotations": [], "logprobs": []}],
}
REASONING = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "one"}, {"type": "summary_text", "text": "two"}],
    "encrypted_content": "gAAA",
}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": '{"at":1}', "status": "completed"}
SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}}


def delta(name: str, text: str, index: int, **more: Any) -> Json:
    return {"type": f"response.{name}.delta", "output_index": index, "delta": text, **more}


def added(index: int, **item: Any) -> Json:
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def done(index: int, item: Json) -> Json:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def end(*output: Json, status: str = "completed", **more: Any) -> Json:
    response = {"id": "resp_1", "model": "gpt-5", "status": status, "output": output, "usage": USAGE, "error": None, **more}
    return {"type": f"response.{status}", "response": response}


STREAM: list[Json] = [
    {"type": "response.created", "response": {"id": "resp_1", "model": "gpt-5", "status": "in_progress", "output": []}},
    added(0, type="reasoning", id="rs_1", summary=[], encrypted_content="not yet"),
    delta("reasoning_summary_text", "on", 0, summary_index=0),
    delta("reasoning_summary_text", "e", 0, summary_index=0),
    delta("reasoning_summary_text", "two", 0, summary_index=1),
    done(0, REASONING),
    added(1, type="web_search_call", id="ws_1", status="in_progress"),
    {"type": "response.web_search_call.searching", "output_index": 1, "item_id": "ws_1"},
    done(1, SEARCH),
    added(2, type="message", id="msg_1", role="assistant", content=[]),
    delta("output_text", "Grüße, ", 2, content_index=0),
    delta("output_text", "日本", 2, content_index=0),
    done(2, MESSAGE),
    added(3, type="function_call", id="fc_1", call_id="call_1", name="weather", arguments=""),
    delta("function_call_arguments", '{"at"', 3),
    delta("function_call_arguments", ":1}", 3),
    done(3, CALL),
    end(REASONING, SEARCH, MESSAGE, CALL),
]
CONTENT = (
    ReasoningPart(text="one", id="rs_1"),
    ReasoningPart(text="two", id="rs_1"),
    ReasoningPart(redacted_data="gAAA", id="rs_1"),
    ProviderDataPart(provider_data=SEARCH),
    TextPart(text="Grüße, 日本"),
    ProviderDataPart(provider_data={"id": "msg_1"}),
    ToolCallPart(id="call_1", name="weather", arguments_json='{"at":1}', signature="fc_1"),
)


def read(events: Iterable[Json]) -> tuple[ResponsesDecoder, list[Delta]]:
    """A stream to its end, and all its deltas."""
    decoder, deltas = ResponsesDecoder(), []
    for event in events:
        deltas += decoder.event(event.get("type", ""), json.dumps(event).encode())
    decoder.finish()
    return decoder, deltas


def fault_of(events: Iterable[Json]) -> Fault:
    with pytest.raises(ProviderFault) as raised:
        read(events)
    return raised.value.fault


def whole(body: Any) -> ResponsesDecoder:
    decoder = ResponsesDecoder()
    decoder.whole(body if isinstance(body, bytes) else json.dumps(body).encode())
    decoder.finish()
    return decoder


def join(deltas: Sequence[Delta]) -> dict[str, str]:
    joined = {"text": "", "reasoning": "", "refusal": "", "arguments": ""}
    for piece in deltas:
        match piece:
            case TextDelta():
                joined["text"] += piece.text
            case ReasoningDelta():
                joined["reasoning"] += piece.text
            case RefusalDelta():
                joined["refusal"] += piece.refusal
            case ToolCallDelta():
                joined["arguments"] += piece.arguments_delta
    return joined


# ---------------------------------------------------------------- streams


def test_stream_becomes_parts_in_their_order() -> None:
    decoder, deltas = read(STREAM)
    answer = decoder.answer
    assert answer.content() == CONTENT
    assert join(deltas) == {"text": "Grüße, 日本", "reasoning": "onetwo", "refusal": "", "arguments": '{"at":1}'}
    assert (answer.finish_reason, answer.native_finish_reason) == (FinishReason.TOOL_CALLS, "completed")
    assert (answer.model, answer.provider_request_id) == ("gpt-5", "resp_1")
    assert answer.usage == Usage(
        input_tokens=20, output_tokens=9, total_tokens=29, cached_input_tokens=8, reasoning_tokens=5, source=UsageSource.PROVIDER
    )


def test_whole_answer_becomes_the_same_as_a_stream() -> None:
    assert whole(end(REASONING, SEARCH, MESSAGE, CALL)["response"]).answer.content() == CONTENT


@pytest.mark.parametrize("keep", [["output_item.done"], ["completed"], ["output_item.added", "completed"]])
def test_what_no_delta_carried_is_delivered_before_the_end(keep: list[str]) -> None:
    """Whole items at their own end, or at the answer's; a call stands where it began."""
    kept = [event for event in STREAM if event["type"].removeprefix("response.") in keep]
    decoder, deltas = read(kept if kept[-1] is STREAM[-1] else [*kept, end()])
    expected = CONTENT if len(keep) == 1 else (CONTENT[-1], *CONTENT[:-1])
    assert decoder.answer.content() == expected
    assert join(deltas) == {"text": "Grüße, 日本", "reasoning": "onetwo", "refusal": "", "arguments": '{"at":1}'}


def test_rest_of_a_text_is_delivered_when_its_deltas_stop_short() -> None:
    decoder, deltas = read([*STREAM[:11], end(REASONING, SEARCH, MESSAGE)])
    assert join(deltas)["text"] == "Grüße, 日本"
    assert decoder.answer.content() == CONTENT[:-1]


def test_deltas_count_when_the_end_tells_another_text() -> None:
    other = {**MESSAGE, "content": [{"type": "output_text", "text": "Something else"}]}
    decoder, _ = read([*STREAM[9:12], done(2, other), end(other)])
    assert decoder.answer.content() == (TextPart(text="Grüße, 日本"),)


def test_nothing_is_told_twice_when_numbers_or_ids_change_on_the_way() -> None:
    """Amazon Bedrock numbers pieces of text from 1, OpenRouter gives new ids at the end, others count items in another way."""
    stream = [
        added(5, type="message", id="msg_1", role="assistant", content=[]),
        delta("output_text", "Hi", 5, content_index=1),
        done(5, {**MESSAGE, "id": "msg_new", "content": [{"type": "output_text", "text": "Hi"}]}),
    ]
    decoder, deltas = read([*stream, end({**MESSAGE, "content": [{"type": "output_text", "text": "Hi"}]})])
    assert decoder.answer.content() == (TextPart(text="Hi"),)
    assert deltas == [TextDelta("Hi")]


def test_message_says_its_phase_and_what_it_cites_after_its_text() -> None:
    citation = {"type": "url_citation", "url": "https://example.com", "title": "t", "start_index": 0, "end_index": 2}
    logprob = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
    text = {"type": "output_text", "text": "Hi", "annotations": [citation]}
    message = {**MESSAGE, "phase": "commentary", "content": [text]}
    decoder, _ = read(
        [
            added(0, type="message", id="msg_1"),
            delta("output_text", "Hi", 0, content_index=0),
            {"type": "response.output_text.annotation.added", "output_index": 0, "content_index": 0, "annotation": citation},
            {"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "Hi", "logprobs": [logprob]},
            {"type": "response.content_part.done", "output_index": 0, "content_index": 0, "part": text},
            done(0, message),
            end(message),
        ]
    )
    assert decoder.answer.content() == (
        TextPart(text="Hi"),
        ProviderDataPart(provider_data={"annotations": [citation], "logprobs": [logprob]}),
        ProviderDataPart(provider_data={"id": "msg_1", "phase": "commentary"}),
    )


def test_citations_are_kept_when_only_events_of_their_own_tell_them() -> None:
    decoder, _ = read(
        [
            *STREAM[9:12],
            {"type": "response.output_text.annotation.added", "output_index": 2, "content_index": 0, "annotation": {"type": "x"}},
            done(2, MESSAGE),
            end(),
        ]
    )
    assert decoder.answer.content()[1] == ProviderDataPart(provider_data={"annotations": [{"type": "x"}]})


def test_raw_reasoning_is_marked_when_it_ends() -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    stream = [
        added(0, type="reasoning", id="rs_1", summary=[]),
        delta("reasoning_text", "h", 0, content_index=0),
        delta("reasoning_text", "m", 0, content_index=0),
        # OpenRouter ends the reasoning after the text that follows it.
        added(1, type="message", id="msg_1"),
        delta("output_text", "Hi", 1, content_index=0),
        done(0, item),
        end(item),
    ]
    decoder, deltas = read(stream)
    assert decoder.answer.content() == (ReasoningPart(text="hm", id="rs_1", signature=RAW), TextPart(text="Hi"))
    assert deltas[2] == ReasoningDelta(signature=RAW)


def test_reasoning_without_a_word_keeps_its_place_by_its_id() -> None:
    silent = {"type": "reasoning", "id": "rs_1", "summary": []}
    decoder, _ = read([done(0, silent), done(1, MESSAGE), end(silent, MESSAGE)])
    assert decoder.answer.content() == (
        ReasoningPart(id="rs_1"),
        TextPart(text="Grüße, 日本"),
        ProviderDataPart(provider_data={"id": "msg_1"}),
    )


def test_call_keeps_what_it_says_of_itself_beside_its_id() -> None:
    decoder, _ = read([done(0, {**CALL, "namespace": "tools"}), end()])
    (call,) = decoder.answer.content()
    assert isinstance(call, ToolCallPart)
    assert json.loads(call.signature) == {"id": "fc_1", "namespace": "tools"}


def test_calls_have_positions_when_several_run_beside_one_another() -> None:
    second = {**CALL, "id": "fc_2", "call_id": "call_2", "arguments": "{}"}
    decoder, deltas = read(
        [
            added(0, **{**CALL, "arguments": ""}),
            added(1, **{**second, "arguments": ""}),
            delta("function_call_arguments", "{}", 1),
            delta("function_call_arguments", '{"at":1}', 0),
            done(1, second),
            done(0, CALL),
            end(CALL, second),
        ]
    )
    assert [(p.position, p.arguments_delta) for p in deltas if isinstance(p, ToolCallDelta) and p.arguments_delta] == [
        (1, "{}"),
        (0, '{"at":1}'),
    ]
    assert [(c.id, c.arguments_json) for c in decoder.answer.content() if isinstance(c, ToolCallPart)] == [
        ("call_1", '{"at":1}'),
        ("call_2", "{}"),
    ]


def test_call_without_ids_gets_one() -> None:
    (call,) = read([done(0, {"type": "function_call", "name": "f", "arguments": {"a": 1}}), end()])[0].answer.content()
    assert isinstance(call, ToolCallPart)
    assert (call.id[:5], call.arguments_json, call.signature) == ("call_", '{"a":1}', "")


def test_unknown_events_items_and_parts_are_passed_over_or_on() -> None:
    news = {"type": "hologram_call", "id": "h_1", "result": [1]}
    audio = {"type": "output_audio", "transcript": "Hi"}
    spoken = {**MESSAGE, "content": [audio]}
    decoder, _ = read(
        [
            {"type": "response.hologram.delta", "delta": {"any": "thing"}, "output_index": "zero"},
            {"type": "keepalive", "sequence_number": 3},
            done(0, news),
            done(1, spoken),
            end(news, spoken),
        ]
    )
    assert decoder.answer.content() == (ProviderDataPart(provider_data=news), ProviderDataPart(provider_data=audio))


def test_unknown_event_is_passed_over_when_it_is_not_even_json() -> None:
    decoder = ResponsesDecoder()
    assert not decoder.event("response.hologram", b"not even JSON")
    assert decoder.answer.unknown_events == 1
    with pytest.raises(ProviderFault):
        decoder.event("response.output_text.delta", b"not even JSON")


@pytest.mark.parametrize("kind", ["custom_tool_call", "computer_call"])
def test_answer_that_waits_for_its_caller_ends_for_tool_calls(kind: str) -> None:
    decoder, deltas = read([done(0, {"type": kind, "id": "c_1"}), end()])
    assert deltas == [ProviderDataDelta({"type": kind, "id": "c_1"})]
    assert decoder.answer.finish_reason is FinishReason.TOOL_CALLS


# ---------------------------------------------------------------- ends


def test_refusal_ends_with_content_filter() -> None:
    refusal = {**MESSAGE, "content": [{"type": "refusal", "refusal": "I cannot."}]}
    decoder, _ = read([added(0, type="message", id="msg_1"), delta("refusal", "I can", 0, content_index=0), done(0, refusal), end(refusal)])
    assert decoder.answer.content() == (RefusalPart(refusal="I cannot."),)
    assert (decoder.answer.finish_reason, decoder.answer.native_finish_reason) == (FinishReason.CONTENT_FILTER, "completed")


@pytest.mark.parametrize(
    ("reason", "expected"), [("max_output_tokens", FinishReason.LENGTH), ("content_filter", FinishReason.CONTENT_FILTER)]
)
@pytest.mark.parametrize("output", [(), (CALL,)])
def test_incomplete_answer_says_why(reason: str, expected: FinishReason, output: tuple[Json, ...]) -> None:
    decoder, _ = read([end(*output, status="incomplete", incomplete_details={"reason": reason})])
    assert (decoder.answer.finish_reason, decoder.answer.native_finish_reason) == (expected, reason)


@pytest.mark.parametrize(
    "response",
    [
        {"status": "queued"},
        {"status": "in_progress"},
        {"status": "cancelled"},
        {"status": "failed"},
        {"status": "incomplete"},
        {"status": "incomplete", "incomplete_details": {"reason": "boredom"}},
        {"status": None},
    ],
)
def test_end_that_is_none_fails_as_a_stream_and_as_a_whole(response: Json) -> None:
    body = {**end(MESSAGE)["response"], **response}
    with pytest.raises(ProviderFault) as raised:
        whole(body)
    assert (raised.value.fault.code, raised.value.fault.retryable) == (ErrorCode.SERVER_ERROR, True)
    kind = "response.failed" if response["status"] is None else "response.completed"
    assert fault_of([{"type": kind, "response": body}]).code is ErrorCode.SERVER_ERROR


@pytest.mark.parametrize(
    ("error", "code", "delay"),
    [
        ({"code": "server_error", "message": "sorry"}, ErrorCode.SERVER_ERROR, None),
        (
            {"code": "rate_limit_exceeded", "message": "Rate limit reached. Please try again in 6.5s."},
            ErrorCode.RATE_LIMIT_EXCEEDED,
            6_500,
        ),
        ({"code": "invalid_prompt", "message": "flagged"}, ErrorCode.CONTENT_FILTER, None),
    ],
)
def test_failed_answer_is_classified_by_its_error(error: Json, code: ErrorCode, delay: int | None) -> None:
    events = [*STREAM[:12], end(status="failed", error=error), end(MESSAGE)]
    decoder = ResponsesDecoder()
    with pytest.raises(ProviderFault) as raised:
        for event in events:
            decoder.event("", json.dumps(event).encode())
    fault = raised.value.fault
    assert (fault.code, fault.provider_code, fault.retry_after, fault.http_status) == (code, error["code"], delay, 200)
    assert error["message"] in fault.message
    assert TextPart(text="Grüße, 日本") in decoder.answer.content()
    assert decoder.answer.usage is not None
    assert decoder.answer.usage.source is UsageSource.PARTIAL


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "rate_limit_exceeded", "message": "slow", "param": None, "sequence_number": 3},
        {"type": "error", "error": {"type": "tokens", "code": "rate_limit_exceeded", "message": "slow"}},
        {"error": {"code": "rate_limit_exceeded", "message": "slow"}},
    ],
)
def test_error_event_fails_and_stays_the_outcome(event: Json) -> None:
    decoder = ResponsesDecoder()
    with pytest.raises(ProviderFault) as raised:
        decoder.event("", json.dumps(event).encode())
    assert (raised.value.fault.code, raised.value.fault.message) == (ErrorCode.RATE_LIMIT_EXCEEDED, "slow")
    assert raised.value.fault.provider_type != "error"
    assert decoder.event("", b"[DONE]") == ()
    assert decoder.event("", json.dumps(end(MESSAGE)).encode()) == ()
    with pytest.raises(ProviderFault) as again:
        decoder.finish()
    assert again.value is raised.value


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"null",
        b"{}",
        b'{"type":"error"}',
        b'{"type":"response.completed"}',
        b'{"type":"response.output_text.delta","delta":1}',
        json.dumps(delta("function_call_arguments", "{}", 0)).encode(),
        json.dumps(done(0, {"type": "function_call", "call_id": "c"})).encode(),
    ],
)
def test_event_that_is_not_valid_is_malformed(data: bytes) -> None:
    with pytest.raises(ProviderFault) as raised:
        ResponsesDecoder().event("", data)
    assert raised.value.fault.subreason == Subreason.MALFORMED_EVENT


def test_text_inside_a_call_is_malformed() -> None:
    assert fault_of([added(0, **CALL), delta("output_text", "Hi", 0)]).subreason == Subreason.MALFORMED_EVENT


@pytest.mark.parametrize("last", [[], ["[DONE]"]])
def test_stream_is_truncated_when_its_last_event_is_missing(last: list[str]) -> None:
    decoder = ResponsesDecoder()
    for event in STREAM[:-1]:
        decoder.event("", json.dumps(event).encode())
    for word in last:
        assert decoder.event("", word.encode()) == ()
    with pytest.raises(ProviderFault) as raised:
        decoder.finish()
    assert raised.value.fault.subreason == Subreason.STREAM_TRUNCATED
    assert decoder.answer.content() == CONTENT


def test_answer_without_content_is_empty() -> None:
    assert fault_of([end()]).subreason == Subreason.EMPTY
    assert fault_of([end({**MESSAGE, "content": []})]).subreason == Subreason.EMPTY


def test_nothing_counts_after_the_end() -> None:
    decoder, _ = read([end(MESSAGE), end(CALL), {"type": "error", "message": "late"}])
    assert decoder.answer.content() == (TextPart(text="Grüße, 日本"),)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b"{", b'{"error": null}', b"<html>"])
def test_whole_body_that_is_no_answer_is_malformed(body: bytes) -> None:
    with pytest.raises(ProviderFault) as raised:
        whole(body)
    assert raised.value.fault.subreason == Subreason.MALFORMED_EVENT


def test_whole_body_that_is_an_error_is_classified() -> None:
    with pytest.raises(ProviderFault) as raised:
        whole({"error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": "pay"}})
    assert (raised.value.fault.code, raised.value.fault.http_status) == (ErrorCode.QUOTA_EXCEEDED, 200)


@pytest.mark.parametrize("count", [-1, 1e18, "many", None, True])
def test_counts_are_clamped_when_they_make_no_sense(count: Any) -> None:
    decoder, _ = read([end(MESSAGE, usage={"input_tokens": count, "output_tokens": 3, "input_tokens_details": count})])
    usage = decoder.answer.usage
    assert usage is not None
    assert usage.input_tokens == (2**31 - 1 if count == 1e18 else 0)
    assert (usage.output_tokens, usage.cached_input_tokens) == (3, 0)


def test_usage_is_unknown_when_none_is_told() -> None:
    assert read([end(MESSAGE, usage=None)])[0].answer.usage is None


# ---------------------------------------------------------------- bytes

FRAMES = [f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode() for event in STREAM]
WHOLE = json.dumps(end(REASONING, SEARCH, MESSAGE, CALL)["response"]).encode()


def outcome(body: bytes) -> ResponsesDecoder | Fault:
    """Read a streamed body to its end. Any exception but ProviderFault fails the test."""
    scanner, decoder = Scanner(), ResponsesDecoder()
    try:
        for name, data in scanner.feed(body) + scanner.close():
            decoder.event(name, data)
        decoder.finish()
    except ProviderFault as error:
        return error.fault
    return decoder


def outcome_of_whole(body: bytes) -> ResponsesDecoder | Fault:
    try:
        return whole(body)
    except ProviderFault as error:
        return error.fault


def is_sound(result: ResponsesDecoder | Fault) -> bool:
    """Whether an outcome is a fault, or an answer that ended for a reason and can be put together."""
    if isinstance(result, Fault):
        return bool(result.message)
    answer = result.answer
    is_ended = answer.finish_reason in (*FINISH_REASONS.values(), FinishReason.TOOL_CALLS)
    return is_ended and isinstance(answer.content(), tuple)


@given(st.binary(max_size=400))
def test_random_bytes_are_never_a_success(body: bytes) -> None:
    assert isinstance(outcome(body), Fault)
    assert isinstance(outcome_of_whole(body), Fault)


@given(st.integers(0, sum(map(len, FRAMES))))
def test_a_stream_cut_anywhere_is_a_success_only_with_its_last_event(at: int) -> None:
    body = b"".join(FRAMES)
    is_complete = at >= len(body) - 2  # the blank line after the last event may be missing
    assert isinstance(outcome(body[:at]), ResponsesDecoder) == is_complete


@given(st.permutations(FRAMES))
def test_events_in_any_order_are_a_fault_or_a_sound_answer(frames: list[bytes]) -> None:
    assert is_sound(outcome(b"".join(frames)))


@given(st.lists(st.booleans(), min_size=len(STREAM) - 1, max_size=len(STREAM) - 1))
def test_nothing_is_lost_when_events_are_left_out_before_a_good_end(kept: list[bool]) -> None:
    """Any events but the last may be missing; of the pieces of one text those from one on."""
    stopped: set[tuple[Any, ...]] = set()
    events = []
    for event, is_kept in zip(STREAM, kept, strict=False):
        text = (event["type"], event.get("output_index"), event.get("summary_index")) if "delta" in event else (id(event),)
        if is_kept and text not in stopped:
            events.append(event)
        else:
            stopped.add(text)
    result = outcome(b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in [*events, STREAM[-1]]))
    if isinstance(result, Fault):
        assert "arguments of a call that has not begun" in result.message
        return
    content = result.answer.content()
    assert "".join(part.text for part in content if isinstance(part, TextPart)) == "Grüße, 日本"
    reasoning = [part for part in content if isinstance(part, ReasoningPart)]
    assert sorted("".join(part.text for part in reasoning)) == sorted("onetwo")
    assert [part.redacted_data for part in reasoning if part.redacted_data] == ["gAAA"]
    assert [part for part in content if isinstance(part, ToolCallPart)] == [CONTENT[-1]]
    assert [part.provider_data for part in content if isinstance(part, ProviderDataPart)].count(SEARCH) == 1


@given(st.data())
def test_changed_bytes_are_a_fault_or_a_sound_answer(data: st.DataObject) -> None:
    for original, reader in ((b"".join(FRAMES), outcome), (WHOLE, outcome_of_whole)):
        body = bytearray(original)
        for _ in range(data.draw(st.integers(1, 5))):
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
        assert is_sound(reader(bytes(body)))


_JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5), st.lists, max_leaves=4)
_FIELDS = ["delta", "item", "part", "response", "output_index", "type", "content_index", "annotation", "logprobs", "item_id"]


@given(st.sampled_from(STREAM), st.sampled_from(_FIELDS), _JSON)
def test_fields_of_another_kind_are_a_fault_or_a_sound_answer(event: Json, name: str, value: Any) -> None:
    body = b"".join(FRAMES[:-1]) + b"data: " + json.dumps(event | {name: value}).encode() + b"\n\n" + FRAMES[-1]
    assert is_sound(outcome(body))


@given(st.sampled_from([REASONING, MESSAGE, CALL, SEARCH]), st.data(), _JSON)
def test_fields_of_items_of_another_kind_are_a_fault_or_a_sound_answer(item: Json, data: st.DataObject, value: Any) -> None:
    broken = item | {data.draw(st.sampled_from(sorted(item))): value}
    assert is_sound(outcome_of_whole(json.dumps(end(MESSAGE, broken)["response"]).encode()))
