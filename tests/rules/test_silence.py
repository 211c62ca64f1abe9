"""Silence counts only what the judge has lived through; whatever a wall clock does, nobody who speaks is silent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runs.rules.silence import Silence, Steadiness

GAP, LOST = 15.0, 60.0
SECONDS = st.floats(0.01, 200.0)
JUMPS = st.floats(-1e9, 1e9)


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("pass"), SECONDS),  # nothing is looked at for so long
            st.tuples(st.just("jump"), JUMPS),
            st.tuples(st.just("beat"), st.just(0.0)),
            st.tuples(st.just("look"), st.floats(0.01, GAP)),
        ),
        max_size=60,
    )
)
def test_it_is_the_time_since_the_last_word_that_this_process_was_awake_for(steps):
    """The model: since the last beat, since the first look, or since the last sleep, whichever is the shortest."""
    silence: Silence[str] = Silence(GAP)
    lived, wall, word = 0.0, 1e9, 1e9
    looked: float | None = None
    heard_by_look = awake_since = 0.0  # the look that first saw the newest word; the first look after a sleep
    told = False
    for what, amount in steps:
        if what == "pass":
            lived, wall = lived + amount, wall + amount
        elif what == "jump":
            wall += amount
        elif what == "beat":
            wall += 1e-3
            told, word = told or wall != word, wall
        else:
            lived, wall = lived + amount, wall + amount
            if looked is None or lived - looked > GAP:
                awake_since = lived
            if told or looked is None:
                heard_by_look, told = lived, False
            looked = lived
            seen = silence.look({"w1": word}, lived)["w1"]
            assert seen == lived - max(heard_by_look, awake_since)


@given(beats=st.lists(st.floats(0.1, 10.0), min_size=20, max_size=80), jumps=st.lists(JUMPS, min_size=80, max_size=80))
def test_who_beats_is_never_lost_whatever_the_wall_clock_does(beats, jumps):
    silence: Silence[str] = Silence(GAP)
    lived, wall = 0.0, 1e9
    for pause, jump in zip(beats, jumps, strict=False):
        lived, wall = lived + pause, wall + pause + jump
        assert silence.look({"w1": wall}, lived)["w1"] < LOST


@given(wall=st.floats(0, 2e9), look=st.lists(st.floats(0.1, GAP - 0.1), min_size=1, max_size=40))
def test_who_says_nothing_is_silent_since_the_first_look(wall, look):
    silence: Silence[str] = Silence(GAP)
    lived = 7.0
    silence.look({"w1": wall}, lived)
    for pause in look:
        lived += pause
        seen = silence.look({"w1": wall}, lived)["w1"]
    assert seen == lived - 7.0


def test_a_clock_that_goes_along_is_steady_since_the_last_jump():
    steadiness = Steadiness(10.0)

    assert steadiness.look(1e9, 100.0) == 0.0
    assert steadiness.look(1e9 + 3600.0, 3695.0) == 3595.0
    assert steadiness.look(1e9 + 7200.0, 3700.0) == 0.0  # an hour ahead, or suspended
    assert steadiness.look(1e9 + 7205.0, 3705.0) == 5.0
    assert steadiness.look(1e9, 3710.0) == 0.0
