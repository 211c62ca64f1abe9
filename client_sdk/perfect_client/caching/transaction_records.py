"""What the tasks of a transaction with a key returned, kept with its commit: they are answered by it afterwards.

A call is found again by its task, its arguments, and the how-manieth with just these it was in the block. The code of
the task does not count: what was committed under a key must not be done twice. What has no digest as an argument, or
cannot be pickled as a result, runs again.
"""

from __future__ import annotations

import pickle
import threading
import time
from contextvars import ContextVar, Token
from hashlib import blake2b
from typing import Any, Callable, Dict, Optional, Tuple

from perfect_client.caching.caching import INPUTS_BYTES
from perfect_client.caching.lineage import SMALL_BYTES
from perfect_client.core import middleware
from perfect_client.core.middleware import Hit, ResultMiddleware, Taken, TaskCall
from perfect_client.errors import HashError
from perfect_client.storage import hashing
from perfect_client.storage.results import Envelope, pack, unpack
from perfect_client.storage.serializers import PickleSerializer

_lock = threading.Lock()
_blocks = 0  # with a key, under way: only then does a call of a task look here
_before: Optional[Callable[[Any], Optional[ResultMiddleware]]] = None
_here: ContextVar[Optional[Calls]] = ContextVar("perfect_calls", default=None)


class Calls:
    """The calls of tasks in one block."""

    def __init__(self, store: Any, key: str, committed: bool) -> None:
        self._store, self._key = store, key + ".tasks"
        self._known = self._read() if committed else {}
        self._new: Dict[bytes, bytes] = {}
        self._counts: Dict[bytes, int] = {}
        self._token: Optional[Token[Optional[Calls]]] = None

    def _read(self) -> Dict[bytes, bytes]:
        try:
            envelope = unpack(self._key, self._store.read(self._key))
            return {} if envelope is None else dict(pickle.loads(envelope.data))
        except Exception:  # any store may fail in its own way: then they run again
            return {}

    def write(self) -> None:
        """Keep what they returned. Raises what the store raises."""
        if self._new:
            self._store.write(self._key, pack(self._key, Envelope(pickle.dumps(self._new), time.time(), None)))
        elif self._store.exists(self._key):  # of a commit that this one overwrites
            self._store.remove(self._key)

    def __enter__(self) -> Calls:
        global _blocks, _before
        with _lock:
            if not _blocks:
                _before, middleware.keeper, middleware.of_all = middleware.keeper, _keeper, True
            _blocks += 1
        self._token = _here.set(self)
        return self

    def __exit__(self, *exc: object) -> None:
        global _blocks
        if self._token is not None:
            _here.reset(self._token)
        with _lock:
            _blocks -= 1
            if not _blocks:
                middleware.keeper, middleware.of_all = _before, False

    def take(self, task: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Tuple[bytes, Optional[Hit[Any]]]:
        """Where the next call with these arguments belongs (empty: nowhere), and what it returned if that is known."""
        try:
            inputs = hashing.digest_call(args, kwargs, task.name, INPUTS_BYTES)
        except (HashError, hashing.TooLarge):
            return b"", None
        base = blake2b(task.key.encode("utf-8", "backslashreplace") + b"\0" + inputs, digest_size=16).digest()
        with _lock:
            number = self._counts[base] = self._counts.get(base, 0) + 1
        slot = b"%s%d" % (base, number)
        return slot, self._found(slot)

    def _found(self, slot: bytes) -> Optional[Hit[Any]]:
        try:
            return Hit(pickle.loads(self._known[slot]))
        except Exception:  # not there; or its class may be gone
            return None

    def keep(self, slot: bytes, value: Any) -> None:
        """A call returned this."""
        if slot:
            try:
                self._new[slot] = PickleSerializer().dumps_within(value, SMALL_BYTES)
            except Exception:  # it is too large, or may do anything when it is pickled
                pass


class _Around(ResultMiddleware):
    """One call in a block with a key; ``under`` is what would keep its result without the block."""

    def __init__(self, task: Any, calls: Calls, under: Optional[ResultMiddleware]) -> None:
        self._task, self._calls, self._under = task, calls, under
        self._slot, self._slot_under = b"", None  # type: bytes, Optional[bytes]

    def before(self, call: TaskCall) -> Optional[Hit[Any]]:
        self._slot, hit = self._calls.take(self._task, call.args, call.kwargs)
        if hit is None and self._under is not None:
            hit = self._under.before(call)
            if hit is not None:
                self._calls.keep(self._slot, hit.value)
        return hit

    def after(self, call: TaskCall, value: Any) -> None:
        self._calls.keep(self._slot, value)
        if self._under is not None:
            self._under.after(call, value)

    def take(self, run: Any, current: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Taken:
        self._slot, hit = self._calls.take(self._task, args, kwargs)
        if hit is None and self._under is not None:
            self._slot_under, hit = self._under.take(run, current, args, kwargs)
            if hit is not None:
                self._calls.keep(self._slot, hit.value)
        return self._slot, hit

    def leave(self, run: Any, current: Any, slot: bytes, value: Any) -> None:
        self._calls.keep(slot, value)
        if self._under is not None and self._slot_under is not None:
            self._under.leave(run, current, self._slot_under, value)


def _keeper(task: Any) -> Optional[ResultMiddleware]:
    under = _before(task) if _before is not None and not task.parts else None
    calls = _here.get()
    return under if calls is None else _Around(task, calls, under)
