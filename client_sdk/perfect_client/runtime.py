"""What code can ask about the run it is in: ``runtime.flow_run`` and ``runtime.task_run``.

Outside a run everything is empty, but for the configuration of a flow that is being called directly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional

from perfect_client import context
from perfect_client.context import Configuration

if TYPE_CHECKING:
    from perfect_client import recorder


class FlowRun:
    """The current run of a flow."""

    @property
    def id(self) -> Optional[str]:
        return context.active.id if context.active else None

    @property
    def flow_name(self) -> Optional[str]:
        direct = context.direct.get()
        return context.active.flow_name if context.active else direct[0] if direct else None

    @property
    def name(self) -> Optional[str]:
        """The flow's name and the first letters of the run's id."""
        run = context.active
        return "%s %s" % (run.flow_name, run.id[:8]) if run else None

    @property
    def parameters(self) -> Dict[str, Any]:
        """The values that the flow was called with, defaults included."""
        return dict(context.active.parameters) if context.active else {}

    @property
    def tags(self) -> List[str]:
        return list(context.active.tags) if context.active else []

    @property
    def configuration(self) -> Configuration:
        """The chosen configuration; in a direct call the flow's first one."""
        direct = context.direct.get()
        return context.active.configuration if context.active else direct[1] if direct else Configuration()

    @property
    def attempt(self) -> Optional[int]:
        """1 for the first attempt."""
        return context.active.attempt if context.active else None


class TaskRun:
    """The innermost current run of a task."""

    @property
    def id(self) -> Optional[str]:
        """Unique: the run's id, its attempt and the number of this task run in it."""
        task = _task()
        return "%s:%d:%d" % (task.run.id, task.run.attempt, task.number) if task else None

    @property
    def name(self) -> Optional[str]:
        """The task's name and the number of this call of it in the run, from 0."""
        task = _task()
        return "%s-%d" % (task.task.name, task.call) if task else None

    @property
    def task_name(self) -> Optional[str]:
        task = _task()
        return str(task.task.name) if task else None


def _task() -> Optional[recorder.TaskRun]:
    task = context.current_task()
    return task if task is not None and task.run is context.active else None


flow_run = FlowRun()
task_run = TaskRun()
