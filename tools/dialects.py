"""Write docs/dialects.md: what each dialect makes of each field of a request, found out by asking its encoder; with --check only say
whether it is fresh.

`FIELDS` and `SILENT` are what the contract suite of the dialects runs on, too.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace_server.domain.provider import Dialect as Name
from headrace_server.domain.provider import Provider, ProviderSettings
from headrace_server.domain.request import GenerateRequest
from headrace_server.providers import history
from headrace_server.providers.dialect import Dialect
from headrace_server.providers.registry import DIALECTS, dialect_for

Json = dict[str, Any]

TARGET = Path(__file__).resolve().parent.parent / "docs" / "dialects.md"
ID = "01890a5d-ac96-774b-bcce-b302099a8057"

# ---------------------------------------------------------------- requests


def said(role: str, *parts: Json) -> Json:
    """A message."""
    return {"role": role, "content": list(parts)}


def text(words: str) -> Json:
    """A part that is a text."""
    return {"type": "text", "text": words}


HI = said("user", text("hi"))
TOOL: Json = {"name": "look", "description": "Looks.", "parameters_json": '{"type":"object"}'}
CALL: Json = {"type": "tool_call", "id": "c1", "name": "look", "arguments_json": "{}"}
RESULT: Json = {"type": "tool_result", "tool_call_id": "c1", "content": [text("seen")]}
PNG: Json = {"type": "image", "media_type": "image/png", "data": "iVBORw0K"}
SCHEMA: Json = {"type": "json_schema", "name": "s", "schema_json": '{"type":"object"}'}


def request(fields: Json) -> GenerateRequest:
    """A small valid request with these fields."""
    return GenerateRequest.model_validate({"request_id": ID, "messages": [HI]} | fields)


def turn(*parts: Json) -> Json:
    """A conversation in which the model's turn holds these parts."""
    return {"messages": [HI, said("assistant", *parts), HI]}


def asked(part: Json) -> Json:
    """A conversation in which the user shows this part."""
    return {"messages": [said("user", part)]}


def worked(call: Json = CALL, result: Json = RESULT) -> Json:
    """A conversation with a call of a tool and its result."""
    return {"messages": [HI, said("assistant", call), said("tool", result)], "tools": [TOOL]}


def result(**fields: Any) -> Json:
    """A conversation with a result like RESULT, but for these fields."""
    return worked(result=RESULT | fields)


def reasoned(**fields: str) -> Json:
    """A conversation in which the model's turn begins with reasoning."""
    return turn({"type": "reasoning"} | fields, text("so"))


@dataclass(frozen=True, slots=True)
class Sample:
    """A field, and requests that differ in nothing else. Of several pairs the first counts that is not refused."""

    field: str
    pairs: tuple[tuple[Json, Json], ...]
    remark: str = ""

    @property
    def title(self) -> str:
        """The field as the table shows it."""
        return f"`{self.field}`{self.remark and ' '}{self.remark}"


def sample(field: str, *pairs: tuple[Json, Json], remark: str = "") -> Sample:
    """A row of FIELDS."""
    return Sample(field, pairs, remark)


def setting(name: str, value: Any, remark: str = "", **beside: Any) -> Sample:
    """A field of the request itself, not set and set."""
    return sample(name, (beside, beside | {name: value}), remark=remark)


def member(of: str, name: str, value: Any, **beside: Any) -> Sample:
    """A field of a message inside the request, not set and set."""
    return sample(f"{of}.{name}", (beside, beside | {of: {name: value}}))


_PART = "messages[].content[]"
_SYSTEM = said("system", text("be kind"))
_IMAGE = {"type": "image"}

