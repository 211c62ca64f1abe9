"""What an import leaves behind in its process that two forks of it must not share: threads, connections, clean-ups.

Linux tells it in ``/proc``; elsewhere only Python's own threads and what was registered for the end of the process are
seen. Some things are harmless: OpenBLAS ends its threads before a fork and starts them again (pthread_atfork(3)), each
write to a file that is only appended to goes to its end, and ``/dev/null`` has no position.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import os
import socket
import stat
import sys
import threading
import time
import weakref
from typing import Any, Callable, Dict, FrozenSet, Iterator, List, NamedTuple, Tuple

from perfect_client.system import procs

_TASKS, _FDS = "/proc/self/task", "/proc/self/fd"
_ENDING_S = 0.1  # what a thread that is about to end gets before it counts
# Modules of Python itself whose clean-ups do nothing in a fork that did not use them.
_HARMLESS_CLEAN_UPS = frozenset({"asyncio", "concurrent", "logging", "multiprocessing", "threading", "weakref"})
_HARMLESS_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/log")
_GPUS = ("/dev/nvidia", "/dev/kfd", "/dev/dri/")
_POLLS = ("anon_inode:[eventpoll]", "anon_inode:[eventfd]", "anon_inode:[io_uring]")
_JEMALLOC = "jemalloc_bg_thd"  # it registers for forks, too (pthread_atfork)
_OPENBLAS_COUNTS = (
    "scipy_openblas_get_num_threads64_",
    "scipy_openblas_get_num_threads",
    "openblas_get_num_threads64_",
    "openblas_get_num_threads",
)


class Left(NamedTuple):
    """One thing that was left: what a sentence says of it, "an open connection to db.example.com:5432"; ``key`` tells
    it from all others while it lasts."""

    kind: str
    key: Any
    text: str


class Process:
    """This process: ``news`` tells what has come since the last look, as something that a fork would share."""

    def __init__(self) -> None:
        self.hosts: Dict[Tuple[str, int], str] = {}  # the names by which the code asked for an address
        self._clean_ups: List[Left] = []
        self._register: Callable[..., Any] = atexit.register
        self._resolve: Callable[..., Any] = socket.getaddrinfo
        self._known: FrozenSet[Tuple[str, Any]] = frozenset()
        self._known = frozenset((left.kind, left.key) for left in self._all())
        self._seen = self._counts()

    # ------------------------------------------------------------------------------------------------------ listening

    def listen(self) -> None:
        """From here on take note of clean-ups that are registered, and of host names that are looked up."""
        self._register, self._resolve = atexit.register, socket.getaddrinfo
        atexit.register = self._note_clean_up  # type: ignore[assignment]
        socket.getaddrinfo = self._note_host

    def rest(self) -> None:
        """Put back what ``listen`` has replaced."""
        atexit.register, socket.getaddrinfo = self._register, self._resolve

    def _note_clean_up(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        module = str(sys._getframe(1).f_globals.get("__name__", ""))
        if module.partition(".")[0] not in _HARMLESS_CLEAN_UPS:
            name = str(getattr(func, "__qualname__", ""))
            what = "%s() to be called" % name if name.isidentifier() else "something to do"
            self._clean_ups.append(Left("clean-up", len(self._clean_ups), "%s at the end of the process" % what))
        return self._register(func, *args, **kwargs)

    def _note_host(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        found = self._resolve(host, port, *args, **kwargs)
        if isinstance(host, str):
            self.hosts.update((entry[4][:2], host) for entry in found)
        return found

    # -------------------------------------------------------------------------------------------------------- looking

    def news(self, thorough: bool = False) -> List[Left]:
        """What was not there at the last look. ``thorough`` also sees shared memory, and a descriptor whose number was
        used before."""
        counts = self._counts()
        if counts == self._seen and not thorough:
            return []
        self._seen = counts
        found = [left for left in self._all() if (left.kind, left.key) not in self._known]
        self._known = self._known.union((left.kind, left.key) for left in found)
        return found

    def still_there(self, lefts: List[Left]) -> List[Left]:
        """Those of them that have not gone since."""
        give_up = time.monotonic() + _ENDING_S
        while True:
            there = {(left.kind, left.key) for left in self._all()}
            rest = [left for left in lefts if (left.kind, left.key) in there]
            if not any(left.kind == "thread" for left in rest) or time.monotonic() > give_up:
                return rest
            time.sleep(0.01)

    def _counts(self) -> Any:
        """What is cheap to know, and differs when there may be news."""
        return (
            _numbers_in(_TASKS) or threading.active_count(),
            _numbers_in(_FDS),
            len(self._clean_ups),
            _finalizers(),
            procs.children_of(os.getpid()),
        )

    def _all(self) -> Iterator[Left]:
        yield from _threads()
        for number, target in _descriptors():
            if not _is_harmless(number, target):
                yield Left(*_kind_of(number, target, self.hosts))
        for pid in procs.children_of(os.getpid()):
            yield Left("child", pid, "the child process %d (%s)" % (pid, procs.name_of(pid)))
        yield from _shared_memory()
        yield from self._clean_ups
        for number in range(_finalizers()):
            yield Left("finalizer", number, "a finalizer for the end of the process")


def _numbers_in(folder: str) -> List[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _finalizers() -> int:
    """How many ``weakref.finalize`` wait for the end of the process."""
    registry: Dict[Any, Any] = getattr(weakref.finalize, "_registry", {})
    return sum(bool(info.atexit) and not _is_of_python(info) for info in list(registry.values()))


def _is_of_python(info: Any) -> bool:
    return str(getattr(info.func, "__module__", "")).partition(".")[0] in _HARMLESS_CLEAN_UPS


# ------------------------------------------------------------------------------------------------------------ threads


def _threads() -> Iterator[Left]:
    """All threads but the main one, and but those of OpenBLAS."""
    named = {getattr(thread, "native_id", None): thread.name for thread in threading.enumerate()}
    ids = [int(name) for name in _numbers_in(_TASKS)] or [number for number in named if number]
    others = sorted(number for number in ids if number != (named and threading.main_thread().native_id))
    native = [number for number in others if number not in named and procs.thread_name(number) != _JEMALLOC]
    others = [number for number in others if number in named or number in native]
    harmless = set(native[: _openblas_threads()] if native else ())
    for number in others:
        if number not in harmless:
            yield Left("thread", number, "the thread %r" % named[number] if number in named else "native threads")


def _openblas_threads() -> int:
    """How many threads the loaded OpenBLAS libraries have beside the one that calls them."""
    count = 0
    for path in _loaded_libraries("openblas"):
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(path)
            counts = [getattr(library, name) for name in _OPENBLAS_COUNTS if hasattr(library, name)]
            count += max(0, int(counts[0]()) - 1) if counts else 0
    return count


def _loaded_libraries(word: str) -> List[str]:
    paths = {line.partition("/")[2] for line in _maps()}
    return sorted("/" + path for path in paths if word in path.rpartition("/")[2] and ".so" in path)


def _shared_memory() -> Iterator[Left]:
    """Mappings that two forks would write to, as the locks and values of multiprocessing have them; proc(5)."""
    for line in _maps():
        addresses, permissions, _, _, _, *path = line.split(None, 5)
        if permissions == "rw-s" and not "".join(path).startswith(_GPUS):
            yield Left("shared", addresses, "memory that forks share")


def _maps() -> List[str]:
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            return maps.read().splitlines()
    except OSError:
        return []


# -------------------------------------------------------------------------------------------------------- descriptors


def _descriptors() -> Iterator[Tuple[int, str]]:
    """Number and target of each open descriptor, as proc(5) tells them."""
    for name in _numbers_in(_FDS):
        with contextlib.suppress(OSError):  # the one that lists the folder is gone by now
            yield int(name), os.readlink("%s/%s" % (_FDS, name))


def _is_harmless(number: int, target: str) -> bool:
    if target.startswith(_HARMLESS_DEVICES):
        return True
    with contextlib.suppress(OSError):
        appended = fcntl.fcntl(number, fcntl.F_GETFL) & (os.O_APPEND | os.O_ACCMODE) == os.O_APPEND | os.O_WRONLY
        mode = os.fstat(number).st_mode
        return stat.S_ISDIR(mode) or (appended and stat.S_ISREG(mode)) or _is_log_socket(number, target)
    return True  # closed meanwhile


def _is_log_socket(number: int, target: str) -> bool:
    """A datagram socket to the system's log: each message goes as a whole, and none comes back."""
    if not target.startswith("socket:"):
        return False
    with _socket_of(number) as sock:
        with contextlib.suppress(OSError):
            return sock.family == socket.AF_UNIX and sock.type == socket.SOCK_DGRAM and bool(sock.getpeername())
    return False


