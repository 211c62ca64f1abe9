"""Perfect's SDK: decorate plain functions, run them by a worker, or call them as the functions they stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfect_client import runtime
from perfect_client.decorators import Flow, Task, flow, task
from perfect_client.errors import BadParameter, Cancelled, ConfigurationError
from perfect_client.reporting import progress
from perfect_client.runlog import get_run_logger
from perfect_client.schedules import CronSchedule, IntervalSchedule

if TYPE_CHECKING:
    from perfect_client.worker import serve

__version__ = "0.1.0"
__all__ = [
    "BadParameter", "Cancelled", "ConfigurationError", "CronSchedule", "Flow", "IntervalSchedule", "Task", "flow",
    "get_run_logger", "progress", "runtime", "serve", "task",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """``serve`` loads the worker, with its sockets, only when it is asked for (PEP 562)."""
    if name != "serve":
        raise AttributeError("module %r has no attribute %r" % (__name__, name))
    from perfect_client.worker import serve  # heavy, and no program that only defines flows needs it

    globals()[name] = serve
    return serve
