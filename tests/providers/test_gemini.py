"""The dialect gemini: what its decoder makes of answers. Requests: test_gemini_requests.py, errors: test_gemini_errors.py."""

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_server.domain.errors import ErrorCode, Fault, ProviderFault, Subreason
from headrace_server.domain.events import Delta, ProviderDataDelta, ReasoningDelta, TextDelta, ToolCallDelta, merge
from headrace_server.domain.message import ProviderDataPart, ReasoningPart, TextPart, ToolCallPart
from headrace_server.domain.result import FinishReason
from headrace_server.domain.usage import Usage, UsageSource
from headrace_server.providers.dialect import HttpFailure
from headrace_server.providers.gemini import FINISH_REASONS, Gemini, GeminiDecoder
from headrace_server.providers.gemini_request import MADE_ID

Json = dict[str, Any]

USAGE = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}


def response(*parts: Json, finish: str | None = None, usage: Json | None = None, **more: Any) -> Json:
    candidate: Json = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate | more]} | ({"usageMetadata": usage} if usage else {})


def text(value: str, **more: Any) -> Json:
    return {"text": value} | more


def read(*responses: Json) -> tuple[GeminiDecoder, list[Delta]]:
    """A decoder that was given the responses as events, but not yet told of the end."""
    decoder = GeminiDecoder()
    return decoder, [delta for r in responses for delta in decoder.event("", json.dumps(r).encode())]


def finished(*responses: Json) -> GeminiDecoder:
    decoder, _ = read(*responses)
    decoder.finish()
    return decoder


def fault_of(action: Callable[[], object]) -> Fault:
    with pytest.raises(ProviderFault) as caught:
        action()
    return caught.value.fault


def finish_fault(*responses: Json) -> Fault:
    decoder, _ = read(*responses)
    return fault_of(decoder.finish)


# ---------------------------------------------------------------- content


def test_text_is_joined_in_order_when_it_comes_in_pieces() -> None:
    decoder, deltas = read(response(text("Grüße")), response(text(", "), text("Welt")), response(text("!"), finish="STOP", usage=USAGE))
    decoder.finish()
    assert deltas == [TextDelta("Grüße"), TextDelta(", "), TextDelta("Welt"), TextDelta("!")]
    assert decoder.answer.content() == (TextPart(text="Grüße, Welt!"),)
    assert decoder.answer.finish_reason is FinishReason.STOP
    assert decoder.answer.native_finish_reason == "STOP"


def test_order_is_kept_when_thoughts_and_text_alternate() -> None:
    decoder = finished(
        response(text("a", thought=True), text("b", thought=True)),
        response(text("1")),
        response(text("c", thought=True), text("2")),
        response(text("3", thought=False), finish="STOP"),
    )
    assert decoder.answer.content() == (
        ReasoningPart(text="ab"),
        TextPart(text="1"),
        ReasoningPart(text="c"),
        TextPart(text="23"),
    )


def test_empty_text_is_no_delta() -> None:
    _, deltas = read(response(text("")), response(text("x")), response(text(""), finish="STOP"))
    assert deltas == [TextDelta("x")]


def test_model_and_request_id_are_taken_from_the_answer() -> None:
    decoder = finished(response(text("x"), finish="STOP") | {"modelVersion": "gemini-2.5-flash-001", "responseId": "abc"})
    assert decoder.answer.model == "gemini-2.5-flash-001"
    assert decoder.answer.provider_request_id == "abc"


def test_only_the_first_candidate_is_read_when_there_are_several() -> None:
    both: Json = {
        "candidates": [
            {"index": 1, "content": {"parts": [text("second")]}, "finishReason": "MAX_TOKENS"},
            {"index": 0, "content": {"parts": [text("first")]}, "finishReason": "STOP"},
        ]
    }
    answer = finished(both).answer
    assert answer.content() == (TextPart(text="first"),)
    assert answer.finish_reason is FinishReason.STOP


