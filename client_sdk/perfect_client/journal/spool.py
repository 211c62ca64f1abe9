"""The file in which a run's facts wait for the server: records that are whole or not there.

A record is ``<u32 length><u32 crc32><payload>``, little-endian, and its number is its position, from 1. One process
appends (`Writer`), another tails (`Reader`). A process that is killed, a full disk or a power cut can tear the last
record only; a torn tail is "not yet there" for a reader and is cut by `repair`.

Zeros that a file system leaves behind a power cut must not read as records: a length of 0 is damage.
"""

from __future__ import annotations

import os
import struct
from array import array
from bisect import bisect_right
from typing import Callable, List, Optional, Sequence, Union
from zlib import crc32

from perfect_client.wire.messages import MAX_BATCH_BYTES

Path = Union[str, "os.PathLike[str]"]

MAX_RECORD_BYTES = MAX_BATCH_BYTES - 4096  # a record must fit into one batch with its envelope
RESERVED_BYTES = 64 * 1024  # kept below the cap for the outcome
CAP_BYTES = 256 << 20

_HEAD = struct.Struct("<II")
_pack, _unpack_from = _HEAD.pack, _HEAD.unpack_from
_CHUNK = 1 << 20  # bytes of one read; larger than any record, so that a chunk always holds a whole one
_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOINHERIT", 0)


class Writer:
    """Appends records, each call with one write, so that threads and forked children never mix their bytes.

    A tail that an earlier writer tore is cut when the file is opened. Open it after ``fork``. Every method raises
    ``OSError`` when the disk is full, after it took back what a short write left behind.
    """

    def __init__(self, path: Path, cap_bytes: Optional[int] = None) -> None:
        repair(path)
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _BINARY, 0o600)
        self._room = (CAP_BYTES if cap_bytes is None else cap_bytes) - RESERVED_BYTES
        self._directory_synced = False
        self.size = os.fstat(self._fd).st_size  # bytes

    @property
    def full(self) -> bool:
        """Only the outcome has room left. The caller then drops what can be dropped and counts it."""
        return self.size >= self._room

    def append(self, record: bytes) -> None:
        """One record, 1 to ``MAX_RECORD_BYTES`` bytes (else ``ValueError``); it outlives this process at once."""
        size = len(record)
        if not 0 < size <= MAX_RECORD_BYTES:
            raise ValueError("a record has 1 to %d bytes, not %d" % (MAX_RECORD_BYTES, size))
        self._write(_pack(size, crc32(record)) + record)

    def append_many(self, records: Sequence[bytes]) -> None:
        """All of them with one write."""
        if not all(0 < len(record) <= MAX_RECORD_BYTES for record in records):
            raise ValueError("a record has 1 to %d bytes" % MAX_RECORD_BYTES)
        if records:
            self._write(b"".join([_pack(len(record), crc32(record)) + record for record in records]))

    def sync(self) -> None:
        """Everything appended so far survives a power cut when this returns. For the outcome: it costs milliseconds."""
        os.fsync(self._fd)
        if not self._directory_synced:
            _sync_directory(self._path)
            self._directory_synced = True

    def rename(self, path: Path) -> None:
        """Raises ``OSError``."""
        os.rename(self._path, path)
        self._path, self._directory_synced = path, False

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, data: bytes) -> None:
        written = os.write(self._fd, data)
        self.size += written
        if written != len(data):
            self._complete(data, written)

    def _complete(self, data: bytes, written: int) -> None:
        """A short write is nearly always a full disk: finish it, or take it back so that the next one stands."""
        try:
            while written < len(data):
                more = os.write(self._fd, data[written:])
                written += more
                self.size += more
        except OSError:
            if os.fstat(self._fd).st_size == self.size:  # nobody else wrote in between
                os.ftruncate(self._fd, self.size - written)
                self.size -= written
            raise


class Reader:
    """Tails a spool that may still be growing, or not be there yet. It keeps 8 bytes a record, never the payloads.

    What stands there already is indexed at once, so ``count`` is right from the start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._ends = array("Q", [0])  # _ends[n] is where record n ends and record n + 1 begins
        self.refresh()

    @property
    def count(self) -> int:
        """How many records are known; ``refresh`` looks for more."""
        return len(self._ends) - 1

    def refresh(self) -> int:
        """Index the records that have become whole since; returns how many there are in all."""
        if self._open():
            while self._index(self._read_at(self._ends[-1], _CHUNK)):
                pass
        return self.count

    def read(self, first: int, max_count: int, max_bytes: int) -> List[bytes]:
        """Records ``first``, ``first + 1``, …: at most so many, at most so many bytes on disk, but always one if there
        is one. Fewer when the disk has lost what was there before."""
        if not 1 <= first <= self.count or max_count < 1 or self._fd < 0:
            return []
        start = self._ends[first - 1]
        last = bisect_right(self._ends, start + max_bytes) - 1
        last = max(first, min(last, first - 1 + max_count))
        data = self._read_at(start, self._ends[last] - start)
        edges = [0, *_scan(data)]
        return [data[edges[n] + _HEAD.size : edges[n + 1]] for n in range(len(edges) - 1)]

    def last(self) -> Optional[bytes]:
        """The newest known record."""
        found = self.read(self.count, 1, 0)
        return found[0] if found else None

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> bool:
        if self._fd < 0:
            try:
                self._fd = os.open(self._path, os.O_RDONLY | _BINARY)
            except FileNotFoundError:
                return False
        return True

    def _index(self, data: bytes) -> bool:
        """False when the chunk held no whole record; a short read is not yet the end of the file."""
        base = self._ends[-1]
        ends = _scan(data)
        self._ends.extend([base + end for end in ends])
        return bool(ends)

    def _read_at(self, offset: int, size: int) -> bytes:
        os.lseek(self._fd, offset, os.SEEK_SET)
        return os.read(self._fd, size)


def repair(path: Path, lost: Optional[Callable[[int], None]] = None) -> int:
    """Cut everything from the first record that is torn or damaged; returns the number of good records.

    ``lost`` is told how many bytes were cut, if any. For a file that nobody writes to any more. A missing file has 0.
    """
    reader = Reader(path)
    good, size = reader._ends[-1], os.fstat(reader._fd).st_size if reader._open() else 0
    reader.close()
    if size > good:
        fd = os.open(path, os.O_WRONLY | _BINARY)
        try:
            os.ftruncate(fd, good)
            os.fsync(fd)  # or a power cut could bring the damage back behind new records
        finally:
            os.close(fd)
        if lost is not None:
            lost(size - good)
    return reader.count


def _scan(data: bytes) -> List[int]:
    """Where each whole and sound record ends, up to the first that is not."""
    ends: List[int] = []
    at, size = 0, len(data)
    head, largest = _HEAD.size, MAX_RECORD_BYTES
    while at + head <= size:
        length, check = _unpack_from(data, at)
        end = at + head + length
        if not 0 < length <= largest or end > size or crc32(data[at + head : end]) != check:
            break
        ends.append(end)
        at = end
    return ends


def _sync_directory(path: Path) -> None:
    """A new file's name is on disk only when its directory is; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    fd = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
