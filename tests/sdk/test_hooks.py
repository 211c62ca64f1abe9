"""Hooks, names made from parameters, and parts: what happens around a call."""

from __future__ import annotations

from datetime import date
from typing import Any, Callable, Dict, List, Optional

import pytest
from perfect_client import Cancelled, flow, task
from perfect_client.core import middleware, runtime
from perfect_client.core.middleware import Hit, Middleware, TaskCall

from tests.sdk.story import Story

Execute = Callable[..., Story]


def test_hooks_hear_of_each_state_of_a_task_and_a_flow(execute: Execute) -> None:
    heard: List[Any] = []

    def note(owner: Any, run: Any, state: Any) -> None:
        heard.append((owner.name, run.name, state.name))

    async def note_later(owner: Any, run: Any, state: Any) -> None:
        heard.append(("later", owner.name, state.name))

    @task(on_running=[note], on_completion=[note, note_later])
    def good() -> None: ...

    @task(on_failure=[note])
    def bad() -> None:
        raise ValueError("no good")

    @flow(name="F", flow_run_name="the run", on_running=[note], on_failure=[note], on_completion=[note])
    def parent() -> None:
        good()
        bad()

    told = execute(parent)

    assert told.outcome == "FAILED"
    assert heard == [
        ("F", "the run", "Running"),
        ("good", "good-0", "Running"),
        ("good", "good-0", "Completed"),
        ("later", "good", "Completed"),
        ("bad", "bad-0", "Failed"),
        ("F", "the run", "Failed"),
    ]


def test_a_hook_can_be_added_by_a_decorator() -> None:
    heard: List[str] = []

    @task
    def step() -> int:
        return 1

    @step.on_completion
    def hook(task: Any, task_run: Any, state: Any) -> None:
        heard.append(state.name)

    assert step() == 1
    assert heard == ["Completed"]


def test_a_hook_that_raises_is_logged_and_harms_nothing(execute: Execute) -> None:
    def breaks(*_: Any) -> None:
        raise RuntimeError("broken hook")

    @task(on_running=[breaks], on_completion=[breaks])
    def step() -> int:
        return 1

    told = execute(flow(name="f", on_completion=[breaks])(lambda: step()))

    assert (told.outcome, told.ended.result) == ("COMPLETED", "1")
    assert sum("Hook 'breaks'" in line for line in told.lines) == 3


def test_a_cancelled_flow_tells_its_hooks(execute: Execute) -> None:
    heard: List[str] = []

    def stopped() -> None:
        raise Cancelled("the run was stopped")

    def interrupted() -> None:
        raise KeyboardInterrupt

    def note(flow: Any, run: Any, state: Any) -> None:
        heard.append(state.name)

    for function in (stopped, interrupted):
        execute(flow(name="f", on_cancellation=[note], on_crashed=[note], on_failure=[note])(function))

    assert heard == ["Cancelled", "Crashed"]


# ------------------------------------------------------------------------------------------------------------- names


class Dataset:
    name = "penguins"


def test_names_are_made_from_the_parameters(execute: Execute) -> None:
    def by_all() -> str:
        return "%s of %s" % (runtime.task_run.parameters["number"], runtime.flow_run.flow_name)

    def by_parameters(parameters: Dict[str, Any]) -> str:
        return "number %(number)d" % parameters

    names: List[Any] = ["on {data.name}", "{items[number]}", "{day:%A}", by_all, by_parameters]

    def step(data: Any, items: Any, day: date, number: int = 3) -> Optional[str]:
        return runtime.task_run.name

    @flow(name="F")
    def parent() -> Any:
        made = [task(task_run_name=name)(step) for name in names]
        return [one(Dataset(), {"number": "nine"}, date(2024, 1, 1)) for one in made]

    told = execute(parent)

    expected = ["on penguins", "nine", "Monday", "3 of F", "number 3"]
    assert told.ended.result == repr(expected)
    assert [s.name for s in told.started] == expected


def test_a_name_that_cannot_be_made_fails_the_call() -> None:
    with pytest.raises(KeyError, match="nothing"):
        task(task_run_name="{nothing}")(lambda: None)()


# ------------------------------------------------------------------------------------------------------------- parts


class Remembers(Middleware):
    """Answers calls with the same arguments."""

    def __init__(self) -> None:
        self.known: Dict[Any, Any] = {}

    def before(self, call: TaskCall) -> Optional[Hit[Any]]:
        key = tuple(call.parameters.items())
        return Hit(self.known[key]) if key in self.known else None

    def after(self, call: TaskCall, value: Any) -> None:
        self.known[tuple(call.parameters.items())] = value


def test_a_part_can_answer_a_call(execute: Execute, monkeypatch: Any) -> None:
    remembers, calls = Remembers(), []
    monkeypatch.setattr(middleware, "FACTORIES", [lambda task: remembers if task.cache_policy else None])

    @task(cache_policy="mine")
    def step(number: int, other: int = 5) -> int:
        calls.append((number, other))
        return number + other

    @task
    def without() -> None: ...

    @flow
    def parent() -> Any:
        first = step.submit(1)
        return [first.result(), step(1), step(number=1, other=5), step(first)]

    told = execute(parent)

    assert told.ended.result == "[6, 6, 6, 11]"
    assert calls == [(1, 5), (6, 5)]
    assert [end.outcome for end in told.task_ends] == ["COMPLETED", "CACHED", "CACHED", "COMPLETED"]
    assert without.parts == () and without.lean and not step.lean
