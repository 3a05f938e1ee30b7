import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_server.domain.redaction import _KEYS, REDACTED, redact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Incorrect API key provided: sk-false. You can", "Incorrect API key provided: [redacted] You can"),
        ("key sk-ant-api03-AbC_d-9 leaked", "key [redacted] leaked"),
        ("sk-proj-********************abcd", "[redacted]"),
        ("GET /v1beta/models?key=AIzaSyD-abc123&alt=sse", "GET /v1beta/models?key=[redacted]&alt=sse"),
        ("models?alt=sse&key=abc", "models?alt=sse&key=[redacted]"),
        ("API key AIzaSyD-abc123xyz not valid", "API key [redacted] not valid"),
        ("Authorization: Bearer abcdef123456", "Authorization: Bearer [redacted]"),
        ('{"x-api-key": "abc-def"}', '{"x-api-key": "[redacted]"}'),
        ("x-goog-api-key: abc", "x-goog-api-key: [redacted]"),
        ("gsk_abcdefgh1234 and hf_abcdefgh1234", "[redacted] and [redacted]"),
    ],
)
def test_key_is_taken_out_when_it_looks_like_one(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text", ["invalid x-api-key", "a task-force on a desk-lamp", "the key is missing", "Bearer token required", "risk-free", "what is 1+1?"]
)
def test_text_stays_when_it_only_speaks_of_keys(text: str) -> None:
    assert redact(text) == text


KEYISH = "ABCXYZ0189-_"
"""No letter of the mark that replaces a secret."""


@given(before=st.text(KEYISH), secret=st.text(KEYISH, min_size=4), after=st.text(KEYISH))
def test_given_secret_is_gone_when_it_stands_anywhere(before: str, secret: str, after: str) -> None:
    assert secret not in redact(before + secret + after, secret)


def test_longest_secret_goes_first_when_one_holds_the_other() -> None:
    assert redact("abcdefgh abcd", "abcd", "abcdefgh") == f"{REDACTED} {REDACTED}"


def test_text_stays_readable_when_a_secret_is_empty_or_tiny() -> None:
    assert redact("to be or not to be", "", "to") == "to be or not to be"


@given(st.text())
def test_second_pass_changes_nothing_when_keys_are_gone(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@given(st.text(), st.from_regex(_KEYS), st.text())
def test_whatever_looks_like_a_key_is_taken_out_when_it_stands_anywhere(before: str, key: str, after: str) -> None:
    text = f"{before} {key}{after}"
    assert _KEYS.search(text) is None or REDACTED in redact(text)
    assert redact(text) == _KEYS.sub(lambda found: (found["scheme"] or found["query"] or found["header"] or "") + REDACTED, text)
