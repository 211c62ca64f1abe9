"""Geometry of the small pictures: the segmented bar, the bars of the last runs, the timeline. Pure: numbers to numbers.

Every x and width is in percent (0–100) of the picture, so that one SVG fits every screen. Nothing here is a colour:
the style sheet gives each ``kind`` its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

SEGMENTS = 80  # more would be thinner than the line between them; neighbours are then drawn as one
FILLS = {
    "COMPLETED": "ok",
    "CACHED": "ok",
    "SKIPPED": "bg",
    "FAILED": "failed",
    "CRASHED": "failed",
    "CANCELLED": "off",
}


class Part(Protocol):
    """What a bar needs to know of a task run: ``share`` is 0–1 of its work, ``weight`` its part of the whole."""

    @property
    def pk(self) -> int: ...
    @property
    def label(self) -> str: ...
    @property
    def weight(self) -> float: ...
    @property
    def share(self) -> float: ...
    @property
    def state(self) -> str: ...


@dataclass(frozen=True)
class Segment:
    pk: int
    label: str
    x: float
    width: float
    filled: float  # width of the filled part, in the same percent as ``width``
    kind: str
    state: str

    @property
    def end(self) -> float:
        return self.x + self.width


def segments(parts: Sequence[Part]) -> list[Segment]:
    """One segment a task, as wide as its weight."""
    groups = _grouped(parts)
    total = sum(weight for _, weight, _ in groups) or 1.0
    drawn: list[Segment] = []
    x = 0.0
    for first, weight, done in groups:
        width = 100 * weight / total
        share = 1.0 if FILLS.get(first.state) == "failed" and not done else (done / weight if weight else 0.0)
        filled = width * min(1.0, max(0.0, share))
        drawn.append(Segment(first.pk, first.label, x, width, filled, FILLS.get(first.state, "done"), first.state))
        x += width
    return drawn


def _grouped(parts: Sequence[Part]) -> list[tuple[Part, float, float]]:
    """(task that stands for the group, weight, weight done). The one that is not finished speaks for its group."""
    size = -(-len(parts) // SEGMENTS) if parts else 1
    groups = [parts[start : start + size] for start in range(0, len(parts), size)]
    return [
        (max(group, key=_speaks), sum(p.weight for p in group), sum(p.weight * p.share for p in group))
        for group in groups
    ]


def _speaks(part: Part) -> int:
    return {"RUNNING": 3, "FAILED": 2, "CRASHED": 2, "RETRYING": 2, "PENDING": 1}.get(part.state, 0)


@dataclass(frozen=True)
class Bar:
    """One run in the history of a flow: taller is longer; ``mark`` asks for a second shape beside the colour."""

    x: float
    width: float
    y: float
    height: float
    state: str
    title: str
    url: str
    mark: bool


def bars(runs: Iterable[tuple[str, float | None, str, str]], count: int = 20) -> list[Bar]:
    """``(state, seconds, title, url)`` of the last runs, oldest first, drawn flush right; the longest is highest."""
    last = list(runs)[-count:]
    longest = max((seconds or 0.0 for _, seconds, _, _ in last), default=0.0) or 1.0
    step = 100 / count
    drawn = []
    for index, (state, seconds, title, url) in enumerate(last, count - len(last)):
        height = 14 + 70 * (seconds or 0.0) / longest
        failed = state in {"FAILED", "CRASHED", "LOST"}
        drawn.append(Bar(index * step, step * 0.68, 100 - height, height, state, title, url, failed))
    return drawn


@dataclass(frozen=True)
class Lane:
    """One task in the timeline, and as a dashed outline how long it usually takes; None where there is nothing."""

    x: float
    width: float
    usual: float | None


def lane(start: float | None, took: float | None, usual: float | None, span: float) -> Lane | None:
    """Seconds since the run's start to percent of ``span`` seconds."""
    if start is None or took is None or span <= 0:
        return None
    x = min(100.0, max(0.0, 100 * start / span))
    width = min(100 - x, max(0.25, 100 * took / span))
    return Lane(x, width, None if usual is None else min(100 - x, max(0.25, 100 * usual / span)))


def span_of(ends: Iterable[float]) -> float:
    """The seconds that a timeline shows: the latest end, and a little air."""
    return max(ends, default=0.0) * 1.02 or 1.0
