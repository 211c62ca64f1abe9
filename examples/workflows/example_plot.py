"""A small line chart as SVG text, made of numbers and strings alone."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, LEFT, EDGE = 720, 240, 56, 22
INK, FAINT, LINE = "#1a2233", "#6b7690", "#0b8f86"


def line_chart(title: str, labels: Sequence[str], values: Sequence[float], unit: str = "") -> str:
    """An SVG of the values from left to right above their labels; the axis starts at 0."""
    top = max(values, default=0) or 1
    step = (WIDTH - LEFT - EDGE) / max(1, len(values) - 1)
    points = [(LEFT + n * step, HEIGHT - EDGE - value / top * (HEIGHT - 3 * EDGE)) for n, value in enumerate(values)]
    words = [_words(LEFT, 16, title, INK, 13), _words(4, 2 * EDGE + 4, f"{unit}{top:,.0f}", FAINT)]
    if labels:
        words += [
            _words(LEFT, HEIGHT - 5, labels[0], FAINT),
            _words(WIDTH - EDGE, HEIGHT - 5, labels[-1], FAINT, end=True),
        ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        f'<path d="M{LEFT} {2 * EDGE}H{WIDTH - EDGE}M{LEFT} {HEIGHT - EDGE}H{WIDTH - EDGE}" stroke="#dde2ec"/>'
        f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" fill="none" stroke="{LINE}"'
        f' stroke-width="2.5" stroke-linejoin="round"/>{"".join(words)}</svg>'
    )


def _words(x: float, y: float, text: str, colour: str, size: int = 11, *, end: bool = False) -> str:
    anchor = ' text-anchor="end"' if end else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" fill="{colour}" font-size="{size}"{anchor}>{escape(text)}</text>'