def test_nulls_and_unknown_fields_are_passed_over() -> None:
    decoder = GeminiDecoder()
    deltas = decoder.event(
        "",
        b'{"candidates":[{"index":null,"content":{"parts":[{"text":"x","thought":null,"thoughtSignature":null,"functionCall":null,'
        b'"futureField":{"a":1}}],"role":null},"finishReason":"STOP","safetyRatings":[{}],"groundingMetadata":null,"avgLogprobs":-0.1}],'
        b'"usageMetadata":null,"promptFeedback":null,"modelVersion":null,"error":null,"brandNew":[1]}',
    )
    decoder.finish()
    assert deltas == [TextDelta("x")]
    assert decoder.answer.usage is None


# ---------------------------------------------------------------- tool calls


def test_call_gets_an_id_of_ours_when_it_has_none() -> None:
    call = {"functionCall": {"name": "f", "args": {"x": 1.5, "y": [1, {"z": "é"}]}}}
    decoder, deltas = read(response(call, call, finish="STOP"))
    decoder.finish()
    first, second = deltas
    assert isinstance(first, ToolCallDelta)
    assert isinstance(second, ToolCallDelta)
    assert (first.position, second.position) == (0, 1)
    assert first.id.startswith(MADE_ID)
    assert second.id.startswith(MADE_ID)
    assert first.id != second.id
    assert json.loads(first.arguments_delta) == call["functionCall"]["args"]
    assert decoder.answer.finish_reason is FinishReason.TOOL_CALLS
    assert decoder.answer.native_finish_reason == "STOP"


def test_call_keeps_the_id_and_signature_that_the_provider_gave() -> None:
    call = {"functionCall": {"name": "f", "args": {}, "id": "dv8szvqe"}, "thoughtSignature": "c2ln"}
    decoder = finished(response(call, finish="STOP"))
    assert decoder.answer.content() == (ToolCallPart(id="dv8szvqe", name="f", arguments_json="{}", signature="c2ln"),)


def test_arguments_keep_numbers_and_order_when_they_are_written_out() -> None:
    decoder = GeminiDecoder()
    body = b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{ "z" : 1.0,\n "a": 12345678901234567890123 } }}]}}]}'
    (delta,) = decoder.whole(body)
    assert isinstance(delta, ToolCallDelta)
    assert delta.arguments_delta == '{"z":1.0,"a":12345678901234567890123}'


@pytest.mark.parametrize("function_call", [{"name": "f"}, {"name": "f", "args": None}])
def test_arguments_are_an_empty_object_when_they_are_left_out(function_call: Json) -> None:
    _, (delta,) = read(response({"functionCall": function_call}))
    assert isinstance(delta, ToolCallDelta)
    assert delta.arguments_delta == "{}"


# ---------------------------------------------------------------- signatures


def test_signature_follows_the_text_that_it_stood_on() -> None:
    decoder, deltas = read(response(text("a")), response(text("b", thoughtSignature="s1")), response(text("c"), finish="STOP"))
    assert deltas == [TextDelta("a"), TextDelta("b"), ReasoningDelta(signature="s1"), TextDelta("c")]
    # What was signed stays a part of its own: Google forbids to merge it with one that is not.
    assert decoder.answer.content() == (TextPart(text="a"), TextPart(text="b"), ReasoningPart(signature="s1"), TextPart(text="c"))


def test_signature_on_an_empty_text_follows_the_text_before() -> None:
    _, deltas = read(response(text("a")), response(text("", thoughtSignature="s1"), finish="STOP"))
    assert deltas == [TextDelta("a"), ReasoningDelta(signature="s1")]


def test_signature_stays_on_its_thought() -> None:
    decoder, _ = read(response(text("a", thought=True), text("b", thought=True, thoughtSignature="s1")), response(text("c", thought=True)))
    assert decoder.answer.content() == (ReasoningPart(text="ab", signature="s1"), ReasoningPart(text="c"))


def test_signature_of_an_empty_text_is_no_signature_of_the_thought_before() -> None:
    decoder, _ = read(response(text("a", thought=True)), response(text("", thoughtSignature="s1")), response({"thoughtSignature": "s2"}))
    assert decoder.answer.content() == (ReasoningPart(text="a"), ReasoningPart(signature="s1"), ReasoningPart(signature="s2"))


