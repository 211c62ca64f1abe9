"""A worker's own folder: who it is, the lock that makes it one, and what it knows of each attempt.

``PERFECT_HOME/worker/<name>/`` (mode 0700) holds ``identity``, ``lock``, ``boots/<boot>`` and ``runs/<fence>.json``
with the spools ``<fence>.facts`` and ``<fence>.raw`` beside it, and what belongs to these (``KINDS``). The one process
that takes runs holds ``lock``; each process holds the file of its boot, also one that drains and has let go of
``lock``. So an attempt whose boot's file is locked has a living owner; any other attempt is taken over by who holds
``lock``. The file of a boot that was killed stays until the server has been told that it is dead.

A journal grows by lines of JSON: the first has all of an entry, each later one what may have changed, and what is not
yet a whole line does not count. So a kill at any moment leaves the old entry or the new one, and no second file has to
be made for it: on ext4 a new file costs thirty times as much as a line. It is not synced: after a power cut an
attempt's journal may be gone, and the server, not hearing of the attempt again, says CRASHED.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Collection, Dict, List, Optional, Set, Tuple

from perfect_client.journal import run_files
from perfect_client.wire import messages

# Beside an attempt's journal: its spools and their common order, unfinished lines, the last lines of a full log.
# An earlier version wrote ``output`` and numbered it by itself.
KINDS = ("facts", "raw", "order", "open", "rawopen", "tail", "rawtail", "output", "hooks")
DEAD_KEPT = 20  # boots: of a worker that is killed again and again while no server is there


class Occupied(Exception):
    """Another living worker holds this folder; the text is a sentence."""


@dataclass
class Entry:
    """What the worker knows of one attempt. ``cancel`` is the reason once a cancel was asked for, ``stop`` the one once
    the worker ends it. ``ended`` says how it has ended, once a process was started to call its hooks."""

    order: messages.OfferRun
    boot: str
    started: bool = False
    pid: int = 0
    born: int = 0
    cancel: Optional[str] = None
    stop: Optional[str] = None
    ended: Optional[Dict[str, Any]] = None


def load(path: Path) -> Optional[Entry]:
    """The entry in a file, None when it cannot be read (a power cut can leave an empty one)."""
    try:
        return read(path.read_bytes())
    except OSError:
        return None


def read(text: bytes) -> Optional[Entry]:
    """The entry that the lines of a journal come to, None when they do not."""
    try:
        data = _merged(text)
        order = messages.from_dict(messages.OfferRun, data["order"])
        return Entry(
            order=order,
            boot=str(data["boot"]),
            started=bool(data["started"]),
            pid=int(data["pid"]),
            born=int(data["born"]),
            cancel=data["cancel"],
            stop=data.get("stop"),
            ended=data.get("ended"),
        )
    except (ValueError, KeyError, TypeError):
        return None


def encode_entry(entry: Entry, *, anew: bool = True) -> bytes:
    """A line that says what is known of the attempt; all of it if the journal is ``anew``, else what may change."""
    data = {
        "boot": entry.boot,
        "started": entry.started,
        "pid": entry.pid,
        "born": entry.born,
        "cancel": entry.cancel,
        "stop": entry.stop,
        "ended": entry.ended,
    }
    if anew:
        data["order"] = messages.to_dict(entry.order)
    return messages.dumps(data).encode("utf-8", "backslashreplace") + b"\n"


def _merged(text: bytes) -> Dict[str, Any]:
    """What the whole lines say together. One without an end is torn, unless it is all there is, as an earlier version
    wrote it."""
    *lines, rest = text.split(b"\n")
    data: Dict[str, Any] = {}
    for line in lines or [rest]:
        with contextlib.suppress(ValueError):  # one that was torn, and then followed by another
            data.update(json.loads(line))
    return data


def hook_state(run: str, state: str) -> str:
    """The word that the hooks of this run, or sub-run, hear of its end in this state."""
    return "%s %s" % (run, state)


def read_hook_states(path: Path) -> Set[str]:
    """All such words in a file."""
    try:
        return set(path.read_text().splitlines())
    except (OSError, UnicodeDecodeError):
        return set()


def _locked(fd: int) -> bool:
    """Lock the file for this process, flock(2); False when another process holds it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _mark(fd: int) -> bytes:
    """What stands in a boot's file: that this kernel keeps its lock, and that the file is no copy of another one."""
    try:
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        kernel = socket.gethostname()
    return ("%s %d\n" % (kernel, os.fstat(fd).st_ino)).encode("utf-8", "backslashreplace")


