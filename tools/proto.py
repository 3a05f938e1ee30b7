"""Generate the clients' stubs from proto/; with --check only say whether the committed ones are fresh.

    python tools/proto.py [--check] [LANGUAGE ...]

Without a name it is all languages. Run it with the pinned generator: `make proto`. The other languages' generators are pinned below, or
by the lock file of their client, and are installed once into .tools or the client's folder; from then on nothing goes over the network.
A language whose toolchain this machine lacks is passed over by name; with CI=true that is a failure.
"""

import filecmp
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc as compiler

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
PROTO = ROOT / "proto"
PROTOS = sorted((PROTO / "headrace" / "v1").glob("*.proto"))
SERVICES = [path for path in PROTOS if path.stem.endswith("_service")]

GO_GENERATORS = ("google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12", "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2")
JAVA_GENERATORS = ("com.google.protobuf:protoc:4.31.1", "io.grpc:protoc-gen-grpc-java:1.83.0")
"""What they generate works with the libraries of their own version and of newer ones, such as those pinned in the client."""
MAVEN_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"


@dataclass(frozen=True)
class Language:
    """How one language comes by its stubs."""

    stubs: str
    """The folder that they are committed in."""
    pattern: str
    """Which of the files there are generated."""
    needs: tuple[str, ...]
    """The programs of its toolchain."""
    generate: Callable[[Path], None]
    """Writes them below a folder that stands for the root."""


# ---------------------------------------------------------------- one function for each language


