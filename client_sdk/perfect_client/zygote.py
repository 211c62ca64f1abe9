"""The process that has imported the flows; every run is a fork of it.

It is single-threaded and does nothing but import once, announce, fork, reap and report. Messages (``Channel``):
from the supervisor ``{"start": fence}`` with the run's stdout, stderr, lifeline and answers, ``{"used": pid, "fence":
fence}`` and ``{"retire": true}``; to the supervisor ``importing``, ``flows``, ``standby`` (with the socket on which the
child in reserve waits for its ``start``), ``forked``, ``failed`` and ``exited``.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import threading
from collections import deque
from typing import Any, Deque, Dict, List, NoReturn, Optional, Sequence, Tuple, Union

from perfect_client import child, describe, loader, procs, protocol, sources
from perfect_client.channel import Channel
from perfect_client.errors import function_place
from perfect_client.hiding import of_this_process

_REMEMBERED = 1000  # ended attempts
STANDBY_AFTER_S = 0.05  # without an order
WARM_UPS = 20  # CPython specialises code after 8 to 16 calls

Born = Union[child.Start, Channel]  # a child with its order, or one in reserve with the channel to wait on


class Zygote:
    """State of the process."""

    def __init__(self, control: Channel, bell: int, worker: str, runs: str, targets: Sequence[str]) -> None:
        self.control, self.bell, self.worker, self.runs = control, bell, worker, runs
        self.targets = list(targets)
        self.flows: Dict[str, Any] = {}
        self.children: Dict[int, int] = {}  # pid → fence
        self.ended: Deque[int] = deque(maxlen=_REMEMBERED)  # fences whose end was told, maybe to nobody
        self.standby = 0  # pid of the one in reserve
        self._wakeup: Tuple[int, int] = (-1, -1)

    # ---------------------------------------------------------------------------------------------------- importing

    def load(self) -> None:
        """Import all targets and announce their flows. What does not import is a sentence in ``problems``."""
        problems: List[str] = []
        for target in self.targets:
            self.control.send({"event": "importing", "target": target})
            loaded = loader.load(target)
            problems.extend(loaded.problems)
            for flow in loaded.flows:
                known = self.flows.setdefault(flow.name, flow)
                if known.identity != flow.identity:
                    places = function_place(known.fn), function_place(flow.fn)
                    problems.append("Two flows are named %r: %s and %s; the first one is used." % (flow.name, *places))
        specs = []
        for name, flow in list(self.flows.items()):
            try:
                specs.append(protocol.to_dict(describe.flow_spec(flow)))
            except Exception as wrong:
                del self.flows[name]
                problems.append("the flow '%s' cannot be described: %s: %s" % (name, type(wrong).__name__, wrong))
        self.control.send(
            {
                "event": "flows",
                "flows": specs,
                "problems": [of_this_process.without(problem) for problem in problems],
                "files": sources.watched(self.targets),
                "threads": threading.active_count() - 1,
            }
        )

    # ------------------------------------------------------------------------------------------------------ serving

    def serve(self) -> Optional[Born]:
        """Fork a child for each start, and one in reserve. Returns in the child, as what it was born; None when told
        to retire."""
        self._listen_for_children()
        wait_for = [self.control.fileno(), self._wakeup[0]]
        while True:
            ready = select.select(wait_for, [], [], None if self.standby else STANDBY_AFTER_S)[0]
            born: Optional[Born] = None
            if not ready:
                born = self._fork_standby()
            if self._wakeup[0] in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wakeup[0], 4096)
                self._report_the_dead()
            if self.control.fileno() in ready:
                for message, fds in self.control.receive():
                    if message.get("retire"):
                        return None
                    born = born or self._obey(message, fds)
            if born is not None:
                return born

    def _listen_for_children(self) -> None:
        """After the imports, since imported code may have taken the signal for itself."""
        self._wakeup = os.pipe()
        for fd in self._wakeup:
            os.set_blocking(fd, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        self._report_the_dead()

    def _report_the_dead(self) -> None:
        for gone in procs.reap(set(self.children) | {self.standby}):
            fence = self.children.get(gone.pid, 0)
            if gone.pid == self.standby:
                self.standby = 0
            self.control.send(
                {"event": "exited", "fence": fence, "pid": gone.pid, "status": gone.status, "peak_kb": gone.peak_kb}
            )
            if self.children.pop(gone.pid, None) is not None:
                self.ended.append(fence)

    def _obey(self, message: Dict[str, Any], fds: List[int]) -> Optional[Born]:
        if "used" in message:  # the supervisor gave the one in reserve its order
            if message["used"] == self.standby:
                self.children[self.standby], self.standby = int(message["fence"]), 0
            return None
        fence = int(message["start"])
        try:
            pid = self._fork()
        except OSError as wrong:
            self.control.send({"event": "failed", "fence": fence, "error": str(wrong)})
            pid = -1
        if pid == 0:
            return child.Start(fence, *fds)
        if pid > 0:
            self.children[pid] = fence
            self.control.send({"event": "forked", "fence": fence, "pid": pid, "born": procs.born(pid)})
        for fd in fds:
            os.close(fd)
        return None

    def _fork_standby(self) -> Optional[Born]:
        """In reserve: forked while nothing else is to do, it has only to be told what to run, by the supervisor."""
        theirs, ours = socket.socketpair()
        with theirs, contextlib.ExitStack() as stack:
            stack.callback(ours.close)
            try:
                pid = self._fork()
            except OSError:
                return None
            if pid == 0:
                stack.pop_all()
                return Channel(ours)
            self.standby = pid
            self.control.send({"event": "standby", "pid": pid, "born": procs.born(pid)}, [theirs.fileno()])
            return None

    def _fork(self) -> int:
        for stream in (sys.stdout, sys.stderr):  # or the child would write our half-full buffers once more
            with contextlib.suppress(Exception):
                stream.flush()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for fd in self._wakeup:
                os.close(fd)
            self.control.close()
        return pid

    def sweep(self) -> None:
        """The supervisor is gone: the kernel has killed the runs' groups, this ends what had left its group."""
        attempts = dict.fromkeys(self.ended, 0)
        attempts.update((fence, pid) for pid, fence in self.children.items())
        for pid in procs.left_behind(self.worker, attempts):
            procs.send(pid, signal.SIGKILL)


def _live(control: Channel, lifeline: int, bell: int, worker: str, runs: str, targets: Sequence[str]) -> None:
    gc.disable()  # collections during the imports would only dirty pages that the forks share
    zygote = Zygote(control, bell, worker, runs, targets)
    try:
        zygote.load()
        procs.keep_alive_without(lifeline)
        for _ in range(WARM_UPS):
            child.warm_up()
        gc.freeze()
        born = zygote.serve()
    except (EOFError, ConnectionError):
        zygote.sweep()
        return
    if born is not None:
        gc.enable()
        procs.importing_flows = False
        child.run(born, child.Place(worker, runs, bell), zygote.flows)


def _settle_streams() -> None:
    """As the runs shall have them: whatever is printed can be written, and a line leaves at its end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]


def main(arguments: Sequence[str]) -> NoReturn:
    """``control-fd lifeline-fd bell-fd worker-uuid runs-folder target…``; started by the supervisor only."""
    control, lifeline, bell = (int(number) for number in arguments[:3])
    for fd in (control, lifeline, bell):
        os.set_inheritable(fd, False)
    procs.die_with(lifeline)
    procs.importing_flows = True
    _settle_streams()
    channel = Channel(socket.socket(fileno=control))
    _live(channel, lifeline, bell, arguments[3], arguments[4], arguments[5:])
    os._exit(0)
