"""Output that a supervisor had not recorded when it was killed: how many lines, so that the log can say so.

A run's zygote keeps the reading ends of its pipes too. It never reads while the supervisor lives; once the supervisor
and the runs are dead it counts what nobody has read. The lines themselves are not kept: only a supervisor knows what is
secret. What it was reading in that moment stands in its `Buffer`.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import time
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence

from perfect_client.journal import unfinished_lines

_COUNT_S = 2.0  # the longest that is waited for the end of processes that were killed
READ_BYTES = 64 * 1024  # of one pipe in one turn of the loop


class Pipes:
    """The reading ends of the runs' stdout and stderr, by fence."""

    def __init__(self) -> None:
        self._fds: Dict[int, List[int]] = {}
        self._over: List[int] = []

    def keep(self, fence: int, fds: Sequence[int]) -> None:
        self.forget(fence)
        self._fds[fence] = list(fds)
        self._over = [over for over in self._over if over != fence]

    def forget(self, fence: int) -> None:
        """Close those of one run."""
        for fd in self._fds.pop(fence, ()):
            os.close(fd)

    def ended(self, fence: int) -> None:
        """The run's process is gone. What the supervisor has still to read may be lost until it has."""
        if fence in self._fds:
            self._over.append(fence)
        still = [over for over in self._over if any(map(unfinished_lines.unread_bytes, self._fds[over]))]
        for over in set(self._over).difference(still):
            self.forget(over)
        self._over = still

    def close(self) -> None:
        """In a fork."""
        for fence in list(self._fds):
            self.forget(fence)

    def count(self, runs: str) -> None:
        """Read to the end what nobody else will read, and note beside each journal how many lines it was, an unfinished
        one included. A full disk has room for it: the file is there."""
        give_up = time.monotonic() + _COUNT_S
        for fence, fds in self._fds.items():
            out, err = (_count_lines(fd, give_up) for fd in fds)
            lines = unfinished_lines.attach(os.path.join(runs, "%d.open" % fence)) if out or err else None
            if lines is not None:
                lines.note_unread(out, err)
                lines.close()


class Buffer:
    """Where a supervisor reads to: the kernel keeps the file when the process is killed before it could count what it
    has read. It is empty (zeros) but in that moment, so that no secret stays in it."""

    def __init__(self, path: Optional[Path] = None) -> None:
        self._path, self._map = path, mmap.mmap(-1, READ_BYTES)
        if path is not None:
            with contextlib.suppress(OSError, ValueError), open(_opened(path), "r+b", buffering=0) as file:
                if file.write(bytes(READ_BYTES)) == READ_BYTES:  # blocks for all of it: see ``unfinished_lines``
                    self._map = mmap.mmap(file.fileno(), READ_BYTES)

    def read(self, fd: int) -> bytes:
        """Raises ``BlockingIOError`` when there is nothing to read, or ``OSError``."""
        return self._map[: os.readv(fd, [self._map])]

    def clear(self, size: int) -> None:
        """So many bytes were read, and are counted."""
        self._map[:size] = bytes(size)

    def close(self) -> None:
        self._map.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)


def read_leftover(path: Path) -> bytes:
    """What a supervisor that was killed had just read."""
    try:
        return path.read_bytes().rstrip(b"\0")
    except OSError:
        return b""


def _count_lines(fd: int, give_up: float) -> int:
    lines, rest = 0, False
    for data in _read_to_the_end(fd, give_up):
        lines += data.count(b"\n")
        rest = not data.endswith(b"\n")
    return lines + rest


def _read_to_the_end(fd: int, give_up: float) -> Iterator[bytes]:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while poll.poll(max(0.0, give_up - time.monotonic()) * 1000):
        data = os.read(fd, READ_BYTES)
        if not data:
            return
        yield data
