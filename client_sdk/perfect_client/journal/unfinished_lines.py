"""Unfinished lines in a mapped file: written by a run's process, read by its supervisor, also after a sudden death.

A line that has begun and not ended stands in a *slot*. The file also keeps raw output in its place among the printed
lines: the supervisor notes there how much it has read of each pipe, and the run's process marks, for a line that it
tells after raw output, how much raw output was written before.

A mapped write is a copy in memory: it costs no system call, and the kernel keeps it when the process is killed. Blocks
are allocated before they are written to, for on a full disk a mapped write would kill the process (SIGBUS).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import struct
import sys
import threading
import time
from typing import Callable, Iterator, List, NamedTuple, Optional, Tuple

from perfect_client.wire.messages import MAX_LINE_BYTES, clean_text

try:
    import fcntl
    import termios
except ImportError:  # Windows: it has no workers, so nobody makes such a file
    pass

SLOTS = 64  # lines that can be open at once: of a thread, in a stream
MARKS = 256  # of lines that were told after raw output, until the supervisor has read that output
RING_AGAIN_S = 0.05  # a bell that nobody has heard for so long is rung again
READING_S = 0.5  # the longest that a line waits for the supervisor to be done with reading, or to take marks

_TAKING_S = 0.001  # between two looks whether it has taken them
_PAGE = 4096
_USED, _READS, _MARKED, _RUNG, _TAKEN, _TAKEN_LINES = 0, 8, 32, 40, 48, 56  # where they stand in the file's head
_MARKS_AT, _SLOTS_AT = 64, 2 * _PAGE
_UNREAD = _SLOTS_AT - 64  # behind the marks
_TEXT_AT, _SLOT_BYTES = 32, MAX_LINE_BYTES + _PAGE

_pack_used = struct.Struct("<I").pack_into
_two = struct.Struct("<QQ")
_reads, _number = struct.Struct("<QQQ"), struct.Struct("<Q")  # how often it read, odd while it does; bytes of each pipe
_mark = struct.Struct("<QQd")
_slot = struct.Struct("<IHHId")  # bytes, level, whether it is being told, task, time
_LENGTH, _TOLD_AT = struct.Struct("<I"), struct.Struct("<HHId")


class OpenLine(NamedTuple):
    """``being_told``: its process was about to tell it, as a line of this very time. ``task`` is a number or None."""

    time: float
    text: str
    level: int
    task: Optional[int]
    being_told: bool = False


class Mark(NamedTuple):
    """A line was told at ``time``, when so many bytes had been written to stdout's and stderr's pipe."""

    written: Tuple[int, int]
    time: float


class TakenLines(NamedTuple):
    """``whole``: records that the spool of raw lines has when all that was taken is in it. ``begun``: whether a line of
    stdout and of stderr has begun behind them. ``reading``: what is being read now and is not counted yet, stdout (0)
    or stderr (1)."""

    whole: int = 0
    begun: Tuple[bool, bool] = (False, False)
    reading: Optional[int] = None


class OpenLines:
    """The file as its writer and its reader see it. ``create`` and ``attach`` make one."""

    def __init__(self, mapped: mmap.mmap, fd: int = -1) -> None:
        self._map, self._fd = mapped, fd
        self._free: List[int] = []
        self._used = 0
        self._lock = threading.Lock()
        self._pipes: Tuple[int, ...] = ()
        self._last, self._stuck, self._untaken = (0, 0), -1, -1
        self._bell, self._rung_at = -1, 0.0
        self._seen = 0  # marks that the supervisor has taken

    # ------------------------------------------------------------------------------------------- in the run's process

    def take_slot(self) -> int:
        """Where a line can stand; 0 when there is no room, so that it is kept in memory alone."""
        with self._lock:
            if self._free:
                return self._free.pop()
            at = _SLOTS_AT + self._used * _SLOT_BYTES
            if self._used == SLOTS or not _allocate(self._fd, at, _SLOT_BYTES):
                return 0
            self._used += 1
            _pack_used(self._map, _USED, self._used)
            return at

    def give_back(self, slot: int) -> None:
        """Its line has ended, and its thread too."""
        self.clear(slot)
        with self._lock:
            self._free.append(slot)

    def hold(self, slot: int, text: str, level: int, task: Optional[int], at: float) -> None:
        """The line is so far."""
        raw = text.encode("utf-8", "backslashreplace")
        if len(raw) > MAX_LINE_BYTES:
            raw = clean_text(text).encode("utf-8")
        begin = slot + _TEXT_AT
        self._map[begin : begin + len(raw)] = raw
        _slot.pack_into(self._map, slot, len(raw), level, 0, task or 0, at)

    def telling(self, slot: int, level: int, task: Optional[int], at: float) -> None:
        """The line has ended, and is about to be told as one of this very time; then comes ``clear``."""
        _TOLD_AT.pack_into(self._map, slot + 4, level, 1, task or 0, at)

    def clear(self, slot: int) -> None:
        """Nothing is open there any more."""
        _LENGTH.pack_into(self._map, slot, 0)

    def watch_pipes(self) -> None:
        """Raw output of this process goes to the pipes that are its descriptors 1 and 2 now."""
        if self._fd < 0:  # in memory: nobody reads its marks
            return
        with contextlib.suppress(OSError):
            if all(stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in (1, 2)):
                self._pipes = (os.dup(1), os.dup(2))

    def unwatch_pipes(self) -> None:
        pipes, self._pipes = self._pipes, ()
        for fd in pipes:
            os.close(fd)

    def moment(self, clock: Callable[[], float], created: Optional[float] = None) -> float:
        """The time of a line that is told now, or that of a record that was ``created`` a moment ago. What was written
        to the pipes before is marked as older."""
        if not self._pipes:
            return clock() if created is None else created
        reads, written, is_read = self._written()
        if written == self._last:
            return clock() if created is None else created
        self._wait_for_room()
        with self._lock:
            # What was read unmarked counts as written when it was read, which may be after the record was created.
            at = clock() if created is None or is_read else created
            self._last = written
            count: int = _number.unpack_from(self._map, _MARKED)[0]
            _mark.pack_into(self._map, _MARKS_AT + count % MARKS * _mark.size, *written, at)
            _number.pack_into(self._map, _MARKED, count + 1)
            if _number.unpack_from(self._map, _READS)[0] != reads:
                self._written()  # it was read before it was marked, and counts as written when that was over
                return clock()
        return at

    def _written(self) -> Tuple[int, Tuple[int, int], bool]:
        """Bytes that were ever written to each pipe: what the supervisor has read, and what still waits. Before them
        how often it had read; behind them whether it has read something that no line has marked."""
        give_up, late = time.monotonic() + READING_S, False
        while True:
            reads, out, err = _reads.unpack_from(self._map, _READS)
            if not reads & 1:
                left = unread_bytes(self._pipes[0]), unread_bytes(self._pipes[1])
                if _number.unpack_from(self._map, _READS)[0] == reads:
                    is_read = out > self._last[0] or err > self._last[1]
                    return reads, (out + left[0], err + left[1]), is_read
            elif reads == self._stuck:
                return reads, self._last, False
            if late:
                self._stuck = reads  # the supervisor was killed while it read: no other line waits for it
                return reads, self._last, False
            time.sleep(0)  # the supervisor is reading this very moment
            late = time.monotonic() > give_up  # one more look: it may be this process that stood still

    def _wait_for_room(self) -> None:
        """A run that is faster than its supervisor must not write over marks that this has not taken: the raw lines
        before them would lose their place. Half of the room is for threads that pass here at the same time."""
        give_up, late = time.monotonic() + READING_S, False
        while True:
            taken: int = _number.unpack_from(self._map, _TAKEN)[0]
            if _number.unpack_from(self._map, _MARKED)[0] - taken < MARKS // 2 or taken == self._untaken:
                return
            if late:
                self._untaken = taken  # the supervisor hangs or was killed: no other line waits for it
                return
            if self._bell >= 0:
                self.ring()
            time.sleep(_TAKING_S)
            late = time.monotonic() > give_up

    @contextlib.contextmanager
    def writing(self, stream: int) -> Iterator[None]:
        """In a forked child: it alone writes to this pipe inside. The kernel ends the lock with the process."""
        held = _locked(self._fd, stream, True)
        try:
            yield
        finally:
            if held:
                _locked(self._fd, stream, False)

    def use_bell(self, bell: int) -> None:
        """``ring`` writes to this pipe."""
        self._bell = bell
        self.looked()  # the first write to a mapped file is slow

    def ring(self) -> None:
        """Tell the supervisor that there is something to look at, unless it was told and has not looked yet."""
        now = time.monotonic()
        if self._map[_RUNG] and now - self._rung_at < RING_AGAIN_S:
            return
        self._map[_RUNG], self._rung_at = 1, now
        with contextlib.suppress(OSError):  # a full pipe has been rung already
            os.write(self._bell, b"!")

    # ---------------------------------------------------------------------------------------------- in the supervisor

    def looked(self) -> None:
        """The supervisor is about to look: what comes from now on rings again."""
        self._map[_RUNG] = 0

    def begin_reading(self) -> None:
        """The supervisor is about to read a pipe."""
        _number.pack_into(self._map, _READS, _number.unpack_from(self._map, _READS)[0] | 1)

    def end_reading(self, out: int, err: int) -> None:
        """It has read so many bytes of each pipe, ever."""
        reads: int = _number.unpack_from(self._map, _READS)[0]
        _two.pack_into(self._map, _READS + 8, out, err)
        _number.pack_into(self._map, _READS, (reads | 1) + 1)

    def note_taken(self, taken: TakenLines) -> None:
        """How many lines the supervisor has taken from the pipes, before it records them."""
        reading = 0 if taken.reading is None else taken.reading + 1
        noted = taken.whole << 4 | reading << 2 | taken.begun[0] << 1 | taken.begun[1]
        _number.pack_into(self._map, _TAKEN_LINES, noted)

    def taken(self) -> TakenLines:
        """What was noted last."""
        noted: int = _number.unpack_from(self._map, _TAKEN_LINES)[0]
        return TakenLines(noted >> 4, (bool(noted & 2), bool(noted & 1)), (noted >> 2 & 3) - 1 if noted & 12 else None)

    def unread(self) -> Tuple[int, int]:
        """What ``note_unread`` was told."""
        out, err = _two.unpack_from(self._map, _UNREAD)
        return out, err

    def note_unread(self, out: int, err: int) -> None:
        """By the zygote, when the supervisor was killed: so many lines stood in each pipe."""
        _two.pack_into(self._map, _UNREAD, out, err)

    def marks(self) -> List[Mark]:
        """Those that are new."""
        count: int = _number.unpack_from(self._map, _MARKED)[0]
        first, self._seen = max(self._seen, count - MARKS), count
        found = [_mark.unpack_from(self._map, _MARKS_AT + n % MARKS * _mark.size) for n in range(first, count)]
        if found:
            _number.pack_into(self._map, _TAKEN, count)
        return [Mark((out, err), at) for out, err, at in found]

    def lines(self) -> List[OpenLine]:
        """Everything that is open."""
        used: int = _LENGTH.unpack_from(self._map, _USED)[0]
        found = [self._line(_SLOTS_AT + n * _SLOT_BYTES) for n in range(min(used, SLOTS))]
        return [line for line in found if line is not None]

    def _line(self, slot: int) -> Optional[OpenLine]:
        if slot + _SLOT_BYTES > len(self._map):
            return None
        size, level, told, task, at = _slot.unpack_from(self._map, slot)
        if not 0 < size <= MAX_LINE_BYTES:
            return None
        begin = slot + _TEXT_AT
        text = self._map[begin : begin + size].decode("utf-8", "backslashreplace")
        return OpenLine(at, clean_text(text), level, task or None, bool(told))

    def close(self) -> None:
        self.unwatch_pipes()
        self._map.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def unread_bytes(pipe: int) -> int:
    """Bytes in a pipe that nobody has read yet."""
    try:
        return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, b"\0\0\0\0"), sys.byteorder)
    except OSError:
        return 0


def _locked(fd: int, at: int, wanted: bool) -> bool:
    """Lock one byte of the file for this process, or unlock it; whether that could be done (POSIX, fcntl(2))."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX if wanted else fcntl.LOCK_UN, 1, at)
    except (OSError, ValueError):
        return False
    return True


