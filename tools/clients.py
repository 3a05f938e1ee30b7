"""Run the scenario with the client of every language, and write which steps each has passed into docs/clients.md; `make test-clients`.

    python tools/clients.py [LANGUAGE ...]

Each client's own test runner runs inside tests/clients/environment.py. A language whose toolchain this machine lacks is passed over by
name, and its line on the page stays. With CI=true that is a failure, and the page is compared and not written.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "clients.md"
ENVIRONMENT = ROOT / "tests" / "clients" / "environment.py"
IN_CI = os.environ.get("CI") == "true"

STEPS = ("unary", "stream", "tool_call", "two_on_one_stream", "cancel", "deadline", "resume", "rate_limit", "invalid", "watch", "vectors")
"""The steps of tests/clients/README.md, in its order."""


@dataclass(frozen=True)
class Client:
    """How the tests of one client are run."""

    folder: str
    needs: Mapping[str, str]
    """The programs of its toolchain, each with the argument that makes it tell its version."""
    test: str
    """A shell command."""
    prepare: str = "true"
    """A shell command that installs what is pinned."""


CLIENTS = {
    "python": Client(
        "clients/python",
        {},  # this very program runs on it
        f"{shlex.quote(sys.executable)} -m pytest -q ../../tests/clients/test_python.py ../../tests/clients/test_python_aio.py",
    ),
    "go": Client("clients/go", {"go": "version"}, 'test -z "$(gofmt -l .)" && go vet ./... && go test -count=1 ./...', "go mod download"),
    "typescript": Client(
        "clients/typescript",
        {"node": "--version", "npm": "--version"},
        "npm --silent test",
        "npm ci --ignore-scripts --prefer-offline --no-audit --no-fund --loglevel=error",
    ),
    "java": Client(
        "clients/java",
        {"javac": "--version", "mvn": "--version"},
        "mvn --batch-mode --no-transfer-progress test",
        "mvn --batch-mode --no-transfer-progress --quiet test-compile",
    ),
    "rust": Client(
        "clients/rust",
        {"cargo": "--version"},
        "cargo fmt --check && cargo test --quiet --locked -- --include-ignored",
        "cargo test --quiet --locked --no-run",
    ),
}

INTRODUCTION = """# Clients

Made by `make test-clients`, which runs one scenario with the client of every language against a real service; `tests/clients/README.md`
says what each step sends and what must be seen. A client is the generated stubs and a small helper, and has a README in its folder.

"""


def lacking(client: Client) -> list[str]:
    """The programs that are not on this machine."""
    return [program for program in client.needs if not shutil.which(program)]


def run(language: str, client: Client) -> tuple[dict[str, bool], int]:
    """The steps that were run, and whether they passed; and the runner's exit code. A runner that fails, fails every step that did not
    report."""
    for program, argument in client.needs.items():
        said = subprocess.run([program, argument], capture_output=True, text=True, check=True)
        print(f"{language}: `{program} {argument}` says {said.stdout.splitlines()[0]}", flush=True)
    subprocess.run(client.prepare, shell=True, cwd=ROOT / client.folder, check=True)
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.jsonl"
        results.touch()
        command = [sys.executable, str(ENVIRONMENT), "--", "sh", "-c", client.test]
        tested = subprocess.run(command, cwd=ROOT / client.folder, env={**os.environ, "HEADRACE_CLIENT_RESULTS": str(results)}, check=False)
        lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    passed: dict[str, bool] = {}
    for line in lines:
        if line["language"] == language:
            passed[line["step"]] = passed.get(line["step"], True) and line["ok"]
    if tested.returncode:
        passed |= {step: False for step in STEPS if step not in passed}
    return passed, tested.returncode


def row(language: str, passed: Mapping[str, bool]) -> str:
    """A line of the table."""
    marks = ({True: "yes", False: "**no**", None: "–"}[passed.get(step)] for step in STEPS)
    return f"| [{language}](../{CLIENTS[language].folder}) | {' | '.join(marks)} |"


def page(rows: Mapping[str, str]) -> str:
    """The whole page."""
    head = [f"| language | {' | '.join(STEPS)} |", f"| --- |{' --- |' * len(STEPS)}"]
    return INTRODUCTION + "\n".join([*head, *(rows[language] for language in CLIENTS if language in rows)]) + "\n"


def rows_of(text: str) -> dict[str, str]:
    """The lines of a page's table, by language."""
    return {line[1]: line[0] for line in re.finditer(r"^\| \[(\w+)\]\(.*$", text, re.MULTILINE)}


def main(languages: list[str]) -> int:
    """Run them; the exit code."""
    committed = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    rows, problems = rows_of(committed), []
    for language in languages or CLIENTS:
        client = CLIENTS[language]
        if programs := lacking(client):
            print(f"{language}: passed over, this machine has no {' and no '.join(programs)}")
            if IN_CI:
                problems.append(f"{language}: in CI every toolchain must be there")
            continue
        passed, code = run(language, client)
        rows[language] = row(language, passed)
        if code:  # a client has other tests than the scenario's too
            problems.append(f"{language}: the tests failed, with exit code {code}")
        problems += [f"{language}: {step} {'failed' if step in passed else 'was not run'}" for step in STEPS if not passed.get(step)]
    fresh = page(rows)
    print(fresh.removeprefix(INTRODUCTION), end="")
    if IN_CI and fresh != committed:
        problems.append(f"{PAGE.relative_to(ROOT)} is not what the tests say: run `make test-clients`")
    elif not IN_CI:
        PAGE.write_text(fresh, encoding="utf-8")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
