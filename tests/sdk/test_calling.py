"""Ways to call flows and tasks: what comes back, and what state it leaves; the same in a worker's run and without."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Callable, Iterator, List

import pytest
from perfect_client import allow_failure, flow, quote, task
from perfect_client.core.states import Cancelled, Completed, Failed, State
from perfect_client.errors import ConfigurationError, FailedRun, UpstreamTaskError

from tests.sdk.story import Story

Execute = Callable[..., Story]


@task
def double(number: Any) -> Any:
    return number * 2


@task
def failing() -> None:
    raise ValueError("no good")


class Steps:
    factor = 3

    @task
    def times(self, number: int) -> int:
        return self.factor * number

    @task(retries=1)
    async def times_later(self, number: int) -> int:
        return self.factor * number

    @flow
    def whole(self, number: int) -> int:
        return self.times(number) + 1

    @task
    @classmethod
    def of_class(cls, number: int) -> int:
        return cls.factor + number


# ------------------------------------------------------------------------------------------------- what comes back


def test_return_state_gives_the_state_and_does_not_raise() -> None:
    @flow
    def asks() -> Any:
        bad: Any = failing(return_state=True)  # type: ignore[call-arg]
        good: Any = double(2, return_state=True)  # type: ignore[call-arg]
        assert isinstance(bad.result(raise_on_failure=False), ValueError)
        return bad.name, good.name, good.result()

    assert asks() == ("Failed", "Completed", 4)
    state: Any = flow(failing.fn)(return_state=True)  # type: ignore[call-arg]
    assert state.is_failed()
    with pytest.raises(ValueError, match="no good"):
        state.result()


def test_a_state_made_by_hand_decides_and_keeps_its_name(execute: Execute) -> None:
    @task
    def skips() -> Any:
        return Completed(name="Skipped", message="nothing to do")

    @task
    def gives_up() -> Any:
        return Failed(message="enough")

    @flow
    def asks() -> Any:
        one: Any = skips(return_state=True)
        two: Any = gives_up(return_state=True)
        return one.name, two.message

    assert asks() == ("Skipped", "enough")
    told = execute(asks)
    assert [end.outcome for end in told.task_ends] == ["COMPLETED", "FAILED"]
    with pytest.raises(FailedRun, match="enough"):
        flow(gives_up.fn)()


def test_a_bad_state_that_a_plain_call_returns_raises(execute: Execute) -> None:
    @task
    def gives_up() -> Any:
        return Failed(message="enough")

    @flow
    def calls() -> None:
        gives_up()

    told = execute(calls)

    assert (told.outcome, told.task_ends[0].outcome, told.task_ends[0].error) == ("FAILED", "FAILED", "enough")


def test_a_flow_that_returns_cancelled_is_cancelled_by_its_own_word(execute: Execute) -> None:
    told = execute(flow(name="c")(lambda: Cancelled(message="not today")))

    assert (told.outcome, told.ended.reason, told.ended.by_code) == ("CANCELLED", "not today", True)


def test_futures_that_a_flow_returns_decide_its_state(execute: Execute) -> None:
    @flow
    def mixed() -> Any:
        return [double.submit(1), failing.submit()]

    @flow
    def good() -> Any:
        return double.map([1, 2])

    states: Any = good()
    assert [type(one) for one in states] == [State, State]
    assert [one.result() for one in states] == [2, 4]
    state: Any = mixed(return_state=True)  # type: ignore[call-arg]
    assert (state.is_failed(), state.message) == (True, "1/2 states failed.")
    assert execute(mixed).ended.error == "ValueError: no good"
    assert execute(good).outcome == "COMPLETED"


def test_a_failure_that_nobody_asks_for_does_not_fail_the_flow(execute: Execute) -> None:
    @flow
    def careless() -> str:
        failing.submit()
        return "done"

    assert careless() == "done"
    assert execute(careless).outcome == "COMPLETED"


def test_a_task_that_is_not_crucial_may_fail(execute: Execute) -> None:
    @task(crucial=False)
    def optional() -> int:
        raise ValueError("no matter")

    @flow
    def goes_on() -> Any:
        future = optional.submit()
        state: Any = optional(return_state=True)  # type: ignore[call-arg]
        return [optional(), future.result(), state.is_failed(), double.submit([future]).result()]

    assert goes_on() == [None, None, True, [None, None]]
    told = execute(goes_on)
    assert told.outcome == "COMPLETED"
    assert [end.outcome for end in told.task_ends].count("FAILED") == 3


# ---------------------------------------------------------------------------------------------------------- methods


def test_methods_can_be_called_submitted_and_mapped() -> None:
    @flow
    def all_ways() -> Any:
        steps = Steps()
        return [
            steps.times(2),
            steps.times.submit(2).result(),
            steps.times.map([1, 2]).result(),
            steps.times_later.submit(2).result(),
            Steps.of_class(1),
            steps.times.with_options(name="x")(1),
        ]

    assert all_ways() == [6, 6, [3, 6], 6, 4, 3]
    assert Steps().whole(1) == 4


def test_with_options_leaves_the_original_alone() -> None:
    other = double.with_options(name="other", retries=2)

    assert (other.name, other.retries, double.name, double.retries) == ("other", 2, "double", 0)
    assert other(2) == double.fn(2) == 4


# ------------------------------------------------------------------------------------------------------------- async


def test_async_flows_and_tasks_with_options() -> None:
    tries: List[int] = []

    @task(retries=2)
    async def shaky(number: int) -> int:
        tries.append(number)
        await asyncio.sleep(0)
        if len(tries) < 3:
            raise ValueError("again")
        return number

    @flow
    async def whole() -> Any:
        state: Any = await shaky(7, return_state=True)  # type: ignore[call-arg]
        return await state.result(), double(4), await double.submit(2).result_async()

    assert asyncio.run(whole()) == (7, 8, 4)  # type: ignore[arg-type]
    assert tries == [7, 7, 7]


def test_an_async_task_submitted_by_a_sync_flow_runs() -> None:
    @task
    async def later(number: int) -> int:
        await asyncio.sleep(0.001)
        return number + 1

    @flow
    def parent() -> List[int]:
        return later.map(range(20)).result()

    assert parent() == list(range(1, 21))


# -------------------------------------------------------------------------------------------------------- generators


def test_a_returned_generator_becomes_a_list(execute: Execute) -> None:
    @task
    def numbers() -> Any:
        return (n for n in range(3))

    @flow
    def parent() -> Any:
        return numbers()

    assert parent() == [0, 1, 2]
    assert execute(parent).ended.result == "[0, 1, 2]"


def test_a_task_that_yields_runs_while_it_is_iterated_over(execute: Execute) -> None:
    seen: List[str] = []

    @task
    def numbers() -> Iterator[int]:
        seen.append("begin")
        yield 1
        double(1)
        yield 2
        seen.append("end")

    @flow
    def parent() -> Any:
        found = []
        for number in numbers():
            seen.append("got %d" % number)
            found.append(number)
        return [found, numbers.submit().result()]

    told = execute(parent)

    assert seen[:4] == ["begin", "got 1", "got 2", "end"]
    assert told.ended.result == "[[1, 2], [1, 2]]"
    assert [(s.name, s.parent) for s in told.started][:2] == [("numbers", None), ("double", 1)]


def test_a_flow_that_yields_gives_its_items(execute: Execute) -> None:
    @flow
    def numbers() -> Iterator[int]:
        yield double(1)
        yield double(2)

    assert list(numbers()) == [2, 4]
    assert execute(numbers).ended.result == "[2, 4]"


def test_an_async_generator_can_be_iterated_over_and_submitted() -> None:
    @task
    async def numbers() -> Any:
        yield 1
        yield 2

    @flow
    async def parent() -> Any:
        return [n async for n in numbers()], await numbers.submit().result_async()

    assert asyncio.run(parent()) == ([1, 2], [1, 2])  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------------- arguments


@dataclass
class Box:
    inside: Any
    made: int = 0

    def __post_init__(self) -> None:
        self.made += 1


def test_futures_are_found_inside_containers_and_dataclasses() -> None:
    @task
    def same(value: Any) -> Any:
        return value

    @flow
    def parent() -> Any:
        one = double.submit(1)
        box = Box({"a": [one, (one, {one.result()})]})
        return same(box), same.submit([one]).result(), box.inside["a"][0] is one

    box, listed, untouched = parent()

    assert (box.inside, box.made) == ({"a": [2, (2, {2})]}, 1)
    assert listed == [2]
    assert untouched


def test_what_is_quoted_is_handed_over_as_it_is() -> None:
    @task
    def kind(value: Any) -> str:
        return type(value[0]).__name__

    @flow
    def parent() -> Any:
        one = double.submit(1)
        return kind(quote([one])), kind([one])

    assert parent() == ("PrefectFuture", "int")


def test_a_task_behind_a_failed_one_is_not_run(execute: Execute) -> None:
    called: List[Any] = []

    @task
    def after(value: Any = None) -> Any:
        called.append(value)
        return "ran"

    @flow
    def parent() -> Any:
        bad = failing.submit()
        first: Any = after.submit(bad, return_state=True)
        second: Any = after(wait_for=[bad], return_state=True)  # type: ignore[call-arg]
        third = after(allow_failure(bad))
        with pytest.raises(UpstreamTaskError):
            after(bad)
        return first.name, first.type.value, second.name, third

    told = execute(parent)

    assert told.ended.result == "('NotReady', 'PENDING', 'NotReady', 'ran')"
    assert [end.outcome for end in told.task_ends if end.task > 1] == ["SKIPPED", "SKIPPED", "COMPLETED", "SKIPPED"]
    assert [type(value) for value in called] == [ValueError]


def test_a_parameter_cannot_have_the_name_of_an_option_of_the_call() -> None:
    with pytest.raises(ConfigurationError, match="a parameter cannot be named wait_for.*test_calling.py"):

        @task
        def wrong(wait_for: int) -> None: ...


# --------------------------------------------------------------------------------------------------------- sub-flows


def test_a_sub_flow_has_its_own_run_and_a_place_in_its_parents(execute: Execute) -> None:
    from perfect_client.core import runtime

    seen: List[Any] = []

    @flow(name="Inner", flow_run_name="for {number}")
    def inner(number: int) -> int:
        run = runtime.flow_run
        seen.append((run.id, run.flow_name, run.name, run.parameters, runtime.task_run.name))
        return double(number)

    @flow
    def outer() -> Any:
        seen.append((runtime.flow_run.id, runtime.flow_run.flow_name))
        found = inner(2)
        seen.append((runtime.flow_run.id, runtime.flow_run.flow_name))
        return found

    told = execute(outer)

    assert told.ended.result == "4"
    assert [(s.kind, s.name, s.parent) for s in told.started] == [("flow", "Inner", None), ("task", "double", 1)]
    assert seen[0] == seen[2]
    assert seen[1][0] != seen[0][0]
    assert seen[1][1:] == ("Inner", "for 2", {"number": 2}, None)
    assert outer() == 4


def test_a_failed_sub_flow_fails_its_parent_unless_caught(execute: Execute) -> None:
    @flow
    def inner() -> None:
        failing()

    @flow
    def outer() -> str:
        try:
            inner()
        except ValueError:
            return "caught"
        return ""

    told = execute(outer)

    assert told.ended.result == "'caught'"
    assert [end.outcome for end in told.task_ends] == ["FAILED", "FAILED"]
