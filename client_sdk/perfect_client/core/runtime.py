"""What code can ask about the run it is in: ``runtime.flow_run`` and ``runtime.task_run``.

Outside a run everything is empty, but for the configuration of a flow that is being called directly. What Prefect's
programs ask and Perfect has nothing for is None. A test may set ``PERFECT__RUNTIME__FLOW_RUN__NAME`` and its like in
the environment: that answers in place of a string, number or date.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Callable, Dict, Generic, List, Optional, TypeVar, Union, overload

from perfect_client.core import context
from perfect_client.core.context import Configuration

if TYPE_CHECKING:
    from datetime import datetime

V = TypeVar("V")
_DEFAULT_URL = "http://127.0.0.1:8700"
_TRUE = frozenset({"1", "true", "yes", "on"})


class _Asked(Generic[V]):
    """An attribute that asks anew each time, unless the environment answers."""

    def __init__(self, ask: Callable[[Any], V]) -> None:
        self.ask = ask
        self.__doc__ = ask.__doc__

    def __set_name__(self, owner: Any, name: str) -> None:
        self._name = name
        self._variable = "PERFECT__RUNTIME__%s__%s" % (owner.section, name.upper())

    @overload
    def __get__(self, instance: None, owner: Any) -> _Asked[V]: ...
    @overload
    def __get__(self, instance: object, owner: Any) -> V: ...
    def __get__(self, instance: Any, owner: Any) -> Union[_Asked[V], V]:
        if instance is None:
            return self
        value = self.ask(instance)
        given = os.environ.get(self._variable)
        return value if given is None else self._in_place_of(value, given)

    def _in_place_of(self, value: Any, given: str) -> Any:
        kind = type(value)
        if value is None or kind is str:
            return given
        if kind is bool:
            return given.strip().lower() in _TRUE
        if kind in (int, float) or hasattr(kind, "fromisoformat"):
            try:
                return kind(given) if kind in (int, float) else kind.fromisoformat(given)
            except ValueError:
                wanted = (self._variable, kind.__name__, given)
                raise ValueError("%s takes a value of type %s, not %r" % wanted) from None
        raise ValueError("%s cannot stand for a %s: set %s in the test" % (self._variable, kind.__name__, self._name))


class FlowRun:
    """The current run of a flow."""

    section = "FLOW_RUN"

    @_Asked
    def id(self) -> Optional[str]:
        run = context.current_run()
        return run.id if run else None

    @_Asked
    def flow_name(self) -> Optional[str]:
        run = context.current_run()
        return run.flow_name if run else None

    @_Asked
    def flow_version(self) -> Optional[str]:
        """As ``@flow(version=…)`` says."""
        run = context.current_run()
        return run.flow.version if run and run.flow is not None else None

    @_Asked
    def name(self) -> Optional[str]:
        """From ``flow_run_name``, else the flow's name and the first letters of the run's id."""
        run = context.current_run()
        return run.name if run else None

    @_Asked
    def parameters(self) -> Dict[str, Any]:
        """The values that the flow was called with, defaults included."""
        run = context.current_run()
        return dict(run.parameters) if run else {}

    @_Asked
    def tags(self) -> List[str]:
        """The flow's, the run's, and those of ``with tags(…)`` around the call."""
        run = context.current_run()
        return list(run.tags) if run else []

    @_Asked
    def configuration(self) -> Configuration:
        """The chosen configuration; in a direct call the flow's first one."""
        run = context.current_run()
        return run.configuration if run else Configuration()

    @_Asked
    def attempt(self) -> Optional[int]:
        """1 for the first attempt."""
        run = context.current_run()
        return run.attempt if run else None

    @_Asked
    def run_count(self) -> int:
        """How often the flow's function was called in this run: more than once with ``retries``."""
        run = context.current_run()
        return run.run_count if run else 0

    @_Asked
    def scheduled_start_time(self) -> Optional[datetime]:
        """When it was due, in UTC; of a run that nobody scheduled, when it began."""
        run = context.current_run()
        return run.root.due_time if run else None

    @_Asked
    def parent_flow_run_id(self) -> Optional[str]:
        """Of a sub-flow: the id of the run that it was called in."""
        run = context.current_run()
        return run.above.id if run and run.above is not None else None

    @_Asked
    def root_flow_run_id(self) -> Optional[str]:
        """The id of the run around all sub-flows; of that run, its own."""
        run = context.current_run()
        return run.root.id if run else None

    @_Asked
    def api_url(self) -> Optional[str]:
        """The address of a worker's run in the API; None in a direct call."""
        return _address("api/runs/%s")

    @_Asked
    def ui_url(self) -> Optional[str]:
        """The address of a worker's run's page; None in a direct call."""
        return _address("runs/%s/")

    @_Asked
    def parent_deployment_id(self) -> None:
        """Perfect has no deployments."""

    @_Asked
    def job_variables(self) -> None:
        """Perfect has no work pools that take variables."""


class TaskRun:
    """The innermost current run of a task."""

    section = "TASK_RUN"

    @_Asked
    def id(self) -> Optional[str]:
        """Unique: the run's id, its attempt and the number of this task run in it."""
        task = context.task_here()
        return task.id if task else None

    @_Asked
    def name(self) -> Optional[str]:
        """From ``task_run_name``, else the task's name and the number of this call of it in the run, from 0."""
        task = context.task_here()
        return task.name if task else None

    @_Asked
    def task_name(self) -> Optional[str]:
        task = context.task_here()
        return str(task.task.name) if task else None

    @_Asked
    def parameters(self) -> Dict[str, Any]:
        """The arguments by name, for a task that has options as retries or a name of its own."""
        task = context.task_here()
        return task.parameters if task else {}

    @_Asked
    def tags(self) -> List[str]:
        """The task's, and those of ``with tags(…)`` around the call."""
        task = context.task_here()
        return task.tags if task else []

    @_Asked
    def run_count(self) -> int:
        """How often the task's function was called for this call: more than once with ``retries``."""
        task = context.task_here()
        return task.run_count if task else 0

    @_Asked
    def api_url(self) -> None:
        """A task run has no address of its own: it stands on its run's page."""

    @_Asked
    def ui_url(self) -> None:
        """A task run has no address of its own: it stands on its run's page."""


class Deployment:
    """Perfect has no deployments: only what belongs to the run itself is there."""

    section = "DEPLOYMENT"

    @_Asked
    def id(self) -> None:
        """None."""

    @_Asked
    def name(self) -> None:
        """None."""

    @_Asked
    def version(self) -> None:
        """None."""

    @_Asked
    def parameters(self) -> Dict[str, Any]:
        """Always empty."""
        return {}

    @_Asked
    def flow_run_id(self) -> Optional[str]:
        """The id of the run around all sub-flows."""
        run = context.current_run()
        return run.root.id if run else None


def _address(path: str) -> Optional[str]:
    run = context.active
    if run is None or run.guard is None:  # no worker's
        return None
    return "%s/%s" % ((os.environ.get("PERFECT_URL") or _DEFAULT_URL).rstrip("/"), path % run.id)


flow_run = FlowRun()
task_run = TaskRun()
deployment = Deployment()
