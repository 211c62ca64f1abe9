"""How a worker ends: it drains, then stops its runs, then kills them. Each signal takes the next step."""

from __future__ import annotations

import math
import signal
from typing import Callable, Dict, List, Optional

from perfect_client.system.loop import Loop
from perfect_client.worker.attempt import OFFERED, Attempt
from perfect_client.worker.crash_hooks import CrashHooks

WORKER_STOPPED = "the worker was stopped"


def drain_after(number: int, drain_s: Optional[float]) -> float:
    """How long, in seconds, runs may go on after the first signal: as ``--drain`` says, else by the signal.

    SIGTERM is what service managers and upgrades send, who can wait; Ctrl+C and a closed terminal are a person's.
    """
    if drain_s is not None:
        return drain_s
    return math.inf if number == signal.SIGTERM else 0.0


class Shutdown:
    """``note`` prints a sentence; ``decline(attempt)`` gives back what was offered and not started."""

    def __init__(
        self,
        loop: Loop,
        attempts: Dict[int, Attempt],
        crash_hooks: CrashHooks,
        drain_s: Optional[float],
        grace_s: float,
        note: Callable[[str], None],
        decline: Callable[[Attempt], None],
    ) -> None:
        self._loop, self._attempts, self._crash_hooks = loop, attempts, crash_hooks
        self._drain_s, self._grace_s = drain_s, grace_s
        self._note, self._decline = note, decline
        self.begun = self.draining = False
        self._stopped = False
        self._left = 0

    def signalled(self, number: int) -> None:
        """SIGTERM, SIGINT or SIGHUP has come."""
        limit = drain_after(number, self._drain_s)
        if self._stopped:
            self._kill()
        elif not self.begun and limit > 0 and self._busy():
            self._drain(limit)
        else:
            self._stop()

    def _busy(self) -> List[Attempt]:
        return [attempt for attempt in self._attempts.values() if attempt.busy]

    def _drain(self, limit: float) -> None:
        self.begun = self.draining = True
        self._left = len(self._busy())
        how_long = "" if limit == math.inf else ", for at most %g s" % limit
        self._note(
            "draining: no new run is taken; waiting for %s%s (once more stops them)" % (_runs(self._left), how_long)
        )
        if limit < math.inf:
            self._loop.after(limit, self._stop)

    def count(self) -> None:
        """Tell how many runs are waited for, when it has changed."""
        left = len(self._busy())
        if self.draining and not self._stopped and 0 < left < self._left:
            self._note("draining: %s left" % _runs(left))
        self._left = left

    def _stop(self) -> None:
        if self._stopped:
            return
        self.begun = self._stopped = True
        self._crash_hooks.hurry()
        busy = self._busy()
        if busy:
            self._note("stopping; %s get %g s (once more kills them)" % (_runs(len(busy)), self._grace_s))
        for attempt in busy:
            if attempt.stage == OFFERED:
                self._decline(attempt)
            else:
                attempt.stop(WORKER_STOPPED, self._grace_s)

    def _kill(self) -> None:
        for attempt in self._busy():
            attempt.kill()
        self._crash_hooks.kill()


def _runs(count: int) -> str:
    return "1 run" if count == 1 else "%d runs" % count
