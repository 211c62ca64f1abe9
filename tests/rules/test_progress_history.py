"""What past runs teach, and what a new run is expected to call."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs.progress import Expectation, Planned, PlannedCall, learn, plan

keys = st.sampled_from("abcdef")
histories = st.lists(st.dictionaries(keys, st.lists(st.floats(), max_size=5)), max_size=6)


def test_calls_are_the_median_and_a_run_without_the_task_counts_none() -> None:
    history = [{"load": [10.0], "row": [1.0] * 3}, {"load": [10.0], "row": [1.0] * 9}, {"load": [10.0]}]

    learned = learn(history)

    assert learned == {"load": Expectation(1, 10.0), "row": Expectation(3, 1.0)}


@pytest.mark.parametrize(("counts", "calls"), [([1, 0], 1), ([1, 0, 0], 0), ([3, 4], 4), ([0, 0, 5], 0)])
def test_half_a_call_is_rounded_up(counts: list[int], calls: int) -> None:
    assert learn([{"a": [5.0] * count} for count in counts])["a"].calls == calls


def test_newer_runs_count_more() -> None:
    assert learn([{"a": [100.0]}, {"a": [900.0]}])["a"].ms == 100.0
    assert learn([{"a": [900.0]}, {"a": [900.0]}, *[{"a": [100.0]}] * 3])["a"].ms == 900.0


def test_one_slow_run_does_not_spoil_the_estimate() -> None:
    assert learn([{"a": [60_000.0]}, *[{"a": [1000.0]}] * 4])["a"].ms == 1000.0


def test_a_run_with_many_calls_has_no_louder_voice() -> None:
    assert learn([{"a": [100.0]}, {"a": [900.0] * 50}])["a"].ms == 100.0


def test_of_two_unequal_calls_neither_speaks_for_both() -> None:
    assert learn([{"a": [100.0, 900.0]}])["a"] == Expectation(2, 500.0)


def test_a_duration_that_is_no_number_is_left_out() -> None:
    assert learn([{"a": [math.nan, -1.0, math.inf]}])["a"] == Expectation(3, None)
    assert learn([{"a": [math.nan, 5.0]}])["a"] == Expectation(2, 5.0)


def test_without_history_each_place_in_the_code_is_one_call() -> None:
    code = [Planned("load"), Planned("row", weight=2.0, in_loop=True), Planned("load")]

    assert plan(code, {}) == [
        PlannedCall("load", 0),
        PlannedCall("load", 1),
        PlannedCall("row", 0, weight=2.0, in_loop=True),
    ]


def test_with_history_a_task_is_expected_as_often_as_it_came() -> None:
    code = [Planned("load", estimated_ms=50.0), Planned("load"), Planned("rarely")]
    learned = {"load": Expectation(3, 20.0), "rarely": Expectation(0, 5.0), "dynamic": Expectation(1, None)}

    expected = plan(code, learned)

    assert [(call.key, call.index, call.learned_ms) for call in expected] == [
        ("load", 0, 20.0),
        ("load", 1, 20.0),
        ("load", 2, 20.0),
        ("dynamic", 0, None),
    ]
    assert expected[0].estimated_ms == 50.0


def test_a_branch_that_history_never_took_is_not_expected() -> None:
    assert plan([Planned("load"), Planned("repair")], {"load": Expectation(1, 5.0)}) == [
        PlannedCall("load", 0, learned_ms=5.0)
    ]


def test_a_rewritten_flow_leaves_its_history_aside() -> None:
    assert plan([Planned("new")], {"old": Expectation(7, 5.0)}) == [PlannedCall("new", 0)]


def test_a_flow_whose_code_tells_nothing_is_expected_to_do_what_it_did() -> None:
    assert plan([], {"row": Expectation(2, 5.0)}) == [
        PlannedCall("row", 0, learned_ms=5.0),
        PlannedCall("row", 1, learned_ms=5.0),
    ]


def test_a_plan_has_an_upper_limit() -> None:
    assert len(plan([Planned("row")], {"row": Expectation(10**9, 1.0)})) == 10_000


@given(histories, st.lists(st.builds(Planned, keys), max_size=6))
def test_a_plan_numbers_the_calls_of_each_task_from_zero(
    history: list[dict[str, list[float]]], code: list[Planned]
) -> None:
    learned = learn(history)
    expected = plan(code, learned)

    for key in {call.key for call in expected}:
        indexes = [call.index for call in expected if call.key == key]
        assert indexes == list(range(len(indexes)))
    assert all(expectation.ms is None or 0 <= expectation.ms < math.inf for expectation in learned.values())
