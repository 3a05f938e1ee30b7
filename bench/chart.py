"""Charts as SVG by hand: small, and readable on light and dark ground."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 860
LABELS = 190
ROW = 20
LINE = 13
PLOT = 190
SMALLEST = 1e-3
"""What a logarithmic axis shows at least."""
STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-size: 14px; font-weight: 600 }
.quiet { fill: #57606a }
.ours { fill: #1a7f6f } .theirs { fill: #8c959f }
line, path { stroke: #8c959f; fill: none }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .quiet { fill: #9198a1 } .ours { fill: #3fb8a4 } .theirs { fill: #6e7681 } }
</style>"""
COLOURS = ("#1a7f6f", "#bf5b17", "#5b6ee1", "#b03a6f", "#7a7a00", "#2f81b7", "#8250df", "#6e7781")


@dataclass(frozen=True, slots=True)
class Bars:
    """One panel of horizontal bars: a value for each system, in the order given."""

    title: str
    unit: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Lines:
    """One panel of lines; both axes are logarithmic where `log` says so, else y begins at 0."""

    title: str
    x: str
    y: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    log: bool = True


def bars(panels: Sequence[Bars], ours: str) -> str:
    """Panels below each other; the bars of `ours` stand out."""
    parts, y = [], 10
    for panel in panels:
        parts.append(_text(0, y + 12, f"{panel.title}, {panel.unit}", "title"))
        y += 22
        most = max(panel.values.values(), default=1) or 1
        for name, value in panel.values.items():
            length = max(1.0, (WIDTH - LABELS - 90) * value / most)
            kind = "ours" if name.startswith(ours) else "theirs"
            parts.append(_text(LABELS - 8, y + 13, name, anchor="end"))
            parts.append(f'<rect class="{kind}" x="{LABELS}" y="{y + 2}" width="{length:.1f}" height="{ROW - 5}" rx="2"/>')
            parts.append(_text(LABELS + length + 6, y + 13, figure(value), "quiet"))
            y += ROW
        y += 16
    return _svg(parts, WIDTH, y)


def lines(panels: Sequence[Lines]) -> str:
    """Panels below each other, with the name of each line at its end."""
    parts = [part for number, panel in enumerate(panels) for part in _panel(panel, number * (PLOT + 70))]
    return _svg(parts, WIDTH, len(panels) * (PLOT + 70))


def _panel(panel: Lines, above: int) -> Iterator[str]:
    top, bottom, left, right = above + 34, above + 34 + PLOT, 60, 620
    points = [point for line in panel.lines.values() for point in line]
    x_axis = _Axis([x for x, _ in points], left, right, log=panel.log)
    y_axis = _Axis([y for _, y in points], bottom, top, log=panel.log)
    yield _text(0, above + 16, panel.title, "title")
    for tick in y_axis.ticks():
        yield f'<line x1="{left}" x2="{right}" y1="{y_axis.at(tick):.1f}" y2="{y_axis.at(tick):.1f}" opacity=".3"/>'
        yield _text(left - 6, y_axis.at(tick) + 4, figure(tick), "quiet", "end")
    for tick in x_axis.ticks():
        yield _text(x_axis.at(tick), bottom + 16, figure(tick), "quiet", "middle")
    yield _text(right + 45, bottom + 16, panel.x, "quiet")
    yield _text(left, top - 4, panel.y, "quiet")
    drawn = sorted(panel.lines.items(), key=lambda item: -item[1][-1][1])
    labels = _apart([y_axis.at(line[-1][1]) + 4 for _, line in drawn], bottom)
    for number, (name, line) in enumerate(drawn):
        colour = COLOURS[number % len(COLOURS)]
        at = [f"{x_axis.at(x):.1f},{y_axis.at(y):.1f}" for x, y in line]
        yield f'<path d="M{" L".join(at)} h.1" style="stroke:{colour};stroke-width:2;stroke-linecap:round"/>'
        yield f'<text x="{right + 8}" y="{labels[number]:.1f}" style="fill:{colour}">{escape(name)}</text>'


def _apart(wanted: Sequence[float], bottom: float) -> list[float]:
    """Positions from above to below, near those that are wanted, with room for a line of text between them."""
    positions: list[float] = []
    for position in wanted:
        positions.append(max(position, positions[-1] + LINE) if positions else position)
    for number in reversed(range(len(positions))):
        lowest = bottom if number == len(positions) - 1 else positions[number + 1] - LINE
        positions[number] = min(positions[number], lowest)
    return positions


def figure(value: float) -> str:
    """A number with three digits that count, and separators between thousands."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


class _Axis:
    """From values to positions. A logarithmic one goes over whole powers of ten; another one begins at 0."""

    def __init__(self, values: Sequence[float], begin: float, end: float, *, log: bool) -> None:
        self._log = log
        low, high = (math.floor(self._scaled(min(values))), math.ceil(self._scaled(max(values)))) if log else (0, max(values))
        self._low, self._high = low, high if high > low else low + 1
        self._begin, self._end = begin, end

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, SMALLEST)) if self._log else value

    def at(self, value: float) -> float:
        """Where a value stands."""
        return self._begin + (self._end - self._begin) * (self._scaled(value) - self._low) / (self._high - self._low)

    def ticks(self) -> list[float]:
        """Round values along the axis."""
        if self._log:
            return [10.0**power for power in range(int(self._low), int(self._high) + 1)]
        step = 10.0 ** math.floor(math.log10(self._high))
        if self._high / step < 3:
            step /= 2
        return [step * number for number in range(int(self._high / step) + 1)]


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(parts: Sequence[str], width: int, height: int) -> str:
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">\n{STYLE}\n{body}\n</svg>\n'
