"""The run's progress: weighted, honest about time, never falling, never done before it is done."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runs.rules.progress import Item, expected_ms, parts, run_progress, share, weight_of, whole_percent, with_guesses
from runs.rules.states import TASK_FINAL, TaskState

NOW = 1_800_000_000.0

anything = st.one_of(st.none(), st.floats(), st.integers(-(10**400), 10**400), st.floats(0, 1), st.floats(0, 10**5))
started = st.one_of(st.none(), st.floats(), st.floats(NOW - 10_000, NOW + 100))
ranks, keys = st.one_of(st.none(), st.integers(0, 4)), st.sampled_from("abc")
items = st.builds(
    Item, anything, anything, anything, st.sampled_from(TaskState), anything, started, st.none(), st.none(), keys
)
timed = st.builds(
    Item,
    anything,
    anything,
    anything,
    st.sampled_from(TaskState),
    anything,
    started,
    started,
    anything,
    keys,
    ranks,
    st.booleans(),
)
runs = st.lists(items, max_size=12)


def running(seconds: float, **known: float) -> Item:
    return Item(state="RUNNING", started_at=NOW - seconds, **known)


# --- examples --------------------------------------------------------------------------------------------------------


def test_it_counts_each_task_by_its_weight() -> None:
    tasks = [Item(weight=3, state="COMPLETED"), Item(weight=1, state="RUNNING", reported=0.5), Item(weight=6)]

    assert run_progress(tasks, NOW) == pytest.approx(35.0)


@given(st.integers(0, 99), st.floats(0.001, 10**6))
def test_a_page_says_the_percent_that_the_code_reported(percent: int, extent: float) -> None:
    timed_task = Item(state="RUNNING", reported=percent / 100, started_at=NOW, extent_ms=extent)

    assert whole_percent(run_progress([timed_task], NOW)) == percent
    assert whole_percent(percent / 100 * 100) == percent


@pytest.mark.parametrize(
    ("item", "weight", "ms"),
    [
        (Item(weight=5, learned_ms=2000, estimated_ms=3000), 5, 2000),
        (Item(learned_ms=2000, estimated_ms=3000), 2, 2000),
        (Item(estimated_ms=3000), 3, 3000),
        (Item(), 1, 1000),
        (Item(weight=0), 0.001, 1000),
        (Item(learned_ms=0), 0.001, 1),
        (Item(weight=float("nan"), learned_ms=-1, estimated_ms=float("inf")), 1, 1000),
        (Item(weight=1e300), 1e9, 1000),
    ],
)
def test_the_weight_is_declared_else_learned_else_estimated_else_one(item: Item, weight: float, ms: float) -> None:
    assert weight_of(item) == pytest.approx(weight)
    assert expected_ms(item) == pytest.approx(ms)


@pytest.mark.parametrize("state", sorted(TASK_FINAL))
def test_a_task_that_ended_leaves_nothing_to_wait_for(state: str) -> None:
    assert share(Item(state=state, reported=0.2), NOW) == 1.0


@pytest.mark.parametrize("state", ["PENDING", "RETRYING"])
def test_a_task_that_is_not_at_work_has_done_nothing_yet(state: str) -> None:
    assert share(Item(state=state, started_at=NOW - 100, reported=0.7), NOW) == 0.0


def test_what_a_task_reports_wins_over_the_time_that_passed() -> None:
    assert share(running(100, estimated_ms=1000, reported=0.25), NOW) == 0.25
    assert share(running(100, estimated_ms=1000, reported=0.0), NOW) == 0.0
    assert share(running(0, reported=7.0), NOW) == 0.99
    assert share(running(5, estimated_ms=10_000, reported=float("nan")), NOW) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("seconds", "low", "high"),
    [(0, 0, 0), (5, 0.5, 0.5), (9, 0.9, 0.9), (10, 0.92, 0.97), (20, 0.97, 0.985), (3600, 0.985, 0.99), (-50, 0, 0)],
)
def test_time_that_passed_counts_in_full_and_then_slows_before_the_end(seconds: float, low: float, high: float) -> None:
    done = share(running(seconds, learned_ms=10_000), NOW)

    assert low - 1e-9 <= done <= high + 1e-9
    assert done < 0.99


def test_only_a_completed_run_is_at_100() -> None:
    assert run_progress([Item(state="COMPLETED")], NOW) == 99.0
    assert run_progress([Item(state="COMPLETED")], NOW, completed=True) == 100.0
    assert run_progress([], NOW, completed=True) == 100.0


def test_a_run_without_tasks_stays_where_it_was() -> None:
    assert run_progress([], NOW) == 0.0
    assert run_progress([], NOW, floor=12.5) == 12.5


def test_an_unexpected_task_does_not_take_back_what_was_shown() -> None:
    before = run_progress([Item(state="COMPLETED"), Item()], NOW)

    after = run_progress([Item(state="COMPLETED"), Item(), Item(weight=100)], NOW, floor=before)

    assert before == after == 50.0


def test_ten_thousand_tasks_take_milliseconds() -> None:
    tasks = [replace(running(number % 60, learned_ms=30_000.0 + number), weight=None) for number in range(10_000)]
    took = []

    for _ in range(5):
        began = time.process_time()
        run_progress(tasks, NOW)
        took.append(time.process_time() - began)

    assert min(took) < 0.3  # about 30 ms; the margin is for a busy machine


# --- whatever the input ----------------------------------------------------------------------------------------------


@given(st.lists(timed, max_size=12), anything.filter(lambda value: value is not None))
def test_it_is_a_percentage_below_100_whatever_the_numbers_are(tasks: list[Item], floor: float) -> None:
    assert 0.0 <= run_progress(tasks, NOW, floor) <= 99.0
    assert all(0.0 <= share(task, NOW) <= 1.0 for task in tasks)
    assert all(0.001 <= weight_of(task) <= 1e9 for task in tasks)


@given(st.lists(timed, max_size=12), st.floats(0, 99))
def test_it_is_never_below_what_was_shown(tasks: list[Item], floor: float) -> None:
    assert run_progress(tasks, NOW, floor) >= floor


@given(runs, items, st.floats(0, 1), st.floats(0, 1))
def test_reporting_more_never_shows_less(tasks: list[Item], task: Item, one: float, other: float) -> None:
    task = replace(task, state="RUNNING")
    less, more = sorted((one, other))

    assert run_progress([*tasks, replace(task, reported=less)], NOW) <= run_progress(
        [*tasks, replace(task, reported=more)], NOW
    )


@given(runs, items, st.sampled_from(sorted(TASK_FINAL)))
def test_ending_a_task_never_shows_less(tasks: list[Item], task: Item, state: str) -> None:
    assert run_progress([*tasks, replace(task, state=state)], NOW) >= run_progress([*tasks, task], NOW)


@given(st.lists(timed, max_size=12), st.floats(0, 10_000), st.floats(0, 10_000))
def test_time_alone_never_takes_anything_back(tasks: list[Item], one: float, other: float) -> None:
    earlier, later = sorted((NOW + one, NOW + other))
    tasks = with_guesses(tasks)

    assert run_progress(tasks, earlier) <= run_progress(tasks, later) + 1e-6  # sums of very different sizes are rounded


@given(st.lists(timed, max_size=12).flatmap(lambda tasks: st.tuples(st.just(tasks), st.permutations(tasks))))
def test_the_order_in_which_equal_news_come_makes_no_difference(told: tuple[list[Item], list[Item]]) -> None:
    one, other = (run_progress(with_guesses(tasks), NOW) for tasks in told)

    assert one == pytest.approx(other)


@given(st.lists(timed, max_size=12))
def test_the_parts_of_the_bar_add_up_to_the_number(tasks: list[Item]) -> None:
    found = parts(tasks, NOW)
    whole = sum(part.whole for part in found)

    assert all(part.done >= 0 and part.left >= 0 for part in found)
    assert not whole or run_progress(tasks, NOW) == pytest.approx(
        min(100 * sum(part.done for part in found) / whole, 99)
    )


@given(runs, runs)
def test_tasks_that_come_unexpectedly_never_lower_the_shown_value(tasks: list[Item], more: list[Item]) -> None:
    shown = run_progress(tasks, NOW)

    assert run_progress([*tasks, *more], NOW, floor=shown) >= shown


@settings(max_examples=50)
@given(st.lists(st.floats(10, 10**6), min_size=1, max_size=20), st.floats(0, 1))
def test_with_history_the_share_is_the_share_of_time_that_passed(durations: list[float], moment: float) -> None:
    """Tasks one after the other, each as long as the last time: the bar and the clock agree to a few points."""
    total = sum(durations)
    passed = total * moment
    tasks, start = [], 0.0
    for ms in durations:
        state = "COMPLETED" if passed >= start + ms else "RUNNING" if passed >= start else "PENDING"
        tasks.append(Item(learned_ms=ms, state=state, started_at=NOW + start / 1000))
        start += ms

    assert run_progress(tasks, NOW + passed / 1000) == pytest.approx(min(100 * moment, 99), abs=5.0)