def python(root: Path) -> None:
    """Messages come from every file, services only from those named *_service.proto: others would give empty modules."""
    folder = root / "clients" / "python"
    plugins = [Path(sys.executable).parent / name for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    protoc(PROTOS, {"python": f"{folder}", "mypy": f"quiet:{folder}"}, plugins)
    protoc(SERVICES, {"grpc_python": f"{folder}", "mypy_grpc": f"quiet:{folder}"}, plugins)


def go(root: Path) -> None:
    """With the generators that `go install` brings."""
    module = f"module=headrace.dev/go:{root / 'clients' / 'go'}"
    protoc(PROTOS, {"go": module, "go-grpc": module}, [installed_by_go(package) for package in GO_GENERATORS])


def typescript(root: Path) -> None:
    """With the generator of its client's package-lock.json. The details of a status are Google's; their proto file lies with the client."""
    client = ROOT / "clients" / "typescript"
    details = client / "proto" / "google" / "rpc" / "error_details.proto"
    install_by_npm(client)
    output = f"target=ts,import_extension=js:{root / 'clients' / 'typescript' / 'src' / 'gen'}"
    protoc([*PROTOS, details], {"es": output}, [client / "node_modules" / ".bin" / "protoc-gen-es"], [client / "proto"])


def java(root: Path) -> None:
    """With a protoc from Maven, as that of Python's package knows no Java, and the generator of the services from there too."""
    program, plugin = (downloaded_by_maven(artifact) for artifact in JAVA_GENERATORS)
    folder = root / "clients" / "java" / "src" / "main" / "java"
    protoc(PROTOS, {"java": f"{folder}", "grpc-java": f"@generated=omit:{folder}"}, [plugin], program=program)


def rust(root: Path) -> None:
    """From a descriptor set, by a small program that lies with the client; and a smaller set, by which its tests read and write JSON."""
    client = ROOT / "clients" / "rust"
    folder, descriptors = root / "clients" / "rust" / "src" / "gen", root / "descriptors.binpb"
    folder.mkdir(parents=True)
    protoc(PROTOS, {}, options=("--include_imports", "--include_source_info", f"--descriptor_set_out={descriptors}"))
    protoc(PROTOS, {}, options=("--include_imports", f"--descriptor_set_out={folder / 'descriptors.binpb'}"))
    generator = ("cargo", "run", "--quiet", "--locked", "--manifest-path", f"{client / 'generate' / 'Cargo.toml'}")
    run(*generator, "--", f"{descriptors}", f"{folder}", env={"CARGO_TARGET_DIR": str(TOOLS / "rust")})


LANGUAGES = {
    "python": Language("clients/python/headrace/v1", "*_pb2*.py*", (), python),
    "go": Language("clients/go/headrace/v1", "*.pb.go", ("go",), go),
    "typescript": Language("clients/typescript/src/gen", "**/*_pb.ts", ("node", "npm"), typescript),
    "java": Language("clients/java/src/main/java/dev/headrace/v1", "*.java", ("javac", "mvn"), java),
    "rust": Language("clients/rust/src/gen", "*", ("cargo",), rust),
}


# ---------------------------------------------------------------- what they run


def protoc(
    protos: Iterable[Path],
    outputs: Mapping[str, str],
    plugins: Iterable[Path] = (),
    includes: Iterable[Path] = (),
    *,
    options: Iterable[str] = (),
    program: Path | None = None,
) -> None:
    """Run protoc, that of Python's package where no other is given. `outputs` gives each generator's `options:folder`; a plugin's file
    name says which generator it is."""
    for output in outputs.values():
        Path(output.rpartition(":")[2]).mkdir(parents=True, exist_ok=True)
    arguments = [
        *(f"-I{folder}" for folder in (PROTO, *includes, files("grpc_tools") / "_proto")),
        *(f"--plugin={plugin.name}={plugin}" for plugin in plugins),
        *(f"--{generator}_out={output}" for generator, output in outputs.items()),
        *options,
        *map(str, protos),
    ]
    if program:
        run(str(program), *arguments)
    elif compiler.main(["protoc", *arguments]):
        sys.exit("protoc failed")


def installed_by_go(package: str) -> Path:
    """The program of a Go package, `path@version`, installed if it is not there."""
    name = package.rpartition("/")[2]
    program = TOOLS / name / name.partition("@")[0]
    if not program.exists():
        run("go", "install", package, env={"GOBIN": str(program.parent)})
    return program


def downloaded_by_maven(artifact: str) -> Path:
    """The program that is a Maven artifact, `group:name:version`, downloaded if it is not there."""
    _, name, version = artifact.split(":")
    program = TOOLS / f"{name}@{version}" / name
    if not program.exists():
        system = {"Linux": "linux", "Darwin": "osx", "Windows": "windows"}[platform.system()]
        processor = {"aarch64": "aarch_64", "arm64": "aarch_64"}.get(platform.machine(), "x86_64")
        names = ("-Dmdep.stripVersion=true", "-Dmdep.stripClassifier=true")
        run(
            "mvn",
            "--batch-mode",
            MAVEN_COPY,
            f"-Dartifact={artifact}:exe:{system}-{processor}",
            f"-DoutputDirectory={program.parent}",
            *names,
        )
        downloaded = program.with_name(f"{name}.exe")
        downloaded.chmod(0o755)
        downloaded.rename(program)
    return program


def install_by_npm(folder: Path) -> None:
    """Install what a package-lock.json pins, if that has not been done since it changed."""
    done = folder / "node_modules" / ".package-lock.json"
    if not done.exists() or done.stat().st_mtime < (folder / "package-lock.json").stat().st_mtime:
        run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", cwd=folder)
        done.touch()


def run(*command: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> None:
    """Run a program and be quiet about it, unless it fails."""
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


# ---------------------------------------------------------------- generate, or check


def stubs(language: Language, root: Path) -> set[str]:
    """The generated files below a root, relative to the language's folder."""
    folder = root / language.stubs
    return {str(path.relative_to(folder)) for path in folder.glob(language.pattern) if path.is_file()}


def stale(language: Language, fresh: Path) -> list[str]:
    """Which committed stubs differ from the fresh ones, are missing, or are left over."""
    names = stubs(language, fresh) | stubs(language, ROOT)
    _, different, missing = filecmp.cmpfiles(fresh / language.stubs, ROOT / language.stubs, sorted(names), shallow=False)
    return sorted(different + missing)


def replace(language: Language, fresh: Path) -> None:
    """Put the fresh stubs in the place of the committed ones."""
    for name in stubs(language, ROOT):
        (ROOT / language.stubs / name).unlink()
    shutil.copytree(fresh / language.stubs, ROOT / language.stubs, dirs_exist_ok=True)


def make(name: str, *, check: bool) -> str:
    """Generate one language's stubs, or check them. What is wrong with them; empty: nothing."""
    language = LANGUAGES[name]
    if lacking := [program for program in language.needs if not shutil.which(program)]:
        print(f"{name}: passed over, this machine has no {' and no '.join(lacking)}")
        return f"{name}: in CI every toolchain must be there" if os.environ.get("CI") == "true" else ""
    with tempfile.TemporaryDirectory() as folder:
        language.generate(Path(folder))
        if not check:
            replace(language, Path(folder))
            print(f"{name}: {len(stubs(language, ROOT))} files in {language.stubs}")
        elif different := stale(language, Path(folder)):
            return f"{name}: not what the proto files say (run `make proto`): {', '.join(different)}"
        else:
            print(f"{name}: the stubs are fresh")
    return ""


def main(arguments: list[str]) -> None:
    """Go through the languages that are asked for."""
    names = [argument for argument in arguments if argument != "--check"] or list(LANGUAGES)
    if unknown := sorted(set(names) - set(LANGUAGES)):
        sys.exit(f"there is no client in {', '.join(unknown)}; there are {', '.join(LANGUAGES)}")
    if wrong := [problem for name in names if (problem := make(name, check="--check" in arguments))]:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main(sys.argv[1:])
