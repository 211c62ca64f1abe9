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
    from perfect_client.hiding import Secret
    from perfect_client.parameters import Field
    from perfect_client.worker import serve

# Heavy, or not needed by a program that only defines flows: loaded when first asked for (PEP 562).
_LAZY = {
    "Field": "perfect_client.parameters",
    "Secret": "perfect_client.hiding",
    "serve": "perfect_client.worker",
}

__version__ = "0.1.0"
__all__ = [
    "BadParameter", "Cancelled", "ConfigurationError", "CronSchedule", "Field", "Flow", "IntervalSchedule", "Secret",
    "Task", "flow", "get_run_logger", "progress", "runtime", "serve", "task",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError("module %r has no attribute %r" % (__name__, name))
    import importlib  # heavy for a program that never asks

    globals()[name] = found = getattr(importlib.import_module(_LAZY[name]), name)
    return found
