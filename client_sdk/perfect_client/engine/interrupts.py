"""A run is to stop: what it runs in threads of its task runners hears of it as well, and may tidy up.

``Cancelled`` is raised in such a thread where it runs code of the user, never in ours, which would be left half done.
A thread that blocks in C hears of it when it returns to Python; the supervisor ends the process when the grace is over.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, Optional, Set

from perfect_client.core import deadlines
from perfect_client.engine.futures import _worker
from perfect_client.errors import Cancelled

PATIENCE_S = 3.0  # in a direct call, where no supervisor ends what does not hear; a second Ctrl+C does not wait
_LOOK_S = 0.005


class Interruption:
    """The end of all that a run has submitted, its sub-flows included."""

    def __init__(self, run: Any) -> None:
        self._root = run.root
        self._told: Set[int] = set()  # by the identity of a job: each hears of it once
        self._until = None if run.guard is not None else time.monotonic() + PATIENCE_S

    def tell(self) -> bool:
        """Tell those that can be told now; whether any is still running."""
        running = False
        for runner in list(self._root.runners.values()):
            runner.stop()
            for thread, job in runner.interrupt():
                if id(job) not in self._told and raise_in(thread):
                    self._told.add(id(job))
            running = running or bool(runner.unfinished())
        return running

    def wait(self) -> None:
        """Until all have ended; in a direct call not for ever."""
        while self.tell() and (self._until is None or time.monotonic() < self._until):
            time.sleep(_LOOK_S)


def interruption_of(run: Any, error: BaseException) -> Optional[Interruption]:
    """What is to be done about it: nothing for an error that is no stop of the process, or that is told already."""
    told = getattr(_worker, "pool", None) is not None or getattr(_worker, "loop", False)
    return Interruption(run) if isinstance(error, KeyboardInterrupt) and run.root.runners and not told else None


def raise_in(thread: int) -> bool:
    """Raise ``Cancelled`` in another thread, or in the one that it waits for. False: not at this moment.

    The caller has just come from a sleep: for the next milliseconds (``sys.getswitchinterval``) nobody takes the
    interpreter from it, so that the thread still stands where it was seen.
    """
    import ctypes  # heavy, for a rare moment

    thread = deadlines.helper_of(thread)
    frame = sys._current_frames().get(thread)
    if frame is None or thread == threading.get_ident() or not deadlines.may_interrupt(frame):
        return False
    del frame
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Cancelled))
    return True
