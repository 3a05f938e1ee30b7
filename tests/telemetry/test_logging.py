"""Log lines: one a request, in JSON or as text, without keys, prompts or forged lines."""

import io
import json
import logging
import os
import pty
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from headrace_server.domain.record import LogRow
from headrace_server.telemetry.logging import configure_logging, log_request

pytestmark = pytest.mark.usefixtures("restored_logging")

KEY = "sk-canary-1234567890"
SECRET = "hunter2-canary"

log = logging.getLogger("headrace_server.test")


class Lines:
    """What was logged in JSON."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def __call__(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def lines() -> Lines:
    lines = Lines()
    configure_logging("info", None, secrets=lambda: [SECRET], stream=lines.stream)
    return lines


def without_time(line: dict[str, Any]) -> dict[str, Any]:
    assert line.pop("timestamp").endswith("Z")
    assert line.pop("logger").startswith("headrace_server.")
    return line


def test_one_json_line_tells_a_request_when_completed(lines: Lines, row_of: Callable[[str], LogRow]) -> None:
    row = row_of("completed").model_copy(update={"trace_id": "0af7651916cd43dd8448eb211c80319c"})
    log_request(row)
    (line,) = lines()
    assert without_time(line) == {
        "event": "request completed",
        "level": "info",
        "request_id": row.request_id,
        "trace_id": row.trace_id,
        "state": "completed",
        "provider": "claude",
        "model": "claude-x",
        "duration_ms": 1000,
        "attempts": 1,
        "user_id": "u-1",
        "finish_reason": "stop",
        "first_token_ms": 152,
        "cost_micro_usd": 1234,
        "input_tokens": 12,
        "output_tokens": 30,
    }


def test_line_is_a_warning_with_the_code_when_failed(lines: Lines, row_of: Callable[[str], LogRow]) -> None:
    log_request(row_of("failed"))
    (line,) = lines()
    assert {name: line[name] for name in ("event", "level", "code", "subreason", "http_status")} == {
        "event": "request failed",
        "level": "warning",
        "code": "rate_limit_exceeded",
        "subreason": "RAMP",
        "http_status": 429,
    }


@pytest.mark.parametrize("kind", ["completed", "retried", "fell_back", "failed", "cancelled", "refused"])
def test_no_prompt_or_error_text_is_in_the_line(kind: str, lines: Lines, row_of: Callable[[str], LogRow]) -> None:
    log_request(row_of(kind))
    assert "prompt-canary" not in lines.stream.getvalue()
    assert "sk-secret" not in lines.stream.getvalue()
    assert len(lines()) == 1


def test_completed_requests_are_silent_when_only_warnings_are_wanted(row_of: Callable[[str], LogRow]) -> None:
    lines = Lines()
    configure_logging("warning", json=True, stream=lines.stream)
    log_request(row_of("completed"))
    log_request(row_of("failed"))
    assert [line["event"] for line in lines()] == ["request failed"]


@pytest.mark.parametrize("as_json", [True, False])
def test_no_key_is_written_wherever_it_stands(as_json: bool) -> None:
    stream = io.StringIO()
    configure_logging("debug", as_json, secrets=lambda: [SECRET], stream=stream)
    for secret in (KEY, SECRET):
        log.info("called with %s", secret)
        log.info("extra", extra={"field": secret, "nested": {"a": [secret]}, "thing": ValueError(secret)})
        logging.getLogger("grpc").warning("metadata: %r", [("authorization", f"Bearer {secret}")])
        try:
            raise ValueError(f"Illegal header value {secret!r}")
        except ValueError:
            log.exception("failed with %s", secret)
        log.info("stack", stack_info=True, extra={"why": secret})
    written = stream.getvalue()
    assert KEY not in written
    assert SECRET not in written
    assert written.count("Traceback (most recent call last)") == 2
    assert written.count("[redacted]") >= 12


def test_control_characters_cannot_forge_a_line_or_steer_a_terminal() -> None:
    evil = 'x\n{"level":"forged"}\r\x1b[2J\x9b1m\x7f\u2028\u202eend'
    for as_json in (True, False):
        stream = io.StringIO()
        configure_logging("info", as_json, stream=stream)
        log.info("text %s", evil, extra={"field": evil})
        try:
            raise ValueError(evil)
        except ValueError:
            log.exception("failed")
        written = stream.getvalue()
        assert not {"\r", "\x1b", "\x9b", "\u2028", "\u202e"} & set(written)
        assert not [line for line in written.splitlines() if line.startswith('{"level"')]
        if as_json:
            assert [json.loads(line)["event"] for line in written.splitlines()] == [f"text {evil}", "failed"]


def test_libraries_and_warnings_go_through_the_same_pipe(lines: Lines) -> None:
    for name in ("grpc._cython.cygrpc", "aiohttp.server", "asyncio"):
        logging.getLogger(name).info("chatter")
        logging.getLogger(name).error("trouble")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old habits", DeprecationWarning, stacklevel=1)
    told = [(line["logger"], line["level"]) for line in lines()]
    errors = [("grpc._cython.cygrpc", "error"), ("aiohttp.server", "error"), ("asyncio", "error")]
    assert told == [*errors, ("py.warnings", "warning")]


def test_level_is_refused_with_its_name_when_unknown() -> None:
    with pytest.raises(ValueError, match="one of debug, info, warning, error, critical, not 'loud'"):
        configure_logging("loud")


def test_text_is_written_when_stderr_is_a_terminal_and_json_when_it_is_none() -> None:
    program = (
        "from headrace_server.telemetry.logging import configure_logging; import logging\n"
        "configure_logging(); logging.getLogger('headrace_server').info('hello', extra={'request_id': 'r-1'})"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm"}
    terminal, inner = pty.openpty()
    try:
        shown = subprocess.run([sys.executable, "-c", program], env=environment, stderr=inner, stdout=-1, check=True)
        text = os.read(terminal, 4096).decode()
    finally:
        os.close(inner)
        os.close(terminal)
    piped = subprocess.run([sys.executable, "-c", program], env=environment, stderr=-1, stdout=-1, check=True)
    assert "hello" in text
    assert "request_id" in text
    assert not text.startswith("{")
    assert json.loads(piped.stderr)["request_id"] == "r-1"
    assert shown.stdout == piped.stdout == b""
