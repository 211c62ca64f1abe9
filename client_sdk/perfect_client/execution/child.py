"""What happens in a run's own process: it becomes a session of its own, then executes the flow and writes its facts."""

from __future__ import annotations

import atexit
import contextlib
import errno
import faulthandler
import functools
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, Callable, Dict, List, NamedTuple, NoReturn, Optional, Union

from perfect_client.caching import lineage
from perfect_client.engine import hooks
from perfect_client.engine.decorators import flow, task
from perfect_client.errors import Cancelled
from perfect_client.execution import executor, last_hooks
from perfect_client.journal import journal, spool, tail, unfinished_lines
from perfect_client.journal.run_files import RunFiles, make_ahead
from perfect_client.journal.unfinished_lines import OpenLines
from perfect_client.schema import secrets
from perfect_client.schema.secrets import fact_without_secrets
from perfect_client.system import procs
from perfect_client.system.channel import Channel
from perfect_client.wire import messages
from perfect_client.worker.last_lines import left_out
from perfect_client.worker.secret_pipe import SecretSender
from perfect_client.worker.watchdog import Watchdog

_MAX_RECORD_BYTES = 256 * 1024
_MAX_OUTCOME_BYTES = 48 * 1024  # of the 64 KiB that a full spool keeps free for it
_BROKEN_DISK_S = 60.0  # that an outcome waits for a disk which takes nothing, though it is not full
_MAX_IMPORT_OUTPUT = 32 * 1024  # fits into a pipe
_DISK_LOOK_S = 0.5  # between two looks whether a full disk has room again
_FULL = (errno.ENOSPC, errno.EDQUOT)


Find = Callable[[str], Any]


class NotImported(LookupError):
    """The file of the run's flow did not import; the text is a sentence."""


class Start(NamedTuple):
    """What a child is to run (the order stands in the journal), and its descriptors."""

    fence: int
    stdout: int
    stderr: int
    lifeline: int
    answers: int
    secrets: int


class Place(NamedTuple):
    """Whose child it is: the worker's UUID, the folder of journals and spools, the bell to ring."""

    worker: str
    runs: str
    bell: int


class Stop:
    """SIGTERM's handler: raises ``Cancelled`` once, in the main thread, and never in the middle of writing a fact."""

    def __init__(self) -> None:
        self.seen = False
        self.over = False
        self._holding = False

    def __call__(self, number: int, frame: Optional[FrameType]) -> None:
        if self.seen or self.over:
            return
        self.seen = True
        if not self._holding:
            raise Cancelled("the run was stopped")

    def hold(self) -> bool:
        """Until ``let_go`` the signal is only remembered. False in any other thread, where none arrives."""
        mine = threading.current_thread() is threading.main_thread()
        if mine:
            self._holding = True
        return mine

    def let_go(self, was_seen: bool) -> None:
        self._holding = False
        if self.seen and not was_seen:
            raise Cancelled("the run was stopped")


