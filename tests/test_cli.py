"""The command `headrace` as a person types it: real processes, a real service, the fake provider behind it."""

import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from typer.testing import CliRunner

from headrace.v1 import generation_service_pb2, generation_service_pb2_grpc, request_pb2
from headrace_server.cli import app

HEADRACE = [sys.executable, "-m", "headrace_server"]
ECHO = "You said: Hello river This answer comes from the fake provider, one word at a time."
COMMANDS = [
    [],
    ["serve"],
    ["generate"],
    ["explain"],
    ["states"],
    ["fake-provider"],
    ["demo"],
    ["db", "migrate"],
    *(["provider", name] for name in ("list", "get", "add", "set", "disable", "delete", "check", "reset", "quotas")),
    *(["request", name] for name in ("list", "show", "watch", "cancel")),
]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "ANTHROPIC_", "OPENAI_", "GEMINI_"))}

LISTENS_TO_CTRL_C = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
"""A shell has what it runs in the background ignore Ctrl-C, and whoever runs these tests may be there."""


def headrace(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HEADRACE, *arguments], input=stdin, env=ENVIRONMENT | environment, capture_output=True, text=True, timeout=50, check=False
    )


def ok(*arguments: str, **more: str) -> str:
    done = headrace(*arguments, **more)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@contextmanager