FIELDS: tuple[Sample, ...] = (
    setting("model", "another"),
    setting("stream", True),
    sample("messages[].role", ({"messages": [HI]}, {"messages": [HI, said("assistant", text("hi"))]}), remark="assistant"),
    sample("messages[].role", ({"messages": [HI]}, {"messages": [_SYSTEM, HI]}), remark="system, before all others"),
    sample("messages[].role", ({"messages": [HI, HI]}, {"messages": [HI, _SYSTEM, HI]}), remark="system, later"),
    sample(f"{_PART}.text", (turn(text("a")), turn(text("b")))),
    sample(f"{_PART}.image.media_type", (asked(PNG | {"media_type": "image/gif"}), asked(PNG)), remark="beside data"),
    sample(
        f"{_PART}.image.media_type",
        (asked(_IMAGE | {"uri": "https://x/y"}), asked(_IMAGE | {"uri": "https://x/y", "media_type": "image/png"})),
        remark="beside uri",
    ),
    sample(f"{_PART}.image.data", (asked(PNG | {"data": "R0lGODlh"}), asked(PNG))),
    sample(f"{_PART}.image.uri", (asked(_IMAGE | {"uri": "https://x/a"}), asked(_IMAGE | {"uri": "https://x/b"}))),
    sample(f"{_PART}.tool_call.id", (worked(CALL | {"id": "c2"}, RESULT | {"tool_call_id": "c2"}), worked())),
    sample(f"{_PART}.tool_call.id", (worked(), turn(CALL | {"id": ""}) | {"tools": [TOOL]}), remark="empty"),
    sample(f"{_PART}.tool_call.name", (worked(CALL | {"name": "peek"}), worked())),
    sample(f"{_PART}.tool_call.arguments_json", (worked(CALL | {"arguments_json": '{"a":1}'}), worked())),
    sample(f"{_PART}.tool_call.arguments_json", (worked(), worked(CALL | {"arguments_json": '{"a":'})), remark="that is no object"),
    sample(
        f"{_PART}.tool_call.signature",
        (worked(), worked(CALL | {"signature": "c2lnbmVk" * 20})),
        (worked(), worked(CALL | {"signature": "fc_1"})),
        (worked(), worked(CALL | {"signature": '{"google":{"thought_signature":"x"}}'})),
    ),
    sample(
        f"{_PART}.tool_result.tool_call_id",
        (
            {"messages": [HI, said("assistant", CALL, CALL | {"id": "c2", "name": "peek"}), said("tool", RESULT)]},
            {"messages": [HI, said("assistant", CALL, CALL | {"id": "c2", "name": "peek"}), said("tool", RESULT | {"tool_call_id": "c2"})]},
        ),
    ),
    sample(f"{_PART}.tool_result.content[].text", (result(), result(content=[text("nothing")]))),
    sample(
        f"{_PART}.tool_result.content[].image.media_type",
        (result(content=[PNG | {"media_type": "image/gif"}]), result(content=[PNG])),
        remark="beside data",
    ),
    sample(f"{_PART}.tool_result.content[].image.data", (result(content=[PNG | {"data": "R0lGODlh"}]), result(content=[PNG]))),
    sample(
        f"{_PART}.tool_result.content[].image.uri",
        (result(content=[_IMAGE | {"uri": "https://x/a"}]), result(content=[_IMAGE | {"uri": "https://x/b"}])),
    ),
    sample(
        f"{_PART}.tool_result.content[].provider_data",
        *(
            (result(), result(content=[{"type": "provider_data", "provider_data": data}]))
            for data in ({"type": "document", "x": 1}, {"type": "input_file", "x": 1})
        ),
    ),
    sample(f"{_PART}.tool_result.is_error", (result(), result(is_error=True))),
    sample(
        f"{_PART}.reasoning.text",
        (reasoned(text="hm", signature="c2lnbmVk"), reasoned(text="ah", signature="c2lnbmVk")),
        (reasoned(text="hm", id="rs_1"), reasoned(text="ah", id="rs_1")),
        (reasoned(text="hm"), reasoned(text="ah")),
    ),
    sample(
        f"{_PART}.reasoning.signature",
        (reasoned(text="hm", signature="c2lnbmVk"), reasoned(text="hm", signature="b3RoZXI=")),
        (
            reasoned(text="hm", signature='{"type":"reasoning.text","signature":"a"}'),
            reasoned(text="hm", signature='{"type":"reasoning.text","signature":"b"}'),
        ),
        (reasoned(text="hm", id="rs_1"), reasoned(text="hm", id="rs_1", signature='{"type":"reasoning_text"}')),
    ),
    sample(
        f"{_PART}.reasoning.redacted_data",
        (reasoned(redacted_data="c2VjcmV0"), reasoned(redacted_data="b3RoZXI=")),
        (reasoned(redacted_data="c2VjcmV0", id="rs_1"), reasoned(redacted_data="b3RoZXI=", id="rs_1")),
        (
            reasoned(redacted_data='{"type":"reasoning.encrypted","data":"a"}'),
            reasoned(redacted_data='{"type":"reasoning.encrypted","data":"b"}'),
        ),
    ),
    sample(f"{_PART}.reasoning.id", (reasoned(text="hm", id="rs_1"), reasoned(text="hm", id="rs_2"))),
    sample(f"{_PART}.refusal", (turn(text("no")), turn({"type": "refusal", "refusal": "no"}))),
    sample(
        f"{_PART}.provider_data",
        *(
            (turn(text("so")), turn(text("so"), {"type": "provider_data", "provider_data": data}))
            for data in ({"type": "server_tool_use", "id": "s"}, {"executableCode": {"code": "1"}})
        ),
    ),
    setting("max_tokens", 9),
    setting("temperature", 0.5),
    setting("temperature", 1.5, "above 1"),
    setting("top_p", 0.5),
    setting("top_k", 3),
    setting("seed", 7),
    setting("seed", 2**40, "beyond 32 bits"),
    setting("stop_sequences", ["x"]),
    sample("tools[].name", ({"tools": [TOOL]}, {"tools": [TOOL | {"name": "peek"}]})),
    sample("tools[].description", ({"tools": [TOOL]}, {"tools": [TOOL | {"description": "Peeks."}]})),
    sample("tools[].parameters_json", ({"tools": [TOOL]}, {"tools": [TOOL | {"parameters_json": '{"type":"object","x":1}'}]})),
    sample("tools[].strict", ({"tools": [TOOL]}, {"tools": [TOOL | {"strict": True}]}), remark="true"),
    sample("tools[].strict", ({"tools": [TOOL]}, {"tools": [TOOL | {"strict": False}]}), remark="false"),
    *(
        sample("tool_choice.mode", ({"tools": [TOOL]}, {"tools": [TOOL], "tool_choice": {"mode": mode}}), remark=mode)
        for mode in ("auto", "none", "required")
    ),
    member("tool_choice", "name", "look", tools=[TOOL]),
    sample("tool_choice.mode", ({}, {"tool_choice": {"mode": "none"}}), remark="without tools"),
    setting("parallel_tool_calls", False, "false", tools=[TOOL]),
    setting("parallel_tool_calls", True, "true", tools=[TOOL]),
    setting("parallel_tool_calls", False, "without tools"),
    sample("response_format.text", ({}, {"response_format": {"type": "text"}})),
    sample("response_format.json_object", ({}, {"response_format": {"type": "json_object"}})),
    sample("response_format.json_schema.name", ({"response_format": SCHEMA}, {"response_format": SCHEMA | {"name": "other"}})),
    sample(
        "response_format.json_schema.schema_json",
        ({"response_format": SCHEMA}, {"response_format": SCHEMA | {"schema_json": '{"type":"object","x":1}'}}),
    ),
    sample(
        "response_format.json_schema.strict",
        ({"response_format": SCHEMA}, {"response_format": SCHEMA | {"strict": True}}),
        remark="true",
    ),
    sample(
        "response_format.json_schema.strict",
        ({"response_format": SCHEMA}, {"response_format": SCHEMA | {"strict": False}}),
        remark="false",
    ),
    *(
        sample("reasoning.effort", ({}, {"reasoning": {"effort": effort}}), remark=effort if effort in ("none", "high") else "")
        for effort in ("none", "high")
    ),
    member("reasoning", "budget_tokens", 2_000),
    sample("reasoning.hide", ({"reasoning": {"effort": "high"}}, {"reasoning": {"effort": "high", "hide": True}})),
    setting("provider_options", {"brand_new": 1}),
)
"""Every field of a request that is meant for the provider."""

