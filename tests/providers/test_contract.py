"""What every dialect owes, tested on every row of the registry and on one that is made up."""

import json
import re
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from headrace_server.domain.answer import Answer
from headrace_server.domain.errors import ErrorCode, ProviderFault, Subreason
from headrace_server.domain.events import Delta, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta, merge
from headrace_server.domain.message import ContentPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from headrace_server.domain.request import GenerateRequest
from headrace_server.domain.result import FinishReason
from headrace_server.domain.usage import Usage, UsageSource
from headrace_server.providers import history
from headrace_server.providers.dialect import HttpFailure
from headrace_server.providers.registry import DIALECTS, dialect_for
from support.exchanges import CASES, MODEL, SIGNATURE, Case, Said, ToolUse, sse, tool

Json = dict[str, Any]

dialects = tool("dialects")

HELLO = Said(texts=("Grüße", ", ", "日本 👋"))
CALLS = Said(texts=("I look.",), calls=(ToolUse(), ToolUse("peek", "{}", "call_2")))
REASONED = Said(reasoning=("first", " this"), texts=("so",))


@pytest.fixture(params=CASES, ids=lambda case: case.title)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture(params=["streamed", "whole"])
def form(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def answered(case: Case, said: Said, form: str) -> tuple[Answer, list[Delta]]:
    decoder, deltas = case.read(case.stream(said)) if form == "streamed" else case.read_whole(case.whole(said))
    return decoder.answer, deltas


def texts(content: tuple[ContentPart, ...]) -> str:
    return "".join(part.text for part in content if isinstance(part, TextPart))


def next_turn(case: Case, answer: Answer, *results: Json) -> Json:
    """The body of a request that goes on from this answer. The provider can express it."""
    turn = {"role": "assistant", "content": [part.model_dump(mode="json") for part in answer.content()]}
    after = {"role": "tool", "content": list(results)} if results else dialects.HI
    fields = {"messages": [dialects.HI, turn, after], "tools": [dialects.TOOL, dialects.TOOL | {"name": "peek"}]}
    request = dialects.request(fields)
    assert list(case.dialect.check(request, case.provider)) == []
    return body(case, request)


def body(case: Case, request: GenerateRequest, *, stream: bool = False) -> Json:
    encoded: Json = json.loads(case.dialect.encode(request, case.provider, "m", stream=stream).body)
    return encoded


def strings(value: Any) -> Iterator[str]:
    """All texts in a JSON value, in order."""
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from strings(inner)


def holds(value: Any, part: str) -> bool:
    """Whether a text stands somewhere in a JSON value."""
    return any(part in text for text in strings(value))


def fault_of(case: Case, frames: list[bytes]) -> ProviderFault:
    with pytest.raises(ProviderFault) as caught:
        case.read(frames)
    return caught.value


def test_every_row_of_the_registry_is_under_this_contract() -> None:
    assert {id(dialect) for dialect in DIALECTS.values()} < {id(case.dialect) for case in CASES}


# ---------------------------------------------------------------- answers


def test_a_text_comes_out_as_it_went_in(case: Case, form: str) -> None:
    answer, deltas = answered(case, HELLO, form)
    assert answer.content() == (TextPart(text="Grüße, 日本 👋"),)
    assert "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)) == "Grüße, 日本 👋"
    assert (answer.finish_reason, answer.model) == (FinishReason.STOP, MODEL)
    assert answer.native_finish_reason


def test_tokens_are_counted_in_one_way(case: Case, form: str) -> None:
    answer, _ = answered(case, REASONED, form)
    assert answer.usage == Usage(
        input_tokens=10, output_tokens=7, total_tokens=17, cached_input_tokens=3, reasoning_tokens=2, source=UsageSource.PROVIDER
    )


@pytest.mark.parametrize("said", [HELLO, CALLS, REASONED, Said(refusal="I will not.")], ids=["text", "calls", "reasoning", "refusal"])
def test_the_chunks_joined_are_the_result(case: Case, form: str, said: Said) -> None:
    answer, deltas = answered(case, said, form)
    joined = Answer()
    for delta, _ in merge(deltas):
        joined.add(delta)
    assert joined.content() == answer.content()


@pytest.mark.parametrize(
    ("finish", "expected"),
    [
        ("stop", FinishReason.STOP),
        ("stop_sequence", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("filter", FinishReason.CONTENT_FILTER),
    ],
)
def test_the_finish_reason_is_one_of_ours(case: Case, form: str, finish: str, expected: FinishReason) -> None:
    answer, _ = answered(case, Said(texts=("so",), finish=finish), form)
    assert answer.finish_reason is expected
    assert texts(answer.content()) == "so"


def test_a_finish_reason_that_nobody_knows_is_an_error(case: Case, form: str) -> None:
    with pytest.raises(ProviderFault) as caught:
        answered(case, Said(texts=("so",), finish="error"), form)
    assert caught.value.fault.code is ErrorCode.SERVER_ERROR
    assert caught.value.fault.retryable


def test_a_refusal_is_a_filtered_answer(case: Case, form: str) -> None:
    answer, deltas = answered(case, Said(refusal="I will not."), form)
    assert answer.finish_reason is FinishReason.CONTENT_FILTER
    refusals = "".join(part.refusal for part in answer.content() if isinstance(part, RefusalPart))
    assert "".join(delta.refusal for delta in deltas if isinstance(delta, RefusalDelta)) == refusals


def test_parallel_calls_keep_their_ids_names_and_arguments(case: Case, form: str) -> None:
    answer, deltas = answered(case, CALLS, form)
    first, second = [part for part in answer.content() if isinstance(part, ToolCallPart)]
    assert (first.id, first.name, json.loads(first.arguments_json)) == ("call_1", "look", {"at": "the sky", "n": 1.5})
    assert (second.id, second.name, json.loads(second.arguments_json)) == ("call_2", "peek", {})
    assert answer.finish_reason is FinishReason.TOOL_CALLS
    begun: set[int] = set()
    for delta in deltas:
        if isinstance(delta, ToolCallDelta):
            assert bool(delta.id and delta.name) == (delta.position not in begun)
            begun.add(delta.position)
    assert begun == {0, 1}


@pytest.mark.parametrize("form", ["streamed"])
def test_a_call_gets_an_id_when_the_provider_gave_none(case: Case, form: str) -> None:
    answer, _ = answered(case, Said(calls=(ToolUse(id=""), ToolUse("peek", "{}", ""))), form)
    ids = [part.id for part in answer.content() if isinstance(part, ToolCallPart)]
    assert all(ids)
    assert len(set(ids)) == 2


def test_calls_of_an_answer_that_was_cut_are_not_reported_as_calls(case: Case, form: str) -> None:
    answer, _ = answered(case, Said(calls=(ToolUse(),), finish="length"), form)
    assert answer.finish_reason is FinishReason.LENGTH


# ---------------------------------------------------------------- the next turn


def test_the_calls_of_an_answer_and_their_results_go_back(case: Case, form: str) -> None:
    answer, _ = answered(case, CALLS, form)
    results = [
        {"type": "tool_result", "tool_call_id": id, "content": [{"type": "text", "text": f"seen by {id}"}]} for id in ("call_1", "call_2")
    ]
    sent = next_turn(case, answer, *results)
    words = list(strings(sent))
    assert holds(sent, "I look.")
    assert words.count("call_1") == words.count("call_2") == 2
    assert holds(sent, "seen by call_1")
    assert holds(sent, "seen by call_2")
    assert holds(sent, "the sky")


def test_reasoning_goes_back_with_its_signature(case: Case, form: str) -> None:
    answer, deltas = answered(case, REASONED, form)
    reasoning = [part for part in answer.content() if isinstance(part, ReasoningPart)]
    assert "".join(part.text for part in reasoning) == "first this"
    assert "".join(delta.text for delta in deltas if isinstance(delta, ReasoningDelta)) == "first this"
    sent = next_turn(case, answer)
    assert holds(sent, "first this")
    assert holds(sent, SIGNATURE)
    assert holds(sent, "so")


def test_a_refused_turn_goes_back_or_is_refused_by_name(case: Case) -> None:
    request = dialects.request(dialects.turn({"type": "refusal", "refusal": "I will not."}))
    violations = case.dialect.check(request, case.provider)
    if violations:
        assert [violation.field for violation in violations] == ["messages[1].content[0].refusal"]
    else:
        assert holds(body(case, request), "I will not.")


@pytest.mark.parametrize("other", CASES, ids=lambda other: f"from {other.title}")
def test_an_answer_of_another_dialect_is_taken_or_its_parts_are_refused_by_name(case: Case, other: Case) -> None:
    """So that a fallback in mid-conversation is passed over for a reason that the caller understands, and nothing is left out."""
    said = Said(texts=("so",), reasoning=("hm",), calls=(ToolUse(),), refusal="" if other.title in ("claude", "gemini") else "no")
    answer, _ = answered(other, said, "whole")
    parts = [part.model_dump(mode="json") for part in answer.content()]
    results = [{"type": "tool_result", "tool_call_id": "call_1", "content": []}]
    turns = [dialects.HI, {"role": "assistant", "content": parts}, {"role": "tool", "content": results}]
    request = dialects.request({"messages": turns, "tools": [dialects.TOOL]})
    violations = case.dialect.check(request, case.provider)
    if case is other:
        assert list(violations) == []
    for violation in violations:
        at = re.fullmatch(r"messages\[1\]\.content\[(\d+)\]\.(\w+)(\.\w+)?", violation.field)
        assert at is not None, violation.field
        assert parts[int(at[1])]["type"] == at[2]
        words = (history.INEXPRESSIBLE, history.FOREIGN, history.OWN_REASONING)
        assert violation.description.startswith(words), violation.description
    if not violations:
        sent = body(case, request)
        assert all(holds(sent, piece) for piece in ("so", "hm", "look", "the sky"))
        assert holds(sent, SIGNATURE)


# ---------------------------------------------------------------- requests


def test_turns_go_out_in_their_order_behind_the_system_message(case: Case) -> None:
    turns = [("system", "one"), ("user", "two"), ("assistant", "three"), ("user", "four")]
    request = dialects.request({"messages": [dialects.said(role, dialects.text(words)) for role, words in turns]})
    assert list(case.dialect.check(request, case.provider)) == []
    sent = [text for text in strings(body(case, request)) if text in ("one", "two", "three", "four")]
    assert sorted(sent) == ["four", "one", "three", "two"]
    assert [text for text in sent if text != "one"] == ["two", "three", "four"]


def test_the_schema_of_a_structured_answer_goes_out_as_it_was_given(case: Case) -> None:
    schema = '{"type": "object", "properties": {"zz": {"const": 12345678901234567890123}}}'
    request = dialects.request({"response_format": dialects.SCHEMA | {"schema_json": schema}})
    assert list(case.dialect.check(request, case.provider)) == []
    sent = case.dialect.encode(request, case.provider, "m", stream=False).body
    assert schema.encode() in sent.replace(rb"\"", b'"')


def test_options_are_merged_into_the_body_and_replace_nothing(case: Case) -> None:
    merged = dialects.request({"provider_options": {"brandNew": {"x": [1, None]}}})
    assert list(case.dialect.check(merged, case.provider)) == []
    assert body(case, merged)["brandNew"] == {"x": [1, None]}
    replaced = dialects.request({"provider_options": {"brandNew": 1, case.modelled: 1}})
    assert [v.field for v in case.dialect.check(replaced, case.provider)] == [f"provider_options.{case.modelled}"]


def test_a_request_is_encoded_alike_every_time(case: Case) -> None:
    request = dialects.request(dialects.worked())
    assert case.dialect.encode(request, case.provider, "m", stream=True) == case.dialect.encode(request, case.provider, "m", stream=True)


def test_the_key_stands_in_a_header_alone(case: Case) -> None:
    key = case.provider.api_key.get_secret_value() if case.provider.api_key else ""
    encoded = case.dialect.encode(dialects.request({}), case.provider, "m", stream=True)
    assert key not in encoded.url
    assert key.encode() not in encoded.body
    assert [name for name, value in encoded.headers.items() if key in value] != []
    assert all(name == name.lower() for name in encoded.headers)


@pytest.mark.parametrize("sample", dialects.FIELDS, ids=lambda sample: sample.title)
def test_no_field_is_dropped_in_silence(case: Case, sample: Any) -> None:
    """A field changes what is sent, or is refused by its name; what changes nothing is listed with its reason."""
    providers = {case.title: case.provider} | {c.title: c.provider for c in dialects.COLUMNS if dialect_for(c.provider) is case.dialect}
    for title, provider in providers.items():
        found = dialects.outcome(case.dialect, provider, sample)
        if found.refusals:
            assert any(sample.field == at or sample.field.startswith(f"{at}.") for at, _ in found.refusals)
        dropped = not (found.places or found.refusals)
        assert dropped == ((sample.title, title) in dialects.SILENT), f"{sample.title}, {title}: {found}"


def test_what_is_for_headrace_alone_is_never_sent(case: Case) -> None:
    own = {
        "request_id": "01890a5d-ac96-774b-bcce-b302099a8058",
        "provider": "other",
        "metadata": {"user_id": "ada", "tags": ["t"], "conversation_id": "01890a5d-ac96-774b-bcce-b302099a8059"},
        "retry": {"max_attempts": 9},
        "fallback": {"enabled": True, "providers": ["x"], "model_mapping": {"a": "b"}, "mid_stream": "restart"},
        "timeouts": {"total": 9},
        "on_disconnect": "keep",
        "quiet": True,
        "timing": True,
        "priority": 5,
    }
    assert own.keys() == set(dialects.OWN)
    plain, full = dialects.request({}), dialects.request(own)
    assert list(case.dialect.check(full, case.provider)) == []
    assert case.dialect.encode(plain, case.provider, "m", stream=True) == case.dialect.encode(full, case.provider, "m", stream=True)


def leaves(kind: Any, at: str) -> Iterator[str]:
    """The paths of all fields under a type, as a caller writes them."""
    if get_origin(kind) is Annotated:
        yield from leaves(get_args(kind)[0], at)
    elif get_origin(kind) in (Union, UnionType):
        models = [member for member in get_args(kind) if member is not type(None)]
        several = len([m for m in models if isinstance(m, type) and issubclass(m, BaseModel)]) > 1
        for member in models:
            yield from leaves(member, f"{at}.{member.model_fields['type'].default}" if several else at)
    elif get_origin(kind) is tuple and isinstance(of := get_args(kind)[0], type) and issubclass(of, str):
        yield at
    elif get_origin(kind) is tuple:
        inner = list(leaves(get_args(kind)[0], f"{at}[]"))
        yield from [at] if inner == [f"{at}[]"] else inner
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        named = {name: field for name, field in kind.model_fields.items() if name != "type"}
        for name, field in named.items():
            # A part that is one value goes by the name of its kind alone.
            yield from leaves(field.annotation, at if at.endswith(f".{name}") else f"{at}.{field.alias or name}".lstrip("."))
        if not named:
            yield at
    else:
        yield at


def test_the_table_of_fields_knows_every_field_of_a_request() -> None:
    paths = {path for path in leaves(GenerateRequest, "") if path.partition(".")[0] not in dialects.OWN}
    assert {sample.field for sample in dialects.FIELDS} == paths


def test_the_document_of_the_dialects_is_fresh() -> None:
    assert dialects.TARGET.read_text(encoding="utf-8") == dialects.document()


# ---------------------------------------------------------------- what goes wrong


def test_error_bodies_are_classified_by_what_they_say(case: Case) -> None:
    for (status, text), code in case.errors.items():
        fault = case.dialect.classify(HttpFailure(status, {}, text.encode()))
        assert (fault.code, fault.http_status) == (code, status), text
        assert fault.message
        assert fault.provider_text == text
    assert set(case.errors.values()) == {
        ErrorCode.INVALID_REQUEST,
        ErrorCode.AUTHENTICATION_ERROR,
        ErrorCode.QUOTA_EXCEEDED,
        ErrorCode.MODEL_NOT_FOUND,
        ErrorCode.RATE_LIMIT_EXCEEDED,
        ErrorCode.SERVER_ERROR,
    }


def test_a_limit_tells_how_long_to_wait(case: Case) -> None:
    text = next(text for (status, text), code in case.errors.items() if code is ErrorCode.RATE_LIMIT_EXCEEDED)
    fault = case.dialect.classify(HttpFailure(429, {"retry-after": "2"}, text.encode()))
    assert (fault.retryable, fault.retry_after) == (True, 2_000)


def test_a_page_of_a_server_in_between_is_the_servers_own_fault(case: Case) -> None:
    fault = case.dialect.classify(HttpFailure(502, {}, b"<html>Bad Gateway</html>"))
    assert (fault.code, fault.subreason, fault.retryable) == (ErrorCode.SERVER_ERROR, Subreason.NON_JSON, True)


def test_an_error_inside_a_stream_ends_it_and_keeps_what_came_before(case: Case) -> None:
    frames = case.stream(HELLO)
    decoder = case.decoder()
    for frame in frames[: -1 - case.after_the_end]:
        decoder.event("", frame.partition(b"data: ")[2].strip())
    with pytest.raises(ProviderFault) as caught:
        decoder.event("", json.dumps(case.error).encode())
    assert (caught.value.fault.code, caught.value.fault.subreason) == (ErrorCode.SERVER_ERROR, Subreason.OVERLOADED)
    assert texts(decoder.answer.content()) == "Grüße, 日本 👋"


def test_a_stream_is_never_a_success_before_its_end(case: Case) -> None:
    for said in (HELLO, CALLS, REASONED):
        frames = case.stream(said)
        end = len(frames) - case.after_the_end
        for cut in range(end):
            fault = fault_of(case, frames[:cut]).fault
            assert fault.subreason in (Subreason.STREAM_TRUNCATED, Subreason.EMPTY)
            assert fault.retryable
        case.read(frames[:end])


def test_what_comes_after_the_end_changes_nothing(case: Case) -> None:
    frames = case.stream(HELLO)
    decoder, _ = case.read([*frames, *frames[-1 - case.after_the_end :]])
    assert (texts(decoder.answer.content()), decoder.answer.finish_reason) == ("Grüße, 日本 👋", FinishReason.STOP)


@pytest.mark.parametrize("broken", ['{"a":', "nope", "[1]", "5", '"x"', "null"])
def test_a_malformed_event_is_a_fault(case: Case, broken: str) -> None:
    frames = case.stream(HELLO)
    fault = fault_of(case, [*frames[:2], sse(broken), *frames[2:]]).fault
    assert (fault.code, fault.subreason) == (ErrorCode.SERVER_ERROR, Subreason.MALFORMED_EVENT)


@pytest.mark.parametrize("broken", [b"", b"{}", b"[]", b"null", b"<html>", b'{"a":', b"\xff\xfe"])
def test_a_whole_answer_that_is_none_is_a_fault(case: Case, broken: bytes) -> None:
    with pytest.raises(ProviderFault) as caught:
        case.read_whole(broken)
    assert caught.value.fault.code is ErrorCode.SERVER_ERROR


def test_unknown_events_and_fields_are_passed_over(case: Case) -> None:
    plain, _ = case.read(case.stream(CALLS))
    frames: list[bytes] = [b": a comment\n\n"]
    for frame in case.stream(CALLS):
        head, _, data = frame.partition(b"data: ")
        more = data if data.startswith(b"[DONE]") else json.dumps(json.loads(data) | {"brand_new": {"x": [1]}}).encode()
        frames += [sse(case.unknown), head + b"data: " + more.strip() + b"\n\n"]
    decoder, _ = case.read(frames)
    assert (plain.answer.unknown_events, decoder.answer.unknown_events) == (0, len(case.stream(CALLS)))
    assert decoder.answer.content() == plain.answer.content()
    assert decoder.answer.finish_reason is plain.answer.finish_reason
    assert decoder.answer.usage == plain.answer.usage


def test_an_answer_that_holds_nothing_is_an_empty_answer_or_tried_again(case: Case, form: str) -> None:
    """Some vendors send it for good reason, from others it is a known fault."""
    fault = None
    try:
        answer, deltas = answered(case, Said(), form)
    except ProviderFault as error:
        fault = error.fault
    if fault is not None:
        assert (fault.subreason, fault.retryable) == (Subreason.EMPTY, True)
    else:
        assert (answer.content(), answer.finish_reason, deltas) == ((), FinishReason.STOP, [])