def started(*arguments: str, ready: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A command that runs on: the process, and what its ready line names."""
    process = subprocess.Popen(
        [*HEADRACE, *arguments],
        env=ENVIRONMENT | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=LISTENS_TO_CTRL_C,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        found = re.fullmatch(ready, line)
        assert found, line + process.stderr.read()
        yield process, found[1]
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=20)


@pytest.fixture(scope="module")
def provider_url() -> Iterator[str]:
    with started("fake-provider", ready=r"fake provider listening on (http://127\.0\.0\.1:\d+)\n") as (_, url):
        yield url


@pytest.fixture(scope="module")
def server(provider_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("service")
    config = folder / "headrace.toml"
    config.write_text(f'[providers.fake]\ndialect = "openai"\napi_url = "{provider_url}/v1"\ndefault_model = "echo"\npriority = 0\n')
    arguments = ("serve", "--listen", "127.0.0.1:0", "--database", f"sqlite:///{folder}/cli.db", "--config", str(config))
    with started(*arguments, ready=r"headrace listening on (127\.0\.0\.1:\d+)\n") as (_, address):
        yield address


# ---------------------------------------------------------------- help, version, usage


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command) or "headrace")
def test_help_has_an_example(command: list[str]) -> None:
    shown = CliRunner().invoke(app, [*command, "--help"], prog_name="headrace")
    assert shown.exit_code == 0
    assert f"Example:\n    headrace {' '.join(command)}".rstrip() in shown.output


def test_help_is_there_at_once() -> None:
    durations = []
    for _ in range(3):
        began = time.monotonic()
        ok("--help")
        durations.append(time.monotonic() - began)
    assert min(durations) < 0.5


def test_version_is_told() -> None:
    assert re.fullmatch(r"headrace \d+\.\d+\.\d+\S*\n", ok("--version"))


@pytest.mark.parametrize("arguments", [["nothing"], ["generate"], ["serve", "--nothing"], ["request", "list", "--limit", "0"]])
def test_exit_code_is_two_when_the_usage_is_wrong(arguments: list[str]) -> None:
    done = headrace(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: headrace" in done.stderr


def test_exit_code_is_two_when_a_setting_is_wrong() -> None:
    done = headrace("serve", "--listen", "here", "--durability", "perfect")
    assert (done.returncode, done.stdout) == (2, "")
    first, second = done.stderr.splitlines()
    assert first.startswith("headrace: listen (flag --listen): must be HOST:PORT")
    assert second.startswith("headrace: durability (flag --durability): ")


def test_exit_code_is_two_when_a_variable_is_unknown() -> None:
    done = headrace("serve", HEADRACE_LISTN="x")
    assert (done.returncode, done.stderr) == (2, "headrace: HEADRACE_LISTN: there is no such setting; did you mean HEADRACE_LISTEN?\n")


# ---------------------------------------------------------------- what runs on this machine


def test_states_are_the_table_and_its_picture() -> None:
    lines = ok("states").splitlines()
    assert "requesting    receive_stream_chunk  → streaming" in lines
    picture = ok("states", "--mermaid").splitlines()
    assert picture[:3] == ["stateDiagram-v2", "    [*] --> idle", "    idle --> validating: initiate_request"]
    assert picture[-2:] == ["    completed --> [*]", "    failed --> [*]"]


def test_database_is_migrated_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/deep/er/new.db"
    assert ok("db", "migrate", "--database", url).startswith("applied 0001_")
    assert ok("db", "migrate", "--database", url) == "nothing to do\n"
    with sqlite3.connect(tmp_path / "deep/er/new.db") as connection:
        assert connection.execute("SELECT count(*) FROM provider_configs").fetchone() == (3,)
    connection.close()


def test_migration_fails_with_words_when_the_file_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database " * 100)
    done = headrace("db", "migrate", "--database", f"sqlite:///{tmp_path}/text.db")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"headrace: {tmp_path}/text.db is not a SQLite database\n"


def test_service_fails_with_words_when_its_address_is_taken(server: str, tmp_path: Path) -> None:
    done = headrace("serve", "--listen", server, "--database", f"sqlite:///{tmp_path}/x.db")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("headrace: ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_service_says_one_line_and_ends_well_when_it_is_told_to(tmp_path: Path, number: signal.Signals) -> None:
    arguments = ("serve", "--listen", "127.0.0.1:0", "--database", f"sqlite:///{tmp_path}/x.db")
    with started(*arguments, ready=r"headrace listening on (127\.0\.0\.1:\d+)\n") as (process, _):
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=20)
    assert (process.returncode, stdout) == (0, "")
    assert "Traceback" not in stderr


def test_fake_provider_plays_its_script(tmp_path: Path) -> None:
    import urllib.error
    import urllib.request

    script = tmp_path / "script.json"
    script.write_text('[{"status": 418, "body": "teapot"}]')
    with started("fake-provider", "--script", str(script), ready=r"fake provider listening on (\S+)\n") as (process, url):
        with pytest.raises(urllib.error.HTTPError, match="418") as caught:
            urllib.request.urlopen(url + "/v1/messages", data=b"{}", timeout=10)
        assert caught.value.read() == b"teapot"
        caught.value.close()
        process.terminate()
        assert process.wait(10) == 0


def test_fake_provider_refuses_a_wrong_script(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text('[{"stat": 1}]')
    done = headrace("fake-provider", "--script", str(script))
    assert done.returncode == 2
    assert "call 0.stat: Extra inputs" in done.stderr


def test_fake_provider_lists_its_ready_scripts() -> None:
    lines = ok("fake-provider", "--list").splitlines()
    assert "F02   500 three times; the fallback answers" in lines
    assert len(lines) == len({line.split()[0] for line in lines}) > 40


def test_ready_script_shows_its_row_when_it_is_repeated_as_it_says(tmp_path: Path) -> None:
    config = tmp_path / "headrace.toml"
    arguments = ("fake-provider", "--script", "F07", "--write-config", str(config))
    with started(*arguments, ready=r"fake provider listening on (\S+)\n") as (provider, url):
        told = list(iter(provider.stdout.readline, "To see it:\n"))
        assert f"  p: openai, {url}/p/v1\n" in told
        assert provider.stdout.readline() == f"  headrace serve --config {config}\n"
        grpcurl = shlex.split(provider.stdout.readline())
        request = json.loads(grpcurl[grpcurl.index("-d") + 1])["generate"]
        serve = ("serve", "--listen", "127.0.0.1:0", "--config", str(config))
        with (
            started(*serve, ready=r"headrace listening on (127\.0\.0\.1:\d+)\n") as (_, address),
            grpc.insecure_channel(address) as channel,
        ):
            command = generation_service_pb2.StreamGenerateRequest(generate=json_format.ParseDict(request, request_pb2.GenerateRequest()))
            stub = generation_service_pb2_grpc.GenerationServiceStub(channel)
            with pytest.raises(grpc.RpcError) as failed:
                list(stub.StreamGenerate(iter([command])))
            assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_fake_provider_prints_the_configuration_when_no_file_is_named() -> None:
    with started("fake-provider", "--script", "F02", ready=r"fake provider listening on (\S+)\n") as (provider, url):
        text = "".join(iter(provider.stdout.readline, "To see it:\n"))
    assert tomllib.loads(text[text.index("database = ") :])["providers"]["p"]["api_url"] == f"{url}/p/v1"


def test_fake_provider_writes_no_configuration_for_a_list_of_calls(tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text("- {status: 500}\n")
    done = headrace("fake-provider", "--script", str(script), "--write-config", str(tmp_path / "headrace.toml"))
    assert done.returncode == 2
    assert "needs a script with named providers" in done.stderr


def test_database_in_memory_cannot_be_looked_after() -> None:
    done = headrace("db", "check", "--database", "memory:")
    assert (done.returncode, done.stderr) == (1, "headrace: database: a store in memory has no file\n")


def test_demo_shows_states_tokens_and_the_record(tmp_path: Path) -> None:
    text = ok("demo", "Hello river", "--fake", TMPDIR=str(tmp_path))
    for expected in (
        "idle → validating",
        "streaming → completed",
        ECHO,
        "SELECT request_id",
        "usage_source         provider",
        "grpcurl -plaintext",
    ):
        assert expected in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_demo_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    with started("demo", "--fake", "--serve", ready=r"(\n)", TMPDIR=str(tmp_path)) as (process, _):
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"request list --server (\S+)", line):
                address = found[1]
            if "Serving until" in line:
                break
        assert "completed" in ok("request", "list", "--server", address)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_demo_cleans_up_when_it_is_stopped_in_the_middle(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with started("demo", "word " * 1000, "--fake", ready=r"(\n)", TMPDIR=str(tmp_path)) as (process, _):
        assert process.stdout is not None
        assert any("requesting → streaming" in line for line in process.stdout)
        process.send_signal(number)
        assert process.wait(20) == code
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- a service that is not there


def test_client_says_so_when_no_service_answers() -> None:
    done = headrace("request", "list", "--server", "127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr == "headrace: UNAVAILABLE: no service answers at 127.0.0.1:1: is `headrace serve` running there?\n"


# ---------------------------------------------------------------- generate


def test_answer_is_streamed_to_stdout_and_summed_up_on_stderr(server: str) -> None:
    done = headrace("generate", "Hello river", "--server", server)
    assert (done.returncode, done.stdout) == (0, ECHO + "\n")
    assert re.fullmatch(r"fake/echo, 2 \+ 16 tokens, first token after .* s, .* s in all, ended by stop\n", done.stderr)


def test_server_and_prompt_come_from_environment_and_stdin(server: str) -> None:
    done = headrace("generate", "-", "--system", "be brief", stdin="Hello river", HEADRACE_SERVER=server)
    assert (done.returncode, done.stdout) == (0, ECHO + "\n")


def test_states_are_shown_when_they_are_asked_for(server: str) -> None:
    done = headrace("generate", "Hello river", "--server", server, "--states")
    steps = re.findall(r"(\w+) → (\w+) \[(\w+)\]", done.stderr)
    assert [to for _, to, _ in steps] == ["validating", "requesting", "streaming", "completed"]


def test_events_are_json_lines_when_they_are_asked_for(server: str) -> None:
    events = [json.loads(line) for line in ok("generate", "Hello river", "--server", server, "--json").splitlines()]
    assert "".join(event.get("chunk", {}).get("text", "") for event in events) == ECHO
    assert events[-1]["completed"]["finish_reason"] == "FINISH_REASON_STOP"
    assert events[0]["transition"]["to_state"] == "REQUEST_STATE_VALIDATING"


def test_every_wrong_field_is_named_when_a_request_is_refused(server: str) -> None:
    done = headrace("generate", "Hello", "--server", server, "--temperature", "7", "--max-tokens", "0")
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert lines[0].startswith("headrace: INVALID_ARGUMENT: ")
    assert any(line.startswith("  reason: INVALID_REQUEST") for line in lines)
    assert {line.strip().partition(":")[0] for line in lines if line.startswith(("  temperature", "  max_tokens"))} == {
        "temperature",
        "max_tokens",
    }


def test_unknown_provider_is_named(server: str) -> None:
    done = headrace("generate", "Hello", "--server", server, "--provider", "nobody")
    assert done.returncode == 1
    assert "headrace: NOT_FOUND: " in done.stderr
    assert "nobody" in done.stderr


def test_deadline_is_kept(server: str) -> None:
    done = headrace("generate", "Hello", "--server", server, "--model", "fake-n9-d1000", "--timeout", "0.3")
    assert done.returncode == 1
    assert "headrace: DEADLINE_EXCEEDED: " in done.stderr


# ---------------------------------------------------------------- provider


def providers(server: str) -> dict[str, dict[str, Any]]:
    found = (json.loads(line) for line in ok("provider", "list", "--json", "--server", server).splitlines())
    return {provider["provider"]: provider for provider in found}


def test_provider_is_added_changed_checked_and_disabled(server: str, provider_url: str) -> None:
    add = ("provider", "add", "mine", "--dialect", "claude", "--default-model", "echo", "--api-url", provider_url, "--priority", "7")
    text = ok(*add, "--api-key-env", "MY_KEY", "--server", server, MY_KEY="sk-secret-0123456789")
    assert text == f"mine: claude at {provider_url}, echo, enabled, with a key\n"

    ok("provider", "set", "mine", "--rate-limit-rpm", "9", "--zone", "Europe/Paris", "--fallback", "fake", "--server", server)
    mine = providers(server)["mine"]
    assert (mine["priority"], mine["rate_limit_rpm"], mine["fallback_providers"]) == (7, "9", ["fake"])
    assert json.loads(mine["config_json"])["zone"] == "Europe/Paris"
    assert mine["api_key_last_four"] == "6789"
    assert "secret" not in json.dumps(mine)

    ok("provider", "set", "mine", "--unset", "rate_limit_rpm", "--unset", "api_key", "--server", server)
    assert not {"rate_limit_rpm", "has_api_key"} & providers(server)["mine"].keys()

    assert ok("provider", "check", "mine", "--server", server).startswith("mine answers as echo after ")
    assert "mine: claude" in ok("provider", "disable", "mine", "--server", server)
    assert not providers(server)["mine"].get("enabled", False)


def test_providers_are_listed_as_a_table(server: str) -> None:
    head, *rows = ok("provider", "list", "--server", server).splitlines()
    columns = ["PROVIDER", "DIALECT", "ENABLED", "PRIORITY", "KEY", "MODEL", "FROM", "CIRCUIT", "ERRORS", "LATENCY", "URL"]
    assert head.split() == columns
    fake = next(row.split() for row in rows if row.startswith("fake "))
    assert fake[1:6] == ["openai", "yes", "0", "none", "echo"]
    assert fake[6:8] == ["file", "closed"]
    gemini = next(row.split() for row in rows if row.startswith("gemini "))
    assert gemini[7:10] == ["closed", "-", "-"]
    assert {row.split()[0] for row in rows} >= {"fake", "claude", "gemini", "openai"}


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["set", "openai", "--api-key-env", "NOT_SET"], 2, "the environment variable NOT_SET is not set"),
        (["set", "openai", "--ask-api-key"], 2, "--ask-api-key needs a terminal"),
        (["set", "openai"], 2, "nothing to change was named"),
        (["add", "x", "--dialect", "latin", "--default-model", "m"], 2, "'latin' is none of claude, gemini, openai"),
        (["set", "fake", "--priority", "1"], 1, "headrace: FAILED_PRECONDITION: "),
        (["check", "nobody"], 1, "headrace: NOT_FOUND: "),
        (["get", "nobody"], 1, "headrace: NOT_FOUND: "),
        (["reset", "nobody"], 1, "headrace: NOT_FOUND: "),
        (["delete", "fake"], 1, "headrace: FAILED_PRECONDITION: "),
        (["set", "claude", "--fallback", "nobody"], 1, "provider.fallback_providers[0]: there is no provider named 'nobody'"),
        (["set", "claude", "--rate-limit-rpm", "0"], 1, "provider.rate_limit_rpm: must be greater than 0"),
    ],
)
def test_provider_command_fails_with_words(server: str, arguments: list[str], code: int, expected: str) -> None:
    done = headrace("provider", *arguments, "--server", server)
    assert (done.returncode, done.stdout) == (code, "")
    assert expected in done.stderr


def test_check_fails_when_the_provider_does_not_answer(server: str) -> None:
    add = ("provider", "add", "gone", "--dialect", "openai", "--default-model", "m", "--api-url", "http://127.0.0.1:1/v1")
    ok(*add, "--priority", "999", "--server", server)
    done = headrace("provider", "check", "gone", "--server", server)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("headrace: NETWORK_ERROR: ")


def test_provider_is_shown_with_how_it_does_until_it_is_deleted(server: str) -> None:
    add = ("provider", "add", "shaky", "--dialect", "openai", "--default-model", "m", "--api-url", "http://127.0.0.1:1/v1")
    ok(*add, "--rate-limit-rpm", "9", "--fallback", "fake", "--priority", "999", "--server", server)
    shown = dict(line.split(None, 1) for line in ok("provider", "get", "shaky", "--server", server).splitlines())
    assert (shown["provider"], shown["dialect"], shown["key"], shown["from"]) == ("shaky", "openai", "none", "store")
    assert (shown["limits"], shown["fallbacks"], shown["circuit"]) == ("9 requests a minute", "fake", "closed")
    assert shown["last"] == "minute  0 calls, errors -, latency -"
    shown = json.loads(ok("provider", "get", "shaky", "--json", "--server", server))
    assert shown["health"] == {"circuit_state": "CIRCUIT_STATE_CLOSED"}

    assert ok("provider", "delete", "shaky", "--server", server) == "shaky is gone\n"
    assert "shaky" not in providers(server)


def test_circuit_is_shown_open_until_it_is_reset_by_hand(server: str) -> None:
    add = ("provider", "add", "broken", "--dialect", "openai", "--default-model", "m", "--api-url", "http://127.0.0.1:1/v1")
    ok(*add, "--priority", "999", "--server", server)
    for _ in range(5):
        assert headrace("provider", "check", "broken", "--server", server).returncode == 1
    row = next(line.split() for line in ok("provider", "list", "--server", server).splitlines() if line.startswith("broken "))
    assert row[7:10] == ["open", "100%", "-"]
    assert re.search(r"^circuit +open, a probe at \d{4}-.* UTC$", ok("provider", "get", "broken", "--server", server), re.MULTILINE)
    assert ok("provider", "reset", "broken", "--server", server) == "broken: circuit closed\n"
    done = headrace("provider", "delete", "broken", "--server", server)
    assert (done.returncode, done.stdout) == (1, "")
    assert "rows of the record refer to it; disable it instead" in done.stderr


@contextmanager
def running_command(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A command that runs; it is ended with the block, also where that fails, instead of being waited for."""
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True, preexec_fn=LISTENS_TO_CTRL_C) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def interrupt(process: subprocess.Popen[str]) -> str:
    """What it says on stderr when its user types Ctrl-C, again where the first was lost in a callback of gRPC's."""
    for _ in range(10):
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=2)[1]
    raise AssertionError("it does not end when it is interrupted")


