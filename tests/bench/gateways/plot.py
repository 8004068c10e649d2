"""The figures as a picture: python -m tests.bench.gateways.plot FIGURES.json PICTURE.svg"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

#: The comparisons that are drawn, each with its title.
DRAWN: Mapping[str, str] = {
    "plain": "Requests a second (more is better)",
    "streams: SSE events": "Streamed events a second (more is better)",
    "half load: added p99": "Added latency at half load, p99, in ms (less is better)",
    "2,000 idle streams: memory at most": "Memory with 2,000 idle streams, in MB (less is better)",
}
NAMES = {"none": "no gateway"}
OURS = "Nightdesk"

WIDTH, LEFT, RIGHT = 760, 120, 90
TITLE_HEIGHT, BAR_HEIGHT, GAP, PANEL_GAP = 26, 20, 6, 18
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600}.name{text-anchor:end}"
    ".bar{fill:#8c959f}.ours{fill:#0969da}"
)


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    values: Mapping[str, float]

    @property
    def height(self) -> int:
        return TITLE_HEIGHT + len(self.values) * (BAR_HEIGHT + GAP) + PANEL_GAP


def panels_of(report: Mapping[str, Any]) -> Sequence[Panel]:
    """Return what is drawn of a report's figures; what was not measured is not."""
    found = {each["name"]: each["values"] for each in report["comparisons"]}
    return [Panel(title, found[name]) for name, title in DRAWN.items() if found.get(name)]


def draw(panels: Sequence[Panel]) -> str:
    """Return an SVG of bars, on white, so that it can be read on a dark page too."""
    height = sum(panel.height for panel in panels) + PANEL_GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    top = PANEL_GAP
    for panel in panels:
        lines += _draw_panel(panel, top)
        top += panel.height
    return "\n".join([*lines, "</svg>\n"])


def _draw_panel(panel: Panel, top: int) -> Iterator[str]:
    yield f'<text class="title" x="12" y="{top + 14}">{escape(panel.title)}</text>'
    most = max(*panel.values.values(), 0.0) or 1.0
    for number, (name, value) in enumerate(panel.values.items()):
        y = top + TITLE_HEIGHT + number * (BAR_HEIGHT + GAP)
        # A difference of two noisy figures may be below nothing.
        width = max(value, 0) / most * (WIDTH - LEFT - RIGHT)
        kind = "bar ours" if name == OURS else "bar"
        yield f'<text class="name" x="{LEFT - 8}" y="{y + 15}">{escape(NAMES.get(name, name))}</text>'
        yield f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR_HEIGHT}"/>'
        yield f'<text x="{LEFT + width + 6:.1f}" y="{y + 15}">{_label(value)}</text>'


def _label(value: float) -> str:
    return f"{value:,.1f}" if abs(value) < 10 else f"{value:,.0f}"


def main(figures: str, picture: str) -> None:
    Path(picture).write_text(draw(panels_of(json.loads(Path(figures).read_text()))))


if __name__ == "__main__":
    main(*sys.argv[1:])
