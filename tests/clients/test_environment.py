"""The environment of the clients' scenario, and the wire vectors."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from headrace.v1 import event_pb2, generation_service_pb2, message_pb2

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent


def environment(*command: str, seconds: float = 20) -> subprocess.Popen[str]:
    program = [sys.executable, str(FOLDER / "environment.py"), "--seconds", str(seconds), "--", *command]
    return subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "HEADRACE_CLIENT_RESULTS": "x"}
    )


def is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_command_finds_its_variables_and_its_code_comes_back():
    program = "import json, os, sys; print(json.dumps({k: v for k, v in os.environ.items() if k.startswith('HEADRACE_')})); sys.exit(7)"
    process = environment(sys.executable, "-c", program)
    stdout, stderr = process.communicate(timeout=30)

    assert process.returncode == 7, stderr
    found = json.loads(stdout)
    assert {"HEADRACE_TARGET", "HEADRACE_PROXY", "HEADRACE_VECTORS", "HEADRACE_CLIENT_RESULTS"} <= found.keys()
    assert found["HEADRACE_CLIENT_RESULTS"] == "x"
    assert found["HEADRACE_TARGET"] != found["HEADRACE_PROXY"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc to look for processes in")
@pytest.mark.parametrize("how", ["end", "terminate", "too long"])
def test_no_process_is_left_behind(how):
    forks = "import os, subprocess, sys, time; child = subprocess.Popen(['sleep', '60']); print(os.getpid(), child.pid, flush=True); "
    rest = "sys.exit(0)" if how == "end" else "time.sleep(60)"
    process = environment(sys.executable, "-c", forks + rest, seconds=1 if how == "too long" else 20)
    pids = [int(word) for word in process.stdout.readline().split()]
    if how == "terminate":
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)

    assert process.returncode == {"end": 0, "terminate": 143, "too long": 124}[how]
    assert [pid for pid in pids if is_running(pid)] == []


# ---------------------------------------------------------------- vectors


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("headrace_vectors", ROOT / "tools" / "vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_vectors_are_what_the_tool_writes(tool):
    assert tool.stale() == []


def test_the_vectors_hold_every_kind_of_part_event_and_command(tool):
    vectors = tool.messages().values()
    parts = [part for message in vectors if isinstance(message, message_pb2.ChatMessage) for part in message.content]
    events = [message for message in vectors if isinstance(message, event_pb2.GenerationEvent)]
    commands = [message for message in vectors if isinstance(message, generation_service_pb2.StreamGenerateRequest)]

    for messages, oneof in ((parts, "part"), (events, "event"), ([event.chunk for event in events], "delta"), (commands, "command")):
        arms = {field.name for field in messages[0].DESCRIPTOR.oneofs_by_name[oneof].fields}
        assert {message.WhichOneof(oneof) for message in messages} - {None} == arms


def maps(message):
    """Every map in a message, however deep."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            yield value
            inner = [entry for entry in value.values() if hasattr(entry, "ListFields")]
        else:
            inner = [value] if hasattr(value, "ListFields") else value
        for each in inner:
            yield from maps(each)


def test_no_map_of_a_vector_has_two_entries(tool):
    found = [entries for message in tool.messages().values() for entries in maps(message)]
    assert len(found) >= 5
    assert {len(entries) for entries in found} == {1}
