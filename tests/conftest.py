"""What the whole run shows at its end."""

import collections

import pytest
from hypothesis import HealthCheck, settings

# A loaded machine is slow: that says nothing about the code.
settings.register_profile("headrace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headrace")

EXCHANGE = "recorded exchange"
"""Property of a test that reads one: its dialect and its kind."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many recorded exchanges were read as the providers' own SDKs read them; also where several processes share the tests."""
    total: collections.Counter[tuple[str, ...]] = collections.Counter()
    agree: collections.Counter[tuple[str, ...]] = collections.Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for key in (tuple(value) for name, value in report.user_properties if name == EXCHANGE and report.when == "call"):
                total[key] += 1
                agree[key] += outcome == "passed"
    if total:
        terminalreporter.section("recorded exchanges")
        for key in sorted(total):
            terminalreporter.write_line(f"{key[0]:20} {key[1]:8} {agree[key]:4} of {total[key]}")
        terminalreporter.write_line(f"{'all':29} {agree.total():4} of {total.total()}")
