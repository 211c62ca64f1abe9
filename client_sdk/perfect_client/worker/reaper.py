"""Which process is whose: what zygotes report, who died, who was orphaned, and what an earlier life left behind."""

from __future__ import annotations

import signal
import time
from functools import partial
from typing import Callable, Dict, Optional, Sequence, Set

from perfect_client.journal.journal import Entry
from perfect_client.system import procs
from perfect_client.system.channel import Message
from perfect_client.system.loop import Loop
from perfect_client.worker.attempt import RUNNING, STARTING, Attempt
from perfect_client.worker.crash_hooks import CrashHooks
from perfect_client.worker.launcher import Launcher
from perfect_client.worker.zygotes import Zygote

STARTING_S = 0.3  # what is left of a start when its zygote died is swept after so long
LEFT_BEHIND_S = 5.0


class Reaper:
    """Tells attempts what became of their processes. Its maker sets ``launcher`` and ``crash_hooks`` at once."""

    launcher: Launcher
    crash_hooks: CrashHooks

    def __init__(self, loop: Loop, attempts: Dict[int, Attempt]) -> None:
        self._loop, self._attempts = loop, attempts

    def leaders(self) -> Dict[int, Attempt]:
        """pid → attempt, of all that run."""
        return {attempt.entry.pid: attempt for attempt in self._attempts.values() if attempt.alive}

    def others(self) -> Set[int]:
        """The children of this process, now or after a zygote's death, that are nobody's orphans."""
        return set(self.launcher.all) | set(self.leaders())

    # -------------------------------------------------------------------------------------------------------- reports

    def reported(self, zygote: Zygote, message: Message) -> None:
        if self.crash_hooks.reported(message):
            return
        attempt = self._attempts.get(message["fence"]) or self.leaders().get(message.get("pid", 0))
        if attempt is not None:
            _REPORTS[message["event"]](self, zygote, attempt, message)

    def _forked(self, zygote: Zygote, attempt: Attempt, message: Message) -> None:
        if attempt.stage == STARTING:
            attempt.zygote = zygote
            attempt.forked(message["pid"], message["born"])

    def not_started(self, fence: int, error: str) -> None:
        """No process came to be for this attempt."""
        if self.crash_hooks.reported({"event": "failed", "fence": fence}):
            return
        attempt = self._attempts.get(fence)
        if attempt is not None:
            attempt.exited(None, "no process could be started: %s" % error)

    def _failed(self, zygote: Zygote, attempt: Attempt, message: Message) -> None:
        attempt.exited(None, "no process could be started: %s" % message["error"])

    def _exited(self, zygote: Zygote, attempt: Attempt, message: Message) -> None:
        self._gone(attempt, procs.Exited(message["pid"], message["status"], message["peak_kb"]))

    def _gone(self, attempt: Attempt, gone: Optional[procs.Exited], trouble: str = "") -> None:
        try:
            attempt.look()
        finally:  # a spool that cannot be read now must not keep its end a secret
            attempt.exited(gone, trouble)

    # --------------------------------------------------------------------------------------------------------- deaths

    def reap(self) -> None:
        """SIGCHLD: zygotes, runs whose zygote is gone, and orphans of runs."""
        for gone in procs.reap(self.others()):
            self._loop.guarded(partial(self._reaped, gone))  # nobody tells of the others a second time
        for attempt in list(self._attempts.values()):
            self._loop.guarded(attempt.sweep)

    def _reaped(self, gone: procs.Exited) -> None:
        leader = self.leaders().get(gone.pid)
        if gone.pid in self.launcher.all:
            self.launcher.died(gone)
        elif leader is not None:
            self._gone(leader, gone)

    def orphaned(self, zygote: Zygote) -> None:
        """A zygote is dead: its runs are this process's own children now, unless they ended unreported."""
        for attempt in list(self._attempts.values()):
            if attempt.zygote is zygote and attempt.stage in (STARTING, RUNNING):
                self._loop.after(STARTING_S, lambda attempt=attempt: self._check(attempt))  # type: ignore[misc]

    def _check(self, attempt: Attempt) -> None:
        if attempt.stage == STARTING:
            self._gone(attempt, None, "the process that starts runs ended while it started this one")
        elif attempt.stage == RUNNING and procs.born(attempt.entry.pid) != attempt.entry.born:
            self._gone(attempt, None)


def end_what_was_left(worker: str, entries: Sequence[Entry]) -> None:
    """Kill the processes of an earlier life of this worker, and wait until they are gone (at most 5 s)."""
    give_up = time.monotonic() + LEFT_BEHIND_S
    while kill_what_was_left(worker, entries) and time.monotonic() < give_up:
        time.sleep(0.01)  # nothing else is served yet


def kill_what_was_left(worker: str, entries: Sequence[Entry]) -> bool:
    """Kill the processes of these attempts; False when there is none, and their zygotes have counted what is lost."""
    attempts = {
        entry.order.fence: entry.pid if entry.pid and procs.born(entry.pid) == entry.born else 0 for entry in entries
    }
    left = procs.processes_left_behind(worker, attempts) if entries else set()
    for pid in left:
        procs.send(pid, signal.SIGKILL)
    return bool(left or procs.processes_named({procs.zygote_name(entry.boot) for entry in entries}))


_REPORTS: Dict[str, Callable[[Reaper, Zygote, Attempt, Message], None]] = {
    "forked": Reaper._forked,
    "failed": Reaper._failed,
    "exited": Reaper._exited,
}
