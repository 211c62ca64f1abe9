"""``progress()`` and ``progress.track()``: shares of a task, not too many, and the last one always."""

from __future__ import annotations

import threading
import time
from decimal import Decimal
from fractions import Fraction
from typing import Any, Callable, List

import pytest
from perfect_client import flow, progress, task
from perfect_client.core import runs

from tests.sdk.story import Story

Execute = Callable[..., Story]


def shares(told: Story) -> List[float]:
    return [fact.share for fact in told.progress]


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_share_is_told_with_its_text(execute: Execute) -> None:
    @task
    def half() -> None:
        progress(0.5, "half done")

    told = execute(flow(name="x")(lambda: half()))

    assert [(fact.task, fact.share, fact.text) for fact in told.progress] == [(1, 0.5, "half done")]


@pytest.mark.parametrize("share", [-0.1, 1.1, 40, float("nan"), float("inf"), "half", None, [0.5]])
def test_what_is_no_share_is_a_value_error(share: Any) -> None:
    with pytest.raises(ValueError, match="takes a share between 0 and 1, not "):
        progress(share)


def test_a_percentage_gets_advice() -> None:
    with pytest.raises(ValueError, match=r"not 40\.0: did you mean 0\.4\?"):
        progress(40)


@pytest.mark.parametrize("share", [0, 1, True, 0.5, Decimal("0.5"), Fraction(1, 3), "0.5", 1.0000000000000002, -1e-17])
def test_what_is_a_share_is_accepted(share: Any) -> None:
    progress(share)


def test_outside_a_task_nothing_is_told(execute: Execute) -> None:
    @flow
    def in_the_body() -> None:
        progress(0.5)

    assert execute(in_the_body).progress == []


def test_it_belongs_to_the_innermost_task(execute: Execute) -> None:
    @task
    def inner() -> None:
        progress(0.3)

    @task
    def outer() -> None:
        progress(0.1)
        inner()

    @flow
    def nested() -> None:
        outer()

    assert [(fact.task, fact.share) for fact in execute(nested).progress] == [(1, 0.1), (2, 0.3)]


def test_at_most_twenty_a_second_are_told(execute: Execute) -> None:
    @task
    def eager() -> float:
        begun = time.monotonic()
        for number in range(50_000):
            progress(number / 50_000)
        return time.monotonic() - begun

    told = execute(flow(name="x")(lambda: eager()))

    # Besides: the first, the last, and one that was due when a busy machine let nobody tell it.
    assert len(told.progress) <= 3 + 20 * float(told.ended.result)


def test_the_last_value_always_gets_through(execute: Execute) -> None:
    told_so_far: List[Any] = []
    real = runs.Run.progressed

    @task
    def quick_then_quiet() -> None:
        for share in (0.1, 0.5, 0.9):
            progress(share)
        wait_until(lambda: len(told_so_far) == 2)

    def spy(run: Any, *args: Any) -> None:
        told_so_far.append(args)
        real(run, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs.Run, "progressed", spy)
        told = execute(flow(name="x")(lambda: quick_then_quiet()))

    assert shares(told) == [0.1, 0.9]


def test_the_last_share_is_told_before_the_end_of_its_task_and_nothing_after_it(execute: Execute) -> None:
    @task
    def quick() -> None:
        for share in (0.1, 0.2, 0.3):
            progress(share)

    @flow
    def waits() -> None:
        quick()
        wait_until(lambda: not any(isinstance(t, threading.Timer) for t in threading.enumerate()))

    told = execute(waits)

    assert shares(told) == [0.1, 0.3]
    assert told.facts.index(told.progress[-1]) < told.facts.index(told.task_ends[0])


def test_track_gives_the_items_and_reports_after_each(execute: Execute) -> None:
    got: List[int] = []

    @task
    def tracks() -> None:
        for item in progress.track([1, 2], description="file"):
            got.append(item)
            time.sleep(runs.PROGRESS_INTERVAL_S)

    told = execute(flow(name="x")(lambda: tracks()))

    assert got == [1, 2]
    assert [(fact.share, fact.text) for fact in told.progress] == [(0.5, "file 1/2"), (1.0, "file 2/2")]


def test_track_needs_a_total_where_there_is_no_length(execute: Execute) -> None:
    @task
    def tracks() -> None:
        list(progress.track(iter(x for x in "ab")))
        list(progress.track((x for x in "ab"), total=2))

    assert shares(execute(flow(name="x")(lambda: tracks())))[0] == 0.5


def test_more_items_than_the_total_stay_at_one(execute: Execute) -> None:
    @task
    def tracks() -> None:
        list(progress.track("abcd", total=2))
        time.sleep(2 * runs.PROGRESS_INTERVAL_S)

    assert max(shares(execute(flow(name="x")(lambda: tracks())))) == 1.0


@pytest.mark.parametrize("total", [-1, 1.5, "2", True])
def test_a_total_is_a_whole_number(total: Any) -> None:
    with pytest.raises(ValueError, match="total that is a whole number"):
        progress.track([1], total=total)


def test_track_works_outside_a_run() -> None:
    assert list(progress.track(range(3))) == [0, 1, 2]
    assert list(progress.track([])) == []
