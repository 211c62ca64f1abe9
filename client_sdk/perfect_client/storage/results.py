"""Where results are kept on the worker's side: a folder, bounded in size and age, or any store with four methods.

``PERFECT_HOME/results`` (mode 0700, files 0600) is shared by all processes of its owner. A file is written under
another name and renamed, so it is whole or not there; what is torn, foreign or unreadable counts as not there.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import stat
import time
from hashlib import blake2b
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple, Union

from perfect_client.errors import ConfigurationError
from perfect_client.storage import eviction
from perfect_client.storage.eviction import LEAST_BYTES

SIZE_SETTING, AGE_SETTING = "PERFECT_RESULTS_MB", "PERFECT_RESULTS_DAYS"
DEFAULT_MB, DEFAULT_DAYS = 1024.0, 30.0
RUNS = "runs"  # the sub-folder of what runs may resume from
_SWEEP_EVERY_S = 600.0
_MAX_FILE_NAME = 100
_MAGIC = b"perfect-result 1\n"
_counter = itertools.count()

Path = Union[str, "os.PathLike[str]"]


class Bounds(NamedTuple):
    """How much is kept: bytes, and seconds. 0 bytes: nothing."""

    bytes: float
    seconds: float


def bounds(environ: Mapping[str, str]) -> Bounds:
    """From ``PERFECT_RESULTS_MB`` (0: keep none) and ``PERFECT_RESULTS_DAYS``. Raises ``ValueError``, a sentence."""
    megabytes = _number(environ, SIZE_SETTING, DEFAULT_MB, "megabytes, 0 or more")
    return Bounds(megabytes * 1024 * 1024, _number(environ, AGE_SETTING, DEFAULT_DAYS, "days, 0 or more") * 86400)


def _number(environ: Mapping[str, str], name: str, default: float, wanted: str) -> float:
    text = environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError("%s takes a number of %s, not %r" % (name, wanted, text))
    return value


def home(environ: Mapping[str, str]) -> str:
    """The folder of results."""
    return os.path.join(os.path.expanduser(environ.get("PERFECT_HOME") or "~/.perfect"), "results")


class FolderStore:
    """A store in a folder, which is made when missing. Without ``max_bytes`` and ``max_age_s`` nothing is removed."""

    def __init__(self, path: Path, max_bytes: float = math.inf, max_age_s: float = math.inf) -> None:
        self.path = os.path.abspath(os.path.expanduser(os.fspath(path)))
        self.max_bytes, self.max_age_s = max_bytes, max_age_s
        self._written = 0.0  # bytes since the last sweep
        self._safe: Optional[bool] = None

    # ------------------------------------------------------------------------------------------------- the interface

    def read(self, key: str) -> Optional[bytes]:
        """What was written under ``key``; None when there is nothing, or nothing that may be trusted."""
        if not self.is_private():
            return None
        try:
            with open(self.path_of(key), "rb") as file:
                return file.read()
        except OSError:
            return None

    def write(self, key: str, data: bytes) -> None:
        """All of it or nothing. Raises ``OSError``."""
        self.make()
        fresh = os.path.join(self.path, ".%d.%d.%d.new" % (os.getpid(), next(_counter), time.time_ns()))
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(data)
            os.replace(fresh, self.path_of(key))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(fresh)
            raise
        self.grown(max(len(data), LEAST_BYTES))

    def exists(self, key: str) -> bool:
        return os.path.isfile(self.path_of(key))

    def remove(self, key: str) -> None:
        """Nothing happens when it is not there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path_of(key))

    # ------------------------------------------------------------------------------------------------- the folder

    def path_of(self, key: str) -> str:
        """The file of a key: by its own name where that is a plain file name, else by its digest."""
        plain = len(key) <= _MAX_FILE_NAME and all(c.isascii() and (c.isalnum() or c in "._-") for c in key)
        if not plain or not key or key.startswith(".") or key == RUNS:
            key = "key-" + blake2b(key.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
        return os.path.join(self.path, key)

    def make(self, inner: str = "") -> str:
        """The folder, or one in it; made for its owner alone."""
        path = os.path.join(self.path, inner) if inner else self.path
        if not os.path.isdir(path):
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            os.makedirs(path, mode=0o700, exist_ok=True)
            self._safe = None
        return path

    def is_private(self) -> bool:
        """Whether nobody else may write here: who can write a pickle runs code where it is read."""
        if self._safe is None:
            try:
                found = os.stat(self.path)
            except OSError:
                return True  # there is nothing to read
            mine = not hasattr(os, "geteuid") or found.st_uid in (os.geteuid(), 0)
            self._safe = mine and (os.name == "nt" or not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
        return self._safe

    # ------------------------------------------------------------------------------------------------- the bounds

    def grown(self, size: int) -> None:
        """So many bytes were added; now and then this is the moment to remove what is too old or too much."""
        self._written += size
        if self._written > self.max_bytes / 16:
            self.sweep()

    def sweep_if_due(self) -> None:
        """Once in ten minutes for all processes together."""
        marker = os.path.join(self.path, ".swept")
        try:
            due = time.time() - os.stat(marker).st_mtime > _SWEEP_EVERY_S
        except OSError:
            due = os.path.isdir(self.path)
        if due:
            with contextlib.suppress(OSError):
                os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
                os.utime(marker)
            self.sweep()

    def sweep(self) -> None:
        """Remove what is older than the bound, then the oldest until the rest fits."""
        self._written = 0.0
        if self.max_bytes == math.inf and self.max_age_s == math.inf:
            return
        runs = os.path.join(self.path, RUNS)
        eviction.sweep([self.path, runs], runs, self.max_bytes, self.max_age_s)


_stores: Dict[Tuple[str, str, str], FolderStore] = {}


def default_store() -> FolderStore:
    """The store of this machine's user, bounded by the environment; a bound that cannot be read is the default."""
    settings = (home(os.environ), os.environ.get(SIZE_SETTING, ""), os.environ.get(AGE_SETTING, ""))
    if settings not in _stores:
        try:
            bound = bounds(os.environ)
        except ValueError:  # the worker has refused it, or this is no worker
            bound = bounds({})
        _stores[settings] = FolderStore(settings[0], bound.bytes, bound.seconds)
    return _stores[settings]


def store_of(given: Any) -> Any:
    """By a folder's path or an object with ``read``, ``write``, ``exists``, ``remove``. Else ``ConfigurationError``."""
    if isinstance(given, (str, os.PathLike)) and str(given).strip():
        return FolderStore(given)
    if all(callable(getattr(given, name, None)) for name in ("read", "write", "exists", "remove")):
        return given
    raise ConfigurationError(
        "a result storage is a folder's path or an object with read(key), write(key, data), exists(key) and "
        "remove(key), not %r" % (given,)
    )


# ----------------------------------------------------------------------------------------------------------- envelopes


class Envelope(NamedTuple):
    """A result as it was kept; times are seconds since the epoch."""

    data: bytes
    made: float
    expires: Optional[float]


def pack(key: str, envelope: Envelope) -> bytes:
    """An envelope in bytes, with what it takes to know it again."""
    mark = blake2b(envelope.data, digest_size=16).hexdigest()
    head = {"key": key, "made": envelope.made, "expires": envelope.expires, "digest": mark}
    return _MAGIC + json.dumps(head).encode("ascii") + b"\n" + envelope.data


def unpack(key: str, raw: Optional[bytes]) -> Optional[Envelope]:
    """The envelope; None for what is torn, foreign or another key's."""
    if raw is None or not raw.startswith(_MAGIC):
        return None
    line, _, data = raw[len(_MAGIC) :].partition(b"\n")
    try:
        head = json.loads(line)
        mark = blake2b(data, digest_size=16).hexdigest()
        if head["key"] != key or head["digest"] != mark:
            return None
        return Envelope(data, float(head["made"]), None if head["expires"] is None else float(head["expires"]))
    except (ValueError, KeyError, TypeError):
        return None
