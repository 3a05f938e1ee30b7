"""What the commands of the README and the cookbook are run against, and how."""

import asyncio
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import pytest

from headrace_server.app import running
from headrace_server.config import Settings
from headrace_server.fake_provider import FakeProvider, Step

ROOT = Path(__file__).resolve().parent.parent.parent
README = ROOT / "README.md"
LONGEST = {README: 24, ROOT / "docs" / "cookbook.md": 72}
"""The pages whose commands are run, and how many lines of an output they show; of a longer one the first and the last."""
ECHO = [Step(pace_ms=60, times=0)]
LIMITED = [
    Step(
        status=429,
        headers={"retry-after": "120"},
        body={"error": {"type": "requests", "code": "rate_limit_exceeded", "param": None, "message": "Rate limit reached for requests"}},
        times=0,
    )
]


def tool() -> ModuleType:
    """tools/api.py, which says what a block of commands is."""
    spec = importlib.util.spec_from_file_location("headrace_tools_api", ROOT / "tools" / "api.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BLOCK: re.Pattern[str] = tool().BLOCK


def grpcurl() -> str:
    found = os.environ.get("HEADRACE_GRPCURL") or shutil.which("grpcurl")
    if not found:
        assert not os.environ.get("CI"), "grpcurl is missing"
        pytest.skip("grpcurl is not on this machine: go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest")
    return found


@asynccontextmanager
async def service(folder: Path) -> AsyncIterator[int]:
    """The port of a service whose provider `local` echoes, and whose provider `limited` refuses."""
    async with FakeProvider(ECHO) as local, FakeProvider(LIMITED) as limited:
        common = {"dialect": "openai", "default_model": "fake-model", "rate_limit_rpd": 10_000}
        providers = {
            "local": {**common, "api_url": local.api_url("openai"), "priority": 0},
            "limited": {**common, "api_url": limited.api_url("openai"), "priority": 200},
        }
        settings = Settings(listen="127.0.0.1:0", database=f"sqlite:///{folder}/headrace.db", providers=providers)
        async with running(settings) as app:
            yield app.port


async def printed(script: str, port: int, program: str) -> str:
    """What commands print; buf is that of the environment."""
    script = script.replace("localhost:50051", f"127.0.0.1:{port}").replace("grpcurl ", f"'{program}' ")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", script, env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    return output.decode()