def test_quotas_are_shown_and_watched(server: str, provider_url: str) -> None:
    add = ("provider", "add", "limited", "--dialect", "openai", "--default-model", "echo", "--api-url", f"{provider_url}/v1")
    ok(*add, "--rate-limit-rpd", "5", "--priority", "999", "--server", server)
    assert headrace("generate", "Hello", "--provider", "limited", "--server", server).returncode == 0
    head, row = ok("provider", "quotas", "limited", "--server", server).splitlines()
    assert head.split() == ["PROVIDER", "MODEL", "LIMIT", "OF", "LIMIT", "USED", "RESERVED", "LEFT", "RESET", "(UTC)"]
    assert row.split()[:9] == ["limited", "echo", "requests", "per", "day", "5", "1", "0", "4"]
    assert ok("provider", "quotas", "limited", "--model", "other", "--server", server).splitlines() == [
        "PROVIDER  MODEL  LIMIT OF  LIMIT  USED  RESERVED  LEFT  RESET (UTC)"
    ]

    arguments = [*HEADRACE, "provider", "quotas", "limited", "--watch", "--json", "--server", server]
    with running_command(arguments) as watching:
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["used"] == "1"
        assert headrace("generate", "Hello", "--provider", "limited", "--server", server).returncode == 0
        while json.loads(watching.stdout.readline())["used"] != "2":
            pass
        stderr = interrupt(watching)
    assert watching.returncode == 130
    assert "Traceback" not in stderr


