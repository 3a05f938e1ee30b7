"""Figures of several rounds: medians, ratios within a round, and the file that keeps them."""

import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from scenarios import UNITS

Key: TypeAlias = tuple[str, str, str]
"""System, scenario, metric."""


@dataclass
class Results:
    """One dict of figures for each round, and which systems are missing, with the reason."""

    rounds: list[dict[Key, float]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def values(self, key: Key) -> list[float]:
        """A figure in every round that has it."""
        return [figures[key] for figures in self.rounds if key in figures]

    def median(self, key: Key) -> float | None:
        """Its median; None where no round has it."""
        values = self.values(key)
        return statistics.median(values) if values else None

    def figures(self) -> list[Key]:
        """Every figure of any round, in the order in which they were first seen."""
        return list(dict.fromkeys(key for figures in self.rounds for key in figures))

    def rows(self) -> list[dict[str, Any]]:
        """What latest.json holds."""
        return [
            {
                "system": system,
                "scenario": scenario,
                "metric": metric,
                "unit": UNITS[metric],
                "median": round(statistics.median(values), 4),
                "min": round(min(values), 4),
                "max": round(max(values), 4),
            }
            for system, scenario, metric in self.figures()
            if (values := self.values((system, scenario, metric)))
        ]

    def save(self, path: Path) -> None:
        """Write latest.json."""
        path.write_text(json.dumps(self.rows(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