class Folder:
    """The folder of one worker. ``path`` is made when missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs = path / "runs"
        self.runs.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.chmod(0o700)
        self.boot = uuid.uuid4().hex
        self._boots = path / "boots"
        self._boots.mkdir(exist_ok=True, mode=0o700)
        self._readings = path / "reading"
        self._readings.mkdir(exist_ok=True, mode=0o700)
        self._ahead = path / run_files.FOLDER
        self._ahead.mkdir(exist_ok=True, mode=0o700)
        self._lock: Optional[int] = None
        self._boot_lock: Optional[int] = None

    def lock(self) -> None:
        """Be the only process of this folder that takes runs, while this process lives. Raises ``Occupied``."""
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        if not _locked(fd):
            owner = os.read(fd, 32).decode("ascii", "replace").strip()
            os.close(fd)
            raise Occupied(
                "a worker named '%s' is already running here (pid %s); stop that one (while its runs end, this one "
                "may start), or give this one another name with --name" % (self.path.name, owner or "unknown")
            )
        os.ftruncate(fd, 0)
        os.write(fd, b"%d\n" % os.getpid())
        self._lock = fd
        self._boot_lock = os.open(self._boots / self.boot, os.O_RDWR | os.O_CREAT, 0o600)
        _locked(self._boot_lock)
        for left in self._ahead.iterdir():  # by processes that were killed; one that lives can do without
            with contextlib.suppress(OSError):
                left.unlink()
        with contextlib.suppress(OSError):  # a full disk: then its death will not be proved
            os.write(self._boot_lock, _mark(self._boot_lock))

    def hand_over(self) -> None:
        """Let another process of this worker take runs; what this one holds stays its own."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def release(self) -> None:
        """At the end."""
        self.hand_over()
        if self._boot_lock is not None:
            with contextlib.suppress(OSError):
                (self._boots / self.boot).unlink()
            os.close(self._boot_lock)
            self._boot_lock = None

    def living(self) -> Set[str]:
        """The boots of other processes of this worker that live: they drain. Only for who holds the lock."""
        return {name for name, (lives, _) in self._others().items() if lives}

    def dead(self) -> List[str]:
        """The boots of this worker that are surely dead, the newest first. Only for who holds the lock.

        A free lock proves that only to the kernel that kept it, and for the very file that was locked: not in a copy
        of the folder, and not to another machine that shares it. What proves nothing is removed.
        """
        free = {name: marked for name, (lives, marked) in self._others().items() if not lives}
        found = sorted((name for name in free if free[name]), key=lambda name: free[name], reverse=True)
        self.bury(set(free) - set(found[:DEAD_KEPT]))
        return found[:DEAD_KEPT]

    def bury(self, boots: Collection[str]) -> None:
        """Forget these dead boots."""
        for boot in boots:
            with contextlib.suppress(OSError):
                (self._boots / boot).unlink()

    def _others(self) -> Dict[str, Tuple[bool, int]]:
        """Of each other boot: whether a process holds its file, and when its mark was made (ns; 0: not here)."""
        found = {}
        for path in self._boots.iterdir():
            if path.name == self.boot:
                continue
            try:
                fd = os.open(path, os.O_RDWR)
            except FileNotFoundError:  # it has ended just now
                continue
            try:
                marked = os.fstat(fd).st_mtime_ns if os.read(fd, 300) == _mark(fd) else 0
                found[path.name] = not _locked(fd), marked
            finally:
                os.close(fd)
        return found

    def identity(self) -> str:
        """This worker's UUID, made at its first start."""
        file = self.path / "identity"
        with contextlib.suppress(OSError, ValueError):
            return str(uuid.UUID(file.read_text().strip()))
        value = str(uuid.uuid4())
        self._replace(file, value.encode() + b"\n")
        return value

    def journal(self, fence: int) -> Path:
        return self.runs / ("%d.json" % fence)

    def facts(self, fence: int) -> Path:
        return self.runs / ("%d.facts" % fence)

    def beside(self, fence: int, kind: str) -> Path:
        """One of ``KINDS``."""
        return self.runs / ("%d.%s" % (fence, kind))

    def reading(self, boot: str) -> Path:
        """Where that boot's supervisor reads to."""
        return self._readings / boot

    def forget_readings(self, living: Collection[str]) -> None:
        """Remove those of boots that are neither this one nor among the living."""
        for path in self._readings.iterdir():
            if path.name != self.boot and path.name not in living:
                with contextlib.suppress(OSError):
                    path.unlink()

    def write(self, entry: Entry) -> None:
        """Add what may have changed, or all that is to be known of a new attempt. Raises ``OSError``."""
        fd = os.open(self.journal(entry.order.fence), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(fd).st_size
            _append(
                fd, size, (b"\n" if size else b"") + encode_entry(entry, anew=size == 0)
            )  # the one before may be torn
        finally:
            os.close(fd)

    def remove(self, fence: int) -> None:
        """Forget an attempt. Its journal goes last: while it stands, a restart finds the attempt."""
        beside = str(self.runs / str(fence))  # text: a path object for each would take longer than to look for the file
        for kind in (*KINDS, "json"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink("%s.%s" % (beside, kind))

    def entries(self, living: Collection[str] = ()) -> List[Entry]:
        """All attempts of other boots that may have been started, but for those of ``living`` boots.

        What else lies there (torn, without a journal) is removed.
        """
        found = []
        for fence in self._fences():
            entry = load(self.journal(fence))
            if entry is None or not (entry.started or entry.boot in living):
                self.remove(fence)
            elif entry.boot not in living and entry.boot != self.boot:
                found.append(entry)
        for path in () if living else self.runs.glob("*.new"):  # one of theirs may be about to be renamed
            path.unlink()
        return found

    def fences_of(self, boots: Collection[str]) -> Set[int]:
        """The attempts that these boots hold."""
        found = [load(self.journal(fence)) for fence in self._fences()] if boots else []
        return {entry.order.fence for entry in found if entry is not None and entry.boot in boots}

    def _fences(self) -> List[int]:
        names = {path.stem for path in self.runs.iterdir()}
        return sorted(int(name) for name in names if name.isdigit())

    @staticmethod
    def _replace(path: Path, content: bytes) -> None:
        fresh = str(path) + ".new"
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb", buffering=0) as file:
            if file.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), fresh)
        os.replace(fresh, path)


def _append(fd: int, size: int, content: bytes) -> None:
    """All of it, or nothing to a file of this size. Raises ``OSError``."""
    if os.write(fd, content) != len(content):
        os.ftruncate(fd, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
