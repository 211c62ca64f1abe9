"""What programs written for Prefect import from ``prefect.logging.loggers``."""

from __future__ import annotations

import logging
from typing import Any, Optional

from perfect_client.core.run_logger import RunLogger, disable_run_logger, get_run_logger, logger_of

__all__ = ["disable_run_logger", "flow_run_logger", "get_logger", "get_run_logger", "task_run_logger"]


def get_logger(name: Optional[str] = None) -> logging.Logger:
    """The logger ``perfect``, or one below it."""
    return logging.getLogger("perfect.%s" % name if name and not name.startswith("perfect") else name or "perfect")


def flow_run_logger(flow_run: Any, flow: Any = None, **extra: Any) -> RunLogger:
    """The logger of a run, as hooks are given one; ``extra`` values stand in each record."""
    return logger_of(flow_run, None, extra)


def task_run_logger(task_run: Any, task: Any = None, flow_run: Any = None, flow: Any = None, **extra: Any) -> RunLogger:
    """The logger of a task run, as hooks are given one; ``extra`` values stand in each record."""
    return logger_of(task_run.run, task_run, extra)
