"""The processes from which runs start, as their supervisor sees them: zygotes, and interpreters of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple

from perfect_client import procs
from perfect_client.channel import Channel
from perfect_client.sources import Unit

PACKAGE_HOME = str(Path(__file__).resolve().parent.parent)
# At the end of the path, so that the package is found wherever it lies and nothing of the user's is shadowed.
_PROGRAM = "import sys; sys.path.append(%r); from perfect_client.%%s import main; main(sys.argv[1:])" % PACKAGE_HOME
IMPORT_OUTPUT = "perfect-import"


class Place(NamedTuple):
    """Whose processes they are: the worker's UUID, the folder of journals and spools, the bell to ring."""

    worker: str
    runs: Path
    bell: int


class Moment(NamedTuple):
    """When an import was made: what it worked out is as old as the worst of these clocks says."""

    wall: float
    monotonic: float
    day: Tuple[int, int]

    def is_older(self, seconds: float) -> bool:
        """Whether it is longer ago, or of another day by the local calendar. When the wall clock was set back nobody
        knows, and it is."""
        passed = time.time() - self.wall
        return passed < -1.0 or max(passed, time.monotonic() - self.monotonic) > seconds or self.day != moment().day


def moment() -> Moment:
    now = time.time()
    local = time.localtime(now)
    return Moment(now, time.monotonic(), (local.tm_year, local.tm_yday))


class Starter:
    """A process of ours that imports flow files, with a channel to it; ``code`` says what it imports."""

    def __init__(self, program: str, place: Place, code: Dict[str, Any], output: Optional[int] = None) -> None:
        ours, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        numbers = [theirs.fileno(), lifeline, place.bell]
        self.begun = moment()
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, lifeline)
            stack.enter_context(theirs)
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM % program, *map(str, numbers), place.worker, str(place.runs),
                 json.dumps(code)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=numbers,
                start_new_session=True,
            )  # fmt: skip
        ours.setblocking(False)
        self.channel = Channel(ours)
        self.pid = self.process.pid
        self.alive = True
        self.retired = False

    def kill(self) -> None:
        """At once, with what its imports have started."""
        if self.alive:
            procs.send_group(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """After it was reaped."""
        self.alive = False
        self.process.returncode = 0  # it was reaped elsewhere: Popen need not look for it
        self.channel.close()
        os.close(self._lifeline)


class Reserve(NamedTuple):
    """A process that waits for its order; closing its channel ends it. ``owner`` is told what became of it."""

    pid: int
    born: int
    channel: Channel
    owner: Starter

    def use(self, fence: int, fds: Sequence[int] = ()) -> bool:
        """Have it start a run; False when it died."""
        with contextlib.closing(self.channel):
            try:
                self.channel.send({"start": fence}, fds)
            except OSError:
                return False
        self._tell_owner(fence)
        return True

    def _tell_owner(self, fence: int) -> None:
        if isinstance(self.owner, Zygote):
            with contextlib.suppress(OSError):
                self.owner.channel.send({"used": self.pid, "fence": fence})


class Zygote(Starter):
    """It imports all flow files, tells what is in them, and runs are forks of it. Units in ``skip`` are left out."""

    def __init__(self, place: Place, targets: Sequence[str], script: str, skip: Sequence[Unit], sources: str) -> None:
        code = {"targets": list(targets), "script": script, "skip": [list(unit) for unit in skip], "sources": sources}
        super().__init__("zygote", place, code)
        self.skip = list(skip)
        self.ready = False
        self.importing: Optional[Unit] = None
        self.standby: Optional[Reserve] = None

    def imported(self) -> None:
        """Its imports are over. They are as old as that, or one that takes longer than it may be old would never do;
        but of the day on which they began."""
        self.begun = moment()._replace(day=self.begun.day)

    def dismiss(self) -> None:
        """No run any more for the child in reserve."""
        standby = self.take_standby()
        if standby is not None:
            standby.channel.close()

    def take_standby(self) -> Optional[Reserve]:
        """The child in reserve, which is then the caller's."""
        standby, self.standby = self.standby, None
        return standby

    def close(self) -> None:
        self.ready = False
        self.dismiss()
        super().close()


class Fresh(Starter):
    """An interpreter that imports one unit and executes one run. ``sources``: a file with its code, else that on disk.

    What its imports print goes to ``output``: the run's own pipe, or memory until there is a run.
    """

    def __init__(
        self, place: Place, unit: Unit, sources: str, folders: Sequence[str], output: Optional[int] = None
    ) -> None:
        code = {"unit": list(unit), "sources": sources, "folders": list(folders)}
        memory = _memory_file() if output is None else None
        try:
            super().__init__("fresh", place, code, output if memory is None else memory)
        finally:
            if memory is not None:
                os.close(memory)
        self.reserve = Reserve(self.pid, procs.born(self.pid), self.channel, self)


def _memory_file() -> Optional[int]:
    """A file without a place on disk, where the system has such a thing."""
    make: Any = getattr(os, "memfd_create", None)
    with contextlib.suppress(OSError):
        return int(make(IMPORT_OUTPUT)) if make is not None else None
    return None
