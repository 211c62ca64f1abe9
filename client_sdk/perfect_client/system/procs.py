"""What a worker asks of the operating system about processes. Linux does all of it; elsewhere the helpers say no.

Who belongs to a run is answered in three ways that complete each other: its process group and session (until a
descendant calls ``setsid``), the mark ``PERFECT_RUN`` in the environment (a descendant that called ``exec`` shows it),
and the process name (a descendant that only forked still carries it).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import resource  # noqa: F401 - os.wait4 imports it, which code that changes sys.path must not break
import select
import signal
from typing import Dict, Iterator, List, NamedTuple, Optional, Set

IMPORT_OUTPUT = "perfect-import"  # the name of a file in memory with what an import has printed
_NAME_BYTES = 15  # prctl(2), PR_SET_NAME

EXIT_STOPPED = 128 + signal.SIGTERM  # the flow was stopped, and nobody had asked to cancel the run
EXIT_INTERRUPTED = 128 + signal.SIGINT
WITHHELD = {
    EXIT_STOPPED: "the process was stopped by signal 15 (SIGTERM) from outside",
    EXIT_INTERRUPTED: "the flow ended with KeyboardInterrupt",
}

SIGNALS = {
    "SIGSEGV": "segmentation fault",
    "SIGABRT": "abort",
    "SIGBUS": "bus error",
    "SIGFPE": "arithmetic error",
    "SIGILL": "illegal instruction",
    "SIGXCPU": "processor time limit",
    "SIGXFSZ": "file size limit",
}


class Exited(NamedTuple):
    """A child that ended and was reaped. ``status`` as from wait(2); ``peak_kb`` its largest resident size."""

    pid: int
    status: int
    peak_kb: int


def die_with(lifeline: int) -> bool:
    """Let the kernel SIGKILL this process's whole group when the other end of the pipe ``lifeline`` is closed.

    Works even while the group is busy in C code: no instruction of ours has to run. fcntl(2), F_SETSIG.
    """
    set_signal = getattr(fcntl, "F_SETSIG", None)
    if set_signal is None:
        return False
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, set_signal, signal.SIGKILL)
    flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:  # it was closed before the kernel knew whom to tell
        os.killpg(0, signal.SIGKILL)
    return True


def keep_alive_without(lifeline: int) -> None:
    """Take back ``die_with`` and close the pipe."""
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) & ~os.O_ASYNC)
    os.close(lifeline)


def mark(fence: int, worker: str) -> str:
    """The value of ``PERFECT_RUN`` in the environment of everything that an attempt starts."""
    return "%d:%s" % (fence, worker)


def process_name(fence: int, worker: str) -> str:
    """The name of an attempt's process, at most 15 bytes, unique to attempt and worker."""
    return "pf" + hashlib.sha1(mark(fence, worker).encode()).hexdigest()[: _NAME_BYTES - 2]


def zygote_name(boot: str) -> str:
    """The name of a zygote, at most 15 bytes, unique to the supervisor's boot."""
    return "pz" + hashlib.sha1(boot.encode()).hexdigest()[: _NAME_BYTES - 2]


def rename_process(name: str) -> None:
    """Give this process a name that ``ps`` shows and forks inherit (where the system can)."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as comm:
        comm.write(name)


def offer_to_the_oom_killer() -> None:
    """When memory runs out the kernel shall take this process before the supervisor."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("500")


def _read(path: str, limit: int = 1 << 17) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(limit)
    except OSError:
        return b""


def _fields(pid: int) -> List[bytes]:
    """The fields of /proc/PID/stat from the third on (state, ppid, pgrp, session, …); proc(5)."""
    return _read("/proc/%d/stat" % pid).rpartition(b")")[2].split()


def born(pid: int) -> int:
    """When the process started, in ticks since boot; 0 when there is none. With its pid the name of one process."""
    fields = _fields(pid)
    return int(fields[19]) if len(fields) > 19 and fields[0] not in (b"Z", b"X") else 0


def name_of(pid: int) -> str:
    """The name of a process, as ``ps`` shows it; empty when there is none."""
    return _read("/proc/%d/comm" % pid).decode("utf-8", "replace").strip()


def thread_name(thread: int) -> str:
    """The name of a thread of this process, by its number."""
    return _read("/proc/self/task/%d/comm" % thread).decode("utf-8", "replace").strip()


