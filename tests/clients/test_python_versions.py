"""The Python client alone, on the oldest grpcio and protobuf that it promises to work with, and on the newest of protobuf 6."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PROGRAM = """
import asyncio, os, google.protobuf, grpc, headrace
from headrace import aio

target, proxy = os.environ["HEADRACE_TARGET"], os.environ["HEADRACE_PROXY"]
fields = {"fallback": headrace.FallbackConfig(enabled=False)}

with headrace.Client(target) as client:
    assert client.generate("one", provider="echo", provider_options={"a": 1}, **fields).text.startswith("You said: one")
    try:
        client.generate("one", provider="limited", **fields)
    except headrace.RateLimited as error:
        assert error.retry_after >= 7
with headrace.Client(proxy) as client:
    assert client.stream("one", provider="slow", **fields).answer().text.endswith(" tok63")

async def main():
    async with aio.Client(target) as client:
        try:
            await client.generate("one", provider="limited", **fields)
        except headrace.RateLimited as error:
            assert error.retry_after >= 7
    async with aio.Client(proxy) as client, client.session() as session:
        assert (await session.generate("one", provider="slow", **fields)).text.endswith(" tok63")

asyncio.run(main())
print(google.protobuf.__version__, grpc.__version__)
"""


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HEADRACE_", "VIRTUAL_ENV"))}
    done = subprocess.run(command, cwd=cwd, env=plain | environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(("protobuf", "version"), [("protobuf==6.31.1", "6.31.1"), ("protobuf>=6.31.1,<7", "6.")])
def test_the_client_works_on_protobuf_6_and_the_oldest_grpcio(protobuf, version, variables, tmp_path):
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, protobuf, "grpcio==1.76.0", cwd=tmp_path)

    said = run(python, "-c", PROGRAM, cwd=tmp_path, **variables)

    assert said.startswith(version)
    assert said.endswith(" 1.76.0\n")
