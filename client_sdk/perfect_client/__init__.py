"""Perfect's SDK: decorate plain functions, run them by a worker, or call them as the functions they stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict

from perfect_client import remembering as remembering  # notes its part before the first task is decorated
from perfect_client import runtime
from perfect_client.decorators import Flow, Task, flow, task
from perfect_client.errors import BadParameter, Cancelled, ConfigurationError
from perfect_client.reporting import progress
from perfect_client.runlog import get_run_logger
from perfect_client.schedules import CronSchedule, IntervalSchedule

if TYPE_CHECKING:
    from perfect_client.annotations import allow_failure, opaque, quote, unmapped
    from perfect_client.hiding import Secret
    from perfect_client.parameters import Field
    from perfect_client.states import State
    from perfect_client.worker import serve

__version__ = "0.1.0"
__all__ = [
    "BadParameter", "Cancelled", "ConfigurationError", "CronSchedule", "Field", "Flow", "IntervalSchedule", "Secret",
    "State", "Task", "allow_failure", "flow", "get_run_logger", "opaque", "progress", "quote", "runtime", "serve",
    "task", "unmapped",
]  # fmt: skip

# What is loaded only when it is asked for (PEP 562): a program that only defines flows needs none of it.
_LATER: Dict[str, str] = {
    "serve": "worker",
    "State": "states",
    "Field": "parameters",
    "Secret": "hiding",
    **dict.fromkeys(("allow_failure", "opaque", "quote", "unmapped"), "annotations"),
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError("module %r has no attribute %r" % (__name__, name))
    from importlib import import_module  # heavy: with the module that it loads

    found = globals()[name] = getattr(import_module("perfect_client." + _LATER[name]), name)
    return found
