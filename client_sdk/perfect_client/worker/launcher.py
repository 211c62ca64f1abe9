"""Has flow files imported, knows what can be run, and starts runs: by a fork, or in an interpreter of their own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set

from perfect_client.loading import sources
from perfect_client.loading.sources import Unit
from perfect_client.system import procs
from perfect_client.system.channel import Channel, Message
from perfect_client.system.loop import Loop, Timer
from perfect_client.wire import messages
from perfect_client.worker.catalogue import AUTO, Catalogue, Entry
from perfect_client.worker.standby import StandbyPool
from perfect_client.worker.zygotes import Moment, Place, Reserve, Zygote

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_FIRST_WAIT_S, _LONGEST_WAIT_S, _HEALTHY_S = 0.5, 30.0, 30.0
_RETIRE_S = 5.0
_SLOW_IMPORT_S = 30.0
_HANGING_IMPORT_S = 120.0  # of one unit: then the others go on without it
_FIRST_IMPORT_S = 20.0  # the same once, at the start of a worker, when the others have nothing yet to go on with
_LONGEST_IMPORT_S = 3600.0  # of one unit, when it was given up before
_LOOK_S = 1.0  # between two looks at the files
_EARLY = 0.8  # of the greatest age of an import: the next one is made before it is needed
_UNREAD_S = 600.0  # so long an interpreter that was started may not have read its sources yet
_RETRY_S, _LONGEST_RETRY_S = 10.0, 600.0  # between two imports of a file that does not import
_MOST_ROUNDS = 3  # in which units are found that must be kept apart; then every run starts fresh
IMPORT_AGE_S = 3600.0


def become_subreaper() -> bool:
    """Make orphaned descendants this process's own children; False where the system has no such thing."""
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (AttributeError, OSError):
        return False
    return bool(prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


MakePipes = Callable[[], Optional[Sequence[int]]]


class Code(NamedTuple):
    """What a worker is to run, and how: ``script`` is a file that is executed as ``__main__``, ``import_age_s`` how old
    an import may be, ``reload`` whether files are watched, ``start`` how runs start."""

    targets: Sequence[str]
    script: str = ""
    start: str = AUTO
    reload: bool = True
    import_age_s: float = IMPORT_AGE_S


class LauncherEvents(NamedTuple):
    """Who is told what: ``event`` of ``forked``, ``failed`` and ``exited``, ``failed`` of a start without any process,
    ``flows`` when what can be run changed,
    ``settled`` when what can be run is known (again), ``gone`` after a zygote's death, ``say`` sentences for the
    operator."""

    event: Callable[[Zygote, Message], None]
    failed: Callable[[int, str], None]
    flows: Callable[[messages.FlowsAnnounced], None]
    settled: Callable[[], None]
    gone: Callable[[Zygote], None]
    say: Callable[[str], None]


class _Waiting(NamedTuple):
    fence: int
    flow: str
    pipes: MakePipes


@contextlib.contextmanager
def _closing(fds: Sequence[int]) -> Iterator[Sequence[int]]:
    """Descriptors that are a child's once they are handed over, or nobody's."""
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def _forked(reserve: Reserve, fence: int) -> Message:
    return {"event": "forked", "fence": fence, "pid": reserve.pid, "born": reserve.born}


class Launcher:
    """``settled`` says whether what can be run is known, and made of the files as they are."""

    def __init__(self, loop: Loop, code: Code, place: Place, hears: LauncherEvents) -> None:
        self._loop, self._code, self._place, self._hears = loop, code, place, hears
        self.catalogue = Catalogue(code.start)
        self.all: Dict[int, Zygote] = {}
        self.settled = False
        self._forker: Optional[Zygote] = None
        self._coming: Optional[Zygote] = None
        self._rounds = 0
        self._deadly: Set[Unit] = set()  # their import kills the process, or does not end
        self._patience: Dict[Unit, float] = {}  # in seconds, with those whose import was given up
        self._bare: Optional[Zygote] = None
        self._standby = StandbyPool(loop, self._own_folders, code.import_age_s, self._bare_zygote)
        self._files = sources.Watched(code.targets)
        self._begun: Optional[Moment] = None
        self._queue: List[_Waiting] = []
        self._prepared: Dict[int, Reserve] = {}  # by fence: claimed, not started yet
        self._wait = 0.0
        self._retry_wait = self._retry_at = 0.0
        self._reported_at = 0.0
        self._slow: Optional[Timer] = None
        self._stuck: Optional[Timer] = None
        self._numbers = 0
        self._looks = True
        self._told: Optional[messages.FlowsAnnounced] = None

    @property
    def forker(self) -> Optional[Zygote]:
        """The process of which runs are forks."""
        return self._forker

    @property
    def flows(self) -> Dict[str, Entry]:
        return self.catalogue.entries

    @property
    def problems(self) -> List[str]:
        return self.catalogue.problems

    def _own_folders(self) -> List[str]:
        return [os.path.realpath(target) for target in self._code.targets if os.path.isdir(target)]

    # ------------------------------------------------------------------------------------------------------- importing

    def begin(self) -> None:
        """Have everything imported, and look after it from then on."""
        self._import()
        self._loop.after(_LOOK_S, self._look)

    def _import(self) -> None:
        """Import everything anew, beside what serves meanwhile."""
        if self._coming is None:
            # Stamps from before the import: a file that changes while it is imported counts as changed.
            self._files.look_again()
            self._rounds = 0
            try:
                self._spawn(sorted(self._deadly))
            except OSError as wrong:  # no process, or no descriptor, to be had now
                self._hears.say("the process that starts runs could not be started (%s); trying again" % wrong)
                self._later(self._import)

    def _spawn(self, skip: Sequence[Unit]) -> None:
        self._numbers += 1
        path = str(self._place.runs.parent / "code" / ("%d-%d" % (os.getpid(), self._numbers)))
        code = {"targets": list(self._code.targets), "script": self._code.script, "skip": skip, "sources": path}
        zygote = self._coming = self._make(code)
        self._slow = self._loop.after(_SLOW_IMPORT_S, lambda: self._too_slow(zygote))

    def _make(self, code: Dict[str, Any]) -> Zygote:
        zygote = Zygote(self._place, code)
        self.all[zygote.pid] = zygote
        self._loop.on_read(zygote.channel.fileno(), lambda: self._hear(zygote))
        return zygote

    def _bare_zygote(self) -> Zygote:
        """The process whose forks import a unit themselves."""
        if self._bare is None:
            self._bare = self._make({})
        return self._bare

    def renew(self, at_once: bool = True) -> None:
        """Import again. ``at_once``: what is there now is used no more, unless the import fails."""
        if at_once:
            self.settled = False
            self._deadly.clear()
            coming, self._coming = self._coming, None
            if coming is not None:
                self._retire(coming)
        self._wait = 0.0
        self._import()

    def _retire(self, zygote: Zygote) -> None:
        zygote.retired, zygote.ready = True, False
        zygote.dismiss()
        with contextlib.suppress(OSError):
            zygote.channel.send({"retire": True})
        self._loop.after(_RETIRE_S, zygote.kill)

    def _too_slow(self, zygote: Zygote) -> None:
        if zygote is not self._coming or zygote.ready:
            return
        text = "importing %s takes longer than %d s" % (_name(zygote.importing), _SLOW_IMPORT_S)
        if zygote.importing is not None:
            self.catalogue.fail(zygote.importing, text)
        else:
            self.catalogue.fail_all(text)
        self._settle()

    def _watch_over(self, zygote: Zygote) -> None:
        """One unit may take only so long, or all others would wait for it for ever."""
        if self._stuck is not None:
            self._stuck.cancel()
        others = len(self._code.targets) > 1 or bool(self._own_folders())
        is_first = others and self._begun is None and not self._patience  # the next may be as slow, for the same module
        patience = min(_FIRST_IMPORT_S, _HANGING_IMPORT_S) if is_first else _HANGING_IMPORT_S
        if zygote.importing is not None:
            patience = self._patience.get(zygote.importing, patience)
        self._stuck = self._loop.after(patience, lambda: self._give_up(zygote, patience))

    def _give_up(self, zygote: Zygote, patience: float) -> None:
        """Go on without the unit whose import does not end; the next try may take twice as long."""
        unit = zygote.importing
        if zygote is not self._coming or unit is None:
            return
        self._patience[unit] = min(2 * patience, _LONGEST_IMPORT_S)
        self._deadly.add(unit)
        self.catalogue.fail(unit, "importing %s takes longer than %d s" % (unit.name, patience))
        self._coming = None
        self._retire(zygote)
        zygote.kill()
        self._import()

    # -------------------------------------------------------------------------------------------------------- watching

    def rest(self) -> None:
        """Nothing new will be started: do not look at the files any more."""
        self._looks = False

    def _look(self) -> None:
        """Once a second."""
        if not self._looks:
            return
        self._loop.after(_LOOK_S, self._look)  # first: whatever fails below is tried again
        if self._code.reload and self.outdated():
            self._hears.say("the source changed; importing it again")
            self.renew()
        elif self._coming is None and self.catalogue.has_faults and self._loop.now > self._retry_at:
            self._deadly.clear()
            self.renew(at_once=False)
        elif self._coming is None and self._is_too_old(_EARLY):
            self.renew(at_once=self._forker is not None and self._is_too_old())
        self._standby.look()

    def outdated(self) -> bool:
        """Whether the imports are not what they would be now: a file has changed, or it is another day."""
        if not self.settled:
            return False
        if self._coming is None and self._forker is not None and self._is_too_old():
            return True
        # Also while they are imported again, which may take long.
        return self._code.reload and self._files.have_changed(self._loop.now)

    def _is_too_old(self, share: float = 1.0) -> bool:
        """Whether what was imported last is of another day, or older than this share of what is allowed."""
        return self._begun is not None and self._begun.is_older(share * self._code.import_age_s)

    # --------------------------------------------------------------------------------------------------------- reports

    def _imported(self, zygote: Zygote, message: Message) -> None:
        if zygote is not self._coming:
            return
        self._coming = None
        zygote.imported()
        if self._slow is not None:
            self._slow.cancel()
        if self._stuck is not None:
            self._stuck.cancel()
        if self._rounds:
            self.catalogue.learn_left(message)
        else:
            self._learn(zygote, message)
        self._place_forker(zygote)
        self._settle()

    def _learn(self, zygote: Zygote, message: Message) -> None:
        skipped = [unit.name for unit in zygote.skip]
        self._files.learn(message["files"], message["folders"], message["data"], self._loop.now, skipped)
        self._reported_at, self._begun = self._loop.now, zygote.begun
        self.catalogue.take(message, zygote.skip)
        self._standby.renew(self.catalogue.entries.values())
        self._forget_sources(message["sources"])

    def _place_forker(self, zygote: Zygote) -> None:
        """Let runs be forks of this zygote, or of one that imports only what leaves nothing."""
        old, self._forker = self._forker, None
        if old is not None:
            self._retire(old)
        apart = [unit for unit in self.catalogue.kept_apart if unit not in zygote.skip]
        if not self.catalogue.forked:
            self._retire(zygote)
        elif not apart or self._rounds > _MOST_ROUNDS:
            self._forker = zygote
        else:
            self._retire(zygote)
            self._rounds += 1
            self._spawn([*zygote.skip, *apart])

    def _settle(self) -> None:
        """Tell what can be run, and start what waits."""
        self.settled = True
        self._retry_wait = min(max(_RETRY_S, 2 * self._retry_wait), _LONGEST_RETRY_S) * self.catalogue.has_faults
        self._retry_at = self._loop.now + self._retry_wait
        now = messages.FlowsAnnounced(flows=self.catalogue.flows, problems=self.problems)
        if now != self._told:
            self._told = now
            self._hears.flows(now)
        self._hears.settled()
        self._hand_over()
        self._standby.refill_soon()

    def _forget_sources(self, newest: str) -> None:
        """Remove the files of sources that no unit needs any more."""
        used = self.catalogue.sources_in_use | {newest}
        with contextlib.suppress(OSError):
            for path in (self._place.runs.parent / "code").iterdir():
                if str(path) not in used and time.time() - path.stat().st_mtime > _UNREAD_S:
                    path.unlink()

    # ---------------------------------------------------------------------------------------------------------- deaths

    def died(self, gone: procs.Exited) -> None:
        """One of ``all`` was reaped."""
        zygote = self.all.pop(gone.pid)
        self._hear(zygote, to_the_end=True)
        self._loop.forget(zygote.channel.fileno())
        for fence in [fence for fence, reserve in self._prepared.items() if reserve.zygote is zygote]:
            self.abandon(fence)
        zygote.close()
        if zygote is self._coming:
            self._coming = None
            self._mourn(zygote, gone)
        elif zygote is self._forker:
            self._forker = None
            self._replace(gone)
        elif zygote is self._bare:
            self._bare = None
            self._standby.bare_ended()
            self._later(self._hand_over)
        self._hears.gone(zygote)

    def _mourn(self, zygote: Zygote, gone: procs.Exited) -> None:
        """An import has ended its process: go on without the file that did it."""
        how = procs.describe_death(gone.status, gone.peak_kb)
        unit = zygote.importing
        if unit is not None and unit not in self._deadly:
            self._deadly.add(unit)
            self.catalogue.fail(unit, "importing %s failed: %s" % (unit.name, how))
            return self._import()
        self.catalogue.fail_all("starting Python failed: %s" % how)
        self._settle()
        self._later(self._import)

    def _replace(self, gone: procs.Exited) -> None:
        how = procs.describe_death(gone.status, gone.peak_kb)
        self._hears.say("the process that starts runs ended (%s); starting another" % how)
        if self._loop.now - self._reported_at > _HEALTHY_S:
            self._wait = 0.0
        self._later(self._import)

    def _later(self, do: Callable[[], None]) -> None:
        self._loop.after(self._wait, do)
        self._wait = min(max(_FIRST_WAIT_S, self._wait * 2), _LONGEST_WAIT_S)

    # ---------------------------------------------------------------------------------------------------------- orders

    def prepare(self, fence: int, flow: str, pipes: MakePipes) -> None:
        """Let a process in reserve, if there is one, get ready for a run that may be started soon."""
        reserve = self._take_reserve(flow)
        if reserve is None and flow in self.flows and not self.flows[flow].is_forked:
            self._standby.have([self.flows[flow]])
        elif reserve is not None:
            with _closing(pipes() or ()) as fds:
                if reserve.prepare(fence, fds):
                    self._prepared[fence] = reserve

    def _take_reserve(self, flow: str) -> Optional[Reserve]:
        entry = self.flows.get(flow)
        if entry is None:
            return None
        if not entry.is_forked:
            return self._standby.take(entry)
        forker = self._ready_forker()
        return forker.take_standby() if forker is not None else None

    def _ready_forker(self) -> Optional[Zygote]:
        """What forks may be made of now."""
        forker = self._forker
        return None if forker is None or forker.begun.is_older(self._code.import_age_s) else forker

    def abandon(self, fence: int) -> None:
        """The run that was prepared will not be started."""
        prepared = self._prepared.pop(fence, None)
        if prepared is not None:
            prepared.close()

    def start(self, fence: int, flow: str, pipes: MakePipes) -> None:
        """Have a run started, now or when it can be. ``pipes`` makes the child's stdout, stderr, lifeline and answers
        at that moment (None: no longer wanted), unless it was prepared and has them."""
        reserve = self._prepared.pop(fence, None)
        if reserve is not None and reserve.begun.is_older(self._code.import_age_s):
            reserve.close()  # midnight came between claim and start
        elif reserve is not None and reserve.use(fence):
            self._hears.event(reserve.zygote, _forked(reserve, fence))
            self._standby.refill_soon()
            return
        self._queue.append(_Waiting(fence, flow, pipes))
        self._hand_over()

    def _hand_over(self) -> None:
        """Start what waits, in its order, but for what nothing is there for yet."""
        queue, self._queue = self._queue, []
        missing: List[Entry] = []
        for waiting in queue:
            entry = self.flows.get(waiting.flow)
            if entry is None and self.settled:
                self._hears.failed(waiting.fence, "the worker has this flow no more")
            elif entry is None or not self.settled or not self._can_start(entry):
                self._queue.append(waiting)
                missing += [entry] if entry is not None and not entry.is_forked else []
            else:
                try:
                    made = waiting.pipes()
                except OSError as wrong:  # no descriptor left; those behind it must not be lost with it
                    self._hears.failed(waiting.fence, str(wrong))
                    continue
                if made is not None:
                    with _closing(made) as fds:
                        self._start(entry, waiting.fence, fds)
        self._standby.have(missing)

    def _can_start(self, entry: Entry) -> bool:
        return self._ready_forker() is not None if entry.is_forked else self._standby.is_ready(entry)

    def _start(self, entry: Entry, fence: int, fds: Sequence[int]) -> None:
        reserve = self._take_reserve(entry.spec.name)
        if reserve is not None and reserve.use(fence, fds):
            self._hears.event(reserve.zygote, _forked(reserve, fence))
        elif entry.is_forked and self._forker is not None:
            try:
                self._forker.channel.send({"start": fence}, fds)
            except OSError as wrong:
                self._hears.failed(fence, str(wrong))
        else:
            self._hears.failed(fence, "the process that was to import %s has ended" % entry.unit.name)
        self._standby.refill_soon()

    # ---------------------------------------------------------------------------------------------------------- events

    def _hear(self, zygote: Zygote, to_the_end: bool = False) -> None:
        try:
            while True:
                for message, fds in zygote.channel.receive():
                    self._handle(zygote, message, fds)
                if not to_the_end:
                    return
        except BlockingIOError:
            return
        except EOFError:  # its death is told by SIGCHLD, when its children are already ours
            self._loop.forget(zygote.channel.fileno())

    def _handle(self, zygote: Zygote, message: Message, fds: Sequence[int]) -> None:
        event = message["event"]
        if event == "standby":
            self._keep(zygote, message, fds[0])
        elif event == "importing":
            zygote.importing = Unit(*message["unit"])
            if zygote is self._coming:
                self._watch_over(zygote)
        elif event == "flows":
            if zygote.alive:
                self._imported(zygote, message)
        elif event == "fresh":
            self._standby.arrived(zygote, message)
            self._hand_over()
        else:
            if event == "exited":
                self._standby.ended(message["pid"])
            self._hears.event(zygote, message)

    @staticmethod
    def _keep(zygote: Zygote, message: Message, fd: int) -> None:
        zygote.dismiss()
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        zygote.standby = Reserve(message["pid"], message["born"], Channel(sock), zygote, zygote.begun)
        if zygote.retired or not zygote.alive:
            zygote.dismiss()


def _name(unit: Optional[Unit]) -> str:
    return unit.name if unit is not None else "the flows"