def _allocate(fd: int, at: int, size: int) -> bool:
    """Whether the file has blocks there now, which are zeros."""
    if fd < 0:  # it is memory
        return True
    try:
        return os.pwrite(fd, bytes(size), at) == size  # not fallocate: the first write to such blocks takes 0.2 ms more
    except OSError:
        return False


_FILE_BYTES = _SLOTS_AT + SLOTS * _SLOT_BYTES


def create(path: str) -> Optional[OpenLines]:
    """For the one who writes the lines; None where there can be no such file."""
    fd = -1
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o600)
        os.ftruncate(fd, _FILE_BYTES)
        if _allocate(fd, 0, _SLOTS_AT):
            return OpenLines(mmap.mmap(fd, _FILE_BYTES), fd)
    except (OSError, ValueError):
        pass
    if fd >= 0:
        os.close(fd)
    return None


def in_memory() -> OpenLines:
    """For a process and those that it forks."""
    return OpenLines(mmap.mmap(-1, _FILE_BYTES))


def attach(path: str) -> Optional[OpenLines]:
    """For the one who reads them; None while there is no such file."""
    try:
        with open(path, "r+b", buffering=0) as file:
            if os.fstat(file.fileno()).st_size < _FILE_BYTES:
                return None
            return OpenLines(mmap.mmap(file.fileno(), _FILE_BYTES))
    except (OSError, ValueError):
        return None
