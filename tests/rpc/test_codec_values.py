from types import SimpleNamespace

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from headrace_server.rpc.codec_values import (
    ENUM_TABLES,
    EnumTable,
    Wrong,
    dict_of_struct,
    duration_of,
    int32,
    int64,
    millis_of_duration,
    millis_of_timestamp,
    struct_of_dict,
    timestamp_of,
    utf8,
)


@pytest.mark.parametrize("table", ENUM_TABLES, ids=lambda table: table.domain.__name__)
def test_enums_match_one_to_one_both_ways(table: EnumTable) -> None:
    unspecified, *named = table.proto.DESCRIPTOR.values
    assert unspecified.number == 0
    assert unspecified.name.endswith("_UNSPECIFIED")
    assert len(named) == len(table.domain)
    for value in named:
        member = table.member(value.number)
        assert value.name.endswith(f"_{member.name}")
        assert table.numbers[member] == value.number
    assert table.member(0) is None
    assert table.numbers[None] == 0


def test_an_enum_number_stays_a_number_when_it_is_unknown() -> None:
    assert all(table.member(4711) == 4711 for table in ENUM_TABLES)


@given(st.integers(0, 315_576_000_000_000))
def test_durations_survive_to_the_millisecond(millis: int) -> None:
    wrong: Wrong = []
    assert millis_of_duration(duration_of(millis), ("x",), wrong) == millis
    assert not wrong


@given(st.integers(0, 253_402_300_799_999))
def test_timestamps_survive_to_the_millisecond(millis: int) -> None:
    wrong: Wrong = []
    assert millis_of_timestamp(timestamp_of(millis), ("x",), wrong) == millis
    assert not wrong


@pytest.mark.parametrize(("nanos", "millis"), [(0, 0), (1, 1), (999_999, 1), (1_000_000, 1), (1_000_001, 2), (999_999_999, 1000)])
def test_a_part_of_a_millisecond_is_rounded_up(nanos: int, millis: int) -> None:
    assert millis_of_duration(Duration(seconds=2, nanos=nanos), ("x",), []) == 2000 + millis
    assert millis_of_timestamp(Timestamp(seconds=2, nanos=nanos), ("x",), []) == 2000 + millis


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1))
def test_durations_and_timestamps_are_read_or_found_wrong_never_an_exception(seconds: int, nanos: int) -> None:
    for read, message in ((millis_of_duration, Duration), (millis_of_timestamp, Timestamp)):
        wrong: Wrong = []
        millis = read(message(seconds=seconds, nanos=nanos), ("timeouts", "idle"), wrong)
        assert (millis is None) == bool(wrong)
        assert millis is None or millis >= 0
        assert all(at == ("timeouts", "idle") and text for at, text in wrong)


@given(st.integers())
def test_times_and_numbers_out_of_range_are_clamped_on_the_way_out(number: int) -> None:
    assert duration_of(number).ToMilliseconds() == max(min(number, 315_576_000_000_000), -315_576_000_000_000)
    assert -62_135_596_800 <= timestamp_of(number).seconds <= 253_402_300_799
    assert int64(number) == max(min(number, 2**63 - 1), -(2**63))
    assert int32(abs(number)) == min(abs(number), 2**31 - 1)


@given(data=st.data())
def test_structs_survive_when_they_are_not_deep(data: st.DataObject, generated: SimpleNamespace) -> None:
    value = data.draw(generated.objects)
    wrong: Wrong = []
    raw = struct_of_dict(value).SerializeToString()
    assert dict_of_struct(Struct.FromString(raw), ("x",), wrong) == value
    assert not wrong


def test_whole_numbers_of_a_struct_become_integers() -> None:
    struct = Struct()
    struct.update({"whole": 3.0, "half": 0.5, "huge": 1e300, "list": [1, 2.5]})
    value = dict_of_struct(struct, ("x",), [])
    assert value == {"whole": 3, "half": 0.5, "huge": 1e300, "list": [1, 2.5]}
    assert isinstance(value["whole"], int)
    assert isinstance(value["huge"], float)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_struct_with_a_number_that_is_none_is_found_wrong(number: float) -> None:
    struct = Struct()
    struct.fields["a"].list_value.values.add().number_value = number
    wrong: Wrong = []
    dict_of_struct(struct, ("provider_options",), wrong)
    assert wrong == [(("provider_options",), "must not hold NaN or an infinite number")]


def test_a_struct_with_a_value_of_no_kind_is_found_wrong_once() -> None:
    struct = Struct()
    for key in "abc":
        struct.fields[key].struct_value.fields["x"].SetInParent()
    wrong: Wrong = []
    dict_of_struct(struct, ("provider_options",), wrong)
    assert len(wrong) == 1


def nested(depth: int) -> dict:
    value: dict = {"leaf": "ü"}
    for _ in range(depth - 1):
        value = {"in": value}
    return value


def test_the_deepest_level_that_fits_stays_a_struct() -> None:
    assert dict_of_struct(struct_of_dict(nested(25)), ("x",), []) == nested(25)


def test_what_is_deeper_becomes_a_json_string_that_a_parser_accepts() -> None:
    parsed = Struct.FromString(struct_of_dict(nested(40)).SerializeToString())
    value = dict_of_struct(parsed, ("x",), [])
    for _ in range(25):
        value = value["in"]
    assert isinstance(value, str)
    assert value.startswith('{"in":{"in":')
    assert '"ü"' in value


def test_a_struct_in_memory_that_is_deeper_than_any_parser_allows_is_found_wrong() -> None:
    struct = Struct()
    inner = struct
    for _ in range(2_000):
        inner = inner.fields["x"].struct_value
    wrong: Wrong = []
    dict_of_struct(struct, ("x",), wrong)
    assert wrong == [(("x",), "must be at most 25 levels deep")]


def test_numbers_that_a_double_cannot_hold_become_texts_so_that_no_digit_is_lost() -> None:
    value = {"id": 2**53 + 1, "huge": 10**400, "exact": 2**60, "nan": float("nan")}
    assert dict_of_struct(struct_of_dict(value), ("x",), []) == {"id": str(2**53 + 1), "huge": str(10**400), "exact": 2**60, "nan": "nan"}


def test_halves_of_surrogate_pairs_are_joined_or_replaced() -> None:
    assert utf8("plain") == "plain"
    assert utf8("é😀") == "é😀"
    assert utf8("\ud83d\ude00") == "😀"
    assert utf8("a\ud83db") == "a\ufffdb"
