"""The process that has imported the flows; every run is a fork of it.

It is single-threaded and does nothing but import once, announce, fork, reap and report. A *bare* zygote imports no
flow; its forks do that themselves. Messages (``Channel``):

- from the supervisor: ``{"start": fence}`` with what ``child.Start`` has and the reading ends of stdout and stderr;
  ``{"import": number, "code": …}`` with a channel, a lifeline and an output; ``{"used": pid, "fence": fence}`` with
  the reading ends; ``{"retire": true}``;
- to the supervisor: ``importing``, ``flows``, ``standby`` (with the socket on which the child in reserve waits for its
  ``start``), ``fresh``, ``forked``, ``failed`` and ``exited``.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
from collections import deque
from typing import Any, Deque, Dict, List, Mapping, NoReturn, Optional, Sequence, Set, Tuple, Union

from perfect_client.execution import child, fresh
from perfect_client.fingerprints import fingerprints
from perfect_client.journal import unread
from perfect_client.loading.sources import Unit
from perfect_client.loading.survey import Survey
from perfect_client.system import procs
from perfect_client.system.channel import Channel

_REMEMBERED = 1000  # ended attempts
STANDBY_AFTER_S = 0.05  # without an order
WARM_UPS = 20  # CPython specialises code after 8 to 16 calls

# A child with its order, one in reserve with the channel to wait on, or one that imports a unit first.
Born = Union[child.Start, Channel, fresh.Order]


class Zygote:
    """State of the process."""

    def __init__(self, control: Channel, bell: int, worker: str, runs: str, code: Mapping[str, Any]) -> None:
        self.control, self.bell, self.worker, self.runs = control, bell, worker, runs
        self._code = code
        self.survey: Optional[Survey] = None
        self.fresh: Set[int] = set()  # pids of those that import a unit themselves
        self.children: Dict[int, int] = {}  # pid → fence
        self.ended: Deque[int] = deque(maxlen=_REMEMBERED)  # fences whose end was told, maybe to nobody
        self.standby = 0  # pid of the one in reserve
        self.pipes = unread.Pipes()
        self._wakeup: Tuple[int, int] = (-1, -1)

    # ---------------------------------------------------------------------------------------------------- importing

    def load(self) -> None:
        """Import all targets and announce their flows, if there are any to be forked."""
        if "targets" in self._code:
            skip = [Unit(*unit) for unit in self._code["skip"]]
            self.survey = Survey(self._code["targets"], self._code["script"], skip, self._importing)
            self.survey.make()
            self.control.send({"event": "flows", **self.survey.report(self._code["sources"])})

    def _importing(self, unit: Unit) -> None:
        self.control.send({"event": "importing", "unit": list(unit)})

    # ------------------------------------------------------------------------------------------------------ serving

    def serve(self) -> Optional[Born]:
        """Fork a child for each start, and one in reserve. Returns in the child, as what it was born; None when told
        to retire."""
        self._listen_for_children()
        wait_for = [self.control.fileno(), self._wakeup[0]]
        while True:
            keeps_none = self.standby or self.survey is None
            ready = select.select(wait_for, [], [], None if keeps_none else STANDBY_AFTER_S)[0]
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
        for gone in procs.reap(set(self.children) | self.fresh | {self.standby}):
            fence = self.children.get(gone.pid, 0)
            self.fresh.discard(gone.pid)
            if gone.pid == self.standby:
                self.standby = 0
            self.control.send(
                {"event": "exited", "fence": fence, "pid": gone.pid, "status": gone.status, "peak_kb": gone.peak_kb}
            )
            if self.children.pop(gone.pid, None) is not None:
                self.ended.append(fence)
                self.pipes.ended(fence)

    def _obey(self, message: Dict[str, Any], fds: List[int]) -> Optional[Born]:
        if "used" in message:  # the supervisor gave the one in reserve its order
            self._note_used(message["used"], int(message["fence"]), fds)
            return None
        if "import" in message:
            return self._fork_fresh(message, fds)
        return self._fork_run(int(message["start"]), fds)

    def _note_used(self, pid: int, fence: int, reading: Sequence[int]) -> None:
        self.pipes.keep(fence, reading)
        if pid == self.standby:
            self.standby = 0
        elif pid not in self.fresh:  # it has ended already
            return self.pipes.ended(fence)
        self.children[pid] = fence

    def _fork_run(self, fence: int, fds: Sequence[int]) -> Optional[Born]:
        theirs, reading = fds[:-2], fds[-2:]
        self.pipes.keep(fence, reading)
        try:
            pid = self._fork()
        except OSError as wrong:
            self.control.send({"event": "failed", "fence": fence, "error": str(wrong)})
            self.pipes.forget(fence)
            pid = -1
        if pid == 0:
            return child.Start(fence, *theirs)
        if pid > 0:
            self.children[pid] = fence
            self.control.send({"event": "forked", "fence": fence, "pid": pid, "born": procs.born(pid)})
        for fd in theirs:
            os.close(fd)
        return None

    def _fork_fresh(self, message: Dict[str, Any], fds: List[int]) -> Optional[Born]:
        """A child that imports a unit by itself; ``fds`` are its channel, its lifeline and where it prints to."""
        try:
            pid = self._fork()
        except OSError:
            pid = -1
        if pid == 0:
            return fresh.Order(message["code"], Channel(socket.socket(fileno=fds[0])), *fds[1:])
        if pid > 0:
            self.fresh.add(pid)
        self.control.send({"event": "fresh", "import": message["import"], "pid": pid, "born": procs.born(pid)})
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
            self.pipes.close()
        return pid

    def find(self, name: str) -> Any:
        """The flow of that name, with the modules of its folder in place. Raises ``NotImported``."""
        if self.survey is None or name not in self.survey.flows:
            raise child.NotImported("this worker has no flow '%s'" % name)
        self.survey.enter(name)
        return self.survey.flows[name]

    def sweep(self) -> None:
        """The supervisor is gone: the kernel has killed the runs' groups, this ends what had left its group, and counts
        what they have written and nobody has read."""
        attempts = dict.fromkeys(self.ended, 0)
        attempts.update((fence, pid) for pid, fence in self.children.items())
        for pid in procs.processes_left_behind(self.worker, attempts):
            procs.send(pid, signal.SIGKILL)
        self.pipes.count(self.runs)


def _live(control: Channel, lifeline: int, bell: int, worker: str, runs: str, code: Mapping[str, Any]) -> None:
    gc.disable()  # collections during the imports would only dirty pages that the forks share
    zygote = Zygote(control, bell, worker, runs, code)
    try:
        zygote.load()
        procs.keep_alive_without(lifeline)
        for _ in range(WARM_UPS):
            child.warm_up()
        if zygote.survey is not None:
            fingerprints.read_ahead(zygote.survey.flows.values())
        gc.freeze()
        born = zygote.serve()
    except (EOFError, ConnectionError):
        zygote.sweep()
        return
    gc.enable()
    if born is None:
        return child.leave()  # what the imports have registered is to be done once, by this process
    place = child.Place(worker, runs, bell)
    if isinstance(born, fresh.Order):
        fresh.run(born, place)
    child.run(born, place, zygote.find)


def settle_streams() -> None:
    """As the runs shall have them: whatever is printed can be written, and a line leaves at its end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]


def main(arguments: Sequence[str]) -> NoReturn:
    """``control-fd lifeline-fd bell-fd worker-uuid boot runs-folder code``; started by the supervisor only. ``code``:
    as JSON, what ``Code`` in ``launcher`` says."""
    control, lifeline, bell = (int(number) for number in arguments[:3])
    for fd in (control, lifeline, bell):
        os.set_inheritable(fd, False)
    procs.die_with(lifeline)
    settle_streams()
    channel = Channel(socket.socket(fileno=control))
    worker, boot, runs, code = arguments[3:7]
    procs.rename_process(procs.zygote_name(boot))
    _live(channel, lifeline, bell, worker, runs, json.loads(code))
    os._exit(0)
