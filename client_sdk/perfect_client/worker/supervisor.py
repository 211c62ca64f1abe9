"""The worker's supervisor: takes offers, has runs started, keeps what they say until the server has it.

It never runs or imports user code and never waits: one loop serves the server's socket, the zygote, the runs' pipes,
signals and deadlines. What must outlive it stands in the worker's folder before anything depends on it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from perfect_client.journal import unread
from perfect_client.journal.journal import Entry, Folder
from perfect_client.schema.masking import secrets_in
from perfect_client.schema.redaction import MAX_CONFIDED, Hidden
from perfect_client.system.loop import Loop, Timer
from perfect_client.wire import messages
from perfect_client.wire.session import Session
from perfect_client.worker.attempt import OFFERED, Attempt, AttemptContext
from perfect_client.worker.catalogue import AUTO
from perfect_client.worker.crash_hooks import CrashHooks
from perfect_client.worker.handover import Predecessors
from perfect_client.worker.launcher import IMPORT_AGE_S, Code, Launcher, LauncherEvents, become_subreaper
from perfect_client.worker.reaper import Reaper
from perfect_client.worker.shutdown import Shutdown
from perfect_client.worker.uplink import Uplink
from perfect_client.worker.watchdog import DeadlineReader
from perfect_client.worker.zygotes import Place

STOP_GRACE_S = 10.0  # what running flows get when the worker is stopped
GOODBYE_S = 5.0  # for delivering what is left when the worker is stopped
BELL_REST_S = 0.01  # between two looks at the spools, so that a chatty run does not own the loop
NAMES_SHOWN = 8
MISHAPS_TOLD = frozenset(10**n for n in range(1, 10))
WORKER_KILLED = "the worker process was killed"


@dataclass(frozen=True)
class Setup:
    """How to be a worker."""

    url: str
    token: str
    folder: Folder
    targets: Sequence[str]
    name: str
    slots: int
    pools: List[str] = field(default_factory=list)
    look_up: Optional[Callable[[], Tuple[str, str]]] = None  # where the server is by now, if nobody said it
    script: str = ""  # a file that is executed as __main__, up to its call of `serve`
    start: str = AUTO
    reload: bool = True
    import_age_s: float = IMPORT_AGE_S
    drain_s: Optional[float] = None  # what a run gets to end by itself when the worker is stopped; None: by the signal
    grace_s: float = STOP_GRACE_S  # what a run gets that misses its own deadline, or when the worker is stopped


class Supervisor:
    """``run`` is the worker's whole life and returns its exit code. ``say`` prints a sentence for the operator."""

    def __init__(self, setup: Setup, say: Callable[[str], None]) -> None:
        self.setup, self.say = setup, say
        self.loop = Loop(self._mishap)
        self.boot = setup.folder.boot
        self.worker = setup.folder.identity()
        self.session = Session(self._me())
        self.uplink = Uplink(self.loop, self._server, self.session, self._held, self._obey, self._refused, self._note)
        self._bell_out, bell = os.pipe()
        for fd in (self._bell_out, bell):
            os.set_blocking(fd, False)
        self._deadlines = DeadlineReader()
        self.attempts: Dict[int, Attempt] = {}
        self.reaper = Reaper(self.loop, self.attempts)
        self.crash_hooks = self.reaper.crash_hooks = CrashHooks(setup.grace_s, self._note)
        self.launcher = self.reaper.launcher = self.crash_hooks.launcher = Launcher(
            self.loop,
            Code(setup.targets, setup.script, setup.start, setup.reload, setup.import_age_s),
            Place(self.worker, self.boot, setup.folder.runs, bell),
            LauncherEvents(
                self.reaper.reported,
                self.reaper.not_started,
                self._announce,
                self._settled,
                self.reaper.orphaned,
                self._note,
            ),
        )
        self._described: Dict[str, messages.FlowSpec] = {}
        self.shared = AttemptContext(
            self.loop,
            setup.folder,
            self.session,
            self.worker,
            self.reaper.others,
            self._changed,
            self.crash_hooks.over,
            self._secrets_of,
            unread.Buffer(setup.folder.reading(self.boot)),
        )
        self._offers: List[messages.OfferRun] = []  # wait for a zygote
        self.shutdown = Shutdown(
            self.loop, self.attempts, self.crash_hooks, setup.drain_s, setup.grace_s, self._note, self._give_back
        )
        self.predecessors = Predecessors(self.loop, setup.folder, self.worker, self.session, self._inherit)
        self._goodbye: Optional[Timer] = None
        self._code: Optional[int] = None
        self._flows_told = False
        self._starts_told: Dict[str, str] = {}
        self._refusals: List[str] = []  # told already
        self._mishaps: Dict[str, int] = {}  # how often, by their traceback

    def _server(self) -> Tuple[str, str]:
        """Where the server is now, and with which token: a server of this machine may come back on another port."""
        return self.setup.look_up() if self.setup.look_up is not None else (self.setup.url, self.setup.token)

    def _me(self) -> messages.Joined:
        return messages.Joined(
            worker=self.worker,
            boot=self.boot,
            name=self.setup.name,
            host=platform.node(),
            pid=os.getpid(),
            python=platform.python_version(),
            sdk=_version(),
            slots=self.setup.slots,
            pools=list(self.setup.pools),
        )

    # ------------------------------------------------------------------------------------------------------- the life

    def run(self) -> int:
        become_subreaper()
        self.begin()
        while self._code is None:
            self.step()
        self._close()
        return self._code

    def begin(self) -> None:
        self.loop.listen(
            {
                signal.SIGCHLD: self.reaper.reap,
                signal.SIGTERM: lambda: self._signalled(signal.SIGTERM),
                signal.SIGINT: lambda: self._signalled(signal.SIGINT),
                signal.SIGHUP: lambda: self._signalled(signal.SIGHUP),
            }
        )
        self.loop.on_read(self._bell_out, self._rung)
        self._adopt(self.predecessors.begin())
        self.session.free(0)  # until there are flows
        self.launcher.begin()
        self.uplink.begin()

    def step(self, longest: Optional[float] = None) -> None:
        """One turn of the loop; ``longest`` limits the wait, in seconds."""
        self.loop.turn(longest)
        self.loop.guarded(self._deliver)

    def _close(self) -> None:
        self.uplink.abort()
        for zygote in list(self.launcher.all.values()):
            zygote.kill()
            with contextlib.suppress(ChildProcessError):
                os.waitpid(zygote.pid, 0)
        self.loop.close()
        self.shared.buffer.close()
        self.setup.folder.release()

    def _adopt(self, entries: Sequence[Entry]) -> None:
        """Say how the runs ended that an earlier life of this worker left; nothing of them is running."""
        for entry in entries:
            attempt = Attempt(self.shared, entry)
            self.attempts[attempt.fence] = attempt
            attempt.adopt(WORKER_KILLED)
        self.setup.folder.forget_readings(self.predecessors.living)

    def _inherit(self, entries: Sequence[Entry]) -> None:
        """An older process of this worker ended while it drained."""
        self._adopt(entries)
        self.uplink.join_again()

    # --------------------------------------------------------------------------------------------------------- orders

    def _held(self) -> List[messages.Held]:
        self._offers.clear()  # the server takes back what was not claimed
        self._look_at_all()
        return [attempt.held() for attempt in self.attempts.values()]

    def _obey(self, order: Any) -> None:
        handle = _ORDERS.get(type(order))
        if handle is not None:
            self.loop.guarded(lambda: handle(self, order))

    def _accepted(self, order: messages.Accept) -> None:
        self.predecessors.accepted()
        self._tell_free()

    def _offered(self, order: messages.OfferRun) -> None:
        known = self.attempts.get(order.fence)
        if known is not None:
            self.session.claim(order.fence, order.run)
        elif self.shutdown.begun:
            self.session.decline(order.fence, order.run, "the worker is stopping")
        elif not self.launcher.settled:
            self._offers.append(order)
        elif self.launcher.outdated():
            self._offers.append(order)
            self.launcher.renew()
        else:
            self._take(order)

    def _take(self, order: messages.OfferRun) -> None:
        """Journal, then claim: in this order, or a restart would not know what the server believes it has."""
        if order.flow not in self.launcher.flows:
            self.session.decline(order.fence, order.run, self._why_not(order.flow))
            return
        attempt = Attempt(self.shared, Entry(order, self.boot))
        try:
            attempt.offered()
        except OSError as wrong:
            self.session.decline(order.fence, order.run, "the worker cannot write its journal: %s" % wrong.strerror)
            return
        self.attempts[order.fence] = attempt
        self.session.claim(order.fence, order.run)
        self.uplink.pump()  # the claim is on its way while the run is prepared
        self.launcher.prepare(order.fence, order.flow, attempt.open_pipes)
        self._tell_free()

    def _decline_waiting(self, reason: str) -> None:
        for offer in self._offers:
            self.session.decline(offer.fence, offer.run, reason)
        self._offers.clear()

    def _why_not(self, flow: str) -> str:
        problems = self.launcher.problems
        return "this worker has no flow '%s'%s" % (flow, ": " + problems[0] if problems else "")

    def _start(self, order: messages.StartRun) -> None:
        attempt = self.attempts.get(order.fence)
        if attempt is None or attempt.stage != OFFERED:
            return
        attempt.go()
        self.launcher.start(order.fence, attempt.entry.order.flow, lambda: self._hand_over(attempt))

    def _hand_over(self, attempt: Attempt) -> Optional[Sequence[int]]:
        fds = attempt.open_pipes()
        if fds is not None:
            attempt.zygote = self.launcher.forker or self.launcher
        return fds

    def _cancel(self, order: messages.CancelRun) -> None:
        attempt = self.attempts.get(order.fence)
        if attempt is not None:
            attempt.cancel(order.reason, order.grace_s)

    def _hold(self, order: messages.HoldRun) -> None:
        attempt = self.attempts.get(order.fence)
        if attempt is not None:
            attempt.hold(order.on)

    def _answer(self, answer: messages.Answer) -> None:
        attempt = self.attempts.get(answer.fence)
        if attempt is not None:
            attempt.answer(answer.ask, answer.body)

    def _drop(self, order: messages.DropRun) -> None:
        self._offers = [offer for offer in self._offers if offer.fence != order.fence]
        attempt = self.attempts.get(order.fence)
        if attempt is not None:
            attempt.drop()

    # ---------------------------------------------------------------------------------------------------------- flows

    def _announce(self, announced: messages.FlowsAnnounced) -> None:
        self.session.announce(announced)
        self._refusals = []
        self._described.update((flow.name, flow) for flow in announced.flows)
        for problem in announced.problems:
            self._note(problem)
        if announced.flows or not self._flows_told:
            names = sorted(flow.name for flow in announced.flows)
            more = " and %d more" % (len(names) - NAMES_SHOWN) if len(names) > NAMES_SHOWN else ""
            self.say("  flows   %s%s" % (", ".join(names[:NAMES_SHOWN]) or "none", more))
            self._flows_told = True
        self._tell_starts(announced.flows)
        self._tell_free()

    def _tell_starts(self, flows: Sequence[messages.FlowSpec]) -> None:
        """Say which flows do not start by a fork, and why, when that is news."""
        names: Dict[str, List[str]] = {}
        for flow in flows:
            if flow.start_reason and self._starts_told.get(flow.name) != flow.start_reason:
                names.setdefault(flow.start_reason, []).append(flow.name)
        self._starts_told = {flow.name: flow.start_reason for flow in flows}
        for reason, told in names.items():
            self._note("%s %s" % (", ".join(told), reason))

    def _settled(self) -> None:
        """What can be run is known: look at the offers that waited for it."""
        waiting, self._offers = self._offers, []
        for offer in waiting:
            self._offered(offer)
        self._tell_free()

    def _flows_refused(self, order: messages.FlowsRefused) -> None:
        """Told again on each connection; said once for each import of the source."""
        for sentence in order.problems:
            if sentence not in self._refusals:
                self._note("refused by the server: %s" % sentence)
        self._refusals = list(order.problems)

    def _secrets_of(self, order: messages.OfferRun) -> Hidden:
        """What is secret among the values that a run was given; its processes tell the secrets of the code."""
        flow = self._described.get(order.flow) or messages.FlowSpec(order.flow)
        return Hidden(secrets_in(order.parameters, flow.parameters), MAX_CONFIDED)

    def _tell_free(self) -> None:
        used = sum(attempt.busy for attempt in self.attempts.values()) + len(self._offers)
        able = bool(self.launcher.flows) and not self.shutdown.begun
        self.session.free(self.setup.slots - used if able else 0)
        if self.shutdown.draining:
            self.session.drain([fence for fence, attempt in self.attempts.items() if attempt.busy])
            self.shutdown.count()

    # ----------------------------------------------------------------------------------------------------- deliveries

    def _rung(self) -> None:
        """Rest before the look, not after it: what a short run says then travels as one batch."""
        self.loop.forget(self._bell_out)
        self.loop.after(BELL_REST_S, self._look)

    def _look(self) -> None:
        self.loop.on_read(self._bell_out, self._rung)  # first: whatever fails below, the bell is heard again
        with contextlib.suppress(BlockingIOError):
            for word in self._deadlines.hear(os.read(self._bell_out, 1 << 16)):
                attempt = self.attempts.get(word.fence)
                if attempt is not None:
                    attempt.watch(word.key, word.seconds, word.sentence, self.setup.grace_s)
        self._look_at_all()

    def _look_at_all(self) -> None:
        for attempt in list(self.attempts.values()):
            self.loop.guarded(attempt.look)

    def _changed(self, attempt: Attempt) -> None:
        if not attempt.busy:
            self.launcher.abandon(attempt.fence)
        self._tell_free()

    def _deliver(self) -> None:
        """After each turn: send what there is, forget what has arrived."""
        self.loop.guarded(self.uplink.pump)
        for attempt in list(self.attempts.values()):
            self.loop.guarded(partial(self._forget_if_delivered, attempt))
        if self.shutdown.begun:
            self._leave_when_done()

    def _forget_if_delivered(self, attempt: Attempt) -> None:
        if attempt.forget_if_delivered():
            del self.attempts[attempt.fence]
            self._tell_free()
            self.uplink.pump()

    # ------------------------------------------------------------------------------------------------------------ end

    def _refused(self, sentence: str) -> None:
        self.say("refused by %s: %s" % (self.uplink.url, sentence))
        self._code = 2

    def _signalled(self, number: int) -> None:
        """To drain, to stop the runs, or to kill them: as ``Shutdown`` says."""
        self.shutdown.signalled(number)
        self._decline_waiting("the worker is stopping")
        self.launcher.rest()
        self._tell_free()
        if self.shutdown.draining and self.session.lets_drain:
            self.setup.folder.hand_over()  # an older server would take the newer process for a double

    def _give_back(self, attempt: Attempt) -> None:
        self.session.decline(attempt.fence, attempt.run, "the worker is stopping")
        attempt.drop()

    def _leave_when_done(self) -> None:
        if (
            any(attempt.busy for attempt in self.attempts.values())
            or self._code is not None
            or self.crash_hooks.running
        ):
            return
        if self._goodbye is None:
            self._goodbye = self.loop.after(GOODBYE_S, self._leave)
        if not self.attempts or not self.uplink.connected:
            self._leave()

    def _leave(self) -> None:
        if self.uplink.closed:
            self._code = 0
            return
        self.uplink.close("the worker was stopped")
        self.loop.after(1.0, self._gone)

    def _gone(self) -> None:
        self._code = 0

    def _mishap(self, error: Exception) -> None:
        """A fault in this program must not cost the runs their supervisor. The same one is told with its traceback
        once, then by its count."""
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        count = self._mishaps[text] = self._mishaps.get(text, 0) + 1
        if count == 1:
            self._note("an error in the worker, which goes on: %s" % text)
        elif count in MISHAPS_TOLD:
            self._note("an error in the worker, for the %dth time: %s" % (count, error))
        if len(self._mishaps) > len(MISHAPS_TOLD):
            self._mishaps = {text: count}

    def _note(self, sentence: str) -> None:
        self.say("%s  %s" % (time.strftime("%H:%M:%S"), sentence))


def _version() -> str:
    return str(getattr(sys.modules.get("perfect_client"), "__version__", ""))


_ORDERS: Dict[type, Callable[[Supervisor, Any], None]] = {
    messages.Accept: Supervisor._accepted,
    messages.FlowsRefused: Supervisor._flows_refused,
    messages.OfferRun: Supervisor._offered,
    messages.StartRun: Supervisor._start,
    messages.CancelRun: Supervisor._cancel,
    messages.HoldRun: Supervisor._hold,
    messages.Answer: Supervisor._answer,
    messages.DropRun: Supervisor._drop,
}
