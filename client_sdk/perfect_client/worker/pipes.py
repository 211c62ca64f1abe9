"""What a run writes to its stdout and stderr past Python's streams: pipes that are always drained, lines, log records.

`print` and `logging` inside a run are captured in its own process, with their task. Here arrives the rest: C code,
subprocesses, the interpreter's last words in a crash.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from perfect_client.journal import spool, tail, unfinished_lines, unread
from perfect_client.journal.unfinished_lines import Mark, OpenLine, OpenLines, TakenLines
from perfect_client.wire import messages
from perfect_client.worker.last_lines import behind, left_open, left_out

STDOUT_LEVEL, STDERR_LEVEL = 20, 30  # as in ``logging``: INFO, WARNING
LAST_WORDS_BYTES = 4 * 1024
DISK_LOOK_S = 0.5  # between two looks whether a full disk has room again
_LOST = "%d lines of output are lost: the worker was killed before it had read them"
_LOST_ONE = "1 line of output is lost: the worker was killed before it had read it"
_CUT = "\u2026"  # as ``perfect_client.schema.cuts`` knows it


class LineCutter:
    """Bytes in, whole lines out. A line is cut at ``limit`` bytes; of a progress bar redrawn with ``\\r`` the last
    state stays; bytes that are not UTF-8 become escapes."""

    def __init__(self, limit: int = messages.MAX_LINE_BYTES) -> None:
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

    def so_far(self) -> str:
        """The unfinished line; empty when there is none."""
        return self._line(b"") if self._part or self._over else ""

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
        line = messages.clean_text(text.decode("utf-8", "backslashreplace"), self._limit * 4)
        return line + "… (%d bytes more)" % self._over if self._over else line


def _last_bytes(text: str) -> str:
    raw = text[-LAST_WORDS_BYTES:].encode("utf-8", "backslashreplace")
    return raw[-LAST_WORDS_BYTES:].decode("utf-8", "ignore")


class Output:
    """The two pipes of a run and the spool their lines go to; the spool is made with the first line.

    ``clean`` takes out of a line what must not be in it. ``learn`` is called after each read and before the lines in
    it are kept: what was read may follow a secret that only now can be known. ``on_first`` is called before the spool
    is made. ``buffer`` is that of the supervisor. The last lines that a full spool does not take stand in a ring beside
    it.
    """

    def __init__(
        self,
        path: Path,
        cap_bytes: Optional[int] = None,
        clean: Callable[[str], str] = lambda text: text,
        learn: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
        on_first: Callable[[], None] = lambda: None,
        buffer: Optional[unread.Buffer] = None,
    ) -> None:
        self._learn, self._on_first, self._buffer = learn, on_first, buffer or unread.Buffer()
        self._path, self._cap, self._clean, self._clock = path, cap_bytes, clean, clock
        self._writer: Optional[spool.Writer] = None
        self._pipes: Dict[int, _Pipe] = {}
        self._tail: Optional[tail.Tail] = None
        self._try_at = 0.0
        self._said = ""  # the end of the lines as they were kept: a cut through them cuts through no secret
        self._read = [0, 0]  # bytes of each pipe
        self._marks: List[Mark] = []
        self._waiting: List[messages.Logged] = []  # read, but one pipe may still hold something older
        self._lines = 0  # records that the spool has when all that was read is in it
        self._counts = not path.exists()  # whether that is known
        self._held: Optional[OpenLines] = None  # this process's own: unfinished raw lines
        self.told: Optional[OpenLines] = None  # the run's, once its process has made them
        self._told_at: Optional[Path] = None

    def pipe(self, level: int) -> int:
        """A new pipe; its writing end, for the child. The reading end joins ``open_pipes``."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        pipe = self._pipes[reading] = _Pipe(level, int(level == STDERR_LEVEL))
        self._read[pipe.index] = 0
        return writing

    @property
    def open_pipes(self) -> List[int]:
        return list(self._pipes)

    @property
    def last_words(self) -> str:
        self._learn()
        self._record_waiting()
        unfinished = [self._without_half(pipe.cutter.so_far()) for pipe in self._pipes.values()]
        return _last_bytes(self._said + "\n".join(filter(None, unfinished)))

    @property
    def has_recorded(self) -> bool:
        """Whether there is a spool."""
        return self._writer is not None or self._path.exists()

    def drain(self, all_told: bool = False) -> List[int]:
        """Read each pipe once, at most ``unread.READ_BYTES``; the pipes that are at their end (they are then closed).

        Of what was written after this began, something may have come to one pipe when it had been read already: such
        lines wait for the next time, so that the lines of both pipes stay in their order; not if ``all_told``: the
        run's process has told its outcome.
        """
        began = self._clock()
        lines, self._waiting = self._waiting, []
        ended = []
        for fd, pipe in list(self._pipes.items()):
            data, now = self._take(fd, pipe)
            if data is not None:
                lines += self._lines_of(pipe, data, now)
            if data == b"":
                del self._pipes[fd]
                os.close(fd)
                ended.append(fd)
        lines.sort(key=_time)
        self._waiting = [line for line in lines if line.time >= began] if self._pipes and not all_told else []
        self._record(lines[: len(lines) - len(self._waiting)])
        self._marks = [mark for mark in self._marks if any(a > b for a, b in zip(mark.written, self._read))]
        return ended

    @property
    def is_behind(self) -> bool:
        """Whether lines wait for the next ``drain``."""
        return bool(self._waiting)

    def _record_waiting(self) -> None:
        lines, self._waiting = self._waiting, []
        self._record(lines)

    def _take(self, fd: int, pipe: _Pipe) -> Tuple[Optional[bytes], float]:
        """What the pipe holds now (None: nothing, empty: it is at its end), and a time that is no earlier."""
        told = self._attached()
        if told is not None:
            told.begin_reading()
            self._note_taken(reading=pipe.index)
        try:
            data: Optional[bytes] = self._buffer.read(fd)
        except BlockingIOError:
            data = None
        except OSError:
            data = b""
        now = self._clock()
        told = told or self._attached()  # what was read may have come from code that has begun just now
        self._read[pipe.index] += len(data or b"")
        if data:
            self._lines += data.count(b"\n")
            pipe.begun = not data.endswith(b"\n")
        if told is not None:
            self._note_taken()
            told.end_reading(*self._read)
            self._marks += told.marks()
        self._buffer.clear(len(data or b""))
        self._learn()
        return data, now

    def _note_taken(self, reading: Optional[int] = None) -> None:
        """Before they are recorded: of those that never will be, somebody has to know."""
        if self.told is not None and self._counts:
            begun = {pipe.index for pipe in self._pipes.values() if pipe.begun}
            self.told.note_taken(TakenLines(self._lines, (0 in begun, 1 in begun), reading))

    def _lines_of(self, pipe: _Pipe, data: bytes, now: float) -> List[messages.Logged]:
        if data:
            texts = [self._clean(text) for text in pipe.cutter.feed(data)]
        else:
            texts = [self._without_half(text) for text in pipe.cutter.end()]
            self._lines, pipe.begun = self._lines + len(texts), False
            self._note_taken()
        times = self._times(pipe, data, now) if self._marks and data else [now] * len(texts)
        lines = [messages.Logged(at, text, pipe.level) for text, at in zip(texts, times)]
        if lines and pipe.slot and self._held is not None:
            self._held.telling(pipe.slot, pipe.level, None, lines[0].time)
            pipe.ended = True
        return lines

    def _times(self, pipe: _Pipe, data: bytes, now: float) -> List[float]:
        """When each line was written, as near as can be known: before what was told when its end was in the pipe."""
        index, at = pipe.index, self._read[pipe.index] - len(data)
        marks = [mark for mark in self._marks if mark.written[index] > at]
        times, nearest = [], 0
        for piece in data.split(b"\n")[:-1]:
            at += len(piece) + 1
            while nearest < len(marks) and marks[nearest].written[index] < at:
                nearest += 1
            times.append(min(now, marks[nearest].time) if nearest < len(marks) else now)
        return times

    def listen(self, path: Path) -> None:
        """What the run's process marks in this file puts raw lines in their place; once it has made it."""
        self._told_at = path
        self._attached()

    def _attached(self) -> Optional[OpenLines]:
        if self.told is None and self._told_at is not None:
            self.told = unfinished_lines.attach(str(self._told_at))
            if self.told is not None:
                out, err = self._read  # its process does not know of them until now
                self._marks += [Mark((a + out, b + err), at) for (a, b), at in self.told.marks()]
                self.told.end_reading(out, err)
        return self.told

    def unfinished(self) -> List[OpenLine]:
        """Lines that have begun in the pipes and not ended."""
        now = self._clock()
        found = [(pipe, pipe.cutter.so_far()) for pipe in self._pipes.values()]
        return [OpenLine(now, self._without_half(text), pipe.level, None) for pipe, text in found if text]

    def _without_half(self, line: str) -> str:
        """Of a line that has no end: whoever wrote it may have stopped in the middle of a secret."""
        return self._clean(line + _CUT)[: -len(_CUT)] if line else line

    def add(self, text: str, level: int) -> None:
        """A line of the supervisor's."""
        self._lines += 1
        self._note_taken()
        self._record([messages.Logged(self._clock(), text, level)])

    def hold(self, path: Path) -> None:
        """Have unfinished lines stand in this file too, where a restarted worker finds them."""
        if self._held is None:
            self._held = unfinished_lines.create(str(path))
        for pipe in self._pipes.values() if self._held is not None else ():
            text = self._without_half(pipe.cutter.so_far())
            pipe.slot = pipe.slot or (self._held.take_slot() if text and self._held is not None else 0)
            if text and pipe.slot and self._held is not None:
                self._held.hold(pipe.slot, text, pipe.level, None, self._clock())

    def recover(self, beside: Callable[[str], Path], recorded: Optional[spool.Reader], reading: Path) -> None:
        """Record what an earlier life of this worker held beside the journal, and had not recorded, and how many lines
        are lost: it had taken them from the pipes, or was reading them (``reading``), or had still to do so."""
        had = recorded.refresh() if recorded is not None else 0
        held = unfinished_lines.attach(str(beside("rawopen")))
        begun = left_open(held, recorded) if held is not None else []
        if held is not None:
            held.close()
        self._record([messages.Logged(line.time, line.text, line.level) for line in begun])
        ring = tail.read_tail(self._path.with_suffix(".rawtail"))
        rest = behind(recorded, left_out(ring, "output", self._clock()))
        if rest:
            with contextlib.suppress(OSError):
                self._opened().append_many(rest)
        had += len(rest) + ring.left - bool(ring.left)  # one line stands for those that left the ring
        lost = _count_lost(beside("open"), reading, had) - len(begun)
        if lost > 0:
            text = _LOST_ONE if lost == 1 else _LOST % lost
            self._record([messages.Logged(self._clock(), text, STDERR_LEVEL, None, lost)])

    def close(self) -> None:
        """Close what is still open and write the last lines that were kept, behind how many were not."""
        self._learn()
        lines = []
        for fd, pipe in self._pipes.items():
            now = self._clock()
            lines += [messages.Logged(now, self._without_half(text), pipe.level) for text in pipe.cutter.end()]
            os.close(fd)
        self._lines += len(lines)
        self._pipes.clear()
        self._note_taken()
        self._record_waiting()
        self._record(lines)
        if self._tail is not None:
            rest = left_out(self._tail.kept(), "output", self._clock())
            with contextlib.suppress(OSError):
                self._opened().append_many(rest)
            self._tail.close()
            self._tail = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for mapped in (self._held, self.told):
            if mapped is not None:
                mapped.close()
        self._held = self.told = self._told_at = None

    def _opened(self) -> spool.Writer:
        if self._writer is None:
            self._on_first()
            self._writer = spool.Writer(self._path, self._cap)
        return self._writer

    def _record(self, lines: Sequence[messages.Logged]) -> None:
        """A full spool or disk is not felt by the run: the lines go through the ring of the last ones."""
        if not lines:
            return
        self._said = _last_bytes("\n".join([self._said + lines[0].message, *(line.message for line in lines[1:]), ""]))
        records = [messages.encode_fact(line) for line in lines]
        if self._tail is not None or not self._append(records):
            self._keep_last(records)
        self._let_go()

    def _append(self, records: List[bytes]) -> bool:
        try:
            writer = self._opened()
            if not writer.full:
                writer.append_many(records)
                return True
        except OSError:
            pass
        return False

    def _keep_last(self, records: List[bytes]) -> None:
        """Later, when a disk that was full has room again, they go where they belong."""
        kept = self._tail = self._tail or tail.Tail(self._path.with_suffix(".rawtail"))
        for record in records:
            kept.add(record)
        if self._writer is None or not self._writer.full:
            now = time.monotonic()
            if now >= self._try_at:
                self._try_at = now + DISK_LOOK_S
                ring = kept.kept()
                if self._append(left_out(ring, "output", self._clock())):
                    kept.clear()
                    self._tail = None
                    self._lines -= ring.left - bool(ring.left)  # one line stands for those that left the ring
                    self._note_taken()

    def _let_go(self) -> None:
        """What stood open has been recorded, but for what has begun since."""
        for pipe in self._pipes.values() if not self._waiting else ():
            if pipe.ended and self._held is not None:
                self._held.clear(pipe.slot)
                pipe.ended = False


class _Pipe:
    """``index``: 0 for stdout's, 1 for stderr's."""

    def __init__(self, level: int, index: int) -> None:
        self.level, self.index, self.cutter = level, index, LineCutter()
        self.slot = 0  # where its unfinished line stands, once it has stood there
        self.ended = False  # that line is being recorded
        self.begun = False  # the last line that was read has no end yet


def _count_lost(path: Path, reading: Path, recorded: int) -> int:
    """Lines of a run that its supervisor had taken when it was killed, or was ``reading``, or that stood in the pipes,
    beyond those that are ``recorded``."""
    told = unfinished_lines.attach(str(path))
    if told is None:
        return 0
    (whole, begun, pipe), left = told.taken(), told.unread()
    told.note_taken(TakenLines())  # the next life does not count them again
    told.note_unread(0, 0)
    told.close()
    data = unread.read_leftover(reading) if pipe is not None else b""
    if data:
        half = not data.endswith(b"\n")
        whole, begun = whole + data.count(b"\n"), (half, begun[1]) if pipe == 0 else (begun[0], half)
    return max(0, whole - recorded) + sum(map(max, begun, left))  # what had begun goes on with the first in the pipe


def _time(line: messages.Logged) -> float:
    return line.time
