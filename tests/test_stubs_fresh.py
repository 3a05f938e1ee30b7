import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GENERATOR = ROOT / ".venv-proto" / "bin" / "python"


@pytest.mark.slow
def test_stubs_are_what_the_proto_files_say() -> None:
    if not GENERATOR.exists():
        pytest.fail("the pinned generator is missing: run `make lint`, or `make test-slow`, which install it")
    checked = subprocess.run(
        [GENERATOR, "tools/proto.py", "--check", "python"], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert (checked.returncode, checked.stdout.strip()) == (0, "python: the stubs are fresh"), checked.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("in_ci", "code"), [("", 0), ("true", 1)])
def test_language_without_a_toolchain_is_passed_over_by_name_and_fails_in_ci(in_ci: str, code: int) -> None:
    environment = {**os.environ, "PATH": "", "CI": in_ci}
    checked = subprocess.run(
        [GENERATOR, "tools/proto.py", "--check", "go"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert (checked.returncode, checked.stdout.strip()) == (code, "go: passed over, this machine has no go"), checked.stderr


def test_stubs_load_on_the_oldest_protobuf_that_is_promised() -> None:
    """Generated code says which protobuf it needs; it must be one that users of protobuf 6 have."""
    for file in (ROOT / "clients/python/headrace/v1").glob("*_pb2.py"):
        assert "# Protobuf Python Version: 6.31.1" in file.read_text()
    for file in (ROOT / "clients/python/headrace/v1").glob("*_pb2_grpc.py"):
        assert "GRPC_GENERATED_VERSION = '1.76.0'" in file.read_text()
