"""What Python prints of an error that left a flow file which runs by itself: whose it is, and the user's frames.

``PERFECT_TRACEBACK=full`` and ``python -X dev`` show every frame. A program that has an ``excepthook`` of its own keeps
it.
"""

from __future__ import annotations

import os
import sys
from types import CodeType
from typing import Any, Dict, List, Tuple

from perfect_client.core import listeners
from perfect_client.core.previews import hide_own_frames, is_own_frame

SETTING = "PERFECT_TRACEBACK"


def install() -> None:
    """Be the program's ``excepthook``, unless it has one or wants to see everything."""
    wants_all = sys.flags.dev_mode or os.environ.get(SETTING, "").strip().lower() in ("full", "1")
    if sys.excepthook is sys.__excepthook__ and not wants_all:
        sys.excepthook = _hook


def _hook(kind: Any, error: BaseException, trace: Any) -> None:
    frames = _frames(trace)
    hidden = sum(is_own_frame(frame) for frame, _ in frames)
    if not hidden or sys.stderr is None:
        return sys.__excepthook__(kind, error, trace)
    flow, task = _whose(frames)
    if isinstance(error, KeyboardInterrupt) and flow is not None:
        if not listeners.display_mode():  # else the display has said so
            sys.stderr.write("Flow %r was stopped.\n" % flow.name)
        return None
    hide_own_frames(error)
    owner = task or flow
    if owner is not None:
        sys.stderr.write("%s\n\n" % _header(flow, task, _place(owner.code, frames)))
    sys.__excepthook__(kind, error, error.__traceback__)
    number = "%d frame%s" % (hidden, "" if hidden == 1 else "s")
    sys.stderr.write("(%s of perfect_client not shown; %s=full shows them)\n" % (number, SETTING))


Frames = List[Tuple[Any, int]]  # with the line in each


def _frames(trace: Any) -> Frames:
    """From the program down to where the error was raised."""
    found: Frames = []
    while trace is not None:
        found.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    return found


def _whose(frames: Frames) -> Tuple[Any, Any]:
    """The outermost flow and the innermost task, by what our own frames were called with."""
    flow = task = None
    for frame, _ in frames:
        if not is_own_frame(frame):
            continue
        given: Dict[str, Any] = frame.f_locals
        for one in (given.get("flow"), given.get("called"), given.get("task")):
            kind = getattr(one, "kind", "")
            flow = flow or (one if kind == "flow" else None)
            task = one if kind == "task" else task
    return flow, task


def _place(code: CodeType, frames: Frames) -> str:
    """``file:line`` where the function was when it failed, else where it begins."""
    line = getattr(code, "co_firstlineno", 0)
    for frame, at in frames:
        line = at if frame.f_code is code else line
    file, here = getattr(code, "co_filename", "?"), os.getcwd() + os.sep
    return "%s:%d" % (file[len(here) :] if file.startswith(here) else file, line)


def _header(flow: Any, task: Any, place: str) -> str:
    if flow is None:
        return "Task %r failed at %s" % (task.name, place)
    within = " in task %r" % task.name if task is not None else ""
    return "Flow %r failed%s at %s" % (flow.name, within, place)