class Emitter:
    """Writes facts into the run's spool, from any thread, and rings the supervisor's bell.

    A full spool or disk never reaches user code: of the log lines the last ones are kept in a ring and the others
    counted, other facts wait in memory.
    """

    def __init__(
        self,
        writer: spool.Writer,
        bell: int,
        cancel_reason: Callable[[], Optional[str]],
        stop: Stop,
        open_lines: Optional[OpenLines] = None,
        tail_path: str = os.devnull,
    ) -> None:
        self._writer, self._bell, self._cancel_reason, self._stop = writer, bell, cancel_reason, stop
        self._open_lines, self._tail_path = open_lines, tail_path
        self._lock = threading.RLock()
        self._waiting: List[bytes] = []
        self._try_at = 0.0
        self._is_full = False  # the disk, at the last write
        self._tail: Optional[tail.Tail] = None  # once there are lines that the spool does not take
        self.withheld = False
        self.ended = False

    def __call__(self, fact: Any) -> None:
        was_seen, mine = self._stop.seen, self._stop.hold()
        try:
            with self._lock:
                if not self.ended:
                    self._emit(fact_without_secrets(fact))
                elif isinstance(fact, messages.RunEnded):  # told again: something broke into the first time
                    self._write_outcome()
        finally:
            if mine:
                self._stop.let_go(was_seen)

    def _emit(self, fact: Any) -> None:
        if self._stop.seen and isinstance(fact, messages.TaskEnded):
            fact = _by_its_cause(fact)
        if isinstance(fact, messages.RunEnded):
            self._end(fact)
        elif isinstance(fact, messages.ArtifactWritten):
            for part in messages.split_artifact(fact):  # after its secrets were taken out: none hides across two parts
                self._append(_encoded(part))
        elif not isinstance(fact, messages.Logged):
            self._append(_encoded(fact))
        else:
            self._log(_encoded(fact))

    def _log(self, record: bytes) -> None:
        if self._writer.full or self._waiting:
            self._keep_last(record)
        elif self._tail is not None:
            self._catch_up(self._tail, record)
        elif not self._write([record]):
            self._keep_last(record)

    def _keep_last(self, record: bytes) -> None:
        if self._tail is None:
            self._tail = tail.Tail(self._tail_path)
        self._tail.add(record)

    def _catch_up(self, kept: tail.Tail, record: bytes) -> None:
        """The disk was full; when it has room again, what was kept meanwhile comes before anything new."""
        kept.add(record)
        if time.monotonic() >= self._try_at:
            self._try_at = time.monotonic() + _DISK_LOOK_S
            if self._write(left_out(kept.kept(), "log", time.time())):
                kept.clear()
                self._tail = None

    def _append(self, record: bytes) -> None:
        self._waiting.append(record)
        if self._write(self._waiting):
            self._waiting = []

    def _write(self, records: List[bytes]) -> bool:
        try:
            self._writer.append_many(records)
        except OSError as wrong:
            if wrong.errno not in (*_FULL, errno.EIO, errno.EFBIG):
                raise
            self._is_full = wrong.errno in _FULL
            return False
        if self._open_lines is not None:
            self._open_lines.ring()
            return True
        with contextlib.suppress(OSError):  # a full pipe has been rung already
            os.write(self._bell, b"!")
        return True

    def _end(self, fact: messages.RunEnded) -> None:
        """The outcome. CANCELLED counts only when the server asked for it, or when the code came to it and was not
        stopped: it may have kept the exception that stopped it as a state. Else the supervisor says what happened."""
        self.ended = self._stop.over = True
        if fact.outcome == "CANCELLED":
            reason = self._cancel_reason()
            if reason is not None:
                fact = messages.RunEnded(fact.time, fact.outcome, reason or fact.reason, fact.error, fact.traceback)
            elif self._stop.seen or not fact.by_code:
                self.withheld = True
                return
        if self._tail is not None:
            self._waiting += left_out(self._tail.kept(), "log", fact.time)
        self._waiting.append(_fitting(fact))
        self._write_outcome()

    def _write_outcome(self) -> None:
        """Wait for room on a full disk, however long that takes: a run that has completed must not be told dead."""
        give_up = time.monotonic() + _BROKEN_DISK_S
        while not self._write_waiting() and time.monotonic() < give_up:
            time.sleep(_DISK_LOOK_S)
            if self._is_full:
                give_up = time.monotonic() + _BROKEN_DISK_S
        with contextlib.suppress(OSError):
            self._writer.sync()

    def _write_waiting(self) -> bool:
        while self._waiting and self._write(self._waiting[:1]):
            del self._waiting[0]
        return not self._waiting


def _by_its_cause(fact: messages.TaskEnded) -> messages.TaskEnded:
    """A task, or a sub-flow's run, that was stopped though nobody has cancelled the run: it has crashed with it."""
    witness = hooks.witness if fact.outcome == "CANCELLED" else None
    reason = None if witness is None else witness.crash_reason()
    return fact if reason is None else replace(fact, outcome="CRASHED", error=reason, traceback="")


def _encoded(fact: Any) -> bytes:
    """The record of a fact: whatever the fact holds, it can be written."""
    try:
        record = messages.encode_fact(fact)
    except (ValueError, TypeError):  # NaN, or a value that JSON has no word for
        fields = {name: value if _plain(value) else messages.clean_text(value) for name, value in vars(fact).items()}
        record = messages.encode_fact(type(fact)(**fields))
    return record if len(record) < _MAX_RECORD_BYTES else _shortened(fact, messages.MAX_LINE_BYTES)


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int)) or (isinstance(value, float) and abs(value) < float("inf"))


def _shortened(fact: Any, limit: int) -> bytes:
    fields = vars(fact).items()
    return messages.encode_fact(
        type(fact)(
            **{name: messages.clean_text(value, limit) if isinstance(value, str) else value for name, value in fields}
        )
    )