def _kind_of(number: int, target: str, hosts: Dict[Tuple[str, int], str]) -> Tuple[str, Any, str]:
    if target.startswith("socket:"):
        return "socket", target, _text_of_socket(number, hosts)
    if target.startswith(_GPUS):
        return "gpu", "gpu", "a GPU context"
    if target.startswith(_POLLS):
        return "loop", (number, target), "an event loop"
    if target.startswith("pipe:"):
        return "pipe", (number, target), "an open pipe"
    return "file", (number, target), "the open file %s" % target.rpartition("/")[2]


def _text_of_socket(number: int, hosts: Dict[Tuple[str, int], str]) -> str:
    with _socket_of(number) as sock:
        with contextlib.suppress(OSError):
            return "an open connection to %s" % _address(sock.getpeername(), hosts)
        with contextlib.suppress(OSError):
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return "a socket that listens on %s" % _address(sock.getsockname(), hosts)
    return "an open socket"


def _socket_of(number: int) -> socket.socket:
    return socket.socket(fileno=os.dup(number))


def _address(address: Any, hosts: Dict[Tuple[str, int], str]) -> str:
    if isinstance(address, tuple):
        return "%s:%d" % (hosts.get(address[:2], address[0]), address[1])
    return (address if isinstance(address, str) else os.fsdecode(address)) or "another process"


# ---------------------------------------------------------------------------------------------------------- sentences


def in_words(lefts: List[Left]) -> str:
    """``2 native threads and an open connection to db:5432``; each text once."""
    texts: Dict[str, int] = {}
    for left in lefts:
        texts[left.text] = texts.get(left.text, 0) + 1
    said = [_counted(text, count) for text, count in texts.items()]
    return " and ".join(said if len(said) < 4 else [*said[:3], "%d more" % (len(said) - 3)])


def _counted(text: str, count: int) -> str:
    if text == "native threads":
        return "%d native thread%s" % (count, "" if count == 1 else "s")
    return text if count == 1 or text == "an event loop" else "%s (%d times)" % (text, count)


def of_call(text: str) -> Left:
    """That the code makes something that each run is to have of its own: the state of random numbers, a folder."""
    return Left("made", text, text)
