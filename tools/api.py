"""Write docs/api.md from the comments of the proto files, with the examples of the README and the cookbook; with --check only say whether
it is fresh.

An example is a command of a block that `tests/test_readme.py` runs and whose output it compares.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "api.md"
PAGES = {"README.md": "../README.md", "docs/cookbook.md": "cookbook.md"}
"""The pages whose blocks are run, with their links; the first that shows an RPC gives its example."""
BLOCK = re.compile(r"```sh\n((?:(?!```).)*?(?:grpcurl|buf curl) (?:(?!```).)*)```\n\n```text\n(.*?)```", re.DOTALL)
"""The commands, and what they print."""
PACKAGE = "headrace.v1"
WELL_KNOWN = "https://protobuf.dev/reference/protobuf/google.protobuf/#"
INTRODUCTION = """# API

Made by `python tools/api.py` from the comments in `proto/headrace/v1`. Every example is run by `tests/test_readme.py`; more of them stand
in the [README](../README.md#cookbook-grpcurl) and the [cookbook](cookbook.md). What may change is told in [stability.md](stability.md).

A field marked optional knows whether it is set, as a message does; any other that is not set reads as zero, empty or false.
"""

# Numbers of fields in descriptor.proto, of which the paths of comments are made.
MESSAGE, ENUM, SERVICE, MEMBER, ONEOF, SYNTAX = 4, 5, 6, 2, 8, 12


class Comments:
    """The comments of one file, by the path of what they stand above."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self.locations = {tuple(location.path): location for location in file.source_code_info.location}

    def at(self, *path: int) -> str:
        """The comment as one paragraph."""
        return " ".join(self.locations[path].leading_comments.split())

    def of_file(self) -> str:
        """The first comment of the file."""
        return " ".join(self.locations[(SYNTAX,)].leading_detached_comments[0].split())


def described() -> list[FileDescriptorProto]:
    """The files of the contract, by name."""
    image = subprocess.run([Path(sys.executable).parent / "buf", "build", "--output", "-"], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    files = FileDescriptorSet.FromString(image.stdout).file
    return sorted((file for file in files if file.package == PACKAGE), key=lambda file: file.name)


def document() -> str:
    """The whole page: contents, services, types."""
    files = [(file, Comments(file)) for file in described()]
    shown = examples()
    if lacking := [rpc for file, _ in files for rpc in rpcs(file) if rpc not in shown]:
        sys.exit(f"an example is missing, add one to docs/cookbook.md: {', '.join(lacking)}")
    sections = [section for file, comments in files for section in services(file, comments, shown)]
    types = [section for file, comments in files for section in types_of(file, comments)]
    return "\n".join([INTRODUCTION, contents([file for file, _ in files]), *sections, *types])


def contents(files: list[FileDescriptorProto]) -> str:
    """A table that leads to every service, RPC and file."""
    lines = ["| service | RPCs |", "| --- | --- |"]
    lines += [
        f"| {link(service.name)} | {', '.join(link(method.name) for method in service.method)} |"
        for file in files
        for service in file.service
    ]
    lines += ["", "Messages and enums: " + ", ".join(link(base_name(file)) for file in files) + "."]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- services


def services(file: FileDescriptorProto, comments: Comments, shown: dict[str, str]) -> Iterator[str]:
    """A section for each service of the file, and one for each of its RPCs."""
    for i, service in enumerate(file.service):
        yield f"## {service.name}\n\n{comments.at(SERVICE, i)}\n"
        for j, method in enumerate(service.method):
            example = shown[full_name(service, method)]
            yield f"### {method.name}\n\n{comments.at(SERVICE, i, MEMBER, j)}\n\n{shape(method)}\n\n{example}"


def rpcs(file: FileDescriptorProto) -> list[str]:
    """The full names of the RPCs of a file."""
    return [full_name(service, method) for service in file.service for method in service.method]


def full_name(service: ServiceDescriptorProto, method: MethodDescriptorProto) -> str:
    """The name by which an RPC is called."""
    return f"{PACKAGE}.{service.name}/{method.name}"


def shape(method: MethodDescriptorProto) -> str:
    """What goes up and what comes down."""
    one_or_many = {False: "one", True: "a stream of"}
    request, response = (link(name.rpartition(".")[2]) for name in (method.input_type, method.output_type))
    return f"Takes {one_or_many[method.client_streaming]} {request}, returns {one_or_many[method.server_streaming]} {response}."


def examples() -> dict[str, str]:
    """By the full name of an RPC: a command that calls it, with what it prints. Where others print with it, with a link to that."""
    found: dict[str, str] = {}
    for name, address in PAGES.items():
        page = (ROOT / name).read_text(encoding="utf-8")
        for block in BLOCK.finditer(page):
            commands = commands_of(block[1])
            place = f"{address}#{anchor(re.findall(r'^##+ (.*)', page[: block.start()], re.MULTILINE)[-1])}"
            output = f"```text\n{block[2]}```\n" if len(commands) == 1 else f"What it prints stands in [{Path(name).name}]({place}).\n"
            for command in commands:
                for rpc in re.findall(rf"\b{re.escape(PACKAGE)}\.\w+/\w+", command):
                    found.setdefault(rpc, f"```sh\n{command}```\n\n{output}")
    return found


def commands_of(script: str) -> list[str]:
    """The commands of a block, each with its further lines."""
    return [command for command in re.split(r"^(?=grpcurl |buf curl |\{$)", script, flags=re.MULTILINE) if command]


# ---------------------------------------------------------------- messages and enums


def types_of(file: FileDescriptorProto, comments: Comments) -> Iterator[str]:
    """A section for the file, and one for each of its messages and enums."""
    yield f"## {base_name(file)}\n\n{comments.of_file()}\n"
    for i, message in enumerate(file.message_type):
        yield f"### {message.name}\n\n{comments.at(MESSAGE, i)}\n" + fields(message, comments, i)
    for i, enum in enumerate(file.enum_type):
        yield f"### {enum.name}\n\n{comments.at(ENUM, i)}\n" + values(enum, comments, i)


def fields(message: DescriptorProto, comments: Comments, i: int) -> str:
    """The fields of a message as a table; the comment of a oneof stands above its first field."""
    if not message.field:
        return ""
    lines = ["", "| no. | field | type | meaning |", "| --- | --- | --- | --- |"]
    begun: set[int] = set()
    for j, field in enumerate(message.field):
        chosen = field.HasField("oneof_index") and not field.proto3_optional
        oneof = f"`{message.oneof_decl[field.oneof_index].name}`" if chosen else ""
        if chosen and field.oneof_index not in begun:
            begun.add(field.oneof_index)
            lines.append(f"|  | one of {oneof} |  | {cell(comments.at(MESSAGE, i, ONEOF, field.oneof_index))} |")
        kind = type_of(field, message) + (f", in {oneof}" if chosen else "")
        lines.append(f"| {field.number} | `{field.name}` | {kind} | {cell(comments.at(MESSAGE, i, MEMBER, j))} |")
    return "\n".join(lines) + "\n"


def values(enum: EnumDescriptorProto, comments: Comments, i: int) -> str:
    """The values of an enum as a table."""
    lines = ["", "| no. | value | meaning |", "| --- | --- | --- |"]
    lines += [f"| {value.number} | `{value.name}` | {cell(comments.at(ENUM, i, MEMBER, j))} |" for j, value in enumerate(enum.value)]
    return "\n".join(lines) + "\n"


def type_of(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    """The type of a field, with a link where it is a message or an enum."""
    name = field.type_name.rpartition(".")[2]
    if entry := next((nested for nested in message.nested_type if nested.name == name), None):
        key, value = (type_of(member, message) for member in entry.field)
        return f"map of {key} to {value}"
    if not name:
        kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    elif field.type_name.startswith(".google.protobuf."):
        kind = f"[{name}]({WELL_KNOWN}{re.sub(r'(?<!^)(?=[A-Z])', '-', name).lower()})"
    else:
        kind = link(name)
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {kind}"
    return f"optional {kind}" if field.proto3_optional else kind


# ---------------------------------------------------------------- Markdown


def anchor(heading: str) -> str:
    """Where a link to a heading leads, by GitHub's rule."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def link(heading: str) -> str:
    """A link to a heading of this page."""
    return f"[{heading}](#{anchor(heading)})"


def base_name(file: FileDescriptorProto) -> str:
    """The name of a file without its folder."""
    return file.name.rpartition("/")[2]


def cell(text: str) -> str:
    """Text that may stand in a table."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    if "--check" not in sys.argv:
        TARGET.write_text(document(), encoding="utf-8")
    elif TARGET.read_text(encoding="utf-8") != document():
        sys.exit("docs/api.md is not what the proto files, the README and the cookbook say: run `python tools/api.py`")
