"""Retries: how often, after how long, and what is told of it."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, Callable, List

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfect_client import flow, task
from perfect_client.core import runtime
from perfect_client.engine.retries import Retries, delays_of
from perfect_client.errors import ConfigurationError
from perfect_client.storage.cache_policies import INPUTS
from perfect_client.tasks import exponential_backoff
from perfect_client.wire.messages import TaskRestarted, TaskRetrying

from tests.sdk.story import Story

Execute = Callable[..., Story]


def shaky(failures: int, **options: Any) -> Any:
    """A task that fails so often, and the list of its calls."""
    calls: List[int] = []

    @task(name="shaky", **options)
    def shakes() -> str:
        calls.append(runtime.task_run.run_count)
        if len(calls) <= failures:
            raise ValueError("not yet")
        return "done"

    return shakes, calls


def test_a_failed_task_is_tried_again(execute: Execute) -> None:
    shakes, calls = shaky(2, retries=2)

    told = execute(flow(name="f")(lambda: shakes()))

    assert (told.ended.result, calls) == ("'done'", [1, 2, 3])
    assert [(f.tries, f.error) for f in told.of(TaskRetrying)] == [
        (1, "ValueError: not yet"),
        (2, "ValueError: not yet"),
    ]
    assert [f.tries for f in told.of(TaskRestarted)] == [2, 3]
    assert [end.outcome for end in told.task_ends] == ["COMPLETED"]
    assert told.lines[0] == "Task 'shaky' failed (ValueError: not yet); retry 1 of 2 now"


def test_the_last_failure_counts(execute: Execute) -> None:
    shakes, calls = shaky(5, retries=1)

    told = execute(flow(name="f")(lambda: shakes()))

    assert (told.outcome, len(calls), [end.outcome for end in told.task_ends]) == ("FAILED", 2, ["FAILED"])


def test_it_is_the_same_without_a_run_and_in_a_direct_call() -> None:
    for call in (lambda task: task(), lambda task: flow(name="f")(lambda: task())()):
        shakes, calls = shaky(2, retries=2)
        assert (call(shakes), len(calls)) == ("done", 3)


def test_the_delay_passes_between_two_attempts() -> None:
    shakes, _ = shaky(2, retries=2, retry_delay_seconds=[0.02, 0.03])
    began = time.monotonic()

    shakes()

    assert time.monotonic() - began >= 0.05


def test_a_condition_can_refuse_and_may_be_a_coroutine() -> None:
    seen: List[Any] = []

    def never(task: Any, task_run: Any, state: Any) -> bool:
        seen.append((task.name, task_run.run_count, state.name))
        return False

    async def once(task: Any, task_run: Any, state: Any) -> bool:
        return bool(task_run.run_count < 2)

    def broken(*_: Any) -> bool:
        raise RuntimeError("broken")

    for condition, count in ((never, 1), (once, 2), (broken, 1)):
        shakes, calls = shaky(5, retries=4, retry_condition_fn=condition)
        with pytest.raises(ValueError, match="not yet"):
            shakes()
        assert len(calls) == count
    assert seen == [("shaky", 1, "Failed")]


def test_a_failed_flow_runs_its_body_again(execute: Execute) -> None:
    counts: List[int] = []

    @task
    def step() -> None: ...

    @flow(retries=2, retry_delay_seconds=0.001)
    def shakes() -> str:
        counts.append(runtime.flow_run.run_count)
        step.submit()
        if len(counts) % 3:
            raise ValueError("not yet")
        return "done"

    assert shakes() == "done"
    told = execute(shakes)
    assert (told.ended.result, counts) == ("'done'", [1, 2, 3, 1, 2, 3])
    assert [s.call for s in told.started] == [0, 1, 2]


def test_a_stop_is_no_failure_and_is_not_tried_again(execute: Execute) -> None:
    from perfect_client import Cancelled

    calls: List[int] = []

    @task(retries=3)
    def stopped() -> None:
        calls.append(1)
        raise Cancelled("the run was stopped")

    told = execute(flow(name="f")(lambda: stopped()))

    assert (told.outcome, len(calls)) == ("CANCELLED", 1)
    assert [end.outcome for end in told.task_ends] == ["CANCELLED"]


# ------------------------------------------------------------------------------------------------------------- rules


@given(st.integers(0, 8), st.lists(st.floats(0, 100), max_size=5), st.floats(0, 2))
def test_there_are_as_many_delays_as_retries_and_each_is_within_its_jitter(
    count: int, delays: List[float], jitter: float
) -> None:
    rule = Retries(count, delays, jitter, None)

    found = [rule.delay(attempt) for attempt in range(1, count + 2)]

    assert found[-1] is None
    for number, delay in enumerate(found[:-1]):
        base = delays[min(number, len(delays) - 1)] if delays else 0.0
        assert delay is not None and base <= delay <= base * (1 + jitter) + 1e-9


def test_backing_off_doubles() -> None:
    assert delays_of(4, exponential_backoff(10)) == [10, 20, 40, 80]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"retries": -1}, "retries must be a whole number, 0 or more, not -1"),
        ({"retries": "3"}, "retries must be a whole number"),
        ({"retries": 1, "retry_delay_seconds": -1}, "retry_delay_seconds must be seconds, 0 or more"),
        ({"retries": 1, "retry_delay_seconds": [1] * 51}, "retry_delay_seconds may list 50 delays, not 51"),
        ({"retry_jitter_factor": -1}, "retry_jitter_factor must be a number, 0 or more, not -1"),
        ({"retry_condition_fn": 5}, "retry_condition_fn must be a function, not 5"),
        ({"timeout_seconds": 0}, "timeout_seconds must be a finite number of seconds above 0, not 0"),
        ({"crucial": "no"}, "crucial must be True or False, not 'no'"),
        ({"on_failure": print}, "Expected iterable for 'on_failure'; got builtin_function_or_method instead."),
        ({"on_failure": [5]}, "Expected callables in 'on_failure'; got int instead."),
        ({"task_run_name": 5}, "task_run_name must be a string or a function that makes one, not 5"),
    ],
)
def test_nonsense_is_refused_where_it_is_written(options: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        task(**options)(lambda: None)

    assert sentence in str(caught.value)
    assert "test_retries.py:" in str(caught.value)


def test_every_option_of_prefect_is_accepted_and_kept() -> None:
    given_options: Any = {
        "version": "1",
        "log_prints": True,
        "persist_result": True,
        "result_storage": "x",
        "result_serializer": "json",
        "cache_result_in_memory": False,
        "cache_policy": INPUTS,
        "cache_key_fn": print,
        "cache_expiration": timedelta(5),
        "refresh_cache": True,
        "result_storage_key": "k",
        "viz_return_value": 5,
    }
    made = task(**given_options)(lambda: None)
    assert {name: getattr(made, name) for name in given_options} == given_options
    shared: Any = {name: given_options[name] for name in list(given_options)[:6]}
    assert flow(**shared, validate_parameters=False)(lambda: None).validate_parameters is False
