"""The part around a task's calls that keeps what they return, and answers the same call from what was kept.

Two things may answer: the cache, for a task that asked for one (``cache_policy``, ``cache_key_fn``, …), and the
lineage, for every task of a run that resumes another one. Whatever goes wrong in keeping is a debug line, never an
error of the task; only arguments that a cache was asked to compare and cannot are one.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Dict, NamedTuple, Optional, Set, Tuple

from perfect_client.caching import lineage
from perfect_client.core import runtime
from perfect_client.core.middleware import Hit, ResultMiddleware, Taken, TaskCall
from perfect_client.engine.options import OF_RESULTS
from perfect_client.errors import ConfigurationError, HashError, function_place
from perfect_client.fingerprints import fingerprints
from perfect_client.fingerprints.fingerprints import Fingerprint
from perfect_client.storage import hashing
from perfect_client.storage.cache_policies import DEFAULT, NO_CACHE, CachePolicy
from perfect_client.storage.results import Envelope, default_store, pack, store_of, unpack
from perfect_client.storage.serializers import PickleSerializer, TooLarge, serializer_of
from perfect_client.wire.messages import clean_text

if TYPE_CHECKING:
    from perfect_client.core.runs import Run, TaskRun

INPUTS_BYTES = 64 << 20  # larger arguments are not compared unless a cache was asked for: it would take too long
_OPEN_CALLS = 20_000  # of one task; what is beyond them is not kept

logger = logging.getLogger("perfect_client.results")


class _Asked(NamedTuple):
    """What a task's decorator asked for."""

    policy: Optional[CachePolicy]
    storage_key: Optional[str]
    expires_after_s: Optional[float]
    refresh: bool
    explicit: bool  # whether results of any size are to be kept
    serializer: Any
    storage: Any  # None: the worker's own


class _Wanted(NamedTuple):
    """Where the result of one call belongs; None: nowhere."""

    key: Optional[str]
    slot: Optional[bytes]
    storage_key: Optional[str]


