"""Fallbacks that could not stand in are found, each where it stands."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_server.domain.fallbacks import wrong_fallbacks


@pytest.mark.parametrize(
    ("named", "wrong"),
    [
        ({"a": ()}, []),
        ({"a": ("b", "c"), "b": ("c",), "c": ()}, []),  # two ways to one provider are no cycle
        ({"a": ("a",)}, [(0, "is the provider itself")]),
        ({"a": ("b", "x"), "b": ()}, [(1, "there is no provider named 'x'")]),
        ({"a": ("b", "c", "b"), "b": (), "c": ()}, [(2, "names 'b' a second time")]),
        ({"a": ("b",), "b": ("a",)}, [(0, "makes a cycle: a → b → a")]),
        ({"a": ("d", "b"), "b": ("c",), "c": ("a",), "d": ()}, [(1, "makes a cycle: a → b → c → a")]),
        ({"a": ("b",), "b": ("c", "d"), "c": ("e",), "d": ("a",), "e": ("a",)}, [(0, "makes a cycle: a → b → d → a")]),
        ({"a": ("b",), "b": ("c",), "c": ("b",)}, []),  # a cycle of others is theirs
        ({"a": ("b",), "b": ("gone",)}, []),
        (
            {"a": ("a", "x", "b"), "b": ("a",)},
            [(0, "is the provider itself"), (1, "there is no provider named 'x'"), (2, "makes a cycle: a → b → a")],
        ),
    ],
)
def test_fallback_is_found_wrong_when_it_could_not_stand_in(named: dict[str, tuple[str, ...]], wrong: list[tuple[int, str]]) -> None:
    assert wrong_fallbacks("a", named) == wrong


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=4), min_size=1))
def test_nobody_is_reached_again_when_nothing_is_wrong(named: dict[str, list[str]]) -> None:
    for provider in named:
        reached, todo = set(), list(named[provider])
        while todo:
            name = todo.pop()
            if name not in reached:
                reached.add(name)
                todo += named.get(name, ())
        alone = set(named[provider]) <= named.keys() and len(set(named[provider])) == len(named[provider])
        assert (wrong_fallbacks(provider, named) == []) == (alone and provider not in reached)
