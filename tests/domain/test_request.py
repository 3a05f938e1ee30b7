from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from headrace_server.domain.errors import ErrorCode
from headrace_server.domain.message import PARTS_BY_ROLE, ContentPart, MessageRole
from headrace_server.domain.request import (
    MAX_MESSAGES,
    GenerateRequest,
    RetryConfig,
    is_non_streaming_request,
    is_streaming_request,
)
from headrace_server.domain.result import ProviderError, is_retryable_error
from headrace_server.domain.violations import faults_of, path_of

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
PARTS: dict[str, dict[str, Any]] = {
    "text": {"type": "text", "text": "hi"},
    "image": {"type": "image", "uri": "https://example.com/cat.png"},
    "tool_call": {"type": "tool_call", "id": "c1", "name": "look"},
    "tool_result": {"type": "tool_result", "tool_call_id": "c1"},
    "reasoning": {"type": "reasoning", "text": "hm"},
    "refusal": {"type": "refusal", "refusal": "no"},
    "provider_data": {"type": "provider_data", "provider_data": {"type": "x"}},
}
CALL = {"role": "assistant", "content": [PARTS["tool_call"]]}


def request(**fields: Any) -> GenerateRequest:
    right = {"request_id": ID, "messages": [{"role": "user", "content": [PARTS["text"]]}]}
    return GenerateRequest.model_validate({**right, **fields})


def wrong(**fields: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        request(**fields)
    return {path_of(loc): text for loc, text in faults_of(caught.value)}


def test_the_least_that_a_request_needs_is_an_id_and_one_message() -> None:
    least = request()
    assert (least.provider, least.model, least.max_tokens, least.stream, least.metadata.tags) == (None, None, None, False, ())
    assert set(wrong(request_id=None, messages=[])) == {"request_id", "messages"}


def test_a_request_survives_json_and_cannot_be_changed() -> None:
    full = request(
        messages=[CALL, {"role": "tool", "content": [PARTS["tool_result"]]}],
        tools=[{"name": "look", "parameters_json": "{}"}],
        tool_choice={"name": "look"},
        response_format={"type": "json_schema", "name": "s", "schema_json": "{}"},
        provider_options={"b": [1, {"c": None}], "a": 0.5},
    )
    assert GenerateRequest.model_validate_json(full.model_dump_json()) == full
    with pytest.raises(ValidationError):
        full.model = "other"


def test_the_guards_tell_streaming_requests_from_others() -> None:
    for stream in (True, False):
        assert is_streaming_request(request(stream=stream)) is stream
        assert is_non_streaming_request(request(stream=stream)) is not stream


@pytest.mark.parametrize("retryable", [True, False])
def test_the_guard_of_errors_tells_whether_a_retry_may_help(retryable: bool) -> None:
    assert is_retryable_error(ProviderError(code=ErrorCode.TIMEOUT, retryable=retryable)) is retryable


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("role", MessageRole)
def test_a_message_holds_only_the_parts_of_its_role(role: MessageRole, kind: str) -> None:
    messages = [CALL, {"role": role, "content": [PARTS[kind]]}]
    if kind in PARTS_BY_ROLE[role]:
        assert request(messages=messages).messages[1].content[0].type == kind
    else:
        assert wrong(messages=messages) == {"messages[1].content[0]": f"a message of role {role} cannot hold a part of the kind {kind}"}


def test_a_result_needs_its_call_in_an_earlier_message() -> None:
    result = {"role": "tool", "content": [PARTS["tool_result"]]}
    at = "messages[0].content[0].tool_result.tool_call_id"
    assert wrong(messages=[result]) == {at: "no earlier message holds a tool_call with this id"}
    assert at in wrong(messages=[result, CALL])
    assert request(messages=[CALL, result]).messages[1].role is MessageRole.TOOL


@pytest.mark.parametrize(
    ("image", "right"),
    [
        ({"uri": "gs://x"}, True),
        ({"data": "eA==", "media_type": "image/png"}, True),
        ({"data": "eA=="}, False),
        ({}, False),
        ({"data": "eA==", "uri": "x", "media_type": "image/png"}, False),
    ],
)
def test_an_image_has_exactly_one_source_and_its_type_beside_data(image: dict[str, Any], right: bool) -> None:
    messages = [{"role": "user", "content": [{"type": "image", **image}]}]
    if right:
        assert request(messages=messages)
    else:
        assert set(wrong(messages=messages)) == {"messages[0].content[0].image"}


@pytest.mark.parametrize(
    ("name", "right", "not_right"),
    [
        ("temperature", [0, 2, 0.7], [-0.01, 2.01, float("nan"), float("inf")]),
        ("top_p", [0, 1], [-0.01, 1.01]),
        ("top_k", [1, 2**31 - 1], [0, -1, 2**31]),
        ("max_tokens", [1, 2**31 - 1], [0, -1, 2**31]),
        ("seed", [0, -(2**63), 2**63 - 1], [2**63, -(2**63) - 1]),
        ("provider", ["a", "a-b_1", "a" * 63], ["", "A", "1a", "a b", "a" * 64, "a\n"]),
        ("model", ["gpt-4o", "models/x:y@z", "a" * 256], ["", " ", "a\r\nb", "a" * 257, "ä"]),
        ("request_id", [ID, ID.upper()], ["", "x", ID.replace("-", ""), f"{{{ID}}}"]),
        ("stop_sequences", [[], ["a"] * 64], [[""], ["a"] * 65, ["\0"]]),
        ("provider_options", [{}, {"a": {"b": 1}}], [{"a": "\0"}, {"a": float("nan")}, {"\0": 1}]),
    ],
)
def test_a_field_takes_what_its_rule_allows_and_nothing_else(name: str, right: list[Any], not_right: list[Any]) -> None:
    for value in right:
        assert request(**{name: value})
    for value in not_right:
        assert any(path.startswith(name) for path in wrong(**{name: value}))


def test_messages_are_counted() -> None:
    message = {"role": "user", "content": [PARTS["text"]]}
    assert len(request(messages=[message] * MAX_MESSAGES).messages) == MAX_MESSAGES
    assert wrong(messages=[message] * (MAX_MESSAGES + 1)) == {"messages": "must have at most 5,000 items"}


def test_a_request_id_is_kept_in_its_canonical_form() -> None:
    assert request(request_id=ID.upper()).request_id == ID


def test_equal_options_have_equal_json_whatever_the_order_of_their_keys() -> None:
    one, other = request(provider_options={"a": 1, "b": {"c": 1, "d": 2}}), request(provider_options={"b": {"d": 2, "c": 1}, "a": 1})
    assert one.model_dump_json() == other.model_dump_json()


@pytest.mark.parametrize("levels", [25, 26, 40])
def test_options_may_be_25_levels_deep(levels: int) -> None:
    options: dict[str, Any] = {}
    for _ in range(levels - 1):
        options = {"x": options}
    if levels <= 25:
        assert request(provider_options=options).provider_options == options
    else:
        assert wrong(provider_options=options) == {"provider_options": "must be at most 25 levels deep"}


def test_rules_across_fields_are_told_together_with_rules_of_fields() -> None:
    found = wrong(
        temperature=9,
        tools=[{"name": "t", "parameters_json": "{}"}, {"name": "t", "parameters_json": "x"}],
        tool_choice={"name": "other"},
        retry={"initial_delay": 5, "max_delay": 1},
        messages=[{"role": "user", "content": [PARTS["reasoning"], {"type": "text"}]}],
    )
    assert set(found) == {
        "temperature",
        "tools[1].parameters_json",
        "tools[1].name",
        "tool_choice.name",
        "retry.max_delay",
        "messages[0].content[0]",
        "messages[0].content[1].text",
    }


@pytest.mark.parametrize(
    ("retry", "right"),
    [
        ({}, True),
        ({"max_attempts": 100, "backoff_multiplier": 1, "initial_delay": 0, "max_delay": 0}, True),
        ({"max_attempts": 0}, False),
        ({"max_attempts": 101}, False),
        ({"backoff_multiplier": 0.5}, False),
        ({"initial_delay": -1}, False),
        ({"strategy": "fibonacci"}, False),
        ({"speed": 1}, False),
    ],
)
def test_retry_settings_are_checked(retry: dict[str, Any], right: bool) -> None:
    if right:
        assert RetryConfig.model_validate(retry)
    else:
        with pytest.raises(ValidationError):
            RetryConfig.model_validate(retry)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["user", "text", "tool_call", "tool_result"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "id", "name", "tool_call_id", "mode", "max_delay", "initial_delay"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(GenerateRequest.model_fields, json_values)))
