"""What the code calls its runs and states, and what its tasks return, is told with their facts."""

from __future__ import annotations

from datetime import date
from typing import Any, Callable, List

import pytest
from perfect_client import Secret, flow, task
from perfect_client.core.previews import safe_preview
from perfect_client.core.states import Completed, Failed
from perfect_client.schema.secrets import fact_without_secrets
from perfect_client.wire import messages

from tests.sdk.story import Story

Execute = Callable[..., Story]


def test_a_run_tells_its_name_once_it_has_one(execute: Execute) -> None:
    @flow(flow_run_name="sales of {month}")
    def named(month: str) -> None: ...

    @flow
    def plain() -> None:
        named("May")

    told = execute(named, {"month": "June"})

    assert told.of(messages.RunNamed)[0].name == "sales of June"
    told = execute(plain)
    assert told.of(messages.RunNamed) == []
    assert [sub.name for sub in told.of(messages.SubRunStarted)] == ["sales of May"]


@pytest.mark.parametrize("options", [{}, {"retries": 1}], ids=["plain", "with options"])
def test_a_state_that_the_code_named_is_told_with_its_message(execute: Execute, options: Any) -> None:
    @task(**options)
    def skips() -> Any:
        return Completed(name="Skipped by rule", message="nothing new")

    @flow
    def outer() -> Any:
        skips()
        return Completed(name="All quiet", message="nothing at all")

    told = execute(outer)

    (end,) = told.task_ends
    assert (end.outcome, end.state, end.message) == ("COMPLETED", "Skipped by rule", "nothing new")
    assert (told.ended.outcome, told.ended.state, told.ended.reason) == ("COMPLETED", "All quiet", "nothing at all")


def test_a_failure_that_the_code_named_keeps_its_error(execute: Execute) -> None:
    @task
    def refuses() -> Any:
        return Failed(name="Refused", message="not today")

    told = execute(flow(lambda: refuses(return_state=True) and None, name="outer"))

    assert [(end.outcome, end.state, end.error, end.message) for end in told.task_ends] == [
        ("FAILED", "Refused", "not today", "")
    ]


def test_states_by_their_usual_names_are_told_without_one(execute: Execute) -> None:
    @task
    def fails() -> None:
        raise ValueError("no")

    told = execute(flow(lambda: fails(return_state=True) and None, name="outer"))

    assert [end.state for end in told.task_ends] == [""]
    assert b'"state"' not in messages.encode_fact(told.task_ends[0])


def test_a_task_that_waits_for_what_failed_is_skipped_and_says_why(execute: Execute) -> None:
    @task
    def fails() -> None:
        raise ValueError("no")

    @task
    def after() -> None: ...

    told = execute(flow(lambda: after(wait_for=[fails.submit()], return_state=True) and None, name="outer"))

    (end,) = [end for end in told.task_ends if end.outcome == "SKIPPED"]
    assert (end.state, "fails" in end.error) == ("NotReady", True)


def test_a_task_that_may_fail_says_so_when_it_starts(execute: Execute) -> None:
    @task(crucial=False)
    def may_fail() -> None:
        raise ValueError("no")

    @task
    def must_not() -> None: ...

    told = execute(flow(lambda: (may_fail(), must_not())[1], name="outer"))

    assert [start.crucial for start in told.started] == [False, True]
    assert b'"crucial"' not in messages.encode_fact(told.started[1])


# -------------------------------------------------------------------------------------------------------------- results


class Slow:
    asked: List[int] = []

    def __repr__(self) -> str:
        self.asked.append(1)
        return "slow"


@pytest.mark.parametrize("options", [{}, {"retries": 1}], ids=["plain", "with options"])
@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, ""),
        (42, "42"),
        (True, "True"),
        ("text", "'text'"),
        ([1, {"a": date(2026, 1, 2)}], "[1, {'a': datetime.date(2026, 1, 2)}]"),
        (Slow(), "<tests.sdk.test_told_states.Slow>"),
        ([Slow()], "[<tests.sdk.test_told_states.Slow>]"),
    ],
)
def test_what_a_task_returned_is_told_by_a_preview(execute: Execute, options: Any, value: Any, told: str) -> None:
    @task(**options)
    def gives() -> Any:
        return value

    assert [end.result for end in execute(flow(lambda: gives() and None, name="outer")).task_ends] == [told]
    assert Slow.asked == []  # what an object's own repr does is not known: it may ask a database


def test_a_preview_is_bounded_and_does_not_walk_through_what_is_large() -> None:
    assert len(safe_preview("x" * 1_000_000)) <= 500
    assert len(safe_preview(list(range(1_000_000)))) <= 500
    assert len(safe_preview(dict.fromkeys(range(1000), "x" * 1000))) <= 500
    assert safe_preview(10**30) == str(10**30)
    assert safe_preview(1 << 10**7) == "<int of 10000001 bits>"


class Compared(int):
    times = 0

    def __lt__(self, other: Any) -> bool:
        Compared.times += 1
        return int(self) < int(other)


@pytest.mark.parametrize("kind", [dict.fromkeys, set, frozenset])
def test_what_is_large_is_not_sorted(kind: Any) -> None:
    Compared.times = 0

    told = safe_preview(kind(Compared(number) for number in range(20_000)))

    assert len(told) <= 500
    assert Compared.times < 1_000


def test_a_secret_is_in_no_preview(execute: Execute) -> None:
    @task
    def gives() -> Any:
        return [Secret("kkkk-2"), "kkkk-2"]

    (end,) = execute(flow(lambda: gives() and None, name="outer")).task_ends

    assert "kkkk-2" not in fact_without_secrets(end).result
    assert fact_without_secrets(end).result == "[Secret('***'), '***']"