def test_signatures_survive_merging_of_chunks() -> None:
    _, deltas = read(response(text("a"), text("b", thoughtSignature="s1"), text("", thoughtSignature="s2")))
    assert [delta for delta, _ in merge(deltas)] == [TextDelta("ab"), ReasoningDelta(signature="s1"), ReasoningDelta(signature="s2")]


# ---------------------------------------------------------------- what the API does not model


@pytest.mark.parametrize(
    "part",
    [
        {"executableCode": {"language": "PYTHON", "code": "print(1)", "id": "x"}, "thoughtSignature": "c2ln"},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1\n"}},
        {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}},
        {"toolCall": {"toolType": "GOOGLE_SEARCH_WEB", "args": {"queries": ["x"]}, "id": "1"}, "thoughtSignature": "c2ln"},
        {"somethingNew": {"a": [1, 2.5, None, True]}},
    ],
)
def test_part_of_another_kind_is_passed_on_as_it_came(part: Json) -> None:
    decoder, deltas = read(response(text("a"), part, text("b"), finish="STOP"))
    assert deltas == [TextDelta("a"), ProviderDataDelta(part), TextDelta("b")]
    assert decoder.answer.content()[1] == ProviderDataPart(provider_data=part)


@pytest.mark.parametrize("name", ["groundingMetadata", "citationMetadata", "urlContextMetadata", "logprobsResult"])
def test_metadata_beside_the_parts_is_passed_on(name: str) -> None:
    metadata: Json = {"webSearchQueries": ["x"], "n": 1}
    _, deltas = read(response(text("a"), finish="STOP", **{name: metadata}))
    assert deltas == [TextDelta("a"), ProviderDataDelta({name: metadata})]


def test_empty_metadata_is_left_out() -> None:
    _, deltas = read(response(text("a"), finish="STOP", groundingMetadata={}))
    assert deltas == [TextDelta("a")]


def test_provider_data_is_cut_to_the_depth_of_a_struct_when_it_is_deeper() -> None:
    def nested(levels: int) -> Any:
        return {"a": [nested(levels - 2)]} if levels else "bottom"

    deep = nested(80)
    _, (delta,) = read(response({"somethingNew": deep}))
    assert isinstance(delta, ProviderDataDelta)
    ProviderDataPart(provider_data=delta.provider_data)  # refuses what is deeper
    at: Any = delta.provider_data["somethingNew"]
    for level in range(24):
        at = at[0] if level % 2 else at["a"]
    assert json.loads(at) == nested(80 - 24)


# ---------------------------------------------------------------- usage


def test_usage_counts_tool_prompts_as_input_and_thoughts_as_output() -> None:
    counts = {
        "promptTokenCount": 100,
        "toolUsePromptTokenCount": 7,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 30,
        "cachedContentTokenCount": 64,
        "totalTokenCount": 157,
    }
    assert finished(response(text("x"), finish="STOP", usage=counts)).answer.usage == Usage(
        input_tokens=107, output_tokens=50, total_tokens=157, cached_input_tokens=64, reasoning_tokens=30, source=UsageSource.PROVIDER
    )


def test_last_usage_wins_and_one_without_counts_is_passed_over() -> None:
    answer = finished(
        response(text("x"), usage={"promptTokenCount": 9, "totalTokenCount": 9, "trafficType": "ON_DEMAND"}),
        response(text("y"), finish="STOP", usage=USAGE),
        {"usageMetadata": {"trafficType": "ON_DEMAND"}},
    ).answer
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (10, 5)


@pytest.mark.parametrize(
    ("first", "last", "fell"),
    [
        ({"candidatesTokenCount": 4}, {"candidatesTokenCount": 4}, False),
        ({"candidatesTokenCount": 4}, {"candidatesTokenCount": 2, "thoughtsTokenCount": 2}, False),
        ({"candidatesTokenCount": 4}, {"candidatesTokenCount": 3}, True),
        ({"candidatesTokenCount": 4}, {"promptTokenCount": 9}, True),
    ],
)
def test_answer_remembers_that_its_usage_fell(first: Json, last: Json, fell: bool) -> None:
    answer = finished(response(text("x"), usage=first), response(text("y"), finish="STOP", usage=last)).answer
    assert answer.usage_fell is fell


