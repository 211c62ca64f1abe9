"""The names that programs written for Prefect import: each is where they look for it, or here with a reason."""

from __future__ import annotations

from importlib import import_module
from typing import Dict, List, Tuple

import pytest

from tests.sdk.story import python

NAMES: Dict[str, str] = {
    "": "flow Flow task Task serve aserve deploy tags unmapped allow_failure get_run_logger get_client State "
    "Transaction pause_flow_run resume_flow_run suspend_flow_run apause_flow_run aresume_flow_run "
    "asuspend_flow_run",
    "futures": "PrefectFuture PrefectFutureList wait as_completed resolve_futures_to_results resolve_futures_to_states",
    "states": "State StateType Completed Failed Running Pending Scheduled Cancelled Cancelling Crashed Paused "
    "Suspended AwaitingRetry Retrying Late get_state_exception raise_state_exception",
    "context": "get_run_context FlowRunContext TaskRunContext tags",
    "runtime": "flow_run task_run deployment",
    "cache_policies": "INPUTS TASK_SOURCE FLOW_PARAMETERS RUN_ID DEFAULT NONE NO_CACHE CachePolicy Inputs",
    "tasks": "task_input_hash exponential_backoff Task task",
    "task_runners": "ThreadPoolTaskRunner ProcessPoolTaskRunner",
    "utilities.annotations": "unmapped allow_failure quote opaque",
    "logging": "get_run_logger disable_run_logger get_logger",
    "logging.loggers": "flow_run_logger task_run_logger get_run_logger",
    "transactions": "transaction atransaction get_transaction Transaction CommitMode IsolationLevel",
    "testing.utilities": "prefect_test_harness exceptions_equal",
    "artifacts": "create_link_artifact create_markdown_artifact create_table_artifact create_progress_artifact "
    "update_progress_artifact create_image_artifact acreate_markdown_artifact",
    "concurrency.sync": "concurrency rate_limit",
    "concurrency.asyncio": "concurrency rate_limit",
    "flow_runs": "pause_flow_run resume_flow_run",
    "input": "RunInput",
    "variables": "Variable",
    "exceptions": "FailedRun CrashedRun CancelledRun UnfinishedRun MissingResult ParameterTypeError "
    "ParameterBindError SignatureMismatchError ReservedArgumentError InvalidNameError "
    "MissingContextError UpstreamTaskError MappingLengthMismatch MappingMissingIterable "
    "NotPausedError FlowPauseTimeout HashError PrefectException",
}

WITHOUT: Dict[str, str] = {
    "aserve": "serve replaces the program: there is nothing left that could wait for it",
    "deploy": "a worker announces its flows itself; there are no deployments to make",
    "get_client": "the server has a REST API with OpenAPI, for any client",
    **dict.fromkeys(
        ("suspend_flow_run", "asuspend_flow_run"),
        "a paused run keeps its process: there is none to end and to start again",
    ),
}

FIELDS: Dict[str, str] = {
    "flow_run": "id tags scheduled_start_time name flow_name flow_version parameters parent_flow_run_id "
    "parent_deployment_id root_flow_run_id run_count api_url ui_url job_variables",
    "task_run": "id tags name parameters run_count task_name api_url ui_url",
    "deployment": "id flow_run_id name parameters version",
}


def pairs(table: Dict[str, str]) -> List[Tuple[str, str]]:
    return [(module, name) for module, names in table.items() for name in names.split()]


@pytest.mark.parametrize(("module", "name"), pairs(NAMES))
def test_a_name_is_where_it_is_looked_for(module: str, name: str) -> None:
    found = import_module(("perfect_client." + module).rstrip("."))

    assert hasattr(found, name) is ((module + "." + name).lstrip(".") not in WITHOUT)


def test_the_list_of_what_is_missing_names_only_what_is_asked_for() -> None:
    asked = {(module + "." + name).lstrip(".") for module, name in pairs(NAMES)}

    assert set(WITHOUT) <= asked
    assert all(WITHOUT.values())


@pytest.mark.parametrize(("section", "name"), pairs(FIELDS))
def test_runtime_answers_what_is_asked(section: str, name: str) -> None:
    runtime = import_module("perfect_client.core.runtime")

    getattr(getattr(runtime, section), name)


@pytest.mark.parametrize("module", [name for name in NAMES if name and not name.startswith("testing")])
def test_each_module_can_be_imported_first(module: str) -> None:
    python("-c", "import perfect_client." + module)