def born_at(pid: int) -> Optional[float]:
    """When the process started, in seconds since the epoch; None when the system does not say."""
    ticks = born(pid)
    for line in _read("/proc/stat", 1 << 20).split(b"\n") if ticks else ():
        if line.startswith(b"btime "):
            return int(line.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
    return None


def all_pids() -> List[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def children_of(pid: int) -> List[int]:
    """The direct children of a process."""
    try:
        threads = os.listdir("/proc/%d/task" % pid)
    except OSError:
        return []
    found: List[int] = []
    for thread in threads:
        found.extend(int(child) for child in _read("/proc/%d/task/%s/children" % (pid, thread)).split())
    return found


def orphans(pid: int, others: Set[int]) -> Iterator[int]:
    """All descendants of a process, except ``others`` and everything below them."""
    for found in children_of(pid):
        if found not in others:
            yield found
            yield from orphans(found, others)


def environment_mark(pid: int) -> Optional[str]:
    """``PERFECT_RUN`` in the environment that the process was exec'd with."""
    for item in _read("/proc/%d/environ" % pid).split(b"\0"):
        if item.startswith(b"PERFECT_RUN="):
            return item[len(b"PERFECT_RUN=") :].decode("utf-8", "replace")
    return None


def belongs_to(pid: int, leader: int, fence: int, worker: str) -> bool:
    """Whether a process was started, over whatever detours, by this attempt's process ``leader``."""
    fields = _fields(pid)
    if len(fields) < 4 or fields[0] in (b"Z", b"X"):
        return False
    if leader and int(fields[3]) == leader:
        return True
    if _read("/proc/%d/comm" % pid).strip() == process_name(fence, worker).encode():
        return True
    return environment_mark(pid) == mark(fence, worker)


def processes_left_behind(worker: str, attempts: Dict[int, int]) -> Set[int]:
    """Every process on this machine that one of these attempts started; ``attempts`` is fence → leader's pid.

    Reads all of /proc: for a worker's start and end, not for each run.
    """
    me, names = os.getpid(), {process_name(fence, worker).encode() for fence in attempts}
    leaders, marks = {pid for pid in attempts.values() if pid}, {mark(fence, worker) for fence in attempts}
    found: Set[int] = set()
    for pid in all_pids():
        fields = _fields(pid)
        if pid == me or len(fields) < 4 or fields[0] in (b"Z", b"X"):
            continue
        if environment_mark(pid) in marks or _read("/proc/%d/comm" % pid).strip() in names or int(fields[3]) in leaders:
            found.add(pid)
    return found


def processes_named(names: Set[str]) -> Set[int]:
    """Every process on this machine that has one of these names and has not ended."""
    return {pid for pid in all_pids() if name_of(pid) in names and born(pid)}


def send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def send_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def reap(groups: Set[int]) -> Iterator[Exited]:
    """Every child that has ended. One in ``groups`` takes its process group along while its pid is still its own."""
    while True:
        try:
            seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if seen is None or not seen.si_pid:
                return
            if seen.si_pid in groups:
                send_group(seen.si_pid, signal.SIGKILL)
            pid, status, used = os.wait4(seen.si_pid, os.WNOHANG)
        except ChildProcessError:
            return
        if pid:
            yield Exited(pid, status, used.ru_maxrss)


def oom_kills() -> int:
    """How many processes the kernel has killed for lack of memory since it started; 0 where it does not say."""
    for line in _read("/proc/vmstat", 1 << 16).split(b"\n"):
        if line.startswith(b"oom_kill "):
            return int(line.split()[1])
    return 0


def _size(kilobytes: int) -> str:
    return "%.1f GB" % (kilobytes / 1e6) if kilobytes >= 1_000_000 else "%.0f MB" % (kilobytes / 1e3)


def describe_death(status: Optional[int], peak_kb: int = 0, out_of_memory: bool = False) -> str:
    """One sentence on why a process without an outcome is gone; ``status`` as from wait(2), None when nobody knows."""
    if status is None:
        return "the process is gone and left no exit code"
    if not os.WIFSIGNALED(status):
        code = os.WEXITSTATUS(status)
        return (
            "the process exited without finishing (code 0)"
            if code == 0
            else ("the process exited with code %d without finishing" % code)
        )
    number = os.WTERMSIG(status)
    if number == signal.SIGKILL:
        if out_of_memory:
            return "the process was killed by the system (signal 9), probably out of memory (peak %s)" % _size(peak_kb)
        return "the process was killed by signal 9 from outside (peak memory %s)" % _size(peak_kb)
    try:
        name = signal.Signals(number).name
    except ValueError:
        return "the process was killed by signal %d" % number
    return "the process was killed by signal %d (%s)" % (number, SIGNALS.get(name, name))