OWN = ("request_id", "provider", "metadata", "retry", "fallback", "timeouts", "on_disconnect", "quiet", "timing", "priority")
"""Fields that are for Headrace alone: no dialect sends them."""

_ALL = ("claude", "gemini", "openai, chat", "openai, responses", "other servers, chat")
_CHAT = ("openai, chat", "other servers, chat")

_SILENT: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "`messages[].content[].image.media_type` beside uri",
        ("claude", "openai, responses", *_CHAT),
        "the provider learns the kind of picture where it fetches it",
    ),
    ("`tools[].strict` false", ("gemini",), "strictness is a mode for all tools there, and off unless one asks for it"),
    ("`tool_choice.mode` without tools", _ALL, "there is nothing to choose from"),
    ("`parallel_tool_calls` true", ("gemini",), "the model may always call several"),
    ("`parallel_tool_calls` without tools", _ALL, "there is nothing to call"),
    ("`response_format.text`", ("claude", "gemini"), "it is what every answer is unless something else is asked for"),
    ("`response_format.json_schema.name`", ("claude", "gemini"), "a schema has no name there; it is a label that changes nothing"),
    ("`response_format.json_schema.strict` true", ("claude", "gemini"), "the API always keeps to a schema"),
    ("`response_format.json_schema.strict` false", ("claude", "gemini"), "the API always keeps to a schema"),
    ("`reasoning.hide`", ("gemini", *_CHAT), "Headrace itself keeps reasoning out of the chunks"),
)

