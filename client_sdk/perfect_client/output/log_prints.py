"""``log_prints``: in a direct call, what the code prints is logged to the run's logger.

In a worker's run nothing is done: there all that is printed becomes lines anyway, once, with its task.
"""

from __future__ import annotations

import builtins
import io
import logging
import sys
import threading
from typing import Any

from perfect_client.core import context, run_logger

_lock = threading.Lock()
_calls = 0  # under way that ask for it: while there are any, ``print`` is ours
_real = builtins.print


def begin(owner: Any) -> bool:
    """A call of a flow or task begins; whether ``end`` is to be called after it."""
    global _calls, _real
    if not owner.log_prints or context.active is not None:
        return False
    with _lock:
        if not _calls:
            _real, builtins.print = builtins.print, _print
        _calls += 1
    return True


def end() -> None:
    """It is over."""
    global _calls
    with _lock:
        _calls -= 1
        if not _calls and builtins.print is _print:
            builtins.print = _real


def _wanted() -> bool:
    task, run = context.task_here(), context.innermost.get()
    return task.log_prints if task is not None else run is not None and run.log_prints


def _print(*values: Any, **options: Any) -> None:
    file = options.get("file")
    level = logging.WARNING if file is sys.stderr else logging.INFO
    ours = (file is None or file is sys.stdout or file is sys.stderr) and _wanted()
    logger = run_logger.get_run_logger() if ours else None
    if logger is None or not logger.isEnabledFor(level):
        return _real(*values, **options)
    text = io.StringIO()
    _real(*values, **{**options, "file": text})
    told = text.getvalue()
    told = told[:-1] if told.endswith("\n") else told
    logger.logger.log(level, told, extra=logger.extra, stacklevel=2)  # from the line that prints
