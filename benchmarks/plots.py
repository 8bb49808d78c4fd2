"""Small SVG pictures: bars of ratios, and curves over a scale. Both axes of curves and long bars are logarithmic."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from harness import Points

WIDTH = 760
LABEL = 300
LINE = 22
MARGIN = 12
HEIGHT = 320
COLOURS = ("#2563eb", "#d97706", "#059669", "#db2777", "#7c3aed", "#64748b")
INK, GRID, MET, MISSED, NEUTRAL = "#1f2937", "#d1d5db", "#059669", "#dc2626", "#2563eb"
LOGARITHMIC_FROM = 20.0
"""Bars that differ by more than this factor are drawn on a logarithmic scale."""


class Bar(NamedTuple):
    name: str
    value: float
    bar: float | None = None
    """What was hoped for, drawn as a mark."""
    met: bool | None = None


def bars(rows: Sequence[Bar]) -> str:
    """One line each, with its value written beside it."""
    values = [value for row in rows for value in (row.value, row.bar) if value]
    scale = _scale(min(values), max(values))
    room = WIDTH - LABEL - 90
    height = 2 * MARGIN + LINE * len(rows)
    parts = []
    for number, row in enumerate(rows):
        top = MARGIN + number * LINE
        colour = NEUTRAL if row.met is None else MET if row.met else MISSED
        length = max(1.0, room * scale(row.value))
        parts.append(_text(LABEL - 8, top + 15, row.name, anchor="end"))
        parts.append(f'<rect x="{LABEL}" y="{top + 4}" width="{length:.1f}" height="{LINE - 8}" fill="{colour}"/>')
        if row.bar:
            x = LABEL + room * scale(row.bar)
            parts.append(f'<path d="M{x:.1f} {top + 1}v{LINE - 2}" stroke="{INK}" stroke-width="2"/>')
            length = max(length, x - LABEL)
        parts.append(
            _text(LABEL + length + 6, top + 15, f"{row.value:,.3g}×" if row.value < 1000 else f"{row.value:,.0f}×")
        )
    return _picture(height, parts)


def curves(x: str, y: str, lines: Mapping[str, Points]) -> str:
    """Each line in a colour, the names at the right."""
    points = [point for line in lines.values() for point in line]
    left, right, top, bottom = 70, WIDTH - 190, MARGIN, HEIGHT - 45
    across = _Axis(min(p[0] for p in points), max(p[0] for p in points), left, right)
    up = _Axis(min(p[1] for p in points), max(p[1] for p in points), bottom, top)
    parts = []
    for tick in across.ticks():
        place = across.place(tick)
        parts.append(f'<path d="M{place:.1f} {top}V{bottom}" stroke="{GRID}"/>')
        parts.append(_text(place, bottom + 18, f"{tick:,.0f}", anchor="middle"))
    for tick in up.ticks():
        place = up.place(tick)
        parts.append(f'<path d="M{left} {place:.1f}H{right}" stroke="{GRID}"/>')
        parts.append(_text(left - 6, place + 4, f"{tick:,.0f}", anchor="end"))
    parts.append(_text((left + right) / 2, HEIGHT - 8, x, anchor="middle"))
    parts.append(_text(left, top - 1, y))
    for number, (name, line) in enumerate(lines.items()):
        colour, dash = COLOURS[number // 2 % len(COLOURS)], ' stroke-dasharray="6 4"' if number % 2 else ""
        path = "L".join(f"{across.place(a):.1f} {up.place(b):.1f}" for a, b in line)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        parts.append(f'<path d="M{right + 14} {30 + 20 * number}h26" stroke="{colour}" stroke-width="2"{dash}/>')
        parts.append(_text(right + 46, 34 + 20 * number, name))
    return _picture(HEIGHT, parts)


class _Axis:
    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        """From whole power of ten to whole power of ten."""
        self._low = math.floor(math.log10(low))
        self._high = max(math.ceil(math.log10(high)), self._low + 1)
        self._start, self._end = start, end

    def ticks(self) -> list[float]:
        return [10.0**power for power in range(self._low, self._high + 1)]

    def place(self, value: float) -> float:
        part = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + part * (self._end - self._start)


def _scale(low: float, high: float) -> Callable[[float], float]:
    """A value's part of the longest."""
    if high / low < LOGARITHMIC_FROM:
        return lambda value: value / high
    first = math.log10(min(low, 1.0)) - 0.1
    return lambda value: (math.log10(value) - first) / (math.log10(high) - first)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}">{escape(text)}</text>'


def _picture(height: float, parts: Sequence[str]) -> str:
    size = f'width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>", ""])