SILENT: Mapping[tuple[str, str], str] = {(title, column): reason for title, columns, reason in _SILENT for column in columns}
"""What makes no difference to what is sent: title and column, with the reason. Nothing else may be dropped."""

# ---------------------------------------------------------------- asking the encoders


@dataclass(frozen=True, slots=True)
class Column:
    """A dialect, spoken to one provider."""

    title: str
    provider: Provider


def column(title: str, name: Name, api: str, model: str, api_url: str = "") -> Column:
    """A column of the table; without an address, of the vendor's own."""
    default = DIALECTS.get((name, "")) or DIALECTS[name, api]
    fields: Json = {
        "id": ID,
        "provider": "p",
        "dialect": name,
        "api_url": api_url or default.default_api_url,
        "default_model": model,
        "api_key": "canary-7f3a9d-key",
        "config": ProviderSettings.model_validate({"api": api}),
        "created_at": 0,
        "updated_at": 0,
    }
    return Column(title, Provider.model_validate(fields))


COLUMNS = (
    column("claude", Name.CLAUDE, "chat", "claude-sonnet-5-5"),
    column("gemini", Name.GEMINI, "chat", "gemini-3.8-flash"),
    column("openai, chat", Name.OPENAI, "chat", "gpt-6.1-sol"),
    column("openai, responses", Name.OPENAI, "responses", "gpt-6.1-sol"),
    column("other servers, chat", Name.OPENAI, "chat", "llama", "http://127.0.0.1:8080/v1"),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a dialect makes of a field: where it stands in what is sent, or how it is refused; neither: it makes no difference."""

    places: tuple[str, ...] = ()
    refusals: tuple[tuple[str, str], ...] = ()
    """Path of the field without its indices, and the sentence."""


def outcome(dialect: Dialect, provider: Provider, sample: Sample) -> Outcome:
    """Ask the encoder."""
    refused = Outcome()
    for one, other in sample.pairs:
        outcome = _ask(dialect, provider, request(one), request(other))
        if not outcome.refusals:
            return outcome
        refused = refused if refused.refusals else outcome
    return refused


def _ask(dialect: Dialect, provider: Provider, one: GenerateRequest, other: GenerateRequest) -> Outcome:
    if violations := dialect.check(other, provider):
        return Outcome(refusals=tuple((re.sub(r"\[\d+\]", "[]", v.field), v.description) for v in violations))
    before, after = (dialect.encode(r, provider, r.model or provider.default_model, stream=r.stream) for r in (one, other))
    places = [] if before.url == after.url else ["URL"]
    places += [f"header {name}" for name in after.headers if after.headers[name] != before.headers.get(name) and name != "accept"]
    places += [f"`{path}`" for path in dict.fromkeys(_differences(json.loads(before.body), json.loads(after.body), ""))]
    return Outcome(places=tuple(places))


def _differences(one: Any, other: Any, at: str) -> Iterator[str]:
    """The paths at which two JSON values differ, without indices."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in dict.fromkeys((*other, *one)):
            if name not in one and isinstance(other[name], dict):
                yield from _differences({}, other[name], f"{at}.{name}")
            elif name not in one or name not in other:
                yield f"{at}.{name}".lstrip(".")
            else:
                yield from _differences(one[name], other[name], f"{at}.{name}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for before, after in zip(one, other, strict=True):
            yield from _differences(before, after, f"{at}[]")
    elif one != other:
        yield (f"{at}[]" if isinstance(one, list) and isinstance(other, list) else at).lstrip(".")


# ---------------------------------------------------------------- the document

INTRODUCTION = """# What each dialect makes of a request

Made by `python tools/dialects.py`, which asks the encoders. A column names the dialect; `other servers, chat` is any server that is not
one of the vendors that `providers/openai.py` knows by their addresses. A cell names the field of the provider's API; *refused* is an
`INVALID_ARGUMENT` that names the field, as listed below the table; *nothing* is explained there too.

"""


def document() -> str:
    """The whole file."""
    outcomes = {(sample.title, c.title): outcome(dialect_for(c.provider), c.provider, sample) for sample in FIELDS for c in COLUMNS}
    lines = [f"| field | {' | '.join(c.title for c in COLUMNS)} |", f"| --- |{' --- |' * len(COLUMNS)}"]
    for row in FIELDS:
        cells = [_cell(outcomes[row.title, c.title]) for c in COLUMNS]
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    parts = [
        INTRODUCTION + "\n".join(lines),
        f"Never sent, because they are for Headrace alone: {', '.join(f'`{name}`' for name in OWN)}.",
        "## History from another provider\n\n" + (history.__doc__ or "").strip(),
        "## How it is refused\n\n" + "\n".join(_refusals(outcomes)),
        "## What makes no difference\n\n" + "\n".join(_grouped(SILENT)),
    ]
    return "\n\n".join(parts) + "\n"


def _cell(outcome: Outcome) -> str:
    if outcome.refusals:
        return "*refused*"
    shown = ", ".join(outcome.places[:3]) + (", …" if len(outcome.places) > 3 else "")
    return shown or "*nothing*"


def _refusals(outcomes: Mapping[tuple[str, str], Outcome]) -> list[str]:
    return _grouped({key: "; ".join(dict.fromkeys(f"`{at}` {why}" for at, why in o.refusals)) for key, o in outcomes.items() if o.refusals})


def _grouped(reasons: Mapping[tuple[str, str], str]) -> list[str]:
    """A line for each title and reason, with the columns that share it."""
    groups: dict[tuple[str, str], list[str]] = {}
    for (title, column), reason in reasons.items():
        groups.setdefault((title, reason), []).append(column)
    return [f"- {title} ({'; '.join(columns)}): {reason}" for (title, reason), columns in groups.items()]


def main(arguments: Sequence[str]) -> None:
    """Write the file, or look at it."""
    if "--check" not in arguments:
        TARGET.write_text(document(), encoding="utf-8")
    elif TARGET.read_text(encoding="utf-8") != document():
        sys.exit("docs/dialects.md is not what the dialects do: run `python tools/dialects.py`")


if __name__ == "__main__":
    main(sys.argv[1:])
