import xml.etree.ElementTree as ET

import chart
from bars import BARS, judge
from report import markdown, picture
from results import Results
from scenarios import scenarios
from soak import Soak, drift
from soak import judge as judge_soak
from systems import BARE, HEADRACE, PROVIDER, SYSTEMS, TENSORZERO


def results(*values, missing=None):
    """Rounds in which Headrace and the bare server took so much processor time for a chunk of a burst."""
    rounds = [{(HEADRACE.name, "burst", "CPU per chunk"): ours, (BARE.name, "burst", "CPU per chunk"): bare} for ours, bare in values]
    return Results(rounds, missing or {})


def verdict(found, text):
    return next(v for v in judge(found) if v.bar.text.startswith(text))


def test_a_ratio_is_made_within_a_round():
    seen = verdict(results((10, 100), (300, 1000), (400, 500)), "burst: CPU per chunk, bare")

    assert (seen.seen, seen.verdict) == (0.3, "met")


def test_a_bar_that_is_missed_says_so():
    assert verdict(results((60, 100)), "burst: CPU per chunk, bare").verdict == "NOT MET"


def test_a_bar_without_figures_is_neither_met_nor_missed_and_says_who_is_missing():
    found = results((1, 1), missing={TENSORZERO.name: "no wheel"})

    assert verdict(found, "burst: CPU per chunk, TensorZero").verdict == "not measured: TensorZero is missing"
    assert verdict(found, "memory idle").verdict == "not measured: no memory idle of Headrace"


def late(load, *, cpu, ours, theirs=1.0):
    """The figures of one steady load."""
    return {
        (HEADRACE.name, load, "CPU"): cpu,
        (HEADRACE.name, load, "lateness p99"): ours,
        (PROVIDER.name, load, "lateness p99"): theirs,
    }


def test_lateness_is_judged_at_the_load_that_leaves_the_core_free_enough():
    found = results((1, 1))
    found.rounds[0] |= late("steady", cpu=95.0, ours=500.0) | late("steady, 100 streams", cpu=60.0, ours=4.0)
    assert (verdict(found, "steady, at").seen, verdict(found, "steady, at").verdict) == (3.0, "met")

    found.rounds[0] |= late("steady", cpu=79.0, ours=500.0)
    assert (verdict(found, "steady, at").seen, verdict(found, "steady, at").verdict) == (499.0, "NOT MET")


def test_lateness_is_not_judged_when_the_core_is_busy_at_every_load():
    found = results((1, 1))
    found.rounds[0] |= late("steady", cpu=95.0, ours=500.0) | late("steady, 100 streams", cpu=81.0, ours=4.0)

    assert "does not apply" in verdict(found, "steady, at").verdict


def test_the_report_names_every_bar_and_every_missing_system():
    found = results((60, 100), missing={"LiteLLM": "no network"})
    text = markdown(found, SYSTEMS, scenarios(quick=True), "today")

    assert all(bar.text in text for bar in BARS)
    assert "**LiteLLM is missing**: no network" in text
    assert "| Headrace | 60 |" in text


def test_the_report_doubts_a_figure_when_the_client_was_busy_or_an_answer_broken():
    found = results((60, 100))
    found.rounds[0] |= {(HEADRACE.name, "burst", "CPU of the client"): 70.0, (HEADRACE.name, "burst", "broken answers"): 2}
    text = markdown(found, SYSTEMS, scenarios(quick=True), "today")

    assert "the client took 70 % of its core" in text
    assert "2 broken answers in a round" in text


def test_the_file_holds_median_min_and_max():
    assert results((10, 1), (30, 1), (20, 1)).rows()[0] == {
        "system": "Headrace",
        "scenario": "burst",
        "metric": "CPU per chunk",
        "unit": "µs",
        "median": 20,
        "min": 10,
        "max": 30,
    }


def test_charts_are_well_formed_whatever_the_names():
    for picture_of in (
        picture(results((10, 1)), SYSTEMS),
        chart.bars([chart.Bars("a < b & c", "µs", {"one": 0.0, "two": 1.5e6})], "one"),
        chart.lines([chart.Lines("rows", "rows", "ms", {"a & b": [(1, 0.5), (1_000_000, 4000)], "dot": [(10, 0)]})]),
    ):
        assert ET.fromstring(picture_of).tag.endswith("svg")


def test_a_figure_has_three_digits_that_count():
    assert [chart.figure(value) for value in (0, 0.01234, 1.5, 12.34, 123.4, 123456.7)] == ["0", "0.0123", "1.5", "12.3", "123", "123,457"]


def soak(*memory, seconds=100.0):
    """A soak whose memory was looked at after every request."""
    return Soak(memory=[(number * seconds, number, size) for number, size in enumerate(memory)])


def test_memory_is_compared_from_the_second_quarter_to_the_last():
    assert drift(soak(1, 1, 100, 100, 175, 176, 150, 150)) == 0.5


def test_a_soak_is_too_short_to_tell_while_ended_generations_are_still_kept():
    assert drift(soak(1, 1, 100, 100, 105, 106, 110, 110, seconds=1.0)) is None
    assert drift(soak(5, 5)) is None


def test_a_request_without_its_end_on_record_is_wrong():
    found = soak(1, 1, 1, 1, 1, 1, 1, 1)
    found.done.update(answered=3)

    assert judge_soak(found, {"completed": 3}, "", checked=True) == []
    assert len(judge_soak(found, {"completed": 2, "streaming": 1}, "", checked=True)) == 1
    assert len(judge_soak(found, {"completed": 2}, "a finding", checked=False)) == 2
