"""Keep a folder within bounds of age and disk space, and so of files; the oldest go first.

A file counts with its blocks, and for 8 KiB at least: many small ones cost inodes and time. What runs leave is a file
each, so it lies in a folder for each hour in which runs were made. Such a folder is counted once and then known by its
time of change, and it goes as a whole: a sweep costs by what is new, not by what is there.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from typing import Dict, Iterator, List, NamedTuple, Tuple
from uuid import UUID

LEFT_OVER_S = 3600.0  # a temporary file this old has no writer any more
OTHERS = "others"  # the folder of runs whose id tells no time
LEAST_BYTES = 8192
_BLOCK = 512  # bytes in a unit of ``st_blocks``, whatever the file system's own blocks are
_COUNTED = ".counted"


class Share(NamedTuple):
    """A file, or a folder of an hour with all that is in it: when its newest file was written, and its bytes."""

    newest: float
    bytes: int
    path: str


class _Known(NamedTuple):
    """``stamp`` is the folder's time of change, in ns."""

    stamp: int
    newest: float
    bytes: int


def hour_of(run: str) -> str:
    """The name of the folder for a run, by the time that is in a UUID of version 7."""
    try:
        made = UUID(run)
        return time.strftime("%Y-%m-%d-%H", time.gmtime((made.int >> 80) / 1000)) if made.version == 7 else OTHERS
    except (ValueError, OverflowError, OSError):
        return OTHERS


def sweep(loose: List[str], hourly: str, max_bytes: float, max_age_s: float) -> None:
    """Remove what is too old, then the oldest until the rest fits: files that lie in the folders ``loose``, and the
    folders in ``hourly``. Others may sweep as well."""
    now = time.time()
    shares = [_share(path, found) for folder in loose for path, found in _files(folder)]
    shares += _hours(hourly)
    shares.sort()
    total = sum(share.bytes for share in shares)
    for share in shares:
        age = now - share.newest
        if age > (LEFT_OVER_S if share.path.endswith(".new") else max_age_s):
            _remove(share.path)
        elif total <= max_bytes:
            continue
        elif total - share.bytes < max_bytes and os.path.isdir(share.path):
            _thin(share.path, total - max_bytes)  # a part of it is enough
        else:
            _remove(share.path)
        total -= share.bytes


def _share(path: str, found: os.stat_result) -> Share:
    size = max(getattr(found, "st_blocks", 0) * _BLOCK or found.st_size, LEAST_BYTES)
    return Share(found.st_mtime, size, path)


def _files(folder: str) -> Iterator[Tuple[str, os.stat_result]]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and entry.name not in (".swept", _COUNTED):
                    yield entry.path, found


def _hours(hourly: str) -> List[Share]:
    note = os.path.join(hourly, _COUNTED)
    known = _read(note)
    counted: Dict[str, _Known] = {}
    with contextlib.suppress(OSError), os.scandir(hourly) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    stamp = entry.stat(follow_symlinks=False).st_mtime_ns
                    before = known.get(entry.name)
                    counted[entry.name] = before if before and before.stamp == stamp else _count(entry.path, stamp)
    if counted != known:
        with contextlib.suppress(OSError):
            fresh = "%s.%d.new" % (note, os.getpid())
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(counted, file)
            os.replace(fresh, note)
    return [Share(at.newest, at.bytes, os.path.join(hourly, name)) for name, at in counted.items()]


def _read(note: str) -> Dict[str, _Known]:
    try:
        with open(note) as file:
            return {
                name: _Known(int(at), float(newest), int(size)) for name, (at, newest, size) in json.load(file).items()
            }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _count(folder: str, stamp: int) -> _Known:
    newest, size = 0.0, 0
    for path, found in _files(folder):
        share = _share(path, found)
        newest, size = max(newest, share.newest), size + share.bytes
    return _Known(stamp, newest, size)


def _thin(folder: str, over: float) -> None:
    for share in sorted(_share(path, found) for path, found in _files(folder)):
        if over <= 0:
            return
        _unlink(share.path)
        over -= share.bytes


def _remove(path: str) -> None:
    if os.path.isdir(path):
        for inner, _ in _files(path):
            _unlink(inner)
        with contextlib.suppress(OSError):
            os.rmdir(path)
    else:
        _unlink(path)


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
