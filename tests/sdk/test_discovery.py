"""The tasks of a flow are found in its code, in the order of their calls, each once, without running anything."""

from __future__ import annotations

import linecache
from typing import Any, List

import pytest
from perfect_client import flow, task
from perfect_client.analysis import planner
from perfect_client.wire import messages

from tests.sdk import planned
from tests.sdk.story import execute_flow, python


def found(name: str) -> List[str]:
    """The keys; a star marks those that are called in a loop."""
    plan = planner.plan(getattr(planned, name))
    return [spec.key + ("*" if spec.in_loop else "") for spec in plan.tasks]


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("in_order", ["extract", "clean", "load"]),
        ("nested_calls", ["extract", "clean", "load"]),
        ("in_loops", ["extract", "clean*", "load*"]),
        ("in_comprehension", ["extract", "clean*", "load*"]),
        ("in_branches", ["extract", "clean", "load", "hidden"]),
        ("in_try", ["extract", "clean", "load"]),
        ("in_with", ["extract", "clean", "load"]),
        ("through_helpers", ["extract", "clean", "load"]),
        ("helper_in_loop", ["load*"]),
        ("through_another_module", ["fetch*", "store"]),
        ("in_a_cycle", ["extract", "clean"]),
        ("with_an_instance", ["Pipeline.own"]),
        ("with_a_made_instance", ["extract", "clean", "load"]),
        ("with_a_subclass", ["extract", "hidden", "clean", "load"]),
        ("with_class_members", ["extract", "clean"]),
        ("nested_functions", ["clean", "extract", "load"]),
        ("never_called", ["clean"]),
        ("partials", ["extract", "clean"]),
        ("passed_by_name", ["extract*", "clean", "load*"]),
        ("passed_to_a_pool", ["clean*", "extract"]),
        ("passed_to_a_helper", ["extract*", "clean*", "load"]),
        ("over_a_list", ["extract*", "clean*", "load*"]),
        ("over_a_literal", ["load*", "extract*"]),
        ("over_pairs", ["clean*", "extract*"]),
        ("by_name", ["load", "extract"]),
        ("over_items", ["extract*", "load*", "clean*"]),
        ("renamed", ["extract", "load", "clean"]),
        ("chosen", ["extract", "clean", "load"]),
        ("a_default", ["extract"]),
        ("shadowed", ["clean"]),
        ("from_a_factory", ["extract"]),
        ("from_a_closure", ["load"]),
        ("decorated", ["extract", "clean", "load"]),
        ("tasks_made_inside", ["tasks_made_inside.inner*", "tasks_made_inside.bare"]),
        ("asynchronous", ["download*", "download_more*"]),
        ("with_a_sub_flow", ["extract", "sub_flow"]),
        ("submits", ["extract", "clean*", "load*"]),
        ("only_mentioned", []),
        ("imports_inside", ["store"]),
        ("same_name_twice", ["extract", "extract#2"]),
        ("walrus_and_slices", ["extract", "clean"]),
        ("keyword_only", ["load"]),
        ("starred", ["clean*", "extract"]),
        ("from_sorted", ["extract"]),
        ("no_tasks", []),
        ("given_to_a_task", ["load"]),
    ],
)
def test_tasks_are_found(name: str, keys: List[str]) -> None:
    assert found(name) == keys


def test_a_task_that_only_another_task_calls_is_not_listed() -> None:
    assert "hidden" not in found("in_order")


def test_a_task_is_described_by_its_options() -> None:
    first = planner.plan(planned.in_order).tasks[0]

    assert first == messages.TaskSpec("extract", "Extract it", 2.0, 300.0, False, "Reads.")


def test_a_task_made_inside_the_flow_is_described_too() -> None:
    first = planner.plan(planned.tasks_made_inside).tasks[0]

    assert first == messages.TaskSpec("tasks_made_inside.inner", "Made inside", 4.0, 50.0, True, "Does it.")


def test_nothing_is_run_to_find_out() -> None:
    class Explosive:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError("this ran user code")

        @property
        def step(self) -> Any:
            raise AssertionError("this ran user code")

        def __iter__(self) -> Any:
            raise AssertionError("this ran user code")

    bomb: Any = Explosive()

    @task
    def harmless() -> None: ...

    @flow
    def careful() -> None:
        bomb.step()
        bomb.other.more()
        bomb()
        [item() for item in bomb]
        harmless()

    assert [spec.name for spec in planner.plan(careful).tasks] == ["harmless"]


def test_a_run_uses_the_keys_of_the_plan() -> None:
    story = execute_flow(planned.same_name_twice)

    assert [s.key for s in story.started] == ["extract", "extract#2", "extract"]


def test_a_run_uses_the_keys_of_tasks_made_inside() -> None:
    story = execute_flow(planned.tasks_made_inside)

    assert {s.key for s in story.started} == {"tasks_made_inside.inner", "tasks_made_inside.bare"}


def test_lambdas_and_builtins_as_flows_have_a_plan() -> None:
    one = flow(name="lambda")(lambda: planned.extract())

    assert [spec.key for spec in planner.plan(one).tasks] == ["extract"]
    assert planner.plan(flow(name="len")(len)).tasks == []


def test_without_source_the_plan_is_empty() -> None:
    space: Any = {"extract": planned.extract}
    exec("def made(): extract()", space)

    assert planner.plan(flow(space["made"])).tasks == []


def test_in_the_interactive_interpreter_nothing_breaks() -> None:
    code = (
        "from perfect_client import flow, task; from perfect_client.analysis import describe\n"
        "@task\ndef a(): pass\n\n"
        "@flow\ndef f(): a()\n\n"
        "print('tasks', len(describe.flow_spec(f).tasks) in (0, 1))\n"
    )

    assert b"tasks True" in python("-i", "-q", typed_in=code).stdout


def test_source_that_changed_since_the_import_is_survived(tmp_path: Any, monkeypatch: Any) -> None:
    file = tmp_path / "changing_flow.py"
    file.write_text("from perfect_client import flow, task\n@task\ndef a(): pass\n@flow\ndef f():\n    a()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import changing_flow  # type: ignore[import-not-found]

    file.write_text("this is not ( python\n")

    assert planner.plan(changing_flow.f).tasks == []


def test_a_very_deep_expression_is_survived() -> None:
    space: Any = {"extract": planned.extract}
    source = "def made():\n    extract()\n    return " + "+".join(["1"] * 600)

    linecache.cache["<deep>"] = (len(source), None, source.splitlines(True), "<deep>")
    exec(compile(source, "<deep>", "exec"), space)

    assert [spec.key for spec in planner.plan(flow(space["made"])).tasks] == ["extract"]


def test_the_plan_is_made_once() -> None:
    assert planner.plan(planned.in_order) is planner.plan(planned.in_order)