class Keeping(ResultMiddleware):
    """Around the calls of one task."""

    def __init__(self, task: Any, asked: _Asked) -> None:
        self._task, self._asked = task, asked
        self._code: Optional[Fingerprint] = None
        self._open: Dict[Tuple[str, int], _Wanted] = {}
        self._said: Set[str] = set()
        self._told: Set[Tuple[str, Optional[bytes]]] = set()
        self._lock = threading.Lock()

    # ------------------------------------------------------------------------------------------------------- the part

    def before(self, call: TaskCall) -> Optional[Hit[Any]]:
        line = lineage.current
        if line is None and self._asked.policy is None and self._asked.storage_key is None:
            return None
        storage_key = self._storage_key(call)
        slot = self._slot(call.run.flow_name, call.task_run.key, call.args, call.kwargs)
        wanted = _Wanted(self._key(call, storage_key), slot, storage_key)
        cached = self._from_cache(wanted)
        found = cached or self._from_lineage(line, slot)
        if found is not None:
            self._keep_for_later_runs(call.run, call.task_run, slot, found[0])
            if cached is None:
                self._keep_in_cache(wanted, found[0])
            return Hit(found[1])
        if wanted != (None, None, None) and len(self._open) < _OPEN_CALLS:
            self._open[call.run.id, call.task_run.number] = wanted
        return None

    def after(self, call: TaskCall, value: Any) -> None:
        wanted = self._open.pop((call.run.id, call.task_run.number), None) if self._open else None
        if wanted is None:
            return
        data = self._written(value)
        if data is not None:
            envelope = Envelope(data, time.time(), self._expiry())
            self._keep_for_later_runs(call.run, call.task_run, wanted.slot, envelope)
            self._keep_in_cache(wanted, envelope)

    def take(self, run: Run, current: TaskRun, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Taken:
        slot = self._slot(run.flow_name, current.key, args, kwargs)
        line = lineage.current
        found = self._from_lineage(line, slot) if line is not None and line.past else None
        if found is None:
            return slot, None
        self._keep_for_later_runs(run, current, slot, found[0])
        return slot, Hit(found[1])

    def leave(self, run: Run, current: TaskRun, slot: bytes, value: Any) -> None:
        data = self._written(value)
        if data is not None:
            self._keep_for_later_runs(run, current, slot, Envelope(data, time.time(), None))

    # ------------------------------------------------------------------------------------------------------- the keys

    def _key(self, call: TaskCall, storage_key: Optional[str]) -> Optional[str]:
        policy = self._asked.policy
        if policy is None:
            return storage_key
        key = policy.compute_key(call, call.parameters, dict(call.run.parameters or {}))
        if key is None or not policy.per_task:
            return key
        bound = (self._source().bound,) if self._source().bound else ()
        return hashing.digest(("task", getattr(self._task, "__module__", ""), self._task.key, key, *bound)).hex()

    def _storage_key(self, call: TaskCall) -> Optional[str]:
        template = self._asked.storage_key
        if template is None:
            return None
        try:
            return template.format(
                parameters=call.parameters, flow_run=runtime.flow_run, task_run=runtime.task_run, **call.parameters
            )
        except (KeyError, IndexError, AttributeError, ValueError, TypeError) as wrong:
            raise ConfigurationError(
                "result_storage_key %r cannot be filled in: %s: %s; it may name parameters[…], flow_run and task_run "
                "(task %s)" % (template, type(wrong).__name__, wrong, function_place(self._task.fn))
            ) from None

    def _slot(self, flow: str, key: str, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Optional[bytes]:
        """Arguments as they are written in the call: the same code writes them the same way."""
        line = lineage.current
        if line is None:
            return None
        code = self._code or self._source()  # before the call, which may change what the code names
        try:
            inputs = hashing.digest_call(args, kwargs, self._task.name, INPUTS_BYTES)
        except (HashError, hashing.TooLarge) as wrong:
            self._note(str(wrong) or "its arguments are larger than %d MiB" % (INPUTS_BYTES >> 20))
            return None
        return line.slot(flow, key, inputs + code.bound)

    # ---------------------------------------------------------------------------------------------------- the answers

    def _from_cache(self, wanted: _Wanted) -> Optional[Tuple[Envelope, Any]]:
        if wanted.key is None or self._asked.refresh:
            return None
        try:
            envelope = unpack(wanted.key, self._store().read(wanted.key))
        except Exception as wrong:  # any store may fail in its own way
            self._note("its result cannot be read: %s: %s" % (type(wrong).__name__, clean_text(wrong, 200)))
            return None
        if envelope is None or (envelope.expires is not None and envelope.expires <= time.time()):
            return None
        return self._loaded(envelope)

    def _from_lineage(self, line: Optional[lineage.Lineage], slot: Optional[bytes]) -> Optional[Tuple[Envelope, Any]]:
        if line is None or slot is None:
            return None
        news = line.news()
        if news is not None:
            logger.info(news)
        found = line.find(slot)
        if found is None:
            return None
        expires = None if self._asked.expires_after_s is None else found.made + self._asked.expires_after_s
        if found.source != self._source().digest:
            if (found.run, found.source) not in self._told:  # a task may be called often
                self._told.add((found.run, found.source))
                self._say(self._why_again(line, found))
            return None
        if expires is not None and expires <= time.time():
            self._say("the results of task %r have expired since run %s: it runs again" % (self._task.name, found.run))
            return None
        return self._loaded(Envelope(found.data, found.made, expires))

    def _why_again(self, line: lineage.Lineage, found: lineage.Found) -> str:
        if found.source is None:
            return (
                "task %r runs again: run %s was made by an older version of Perfect, which did not note the code that "
                "a task calls" % (self._task.name, found.run)
            )
        changed = fingerprints.changes(line.parts_of(found), self._source().parts) or "its code"
        verb = "has" if fingerprints.is_one(changed) else "have"
        return "task %r runs again: %s %s changed since run %s" % (self._task.name, changed, verb, found.run)

    def _loaded(self, envelope: Envelope) -> Optional[Tuple[Envelope, Any]]:
        try:
            return envelope, self._asked.serializer.loads(envelope.data)
        except Exception as wrong:  # its class may be gone, or be another one by now
            self._note("its kept result cannot be read: %s: %s" % (type(wrong).__name__, clean_text(wrong, 200)))
            return None

    # -------------------------------------------------------------------------------------------------------- keeping

    def _written(self, value: Any) -> Optional[bytes]:
        """The value as bytes; None, with a note, where there are none or too many."""
        try:
            return self._dumps(value)
        except TooLarge:
            self._note("its result is larger than %d MiB" % (lineage.SMALL_BYTES >> 20))
        except Exception as wrong:  # a value may do anything when it is pickled
            self._note("its result cannot be written: %s: %s" % (type(wrong).__name__, clean_text(wrong, 200)))
        return None

    def _dumps(self, value: Any) -> bytes:
        serializer = self._asked.serializer
        if not self._asked.explicit and isinstance(serializer, PickleSerializer):
            return serializer.dumps_within(value, lineage.SMALL_BYTES)
        data: bytes = serializer.dumps(value)
        if not self._asked.explicit and len(data) > lineage.SMALL_BYTES:
            raise TooLarge
        return data

    def _keep_for_later_runs(self, run: Run, current: TaskRun, slot: Optional[bytes], envelope: Envelope) -> None:
        line = lineage.current
        if line is not None and slot is not None:
            number = current.number if run.id == line.run else 0
            code = self._source()
            line.keep(slot, code.digest, number, envelope.data, envelope.made, code.parts)

    def _keep_in_cache(self, wanted: _Wanted, envelope: Envelope) -> None:
        for key in sorted({key for key in (wanted.key, wanted.storage_key) if key is not None}):
            try:
                self._store().write(key, pack(key, envelope))
            except Exception as wrong:  # any store may fail in its own way; the task has done its work
                self._note("its result cannot be kept: %s: %s" % (type(wrong).__name__, clean_text(wrong, 200)))

    def _expiry(self) -> Optional[float]:
        return None if self._asked.expires_after_s is None else time.time() + self._asked.expires_after_s

    def _store(self) -> Any:
        return default_store() if self._asked.storage is None else self._asked.storage

    def _source(self) -> Fingerprint:
        if self._code is None:
            self._code = fingerprints.fingerprint_of(self._task)
        return self._code

    def _note(self, why: str) -> None:
        """Once for each reason, for those who look for it."""
        if self._first(why):
            logger.debug("task %r is not kept for a later run: %s", self._task.name, why)

    def _say(self, sentence: str) -> None:
        if self._first(sentence):
            logger.info(sentence)

    def _first(self, sentence: str) -> bool:
        with self._lock:
            known = sentence in self._said or len(self._said) > 100
            self._said.add(sentence)
        return not known


# -------------------------------------------------------------------------------------------------------- what is asked


def make_middleware(task: Any) -> Optional[ResultMiddleware]:
    """The part that a task asked for; None where nothing of it is to be kept. Raises ``ConfigurationError``."""
    if getattr(task, "persist_result", None) is False:
        return None
    try:
        asked = _asked(task)
    except ConfigurationError as wrong:
        raise ConfigurationError("%s (task %s)" % (wrong, function_place(task.fn))) from None
    return None if isinstance(asked.policy, type(NO_CACHE)) else Keeping(task, asked)


def kept_for(task: Any) -> Optional[ResultMiddleware]:
    """What keeps the results of a task that asks for nothing, in a run that may be resumed."""
    known = task.__dict__
    if "_keeper" not in known:
        known["_keeper"] = make_middleware(task)
    kept: Optional[ResultMiddleware] = known["_keeper"]
    return kept


def _asked(task: Any) -> _Asked:
    option = {name: getattr(task, name, None) for name in OF_RESULTS}
    explicit = any(option[name] for name in OF_RESULTS if name not in ("refresh_cache", "cache_expiration"))
    policy, storage = _policy(option, explicit), option["result_storage"]
    if storage is None and policy is not None:
        storage = policy.key_storage
    return _Asked(
        policy=policy,
        storage_key=_template(option["result_storage_key"]),
        expires_after_s=_seconds(option["cache_expiration"]),
        refresh=bool(option["refresh_cache"]),
        explicit=explicit,
        serializer=serializer_of("pickle" if option["result_serializer"] is None else option["result_serializer"]),
        storage=None if storage is None else store_of(storage),
    )


def _policy(option: Dict[str, Any], explicit: bool) -> Optional[CachePolicy]:
    """``cache_key_fn``, else ``cache_policy``, else ``DEFAULT`` for a task that asked for anything of the kind."""
    if option["cache_key_fn"] is not None:
        return CachePolicy.from_cache_key_fn(option["cache_key_fn"])
    policy = option["cache_policy"]
    if isinstance(policy, CachePolicy):
        return policy
    if policy is not None:
        raise ConfigurationError("cache_policy is a policy of perfect_client.cache_policies, not %r" % (policy,))
    return DEFAULT if explicit and option["result_storage_key"] is None else None


def _template(given: Any) -> Optional[str]:
    if given is not None and not (isinstance(given, str) and given.strip()):
        raise ConfigurationError("result_storage_key is a string like 'sales-{parameters[day]}', not %r" % (given,))
    return given


def _seconds(given: Any) -> Optional[float]:
    if given is None:
        return None
    if not isinstance(given, timedelta) or given <= timedelta():
        raise ConfigurationError("cache_expiration is a timedelta above 0, not %r" % (given,))
    return given.total_seconds()
