"""Logs: one line for each request that ends, and whatever anyone else has to say, all through one pipe to stderr.

Everything uses Python's own `logging`; structlog only renders: JSON lines, or text on a terminal. Whoever wrote a text, keys are taken out
of it, and control characters cannot forge a line or steer a terminal.
"""

import logging
import re
import sys
from collections.abc import Callable, Iterable
from typing import Final, TextIO

import structlog
from structlog.typing import EventDict, Processor

from headrace_server.domain.lifecycle import State
from headrace_server.domain.record import LogRow
from headrace_server.domain.redaction import redact

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
OUR_LOGGERS: Final = ("headrace_server", "headrace")

_requests = logging.getLogger("headrace_server.requests")

# C0 and C1 controls, line separators, and the marks that turn the direction of text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def configure_logging(
    level: str = "info",
    json: bool | None = None,
    *,
    secrets: Callable[[], Iterable[str]] = tuple,
    stream: TextIO | None = None,
) -> None:
    """Send all logs of the process to `stream` (stderr), replacing what was configured before.

    `level` holds for Headrace; libraries are heard from `warning` on, because some tell addresses and headers below that. `json` None:
    text on a terminal, JSON lines elsewhere. `secrets` gives the texts to take out besides all that looks like a key, asked for each line.
    Raises ValueError for an unknown level.
    """
    if level not in LEVELS:
        raise ValueError(f"the log level must be one of {', '.join(LEVELS)}, not {level!r}")
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(not stream.isatty() if json is None else json, secrets, colors=stream.isatty()))
    ours = getattr(logging, level.upper())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(ours, logging.WARNING))
    for name in OUR_LOGGERS:
        logging.getLogger(name).setLevel(ours)
    logging.captureWarnings(True)
    # What no line of ours shows is not found out for each: https://docs.python.org/3/howto/logging.html#optimization
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def log_request(row: LogRow, event: str = "") -> None:
    """The line of a request that has ended; nothing of its prompt, its answer, or its error's text is in it."""
    level = logging.WARNING if row.state is State.FAILED else logging.INFO
    if not _requests.isEnabledFor(level):
        return
    fields: dict[str, object] = {
        "request_id": row.request_id,
        "trace_id": row.trace_id,
        "state": row.state.value,
        "provider": row.provider,
        "model": row.model,
        "code": row.error_code.value if row.error_code else None,
        "subreason": row.error.subreason if row.error else None,
        "http_status": (row.error.http_status or None) if row.error else None,
        "duration_ms": row.duration,
        "attempts": len(row.attempts),
        "user_id": row.user_id,
    }
    if (result := row.response_data) is not None:
        fields["finish_reason"] = result.finish_reason.value if result.finish_reason else None
        fields["first_token_ms"] = result.first_token_latency
        fields["cost_micro_usd"] = result.cost
        fields["fallback"] = result.fallback.provider if result.fallback else None
        if result.usage is not None:
            fields["input_tokens"] = result.usage.input_tokens
            fields["output_tokens"] = result.usage.output_tokens
    shown = {name: value for name, value in fields.items() if value is not None and value != ""}
    _requests.log(level, event or f"request {row.state}", extra=shown)


def _formatter(json: bool, secrets: Callable[[], Iterable[str]], *, colors: bool) -> logging.Formatter:
    def redacted(_logger: object, _method: str, event: EventDict) -> EventDict:
        known = tuple(secrets())
        texts = {name: str(value) for name, value in event.items() if value is not None and not isinstance(value, int | float)}
        event.update(texts)
        together = "\n".join(texts.values())
        if redact(together, *known) != together:  # as good as never, so all are looked at in one go
            event.update({name: redact(text, *known) for name, text in texts.items()})
        return event

    text: list[Processor] = [_escape_controls, structlog.dev.ConsoleRenderer(colors=colors)]
    lines: list[Processor] = [structlog.processors.JSONRenderer()]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            redacted,
            *(lines if json else text),
        ],
    )


def _escape_controls(_logger: object, _method: str, event: EventDict) -> EventDict:
    """For a terminal; JSON does it by itself. Tracebacks keep their lines, indented, so that none looks like a record of its own."""
    for name, value in event.items():
        if name in ("exception", "stack"):
            event[name] = "\n".join("    " + _escape(line) for line in str(value).split("\n"))
        elif isinstance(value, str):
            event[name] = _escape(value)
    return event


def _escape(text: str) -> str:
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
