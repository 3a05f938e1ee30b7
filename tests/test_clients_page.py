"""docs/clients.md is what tools/clients.py made of the last run of every client."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def clients() -> ModuleType:
    spec = importlib.util.spec_from_file_location("headrace_tools_clients", ROOT / "tools" / "clients.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_page_shows_that_every_client_passed_every_step(clients: ModuleType) -> None:
    passed = dict.fromkeys(clients.STEPS, True)
    expected = clients.page({language: clients.row(language, passed) for language in clients.CLIENTS})
    assert clients.PAGE.read_text(encoding="utf-8") == expected, "run `make test-clients`"


def test_steps_are_those_of_the_scenario(clients: ModuleType) -> None:
    scenario = (ROOT / "tests" / "clients" / "README.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^### `(\w+)`$", scenario, re.MULTILINE)) == clients.STEPS
