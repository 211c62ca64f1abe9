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
        run = context.current_run()
        return run.id if run else None

    @property
    def flow_name(self) -> Optional[str]:
        run = context.current_run()
        return run.flow_name if run else None

    @property
    def name(self) -> Optional[str]:
        """From ``flow_run_name``, else the flow's name and the first letters of the run's id."""
        run = context.current_run()
        return run.name if run else None

    @property
    def parameters(self) -> Dict[str, Any]:
        """The values that the flow was called with, defaults included."""
        run = context.current_run()
        return dict(run.parameters) if run else {}

    @property
    def tags(self) -> List[str]:
        run = context.current_run()
        return list(run.tags) if run else []

    @property
    def configuration(self) -> Configuration:
        """The chosen configuration; in a direct call the flow's first one."""
        run = context.current_run()
        return run.configuration if run else Configuration()

    @property
    def attempt(self) -> Optional[int]:
        """1 for the first attempt."""
        run = context.current_run()
        return run.attempt if run else None

    @property
    def parent_flow_run_id(self) -> Optional[str]:
        """The id of the run in which this flow was called; None for a run that no flow called."""
        run = context.current_run()
        return run.above.id if run and run is not run.root else None  # type: ignore[attr-defined]

    @property
    def root_flow_run_id(self) -> Optional[str]:
        """The id of the outermost run around this one; its own, where no flow called it."""
        run = context.current_run()
        return run.root.id if run else None

    @property
    def run_count(self) -> int:
        """How often the flow's function was called in this run: more than once with ``retries``."""
        run = context.current_run()
        return run.run_count if run else 0


class TaskRun:
    """The innermost current run of a task."""

    @property
    def id(self) -> Optional[str]:
        """Unique: the run's id, its attempt and the number of this task run in it."""
        task = _task()
        return task.id if task else None

    @property
    def name(self) -> Optional[str]:
        """From ``task_run_name``, else the task's name and the number of this call of it in the run, from 0."""
        task = _task()
        return task.name if task else None

    @property
    def task_name(self) -> Optional[str]:
        task = _task()
        return str(task.task.name) if task else None

    @property
    def parameters(self) -> Dict[str, Any]:
        """The arguments by name, for a task that has options as retries or a name of its own."""
        task = _task()
        return task.parameters if task else {}

    @property
    def run_count(self) -> int:
        """How often the task's function was called for this call: more than once with ``retries``."""
        task = _task()
        return task.run_count if task else 0


def _task() -> Optional[recorder.TaskRun]:
    task = context.current_task()
    return task if task is not None and task.task.kind == "task" and not task.run.closed else None


flow_run = FlowRun()
task_run = TaskRun()
