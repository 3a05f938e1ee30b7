"""The recorded exchanges, through scanner and decoder of every dialect, compared with what the providers' own SDKs read.

The corpus stands in the folder that HEADRACE_WIRE names (default: `shared/wire` beside this repository); its README says what is in
it. A table of how many recordings agree, by dialect, closes the report of the run.
"""

import collections
import json
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from headrace_server.domain.answer import Answer
from headrace_server.domain.errors import ErrorCode, ProviderFault
from headrace_server.domain.events import Delta, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from headrace_server.domain.message import ReasoningPart, RefusalPart, TextPart, ToolCallPart
from headrace_server.domain.provider import Dialect as Name
from headrace_server.domain.provider import Provider, ProviderSettings
from headrace_server.domain.result import FinishReason
from headrace_server.domain.usage import UsageSource
from headrace_server.providers import registry
from headrace_server.providers.dialect import Decoder, Dialect, HttpFailure
from headrace_server.providers.sse import Scanner

CORPUS = Path(os.environ.get("HEADRACE_WIRE") or Path(__file__).parents[3] / "shared" / "wire")

DIALECTS = {
    "openai-chat": (Name.OPENAI, "chat"),
    "openai-responses": (Name.OPENAI, "responses"),
    "anthropic-messages": (Name.CLAUDE, "chat"),
    "gemini-generate": (Name.GEMINI, "chat"),
}
"""Folder of the corpus -> the dialect and the API that read it."""

KNOWN_DIFFERENCES: dict[str, str] = {}
"""Slugs of recordings whose expected values are wrong, each with the reason. Nothing else belongs here."""

FINISH_REASONS = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "pause_turn": "length",
    "model_context_window_exceeded": "length",
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "BLOCKLIST": "content_filter",
    "SPII": "content_filter",
    "completed": "stop",
    "max_output_tokens": "length",
}
"""The provider's word for why it stopped -> ours, before calls and refusals are looked at. Any other word is an error."""

pytestmark = pytest.mark.wire


class Recording:
    """One exchange of the corpus."""

    def __init__(self, folder: Path) -> None:
        self.meta = json.loads((folder / "meta.json").read_text())
        self.expected = json.loads((folder / "expected.json").read_text())
        self.body = (folder / self.meta["response_file"]).read_bytes()
        self.slug: str = self.meta["slug"]

    @property
    def fails(self) -> bool:
        """Whether the exchange is one that must not succeed."""
        return bool(not self.expected["ok"] or self.expected.get("stream_error") or self.native not in FINISH_REASONS)

    @property
    def native(self) -> str | None:
        return self.expected.get("incomplete_reason") or self.expected.get("finish_reason")

    @property
    def kind(self) -> str:
        return "error" if self.meta["status"] >= 400 else "stream" if self.meta["streaming"] else "whole"


def recordings() -> Iterator[Any]:
    folders = sorted(path.parent for path in CORPUS.glob("*/*/meta.json"))
    if not folders:
        yield pytest.param(None, marks=pytest.mark.skip(reason=f"no recordings in {CORPUS}: set HEADRACE_WIRE"), id="none")
    for folder in folders:
        name, api = DIALECTS[folder.parent.name]
        unread = pytest.mark.skip(reason=f"the registry has no dialect for {folder.parent.name}")
        marks = () if {(name, ""), (name, api)} & registry.DIALECTS.keys() else (unread,)
        yield pytest.param(folder, marks=marks, id=f"{folder.parent.name}/{folder.name}")


@pytest.mark.parametrize("folder", list(recordings()))
def test_recording_reads_as_the_sdk_read_it(folder: Path, record_property: Callable[[str, object], None]) -> None:
    recording = Recording(folder)
    dialect, provider = dialect_of(recording)
    splits = [[recording.body]]
    if recording.meta["framing"] == "sse":
        splits += [list(cut(recording.body, 3, 3)), list(cut(recording.body, 1, 40))]
    record_property("recorded exchange", [recording.meta["dialect"], recording.kind])
    wrong = [problem for pieces in splits for problem in differences(recording, dialect, provider, pieces)]
    if recording.slug in KNOWN_DIFFERENCES:
        assert wrong, "this recording agrees by now: take it off the list"
        return
    assert wrong == []