def test_usage_is_partial_when_the_answer_was_cut() -> None:
    decoder, _ = read(response(text("x"), usage=USAGE))
    assert fault_of(decoder.finish).subreason == Subreason.STREAM_TRUNCATED
    assert decoder.answer.usage is not None
    assert decoder.answer.usage.source is UsageSource.PARTIAL


@pytest.mark.parametrize(("sent", "kept"), [(-5, 0), (10**18, 2**31 - 1), (3.0, 3), ("many", 0), (None, 0)])
def test_nonsense_counts_are_clamped(sent: object, kept: int) -> None:
    usage = finished(response(text("x"), finish="STOP", usage={"promptTokenCount": sent, "totalTokenCount": 1})).answer.usage
    assert usage is not None
    assert usage.input_tokens == kept


# ---------------------------------------------------------------- the end


@pytest.mark.parametrize(("native", "reason"), sorted(FINISH_REASONS.items()))
def test_finish_reason_is_mapped(native: str, reason: FinishReason) -> None:
    answer = finished(response(text("x"), finish=native)).answer
    assert (answer.finish_reason, answer.native_finish_reason) == (reason, native)


@pytest.mark.parametrize(
    "native",
    ["LANGUAGE", "OTHER", "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "NO_IMAGE", "IMAGE_OTHER", "BRAND_NEW"],
)
@pytest.mark.parametrize("parts", [[], [text("x")]])
def test_finish_reason_that_means_an_error_fails(native: str, parts: list[Json]) -> None:
    decoder, _ = read(response(*parts, finish=native, usage=USAGE))
    fault = fault_of(decoder.finish)
    assert (fault.code, fault.retryable) == (ErrorCode.SERVER_ERROR, True)
    assert native in fault.message
    assert decoder.answer.native_finish_reason == native
    assert decoder.answer.usage is not None
    assert len(decoder.answer.content()) == len(parts)


def test_finish_message_is_kept_for_the_record_when_it_tells_of_an_error() -> None:
    fault = finish_fault(response(finish="MALFORMED_FUNCTION_CALL", finishMessage="Malformed function call: f("))
    assert fault.provider_text == "Malformed function call: f("


def test_last_finish_reason_wins_when_there_are_several() -> None:
    answer = finished({"candidates": [{"finishReason": "STOP"}]}, response(text("x")), response(finish="MAX_TOKENS")).answer
    assert answer.finish_reason is FinishReason.LENGTH
    assert answer.content() == (TextPart(text="x"),)


def test_stop_without_parts_is_an_error_when_nothing_was_said() -> None:
    for nothing in ({"candidates": [{"finishReason": "STOP"}]}, response(finish="STOP"), response(text(""), finish="STOP")):
        fault = finish_fault(nothing)
        assert (fault.code, fault.subreason, fault.retryable) == (ErrorCode.SERVER_ERROR, Subreason.EMPTY, True)


@pytest.mark.parametrize(
    ("native", "reason"),
    [("MAX_TOKENS", FinishReason.LENGTH), ("SAFETY", FinishReason.CONTENT_FILTER), ("MODEL_ARMOR", FinishReason.CONTENT_FILTER)],
)
def test_answer_may_be_empty_when_its_finish_reason_tells_why(native: str, reason: FinishReason) -> None:
    answer = finished({"candidates": [{"finishReason": native}], "usageMetadata": USAGE}).answer
    assert (answer.content(), answer.finish_reason) == ((), reason)


def test_answer_without_finish_reason_is_truncated() -> None:
    fault = finish_fault(response(text("x")))
    assert (fault.code, fault.subreason, fault.retryable) == (ErrorCode.NETWORK_ERROR, Subreason.STREAM_TRUNCATED, True)


def test_stream_without_events_is_empty() -> None:
    assert fault_of(GeminiDecoder().finish).subreason == Subreason.EMPTY


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"candidates":[]}', b'{"usageMetadata":{"promptTokenCount":1}}'])
def test_whole_answer_without_candidates_is_empty(body: bytes) -> None:
    decoder = GeminiDecoder()
    assert decoder.whole(body) == []
    assert fault_of(decoder.finish).subreason == Subreason.EMPTY


