"""``get_run_logger()``: the logger of a run, and of a task in it, whose records are lines of that run.

There are two, ``perfect.flow_runs`` and ``perfect.task_runs``, ordinary loggers that pass their records on to the
root's handlers. A program may configure them; it cannot lose a run's lines by configuring others.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Callable, Dict, List, MutableMapping, Optional, Tuple

from perfect_client.core.context import current_run, task_here

if TYPE_CHECKING:
    from perfect_client.core.runs import Run, TaskRun

    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter

FLOW_RUNS, TASK_RUNS = "perfect.flow_runs", "perfect.task_runs"

# While a worker's run executes: what makes a record a line of it, unless it has become one already.
sink: Optional[Callable[[logging.LogRecord], Any]] = None
_silenced = 0
_outside = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
_known: Dict[str, logging.Logger] = {}


class _OfRuns(logging.Logger):
    """Never disabled, and with a place for its records also where nobody has set up logging."""

    @property  # type: ignore[override]
    def disabled(self) -> bool:
        return _silenced > 0

    @disabled.setter
    def disabled(self, value: bool) -> None:
        """``dictConfig`` disables every logger that it does not name, by default: that is not meant for these."""

    def callHandlers(self, record: logging.LogRecord) -> None:
        if self.hasHandlers():
            super().callHandlers(record)
        elif sink is None and sys.stderr is not None:
            sys.stderr.write(_outside.format(record) + "\n")
        if sink is not None:  # those above may have been configured away
            sink(record)


def _logger(name: str) -> logging.Logger:
    found = _known.get(name)
    if found is None:
        found = logging.getLogger(name)  # a configuration may have made it before, of a class of its own
        found.__class__ = type("RunLogger", (_OfRuns, type(found)), {})
        if found.level == logging.NOTSET:
            found.setLevel(logging.INFO)
        _known[name] = found
    return found


def loggers() -> List[logging.Logger]:
    """Both of them."""
    return [_logger(FLOW_RUNS), _logger(TASK_RUNS)]


class RunLogger(_Adapter):
    """Its records know their run: ``%(flow_run_name)s``, ``%(task_run_id)s``, … in a formatter; empty where unknown."""

    extra: Dict[str, Any]

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> Tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**self.extra, **(kwargs.get("extra") or {})}
        return msg, kwargs

    def getChild(self, suffix: str, extra: Optional[Dict[str, Any]] = None) -> RunLogger:
        """A logger below this one that knows the same run."""
        return RunLogger(self.logger.getChild(suffix), {**self.extra, **(extra or {})})


def logger_of(run: Optional[Run], task: Optional[TaskRun], extra: Optional[Dict[str, Any]] = None) -> RunLogger:
    """The logger of a task run, else of a run, else of neither; with these values in each record too."""
    known = {
        "flow_run_id": run.id if run is not None else "",
        "flow_run_name": run.name if run is not None else "",
        "flow_name": run.flow_name if run is not None else "",
        "task_run_id": task.id if task is not None else "",
        "task_run_name": task.name if task is not None else "",
        "task_name": task.task.name if task is not None else "",
        **(extra or {}),
    }
    return RunLogger(_logger(FLOW_RUNS if task is None else TASK_RUNS), known)


def get_run_logger(context: Any = None, **extra: Any) -> RunLogger:
    """The logger of the task that the code is in, else of the flow, or of a ``context`` that ``get_run_context`` gave;
    ``extra`` values stand in each of its records.

    What a thread is given keeps its task, and works there. Outside a run it writes to standard error.
    """
    if context is None:
        return logger_of(current_run(), task_here(), extra)
    task: Optional[TaskRun] = getattr(context, "task_run", None)
    return logger_of(task.run if task is not None else context.flow_run, task, extra)


class disable_run_logger:
    """Context manager: what is logged to run loggers inside it goes nowhere, as in a test of a task's function."""

    def __enter__(self) -> None:
        global _silenced
        _silenced += 1

    def __exit__(self, *exc: object) -> None:
        global _silenced
        _silenced -= 1
