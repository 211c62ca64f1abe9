"""Who hears what happens in a flow that is called directly: a test, the display of a flow file, or nobody."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Callable, Optional

if TYPE_CHECKING:
    from perfect_client.core.runs import Emit, Run  # heavy at run time: every program loads this module

SETTING = "PERFECT_CONSOLE"
OFF, ON = ("0", "off", "no", "false"), ("1", "on", "yes", "true", "plain", "live")

listener: Optional[Callable[[Run], Optional[Emit]]] = None  # of a test, which hears instead of everybody else
program: Optional[Callable[[Run], Optional[Emit]]] = None  # for a flow file that is run by itself
_BORN = os.getpid()  # in a forked child nobody listens: the display belongs to its parent


def find_listener(run: Run) -> Optional[Emit]:
    """Where the facts of this run go, whose flow was called outside of any other run; None: nowhere."""
    if listener is not None:
        return listener(run)
    if program is None or os.getpid() != _BORN or not (is_program(run.flow) or _setting() in ON):
        return None
    return program(run)


def is_program(flow: Any) -> bool:
    """Whether the flow stands in the file that this Python was started with."""
    return getattr(flow, "__module__", "") == "__main__" and hasattr(sys.modules.get("__main__"), "__file__")


def _setting() -> str:
    return os.environ.get(SETTING, "").strip().lower()


def display_mode() -> str:
    """``live`` (lines that redraw, on a terminal), ``plain`` (line after line) or nothing; by ``PERFECT_CONSOLE``."""
    wanted = _setting()
    if wanted in OFF or sys.stderr is None or sys.stderr.closed:
        return ""
    if wanted in ("plain", "live"):
        return wanted
    return "live" if sys.stderr.isatty() and os.environ.get("TERM", "") != "dumb" else "plain"
