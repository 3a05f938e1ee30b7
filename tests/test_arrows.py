"""The arrow rule: what each part may import. Everyone may import `domain`; nothing imports upward."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVER = Path(__file__).resolve().parent.parent / "server" / "headrace_server"
OURS = "headrace_server"

STANDARD = frozenset(sys.stdlib_module_names)

# Part -> what of ours it may import besides itself and `domain`, and which libraries besides the standard one.
# The parts of the core are the single modules around the engine: they know ports, not adapters.
CORE = "engine"
ARROWS: dict[str, tuple[set[str], set[str]]] = {
    "domain": (set(), {"pydantic", "pydantic_core"}),
    "providers": (set(), {"httpx", "httptools", "aiohappyeyeballs", "aiohttp", "yarl", "certifi", "msgspec", "pydantic"}),
    "store": (set(), {"aiosqlite", "msgspec", "pydantic", "pydantic_core"}),
    "telemetry": (set(), {"opentelemetry", "structlog", "prometheus_client", "grpc"}),
    "security": (set(), {"cryptography"}),
    "fake_provider": (set(), {"pydantic", "yaml", "cryptography"}),
    "local_model": (set(), {"xllamacpp"}),
    "prices": (set(), {"genai_prices"}),
    "garbage": (set(), set()),
    CORE: (set(), {"pydantic", "pydantic_core"}),
    "rpc": ({CORE}, {"grpc", "grpc_status", "grpc_health", "grpc_reflection", "google", "headrace", "pydantic", "pydantic_core"}),
    "config": (set(), {"pydantic", "pydantic_settings"}),
    "app": ({"providers", "store", "telemetry", "security", CORE, "rpc", "config", "prices"}, set()),
    "program": ({"app", "config", "garbage", "security", "store", "telemetry"}, {"uvloop"}),
    "cli": (
        {"program", "config", "demo", "fake_provider"},
        {"typer", "grpc", "grpc_status", "google", "headrace"},  # it is a client of the service
    ),
    "demo": ({"app", "program", "config", "cli", "fake_provider", "local_model"}, {"typer", "grpc", "headrace"}),
    "__main__": ({"cli"}, set()),
}


def part_of(path: Path) -> str:
    """The part that a file belongs to: its folder, its module, or the core."""
    name = path.relative_to(SERVER).parts[0].removesuffix(".py")
    return name if name in ARROWS else CORE


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, wherever in it, with the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative imports hide where an arrow points"
            if node.module == OURS:
                yield from ((node.lineno, f"{OURS}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module or ""


def wrong_imports(path: Path) -> list[str]:
    """What a file imports although its part may not."""
    part = part_of(path)
    ours, libraries = ARROWS[part]
    wrong = []
    for line, module in imports(path):
        top, _, rest = module.partition(".")
        if top == OURS and rest:
            target = part_of(SERVER / f"{rest.partition('.')[0]}.py")
            allowed = target in ours | {part, "domain"}
        else:
            allowed = top in STANDARD | libraries
        if not allowed:
            wrong.append(f"{path.relative_to(SERVER)}:{line}: {part} must not import {module}")
    return wrong


FILES = sorted(path for path in SERVER.rglob("*.py") if path != SERVER / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SERVER)))
def test_imports_follow_the_arrows(path: Path) -> None:
    assert wrong_imports(path) == []


def test_import_is_caught_when_it_goes_upward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "SERVER", tmp_path)
    file = tmp_path / "domain" / "bad.py"
    file.parent.mkdir()
    file.write_text(
        "import asyncio\nfrom headrace_server.store import rows\n\ndef f():\n    import grpc\n    from headrace_server import engine\n"
    )
    assert wrong_imports(file) == [
        "domain/bad.py:2: domain must not import headrace_server.store",
        "domain/bad.py:5: domain must not import grpc",
        "domain/bad.py:6: domain must not import headrace_server.engine",
    ]


def test_domain_has_no_clock_no_randomness_and_no_io() -> None:
    forbidden = {"asyncio", "time", "random", "secrets", "socket", "os", "pathlib", "threading", "subprocess"}
    found = {(path.name, module.partition(".")[0]) for path in (SERVER / "domain").glob("*.py") for _, module in imports(path)}
    # A port may speak of futures; a new id is random by nature.
    assert {(name, module) for name, module in found if module in forbidden} <= {("ports.py", "asyncio"), ("identity.py", "secrets")}
