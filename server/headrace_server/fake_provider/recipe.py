"""How to see what a script shows: the configuration of a service in front of its providers, and the request to ask it."""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace_server.fake_provider.script import Script

Json = dict[str, Any]

RETRY: Json = {"strategy": "RETRY_STRATEGY_EXPONENTIAL", "initial_delay": "1s", "backoff_multiplier": 2, "max_delay": "10s"}
"""How the first provider is retried, unless the script says otherwise."""


def configuration(script: Script, api_urls: Mapping[str, str]) -> Json:
    """The settings of a service that asks the script's providers, each at its address.

    The first provider is asked up to three times, those that stand in for it once.
    """
    providers = {
        name: {
            "dialect": provider.dialect.value,
            "api_url": api_urls[name],
            "default_model": f"{name}-model",
            "api_key": f"sk-fake-{name}-0123456789",
            "priority": number,
            "max_retries": 1 if number else 3,
            **provider.settings,
        }
        for number, (name, provider) in enumerate(script.providers.items())
    }
    return {"database": "memory:", **script.settings, "providers": providers}


def request(script: Script, changes: Mapping[str, Any] | None = None) -> Json:
    """The GenerateRequest that the script is about, in its JSON form: the first provider is asked, the others stand in for it in order."""
    first, *others = script.providers
    asked: Json = {
        "provider": first,
        "messages": [{"role": "MESSAGE_ROLE_USER", "content": [{"text": "Say hello"}]}],
        "retry": RETRY,
        "fallback": {"enabled": bool(others), "providers": others},
    }
    return _merged(_merged(asked, script.request), changes or {})


def _merged(plain: Json, changes: Mapping[str, Any]) -> Json:
    return plain | {
        name: _merged(plain[name], value) if isinstance(value, dict) and isinstance(plain.get(name), dict) else value
        for name, value in changes.items()
    }


def grpcurl(script: Script, address: str = "localhost:50051") -> str:
    """The command that asks it."""
    message = request(script) if script.rpc == "Generate" else {"generate": request(script)}
    return f"grpcurl -plaintext -d {shlex.quote(json.dumps(message))} {address} headrace.v1.GenerationService/{script.rpc}"


def told(script: Script, api_urls: Mapping[str, str], config: Path | None = None) -> str:
    """The recipe for a person: where each provider is, and what to run. The configuration goes to the file, or stands in the text."""
    lines = [script.about, *(f"  {name}: {script.providers[name].dialect.value}, {url}" for name, url in api_urls.items())]
    text = to_toml(configuration(script, api_urls))
    if config is None:
        lines += ["", "The configuration of a service in front of it, headrace.toml (--write-config FILE writes it):", "", text]
    else:
        config.write_text(text, encoding="utf-8")
    return "\n".join([*lines, "To see it:", f"  headrace serve --config {config or 'headrace.toml'}", f"  {grpcurl(script)}"])


# ---------------------------------------------------------------- TOML


def to_toml(settings: Json) -> str:
    """A configuration file: the plain settings, then a table for each provider."""
    tables = settings.get("providers", {})
    lines = _pairs({name: value for name, value in settings.items() if name != "providers"})
    for name, table in tables.items():
        lines += ["", f"[providers.{name}]", *_pairs(table)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _pairs(table: Json) -> list[str]:
    return [f"{_key(name)} = {_value(value)}" for name, value in table.items()]


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Any) -> str:
    match value:
        case dict():
            return "{" + ", ".join(_pairs(value)) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(_value, value)) + "]"
        case None:
            raise ValueError("TOML has no null")
        case _:
            # JSON writes texts, numbers and truth as TOML does, but for one character.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
