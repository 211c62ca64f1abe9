"""``runtime``: what code can ask about the run it is in."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from typing import Any, Callable, Dict, List

import pytest
from perfect_client import ConfigurationError, flow, tags, task
from perfect_client.core import runtime
from perfect_client.core.context import FlowRunContext, TaskRunContext, get_run_context
from perfect_client.core.runtime import flow_run, task_run
from perfect_client.errors import MissingContextError
from perfect_client.execution import executor
from perfect_client.wire import messages
from perfect_client.worker.main import warnings_about

from tests.sdk.story import Story

Execute = Callable[..., Story]
CONFIGURATIONS: Dict[str, Dict[str, Any]] = {"dev": {"size": 1, "limit": 5}, "release": {"size": 9}}


def test_outside_a_run_everything_is_empty() -> None:
    assert (flow_run.id, flow_run.name, flow_run.flow_name, flow_run.attempt) == (None, None, None, None)
    assert (flow_run.parameters, flow_run.tags, dict(flow_run.configuration)) == ({}, [], {})
    assert (task_run.id, task_run.name, task_run.task_name) == (None, None, None)


def test_a_run_knows_itself(execute: Execute) -> None:
    seen: Dict[str, Any] = {}

    @flow(name="Known", tags=["own"])
    def asks(a: int, b: str = "x") -> None:
        run = runtime.flow_run
        seen.update(id=run.id, name=run.name, flow=run.flow_name, parameters=run.parameters, tags=run.tags)
        seen.update(attempt=run.attempt, task=runtime.task_run.name)

    execute(asks, {"a": 1}, attempt=3)

    assert seen == {
        "id": "0123456789abcdef",
        "name": "Known 01234567",
        "flow": "Known",
        "parameters": {"a": 1, "b": "x"},
        "tags": ["own", "from-order"],
        "attempt": 3,
        "task": None,
    }


def test_a_task_run_knows_itself(execute: Execute) -> None:
    seen = []

    @task(name="Asking")
    def asks() -> None:
        seen.append((task_run.id, task_run.name, task_run.task_name))

    @flow
    def twice() -> None:
        asks()
        asks()

    execute(twice)

    assert seen == [
        ("0123456789abcdef:1:1", "Asking-0", "Asking"),
        ("0123456789abcdef:1:2", "Asking-1", "Asking"),
    ]


def test_the_chosen_configuration_is_known(execute: Execute) -> None:
    @flow(configurations=CONFIGURATIONS)
    def asks() -> Any:
        return [flow_run.configuration.name, dict(flow_run.configuration)]

    assert execute(asks, configuration="release").ended.result == "['release', {'size': 9}]"


def test_without_a_choice_the_first_configuration_is_used(execute: Execute) -> None:
    asks = flow(name="x", configurations=CONFIGURATIONS)(lambda: flow_run.configuration.name)

    assert execute(asks).ended.result == "'dev'"


def test_configuration_values_are_defaults_of_parameters_that_are_named_like_them(execute: Execute) -> None:
    @flow(configurations=CONFIGURATIONS)
    def sized(size: int = 0) -> int:
        return size

    assert execute(sized, configuration="release").ended.result == "9"
    assert execute(sized, {"size": 3}, configuration="release").ended.result == "3"


def test_a_direct_call_has_the_first_configuration() -> None:
    @flow(name="Direct", configurations=CONFIGURATIONS)
    def asks() -> Any:
        return flow_run.configuration.name, flow_run.configuration["size"], flow_run.flow_name, flow_run.id

    name, size, flow_name, run_id = asks()

    assert (name, size, flow_name) == ("dev", 1, "Direct")
    assert len(run_id) == 36  # a run as any other, but for its facts, which go nowhere
    assert (flow_run.configuration.name, flow_run.id) == ("", None)


def test_a_direct_call_of_an_async_flow_has_it_too() -> None:
    @flow(configurations=CONFIGURATIONS)
    async def asks() -> str:
        await asyncio.sleep(0)
        return flow_run.configuration.name

    assert asyncio.run(asks()) == "dev"


def test_the_configuration_is_read_only() -> None:
    asks = flow(configurations=CONFIGURATIONS)(lambda: flow_run.configuration)
    configuration: Any = asks()

    with pytest.raises(TypeError):
        configuration["size"] = 2
    with pytest.raises(KeyError):
        configuration["none"]
    assert configuration.get("none", 7) == 7
    assert (len(configuration), list(configuration)) == (2, ["size", "limit"])


def test_changing_what_was_returned_changes_nothing(execute: Execute) -> None:
    @flow
    def changes(a: int = 1) -> Any:
        flow_run.parameters["a"] = 5
        flow_run.tags.append("x")
        return [flow_run.parameters, flow_run.tags]

    assert execute(changes).ended.result == "[{'a': 1}, ['from-order']]"


# --------------------------------------------------------------------------------------------------------------- tags


@task(tags=["own"])
def tagged() -> List[str]:
    return sorted(runtime.task_run.tags)


@task
def numbered(number: int) -> List[str]:
    return list(runtime.task_run.tags)


@task
async def tagged_later() -> List[str]:
    await asyncio.sleep(0)
    return sorted(runtime.task_run.tags)


def test_tags_are_added_to_what_begins_inside_and_nest() -> None:
    @flow(tags=["flow"])
    def asks() -> Any:
        with tags("inner"):
            first = tagged()
        return sorted(runtime.flow_run.tags), first, tagged()

    with tags("a") as outer:
        with tags("b", "a") as both:
            assert asks() == (["a", "b", "flow"], ["a", "b", "inner", "own"], ["a", "b", "own"])
        assert (outer, both) == ({"a"}, {"a", "b"})
    assert asks() == (["flow"], ["inner", "own"], ["own"])


def test_tags_reach_what_is_submitted_mapped_and_awaited() -> None:
    @flow
    async def asks() -> Any:
        with tags("x"):
            submitted = tagged.submit()
            mapped = numbered.map([1, 2])
            later = tagged_later.submit()
            awaited = await tagged_later()
        return submitted.result(), mapped.result(), await later.result_async(), awaited

    assert asyncio.run(asks()) == (["own", "x"], [["x"], ["x"]], ["x"], ["x"])


def test_a_task_run_keeps_the_tags_that_it_began_with() -> None:
    @task
    def enters() -> List[str]:
        with tags("too late"):
            return list(runtime.task_run.tags)

    @flow
    def asks() -> List[str]:
        return enters()

    assert asks() == []


def test_a_sub_flow_has_the_tags_around_it(execute: Execute) -> None:
    seen: List[List[str]] = []

    @flow(tags=["sub"])
    def below() -> None:
        seen.append(sorted(runtime.flow_run.tags))

    @flow
    def above() -> None:
        with tags("x"):
            below()

    execute(above)

    assert seen == [["from-order", "sub", "x"]]


def test_tags_that_are_no_strings_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"tags\(\) takes strings"):
        tags("a", 5)  # type: ignore[arg-type]
    with tags():
        pass


# ----------------------------------------------------------------------------------------------------------- contexts


def test_outside_a_run_there_is_no_context() -> None:
    with pytest.raises(MissingContextError, match="No run context available"):
        get_run_context()
    assert (FlowRunContext.get(), TaskRunContext.get()) == (None, None)


def test_a_context_tells_of_the_flow_and_of_the_task(execute: Execute) -> None:
    seen: List[Any] = []

    @task(retries=1, tags=["t"])
    def inner(number: int) -> None:
        here = get_run_context()
        assert isinstance(here, TaskRunContext) and FlowRunContext.get() is not None
        seen.append((here.task.name, here.parameters, here.task_run.tags, here.task_run.run_count))
        seen.append((here.start_time <= datetime.now(timezone.utc), here.task_run.flow_run_id))

    @flow(name="Outer")
    def outer(number: int = 3) -> None:
        here = get_run_context()
        assert isinstance(here, FlowRunContext)
        seen.append((here.flow.name, here.flow_run.id, here.flow_run.name, here.parameters, here.flow_run.run_count))
        seen.append(abs((here.start_time - datetime.now(timezone.utc)).total_seconds()) < 60)
        inner(number)

    execute(outer)

    assert seen == [
        ("Outer", "0123456789abcdef", "Outer 01234567", {"number": 3}, 1),
        True,
        ("inner", {"number": 3}, ["t"], 1),
        (True, "0123456789abcdef"),
    ]


def test_a_sub_flow_in_a_task_is_the_context_inside_it() -> None:
    @flow
    def below() -> str:
        return type(get_run_context()).__name__ + str(runtime.task_run.id)

    @task
    def between() -> str:
        return below() + type(get_run_context()).__name__

    @flow
    def above() -> str:
        return between()

    assert above() == "FlowRunContextNoneTaskRunContext"


# ---------------------------------------------------------------------------------------------- Prefect's other names


def test_a_sub_flow_knows_its_parent_and_its_root() -> None:
    @flow(version="7")
    def below() -> Any:
        run = runtime.flow_run
        return run.id, run.parent_flow_run_id, run.root_flow_run_id, run.flow_version, runtime.deployment.flow_run_id

    @flow
    def between() -> Any:
        return runtime.flow_run.id, below()

    @flow
    def above() -> Any:
        return runtime.flow_run.id, runtime.flow_run.parent_flow_run_id, between()

    root, none, (parent, (own, of, top, version, deployed)) = above()

    assert (none, of, top, version, deployed) == (None, parent, root, "7", root)
    assert len({root, parent, own}) == 3


def test_the_due_time_is_the_schedules_else_the_beginning() -> None:
    asks = flow(name="Due")(lambda: runtime.flow_run.scheduled_start_time.isoformat())
    order = messages.OfferRun(1, "r", "Due", scheduled_for=1_700_000_000.0)
    facts: List[Any] = []

    executor.execute(asks, order, facts.append)

    assert facts[-1].result == "'2023-11-14T22:13:20+00:00'"
    assert runtime.flow_run.scheduled_start_time is None
    assert asks()[:2] == "20"


def test_a_workers_run_knows_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERFECT_URL", "https://flows.example.org/")
    asks = flow(name="Where")(lambda: [runtime.flow_run.api_url, runtime.flow_run.ui_url, runtime.task_run.ui_url])
    facts: List[Any] = []

    executor.execute(asks, messages.OfferRun(1, "r1", "Where"), facts.append, guard=object())

    base = "https://flows.example.org"
    assert facts[-1].result == repr([base + "/api/runs/r1", base + "/runs/r1/", None])
    assert asks() == [None, None, None]


def test_the_environment_answers_in_place_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "FLOW_RUN__NAME": "made up",
        "FLOW_RUN__RUN_COUNT": "4",
        "TASK_RUN__ID": "t",
        "DEPLOYMENT__NAME": "d",
        "FLOW_RUN__PARAMETERS": "{}",
        "FLOW_RUN__ATTEMPT": "2",
    }.items():
        monkeypatch.setenv("PERFECT__RUNTIME__" + name, value)

    assert (flow_run.name, flow_run.run_count, task_run.id, runtime.deployment.name) == ("made up", 4, "t", "d")
    with pytest.raises(ValueError, match="PERFECT__RUNTIME__FLOW_RUN__PARAMETERS cannot stand for a dict"):
        flow_run.parameters
    monkeypatch.setenv("PERFECT__RUNTIME__FLOW_RUN__RUN_COUNT", "many")
    with pytest.raises(ValueError, match="takes a value of type int, not 'many'"):
        flow_run.run_count


def test_an_override_is_no_unknown_setting() -> None:
    assert warnings_about({"PERFECT__RUNTIME__FLOW_RUN__NAME": "x"}) == []


def test_what_perfect_has_nothing_for_is_none() -> None:
    asked = (flow_run.parent_deployment_id, flow_run.job_variables, runtime.deployment.id, runtime.deployment.version)

    assert asked == (None, None, None, None)
    assert runtime.deployment.parameters == {}