def _fitting(fact: messages.RunEnded) -> bytes:
    """The outcome, small enough for what a full spool keeps free; JSON may double what it escapes."""
    record = _encoded(fact)
    return record if len(record) <= _MAX_OUTCOME_BYTES else _shortened(fact, _MAX_OUTCOME_BYTES // 8)


def _settle(stop: Stop) -> None:
    """What can be done before the order is known: own session, own group, own signals, no input."""
    with contextlib.suppress(PermissionError):  # one that has imported its flow itself has its session already
        os.setsid()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    procs.offer_to_the_oom_killer()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    if "numpy.random" in sys.modules:  # every fork has the zygote's generator: without this all runs draw the same
        sys.modules["numpy.random"].seed()


def _take_over(start: Start, place: Place) -> None:
    """Become the run's process: its name, its mark, its standard streams; from here on it dies with the supervisor."""
    if not procs.die_with(start.lifeline):
        threading.Thread(target=_die_at_end_of, args=(start.lifeline,), daemon=True, name="lifeline").start()
    procs.rename_process(procs.process_name(start.fence, place.worker))
    os.environ["PERFECT_RUN"] = procs.mark(start.fence, place.worker)
    said = _said_so_far()
    os.dup2(start.stdout, 1)
    os.dup2(start.stderr, 2)
    os.close(start.stdout)
    os.close(start.stderr)
    faulthandler.enable(2)
    os.set_inheritable(start.secrets, False)
    secrets.tell_new_secrets(SecretSender(start.secrets).tell)
    if said:
        os.write(1, said)


def _said_so_far() -> bytes:
    """What the imports of this process have printed: it was kept in memory for the run's log."""
    with contextlib.suppress(OSError):
        if os.readlink("/proc/self/fd/1").startswith("/memfd:" + procs.IMPORT_OUTPUT):
            return os.pread(1, _MAX_IMPORT_OUTPUT, 0)
    return b""


def _die_at_end_of(lifeline: int) -> None:
    """Where the kernel cannot do it: wait for the supervisor's end of the pipe to close, then kill the group."""
    with contextlib.suppress(OSError):
        os.read(lifeline, 1)
    os.killpg(0, signal.SIGKILL)


class Ready(NamedTuple):
    """A run that has only to begin: what was ordered, where its files are (without their endings), where the server's
    answers come in, and what its facts go through."""

    order: messages.OfferRun
    files: str
    answers: int
    emit: Emitter
    open_lines: Optional[OpenLines]


class EndHooks(NamedTuple):
    """A run that has ended, and whose hooks this process is to call: they hear how it has ``ended``."""

    order: messages.OfferRun
    files: str
    ended: Dict[str, Any]


def _make_ready(
    start: Start, place: Place, stop: Stop, ahead: Optional[RunFiles] = None
) -> Union[Ready, EndHooks, None]:
    """Everything but what the user's code can notice. None when the journal is gone."""
    _take_over(start, place)
    path = os.path.join(place.runs, str(start.fence))
    entry = journal.load(Path(path + ".json"))
    if entry is None:
        return None
    if entry.ended is not None:
        return EndHooks(entry.order, path, entry.ended)
    return _with_files(ahead or RunFiles(path), entry.order, path, start.answers, place, stop)


def _with_files(files: RunFiles, order: messages.OfferRun, path: str, answers: int, place: Place, stop: Stop) -> Ready:
    """A run that writes to these files; ``path`` is that of its own, without their endings."""

    def cancel_reason() -> Optional[str]:
        now = journal.load(Path(path + ".json"))
        return None if now is None else now.cancel

    if files.open_lines is not None:
        files.open_lines.use_bell(place.bell)
    emit = Emitter(files.facts, place.bell, cancel_reason, stop, files.open_lines, path + ".tail")
    return Ready(order, path, answers, emit, files.open_lines)


@task
def _no_task() -> None:
    """What it calls."""


@flow
def _nothing(text: str = "") -> None:
    """The flow that warms up."""
    print(text)
    _no_task()


def _await(channel: Channel, place: Place, find: Find, stop: Stop, alone: bool) -> Union[Ready, EndHooks, None]:
    """In reserve: wait for an order, and leave without a word when none can come any more.

    Once its offer is claimed the run is prepared here; the user's code waits for the start.
    """
    warm_up()
    _rehearse()
    ready: Union[Ready, EndHooks, None] = None
    ahead = make_ahead(place.runs)
    try:
        while True:
            for message, fds in channel.receive():
                if fds:
                    fence = int(message.get("prepare") or message["start"])
                    ready = _make_ready(Start(fence, *fds), place, stop, ahead)
                    if ready is not None:
                        with contextlib.suppress(NotImported):
                            find(ready.order.flow)  # it is remembered
                if "start" in message:
                    channel.close()
                    return _put_in_place(ready, ahead, place, stop)
    except (EOFError, Cancelled, KeyboardInterrupt):
        if ahead is not None:
            ahead.remove()
        if alone:
            leave()  # what its own imports have registered is to be done
        os._exit(0)


def _put_in_place(
    ready: Union[Ready, EndHooks, None], ahead: Optional[RunFiles], place: Place, stop: Stop
) -> Union[Ready, EndHooks, None]:
    """Not before the start: the commit of the claim would wait for it, where both are on one disk."""
    if ahead is None:
        return ready
    if not isinstance(ready, Ready):
        ahead.remove()
        return ready
    try:
        ahead.belong_to(ready.files)
    except OSError:
        ahead.remove()
        return _with_files(RunFiles(ready.files), ready.order, ready.files, ready.answers, place, stop)
    return ready


def warm_up() -> None:
    """Do once all that a start does: a fork copies each page at the first write to it, and that takes time.

    In the zygote it is done often enough that the interpreter has settled on how to run this code: it notes that
    within the code, which would be such writes in every run.
    """
    order = messages.OfferRun(1, "", "", {"text": ""})
    journal.read(journal.encode_entry(journal.Entry(order, "")))
    procs.process_name(1, "")
    journal.load(Path(os.devnull))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    open_lines, writer = unfinished_lines.in_memory(), spool.Writer(os.devnull)
    open_lines.use_bell(nowhere)
    try:
        executor.execute(_nothing, order, Emitter(writer, nowhere, str, Stop(), open_lines), open_lines=open_lines)
    finally:
        writer.close()
        open_lines.close()
        os.close(nowhere)


def _rehearse() -> None:
    """Do what `_take_over` does, with no effect; as a warm-up, which in the zygote itself would have one."""
    lifeline, other_end = os.pipe()
    procs.die_with(lifeline)
    procs.keep_alive_without(lifeline)
    procs.rename_process(procs.name_of(os.getpid()))
    os.environ["PERFECT_RUN"] = procs.mark(0, "")
    _said_so_far()
    faulthandler.enable(2)
    SecretSender(other_end).tell([])
    os.close(other_end)
    journal.load(Path("/proc/self/comm"))


def _execute(ready: Union[Ready, EndHooks, None], bell: int, find: Find, stop: Stop) -> int:
    """Run the flow; the process's exit code. The outcome is in the spool, the code only says why when it is not."""
    if ready is None:
        os.write(2, b"the journal of this run is gone\n")
        return os.EX_IOERR
    guard = Watchdog(bell, ready.order.fence)
    if isinstance(ready, EndHooks):
        with contextlib.suppress(NotImported):
            last_hooks.call_hooks(find, ready.order, ready.files, ready.ended, guard)
        return 0
    order, emit = ready.order, ready.emit
    hooks.witness = last_hooks.Witness(ready.files, stop)
    lineage.begin(order.run, order.lineage)
    try:
        flow = find(order.flow)
        executor.execute(flow, order, emit, guard=guard, answers=ready.answers, open_lines=ready.open_lines)
    except NotImported as wrong:
        emit(messages.RunEnded(time.time(), "FAILED", reason=str(wrong), error=str(wrong)))
    except (Cancelled, KeyboardInterrupt):
        emit(messages.RunEnded(time.time(), "CANCELLED"))
    stop.over = True
    lineage.end()
    if not emit.withheld:
        return 0
    return procs.EXIT_STOPPED if stop.seen else procs.EXIT_INTERRUPTED


def leave() -> None:
    """What an ordinary interpreter does at its end, but for tearing down modules: that only dirties shared pages."""
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]  # joins the threads that are not daemons
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()


def run(born: Union[Start, Channel], place: Place, find: Find, alone: bool = False) -> NoReturn:
    """The whole life of a run's process; never returns. ``find`` gives the flow of a name, or raises ``NotImported``.
    ``alone``: this process imports for itself, and cleans up after itself."""
    code, stop = 1, Stop()
    find = functools.lru_cache(maxsize=None)(find)
    try:
        _settle(stop)
        ready = _await(born, place, find, stop, alone) if isinstance(born, Channel) else _make_ready(born, place, stop)
        code = _execute(ready, place.bell, find, stop)
    except BaseException:
        stop.over = True
        sys.excepthook(*sys.exc_info())
    finally:
        leave()
        os._exit(code)
