"""What a run's completed tasks returned, kept so that a later run can resume it.

Each run appends to a file of its own, ``PERFECT_HOME/results/runs/<hour>/<run>``: one record a completed call, whole or
not there. A record is found by its *slot*: the flow, the task, the digest of the arguments, and the how-manieth call
with just these it was. Before the first result of some code there is a record of what this code consists of. A run that
resumes another one looks into that one's file, then into what that one itself resumed.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import threading
import time
from hashlib import blake2b
from typing import Dict, List, NamedTuple, Optional, Sequence, Set
from zlib import crc32

from perfect_client.storage import eviction
from perfect_client.storage.results import RUNS, FolderStore, default_store
from perfect_client.wire.messages import Ancestor

SMALL_BYTES = 10 << 20  # results up to here are kept without being asked for
UNSEEN_BYTES, UNSEEN_S = 1 << 20, 3600.0  # what a file grows by until the next sweep is made to see it
_RESULT = b"PfR2"
_PARTS = b"PfP2"  # of the code of results: its slot is their ``source``
_OLD_RESULT = b"PfR1"  # its source is that of the task's own function: what this one calls may have changed unseen
_MAGICS = frozenset({_RESULT, _PARTS, _OLD_RESULT})
_HEAD = struct.Struct("<4sII16s16sId")  # magic, crc32, size, slot, source, number, made
_CRC = struct.Struct("<I")
_AFTER_CRC = 8


class Found(NamedTuple):
    """A result of an earlier run: the digest of the code that made it (None: unknown), and when (seconds since the
    epoch)."""

    data: bytes
    source: Optional[bytes]
    made: float
    run: str


class _Place(NamedTuple):
    offset: int
    size: int
    source: Optional[bytes]
    number: int
    made: float


class EarlierResults:
    """The results of an earlier run, read when first asked for; ``before`` as in ``messages.Ancestor``."""

    def __init__(self, store: FolderStore, ancestor: Ancestor) -> None:
        self.run, self._before = ancestor.run, ancestor.before
        self._store, self._path = store, _where_it_is(store, ancestor.run)
        self._lock = threading.Lock()
        self._places: Optional[Dict[bytes, _Place]] = None
        self._fd = -1

    @property
    def exists(self) -> bool:
        return self._store.is_private() and os.path.isfile(self._path)

    def find(self, slot: bytes) -> Optional[Found]:
        place = self._place(slot)
        if place is None or (self._before and not 0 < place.number < self._before):
            return None
        data = self._data(place)
        return None if data is None else Found(data, place.source, place.made, self.run)

    def parts_of(self, source: bytes) -> Dict[str, str]:
        """What the code of a result consisted of: a digest by ``file:name``; empty where that is not known."""
        place = self._place(_PARTS + source)
        data = None if place is None else self._data(place)
        with contextlib.suppress(ValueError):
            known = json.loads(data or b"{}")
            return known if isinstance(known, dict) else {}
        return {}

    def _place(self, key: bytes) -> Optional[_Place]:
        with self._lock:
            if self._places is None:
                self._places = self._read() if self.exists else {}
            return self._places.get(key)

    def _data(self, place: _Place) -> Optional[bytes]:
        with contextlib.suppress(OSError):
            record = os.pread(self._fd, _HEAD.size + place.size, place.offset)
            if len(record) == _HEAD.size + place.size and crc32(record[_AFTER_CRC:]) == _HEAD.unpack_from(record)[1]:
                return record[_HEAD.size :]
        return None

    def _read(self) -> Dict[bytes, _Place]:
        """Where each record stands; the last one of a slot counts. What is torn ends the file."""
        places: Dict[bytes, _Place] = {}
        with contextlib.suppress(OSError):
            self._fd = os.open(self._path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            with open(self._fd, "rb", closefd=False) as file:
                end, offset = os.fstat(self._fd).st_size, 0
                while offset + _HEAD.size <= end:
                    magic, _, size, slot, source, number, made = _HEAD.unpack(file.read(_HEAD.size))
                    if magic not in _MAGICS or offset + _HEAD.size + size > end:
                        break
                    key = _PARTS + slot if magic == _PARTS else slot
                    places[key] = _Place(offset, size, None if magic == _OLD_RESULT else source, number, made)
                    offset += _HEAD.size + size
                    file.seek(size, os.SEEK_CUR)
        return places

    def close(self) -> None:
        with self._lock:
            self._places = {}
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


class Lineage:
    """The run of this process: what it leaves for later runs, and what it may take from earlier ones."""

    def __init__(self, run: str, ancestors: Sequence[Ancestor], store: FolderStore) -> None:
        self.run, self.store = run, store
        self.past: List[EarlierResults] = [EarlierResults(store, ancestor) for ancestor in ancestors]
        self._path = path_of(store, run)
        self._calls: Dict[bytes, int] = {}
        self._lock = threading.Lock()
        self._fd = -1
        self._size = self._unseen = 0
        self._seen_at = time.monotonic()
        self._over = not store.max_bytes
        self._told = False
        self._described: Set[bytes] = set()

    def slot(self, flow: str, task: str, inputs: bytes) -> bytes:
        """The slot of the next call with these arguments; each call takes one."""
        name = ("%s\0%s\0" % (flow, task)).encode("utf-8", "backslashreplace") + inputs
        base = blake2b(name, digest_size=16).digest()
        with self._lock:
            number = self._calls.get(base, 0)
            self._calls[base] = number + 1
        return base if number == 0 else blake2b(b"%s%d" % (base, number), digest_size=16).digest()

    def find(self, slot: bytes) -> Optional[Found]:
        """What the nearest ancestor kept for the slot."""
        return next((found for past in self.past for found in [past.find(slot)] if found is not None), None)

    def news(self) -> Optional[str]:
        """Once, where this run resumes another one: a sentence for its log."""
        if self._told or not self.past:
            return None
        with self._lock:
            told, self._told = self._told, True
        if told:
            return None
        nearest = self.past[0].run
        if any(past.exists for past in self.past):
            return "resuming run %s: its completed tasks are answered by their results" % nearest
        return (
            "resuming run %s, but its results are not on this worker (another one has them, or they were removed for "
            "their age or size): every task runs again" % nearest
        )

    def parts_of(self, found: Found) -> Dict[str, str]:
        """What the code of a result that was found consisted of."""
        past = next((past for past in self.past if past.run == found.run), None)
        return {} if past is None or found.source is None else past.parts_of(found.source)

    def keep(
        self,
        slot: bytes,
        source: bytes,
        number: int,
        data: bytes,
        made: Optional[float] = None,
        parts: Optional[Dict[str, str]] = None,
    ) -> None:
        """Append a record, and what its code consists of. A full disk ends it for this run and never reaches user
        code."""
        made = time.time() if made is None else made
        record = _record(_RESULT, slot, source, number, made, data)
        with self._lock:
            if parts and source not in self._described:
                self._described.add(source)
                record = _record(_PARTS, source, source, 0, made, json.dumps(parts).encode()) + record
            if not self._over:
                try:
                    self._append(record)
                except OSError:
                    self._over = True
        self.store.grown(len(record))

    def _append(self, record: bytes) -> None:
        if self._fd < 0:
            self.store.make(RUNS)
            self.store.make(os.path.relpath(os.path.dirname(self._path), self.store.path))
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
            self._fd = os.open(self._path, flags, 0o600)
            self._size = os.fstat(self._fd).st_size
        left = memoryview(record)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)  # half a record would hide those after it
            raise
        self._size += len(record)
        self._unseen += len(record)
        if self._unseen > UNSEEN_BYTES or time.monotonic() - self._seen_at > UNSEEN_S:
            self._unseen, self._seen_at = 0, time.monotonic()
            with contextlib.suppress(OSError):
                os.utime(os.path.dirname(self._path))  # the folder has changed: it is to be counted anew

    def close(self) -> None:
        with self._lock:
            self._over = True
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
        for past in self.past:
            past.close()


def _record(magic: bytes, slot: bytes, source: bytes, number: int, made: float, data: bytes) -> bytes:
    body = _HEAD.pack(magic, 0, len(data), slot, source, number, made)[_AFTER_CRC:] + data
    return magic + _CRC.pack(crc32(body)) + body


def path_of(store: FolderStore, run: str) -> str:
    """The file of a run's results; a run's id comes from the server, so it is not trusted to be a file name."""
    name = (
        run
        if run and all(c.isascii() and (c.isalnum() or c == "-") for c in run) and len(run) <= 64
        else (blake2b(run.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest())
    )
    return os.path.join(store.path, RUNS, eviction.hour_of(run), name)


def _where_it_is(store: FolderStore, run: str) -> str:
    """An earlier version put all runs into one folder."""
    path = path_of(store, run)
    earlier = os.path.join(store.path, RUNS, os.path.basename(path))
    return earlier if os.path.isfile(earlier) and not os.path.exists(path) else path


current: Optional[Lineage] = None


def begin(run: str, ancestors: Sequence[Ancestor], store: Optional[FolderStore] = None) -> Lineage:
    """From here on this process executes ``run``, and keeps what its tasks return."""
    global current
    current = Lineage(run, ancestors, default_store() if store is None else store)
    return current


def end() -> None:
    """The run is over; a good moment to sweep."""
    global current
    ended, current = current, None
    if ended is not None:
        ended.close()
        ended.store.sweep_if_due()


def _forget_in_child() -> None:
    """A forked child is not the run, and must not write into its file."""
    global current
    current = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
