"""What the fake provider is told to do. The meaning of each field stands in the package's docstring."""

import base64
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from headrace_server.domain.base import Model

Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PieceSize = Annotated[int, Field(ge=1)]


class Break(Model):
    """Where and how an answer breaks off. Without a place: after its whole body, before the proper end of it."""

    kind: Literal["cut", "reset", "stall", "drip"]
    before_headers: bool = False
    after_events: Annotated[int, Field(ge=0)] | None = None
    after_bytes: Annotated[int, Field(ge=0)] | None = None
    every_ms: Milliseconds = 100
    drip: str = ": still there\n\n"


class Step(Model):
    """One scripted call."""

    status: Annotated[int, Field(ge=200, le=599)] = 200
    headers: dict[str, str] = Field(default_factory=dict)
    body: JsonValue = None
    body_base64: str | None = None
    events: tuple[str | dict[str, JsonValue], ...] | None = None
    text: str | None = None
    finish: str | None = None
    delay_ms: Milliseconds = 0
    pace_ms: Milliseconds = 0
    split: PieceSize | Annotated[tuple[PieceSize, ...], Field(min_length=1)] | None = None
    framing: Literal["chunked", "content-length", "close"] | None = None
    fault: Break | None = None
    hang_up: Literal["idle", "reuse"] | None = None
    times: Annotated[int, Field(ge=0)] = 1

    @property
    def raw_body(self) -> bytes | None:
        """The scripted body as it is sent; None where there is none."""
        if self.body_base64 is not None:
            return base64.b64decode(self.body_base64)
        if "body" not in self.model_fields_set:
            return None
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()


def load_script(path: Path) -> list[Step]:
    """Read a script from a JSON file. Raises ValueError naming what is wrong."""
    try:
        return TypeAdapter(list[Step]).validate_json(path.read_bytes())
    except ValidationError as error:
        lines = (f"call {'.'.join(map(str, line['loc']))}: {line['msg']}" for line in error.errors(include_url=False, include_input=False))
        raise ValueError(f"{path}: " + "; ".join(lines)) from None


def pieces(parts: Sequence[bytes], split: int | tuple[int, ...] | None) -> Iterator[bytes]:
    """The parts as they are, or their bytes in pieces of the wanted sizes."""
    if split is None:
        yield from parts
        return
    sizes = (split,) if isinstance(split, int) else split
    data, start, turn = b"".join(parts), 0, 0
    while start < len(data):
        size = sizes[turn % len(sizes)]
        yield data[start : start + size]
        start, turn = start + size, turn + 1


def cut(parts: Sequence[bytes], fault: Break | None) -> list[bytes]:
    """What of the parts goes out before the answer breaks off."""
    if fault is None:
        return list(parts)
    kept = list(parts if fault.after_events is None else parts[: fault.after_events])
    return kept if fault.after_bytes is None else [b"".join(kept)[: fault.after_bytes]]