def dialect_of(recording: Recording) -> tuple[Dialect, Provider]:
    name, api = DIALECTS[recording.meta["dialect"]]
    provider = Provider(
        id="00000000-0000-7000-8000-000000000000",
        provider="wire",
        dialect=name,
        api_url="http://127.0.0.1",
        default_model="wire",
        config=ProviderSettings.model_validate({"api": api}),
        created_at=0,
        updated_at=0,
    )
    return registry.dialect_for(provider), provider


def cut(body: bytes, shortest: int, longest: int) -> Iterator[bytes]:
    """The body in pieces of random sizes, the same ones in every run."""
    sizes, at = random.Random(len(body)), 0
    while at < len(body):
        size = sizes.randint(shortest, longest)
        yield body[at : at + size]
        at += size


def decode(decoder: Decoder, recording: Recording, pieces: Iterable[bytes]) -> tuple[list[Delta], ProviderFault | None]:
    """All deltas of an answer, and how it failed."""
    deltas: list[Delta] = []
    try:
        if recording.meta["framing"] == "sse":
            scanner = Scanner()
            for piece in pieces:
                for name, data in scanner.feed(piece):
                    deltas += decoder.event(name, data)
            for name, data in scanner.close():
                deltas += decoder.event(name, data)
        else:
            deltas += decoder.whole(b"".join(pieces))
        decoder.finish()
    except ProviderFault as fault:
        return deltas, fault
    return deltas, None


def differences(recording: Recording, dialect: Dialect, provider: Provider, pieces: Sequence[bytes]) -> list[str]:
    """What was read otherwise than expected, as short texts."""
    meta, expected = recording.meta, recording.expected
    if meta["status"] >= 400:
        fault = dialect.classify(HttpFailure(meta["status"], meta["response_headers"], recording.body))
        wrong = [] if fault.http_status == meta["status"] else [f"http_status {fault.http_status}"]
        return wrong + (["no code"] if fault.code == ErrorCode.UNKNOWN_ERROR else [])
    decoder = dialect.decoder(provider)
    deltas, failed = decode(decoder, recording, pieces)
    if recording.fails:
        if expected.get("sdk_error") and not expected.get("error") and not expected.get("stream_error"):
            return []  # the SDK could not read it either: there is nothing to compare with
        wrong = [] if failed else [f"should fail, ended {decoder.answer.finish_reason}"]
        if expected.get("text") and joined(decoder.answer, TextPart) != expected["text"]:
            wrong.append("text before the failure")
        return wrong
    if failed:
        return [f"{failed.fault.code} {failed.fault.subreason}: {failed}"]
    return [*wrong_content(recording, decoder.answer, deltas), *wrong_end(recording, decoder.answer)]


def joined(answer: Answer, kind: type) -> str:
    texts = {TextPart: "text", ReasoningPart: "text", RefusalPart: "refusal"}
    return "".join(getattr(part, texts[kind]) for part in answer.content() if isinstance(part, kind))


