"""The picture of a results document, drawn as SVG by hand: no plotting library for one bar chart."""

from __future__ import annotations

from collections.abc import Callable
from xml.sax.saxutils import escape

from .report import Document, number

_PANEL_W, _LABEL_W, _BAR_H, _GAP, _HEAD, _MARGIN = 470, 92, 17, 7, 40, 18
_VALUE_W = 78
_COLOURS = {"heartwire": "#1d4ed8", "ceiling": "#cbd5e1"}
_PEER = "#94a3b8"


def draw(whole: Document) -> str:
    """The chart: a panel for each scenario, a bar for each server on its best loop.

    Args:
        whole: A results document.

    Returns:
        The SVG file's text.
    """
    panels = [
        (scenario, bars) for scenario in whole["scenarios"] if len(bars := _best_of_each(scenario)) > 1
    ]  # one bar alone compares nothing
    heights = [_MARGIN + 30, _MARGIN + 30]
    parts: list[str] = []
    for scenario, bars in panels:
        column = heights.index(min(heights))
        x = _MARGIN + column * (_PANEL_W + _MARGIN)
        parts.append(_panel(scenario, bars, x, heights[column]))
        heights[column] += _panel_height(bars)
    width, height = 2 * _PANEL_W + 3 * _MARGIN, max(heights) + _MARGIN
    title_y = _MARGIN + 8
    cpu = f"{whole['machine']['cpu']}, {whole['date'][:10]}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" '
            'font-family="system-ui, sans-serif" font-size="12" fill="#0f172a">',
            "<title>heartwire and its peers under load</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            f'<text x="{_MARGIN}" y="{title_y}" font-size="15" font-weight="600">'
            "heartwire and its peers, one core each</text>",
            f'<text x="{width - _MARGIN}" y="{title_y}" text-anchor="end" fill="#475569">',
            f"{escape(cpu)}</text>",
            *parts,
            "</svg>\n",
        ]
    )


def _best_of_each(scenario: Document) -> list[Document]:
    best: dict[str, Document] = {}
    sign = 1 if scenario["higher_is_better"] else -1
    for result in scenario["results"]:
        if result["median"] is None:
            continue
        held = best.get(result["server"])
        if held is None or sign * result["median"] > sign * held["median"]:
            best[result["server"]] = result
    return list(best.values())


def _panel_height(bars: list[Document]) -> int:
    return _HEAD + len(bars) * (_BAR_H + _GAP) + 16


def _panel(scenario: Document, bars: list[Document], x: int, y: int) -> str:
    top = max(result["high"] for result in bars) or 1.0
    room = _PANEL_W - _LABEL_W - _VALUE_W

    def width(value: float) -> float:
        return round(max(value, 0.0) / top * room, 1)

    good = "higher is better" if scenario["higher_is_better"] else "lower is better"
    parts = [
        f'<g transform="translate({x},{y})">',
        f'<text y="14" font-weight="600">{escape(scenario["title"])}</text>',
        f'<text y="30" fill="#475569" font-size="11">{escape(scenario["unit"])}, {good}</text>',
    ]
    for index, result in enumerate(bars):
        at = _HEAD + index * (_BAR_H + _GAP)
        middle = at + _BAR_H / 2
        parts += _bar(result, at, middle, width)
        beside = _LABEL_W + width(result["high"]) + 8
        parts.append(f'<text x="{beside}" y="{middle + 4}">{number(result["median"])}</text>')
    return "\n".join([*parts, "</g>"])


def _bar(result: Document, at: float, middle: float, width: Callable[[float], float]) -> list[str]:
    server = result["server"]
    colour = _COLOURS.get(server, _PEER)
    weight = ' font-weight="600"' if server == "heartwire" else ""
    low, high = _LABEL_W + width(result["low"]), _LABEL_W + width(result["high"])
    return [
        f'<text x="{_LABEL_W - 8}" y="{middle + 4}" text-anchor="end"{weight}>{escape(server)}</text>',
        f'<rect x="{_LABEL_W}" y="{at}" width="{width(result["median"])}" height="{_BAR_H}" rx="2" '
        f'fill="{colour}"/>',
        f'<path d="M{low} {middle}H{high}M{low} {middle - 4}v8M{high} {middle - 4}v8" stroke="#0f172a" '
        'stroke-width="1.2" fill="none"/>',
    ]