# ---------------------------------------------------------------- explain


def test_plan_is_shown_without_asking_anyone(server: str) -> None:
    before = ok("request", "list", "--server", server)
    lines = ok("explain", "Hello river", "--provider", "fake", "--max-tokens", "9", "--server", server).splitlines()
    assert lines[0] == "1. fake/echo"
    assert "would begin at once" in lines
    plan = json.loads(ok("explain", "-", "--json", "--model", "large", "--server", server, stdin="Hello river"))
    assert (plan["providers"][0], plan["expected_wait"]) == ({"provider": "fake", "model": "large"}, "0s")
    assert ok("request", "list", "--server", server) == before


def test_explain_fails_and_says_why_when_nobody_would_be_asked(server: str) -> None:
    done = headrace("explain", "Hello", "--temperature", "7", "--max-tokens", "0", "--server", server)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert {line.partition(":")[0] for line in lines[:-1]} == {"temperature", "max_tokens"}
    assert lines[-1] == "nobody would be asked"
    plan = headrace("explain", "Hello", "--provider", "claude", "--server", server).stdout.splitlines()
    assert plan[0].startswith("1. claude/claude-")
    assert plan[0].endswith(" is passed over: the provider 'claude' has no API key")
    assert plan[1] == "2. fake/echo"


