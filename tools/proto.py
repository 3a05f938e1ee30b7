"""Generate the Python stubs from proto/ into clients/python, offline; with --check only say whether they are fresh.

Run it with the pinned generator: `make proto`. Messages come from every file, services only from those named *_service.proto.
"""

import filecmp
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
STUBS = ROOT / "clients" / "python"
PACKAGE = Path("headrace") / "v1"


def generate(target: Path) -> None:
    """Write the stubs below `target`."""
    protos = sorted((ROOT / "proto" / PACKAGE).glob("*.proto"))
    services = [path for path in protos if path.stem.endswith("_service")]
    includes = [f"-I{ROOT / 'proto'}", f"-I{files('grpc_tools') / '_proto'}"]
    plugins = [f"--plugin={name}={Path(sys.executable).parent / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    for paths, outputs in (
        (protos, (("python", ""), ("mypy", "quiet:"))),
        (services, (("grpc_python", ""), ("mypy_grpc", "quiet:"))),
    ):
        arguments = ["protoc", *includes, *plugins, *(f"--{kind}_out={option}{target}" for kind, option in outputs), *map(str, paths)]
        if protoc.main(arguments):
            sys.exit("protoc failed")


def stale(fresh: Path) -> list[str]:
    """What differs between the fresh stubs and the committed ones."""
    names = {path.name for folder in (fresh, STUBS) for path in (folder / PACKAGE).glob("*_pb2*.py*") if path.suffix in (".py", ".pyi")}
    _, different, missing = filecmp.cmpfiles(fresh / PACKAGE, STUBS / PACKAGE, sorted(names), shallow=False)
    return sorted(different + missing)


def main() -> None:
    """Generate, or check."""
    if "--check" not in sys.argv:
        for old in (STUBS / PACKAGE).glob("*_pb2*.py*"):
            old.unlink()
        generate(STUBS)
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        if wrong := stale(Path(folder)):
            sys.exit(f"these stubs are not what the proto files say (run `make proto`): {', '.join(wrong)}")
    print("the stubs are fresh")


if __name__ == "__main__":
    main()
