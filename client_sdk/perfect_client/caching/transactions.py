"""``with transaction():``: tasks called inside are committed together when the block ends, or rolled back together.

What a task did is undone by its ``on_rollback`` hooks and made final by its ``on_commit`` hooks; both are given the
transaction. Hooks run in the order of the tasks when the block ends, and from the last task to the first when it
raises. One that raises is logged and does not stop the others.
"""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import time
from contextvars import ContextVar, Token
from enum import Enum
from hashlib import blake2b
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

from perfect_client.caching.transaction_records import Calls
from perfect_client.core.middleware import Hit, Middleware, TaskCall
from perfect_client.core.run_logger import get_run_logger
from perfect_client.engine.steps import Invoke, Sleep, Steps, drive, drive_later
from perfect_client.errors import ConfigurationError
from perfect_client.storage.results import Envelope, FolderStore, default_store, pack, store_of, unpack

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Hook = Callable[["Transaction"], Any]
_LOOK_S = 0.02
_MISSING = object()


class CommitMode(str, Enum):
    """When a transaction is committed."""

    EAGER = "EAGER"  # when its own block ends
    LAZY = "LAZY"  # with the block around it, else when its own ends
    OFF = "OFF"  # only when ``commit`` is called


class IsolationLevel(str, Enum):
    """What transactions with the same key see of each other."""

    READ_COMMITTED = "READ_COMMITTED"  # what is committed
    SERIALIZABLE = "SERIALIZABLE"  # and they run one after another


