"""Every option that is given nonsense is refused where it is written: one sentence, with function and line."""

from __future__ import annotations

import subprocess
from typing import Any, Dict, List, Tuple

import pytest
from perfect_client import ConfigurationError, flow, task
from perfect_client.engine import options

from tests.sdk.story import python

WRONG: Dict[str, List[Any]] = {
    "name": [3, "", b"x"],
    "description": [3],
    "tags": ["x", [3], 5],
    "version": [3],
    "retries": [-1, 1.5, "2", True],
    "retry_delay_seconds": ["x", -1, [1, "x"], {}],
    "timeout_seconds": [0, -1, "5", True, float("nan")],
    "log_prints": ["yes"],
    "persist_result": [1],
    "result_storage": [3, ""],
    "result_serializer": [3, "nope"],
    "cache_result_in_memory": ["x"],
    **{event: [len, "x", [3]] for event in options.EVENTS},
    "weight": [0, -1, "x"],
    "estimated_time": [0, "x"],
    "crucial": ["x"],
    "task_run_name": [3, ""],
    "flow_run_name": [3],
    "retry_jitter_factor": [-1, "x"],
    "retry_condition_fn": [3],
    "cache_policy": [3, "INPUTS"],
    "cache_key_fn": [3],
    "cache_expiration": [3, "1d"],
    "refresh_cache": ["x"],
    "result_storage_key": [3],
    "schedule": ["0 0 * * *", 3],
    "configurations": [3, "x", [3]],
    "task_runner": [3, "x"],
    "validate_parameters": ["x"],
    "start": ["spawn", 3],
}
ANYTHING = {"viz_return_value"}  # taken from programs written for Prefect, and without effect
SAID = {"result_storage": "result storage", "result_serializer": "result serializer", "configurations": "configuration"}


def cases() -> List[Tuple[Any, str, Any]]:
    kinds = ((task, options.OF_TASKS), (flow, options.OF_FLOWS))
    return [(make, name, value) for make, known in kinds for name in known for value in WRONG.get(name, ())]


@pytest.mark.parametrize(("make", "name", "value"), cases())
def test_nonsense_is_refused_in_one_sentence(make: Any, name: str, value: Any) -> None:
    def decorated() -> None: ...

    given = {"retries": 1, name: value}

    with pytest.raises(ConfigurationError) as refused:
        make(**given)(decorated)

    told, line = str(refused.value), decorated.__code__.co_firstlineno
    assert SAID.get(name, name) in told and "\n" not in told
    assert told.endswith("decorated, %s:%d)" % (__file__, line))


@pytest.mark.parametrize("known", [options.OF_TASKS, options.OF_FLOWS])
def test_there_is_a_wrong_value_for_every_option(known: Any) -> None:
    assert set(known) <= set(WRONG) | ANYTHING


@pytest.mark.parametrize("wrong", ["name", 3, str, None])
def test_what_is_no_function_is_refused_with_the_line_that_wrote_it(wrong: Any) -> None:
    for make in (flow, task):
        with pytest.raises(ConfigurationError, match=r"test_options\.py:\d+\)$"):
            make(wrong) if wrong is not None else make()(wrong)


def test_a_program_that_knows_only_the_package_is_refused_as_well() -> None:
    program = "from perfect_client import task\n@task(cache_policy='INPUTS')\ndef cached(): ..."

    with pytest.raises(subprocess.CalledProcessError) as failed:
        python("-c", program)

    assert (
        b"cache_policy is a policy of perfect_client.cache_policies, not 'INPUTS' (task cached" in failed.value.stderr
    )