def test_any_json_is_a_request_or_wrong_never_another_exception(data: dict[str, Any]) -> None:
    try:
        made = GenerateRequest.model_validate(data)
    except ValidationError as error:
        made = None
        faults = faults_of(error)
    if made is None:
        assert faults
        assert all(text for _, text in faults)
    else:
        assert GenerateRequest.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(
    ("loc", "path"),
    [
        ((), ""),
        (("temperature",), "temperature"),
        (("messages", 1, "content", 0, "image", "uri"), "messages[1].content[0].image.uri"),
        (("messages", 0, "content", 1, "text", "text"), "messages[0].content[1].text"),
        (("messages", 0, "content", 1, "provider_data", "provider_data"), "messages[0].content[1].provider_data"),
        (("messages", 0, "content", 1, "reasoning", "text"), "messages[0].content[1].reasoning.text"),
        (
            ("messages", 0, "content", 0, "tool_result", "content", 2, "text", "text"),
            "messages[0].content[0].tool_result.content[2].text",
        ),
        (("metadata", "tags", 2), "metadata.tags[2]"),
        (("provider", "provider"), "provider.provider"),
        (("fallback", "model_mapping", "x"), 'fallback.model_mapping["x"]'),
        (("fallback", "model_mapping", 'a"b', "[key]"), 'fallback.model_mapping["a\\"b"]'),
        (("fallback", "model_mapping", "model_mapping"), 'fallback.model_mapping["model_mapping"]'),
    ],
)
def test_a_path_is_written_as_a_caller_would_write_it(loc: tuple[str | int, ...], path: str) -> None:
    assert path_of(loc) == path


def test_every_kind_of_part_is_known_to_these_tests() -> None:
    adapter: TypeAdapter[ContentPart] = TypeAdapter(ContentPart)
    assert set(adapter.json_schema()["discriminator"]["mapping"]) == set(PARTS)
