"""The scanner against a slow, plain reading of the standard, on bodies cut anywhere."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace_server.domain.errors import ErrorCode, ProviderFault, Subreason
from headrace_server.providers.sse import Scanner

Events = list[tuple[str, bytes]]


def scan(*pieces: bytes) -> Events:
    scanner = Scanner()
    return [event for piece in pieces for event in scanner.feed(piece)] + scanner.close()


def reference(body: bytes) -> Events:
    """The standard's algorithm, line by line, on the whole body; events without data are left out, and the end ends the last event."""
    lines = body.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    events: Events = []
    name, data = "", []
    for line in [*lines, b""]:
        if not line:
            if any(data):
                events.append((name, b"\n".join(data)))
            name, data = "", []
        elif not line.startswith(b":"):
            field, _, value = line.partition(b":")
            value = value[1:] if value.startswith(b" ") else value
            if field == b"data":
                data.append(value)
            elif field == b"event":
                name = value.decode("utf-8", "replace")
    return events


LINE = st.one_of(
    st.sampled_from([b"", b"", b"data", b"data:", b"data: ", b": ping", b":", b"id: 1", b"retry: 5", b"nonsense", b"event", b"event:"]),
    st.sampled_from(
        [b"data: [DONE]", b"event: message_stop", b'data: {"a":"\xc3\xa4\xf0\x9f\x92\xa7"}', b"data:x", b"data:  y", b"dataset: 1"]
    ),
    st.binary(max_size=6).map(lambda b: b"data: " + b.replace(b"\r", b"").replace(b"\n", b"")),
)
END = st.sampled_from([b"\n", b"\r\n", b"\r"])
BODY = st.tuples(st.sampled_from([b"", b"\xef\xbb\xbf", b"\xef\xbb"]), st.lists(st.tuples(LINE, END).map(b"".join), max_size=12), LINE).map(
    lambda parts: parts[0] + b"".join(parts[1]) + parts[2]
)


@given(body=BODY, cuts=st.lists(st.integers(0, 120), max_size=8))
@example(body=b"data: a\r\n\r\ndata: b\r\r", cuts=[8, 9, 10, 11, 12])
@example(body=b"\xef\xbb\xbfdata: a\n\n", cuts=[1, 2, 3])
def test_events_are_the_same_when_the_body_is_cut_anywhere(body: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    pieces = [body[a:b] for a, b in itertools.pairwise(edges)]
    assert scan(*pieces) == reference(body)


@given(body=BODY)
def test_events_are_the_same_when_every_byte_comes_alone(body: bytes) -> None:
    assert scan(*(body[i : i + 1] for i in range(len(body)))) == reference(body)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_event_is_given_out_at_once_when_its_blank_line_has_come(end: bytes) -> None:
    scanner = Scanner()
    assert scanner.feed(b"event: ping" + end + b"data: {}" + end) == []
    assert scanner.feed(end) == [("ping", b"{}")]
    assert scanner.feed(b"data: next" + end + end) == [("", b"next")]


def test_lines_of_data_are_joined_when_an_event_has_several() -> None:
    assert scan(b"data: {\ndata:  1\ndata\ndata:}\n\n") == [("", b"{\n 1\n\n}")]


def test_last_event_counts_when_no_blank_line_ends_it() -> None:
    assert scan(b"data: 1\n\ndata: [DONE]") == [("", b"1"), ("", b"[DONE]")]


def test_event_without_data_is_left_out_when_it_has_only_a_name_or_comments() -> None:
    assert scan(b": OPENROUTER PROCESSING\n\nevent: ping\n\ndata:\n\ndata: 1\n\n") == [("", b"1")]


def test_order_of_fields_does_not_matter_when_the_name_follows_the_data() -> None:
    assert scan(b"data: 1\nevent: late\n\n") == [("late", b"1")]


@pytest.mark.parametrize("piece", [1, 7, 64, 1_000_000])
def test_event_above_the_cap_is_refused_when_it_comes_in_pieces_of_any_size(piece: int) -> None:
    scanner = Scanner(max_event=100)
    body = b"data: " + b"x" * 200 + b"\n\n"
    with pytest.raises(ProviderFault) as caught:
        for i in range(0, len(body), piece):
            scanner.feed(body[i : i + piece])
    assert caught.value.fault.subreason == Subreason.EVENT_TOO_LARGE
    assert caught.value.fault.code is ErrorCode.SERVER_ERROR
    assert caught.value.fault.retryable


def test_many_small_events_pass_when_together_they_exceed_the_cap() -> None:
    scanner = Scanner(max_event=20)
    assert scanner.feed(b"data: 0123456789\n\n" * 50 + b"data: ") == [("", b"0123456789")] * 50


def test_cap_holds_when_the_large_event_is_never_ended() -> None:
    scanner = Scanner(max_event=20)
    assert scanner.feed(b"data: 1\n\ndata: " + b"x" * 30) == [("", b"1")]
    with pytest.raises(ProviderFault):
        scanner.close()
