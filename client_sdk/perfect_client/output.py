"""What a run writes to its stdout and stderr past Python's streams: pipes that are always drained, lines, log records.

`print` and `logging` inside a run are captured in its own process, with their task. Here arrives the rest: C code,
subprocesses, the interpreter's last words in a crash.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Callable, Dict, Iterable, List, Optional, Sequence

from perfect_client import protocol, spool

STDOUT_LEVEL, STDERR_LEVEL = 20, 30  # as in ``logging``: INFO, WARNING
READ_BYTES = 64 * 1024  # of one pipe in one turn of the loop
LAST_WORDS_BYTES = 4 * 1024
_CUT = "\u2026"  # as ``perfect_client.cuts`` knows it


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

    @property
    def unfinished(self) -> str:
        """The last line, if it had no end; it may go on."""
        part, over = self._part, self._over
        line = self._line(b"") if part or over else ""
        self._part, self._over = part, over
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


def _last_bytes(text: str) -> str:
    raw = text[-LAST_WORDS_BYTES:].encode("utf-8", "backslashreplace")
    return raw[-LAST_WORDS_BYTES:].decode("utf-8", "ignore")


class Output:
    """The two pipes of a run and the spool their lines go to; the spool is made with the first line.

    ``clean`` takes out of a line what must not be in it. ``learn`` is called after each read and before the lines in
    it are kept: what was read may follow a secret that only now can be known.
    """

    def __init__(
        self, path: Path, cap_bytes: int = spool.CAP_BYTES, clean: Callable[[str], str] = lambda text: text,
        learn: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._path, self._cap, self._clean, self._learn = path, cap_bytes, clean, learn
        self._writer: Optional[spool.Writer] = None
        self._cutters: Dict[int, LineCutter] = {}
        self._levels: Dict[int, int] = {}
        self._dropped = 0
        self._tail = ""  # of the lines as they were kept: a cut through them cuts through no secret

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
        self._learn()
        unfinished = [self._without_half(cutter.unfinished) for cutter in self._cutters.values()]
        return _last_bytes(self._tail + "\n".join(filter(None, unfinished)))

    def drain(self, fd: int, now: float) -> bool:
        """Read once, at most ``READ_BYTES``; False when the pipe is at its end (it is then closed). ``now``: epoch."""
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        self._learn()
        cutter = self._cutters[fd]
        if data:
            self._keep(map(self._clean, cutter.feed(data)), fd, now)
        else:
            self._keep(map(self._without_half, cutter.end()), fd, now)
        if not data:
            self._cutters.pop(fd)
            os.close(fd)
        return bool(data)

    def close(self, now: float) -> None:
        """Close what is still open and write how much was dropped."""
        self._learn()
        for fd in self.open_pipes:
            self._keep(map(self._without_half, self._cutters.pop(fd).end()), fd, now)
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

    def _without_half(self, line: str) -> str:
        """Of a line that has no end: whoever wrote it may have died in the middle of a secret."""
        return self._clean(line + _CUT)[: -len(_CUT)]

    def _keep(self, lines: Iterable[str], fd: int, now: float) -> None:
        clean = list(lines)
        self._tail = _last_bytes("\n".join([self._tail + clean[0], *clean[1:], ""])) if clean else self._tail
        self._record([protocol.Logged(now, line, self._levels[fd]) for line in clean])

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
