"""The time left: nothing said when nothing is known, a range when history allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs.rules.learning import spread_of
from runs.rules.progress import Item, remaining
from runs.rules.states import TaskState

NOW = 1_800_000_000.0

anything = st.one_of(st.none(), st.floats(), st.floats(0, 1), st.floats(0, 10**5))
started = st.one_of(st.none(), st.floats())
ranks, keys = st.one_of(st.none(), st.integers(0, 4)), st.sampled_from("abc")
items = st.builds(
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


def test_it_is_what_the_open_tasks_still_need() -> None:
    tasks = [
        Item(learned_ms=9000, state="COMPLETED"),
        Item(learned_ms=10_000, state="RUNNING", started_at=NOW - 4),
        Item(estimated_ms=2000),
        Item(),
    ]

    assert remaining(tasks, NOW) == pytest.approx((6 + 2 + 1,) * 2)


def test_it_says_nothing_when_nothing_is_known() -> None:
    assert remaining([Item(weight=3), Item(state="RUNNING", started_at=NOW - 1)], NOW) is None


def test_it_is_zero_when_everything_ended() -> None:
    assert remaining([], NOW) == (0.0, 0.0)
    assert remaining([Item(state="FAILED"), Item(state="CACHED")], NOW) == (0.0, 0.0)


def test_tasks_that_run_at_once_shorten_it_but_not_below_the_longest() -> None:
    at_work = [Item(learned_ms=10_000, state="RUNNING", started_at=NOW) for _ in range(2)]
    waiting = [Item(learned_ms=10_000) for _ in range(2)]

    assert remaining([*at_work, *waiting], NOW) == pytest.approx((20, 20))
    assert remaining([*at_work, *waiting, Item(learned_ms=60_000)], NOW) == pytest.approx((60, 60))
    assert remaining(waiting, NOW) == pytest.approx((20, 20))


def test_what_history_saw_run_at_once_shortens_it_before_it_starts() -> None:
    """Eight calls of 10 s, four at once."""
    assert remaining([Item(learned_ms=10_000, extent_ms=2_500) for _ in range(8)], NOW) == pytest.approx((20, 20))


def test_a_branch_that_was_passed_is_not_waited_for() -> None:
    passed = Item(learned_ms=90_000, key="repair", rank=1)
    now_at = Item(learned_ms=10_000, key="load", rank=2, state="RUNNING", started_at=NOW - 4)

    assert remaining([passed, now_at], NOW) == pytest.approx((6, 6))


def test_nothing_is_said_of_a_loop_whose_length_nobody_knows() -> None:
    loop = Item(estimated_ms=500, key="row", rank=1, in_loop=True, state="RUNNING", started_at=NOW)

    assert remaining([loop, Item(estimated_ms=1000, key="end", rank=2)], NOW) is None


def test_a_task_that_reports_is_believed_more_the_further_it_is() -> None:
    """It has needed 30 s for 60 %, so 50 s in all; history said 10 s."""
    slow = Item(learned_ms=10_000, state="RUNNING", started_at=NOW - 30, reported=0.6)

    assert remaining([slow], NOW) == pytest.approx(((50 * 0.6 + 10 * 0.4) * 0.4,) * 2)


def test_a_task_without_history_is_estimated_by_its_own_reports() -> None:
    unknown = Item(state="RUNNING", started_at=NOW - 30, reported=0.6)

    assert remaining([unknown], NOW) == pytest.approx((20, 20))


def test_past_runs_make_it_a_range() -> None:
    spread = spread_of([800, 900, 1000, 1100, 1500])

    assert spread == pytest.approx((0.84, 1.34))
    assert remaining([Item(learned_ms=10_000)], NOW, spread=spread) == pytest.approx((8.4, 13.4))
    assert spread_of([100, 200]) is None


@given(
    st.lists(items, max_size=8),
    st.one_of(st.none(), st.tuples(st.floats(), st.floats())),
)
def test_it_is_never_negative_and_its_range_contains_the_estimate(
    tasks: list[Item], spread: tuple[float, float] | None
) -> None:
    left, estimate = remaining(tasks, NOW, spread), remaining(tasks, NOW)

    assert (left is None) == (estimate is None)
    assert left is None or estimate is None or 0 <= left[0] <= estimate[0] == estimate[1] <= left[1]


@given(st.lists(st.floats(), max_size=12))
def test_a_spread_encloses_the_median(durations: list[float]) -> None:
    spread = spread_of(durations)

    assert spread is None or 0 <= spread[0] <= 1 <= spread[1]
