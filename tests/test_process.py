"""`headrace serve` as a process: its one line, its signals, its exit codes."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import grpc
import pytest

from headrace.v1.generation_service_pb2_grpc import GenerationServiceStub
from headrace_server import program
from headrace_server.config import Settings
from support.service import command, kinds, request


@pytest.fixture
def start(tmp_path):
    """Start `headrace ARGS` in an environment without settings; what still runs at the end is killed."""
    processes = []

    def start_one(*args, **environment):
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "OTEL_"))}
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace_server", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**plain, "HOME": str(tmp_path), **environment},
        )
        processes.append(process)
        return process

    yield start_one
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def provider(start):
    """Address of a fake provider in a process of its own."""
    process = start("fake-provider", "--listen", "127.0.0.1:0")
    return re.search(r"127\.0\.0\.1:\d+", process.stdout.readline())[0]


def serve(start, tmp_path, provider, *args, **environment):
    config = tmp_path / "headrace.toml"
    config.write_text(f'[providers.fake]\ndialect = "openai"\napi_url = "http://{provider}/v1"\ndefault_model = "echo"\n')
    process = start(
        "serve", "--listen", "127.0.0.1:0", "--database", f"sqlite:///{tmp_path}/headrace.db", "--config", str(config), *args, **environment
    )
    line = process.stdout.readline()
    assert re.fullmatch(r"headrace listening on 127\.0\.0\.1:\d+\n", line), line + process.stderr.read()
    return process, line.split()[-1]


def rows(tmp_path):
    with closing(sqlite3.connect(tmp_path / "headrace.db")) as db:
        return db.execute("SELECT state, error_code FROM provider_logs ORDER BY created_at, id").fetchall()


def test_sigterm_lets_a_stream_end_and_exits_with_0(start, tmp_path, provider):
    process, address = serve(start, tmp_path, provider)
    with grpc.insecure_channel(address) as channel:
        call = GenerationServiceStub(channel).StreamGenerate(iter([command(request(model="n20-d20"))]))
        events = list(next(call).events)
        process.send_signal(signal.SIGTERM)
        events += [event for response in call for event in response.events]

    assert kinds(events)[-1] == "completed"
    assert process.wait(10) == 0
    assert rows(tmp_path) == [("completed", None)]
    assert process.stdout.read() == ""


def may_schedule_as_batch():
    """Whether this system has that and allows it; asked by a thread, whose own policy it stays."""

    def ask():
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        return True

    with ThreadPoolExecutor(1) as thread:
        try:
            return thread.submit(ask).result()
        except (AttributeError, OSError):
            return False


@pytest.mark.skipif(not may_schedule_as_batch(), reason="the system has no SCHED_BATCH, or does not allow it")
@pytest.mark.parametrize(("scheduling", "policy"), [("batch", "SCHED_BATCH"), ("normal", "SCHED_OTHER")])
def test_every_thread_is_scheduled_as_set(start, tmp_path, provider, scheduling, policy):
    process, address = serve(start, tmp_path, provider, HEADRACE_SCHEDULING=scheduling)
    with grpc.insecure_channel(address) as channel:
        list(GenerationServiceStub(channel).StreamGenerate(iter([command(request(model="n2"))])))
        threads = os.listdir(f"/proc/{process.pid}/task")
        seen = {os.sched_getscheduler(int(thread)) for thread in threads}

    assert len(threads) > 2
    assert seen == {getattr(os, policy)}


def test_a_system_that_forbids_a_scheduling_is_served_all_the_same(monkeypatch, tmp_path):
    def forbid(*_):
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", forbid, raising=False)
    monkeypatch.setattr(program, "configure_logging", print)
    with pytest.raises(program.StartError, match="cannot be opened"):  # it comes as far as the database
        program.serve(Settings(database=f"sqlite:///{tmp_path}"), print)


def test_a_second_signal_ends_at_once_and_still_writes_everything_down(start, tmp_path, provider):
    process, address = serve(start, tmp_path, provider)
    with grpc.insecure_channel(address) as channel:
        call = GenerationServiceStub(channel).StreamGenerate(iter([command(request(model="n1000-d20"))]))
        events = list(next(call).events)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        with pytest.raises(grpc.RpcError) as caught:
            for response in call:
                events += response.events

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert kinds(events)[-1] == "failed"
    assert process.wait(10) == 0
    assert time.monotonic() - began < 10
    assert rows(tmp_path) == [("failed", "interrupted")]


def test_a_killed_process_leaves_no_request_without_an_end(start, tmp_path, provider):
    process, address = serve(start, tmp_path, provider)
    with grpc.insecure_channel(address) as channel:
        call = GenerationServiceStub(channel).StreamGenerate(iter([command(request(model="n1000-d20"))]))
        next(call)
        process.kill()
        process.wait(10)
    again, _ = serve(start, tmp_path, provider)

    assert rows(tmp_path) == [("failed", "interrupted")]
    again.terminate()
    assert again.wait(10) == 0


@pytest.mark.parametrize(
    ("args", "environment", "named"),
    [
        (["--listen", "nonsense"], {}, "listen"),
        (["--listen", "0.0.0.0:0"], {}, "insecure"),
        (["--config", "missing.toml"], {}, "missing.toml"),
        ([], {"HEADRACE_DRAIN_TIMEOUT": "soon"}, "drain_timeout"),
        ([], {"HEADRACE_DATABSE": "x"}, "HEADRACE_DATABSE"),
        (["--database", "mysql://x"], {}, "database"),
    ],
)
def test_a_wrong_setting_is_named_and_exits_with_2(start, args, environment, named):
    process = start("serve", *args, **environment)
    out, err = process.communicate(timeout=20)

    assert process.returncode == 2
    assert named in err
    assert "Traceback" not in err
    assert out == ""


def test_a_file_that_is_no_database_is_named(start, tmp_path):
    (tmp_path / "notes.db").write_text("these are notes, not a database, and they are long enough to tell\n" * 20)
    process = start("serve", "--listen", "127.0.0.1:0", "--database", f"sqlite:///{tmp_path}/notes.db")
    out, err = process.communicate(timeout=20)

    assert process.returncode == 1
    assert "notes.db" in err
    assert "Traceback" not in err
    assert out == ""


def test_a_port_in_use_is_named(start, tmp_path, provider):
    process = start("serve", "--listen", provider, "--database", f"sqlite:///{tmp_path}/headrace.db")
    _, err = process.communicate(timeout=20)

    assert process.returncode == 1
    assert provider in err
    assert "Traceback" not in err
