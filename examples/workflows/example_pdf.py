"""The look of the report: a sheet of A4 paper that knows how to draw headings, tiles, bars, lines and tables.

Lengths are in points (1/72 inch), y grows upwards as in PDF.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from example_home import extra_packages

WIDTH, HEIGHT = 595.28, 841.89
MARGIN = 40.0
INNER = WIDTH - 2 * MARGIN

NIGHT, GRID, CYAN, ICE = "#0a0e18", "#121a2d", "#25e3ff", "#a5b4d0"
INK, SOFT, FAINT, LINE, PANEL = "#111a2e", "#3f4d6b", "#5a6987", "#d5deec", "#f0f4fb"
TEAL, PALE, MAGENTA, GREEN, RED = "#006c86", "#9fd0dc", "#b4166c", "#00724a", "#bd1734"
PLAIN, BOLD = "Helvetica", "Helvetica-Bold"
ACCENTS = {"passed": GREEN, "in use": GREEN, "failed": RED}  # cells of a table that stand out

Column = tuple[str, float, bool]  # heading, x of the column's edge (0–1 of the width), set right
Box = tuple[float, float, float, float]  # x, y of the lower left corner, width, height


class Sheet:
    """The paper. `y` is the lower edge of what is drawn already."""

    def __init__(self, path: Path, title: str, compress: bool = True) -> None:
        # Loaded here: reportlab with Pillow costs 20 MB that an idle worker should not carry.
        with extra_packages():
            from reportlab.lib.colors import HexColor
            from reportlab.pdfgen.canvas import Canvas

        self._colour = HexColor
        self._canvas: Any = Canvas(str(path), pagesize=(WIDTH, HEIGHT), pageCompression=int(compress))
        self._canvas.setTitle(title)
        self._canvas.setAuthor("Perfect")
        self.pages = 1
        self.y = HEIGHT

    # --- strokes ---

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 9,
        colour: str = INK,
        font: str = PLAIN,
        align: str = "left",
        spacing: float = 0,
    ) -> None:
        """One line of text; `align` left, right or centre of x; `spacing` between letters (left only)."""
        self._canvas.setFillColor(self._colour(colour))
        self._canvas.setFont(font, size)
        if align == "left":
            self._canvas.drawString(x, y, text, charSpace=spacing)
        elif align == "right":
            self._canvas.drawRightString(x, y, text)
        else:
            self._canvas.drawCentredString(x, y, text)

    def box(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """A filled rectangle."""
        self._canvas.setFillColor(self._colour(colour))
        self._canvas.rect(x, y, width, height, stroke=0, fill=1)

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str = LINE, width: float = 0.6) -> None:
        """A straight line."""
        self._canvas.setStrokeColor(self._colour(colour))
        self._canvas.setLineWidth(width)
        self._canvas.line(x1, y1, x2, y2)

    def shape(
        self,
        points: Sequence[tuple[float, float]],
        fill: str = "",
        stroke: str = "",
        width: float = 0.8,
        closed: bool = True,
    ) -> None:
        """A polygon, or an open line through the points."""
        path = self._canvas.beginPath()
        path.moveTo(*points[0])
        for point in points[1:]:
            path.lineTo(*point)
        if closed:
            path.close()
        if fill:
            self._canvas.setFillColor(self._colour(fill))
        if stroke:
            self._canvas.setStrokeColor(self._colour(stroke))
            self._canvas.setLineWidth(width)
        self._canvas.drawPath(path, stroke=int(bool(stroke)), fill=int(bool(fill)))

    def notched(self, x: float, y: float, width: float, height: float, fill: str, stroke: str = LINE) -> None:
        """A panel with its upper right and lower left corner cut off."""
        cut, right, top = 8, x + width, y + height
        corners = [(x, top), (right - cut, top), (right, top - cut), (right, y), (x + cut, y), (x, y + cut)]
        self.shape(corners, fill, stroke)

    # --- parts of a page ---

    def band(self, title: str, line: str) -> None:
        """The dark head of the first page with the title and the segmented bar."""
        height = 122.0
        bottom = HEIGHT - height
        self.box(0, bottom, WIDTH, height, NIGHT)
        for step in range(0, int(WIDTH) + 1, 24):
            self.line(step, bottom, step, HEIGHT, GRID, 0.5)
        for step in range(0, int(height), 24):
            self.line(0, HEIGHT - step, WIDTH, HEIGHT - step, GRID, 0.5)
        self.text(MARGIN, HEIGHT - 36, "P", 11, CYAN, BOLD)
        self.text(MARGIN + 10, HEIGHT - 36, "ERFECT", 11, "#e3ecfa", BOLD, spacing=2.4)
        self.text(MARGIN, HEIGHT - 74, title, 25, "#ffffff", BOLD)
        self.text(MARGIN, HEIGHT - 94, line, 10, ICE)
        left = MARGIN
        for share, colour in ((0.30, TEAL), (0.16, TEAL), (0.24, TEAL), (0.20, CYAN), (0.10, CYAN)):
            self.box(left, bottom + 10, INNER * share - 2, 5, colour)
            left += INNER * share
        self.y = bottom

    def heading(self, text: str, note: str = "", x: float = MARGIN, width: float = INNER, gap: float = 26) -> None:
        """A section's title with a cyan mark; moves down by `gap`."""
        self.y -= gap
        self.box(x, self.y - 1, 3, 10, TEAL)
        self.text(x + 9, self.y, text.upper(), 9.5, INK, BOLD, spacing=0.8)
        if note:
            self.text(x + width, self.y, note, 8, FAINT, align="right")

    def tiles(self, tiles: Sequence[tuple[str, str, float | None]], height: float = 62) -> None:
        """A row of panels: label, number, change against the week before in percent (None: not known)."""
        gap = 8.0
        width = (INNER - gap * (len(tiles) - 1)) / len(tiles)
        self.y -= height + 18
        for number, (label, value, change) in enumerate(tiles):
            x = MARGIN + number * (width + gap)
            self.notched(x, self.y, width, height, PANEL)
            self.text(x + 10, self.y + height - 18, label, 8, SOFT)
            self.text(x + 10, self.y + height - 39, value, 18, INK, BOLD)
            self._change(x + 10, self.y + 9, change)

    def _change(self, x: float, y: float, change: float | None) -> None:
        if change is None:
            self.text(x, y, "no week before", 7.5, FAINT)
            return
        up = change >= 0
        tip, foot = (y + 5.5, y) if up else (y, y + 5.5)
        self.shape([(x, foot), (x + 6, foot), (x + 3, tip)], fill=GREEN if up else RED)
        self.text(x + 9, y, f"{change:+.1f} % in a week", 7.5, GREEN if up else RED)

    def axis(self, box: Box, top: float, label: Any) -> None:
        """Four horizontal lines with their values; `label` turns a value into text."""
        x, y, width, height = box
        for step in range(5):
            level = y + height * step / 4
            self.line(x, level, x + width, level, LINE, 0.5)
            self.text(x - 5, level - 2.5, label(top * step / 4), 7, FAINT, align="right")

    def bars(self, box: Box, values: Sequence[float], top: float, colours: Sequence[str]) -> list[float]:
        """Bars in a box; returns the x of their middles."""
        x, y, width, height = box
        step = width / len(values)
        for number, value in enumerate(values):
            self.box(x + (number + 0.12) * step, y, step * 0.76, height * value / top, colours[number])
        return [x + (number + 0.5) * step for number in range(len(values))]

    def table(
        self, columns: Sequence[Column], rows: Sequence[Sequence[str]], x: float, width: float, row_height: float = 15
    ) -> None:
        """Lines of text under headings, below `y`."""
        self.y -= 20
        for title, place, right in columns:
            self.text(x + place * width, self.y, title, 7.5, FAINT, BOLD, "right" if right else "left")
        for row in rows:
            self.line(x, self.y - 5, x + width, self.y - 5)
            self.y -= row_height
            for (_, place, right), cell in zip(columns, row):
                align = "right" if right else "left"
                self.text(x + place * width, self.y, cell, 8.5, ACCENTS.get(cell, INK), align=align)

    def foot(self, text: str) -> None:
        """The line at the bottom of a page."""
        self.line(MARGIN, 34, WIDTH - MARGIN, 34)
        self.text(MARGIN, 22, text, 7.5, FAINT)
        self.text(WIDTH - MARGIN, 22, f"Page {self.pages}", 7.5, FAINT, align="right")

    def next_page(self) -> None:
        """Turns the page over."""
        self._canvas.showPage()
        self.pages += 1
        self.y = HEIGHT - MARGIN

    def save(self) -> None:
        """Writes the file."""
        self._canvas.save()


def round_up(value: float) -> float:
    """A round number at or above `value`, for the top of an axis."""
    for factor in (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10):
        magnitude = 10.0 ** (len(str(int(max(value, 1)))) - 1)
        if factor * magnitude >= value:
            return factor * magnitude
    return max(value, 1.0)


def blend(share: float) -> str:
    """A cell's colour in a heat map, white to teal for 0–1."""
    share = min(1.0, max(0.0, share))
    low, high = (255, 255, 255), (37, 168, 196)
    return "#%02x%02x%02x" % tuple(round(a + (b - a) * share) for a, b in zip(low, high))