class TransactionState(str, Enum):
    """Where a transaction stands."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    STAGED = "STAGED"
    COMMITTED = "COMMITTED"
    ROLLED_BACK = "ROLLED_BACK"


S = TransactionState
_FINAL = frozenset({S.COMMITTED, S.ROLLED_BACK})
_active: ContextVar[Optional[Transaction]] = ContextVar("perfect_transaction", default=None)


class Transaction:
    """What happens inside a block, or in one call of a task with hooks; they nest. Made by ``transaction()``."""

    def __init__(
        self,
        key: Optional[str] = None,
        store: Any = None,
        commit_mode: Optional[CommitMode] = None,
        isolation_level: Optional[IsolationLevel] = None,
        overwrite: bool = False,
        write_on_commit: bool = True,
        logger: Any = None,
    ) -> None:
        if key is not None and not (isinstance(key, str) and key.strip()):
            raise ConfigurationError("transaction(key=…) takes a string, not %.200r" % (key,))
        self.key, self.overwrite, self.write_on_commit, self.logger = key, overwrite, write_on_commit, logger
        self.store: Any = None if key is None else default_store() if store is None else store_of(store)
        self.commit_mode = None if commit_mode is None else CommitMode(commit_mode)
        self.isolation_level = None if isolation_level is None else IsolationLevel(isolation_level)
        self.state = S.PENDING
        self.parent: Optional[Transaction] = None
        self.children: List[Transaction] = []
        self.on_commit_hooks: List[Hook] = []
        self.on_rollback_hooks: List[Hook] = []
        self._values: Dict[str, Any] = {}
        self._staged: Any = None
        self._token: Optional[Token[Optional[Transaction]]] = None
        self._lock: Any = None
        self._calls: Optional[Calls] = None

    # ------------------------------------------------------------------------------------------------ what code asks

    def set(self, name: str, value: Any) -> None:
        """Keep a value for hooks and for what is nested."""
        self._values[name] = value

    def get(self, name: str, default: Any = _MISSING) -> Any:
        """A copy of what was set here, else around here. Raises ``ValueError`` for an unknown name without default."""
        if name in self._values:
            return copy.deepcopy(self._values[name])
        if self.parent is not None:
            return self.parent.get(name, default)
        if default is _MISSING:
            raise ValueError("Could not retrieve value for unknown key: %s" % name)
        return default

    def is_pending(self) -> bool:
        return self.state is S.PENDING

    def is_active(self) -> bool:
        return self.state is S.ACTIVE

    def is_staged(self) -> bool:
        return self.state is S.STAGED

    def is_committed(self) -> bool:
        """Also from the beginning, where the key was committed before."""
        return self.state is S.COMMITTED

    def is_rolled_back(self) -> bool:
        return self.state is S.ROLLED_BACK

    def get_parent(self) -> Optional[Transaction]:
        return self.parent

    def read(self) -> Any:
        """What was staged when the key was committed; None where there is nothing."""
        envelope = None if self.store is None else unpack(str(self.key), self.store.read(self.key))
        return None if envelope is None else pickle.loads(envelope.data)

    def stage(
        self,
        value: Any = None,
        on_rollback_hooks: Optional[Iterable[Hook]] = None,
        on_commit_hooks: Optional[Iterable[Hook]] = None,
    ) -> None:
        """Ready to be committed, with this value under the key. Without effect when it is committed already."""
        if self.state not in _FINAL:
            self._staged = value
            self.on_rollback_hooks += on_rollback_hooks or ()
            self.on_commit_hooks += on_commit_hooks or ()
            self.state = S.STAGED

    def commit(self) -> Any:
        """Commit what is nested, then run the hooks, then keep the staged value. False if nothing was to be done."""
        return drive(self._commit())

    def rollback(self) -> Any:
        """Run the hooks, then roll back what is nested, the last first. False if nothing was to be done."""
        return drive(self._rollback())

    # ------------------------------------------------------------------------------------------------------ the block

    def __enter__(self) -> Transaction:
        drive(self._begin())
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        drive(self._end(error is not None))

    async def __aenter__(self) -> Transaction:
        await drive_later(self._begin())
        return self

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> None:
        await drive_later(self._end(error is not None))

    def _begin(self) -> Steps[None]:
        if self._token is not None or self.state is not S.PENDING:
            raise RuntimeError("a transaction is entered once")
        self.parent = above = _active.get()
        self.commit_mode = self.commit_mode or (above.commit_mode if above is not None else CommitMode.LAZY)
        self.isolation_level = self.isolation_level or (
            above.isolation_level if above is not None else IsolationLevel.READ_COMMITTED
        )
        if self.store is not None and self.isolation_level is IsolationLevel.SERIALIZABLE:
            self._lock = _lock_of(self.store, str(self.key))
            while not self._lock.acquire():
                yield Sleep(_LOOK_S)
        there = self.store is not None and not self.overwrite and self.store.exists(self.key)
        self.state = S.COMMITTED if there else S.ACTIVE
        self._token = _active.set(self)
        if self.store is not None and self.write_on_commit:
            self._calls = Calls(self.store, str(self.key), there).__enter__()

    def _end(self, raised: bool) -> Steps[None]:
        above = self.parent
        try:
            if raised:
                yield from self._rollback()
            elif self.commit_mode is CommitMode.EAGER:
                yield from self._commit()
            elif above is None:
                yield from self._rollback() if self.commit_mode is CommitMode.OFF else self._commit()
        finally:
            if self._calls is not None:
                self._calls.__exit__()
            if self._token is not None:
                _active.reset(self._token)
                self._token = None
        if above is not None:
            yield from above.take(self)
            if raised and self.is_rolled_back():
                yield from above._rollback()
        if above is None or self.state in _FINAL:
            self._let_go()

    def take(self, child: Transaction) -> Steps[None]:
        """What was nested is over: it is committed or rolled back with this one, or as this one was."""
        if self.is_rolled_back():
            yield from child._rollback()
        elif self.is_committed():
            yield from child._commit()
        else:
            self.children.append(child)

    # -------------------------------------------------------------------------------------------- commit and rollback

    def _commit(self) -> Steps[bool]:
        if self.state in _FINAL:
            return False
        try:
            record = self._record()
        except Exception as wrong:  # a value may do anything when it is pickled
            self._log("The value staged for transaction %r cannot be kept, so it is rolled back: %s", self.key, wrong)
            yield from self._rollback()
            return False
        for child in self.children:
            yield from child._commit()
        for hook in self.on_commit_hooks:
            yield from self._run(hook, "commit")
        try:
            if self._calls is not None:
                self._calls.write()
            if record is not None:
                self.store.write(self.key, record)
        except Exception as wrong:  # any store may fail in its own way
            self._log("Transaction %r cannot be kept, so it is rolled back: %s", self.key, wrong)
            yield from self._rollback()
            return False
        self.state = S.COMMITTED
        self._let_go()
        return True

    def _record(self) -> Optional[bytes]:
        if self.store is None or not self.write_on_commit:
            return None
        return pack(str(self.key), Envelope(pickle.dumps(self._staged), time.time(), None))

    def _rollback(self) -> Steps[bool]:
        if self.state in _FINAL:
            return False
        self.state = S.ROLLED_BACK
        for hook in reversed(self.on_rollback_hooks):
            yield from self._run(hook, "rollback")
        for child in reversed(self.children):
            yield from child._rollback()
        self._let_go()
        return True

    def _run(self, hook: Hook, kind: str) -> Steps[None]:
        try:
            yield Invoke(hook, self)
        except Exception:
            name = getattr(hook, "__name__", repr(hook))
            self._log("The %s hook %r failed", kind, name, exc_info=True)

    def _log(self, text: str, *values: Any, **options: Any) -> None:
        (self.logger or get_run_logger()).error(text, *values, **options)

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def get_transaction() -> Optional[Transaction]:
    """The innermost transaction that the code is in."""
    return _active.get()


def transaction(
    key: Optional[str] = None,
    store: Any = None,
    commit_mode: Optional[CommitMode] = None,
    isolation_level: Optional[IsolationLevel] = None,
    overwrite: bool = False,
    write_on_commit: bool = True,
    logger: Any = None,
) -> Transaction:
    """Context manager, also of ``async with``: a ``Transaction``.

    With a ``key`` what is staged is kept in ``store`` (a folder or a store, by default the worker's results) when it is
    committed; a later transaction with that key is committed from its beginning, and its tasks are answered by what
    they returned then, unless it is to ``overwrite``. Raises ``ConfigurationError``.
    """
    return Transaction(key, store, commit_mode, isolation_level, overwrite, write_on_commit, logger)


atransaction = transaction


# --------------------------------------------------------------------------------------------------------------- tasks


class Staging(Middleware):
    """Around the calls of a task with hooks: each is a transaction of its own, nested in the one around it."""

    def __init__(self, task: Any) -> None:
        self._task = task
        self._open: Dict[int, Tuple[Transaction, Any]] = {}  # by the identity of the call

    def before(self, call: TaskCall) -> Optional[Hit[Any]]:
        own = Transaction()
        own.parent, own.state = _active.get(), S.ACTIVE
        self._open[id(call)] = own, _active.set(own)
        return None

    def after(self, call: TaskCall, value: Any) -> None:
        hooks = self._task.hooks
        self._open[id(call)][0].stage(value, hooks.get("on_rollback"), hooks.get("on_commit"))

    def over(self, call: TaskCall) -> None:
        found = self._open.pop(id(call), None)
        if found is None:
            return
        own, token = found
        _active.reset(token)
        if not own.is_staged():  # it failed: what completed inside it is undone, its own hooks are for a completed call
            own.rollback()
        elif own.parent is not None:
            drive(own.parent.take(own))
        else:
            own.commit()


# --------------------------------------------------------------------------------------------------------------- locks


def _lock_of(store: Any, key: str) -> Any:
    """What lets one transaction after another into a key. Raises ``ConfigurationError`` where nothing can."""
    if isinstance(store, FolderStore) and fcntl is not None:
        return _FileLock(store, key)
    if callable(getattr(store, "acquire_lock", None)) and callable(getattr(store, "release_lock", None)):
        return _LockOfStore(store, key)
    raise ConfigurationError(
        "isolation_level SERIALIZABLE takes a folder as the store, or a store with acquire_lock(key) and "
        "release_lock(key), not %r" % (store,)
    )


class _FileLock:
    """Holds for all processes of this machine, and ends with the one that has it."""

    def __init__(self, store: FolderStore, key: str) -> None:
        name = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
        self._fd = os.open(os.path.join(store.make("locks"), name), os.O_RDWR | os.O_CREAT, 0o600)

    def acquire(self) -> bool:
        with contextlib.suppress(BlockingIOError, PermissionError):
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def release(self) -> None:
        os.close(self._fd)


class _LockOfStore:
    def __init__(self, store: Any, key: str) -> None:
        self._store, self._key = store, key

    def acquire(self) -> bool:
        return self._store.acquire_lock(self._key) is not False

    def release(self) -> None:
        self._store.release_lock(self._key)
