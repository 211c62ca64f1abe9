"""Which run and which task this code is in, and what is added to those that begin here: ``with tags("a"):``.

A worker's process executes one run, so that run is a global that every thread sees. A flow that is called directly,
and a flow called inside a run, is a context variable, as the task is: threads and coroutines each have their own.
"""

from __future__ import annotations

import os
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, Optional, Set, Tuple, Union

from perfect_client.errors import ConfigurationError, MissingContextError

if TYPE_CHECKING:
    from datetime import datetime

    from perfect_client.core.runs import Run, TaskRun  # at run time this module stays light: every program loads it


class Configuration(Mapping[str, Any]):
    """The named set of values that a run uses; read-only. ``name`` is empty when there is none."""

    __slots__ = ("_values", "name")

    def __init__(self, name: str = "", values: Optional[Mapping[str, Any]] = None) -> None:
        self.name = name
        self._values = dict(values or {})

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return "Configuration(%r, %r)" % (self.name, self._values)


# ------------------------------------------------------------------------------------------------- where code stands

active: Optional[Run] = None
innermost: ContextVar[Optional[Run]] = ContextVar("perfect_run", default=None)  # of a direct call or a sub-flow
task: ContextVar[Optional[TaskRun]] = ContextVar("perfect_task", default=None)
_swap = threading.Lock()

# Types of values that are more than a value: futures, states, generators … Their modules add them when they are
# loaded, so that a program that uses none of them does not pay for looking.
special: Set[type] = {type(_ for _ in ())}
stand_ins = False  # whether futures, states or annotations were made that might be given to a task

tagged = False  # whether ``tags`` was ever used
_tags: ContextVar[Tuple[str, ...]] = ContextVar("perfect_tags", default=())


def current_run() -> Optional[Run]:
    """The innermost run of a flow that the calling code is in, if any."""
    return innermost.get() or active


def current_task() -> Optional[TaskRun]:
    """The innermost task that the calling code is in, if any."""
    return task.get()


def activate(run: Run) -> None:
    """Make ``run`` the one that this process executes. Raises ``RuntimeError`` when it executes one already."""
    global active
    with _swap:
        if active is not None:
            raise RuntimeError("this process executes run %s already" % active.id)
        active = run


def deactivate() -> None:
    """The run is over."""
    global active
    active = None


def _leave_in_child() -> None:
    """A forked child is not the run: what it does is its own affair, and its numbers would collide with ours."""
    for run in (active, innermost.get()):
        if run is not None:
            run.leave()
    deactivate()
    innermost.set(None)
    task.set(None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_in_child)


# ------------------------------------------------------------------------------------------------------------- tags


class tags:
    """Context manager: runs of flows and tasks that begin inside it have these tags too. It gives all that hold."""

    def __init__(self, *new: str) -> None:
        for tag in new:
            if not isinstance(tag, str) or not tag.strip():
                raise ConfigurationError("tags() takes strings, such as tags('nightly', 'sales'), not %.200r" % (tag,))
        self._new = tuple(tag.strip() for tag in new)
        self._tokens: List[Any] = []

    def __enter__(self) -> Set[str]:
        global tagged
        tagged = True
        self._tokens.append(_tags.set(tuple(dict.fromkeys((*_tags.get(), *self._new)))))
        return set(_tags.get())

    def __exit__(self, *exc: object) -> None:
        _tags.reset(self._tokens.pop())


def tags_here() -> Tuple[str, ...]:
    """What ``with tags(…)`` around the calling code adds."""
    return _tags.get()


# ----------------------------------------------------------------------------------------- contexts, as Prefect's


class FlowRunContext:
    """The run of a flow that code is in; ``flow_run`` has ``id``, ``name``, ``parameters``, ``tags``, ``run_count``."""

    __slots__ = ("flow_run",)

    def __init__(self, flow_run: Run) -> None:
        self.flow_run = flow_run

    @classmethod
    def get(cls) -> Optional[FlowRunContext]:
        """The innermost one, also inside a task; None outside any run."""
        run = current_run()
        return None if run is None or run.closed else cls(run)

    @property
    def flow(self) -> Any:
        return self.flow_run.flow

    @property
    def parameters(self) -> Dict[str, Any]:
        return dict(self.flow_run.parameters)

    @property
    def start_time(self) -> datetime:
        """In UTC."""
        return self.flow_run.start_time

    @property
    def log_prints(self) -> bool:
        return self.flow_run.log_prints

    @property
    def task_runner(self) -> Any:
        """The run's own; None before it submits something."""
        return self.flow_run.runner


class TaskRunContext:
    """The call of a task that code is in; ``task_run`` has ``id``, ``name``, ``tags``, ``run_count``."""

    __slots__ = ("task_run",)

    def __init__(self, task_run: TaskRun) -> None:
        self.task_run = task_run

    @classmethod
    def get(cls) -> Optional[TaskRunContext]:
        """The innermost one; None outside any task."""
        found = task_here()
        return None if found is None else cls(found)

    @property
    def task(self) -> Any:
        return self.task_run.task

    @property
    def parameters(self) -> Dict[str, Any]:
        """The arguments by name, of a task that has options as retries or a name of its own."""
        return self.task_run.parameters

    @property
    def start_time(self) -> datetime:
        """In UTC."""
        return self.task_run.start_time

    @property
    def log_prints(self) -> bool:
        return self.task_run.log_prints


def task_here() -> Optional[TaskRun]:
    """The call of a task that the calling code is in; None directly in a flow, and after the run's end."""
    found = task.get()
    return found if found is not None and found.task.kind == "task" and not found.run.closed else None


def get_run_context() -> Union[FlowRunContext, TaskRunContext]:
    """The context of the task that the code is in, else of the flow. Raises ``MissingContextError`` outside a run."""
    found = TaskRunContext.get() or FlowRunContext.get()
    if found is None:
        raise MissingContextError("No run context available. You are not in a flow or task run context.")
    return found
