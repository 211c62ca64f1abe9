"""The processes of which runs are forks, as their supervisor sees them."""

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
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from perfect_client.loading.sources import Unit
from perfect_client.system import procs
from perfect_client.system.channel import Channel

PACKAGE_HOME = str(Path(__file__).resolve().parents[2])
# At the end of the path, so that the package is found wherever it lies and nothing of the user's is shadowed. The
# current folder, which ``-c`` puts first, goes there too: its ``email.py`` must not shadow the standard library.
_PROGRAM = (
    "import sys; sys.path += [sys.path.pop(0), %r]; "
    "from perfect_client.execution.zygote import main; main(sys.argv[1:])" % PACKAGE_HOME
)


class Place(NamedTuple):
    """Whose processes they are: the worker's UUID and this boot of it, the folder of journals and spools, the bell to
    ring."""

    worker: str
    boot: str
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


class Zygote:
    """A process whose forks are runs, with a channel to it. It imports all flow files and tells what is in them; units
    in ``skip`` are left out. A *bare* zygote imports none: its forks import one unit each."""

    def __init__(self, place: Place, code: Dict[str, Any]) -> None:
        ours, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        numbers = [theirs.fileno(), lifeline, place.bell]
        self.begun = moment()
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, lifeline)
            stack.enter_context(theirs)
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *map(str, numbers), *map(str, place[:3]), json.dumps(code)],
                stdin=subprocess.DEVNULL,
                pass_fds=numbers,
                start_new_session=True,
            )
        ours.setblocking(False)
        self.channel = Channel(ours)
        self.pid = self.process.pid
        self.alive, self.ready, self.retired = True, False, False
        self.skip = [Unit(*unit) for unit in code.get("skip", ())]
        self.importing: Optional[Unit] = None
        self.standby: Optional[Reserve] = None

    def imported(self) -> None:
        """Its imports are over. They are as old as that, or one that takes longer than it may be old would never do;
        but of the day on which they began."""
        self.ready = True
        self.begun = moment()._replace(day=self.begun.day)

    def dismiss(self) -> None:
        """No run any more for the child in reserve."""
        standby = self.take_standby()
        if standby is not None:
            standby.close()

    def take_standby(self) -> Optional[Reserve]:
        """The child in reserve, which is then the caller's."""
        standby, self.standby = self.standby, None
        return standby

    def kill(self) -> None:
        """At once, with what its imports have started."""
        if self.alive:
            procs.send_group(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """After it was reaped."""
        self.alive = self.ready = False
        self.dismiss()
        self.process.returncode = 0  # it was reaped elsewhere: Popen need not look for it
        self.channel.close()
        os.close(self._lifeline)


class Reserve:
    """A fork of ``zygote`` that waits for its order; closing it ends the fork."""

    def __init__(self, pid: int, born: int, channel: Channel, zygote: Zygote, begun: Moment) -> None:
        self.pid, self.born, self.channel, self.zygote, self.begun = pid, born, channel, zygote, begun
        self._reading: List[int] = []  # its zygote's, once it is used

    def prepare(self, fence: int, fds: Sequence[int]) -> bool:
        """Let it get ready for a run that may be started soon; False when it died."""
        try:
            self.channel.send({"prepare": fence}, fds[:-2])
        except OSError:
            self.close()
            return False
        self._reading = [os.dup(fd) for fd in fds[-2:]]
        return True

    def use(self, fence: int, fds: Sequence[int] = ()) -> bool:
        """Have it start a run; False when it died. ``fds`` unless it was prepared and has them."""
        with contextlib.closing(self):
            try:
                self.channel.send({"start": fence}, fds[:-2])
            except OSError:
                return False
            with contextlib.suppress(OSError):
                self.zygote.channel.send({"used": self.pid, "fence": fence}, self._reading or fds[-2:])
            return True

    def close(self) -> None:
        self.channel.close()
        for fd in self._reading:
            os.close(fd)
        self._reading = []
