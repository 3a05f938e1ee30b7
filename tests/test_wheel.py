"""The wheel as a person installs it: into a fresh environment, with nothing of this folder in reach."""

import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HEADRACE_", "VIRTUAL_ENV"))}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def environment_with(folder: Path, requirement: str) -> Path:
    venv.create(folder / "env", with_pip=True)
    binaries = folder / "env" / "bin"
    run(binaries / "pip", "install", "--quiet", "--disable-pip-version-check", requirement, cwd=folder)
    return binaries


def test_wheel_holds_the_service_the_stubs_and_the_migrations(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"headrace/v1/generation_service_pb2_grpc.py", "headrace/py.typed", "headrace_server/cli/__init__.py"} <= names
    assert "headrace_server/model_requirements.txt" in names
    scripts = ROOT / "server" / "headrace_server" / "fake_provider" / "scripts"
    assert {f"headrace_server/fake_provider/scripts/{path.name}" for path in scripts.glob("*.yaml")} <= names
    packed = {name for name in names if name.startswith("headrace_server/migrations/sqlite/")}
    assert packed == {f"headrace_server/migrations/sqlite/{path.name}" for path in (ROOT / "migrations" / "sqlite").glob("*.sql")}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_client_alone_needs_only_grpc_and_protobuf(wheel: Path, tmp_path: Path) -> None:
    binaries = environment_with(tmp_path, str(wheel))
    check = "from headrace.v1 import generation_service_pb2_grpc as s; print(s.GenerationServiceStub.__name__)"
    assert run(binaries / "python", "-c", check, cwd=tmp_path) == "GenerationServiceStub\n"
    listed = run(binaries / "pip", "list", "--format=freeze", cwd=tmp_path)
    assert {line.partition("==")[0] for line in listed.split()} <= {
        "headrace",
        "grpcio",
        "protobuf",
        "typing_extensions",
        "pip",
        "setuptools",
    }


def test_installed_service_migrates_serves_and_ends(wheel: Path, tmp_path: Path) -> None:
    binaries = environment_with(tmp_path, f"{wheel}[server]")
    assert "streaming" in run(binaries / "headrace", "states", cwd=tmp_path)
    command = [binaries / "headrace", "serve", "--listen", "127.0.0.1:0", "--database", f"sqlite:///{tmp_path}/installed.db"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout is not None
            ready = re.fullmatch(r"headrace listening on (127\.0\.0\.1:\d+)\n", service.stdout.readline())
            assert ready
            listed = run(binaries / "headrace", "provider", "list", "--server", ready[1], cwd=tmp_path)
            assert {"claude", "gemini", "openai"} <= {line.split()[0] for line in listed.splitlines()}
        finally:
            service.terminate()
            _, stderr = service.communicate(timeout=20)
    assert service.returncode == 0, stderr
