"""Rows to values and back."""

import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_server.domain.errors import CorruptRow
from headrace_server.domain.lifecycle import State
from headrace_server.domain.record import LogRow, UnreadRequest
from headrace_server.domain.result import GenerationResult, ProviderError
from headrace_server.store.rows import CHANGING, LOGS, METRICS, PROVIDERS, keep_fixed

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
Text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
Word = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20)
Json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | Text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(Text, inner, max_size=3),
    max_leaves=8,
)


def row(**fields: Any) -> LogRow:
    return LogRow.model_validate({"id": ID, "request_id": ID, "state": "idle", "start_time": 1, "created_at": 1, "updated_at": 1} | fields)


@given(unread=Json, tags=st.lists(Word, max_size=3), model=Text, message=st.none() | Text, text=Text)
def test_row_comes_back_equal_whatever_it_holds(unread: Any, tags: list[str], model: str, message: str | None, text: str) -> None:
    answer = GenerationResult.model_validate({"content": [{"type": "text", "text": text}, {"type": "refusal", "refusal": text}]})
    given_row = row(request_data=UnreadRequest(unread=unread), tags=tags, model=model, error_message=message, response_data=answer)
    values = LOGS.encode(given_row)
    assert LOGS.decode(values) == given_row
    assert all(value is None or isinstance(value, str | int) for value in values)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user_id", "secret\n" * 100),
        ("error", ProviderError.model_construct(message=["secret"], code="secret")),
        ("response_data", GenerationResult.model_construct(model="secret \ud800")),
        ("trace_id", "secret"),
    ],
)
def test_encode_names_the_column_and_hides_the_value_when_it_breaks_the_rules(field: str, value: Any) -> None:
    with pytest.raises(CorruptRow) as raised:
        LOGS.encode(row().model_copy(update={field: value}))
    assert (raised.value.table, raised.value.row_id) == ("provider_logs", ID)
    assert raised.value.column == {"error": "error_data"}.get(field, field)
    assert "secret" not in "".join(traceback.format_exception(raised.value))


def test_keep_fixed_takes_only_what_changes() -> None:
    standing = row(user_id="first", owner="first")
    update = row(user_id="second", owner="second", state=State.STREAMING, updated_at=9)
    kept = keep_fixed(standing, update)
    assert (kept.user_id, kept.owner, kept.state, kept.updated_at) == ("first", "first", State.STREAMING, 9)
    assert set(CHANGING) < set(LogRow.model_fields)


@pytest.mark.parametrize("table", [LOGS, METRICS, PROVIDERS], ids=lambda table: str(table.name))
def test_columns_have_the_names_of_the_fields_but_for_two(table: Any) -> None:
    renamed = {name: column for name, column in zip(table.fields, table.names(), strict=True) if name != column}
    assert renamed == {"provider_logs": {"error": "error_data"}, "provider_configs": {"config": "config_json"}}.get(table.name, {})
