"""Write docs/settings.md from the settings themselves; with --check only say whether it is fresh."""

import sys
from pathlib import Path
from typing import Any

from headrace_server.config import FileProvider, Settings

TARGET = Path(__file__).resolve().parent.parent / "docs" / "settings.md"
INTRODUCTION = """# Settings

Made by `python tools/settings.py`.

A flag of `headrace serve` beats an environment variable `HEADRACE_<NAME>`, which beats the configuration file (TOML; `--config FILE` or
`HEADRACE_CONFIG`), which beats the default. Durations are numbers of seconds, sizes are numbers of bytes. A setting that is unknown or
wrong is an error that names it, at start.

"""
PROVIDERS = """
## Providers

A table `[providers.NAME]` for each; it wins over a provider of the same name in the store.

"""


def table(model: Any) -> str:
    """The fields of a model as a Markdown table."""
    lines = ["| name | default | meaning |", "| --- | --- | --- |"]
    for name, field in model.model_fields.items():
        if field.is_required():
            default = "required"
        elif field.default_factory is not None or field.default is None or field.default == ():
            default = ""
        else:
            value = field.default
            default = f"`{str(value).lower() if isinstance(value, bool) else value}`"
        lines.append(f"| `{name}` | {default} | {' '.join((field.description or '').split())} |")
    return "\n".join(lines) + "\n"


def document() -> str:
    """The whole file."""
    return INTRODUCTION + table(Settings) + PROVIDERS + table(FileProvider)


if __name__ == "__main__":
    if "--check" not in sys.argv:
        TARGET.write_text(document(), encoding="utf-8")
    elif TARGET.read_text(encoding="utf-8") != document():
        sys.exit("docs/settings.md is not what the settings say: run `python tools/settings.py`")
