"""The README's table of speed, made from results/latest.json:  python bench/readme.py"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
LATEST = ROOT / "bench" / "results" / "latest.json"
BEGIN, END = "<!-- begin: python bench/readme.py -->", "<!-- end -->"

COLUMNS = (
    ("chunks/s, 32 streams without delay", "burst", "chunks/s"),
    ("CPU a chunk, µs", "burst", "CPU per chunk"),
    ("CPU a chunk, 200 streams, 20 ms apart, µs", "steady", "CPU per chunk"),
    ("first token added, ms", "lone", "first token added p50"),
    ("an open stream, KiB", "held", "memory per open stream"),
    ("idle, MB", "start", "memory idle"),
)
"""Title, scenario and metric."""
TOLD = ("Headrace", "Headrace, 4 streams", "bare grpc.aio server", "TensorZero", "Portkey", "LiteLLM")
"""Rows. Of the second the generations share four bidirectional streams."""


def table(results: list[dict[str, object]]) -> str:
    """The table, in Markdown; a figure that was not measured is a dash."""
    medians = {(row["system"], row["scenario"], row["metric"]): row["median"] for row in results}
    lines = ["| | " + " | ".join(title for title, _, _ in COLUMNS) + " |", "| --- |" + " ---: |" * len(COLUMNS)]
    for name in TOLD:
        system, _, shared = name.partition(", ")
        figures = [medians.get((system, f"{scenario}, {shared}" if shared else scenario, metric)) for _, scenario, metric in COLUMNS]
        if any(figure is not None for figure in figures):
            lines.append(f"| {name} | " + " | ".join(_rounded(figure) for figure in figures) + " |")
    return "\n".join(lines)


def _rounded(figure: object) -> str:
    if not isinstance(figure, int | float):
        return "–"
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def with_table(text: str, results: list[dict[str, object]]) -> str:
    """A README with the table between its marks."""
    assert BEGIN in text
    assert END in text
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: f"{BEGIN}\n{table(results)}\n{END}", text, flags=re.DOTALL)


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8"), json.loads(LATEST.read_text())), encoding="utf-8")