# ---------------------------------------------------------------- request


def newest(server: str, *filters: str) -> dict[str, Any]:
    line = ok("request", "list", "--limit", "1", "--json", *filters, "--server", server).splitlines()[0]
    return dict(json.loads(line))


def test_request_is_listed_shown_watched_and_stays_when_it_is_cancelled_late(server: str) -> None:
    ok_code = headrace("generate", "Hello river", "--server", server).returncode
    assert ok_code == 0
    request_id = newest(server, "--state", "completed")["request_id"]
    head, *rows = ok("request", "list", "--provider", "fake", "--server", server).splitlines()
    assert head.split()[0] == "REQUEST"
    assert any(row.startswith(request_id) and "completed" in row for row in rows)
    shown = ok("request", "show", request_id, "--server", server)
    assert "streaming → completed [stream_complete]" in shown
    assert shown.endswith(ECHO + "\n")
    watched = ok("request", "watch", request_id, "--server", server).splitlines()
    assert [re.findall(r"→ (\w+)", line)[0] for line in watched] == ["validating", "requesting", "streaming", "completed"]
    assert ok("request", "cancel", request_id, "--server", server) == f"{request_id}: completed\n"


def test_running_request_fails_when_it_is_cancelled(server: str) -> None:
    arguments = [*HEADRACE, "generate", "Hello", "--server", server, "--model", "fake-n100-d100"]
    with running_command(arguments) as running:
        assert running.stdout is not None
        assert running.stdout.read(4) == " tok"
        request_id = newest(server, "--state", "streaming")["request_id"]
        assert ok("request", "cancel", request_id, "--server", server) == f"{request_id}: failed\n"
        _, stderr = running.communicate(timeout=20)
        assert running.returncode == 1
        assert "headrace: CANCELLED: " in stderr
    assert newest(server, "--code", "cancelled")["request_id"] == request_id


def test_generation_is_cancelled_when_its_caller_types_ctrl_c(server: str) -> None:
    arguments = [*HEADRACE, "generate", "Hello", "--server", server, "--model", "fake-n101-d100"]
    with running_command(arguments) as running:
        assert running.stdout is not None
        assert running.stdout.read(4) == " tok"
        stderr = interrupt(running)
    assert running.returncode == 130
    assert "Traceback" not in stderr


def test_unknown_request_is_an_error(server: str) -> None:
    done = headrace("request", "show", "01890a5d-ac96-774b-bcce-b302099a8057", "--server", server)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("headrace: NOT_FOUND: ")


def test_unknown_state_is_wrong_usage(server: str) -> None:
    done = headrace("request", "list", "--state", "sleeping", "--server", server)
    assert done.returncode == 2
    assert "'sleeping' is none of idle, validating" in done.stderr
