"""A worker's own folder: who it is, the lock that makes it one, and what it knows of each attempt.

``PERFECT_HOME/worker/<name>/`` (mode 0700) holds ``identity``, ``lock`` and ``runs/<fence>.json`` with the spools
``<fence>.facts`` and ``<fence>.raw`` beside it, and what belongs to these (``KINDS``). A journal is replaced by a
rename, so that a kill at any moment leaves the old text or the new one. It is not synced: after a power cut an
attempt's journal may be gone, and the server, not hearing of the attempt again, says CRASHED.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

from perfect_client import protocol

# Beside an attempt's journal: its spools and their common order, unfinished lines, the last lines of a full log.
# An earlier version wrote ``output`` and numbered it by itself.
KINDS = ("facts", "raw", "order", "open", "rawopen", "tail", "rawtail", "output")


class Occupied(Exception):
    """Another living worker holds this folder; the text is a sentence."""


@dataclass
class Entry:
    """What the worker knows of one attempt. ``cancel`` is the reason once a cancel was asked for."""

    order: protocol.OfferRun
    boot: str
    started: bool = False
    pid: int = 0
    born: int = 0
    cancel: Optional[str] = None


def load(path: Path) -> Optional[Entry]:
    """The entry in a file, None when it cannot be read (a power cut can leave an empty one)."""
    try:
        data = json.loads(path.read_bytes())
        order = protocol.from_dict(protocol.OfferRun, data["order"])
        return Entry(
            order=order,
            boot=str(data["boot"]),
            started=bool(data["started"]),
            pid=int(data["pid"]),
            born=int(data["born"]),
            cancel=data["cancel"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Folder:
    """The folder of one worker. ``path`` is made when missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs = path / "runs"
        self.runs.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.chmod(0o700)
        self._lock: Optional[int] = None

    def lock(self) -> None:
        """Be the only worker of this folder while this process lives. Raises ``Occupied``."""
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(fd, 32).decode("ascii", "replace").strip()
            os.close(fd)
            raise Occupied(
                "a worker named '%s' is already running here (pid %s); give this one another name with --name"
                % (self.path.name, owner or "unknown")
            ) from None
        os.ftruncate(fd, 0)
        os.write(fd, b"%d\n" % os.getpid())
        self._lock = fd

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

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

    def write(self, entry: Entry) -> None:
        data = {
            "order": protocol.to_dict(entry.order),
            "boot": entry.boot,
            "started": entry.started,
            "pid": entry.pid,
            "born": entry.born,
            "cancel": entry.cancel,
        }
        self._replace(self.journal(entry.order.fence), protocol.dumps(data).encode("utf-8", "backslashreplace"))

    def remove(self, fence: int) -> None:
        """Forget an attempt. Its journal goes last: while it stands, a restart finds the attempt."""
        for path in (*(self.beside(fence, kind) for kind in KINDS), self.journal(fence)):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def entries(self) -> List[Entry]:
        """All attempts that may have been started; what else lies there (torn, without a journal) is removed."""
        found = []
        fences = {path.stem for path in self.runs.iterdir()}
        for fence in sorted(int(name) for name in fences if name.isdigit()):
            entry = load(self.journal(fence))
            if entry is not None and entry.started:
                found.append(entry)
            else:
                self.remove(fence)
        for path in self.runs.glob("*.new"):
            path.unlink()
        return found

    @staticmethod
    def _replace(path: Path, content: bytes) -> None:
        fresh = str(path) + ".new"
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb", buffering=0) as file:
            if file.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), fresh)
        os.replace(fresh, path)
