"""The README and the cookbook do not lie: their commands are run, and what they show is what comes out.

`python tests/test_readme.py` writes what comes out into both, and renews docs/api.md, whose examples are theirs.
"""

import asyncio
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from headrace_server.app import running
from headrace_server.config import Settings
from headrace_server.domain.diagram import mermaid
from headrace_server.fake_provider import FakeProvider
from support.cookbook import BLOCK, LONGEST, README, grpcurl, printed, service, tool

PYTHON = re.compile(r"<!-- python -->\n```python\n(.*?)```", re.DOTALL)
STATES = re.compile(r"<!-- states -->\n```mermaid\n(.*?)```", re.DOTALL)


async def run_page(page: Path, folder: Path, program: str) -> list[str]:
    """What each block of commands prints, in order."""
    async with service(folder) as port:
        return [await printed(commands, port, program) for commands, _ in BLOCK.findall(page.read_text())]


def comparable(text: str) -> str:
    """Without what differs from run to run: ids that the service made, times, durations, white space."""
    kept = r"01890a5d-ac96-774b-bcce-b302099a80\d\d"
    text = re.sub(rf"(?!{kept})\b[0-9a-f]{{8}}-[0-9a-f]{{4}}-[0-9a-f]{{4}}-[0-9a-f]{{4}}-[0-9a-f]{{12}}\b", "ID", text)
    text = re.sub(r'"(trace_id|node|request_fingerprint)":\s*"[^"]*"', r'"\1": "…"', text)
    # Details of a status as `buf curl` shows them: their bytes hold ids, and maps in any order.
    text = re.sub(r'"value": "[\w+/]+"', '"value": "…"', text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)", "TIME", text)
    text = re.sub(r'"[\d.]+s"', "DURATION", text)
    # How far a request that was just submitted has come.
    text = re.sub(r'(8058",\s*"state": "REQUEST_STATE)_\w+', r"\1", text)
    text = re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", text)
    # Whichever of the two sides looks at its clock first says so in its own words.
    text = text.replace("Message: context deadline exceeded", "Message: Deadline Exceeded")
    return re.sub(r"\s+", "", text)


def shortened(text: str, longest: int) -> str:
    text = re.sub(r'"node": "[^"]*"', '"node": "host-4711-1f00d5e1"', text)
    lines = text.rstrip("\n").split("\n")
    if len(lines) > longest:
        lines = [*lines[: longest - 9], "…", *lines[-8:]]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("page", LONGEST, ids=lambda page: page.name)
async def test_every_command_prints_what_its_page_shows(page: Path, tmp_path: Path):
    outputs = await run_page(page, tmp_path, grpcurl())
    blocks = BLOCK.findall(page.read_text())

    assert len(blocks) == len(outputs) >= 8
    for (commands, shown), output in zip(blocks, outputs, strict=True):
        assert shown.strip(), commands
        got, position = comparable(output), 0
        for fragment in shown.split("…\n"):
            found = got.find(comparable(fragment), position)
            assert found >= 0, f"{commands}\nprinted\n{output}\nwhich lacks\n{fragment}"
            position = found + len(comparable(fragment))


def test_the_diagram_of_states_is_that_of_the_code():
    (shown,) = STATES.findall(README.read_text())
    assert shown.strip() == mermaid().strip()


async def test_the_python_example_streams_an_answer(tmp_path):
    (example,) = PYTHON.findall(README.read_text())
    async with FakeProvider() as provider:
        local = {"dialect": "openai", "api_url": provider.api_url("openai"), "default_model": "fake-model", "priority": 0}
        settings = Settings(listen="127.0.0.1:0", database=f"sqlite:///{tmp_path}/headrace.db", providers={"local": local})
        async with running(settings) as app:
            script = example.replace("localhost:50051", f"127.0.0.1:{app.port}")
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=subprocess.PIPE)
            output, _ = await asyncio.wait_for(process.communicate(), 30)

    assert process.returncode == 0
    assert b"What does a river do?" in output


def test_every_file_that_the_readme_names_is_there():
    named = re.findall(r"^\| `([\w./-]+)` \|", README.read_text(), re.MULTILINE)
    assert named
    assert [name for name in named if not (README.parent / name).exists()] == []


def test_every_test_that_the_readme_names_is_there():
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", README.read_text()))
    assert len(named) >= 8
    missing = [f"{file}::{name}" for file, name in named if f"def {name}(" not in (README.parent / file).read_text()]
    assert missing == []


def rewrite() -> None:
    for page, longest in LONGEST.items():
        with tempfile.TemporaryDirectory() as folder:
            outputs = iter(asyncio.run(run_page(page, Path(folder), grpcurl())))
        text = BLOCK.sub(lambda block: f"```sh\n{block[1]}```\n\n```text\n{shortened(next(outputs), longest)}```", page.read_text())  # noqa: B023
        page.write_text(STATES.sub(lambda _: f"<!-- states -->\n```mermaid\n{mermaid().strip()}\n```", text))
    api = tool()
    api.TARGET.write_text(api.document())


if __name__ == "__main__":
    rewrite()
