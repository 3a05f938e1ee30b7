"""The README's table of speed is made from the committed results."""

import json

import readme


def test_readme_shows_the_committed_results() -> None:
    text = readme.README.read_text(encoding="utf-8")
    assert readme.with_table(text, json.loads(readme.LATEST.read_text())) == text


def test_a_figure_that_was_not_measured_is_a_dash() -> None:
    row = {"system": "Headrace", "scenario": "burst", "metric": "chunks/s", "median": 25_885.2}
    assert readme.table([row]).splitlines()[2:] == ["| Headrace | 25,885 | – | – | – | – | – |"]
