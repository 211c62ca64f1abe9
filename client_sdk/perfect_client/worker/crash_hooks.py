"""A run ended without its own word: have a small process call the hooks of its flow that hear of such an end.

The run is over before, so the process takes no slot and delays nothing. What it prints belongs to the run's log. It is
killed when its time is over, and what becomes of it changes nothing. It is started at most once: the journal says so
before, and a worker that is killed in between has it started in its next life.
"""

from __future__ import annotations

import signal
from typing import Any, Callable, Dict, List, Optional, Sequence

from perfect_client.journal import journal
from perfect_client.system import procs
from perfect_client.system.channel import Message
from perfect_client.system.loop import Timer
from perfect_client.wire import messages
from perfect_client.worker.attempt import DRAIN_S, FULL_DISK_S, Attempt, AttemptContext
from perfect_client.worker.launcher import Launcher
from perfect_client.worker.pipes import STDERR_LEVEL

SHORTEST_S = 1.0
HURRY_S = 5.0  # when the worker is stopping
UNREPORTED_S = 1.0  # from the kill to the end, should nobody report it


def how_it_ended(fact: messages.ProcessExited, began: float) -> Dict[str, Any]:
    """What the small process is told."""
    state = "CANCELLED" if fact.cancelled else "FAILED" if fact.timed_out else "CRASHED"
    name = "TimedOut" if state == "FAILED" else ""
    return {"state": state, "name": name, "reason": fact.reason, "began": began}


class CrashHooks:
    """The processes that call hooks, one a run. ``launcher`` is set right after it was made."""

    launcher: Launcher

    def __init__(self, limit_s: float, note: Callable[[str], None]) -> None:
        self.limit_s = max(SHORTEST_S, limit_s)
        self._note = note
        self._known: Dict[int, HookProcess] = {}  # by fence

    @property
    def running(self) -> bool:
        """Whether there is something to wait for. What waits for the flows to be imported, or for room on the disk,
        waits for the next life."""
        ready = self.launcher.settled
        return any(process.begun or (ready and not process.delayed) for process in self._known.values())

    def over(self, shared: AttemptContext, attempt: Attempt) -> None:
        """The attempt is final. Its journal is kept until its hooks were called, if there may be any to call."""
        ended = self._wanted(shared, attempt)
        if ended is None or attempt.fence in self._known:
            return
        attempt.kept = True
        process = self._known[attempt.fence] = HookProcess(shared, attempt, ended, self._done, self._note)
        self._start(process, 0.0)

    def _start(self, process: HookProcess, after_s: float) -> None:
        fence, flow = process.attempt.fence, process.attempt.entry.order.flow
        process.shared.loop.after(after_s, lambda: self.launcher.start(fence, flow, lambda: self._begin(process)))

    @staticmethod
    def _wanted(shared: AttemptContext, attempt: Attempt) -> Optional[Dict[str, Any]]:
        """How it ended; None if the flow has told its hooks itself, or if its code had not begun."""
        fact = attempt.exit
        if fact is None or attempt.entry.ended is not None or not attempt.has_begun:
            return None
        ended = how_it_ended(fact, attempt.began_at)
        begun = journal.hook_state(attempt.run, ended["state"]) in journal.read_hook_states(
            shared.folder.beside(attempt.fence, "hooks")
        )
        return None if begun else ended

    def _begin(self, process: HookProcess) -> Optional[Sequence[int]]:
        if process.attempt.entry.order.flow not in self.launcher.flows:
            self._done(process)
            return None
        pipes = process.begin(self.limit_s)
        if pipes is None:
            self._start(process, FULL_DISK_S)
        return pipes

    def _done(self, process: HookProcess) -> None:
        self._known.pop(process.attempt.fence, None)
        process.attempt.release()

    def reported(self, message: Message) -> bool:
        """A zygote's word; False if it is about no process of these. One in reserve may end before its zygote hears
        whose it has become: then its number alone tells."""
        known, pid = self._known.values(), message.get("pid", 0)
        process = self._known.get(message["fence"]) or next((one for one in known if pid and one.pid == pid), None)
        if process is None or not process.begun:
            return False
        process.reported(message)
        return True

    def hurry(self) -> None:
        """The worker stops."""
        self.limit_s = min(self.limit_s, HURRY_S)
        for process in list(self._known.values()):
            process.limit(self.limit_s)

    def kill(self) -> None:
        for process in list(self._known.values()):
            process.limit(0.0)


class HookProcess:
    """One such process, from its order to the end of its output."""

    def __init__(
        self,
        shared: AttemptContext,
        attempt: Attempt,
        ended: Dict[str, Any],
        done: Callable[[HookProcess], None],
        note: Callable[[str], None],
    ) -> None:
        self.shared, self.attempt, self._ended, self._done, self._note = shared, attempt, ended, done, note
        self.begun = self.delayed = False
        self._over = False
        self.pid = 0
        self._gone = False
        self._timers: List[Timer] = []

    def begin(self, limit_s: float) -> Optional[Sequence[int]]:
        """Its pipes, at the moment in which they are handed to it. None while the journal cannot be written: without
        its line the process would take the order for a start, and run the flow once more."""
        self.attempt.entry.ended = self._ended
        try:
            self.attempt.write()
        except OSError:
            self.attempt.entry.ended, self.delayed = None, True
            return None
        self.begun = True
        self.limit(limit_s)
        return self.attempt.open_pipes_again(self._drained)

    def limit(self, seconds: float) -> None:
        """Kill the process unless it ends in time."""
        if self.begun and not self._gone:
            self._later(seconds, lambda: self._kill(seconds))

    def reported(self, message: Message) -> None:
        if message["event"] == "forked":
            self.pid = message["pid"]
        else:
            self._exited()

    def _exited(self) -> None:
        if not self._gone:
            self._gone = True
            self._send_kill()  # to what it has left behind
            self._later(DRAIN_S, self._end)
            self._end_when_quiet()

    def _kill(self, seconds: float) -> None:
        if self._gone or self._over:
            return
        text = "the hooks of this run's end were killed after %g s" % seconds
        self._note(text)
        self.attempt.add_line(text, STDERR_LEVEL)
        self._send_kill()
        self._later(UNREPORTED_S, self._exited)

    def _send_kill(self) -> None:
        if self.pid:
            procs.send_group(self.pid, signal.SIGKILL)
            if not self._gone:
                procs.send(self.pid, signal.SIGKILL)
        else:
            self.attempt.close_lifeline()

    def _drained(self) -> None:
        if self._gone:
            self._end_when_quiet()

    def _end_when_quiet(self) -> None:
        if self.attempt.is_quiet:
            self._end()

    def _end(self) -> None:
        if self._over:
            return
        self._over = True
        for timer in self._timers:
            timer.cancel()
        self.attempt.close_pipes_again()
        self._done(self)

    def _later(self, seconds: float, callback: Callable[[], None]) -> None:
        self._timers.append(self.shared.loop.after(seconds, callback))