def wrong_content(recording: Recording, answer: Answer, deltas: Sequence[Delta]) -> Iterator[str]:
    expected = recording.expected
    for kind, piece, field in (
        (TextPart, TextDelta, "text"),
        (ReasoningPart, ReasoningDelta, "reasoning"),
        (RefusalPart, RefusalDelta, "refusal"),
    ):
        got, want = joined(answer, kind), expected.get(field) or ""
        if got != want and not (field == "reasoning" and expected.get("reasoning") is None):
            yield f"{field} {got[:60]!r} instead of {want[:60]!r}"
        if "".join(getattr(d, "refusal" if field == "refusal" else "text") for d in deltas if isinstance(d, piece)) != got:
            yield f"{field} joined from the deltas differs from the answer"
    calls = [part for part in answer.content() if isinstance(part, ToolCallPart)]
    wanted = list(expected.get("tool_calls") or [])
    if old := expected.get("function_call"):
        wanted.append({"name": old["name"], "arguments": old["arguments"], "arguments_json": json.loads(old["arguments"] or "{}")})
    if len(calls) != len(wanted):
        yield f"{len(calls)} tool calls instead of {len(wanted)}"
    for call, want in zip(calls, wanted, strict=False):
        if call.name != want["name"] or (want.get("id") and call.id != want["id"]) or not call.id:
            yield f"tool call {call} instead of {want}"
        # In whole answers of Claude the arguments are an object, and the string is the SDK's own.
        as_sent = want.get("arguments") if recording.kind == "stream" or recording.meta["dialect"].startswith("openai") else None
        if as_sent and call.arguments_json != as_sent:
            yield f"arguments {call.arguments_json!r} instead of {as_sent!r}"
        if want.get("arguments_json") is not None and json.loads(call.arguments_json or "{}") != want["arguments_json"]:
            yield f"arguments {call.arguments_json!r} instead of {want['arguments_json']}"
    pieces: dict[int, str] = collections.defaultdict(str)
    for delta in deltas:
        if isinstance(delta, ToolCallDelta):
            pieces[delta.position] += delta.arguments_delta
    if sorted(pieces.items()) != list(enumerate(call.arguments_json for call in calls)):
        yield f"arguments joined from the deltas, {dict(pieces)}, differ from the answer's"


def wrong_end(recording: Recording, answer: Answer) -> Iterator[str]:
    expected = recording.expected
    assert recording.native is not None
    if answer.native_finish_reason != recording.native:
        yield f"native finish reason {answer.native_finish_reason!r} instead of {recording.native!r}"
    reason = FINISH_REASONS[recording.native]
    if reason == "stop" and (expected.get("tool_calls") or expected.get("function_call")):
        reason = "tool_calls"
    if expected.get("refusal"):
        reason = "content_filter"
    if answer.finish_reason != FinishReason(reason):
        yield f"finish reason {answer.finish_reason} instead of {reason}"
    if expected.get("model") and answer.model != expected["model"]:
        yield f"model {answer.model!r} instead of {expected['model']!r}"
    sent = (expected.get("usage") or {}).get("as_sent")
    if not sent:
        return
    usage = answer.usage
    if usage is None or usage.source != UsageSource.PROVIDER:
        yield f"usage {usage}"
        return
    if (usage.input_tokens, usage.output_tokens) != usage_as_we_count(recording.meta["dialect"], sent):
        yield f"usage {usage} instead of {sent}"
    cached = "cache_read_input_tokens" if recording.meta["dialect"] == "anthropic-messages" else "cached_input_tokens"
    for got, field in ((usage.cached_input_tokens, cached), (usage.reasoning_tokens, "reasoning_tokens")):
        want = expected["usage"].get(field)
        if want is not None and got != want:
            yield f"{field} {got} instead of {want}"


def usage_as_we_count(dialect: str, sent: dict[str, Any]) -> tuple[int, int]:
    """Input and output: cached tokens are input, reasoning is output, whatever the provider's habit."""
    fields = {
        "openai-chat": (("prompt_tokens",), ("completion_tokens",)),
        "openai-responses": (("input_tokens",), ("output_tokens",)),
        "anthropic-messages": (("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"), ("output_tokens",)),
        "gemini-generate": (("promptTokenCount", "toolUsePromptTokenCount"), ("candidatesTokenCount", "thoughtsTokenCount")),
    }[dialect]
    given, taken = (sum(int(sent.get(name) or 0) for name in names) for names in fields)
    return given, taken
