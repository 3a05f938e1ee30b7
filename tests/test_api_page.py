"""docs/api.md is what the proto files say, names everything in them, and shows an example of every RPC that a test has run."""

import importlib
import re
from pathlib import Path

import pytest
from google.protobuf.descriptor import FileDescriptor

from support.cookbook import BLOCK, LONGEST, tool

PAGE = (Path(__file__).parent.parent / "docs" / "api.md").read_text()
FILES: list[FileDescriptor] = [
    importlib.import_module(f"headrace.v1.{path.stem}_pb2").DESCRIPTOR
    for path in sorted((Path(__file__).parent.parent / "proto" / "headrace" / "v1").glob("*.proto"))
]
METHODS = [method for file in FILES for service in file.services_by_name.values() for method in service.methods]
HEADINGS = re.findall(r"^##+ (.*)$", PAGE, re.MULTILINE)


def section(heading: str) -> str:
    """What stands below a heading, up to the next one."""
    return re.split(r"^##", re.split(rf"^##+ {re.escape(heading)}\n", PAGE, flags=re.MULTILINE)[1], flags=re.MULTILINE)[0]


def test_page_is_what_the_proto_files_and_the_cookbook_say():
    assert tool().document() == PAGE, "run `python tools/api.py`"


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_rpc_has_an_example_that_is_run(method):
    name = f"{method.containing_service.full_name}/{method.name}"
    run = "".join(commands for page in LONGEST for commands, _ in BLOCK.findall(page.read_text()))
    (example,) = re.findall(r"```sh\n(.*?)```", section(method.name), re.DOTALL)

    assert name in example
    assert example in run


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_rpc_says_what_goes_up_and_what_comes_down(method):
    request, response = ("a stream of" if many else "one" for many in (method.client_streaming, method.server_streaming))
    assert f"Takes {request} [{method.input_type.name}](" in section(method.name)
    assert f"returns {response} [{method.output_type.name}](" in section(method.name)


def test_every_field_and_every_value_is_there_with_its_number_and_a_comment():
    named = 0
    for file in FILES:
        members = [(message.name, field) for message in file.message_types_by_name.values() for field in message.fields]
        members += [(enum.name, value) for enum in file.enum_types_by_name.values() for value in enum.values]
        for heading, member in members:
            assert re.search(rf"^\| {member.number} \| `{member.name}` \|.* [^|\s]+ \|$", section(heading), re.MULTILINE), member.full_name
            named += 1
    assert named > 300


def test_every_link_leads_to_one_heading_or_to_a_file():
    anchors = [tool().anchor(heading) for heading in HEADINGS]
    assert len(set(anchors)) == len(anchors)

    links = set(re.findall(r"\]\(([^)]+)\)", PAGE))
    assert {link[1:] for link in links if link.startswith("#")} <= set(anchors)
    files = {link.partition("#")[0] for link in links if not link.startswith(("#", "https://"))}
    assert files == {"../README.md", "cookbook.md", "stability.md"}
    elsewhere = {link for link in links if link.partition("#")[0] in {"../README.md", "cookbook.md"}}
    for link in elsewhere:
        file, _, anchor = link.partition("#")
        headings = re.findall(r"^##+ (.*)$", (Path(__file__).parent.parent / "docs" / file).read_text(), re.MULTILINE)
        assert not anchor or anchor in map(tool().anchor, headings), link
