"""``submit``, ``map`` and futures: tasks that run at the same time."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, List

import pytest
from perfect_client import flow, task, unmapped
from perfect_client.core import runtime
from perfect_client.engine.futures import (
    PrefectFuture,
    PrefectFutureList,
    as_completed,
    resolve_futures_to_results,
    resolve_futures_to_states,
    wait,
)
from perfect_client.engine.task_runners import ThreadPoolTaskRunner
from perfect_client.errors import ConfigurationError, MappingLengthMismatch, MappingMissingIterable

from tests.sdk.story import Story

Execute = Callable[..., Story]


@task
def add(a: int, b: int = 0) -> int:
    return a + b


@task
def failing() -> None:
    raise ValueError("no good")


def inside(function: Callable[[], Any], **options: Any) -> Any:
    """What the function returns as the body of a flow."""
    box: List[Any] = []
    flow(name="inside", **options)(lambda: box.append(function()))()
    return box[0]


def test_tasks_that_are_submitted_run_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=10)

    @task
    def meets() -> int:
        return meeting.wait()

    assert sorted(inside(lambda: [f.result() for f in [meets.submit() for _ in range(3)]])) == [0, 1, 2]


def test_a_future_tells_its_state_and_result() -> None:
    go_on = threading.Event()

    @task
    def waits() -> int:
        go_on.wait(10)
        return 7

    def body() -> Any:
        future = waits.submit()
        called: List[Any] = []
        future.add_done_callback(called.append)
        before = future.state.name
        with pytest.raises(TimeoutError):
            future.result(timeout=0.01)
        go_on.set()
        assert future.result() == 7
        future.add_done_callback(called.append)
        bad = failing.submit()
        assert isinstance(bad.result(raise_on_failure=False), ValueError)
        with pytest.raises(ValueError, match="no good"):
            bad.result()
        assert future.task_run_id.endswith(":1:1")
        return before, future.state.name, called == [future, future]

    before, after, called = inside(body)

    assert before in ("Pending", "Running")
    assert (after, called) == ("Completed", True)


def test_a_flow_ends_when_all_that_it_submitted_has_ended(execute: Execute) -> None:
    ended: List[int] = []

    @task
    def slow(number: int) -> None:
        time.sleep(0.02)
        ended.append(number)

    @flow
    def leaves() -> None:
        slow.map(range(3))

    told = execute(leaves)

    assert sorted(ended) == [0, 1, 2]
    assert [end.outcome for end in told.task_ends] == ["COMPLETED"] * 3


def test_wait_as_completed_and_resolving() -> None:
    def body() -> Any:
        futures = add.map([1, 2, 3])
        done, not_done = wait(futures)
        ended = {future.result() for future in as_completed(futures)}
        nested = {"a": [futures[0]], "b": futures[1]}
        states = resolve_futures_to_states(nested)
        return len(done), len(not_done), ended, resolve_futures_to_results(nested), states["b"].result()

    assert inside(body) == (3, 0, {1, 2, 3}, {"a": [1], "b": 2}, 2)


def test_as_completed_gives_what_ends_first_first() -> None:
    go_on = threading.Event()

    @task
    def late() -> str:
        go_on.wait(10)
        return "late"

    def body() -> Any:
        futures: List[PrefectFuture[Any]] = [late.submit(), add.submit(1)]
        found = []
        for future in as_completed(futures, timeout=10):
            found.append(future.result())
            go_on.set()
        return found

    assert inside(body) == [1, "late"]


def test_a_chain_of_futures_needs_no_thread_that_waits() -> None:
    def body() -> Any:
        future: Any = add.submit(0)
        for _ in range(300):
            future = add.submit(future, 1)
        return future.result()

    assert inside(body, task_runner=ThreadPoolTaskRunner(max_workers=1)) == 300


def test_tasks_that_wait_for_their_own_tasks_do_not_block_the_pool() -> None:
    @task
    def deep(level: int) -> int:
        return 1 + deep.submit(level - 1).result() if level else 0

    assert inside(lambda: deep.submit(10).result(), task_runner=ThreadPoolTaskRunner(max_workers=1)) == 10


def test_no_more_than_max_workers_run_at_a_time() -> None:
    lock, running, most = threading.Lock(), [0], [0]

    @task
    def counted(_: int) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.005)
        with lock:
            running[0] -= 1

    inside(lambda: counted.map(range(12)).wait(), task_runner=ThreadPoolTaskRunner(max_workers=2))

    assert most[0] <= 2


def test_the_context_goes_along(execute: Execute) -> None:
    @task
    def knows() -> Any:
        return runtime.flow_run.id, runtime.flow_run.flow_name

    @task
    def around() -> Any:
        return knows.submit().result()

    @flow(name="Known")
    def parent() -> Any:
        return [around.submit().result() == (runtime.flow_run.id, "Known")]

    told = execute(parent)

    assert told.ended.result == "[True]"
    assert [(s.name, s.parent) for s in told.started] == [("around", None), ("knows", 1)]


# --------------------------------------------------------------------------------------------------------------- map


def test_map_goes_through_its_iterables_side_by_side() -> None:
    def body() -> Any:
        futures = add.map([1, 2, 3], b=unmapped(10))
        return [
            futures.result(),
            add.map(iter([1, 2]), [10, 20]).result(),
            add.map(add.submit([1], [2])).result(),
            add.map(futures, 1).result(),
            type(futures) is PrefectFutureList,
        ]

    assert inside(body) == [[11, 12, 13], [11, 22], [1, 2], [12, 13, 14], True]


def test_map_gives_a_text_to_each_call_as_it_is() -> None:
    @task
    def join(text: str, number: int) -> str:
        return text + str(number)

    assert inside(lambda: join.map("ab", [1, 2]).result()) == ["ab1", "ab2"]


def test_map_can_return_states() -> None:
    assert [state.result() for state in inside(lambda: add.map([1, 2], return_state=True))] == [1, 2]


def test_nothing_to_map_over_is_an_error_that_says_where() -> None:
    with pytest.raises(MappingMissingIterable, match="No iterable parameters.*add, .*test_futures.py"):
        add.map(1, 2)
    with pytest.raises(MappingLengthMismatch, match="different lengths.*argument 1: 2, b: 3"):
        add.map([1, 2], b=[1, 2, 3])


def test_a_runner_takes_a_sensible_number() -> None:
    for wrong in (0, -1, "2", True):
        with pytest.raises(ConfigurationError, match="max_workers as a whole number above 0"):
            ThreadPoolTaskRunner(max_workers=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="task_runner must be a task runner"):
        flow(task_runner=5)(lambda: None)


def test_outside_of_a_flow_tasks_can_be_submitted_as_well() -> None:
    assert add.submit(1, 2).result() == 3


def test_a_callback_that_raises_harms_nothing(caplog: Any) -> None:
    def body() -> Any:
        future = add.submit(1)
        future.add_done_callback(lambda _: 1 / 0)
        return future.result()

    assert inside(body) == 1


def test_a_flow_also_waits_for_what_its_tasks_submit() -> None:
    ended: List[int] = []

    @task
    def last() -> None:
        time.sleep(0.02)
        ended.append(2)

    @task
    def first() -> None:
        ended.append(1)
        last.submit()

    flow(name="f")(lambda: first.submit() and None)()

    assert ended == [1, 2]


def test_an_async_task_that_would_wait_for_itself_is_told_so() -> None:
    @task
    async def other() -> int:
        return 1

    @task
    async def waits() -> int:
        return other.submit().result()  # type: ignore[return-value]

    with pytest.raises(RuntimeError, match="await future.result_async()"):
        inside(lambda: waits.submit().result())


def test_a_failed_flow_does_not_begin_what_it_had_submitted() -> None:
    begun, go_on, called = threading.Event(), threading.Event(), []

    @task
    def first() -> None:
        begun.set()
        go_on.wait(10)

    @task
    def second(_: Any) -> None:
        called.append(1)

    def body() -> None:
        second.submit(first.submit())
        begun.wait(10)
        threading.Timer(0.02, go_on.set).start()
        raise ValueError("no good")

    with pytest.raises(ValueError, match="no good"):
        flow(name="f")(body)()

    assert called == []


def test_a_deferred_map_is_refused_with_what_to_do() -> None:
    @task
    def one(number: int) -> int:
        return number

    with pytest.raises(ConfigurationError, match=r"map\(deferred=True\).*leave it out.*test_futures"):
        one.map([1], deferred=True)
    assert one.map([1], deferred=False).result() == [1]


@pytest.mark.parametrize("timeout", [0, 0.0, -1, -0.5])
def test_a_timeout_that_is_over_does_not_wait(timeout: float) -> None:
    goes_on = threading.Event()

    @task
    def waits() -> None:
        goes_on.wait(60)

    @flow
    def whole() -> None:
        future = waits.submit()
        try:
            future.wait(timeout)
            assert wait([future], timeout).not_done == {future}
            with pytest.raises(TimeoutError):
                future.result(timeout)
            with pytest.raises(TimeoutError, match=r"1 \(of 1\) futures unfinished"):
                list(as_completed([future], timeout))
        finally:
            goes_on.set()

    whole()
