"""The supervisor's side of the zygote: starts it, keeps it alive, hands it runs to start."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from perfect_client import procs, protocol, sources
from perfect_client.channel import Channel, Message
from perfect_client.loop import Loop, Timer

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
PACKAGE_HOME = str(Path(__file__).resolve().parent.parent)
# At the end of the path, so that the package is found wherever it lies and nothing of the user's is shadowed. The
# current folder, which ``-c`` puts first, goes there too: its ``email.py`` must not shadow the standard library.
_PROGRAM = (
    "import sys; sys.path += [sys.path.pop(0), %r]; from perfect_client.zygote import main; main(sys.argv[1:])"
    % PACKAGE_HOME
)
_FIRST_WAIT_S, _LONGEST_WAIT_S, _HEALTHY_S = 0.5, 30.0, 30.0
_RETIRE_S = 5.0
_SLOW_IMPORT_S = 30.0


def become_subreaper() -> bool:
    """Make orphaned descendants this process's own children; False where the system has no such thing."""
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (AttributeError, OSError):
        return False
    return bool(prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


class Standby(NamedTuple):
    """A child in reserve; closing its channel ends it."""

    pid: int
    born: int
    channel: Channel


class Zygote:
    """One zygote process and the channel to it."""

    def __init__(self, targets: Sequence[str], worker: str, runs: Path, bell: int) -> None:
        ours, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        numbers = [theirs.fileno(), lifeline, bell]
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, lifeline)
            stack.enter_context(theirs)
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *map(str, numbers), worker, str(runs), *targets],
                stdin=subprocess.DEVNULL,
                pass_fds=numbers,
                start_new_session=True,
            )
        ours.setblocking(False)
        self.channel = Channel(ours)
        self.pid = self.process.pid
        self.alive, self.ready = True, False
        self.importing = ""
        self.retired = False
        self.standby: Optional[Standby] = None

    def dismiss(self) -> None:
        """No run any more for the child in reserve."""
        standby = self.take_standby()
        if standby is not None:
            standby.channel.close()

    def take_standby(self) -> Optional[Standby]:
        """The child in reserve, which is then the caller's."""
        standby, self.standby = self.standby, None
        return standby

    def use(self, standby: Standby, fence: int, fds: Sequence[int] = ()) -> bool:
        """Have a child in reserve start a run; False when it died."""
        with contextlib.closing(standby.channel):
            try:
                standby.channel.send({"start": fence}, fds)
            except OSError:
                return False
        with contextlib.suppress(OSError):
            self.channel.send({"used": standby.pid, "fence": fence})
        return True

    def close(self) -> None:
        """After it was reaped."""
        self.alive = self.ready = False
        self.dismiss()
        self.process.returncode = 0  # it was reaped elsewhere: Popen need not look for it
        self.channel.close()
        os.close(self._lifeline)


MakePipes = Callable[[], Optional[Sequence[int]]]


@contextlib.contextmanager
def _closing(fds: Sequence[int]) -> Iterator[Sequence[int]]:
    """Descriptors that are a child's once they are handed over, or nobody's."""
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def _forked(standby: Standby, fence: int) -> Message:
    return {"event": "forked", "fence": fence, "pid": standby.pid, "born": standby.born}


