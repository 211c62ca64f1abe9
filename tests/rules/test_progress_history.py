"""What past runs teach, and what a new run is expected to call."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs.rules.learning import (
    Calls,
    Expectation,
    Planned,
    PlannedCall,
    extents,
    learn,
    order_in_code,
    order_seen,
    plan,
)

keys = st.sampled_from("abcdef")
calls = st.builds(Calls, st.integers(0, 50), st.one_of(st.none(), st.floats()), st.floats(), st.floats())
histories = st.lists(st.dictionaries(keys, calls), max_size=6)


def took(ms: float, count: int = 1, began: float = 0.0) -> Calls:
    """Calls of ``ms`` each, one after the other."""
    return Calls(count, ms * count, began, began + ms * count)


# --- how often -------------------------------------------------------------------------------------------------------


def test_a_task_is_expected_as_often_as_in_the_middle_of_its_past() -> None:
    history = [{"row": took(1, 3)}, {"row": took(1, 9)}, {"row": took(1, 4)}, {"row": took(1, 4)}]

    assert learn(history)["row"].calls == 4


@pytest.mark.parametrize(
    ("counts", "calls"),
    [([1, 0], 1), ([0, 1], 1), ([1, 0, 0], 1), ([0, 0, 1], 0), ([0, 1, 0, 1, 0], 1), ([0, 0, 5], 0), ([4, 4, 9], 4)],
)
def test_a_branch_is_expected_if_it_was_taken_about_half_of_the_time(counts: list[int], calls: int) -> None:
    history = [{"a": took(5, count)} if count else {} for count in counts]

    assert learn(history)["a"].calls == calls


def test_of_two_unequal_counts_the_newer_run_decides() -> None:
    assert learn([{"a": took(1, 3)}, {"a": took(1, 9)}])["a"].calls == 3


# --- how long --------------------------------------------------------------------------------------------------------


def test_newer_runs_count_more() -> None:
    assert learn([{"a": took(100)}, {"a": took(900)}])["a"].ms == 100.0
    assert learn([{"a": took(900)}, {"a": took(900)}, *[{"a": took(100)}] * 3])["a"].ms == 900.0


def test_one_slow_run_does_not_spoil_the_estimate() -> None:
    assert learn([{"a": took(60_000)}, *[{"a": took(1000)}] * 4])["a"].ms == 1000.0


def test_a_run_with_many_calls_has_no_louder_voice() -> None:
    assert learn([{"a": took(100)}, {"a": took(900, 50)}])["a"].ms == 100.0


@pytest.mark.parametrize("spent", [None, math.nan, -1.0, math.inf])
def test_a_duration_that_is_no_number_teaches_only_that_the_task_was_called(spent: float | None) -> None:
    learned = learn([{"a": Calls(3, spent)}])["a"]

    assert (learned.calls, learned.ms) == (3, None)


# --- how much of the run's time --------------------------------------------------------------------------------------


def test_tasks_one_after_the_other_take_up_what_they_last() -> None:
    assert extents({"a": took(100), "b": took(300, began=100)}) == pytest.approx({"a": 100, "b": 300})


def test_calls_in_turn_take_up_what_they_last() -> None:
    """Ten times a for 20 ms and b for 30 ms."""
    run = {"a": Calls(10, 200, 0, 470), "b": Calls(10, 300, 20, 500)}

    assert extents(run) == pytest.approx({"a": 20, "b": 30}, rel=0.1)


def test_equal_calls_at_once_share_the_time() -> None:
    assert extents({"a": Calls(8, 800, 0, 200)}) == pytest.approx({"a": 25})


def test_of_tasks_at_once_the_one_that_the_run_waits_for_takes_up_most() -> None:
    found = extents({"long": took(1000), "short": took(100)})

    assert sum(found.values()) == pytest.approx(1000)
    assert found["long"] > 9 * found["short"]


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(1, 1000)), min_size=1, max_size=6))
def test_tasks_together_take_up_no_more_than_the_time_in_which_any_ran(windows: list[tuple[float, float]]) -> None:
    run = {str(n): took(length, began=began) for n, (began, length) in enumerate(windows)}
    ends = max(began + length for began, length in windows)

    assert sum(extents(run).values()) <= ends - min(began for began, _ in windows) + 1e-6


# --- in which order --------------------------------------------------------------------------------------------------


def test_a_task_ranks_above_those_that_were_always_over_before_it_began() -> None:
    history = [{"a": took(10), "b": took(5, began=10), "c": took(5, began=15)}, {"a": took(9), "c": took(5, began=9)}]

    assert order_seen(history) == {"a": 0, "b": 1, "c": 2}


def test_tasks_in_turn_or_at_once_share_a_rank() -> None:
    history = [{"a": Calls(9, 90, 5, 180), "b": Calls(9, 90, 15, 190), "first": took(5), "last": took(5, began=190)}]

    assert order_seen(history) == {"first": 0, "a": 1, "b": 1, "last": 2}


def test_a_task_that_comes_first_and_last_shares_its_rank_with_all_between() -> None:
    assert set(order_seen([{"ends": Calls(2, 10, 0, 100), "middle": took(80, began=10)}]).values()) == {0}


def test_in_code_each_task_ranks_above_the_one_before_and_a_loop_has_one_rank() -> None:
    code = [Planned("a"), Planned("b", in_loop=True), Planned("c", in_loop=True), Planned("d")]

    assert order_in_code(code) == {"a": 0, "b": 1, "c": 1, "d": 2}


# --- the plan --------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(("weight", "runs", "extent"), [(None, 1, 4.0), (2.0, 2, None), (2.0, 3, 4.0)])
def test_a_declared_weight_stands_until_three_runs_have_outvoted_it(
    weight: float | None, runs: int, extent: float | None
) -> None:
    (call,) = plan([Planned("a", weight)], {"a": Expectation(1, 5.0, 4.0)}, runs)

    assert (call.weight, call.learned_ms, call.extent_ms) == (weight, 5.0, extent)


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
def test_a_plan_numbers_the_calls_of_each_task_from_zero(history: list[dict[str, Calls]], code: list[Planned]) -> None:
    learned = learn(history)
    expected = plan(code, learned, len(history))

    for key in {call.key for call in expected}:
        indexes = [call.index for call in expected if call.key == key]
        assert indexes == list(range(len(indexes)))
    numbers = [number for each in learned.values() for number in (each.ms, each.extent_ms)]
    assert all(number is None or 0 <= number < math.inf for number in numbers)


@given(histories)
def test_every_task_of_the_past_has_a_rank(history: list[dict[str, Calls]]) -> None:
    assert order_seen(history).keys() == {key for run in history for key in run}
