"""Bars, timelines, words and colours: what pages draw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfect_site.dashboard.logs import pieces
from perfect_site.templatetags.perfect import dur, eta, number
from runs.rules import geometry


@dataclass(frozen=True)
class Part:
    pk: int
    weight: float
    share: float
    state: str = "RUNNING"
    label: str = ""


shares = st.floats(0, 1, allow_nan=False)
weights = st.floats(0.001, 1e6, allow_nan=False)


@given(st.lists(st.tuples(weights, shares), min_size=1, max_size=300))
def test_segments_fill_the_bar_and_show_the_weighted_share(made: list[tuple[float, float]]) -> None:
    parts = [Part(pk, weight, share) for pk, (weight, share) in enumerate(made)]

    drawn = geometry.segments(parts)

    assert len(drawn) <= geometry.SEGMENTS
    assert math.isclose(sum(segment.width for segment in drawn), 100, rel_tol=1e-6)
    shown = 100 * sum(w * s for w, s in made) / sum(w for w, _ in made)
    assert math.isclose(sum(segment.filled for segment in drawn), shown, rel_tol=1e-6, abs_tol=1e-6)


def test_a_segment_is_as_wide_as_its_weight() -> None:
    drawn = geometry.segments([Part(1, 1, 1, "COMPLETED"), Part(2, 3, 0.5)])

    assert [(s.x, s.width, s.filled, s.kind) for s in drawn] == [(0, 25, 25, "ok"), (25, 75, 37.5, "done")]


def test_the_longest_bar_is_the_highest_and_trouble_has_a_second_shape() -> None:
    drawn = geometry.bars([("COMPLETED", 10.0, "", ""), ("FAILED", 5.0, "", "")], count=20)

    assert drawn[0].height > drawn[1].height and drawn[1].mark and not drawn[0].mark
    assert drawn[1].x == 95


def test_a_lane_stays_in_its_picture() -> None:
    lane = geometry.lane(50, 100, 400, 100)

    assert lane is not None and lane.x + lane.width <= 100 and lane.x + (lane.usual or 0) <= 100
    assert geometry.lane(None, 1, 1, 1) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.014, "14 ms"),
        (1.94, "1.9 s"),
        (59.97, "1:00"),
        (125, "2:05"),
        (3723, "1:02:03"),
        (273_600, "3 d 4 h"),
        (timedelta(seconds=2), "2.0 s"),
        (None, ""),
        (-3, "0 ms"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float | None, words: str) -> None:
    assert dur(seconds) == words


def test_time_left_is_a_range_only_if_its_ends_differ() -> None:
    assert eta((72, 90)) == "1:12–1:30"
    assert eta((4.1, 4.2)) == "0:04"
    assert eta(None) == ""


def test_numbers_have_no_needless_digits() -> None:
    assert [number(value) for value in (1.0, 0.25, 12345.6, None)] == ["1", "0.25", "12,346", ""]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("plain <b>", [("", "plain <b>")]),
        ("\x1b[31mred\x1b[0m not", [("a31", "red"), ("", " not")]),
        ("\x1b[1;32mboth\x1b[39mbold", [("ab a32", "both"), ("ab", "bold")]),
        ("\x1b[38;5;200mskipped\x1b[48;2;1;2;3m!", [("", "skipped"), ("", "!")]),
        ("\x1b]0;title\x07a\x1b[2Kb\x1b[?25lc", [("", "abc")]),
        ("10 %\r50 %\r100 %", [("", "100 %")]),
        ("\x1b[31m", [("", "")]),
        ("bell\x07 nul\x00", [("", "bell nul")]),
    ],
)
def test_terminal_colours_become_classes_and_other_escapes_go(message: str, shown: list[tuple[str, str]]) -> None:
    assert pieces(message) == shown


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("\x1b[]0;m31"), max_size=200))
def test_no_escape_survives_and_classes_are_ours(message: str) -> None:
    for names, text in pieces(message):
        assert "\x1b" not in text
        assert all(name[0] == "a" and name[1:].isalnum() for name in names.split())
