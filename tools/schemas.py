"""Writes the JSON Schemas of the domain types to docs/schemas; with --check it only says whether they are up to date."""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from headrace_server.domain.events import StreamChunk
from headrace_server.domain.machine import Context
from headrace_server.domain.provider import ProviderRow
from headrace_server.domain.record import LogRow
from headrace_server.domain.request import GenerateRequest, RetryConfig
from headrace_server.domain.result import GenerationResult, ProviderError

TYPES: tuple[type[Any], ...] = (GenerateRequest, GenerationResult, ProviderError, StreamChunk, RetryConfig, Context, LogRow, ProviderRow)
FOLDER = Path(__file__).parent.parent / "docs" / "schemas"


def schema_of(kind: type[Any]) -> dict[str, Any]:
    """The JSON Schema that values of a type obey in JSON."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **TypeAdapter(kind).json_schema(mode="validation", by_alias=True)}


def files() -> dict[Path, str]:
    """Each file with the text that it should have."""
    return {FOLDER / f"{kind.__name__}.json": json.dumps(schema_of(kind), indent=2, ensure_ascii=False) + "\n" for kind in TYPES}


def stale() -> list[Path]:
    """The files that are missing, differ from their types, or belong to none."""
    wanted = files()
    found = {path: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    return sorted(path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path))


def main() -> None:
    """Write the files, or check them."""
    if "--check" in sys.argv[1:]:
        if wrong := stale():
            sys.exit("not up to date, run `python tools/schemas.py`: " + ", ".join(path.name for path in wrong))
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(FOLDER.parent.parent)}")


if __name__ == "__main__":
    main()
