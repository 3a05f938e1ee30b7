"""What must hold of a database after any crash, found by plain SQL and plain arithmetic, and then by `headrace db check` besides."""

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from crash.callers import Sent
from headrace_server.store.check import check

TERMINAL = ("completed", "failed")
OUTPUT_ESTIMATE = 1_024
"""What the limiter reserves for an answer without max_tokens."""


def violations(database: Path, sent: Mapping[str, Sent], calls: Counter[str], limits: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Everything that is not as it must be, once recovery is done and before new work; `calls` of the provider by request id."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        rows = [_decoded(row) for row in db.execute("SELECT * FROM provider_logs")]
        by_id = {row["request_id"]: row for row in rows}
        return [
            *_structure(db),
            *_rows(rows, sent),
            *_outcomes(by_id, sent),
            *_kept(db, sent),
            *_intents(by_id, calls),
            *_metrics(db, by_id),
            *_counters(db, rows, limits),
            *(f"db check: {finding}" for finding in check(database, now=max((row["updated_at"] for row in rows), default=0))),
        ]


def _decoded(row: sqlite3.Row) -> dict[str, Any]:
    values = dict(row)
    for column in ("attempts", "transitions", "response_data", "request_data"):
        values[column] = json.loads(values[column] or "null")
    # What is not set is not written.
    values["attempts"] = [{"usage": None, "replay_safety": None, **attempt} for attempt in values["attempts"]]
    return values


def _structure(db: sqlite3.Connection) -> Iterator[str]:
    for (told,) in db.execute("PRAGMA integrity_check"):
        if told != "ok":
            yield f"integrity_check: {told}"
    for broken in db.execute("PRAGMA foreign_key_check"):
        yield f"foreign_key_check: {tuple(broken)}"


def _rows(rows: list[dict[str, Any]], sent: Mapping[str, Sent]) -> Iterator[str]:
    """One row for each request that was accepted, each at its end, none that nobody sent."""
    count = Counter(row["request_id"] for row in rows)
    yield from (
        f"{request_id}: accepted, and {count[request_id]} rows" for request_id, s in sent.items() if s.accepted and count[request_id] != 1
    )
    yield from (f"{request_id}: a row of a request that nobody sent" for request_id in count if request_id not in sent)
    for row in rows:
        history = [step["to_state"] for step in row["transitions"]]
        if row["state"] not in TERMINAL or row["end_time"] is None:
            yield f"{row['request_id']}: the row stands in {row['state']}, end_time {row['end_time']}"
        elif history[-1:] != [row["state"]] or sum(state in TERMINAL for state in history) != 1:
            yield f"{row['request_id']}: {row['state']} after the states {history}"


def _outcomes(rows: Mapping[str, dict[str, Any]], sent: Mapping[str, Sent]) -> Iterator[str]:
    """What callers were told is what stands on record."""
    for request_id, seen in sent.items():
        if (row := rows.get(request_id)) is None:
            continue
        completed, text = row["state"] == "completed", _text(row["response_data"])
        for told in seen.completed:
            if not completed or told != text:
                yield f"{request_id}: completed was told with {told!r}, the row is {row['state']} with {text!r}"
        for code in seen.failed:
            if completed or code != row["error_code"]:
                yield f"{request_id}: failed with {code} was told, the row is {row['state']} {row['error_code']}"
        for streamed in seen.texts:
            if completed and not text.startswith(streamed):
                yield f"{request_id}: {streamed!r} was streamed, the row has {text!r}"
        if completed and request_id not in text and "tok" not in text:
            yield f"{request_id}: the row has the answer of another request: {text!r}"


def _kept(db: sqlite3.Connection, sent: Mapping[str, Sent]) -> Iterator[str]:
    """Kept chunks have no gap, and every reader sees the same ones, before a crash and after it."""
    following: Counter[str] = Counter()
    for request_id, first, count in db.execute(
        "SELECT request_id, first_index, chunk_count FROM stream_chunks ORDER BY request_id, first_index"
    ):
        if first != following[request_id]:
            yield f"{request_id}: kept chunks go on at {first} after {following[request_id]}"
        following[request_id] = first + count
    for request_id, seen in sent.items():
        chunks: dict[int, str] = {}
        for view in seen.views if seen.is_kept else ():
            for index, text in view.items():
                if chunks.setdefault(index, text) != text:
                    yield f"{request_id}: chunk {index} was {chunks[index]!r} to one reader and {text!r} to another"


def _intents(rows: Mapping[str, dict[str, Any]], calls: Counter[str]) -> Iterator[str]:
    """No call without an intent on record, none that was not sent has a call, none that was answered has none."""
    for request_id, number in calls.items():
        intents = [a for a in rows[request_id]["attempts"] if a["replay_safety"] != "not_sent"] if request_id in rows else []
        if number > len(intents):
            yield f"{request_id}: {number} calls of the provider, {len(intents)} intents on record"
    for request_id, row in rows.items():
        answered = sum(a["state"] == "completed" or a["replay_safety"] == "partial_output" for a in row["attempts"])
        if calls[request_id] < answered:
            yield f"{request_id}: {answered} answered attempts on record, {calls[request_id]} calls of the provider"
        if any(a["state"] not in TERMINAL for a in row["attempts"]):
            yield f"{request_id}: an attempt without an end"


def _metrics(db: sqlite3.Connection, rows: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """Metrics belong to a row, once for each provider tried, and one of a completed row says success."""
    by_request = defaultdict(list)
    for line in db.execute("SELECT * FROM provider_metrics"):
        by_request[line["request_id"]].append(line)
        if line["request_id"] not in rows:
            yield f"{line['request_id']}: metrics without a row"
    for request_id, row in rows.items():
        lines = by_request[request_id]
        if any(n > 1 for n in Counter(line["provider"] for line in lines).values()):
            yield f"{request_id}: a provider has two lines of metrics"
        if (row["state"] == "completed") != (sum(line["success"] for line in lines) == 1):
            yield f"{request_id}: {row['state']}, with metrics {[(line['provider'], line['success']) for line in lines]}"


def _counters(db: sqlite3.Connection, rows: list[dict[str, Any]], limits: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Nothing is reserved any more, and what counts as used is what the attempts on record used."""
    for held in db.execute("SELECT request_id, attempt FROM rate_limit_reservations"):
        yield f"{held[0]}: attempt {held[1]} still holds its reservation"
    requests: Counter[tuple[str, str]] = Counter()
    tokens: Counter[tuple[str, str]] = Counter()
    for row in rows:
        for attempt in row["attempts"]:
            key = (attempt["provider"], attempt["model"])
            requests[key] += attempt["replay_safety"] != "not_sent"
            tokens[key] += _tokens(row, attempt)
    seen = set()
    for window in db.execute("SELECT * FROM provider_rate_limits"):
        key = (window["provider"], window["model"])
        seen.add(key)
        expected = tokens[key] if window["limit_type"] == "tokens_per_minute" else requests[key]
        if (window["current_usage"], window["previous_usage"], window["reserved"]) != (expected, 0, 0):
            yield (
                f"limit {key} {window['limit_type']}: used {window['current_usage']}, before {window['previous_usage']}, "
                f"reserved {window['reserved']}; its attempts on record make {expected}"
            )
        if window["limit_type"] != "tokens_per_minute" and window["current_usage"] > window["limit_value"]:
            yield f"limit {key} {window['limit_type']}: {window['current_usage']} of {window['limit_value']}"
    for key in requests:
        if key[0] in limits and key not in seen:
            yield f"limit {key}: {requests[key]} requests on record, and no counter"


def _tokens(row: Mapping[str, Any], attempt: Mapping[str, Any]) -> int:
    """What an attempt counts for: what the provider told; else what was reserved, or more where more is known; 0 where nothing was sent."""
    if attempt["replay_safety"] == "not_sent":
        return 0
    request = row["request_data"]
    characters = sum(len(part["text"]) for message in request["messages"] for part in message["content"])
    reserved: int = -(-characters // 4) + (request.get("max_tokens") or OUTPUT_ESTIMATE)
    usage = attempt["usage"]
    if usage is None:
        return reserved
    told: int = usage["total_tokens"]
    return told if usage["source"] == "provider" else max(told, reserved)


def _text(result: Mapping[str, Any] | None) -> str:
    return "".join(part.get("text", "") for part in (result or {}).get("content", ()))
