#!/bin/sh
# Make a virtual environment and install a hash-pinned lock into it:  sh tools/setup.sh FOLDER LOCK [--editable]
# Says what is missing, with the command that mends it, before anything starts. Needs no root.
set -eu
cd "$(dirname "$0")/.."
folder=$1 lock=$2 editable=${3:-}
need_mb=700

fail() {
    printf '\n%s\n' "$1" >&2
    shift
    for line in "$@"; do printf '    %s\n' "$line" >&2; done
    exit 1
}

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
has() { command -v "$1" >/dev/null 2>&1; }

python=
for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 python; do
    if has "$candidate" && is_new_enough "$candidate"; then
        python=$candidate
        break
    fi
done

if [ ! -x "$folder/bin/python" ] || ! is_new_enough "$folder/bin/python"; then
    if [ -z "$python" ] && ! has uv; then
        found=$(has python3 && python3 --version 2>&1 || true)
        fail "Headrace needs Python 3.11 or newer; here is: ${found:-no python3}. One of these brings it:" \
            "Debian 12, Ubuntu 24.04 and newer:  sudo apt install python3 python3-venv" \
            "macOS:  brew install python" \
            "elsewhere:  https://docs.astral.sh/uv/ (uv brings its own Python)" \
            "then, if it is not on PATH as python3:  make PYTHON=/path/to/python3.12 ..."
    fi
    free_mb=$(df -Pk . | awk 'NR == 2 { print int($4 / 1024) }')
    [ "$free_mb" -ge "$need_mb" ] || fail "Too little disk: $free_mb MB free in $(pwd), $need_mb MB are needed. Make room:" "df -h ."
    rm -rf "$folder"
    if [ -n "$python" ] && "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        printf 'Creating %s with %s\n' "$folder" "$("$python" --version)"
        "$python" -m venv "$folder"
    elif has uv; then
        printf 'Creating %s with uv\n' "$folder"
        uv venv --quiet --seed --python "${python:->=3.11}" "$folder"
    elif has virtualenv; then
        printf 'Creating %s with virtualenv\n' "$folder"
        virtualenv --quiet --python "$python" "$folder"
    else
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        fail "This Python ($("$python" --version)) has no venv module. One of these brings it:" \
            "Debian, Ubuntu:  sudo apt install python3-venv    (or python$version-venv)" \
            "elsewhere:       pip install --user virtualenv"
    fi
fi

"$folder/bin/python" tools/install.py "$lock"
if [ "$editable" = --editable ]; then
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
fi
