#!/bin/sh
# Make requirements/*.txt again: every version pinned, with the hashes of all platforms' files. Needs uv.
set -eu
cd "$(dirname "$0")/.."
export UV_CUSTOM_COMPILE_COMMAND="sh tools/lock.sh"
options="--quiet --universal --python-version 3.11 --generate-hashes --no-annotate $*"
uv pip compile $options --all-extras --group dev pyproject.toml --output-file requirements/dev.txt
uv pip compile $options requirements/proto.in --output-file requirements/proto.txt
