"""An attempt's two spools as one stream, in the order of time: what its process told, and what came raw by its pipes.

The order is written down, as runs of records from one spool, before anything is sent by it: so a record has the same
number after the worker's restart. A spool alone needs no such file.
"""

from __future__ import annotations

import contextlib
import os
import struct
from bisect import bisect_right
from pathlib import Path
from typing import List, Optional, Tuple

from perfect_client.journal import spool

_RUN = struct.Struct("<I")
_RAW = 1 << 31  # in a run's number: of the raw spool
OUTCOMES = (b'{"type":"RunEnded"', b'{"type":"ProcessExited"')  # how encode_fact begins them
_READ_RECORDS, _READ_BYTES = 500, 1 << 19
END_OF_TIME = float("inf")


class Merged:
    """Has the shape of ``streams.Source``. ``facts`` and ``raw`` are the spools; ``raw`` may come later."""

    def __init__(self, facts: spool.Reader, path: Path) -> None:
        self._facts, self._path = facts, path
        self.raw: Optional[spool.Reader] = None
        self._ends: List[int] = []  # where each run ends, in numbers of the whole
        self._runs: List[Tuple[int, int]] = []  # which spool (0 facts, 1 raw), and the place before the run's first
        self._placed = [0, 0]  # how many records of each spool have their number
        self._unwritten: List[Tuple[int, int]] = []

    def restore(self, raw: Optional[spool.Reader]) -> None:
        """After the worker's restart: the order as it was, as far as the spools still have what it names."""
        self.raw = raw
        try:
            data = self._path.read_bytes()
        except OSError:  # nothing raw had been numbered: the facts have the numbers of their places
            if raw is None:
                self.take(self._facts.count)
            return
        counts = (self._facts.count, raw.count if raw is not None else 0)
        damaged = len(data) % _RUN.size
        for (number,) in _RUN.iter_unpack(data[: len(data) - damaged]):
            which, size = int(number >= _RAW), number % _RAW
            there = min(size, counts[which] - self._placed[which])
            self._place(which, there)
            damaged = damaged or size - there
        if damaged:  # by a power cut: what is written from now on must follow what is true
            self._rewrite()

    @property
    def count(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, first: int, max_count: int, max_bytes: int) -> List[bytes]:
        """As ``spool.Reader.read``; at the seam of two runs it may give fewer than there are."""
        found: List[bytes] = []
        room = max_bytes
        while first <= self.count and len(found) < max_count and (room > 0 or not found):
            some = self._of_run(first, max_count - len(found), room)
            found += some
            room -= sum(map(len, some)) + 8 * len(some)
            first += len(some)
            if not some:
                break
        return found if len(found) <= 1 or room >= 0 else found[:-1]

    def _of_run(self, first: int, max_count: int, max_bytes: int) -> List[bytes]:
        n = bisect_right(self._ends, first - 1)
        which, before = self._runs[n]
        reader = self.raw if which else self._facts
        begins = self._ends[n - 1] if n else 0
        place, left = before + first - begins, self._ends[n] - first + 1
        return reader.read(place, min(max_count, left), max_bytes) if reader is not None else []

    def expect_raw(self) -> None:
        """The raw spool is about to be made: write down what has been placed without it."""
        if self.raw is None and self._placed[0] and not self._path.exists():
            self._note(0, self._placed[0])
            self._write_down()

    def merge(self, told: int, raw: spool.Reader) -> None:
        """Give numbers to all raw records, and to those facts that are older than the newest of them; also to the
        first ``told`` facts, of which it is known that no older raw record is still to come."""
        self.raw = raw
        while self._placed[1] < raw.count:
            facts = self._facts.read(self._placed[0] + 1, _READ_RECORDS, _READ_BYTES)
            if facts:
                self._weave(facts, raw.read(self._placed[1] + 1, _READ_RECORDS, _READ_BYTES))
            else:
                self._append(1, raw.count - self._placed[1])
        self.take(told)
        self._write_down()

    def take(self, told: int) -> None:
        """Give numbers to the first ``told`` facts."""
        if told > self._placed[0]:
            self._append(0, told - self._placed[0])

    def _weave(self, facts: List[bytes], raw: List[bytes]) -> None:
        """Until one of the two has no more. Facts of the same time come after: a line's mark has the line's time."""
        lines, told = [time_in(record) for record in raw], [time_in(record) for record in facts]
        at = next_fact = 0
        while at < len(lines) and next_fact < len(told):
            if told[next_fact] < lines[at]:
                next_fact += 1
                self._append(0, 1)
            else:
                at += 1
                self._append(1, 1)

    def _append(self, which: int, size: int) -> None:
        self._place(which, size)
        if which or self.raw is not None:
            self._note(which, size)

    def _place(self, which: int, size: int) -> None:
        if size <= 0:
            return
        if self._runs and self._runs[-1][0] == which:
            self._ends[-1] += size
        else:
            self._runs.append((which, self._placed[which]))
            self._ends.append(self.count + size)
        self._placed[which] += size

    def _note(self, which: int, size: int) -> None:
        if self._unwritten and self._unwritten[-1][0] == which:
            size += self._unwritten.pop()[1]
        self._unwritten.append((which, size))

    def _rewrite(self) -> None:
        begins = [0, *self._ends]
        runs = [(which, end - begin) for (which, _), begin, end in zip(self._runs, begins, self._ends)]
        fresh = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            fresh.write_bytes(b"".join(_RUN.pack(size | which * _RAW) for which, size in runs))
            fresh.replace(self._path)

    def _write_down(self) -> None:
        """On a full disk it waits for the next time."""
        data = b"".join(_RUN.pack(size | which * _RAW) for which, size in self._unwritten)
        if data and _appended(self._path, data):
            self._unwritten.clear()


def _appended(path: Path, data: bytes) -> bool:
    """Whether all of it stands at the end of the file now; else nothing of it does."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o600)
    except OSError:
        return False
    try:
        size = os.fstat(fd).st_size
        if os.write(fd, data) == len(data):
            return True
        os.ftruncate(fd, size)
    except OSError:
        pass
    finally:
        os.close(fd)
    return False


def time_in(record: bytes) -> float:
    """When it was told. An outcome comes after everything that is there; what has no time, before."""
    if record.startswith(OUTCOMES):
        return END_OF_TIME
    begin = record.find(b'"time":')
    try:
        return float(record[begin + 7 : record.index(b",", begin)])
    except ValueError:
        return 0.0