class Launcher:
    """Keeps one zygote ready. ``on_event(zygote, message)`` is called for ``forked``, ``failed`` and ``exited``,
    ``on_flows(flows, problems)`` when what can be run changed, ``on_gone(zygote)`` after a zygote's death."""

    def __init__(
        self,
        loop: Loop,
        targets: Sequence[str],
        worker: str,
        runs: Path,
        bell: int,
        on_event: Callable[[Zygote, Message], None],
        on_flows: Callable[[protocol.FlowsAnnounced], None],
        on_gone: Callable[[Zygote], None],
        say: Callable[[str], None],
    ) -> None:
        self._loop, self._targets, self._worker, self._runs, self._bell = loop, list(targets), worker, runs, bell
        self._on_event, self._on_flows, self._on_gone, self._say = on_event, on_flows, on_gone, say
        self.current: Optional[Zygote] = None
        self.all: Dict[int, Zygote] = {}
        self.flows: Dict[str, protocol.FlowSpec] = {}
        self.problems: List[str] = []
        self._files: Dict[str, sources.Stamp] = {}
        self._queue: List[Tuple[int, MakePipes]] = []
        self._prepared: Dict[int, Tuple[Zygote, Standby]] = {}  # by fence: claimed, not started yet
        self._wait = 0.0
        self._ready_at = 0.0
        self._slow: Optional[Timer] = None

    @property
    def ready(self) -> bool:
        return self.current is not None and self.current.ready

    # ------------------------------------------------------------------------------------------------ life and death

    def begin(self) -> None:
        """Start a zygote (again)."""
        if self.current is not None:
            return
        # Stamps from before the import: a file that changes while it is imported counts as changed.
        self._files = {path: sources.stamp(path) for path in self._files}
        zygote = Zygote(self._targets, self._worker, self._runs, self._bell)
        self.current = self.all[zygote.pid] = zygote
        self._loop.on_read(zygote.channel.fileno(), lambda: self._hear(zygote))
        self._slow = self._loop.after(_SLOW_IMPORT_S, lambda: self._too_slow(zygote))

    def renew(self) -> None:
        """The sources changed: retire the zygote, whose runs go on, and start another."""
        old, self.current = self.current, None
        if old is not None and not old.retired:
            self._retire(old)
        self._wait = 0.0
        self.begin()

    def _retire(self, zygote: Zygote) -> None:
        zygote.retired, zygote.ready = True, False
        zygote.dismiss()
        with contextlib.suppress(OSError):
            zygote.channel.send({"retire": True})
        self._loop.after(_RETIRE_S, lambda: self._kill(zygote))

    @staticmethod
    def _kill(zygote: Zygote) -> None:
        if zygote.alive:
            zygote.process.kill()

    def outdated(self, look_for_new: bool = False) -> bool:
        """Whether the files that the flows were made of have changed since."""
        if not self.ready:
            return False
        return sources.changed(self._files) or (look_for_new and sources.appeared(self._targets, self._files))

    def died(self, gone: procs.Exited) -> None:
        """A zygote was reaped."""
        zygote = self.all.pop(gone.pid)
        self._hear(zygote, to_the_end=True)
        self._loop.forget(zygote.channel.fileno())
        was_ready = zygote.ready
        for fence in [fence for fence, (owner, _) in self._prepared.items() if owner is zygote]:
            self.abandon(fence)
        zygote.close()
        if zygote is self.current:
            self.current = None
            self._mourn(zygote, gone, was_ready)
        self._on_gone(zygote)

    def _mourn(self, zygote: Zygote, gone: procs.Exited, was_ready: bool) -> None:
        how = procs.describe_death(gone.status, gone.peak_kb)
        if not was_ready:
            where = "importing %s failed" % zygote.importing if zygote.importing else "starting Python failed"
            self._announce([], ["%s: %s" % (where, how)])
        else:
            self._say("the process that starts runs ended (%s); starting another" % how)
            if self._loop.now - self._ready_at > _HEALTHY_S:
                self._wait = 0.0
        self._loop.after(self._wait, self.begin)
        self._wait = min(max(_FIRST_WAIT_S, self._wait * 2), _LONGEST_WAIT_S)

    def _too_slow(self, zygote: Zygote) -> None:
        if zygote is self.current and not zygote.ready:
            text = "importing %s takes longer than %d s" % (zygote.importing or "the flows", _SLOW_IMPORT_S)
            self._announce([], [text])

    # --------------------------------------------------------------------------------------------------------- orders

    def prepare(self, fence: int, pipes: MakePipes) -> None:
        """Let the child in reserve, if there is one, get ready for a run that may be started soon."""
        zygote = self.current
        standby = zygote.take_standby() if zygote is not None and zygote.ready else None
        if zygote is None or standby is None:
            return
        with _closing(pipes() or ()) as fds:
            try:
                standby.channel.send({"prepare": fence}, fds)
            except OSError:  # it died: the start will do without it
                standby.channel.close()
            else:
                self._prepared[fence] = (zygote, standby)

    def abandon(self, fence: int) -> None:
        """The run that was prepared will not be started."""
        prepared = self._prepared.pop(fence, None)
        if prepared is not None:
            prepared[1].channel.close()

    def start(self, fence: int, pipes: MakePipes) -> None:
        """Have a run started, now or when the zygote is ready. ``pipes`` makes the child's stdout, stderr, lifeline
        and answers at that moment (None: no longer wanted), unless it was prepared and has them."""
        zygote, standby = self._prepared.pop(fence, (None, None))
        if zygote is not None and standby is not None and zygote.use(standby, fence):
            self._on_event(zygote, _forked(standby, fence))
            return
        self._queue.append((fence, pipes))
        self._hand_over()

    def _hand_over(self) -> None:
        while self._queue and self.ready and self.current is not None:
            fence, pipes = self._queue.pop(0)
            made = pipes()
            if made is None:
                continue
            with _closing(made) as fds:
                self._start(self.current, fence, fds)

    def _start(self, zygote: Zygote, fence: int, fds: Sequence[int]) -> None:
        standby = zygote.take_standby()
        if standby is not None and zygote.use(standby, fence, fds):
            self._on_event(zygote, _forked(standby, fence))
            return
        try:
            zygote.channel.send({"start": fence}, fds)
        except OSError as wrong:
            self._on_event(zygote, {"event": "failed", "fence": fence, "error": str(wrong)})

    # --------------------------------------------------------------------------------------------------------- events

    def _hear(self, zygote: Zygote, to_the_end: bool = False) -> None:
        try:
            while True:
                for message, fds in zygote.channel.receive():
                    if message["event"] == "standby":
                        self._reserve(zygote, message, fds[0])
                    else:
                        self._handle(zygote, message)
                if not to_the_end:
                    return
        except BlockingIOError:
            return
        except EOFError:  # its death is told by SIGCHLD, when its children are already ours
            self._loop.forget(zygote.channel.fileno())

    def _handle(self, zygote: Zygote, message: Message) -> None:
        special = {"importing": self._importing, "flows": self._imported}.get(message["event"])
        if special is None:
            self._on_event(zygote, message)
        elif zygote is self.current and zygote.alive:
            special(zygote, message)

    @staticmethod
    def _reserve(zygote: Zygote, message: Message, fd: int) -> None:
        zygote.dismiss()
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        zygote.standby = Standby(message["pid"], message["born"], Channel(sock))
        if zygote.retired or not zygote.alive:
            zygote.dismiss()

    def _importing(self, zygote: Zygote, message: Dict[str, Any]) -> None:
        zygote.importing = message["target"]

    def _imported(self, zygote: Zygote, message: Dict[str, Any]) -> None:
        before = self._files
        self._files = {path: before.get(path) or (then[0], then[1]) for path, then in message["files"].items()}
        zygote.ready, self._ready_at = True, self._loop.now
        if self._slow is not None:
            self._slow.cancel()
        if message["threads"]:
            self._say("the imports left %d threads running; runs are forked without them" % message["threads"])
        flows = [protocol.from_dict(protocol.FlowSpec, spec) for spec in message["flows"]]
        self._announce(flows, message["problems"])
        self._hand_over()

    def _announce(self, flows: List[protocol.FlowSpec], problems: List[str]) -> None:
        self.flows = {flow.name: flow for flow in flows}
        self.problems = list(problems)
        self._on_flows(protocol.FlowsAnnounced(flows=flows, problems=self.problems))
