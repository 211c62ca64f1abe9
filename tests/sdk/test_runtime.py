"""``runtime``: what code can ask about the run it is in."""

from __future__ import annotations

import asyncio
from typing import Any, Callable, Dict

import pytest
from perfect_client import flow, runtime, task
from perfect_client.runtime import flow_run, task_run

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
        "id": "0123456789abcdef", "name": "Known 01234567", "flow": "Known", "parameters": {"a": 1, "b": "x"},
        "tags": ["own", "from-order"], "attempt": 3, "task": None,
    }  # fmt: skip


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
        ("0123456789abcdef:1:1", "Asking-0", "Asking"), ("0123456789abcdef:1:2", "Asking-1", "Asking"),
    ]  # fmt: skip


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
