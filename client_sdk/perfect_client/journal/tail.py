"""The last lines of a log that is full: a ring in a mapped file, which outlives the process that fills it.

The head of a log stands in its spool. What the spool does not take goes through the ring: the oldest records leave it,
counted, and what is left at the end follows the head. Where there is no room for the file the ring is in memory.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import List, NamedTuple, Union

RING_BYTES = 256 * 1024
_DATA_AT = 128
_STATE = struct.Struct("<QQQ")  # where the oldest record begins, where the next one will, how many have left
_LENGTH = struct.Struct("<I")

Path = Union[str, "os.PathLike[str]"]


class Kept(NamedTuple):
    """The records of a ring, oldest first, and how many have left it."""

    left: int
    records: List[bytes]


class Tail:
    """One process adds, under a lock of its own. Positions only grow; their place in the ring is their remainder.

    The state stands there twice, and one byte says which of the two counts: so a kill at any moment leaves one that
    is whole.
    """

    def __init__(self, path: Path) -> None:
        self._map = _mapped(path) or mmap.mmap(-1, _DATA_AT + RING_BYTES)
        self._start = self._end = self._left = 0

    def add(self, record: bytes) -> None:
        """Keep a record, of at most half the ring, and let as many of the oldest go as its room takes."""
        size = _LENGTH.size + len(record)
        if size > RING_BYTES // 2:
            self._left += 1
            return self._write_state()
        while self._end + size - self._start > RING_BYTES:
            self._start += _LENGTH.size + _LENGTH.unpack(_read(self._map, self._start, _LENGTH.size))[0]
            self._left += 1
        self._write_state()  # the oldest are gone before their place is taken
        self._write(self._end, _LENGTH.pack(len(record)) + record)
        self._end += size
        self._write_state()

    def kept(self) -> Kept:
        """What stands in it now."""
        return _kept(self._map)

    def clear(self) -> None:
        """It has been written where it belongs."""
        self._start, self._left = self._end, 0
        self._write_state()

    def close(self) -> None:
        self._map.close()

    def _write(self, at: int, data: bytes) -> None:
        at %= RING_BYTES
        first = data[: RING_BYTES - at]
        self._map[_DATA_AT + at : _DATA_AT + at + len(first)] = first
        rest = data[len(first) :]
        self._map[_DATA_AT : _DATA_AT + len(rest)] = rest

    def _write_state(self) -> None:
        other = 1 - self._map[0]
        _STATE.pack_into(self._map, 8 + other * _STATE.size, self._start, self._end, self._left)
        self._map[0] = other


def read_tail(path: Path) -> Kept:
    """What a process that is gone has left in its ring; nothing when there is no such file."""
    try:
        with open(path, "rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size < _DATA_AT + RING_BYTES:
                return Kept(0, [])
            with mmap.mmap(file.fileno(), _DATA_AT + RING_BYTES, access=mmap.ACCESS_READ) as mapped:
                return _kept(mapped)
    except (OSError, ValueError):
        return Kept(0, [])


def _kept(mapped: mmap.mmap) -> Kept:
    start, end, left = _STATE.unpack_from(mapped, 8 + min(mapped[0], 1) * _STATE.size)
    records: List[bytes] = []
    while start < end:
        size: int = _LENGTH.unpack(_read(mapped, start, _LENGTH.size))[0]
        start += _LENGTH.size
        records.append(_read(mapped, start, size))
        start += size
    return Kept(left, records)


def _read(mapped: mmap.mmap, at: int, size: int) -> bytes:
    at %= RING_BYTES
    first = mapped[_DATA_AT + at : _DATA_AT + min(at + size, RING_BYTES)]
    return first + mapped[_DATA_AT : _DATA_AT + size - len(first)]


def _mapped(path: Path) -> Union[mmap.mmap, None]:
    """The file, with blocks for all of it: on a full disk a mapped write would kill the process (SIGBUS)."""
    fd = -1
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o600)
        os.posix_fallocate(fd, 0, _DATA_AT + RING_BYTES)
        return mmap.mmap(fd, _DATA_AT + RING_BYTES)
    except (OSError, ValueError, AttributeError):
        return None
    finally:
        if fd >= 0:
            os.close(fd)
