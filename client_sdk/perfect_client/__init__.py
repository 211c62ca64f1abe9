"""Perfect's SDK: decorate plain functions, run them by a worker, or call them as the functions they stay."""

# ruff: noqa: E402

from __future__ import annotations

import sys

# ``python -m`` (sys.argv[0] is "-m" while it looks for the module) puts the current folder first. What the user has
# there, as ``logging.py``, must not stand in for the standard library while the SDK imports it.
_first = sys.path.pop(0) if sys.argv[:1] == ["-m"] and not getattr(sys.flags, "safe_path", False) else None

from typing import TYPE_CHECKING, Any, Dict, Optional

from perfect_client.caching import remembering, transacting
from perfect_client.core import listeners, middleware, runtime
from perfect_client.core.context import tags
from perfect_client.core.progress import progress
from perfect_client.core.run_logger import disable_run_logger, get_run_logger
from perfect_client.core.schedules import CronSchedule, IntervalSchedule
from perfect_client.engine.decorators import Flow, Task, flow, task
from perfect_client.errors import BadParameter, Cancelled, ConfigurationError

if _first is not None:
    sys.path.insert(0, _first)

middleware.FACTORIES += [remembering.make_middleware, transacting.make_middleware]  # what may surround a call of a task

if TYPE_CHECKING:
    from perfect_client.artifacts import (
        create_image_artifact,
        create_link_artifact,
        create_markdown_artifact,
        create_plot_artifact,
        create_progress_artifact,
        create_table_artifact,
        update_progress_artifact,
    )
    from perfect_client.caching.transactions import Transaction
    from perfect_client.core.annotations import allow_failure, opaque, quote, unmapped
    from perfect_client.core.runs import Emit, Run
    from perfect_client.core.states import State
    from perfect_client.questions.forms import RunInput
    from perfect_client.questions.pauses import apause_flow_run, aresume_flow_run, pause_flow_run, resume_flow_run
    from perfect_client.questions.variables import Variable
    from perfect_client.schema.fields import Field
    from perfect_client.schema.secrets import Secret
    from perfect_client.worker.main import serve

__version__ = "0.2.0"
__all__ = [
    "BadParameter",
    "Cancelled",
    "ConfigurationError",
    "CronSchedule",
    "Field",
    "Flow",
    "IntervalSchedule",
    "RunInput",
    "Secret",
    "State",
    "Task",
    "Transaction",
    "Variable",
    "allow_failure",
    "apause_flow_run",
    "aresume_flow_run",
    "create_image_artifact",
    "create_link_artifact",
    "create_markdown_artifact",
    "create_plot_artifact",
    "create_progress_artifact",
    "create_table_artifact",
    "disable_run_logger",
    "flow",
    "get_run_logger",
    "opaque",
    "pause_flow_run",
    "progress",
    "quote",
    "resume_flow_run",
    "runtime",
    "serve",
    "tags",
    "task",
    "unmapped",
    "update_progress_artifact",
]

# What is loaded only when it is asked for (PEP 562): a program that only defines flows needs none of it.
_LATER: Dict[str, str] = {
    "serve": "worker.main",
    "RunInput": "questions.forms",
    "Variable": "questions.variables",
    "State": "core.states",
    "Transaction": "caching.transactions",
    "Field": "schema.fields",
    "Secret": "schema.secrets",
    **dict.fromkeys(("apause_flow_run", "aresume_flow_run", "pause_flow_run", "resume_flow_run"), "questions.pauses"),
    **dict.fromkeys(("allow_failure", "opaque", "quote", "unmapped"), "core.annotations"),
    **dict.fromkeys([name for name in __all__ if name.endswith("_artifact")], "artifacts"),
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError("module %r has no attribute %r" % (__name__, name))
    from importlib import import_module  # heavy: with the module that it loads

    found = globals()[name] = getattr(import_module("perfect_client." + _LATER[name]), name)
    return found


def _program(run: Run) -> Optional[Emit]:
    from perfect_client.console import excepthook  # heavy: only for a flow file that is run by itself

    excepthook.install()
    if not listeners.display_mode():
        return None
    from perfect_client.console.display import listen  # heavy, too

    return listen(run)


listeners.program = _program