def test_call_at_the_length_limit_is_not_reported_as_tool_calls() -> None:
    answer = finished(response({"functionCall": {"name": "f", "args": {}}}, finish="MAX_TOKENS")).answer
    assert answer.finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize("feedback", [{"blockReason": "PROHIBITED_CONTENT"}, {"blockReason": ""}, {}])
def test_blocked_prompt_is_a_content_filter_error(feedback: Json) -> None:  # G14
    decoder, _ = read({"promptFeedback": feedback, "usageMetadata": {"promptTokenCount": 171, "totalTokenCount": 171}})
    fault = fault_of(decoder.finish)
    assert (fault.code, fault.retryable, fault.fallback) == (ErrorCode.CONTENT_FILTER, False, False)
    assert feedback.get("blockReason", "") in fault.message
    assert [violation.field for violation in fault.violations] == ["messages"]
    assert decoder.answer.usage is not None
    assert decoder.answer.usage.input_tokens == 171


def test_blocking_ends_the_answer_when_something_had_been_said() -> None:
    answer = finished(response(text("x")), {"promptFeedback": {"blockReason": "SAFETY"}}).answer
    assert (answer.finish_reason, answer.native_finish_reason) == (FinishReason.CONTENT_FILTER, "SAFETY")
    assert answer.content() == (TextPart(text="x"),)


def test_feedback_without_a_block_is_no_error_when_there_is_an_answer() -> None:
    answer = finished(response(text("x"), finish="STOP") | {"promptFeedback": {"safetyRatings": []}}).answer
    assert answer.finish_reason is FinishReason.STOP


# ---------------------------------------------------------------- forms


def test_array_of_responses_is_one_answer_when_it_comes_whole() -> None:
    decoder = GeminiDecoder()
    responses = [response(text("a", thought=True)), response(text("b")), response(text("c"), finish="STOP", usage=USAGE)]
    deltas = decoder.whole(json.dumps(responses, indent=2).encode())
    decoder.finish()
    assert deltas == [ReasoningDelta(text="a"), TextDelta("b"), TextDelta("c")]
    assert decoder.answer.content() == (ReasoningPart(text="a"), TextPart(text="bc"))


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("indent", [None, 2])
def test_error_inside_a_stream_fails_and_keeps_what_came_before(wrapped: bool, indent: int | None) -> None:  # G12, F32
    decoder, _ = read(response(text("before"), usage=USAGE))
    error: Any = {"error": {"code": 503, "message": "The model is overloaded. Please try again later.", "status": "UNAVAILABLE"}}
    data = json.dumps([error] if wrapped else error, indent=indent).encode()
    fault = fault_of(lambda: decoder.event("", data))
    assert (fault.code, fault.subreason, fault.retryable) == (ErrorCode.SERVER_ERROR, Subreason.OVERLOADED, True)
    assert (fault.http_status, fault.provider_type) == (200, "UNAVAILABLE")
    assert decoder.answer.content() == (TextPart(text="before"),)
    assert decoder.answer.usage is not None


@pytest.mark.parametrize("error", [{}, "overloaded", {"message": "x"}, ["x"], 7])
def test_error_inside_an_answer_is_the_servers_when_it_tells_nothing(error: object) -> None:
    fault = fault_of(lambda: GeminiDecoder().whole(json.dumps({"error": error}).encode()))
    assert (fault.code, fault.retryable, fault.http_status) == (ErrorCode.SERVER_ERROR, True, 200)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"7",
        b'"text"',
        b"{",
        b"[1]",
        b'[{"candidates":[]},',
        b'{"candidates":{}}',
        b'{"candidates":[{"content":{"parts":[{"text":5}]}}]}',
        b'{"candidates":[{"content":{"parts":[5]}}]}',
        b'{"candidates":[{"content":{"parts":[{"functionCall":{"args":{}}}]}}]}',
        b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":"{}"}}]}}]}',
        b'{"candidates":[{"content":{"parts":[{"text":"\xff"}]}}]}',
        b'{"candidates":[{"content":{"parts":[{"text":"\\ud800"}]}}]}',
        b'{"candidates":[{"content":{"parts":[{"new":1e400}]}}]}',
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda data: data[:60].decode("latin-1"),
)
def test_event_that_is_not_valid_is_malformed(data: bytes) -> None:
    for method in (GeminiDecoder().whole, lambda body: GeminiDecoder().event("", body)):
        fault = fault_of(lambda method=method: method(data))  # type: ignore[misc]
        assert (fault.code, fault.subreason, fault.retryable) == (ErrorCode.SERVER_ERROR, Subreason.MALFORMED_EVENT, True)


