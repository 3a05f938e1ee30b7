"""What the fake provider is told to do. The meaning of each field stands in the package's docstring."""

import base64
import functools
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, JsonValue, TypeAdapter, ValidationError

from headrace_server.domain.base import Model, ProviderName
from headrace_server.domain.provider import Dialect

READY = Path(__file__).parent / "scripts"
"""The folder of the ready scripts."""

Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PieceSize = Annotated[int, Field(ge=1)]
HeaderValue = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]


class Break(Model):
    """Where and how an answer breaks off. Without a place: after its whole body, before the proper end of it."""

    kind: Literal["cut", "reset", "stall", "drip"]
    before_headers: bool = False
    after_events: Annotated[int, Field(ge=0)] | None = None
    after_bytes: Annotated[int, Field(ge=0)] | None = None
    every_ms: Milliseconds = 100
    drip: str = ": still there\n\n"


class Large(Model):
    """What of an answer is too large, and by how many bytes."""

    event: Annotated[int, Field(ge=0)] = 0
    header: Annotated[int, Field(ge=0)] = 0
    gzip: Annotated[int, Field(ge=0)] = 0
    message: Annotated[int, Field(ge=0)] = 0


class Step(Model):
    """One scripted call."""

    status: Annotated[int, Field(ge=200, le=599)] = 200
    headers: dict[str, HeaderValue] = Field(default_factory=dict)
    body: JsonValue = None
    body_base64: str | None = None
    events: tuple[str | dict[str, JsonValue], ...] | None = None
    text: str | None = None
    large: Large = Large()
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
        if isinstance(self.body, str):
            return self.body.encode()
        return json.dumps(_with_message(self.body, self.large.message) if self.large.message else self.body).encode()


def _with_message(body: JsonValue, size: int) -> JsonValue:
    """An error's body with the message, so many bytes long, wherever it has one."""
    if not isinstance(body, dict):
        return body
    words = ("an error text of words without end, " * (size // 36 + 1))[:size]
    return {name: words if name == "message" else _with_message(value, size) for name, value in body.items()}


class ScriptedProvider(Model):
    """One of the providers that a script plays."""

    dialect: Dialect
    self_signed: bool = False
    calls: tuple[Step, ...] = ()
    settings: dict[str, JsonValue] = Field(default_factory=dict)


class Script(Model):
    """Several providers, how the service is to be set for them, and what it is to be asked."""

    about: str = ""
    providers: dict[ProviderName, ScriptedProvider] = Field(min_length=1)
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    request: dict[str, JsonValue] = Field(default_factory=dict)
    rpc: Literal["StreamGenerate", "Generate"] = "StreamGenerate"


def load_script(path: Path) -> Script | list[Step]:
    """Read a script from a file, YAML or JSON. Raises OSError, and ValueError naming what is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
        told = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(told, list | dict):
        raise ValueError(f"{path}: a script is a list of calls, or an object with `providers`")
    try:
        return TypeAdapter(list[Step]).validate_python(told) if isinstance(told, list) else Script.model_validate(told)
    except ValidationError as error:
        lines = (f"{_place(line['loc'])}: {line['msg']}" for line in error.errors(include_url=False, include_input=False))
        raise ValueError(f"{path}: " + "; ".join(lines)) from None


def _place(location: tuple[Any, ...]) -> str:
    """Where something is wrong: the call and the field, and whose call it is where providers have names."""
    match location:
        case ("providers", name, "calls", *rest):
            return f"provider {name}, call {'.'.join(map(str, rest))}"
        case (int(), *_):
            return f"call {'.'.join(map(str, location))}"
        case _:
            return ".".join(map(str, location))


def ready_scripts() -> dict[str, Path]:
    """The scripts that come with the package, by name, in order."""
    return {path.stem: path for path in sorted(READY.glob("*.yaml"))}


def find_script(name: str) -> Path:
    """The file of a script: a ready one by its name, or else a path."""
    return ready_scripts().get(name, Path(name))


def load_ready(name: str) -> Script:
    """A ready script. Raises KeyError."""
    script = load_script(ready_scripts()[name])
    assert isinstance(script, Script), f"{name}: a ready script names its providers"
    return script


MEGABYTE = 1_000_000


def enlarged(parts: Sequence[bytes], large: Large) -> tuple[list[bytes], dict[str, str]]:
    """The parts of an answer with what is too large about it, and the headers that come with that."""
    headers = {"x-large": "x" * large.header} if large.header else {}
    if large.gzip:
        return [_gzip(large.gzip)], headers | {"content-encoding": "gzip"}
    if large.event:
        event = [b"data: ", *[b"x" * MEGABYTE] * (large.event // MEGABYTE), b"x" * (large.event % MEGABYTE), b"\n\n"]
        return [*event, *parts], headers
    return list(parts), headers


@functools.cache
def _gzip(size: int) -> bytes:
    """So many bytes, compressed: about a thousandth of them."""
    packer = zlib.compressobj(wbits=31)
    packed = [packer.compress(b"x" * MEGABYTE) for _ in range(size // MEGABYTE)]
    return b"".join([*packed, packer.compress(b"x" * (size % MEGABYTE)), packer.flush()])


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
