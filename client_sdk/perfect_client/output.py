"""What a run writes to its stdout and stderr past Python's streams: pipes that are always drained, lines, log records.

`print` and `logging` inside a run are captured in its own process, with their task. Here arrives the rest: C code,
subprocesses, the interpreter's last words in a crash.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence

from perfect_client import protocol, spool

STDOUT_LEVEL, STDERR_LEVEL = 20, 30  # as in ``logging``: INFO, WARNING
READ_BYTES = 64 * 1024  # of one pipe in one turn of the loop
LAST_WORDS_BYTES = 4 * 1024


class LineCutter:
    """Bytes in, whole lines out. A line is cut at ``limit`` bytes; of a progress bar redrawn with ``\\r`` the last
    state stays; bytes that are not UTF-8 become escapes."""

    def __init__(self, limit: int = protocol.MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._part = b""
        self._over = 0  # bytes of the unfinished line that were not kept

    def feed(self, data: bytes) -> List[str]:
        *whole, rest = data.split(b"\n")
        lines = []
        for piece in whole:
            lines.append(self._line(piece))
            self._part, self._over = b"", 0
        self._keep(rest)
        return lines

    def end(self) -> List[str]:
        """The last line, if it had no end."""
        line = [self._line(b"")] if self._part or self._over else []
        self._part, self._over = b"", 0
        return line

    def _keep(self, piece: bytes) -> None:
        joined = self._part + piece
        redrawn = joined.rfind(b"\r", 0, len(joined) - 1)  # one at the very end may belong to "\r\n"
        if redrawn >= 0:
            joined, self._over = joined[redrawn + 1 :], 0
        self._over += max(0, len(joined) - self._limit)
        self._part = joined[: self._limit]

    def _line(self, piece: bytes) -> str:
        self._keep(piece)
        text = self._part[:-1] if self._part.endswith(b"\r") else self._part
        line = protocol.clean_text(text.decode("utf-8", "backslashreplace"), self._limit * 4)
        return line + "… (%d bytes more)" % self._over if self._over else line


class Output:
    """The two pipes of a run and the spool their lines go to; the spool is made with the first line.

    ``clean`` takes out of a line what must not be in it.
    """

    def __init__(
        self, path: Path, cap_bytes: int = spool.CAP_BYTES, clean: Callable[[str], str] = lambda text: text
    ) -> None:
        self._path, self._cap, self._clean = path, cap_bytes, clean
        self._writer: Optional[spool.Writer] = None
        self._cutters: Dict[int, LineCutter] = {}
        self._levels: Dict[int, int] = {}
        self._dropped = 0
        self._tail = b""

    def pipe(self, level: int) -> int:
        """A new pipe; its writing end, for the child. The reading end joins ``open_pipes``."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        self._cutters[reading] = LineCutter()
        self._levels[reading] = level
        return writing

    @property
    def open_pipes(self) -> List[int]:
        return list(self._cutters)

    @property
    def last_words(self) -> str:
        said = self._clean(self._tail.decode("utf-8", "backslashreplace"))
        return protocol.clean_text(said, LAST_WORDS_BYTES)

    def drain(self, fd: int, now: float) -> bool:
        """Read once, at most ``READ_BYTES``; False when the pipe is at its end (it is then closed). ``now``: epoch."""
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        cutter = self._cutters[fd]
        lines = cutter.feed(data) if data else cutter.end()
        self._tail = (self._tail + data)[-LAST_WORDS_BYTES:]
        self._record([protocol.Logged(now, self._clean(line), self._levels[fd]) for line in lines])
        if not data:
            self._cutters.pop(fd)
            os.close(fd)
        return bool(data)

    def add(self, now: float, text: str, level: int) -> None:
        """A line of the supervisor's."""
        self._record([protocol.Logged(now, text, level)])

    def close(self, now: float) -> None:
        """Close what is still open and write how much was dropped."""
        for fd in self.open_pipes:
            lines = self._cutters.pop(fd).end()
            self._record([protocol.Logged(now, self._clean(line), self._levels[fd]) for line in lines])
            os.close(fd)
        if self._dropped:
            text = "%d lines were not kept: the output of this run is full" % self._dropped
            marker = protocol.encode_fact(protocol.Logged(now, text, STDERR_LEVEL, None, self._dropped))
            with contextlib.suppress(OSError):
                self._opened().append(marker)
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._dropped = 0

    def _opened(self) -> spool.Writer:
        if self._writer is None:
            self._writer = spool.Writer(self._path, self._cap)
        return self._writer

    def _record(self, lines: Sequence[protocol.Logged]) -> None:
        if not lines:
            return
        try:
            writer = self._opened()
            if writer.full:
                self._dropped += len(lines)
            else:
                writer.append_many([protocol.encode_fact(line) for line in lines])
        except OSError:  # the disk is full: the run must not feel it
            self._dropped += len(lines)