def test_malformed_event_leaves_nothing_of_itself_in_the_answer() -> None:
    decoder, _ = read(response(text("before")))
    fault_of(lambda: decoder.event("", b'{"candidates":[{"content":{"parts":[{"text":"half"},{"text":5}]}}]}'))
    assert decoder.answer.content() == (TextPart(text="before"),)


# ---------------------------------------------------------------- whatever bytes come

VALID: Sequence[bytes] = [
    json.dumps(r).encode()
    for r in (
        response(text("thinking", thought=True)),
        response(text("text", thoughtSignature="c2ln"), usage=USAGE),
        response({"functionCall": {"name": "f", "args": {"a": [1, 2]}}}),
        response({"executableCode": {"code": "1"}}, groundingMetadata={"webSearchQueries": ["x"]}),
        {"promptFeedback": {"blockReason": "OTHER"}},
        {"error": {"code": 503, "status": "UNAVAILABLE", "message": "x", "details": [{"@type": "google.rpc.QuotaFailure"}]}},
        [response(text("x"), finish="STOP")],
        response(finish="MAX_TOKENS", usage=USAGE),
    )
]

KEYS = [*re.findall(r'"([\w@]+)": ', b"".join(VALID).decode()), "violations", "quotaId", "retryDelay", "fieldViolations"]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)


def ends_in_fault_or_success(decoder: GeminiDecoder, events: Sequence[bytes]) -> None:
    """Nothing but ProviderFault is ever raised, and the answer can be taken either way."""
    deltas: list[Delta] = []
    try:
        for data in events:
            deltas += decoder.event("", data)
        decoder.finish()
    except ProviderFault:
        pass
    else:
        assert decoder.answer.finish_reason not in (None, FinishReason.ERROR)
    said = "".join(d.text for d in deltas if isinstance(d, TextDelta))
    assert said == "".join(p.text for p in decoder.answer.content() if isinstance(p, TextPart))
    assert decoder.answer.usage is None or decoder.answer.usage.total_tokens >= 0


@given(st.permutations(VALID), st.integers(0, 8))
def test_reordered_events_end_in_a_fault_or_in_success(events: Sequence[bytes], count: int) -> None:
    ends_in_fault_or_success(GeminiDecoder(), events[:count])


@given(st.lists(st.sampled_from(VALID), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_cut_and_damaged_events_end_in_a_fault_or_in_success(events: list[bytes], chance: random.Random) -> None:
    damaged = [bytearray(data) for data in events]
    victim = damaged[-1]
    for _ in range(chance.randint(0, 3)):
        victim[chance.randrange(len(victim))] = chance.randrange(256)
    ends_in_fault_or_success(GeminiDecoder(), [*map(bytes, damaged[:-1]), bytes(victim[: chance.randint(0, len(victim))])])


@given(st.binary(max_size=200) | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_bytes_end_in_a_fault_or_in_success(data: bytes) -> None:
    ends_in_fault_or_success(GeminiDecoder(), [data])
    assert isinstance(Gemini().classify(HttpFailure(429, {}, data, now=1_790_000_000_000)).code, ErrorCode)


@given(JSON_VALUES)
def test_arbitrary_errors_are_classified(value: object) -> None:
    body = json.dumps({"error": value}).encode()
    assert isinstance(Gemini().classify(HttpFailure(400, {}, body, now=1_790_000_000_000)).code, ErrorCode)
    ends_in_fault_or_success(GeminiDecoder(), [body])
