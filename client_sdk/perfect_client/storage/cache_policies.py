"""What makes two calls of a task the same: ``INPUTS``, ``TASK_SOURCE``, … joined by ``+``; ``-`` drops an argument."""

from __future__ import annotations

from copy import copy
from typing import Any, Callable, FrozenSet, Iterable, Mapping, Optional, Sequence, Tuple

from perfect_client.errors import ConfigurationError
from perfect_client.fingerprints import fingerprints
from perfect_client.storage import hashing


class CachePolicy:
    """Override ``compute_key``. Two calls of one key share a result, whatever tasks they are calls of; where
    ``per_task`` is true, only those of one task do."""

    per_task = False
    key_storage: Any = None

    def compute_key(
        self, task_ctx: Any, inputs: Mapping[str, Any], flow_parameters: Mapping[str, Any], **kwargs: Any
    ) -> Optional[str]:
        """The call's key; None: it is not cached. ``task_ctx`` has ``task``, ``run``, ``task_run``, ``parameters``."""
        raise NotImplementedError

    def configure(self, key_storage: Any = None) -> CachePolicy:
        """The same policy that keeps results elsewhere: in a folder, or an object as ``result_storage`` takes it."""
        made = copy(self)
        made.key_storage = key_storage
        return made

    @staticmethod
    def from_cache_key_fn(cache_key_fn: Callable[[Any, Mapping[str, Any]], Optional[str]]) -> CacheKeyFnPolicy:
        return CacheKeyFnPolicy(cache_key_fn)

    def __add__(self, other: Any) -> CachePolicy:
        if not isinstance(other, CachePolicy):
            return NotImplemented
        return self if isinstance(other, _None) else CompoundCachePolicy([self, other])

    def __sub__(self, name: Any) -> CachePolicy:
        if not isinstance(name, str):
            raise ConfigurationError("a cache policy leaves out an argument by its name, not %r" % (name,))
        return CompoundCachePolicy([self, Inputs(exclude=[name])])

    def __repr__(self) -> str:
        return "%s()" % type(self).__name__


class CompoundCachePolicy(CachePolicy):
    """Calls are the same where all of these say so."""

    def __init__(self, policies: Sequence[CachePolicy]) -> None:
        nested = [p.policies if isinstance(p, CompoundCachePolicy) else (p,) for p in policies]
        self.policies: Tuple[CachePolicy, ...] = tuple(policy for group in nested for policy in group)
        self.per_task = any(policy.per_task for policy in self.policies)
        self.key_storage = next((p.key_storage for p in policies if p.key_storage is not None), None)

    def compute_key(
        self, task_ctx: Any, inputs: Mapping[str, Any], flow_parameters: Mapping[str, Any], **kwargs: Any
    ) -> Optional[str]:
        keys = [policy.compute_key(task_ctx, inputs, flow_parameters, **kwargs) for policy in self.policies]
        known = [key for key in keys if key is not None]
        return hashing.digest(known).hex() if known else None

    def __sub__(self, name: Any) -> CachePolicy:
        if isinstance(name, str) and any(isinstance(policy, Inputs) for policy in self.policies):
            return CompoundCachePolicy([p - name if isinstance(p, Inputs) else p for p in self.policies])
        return super().__sub__(name)

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.policies))


class Inputs(CachePolicy):
    """The same arguments, but for those in ``exclude``."""

    per_task = True

    def __init__(self, exclude: Iterable[str] = ()) -> None:
        if isinstance(exclude, str):
            raise ConfigurationError("Inputs(exclude=…) takes a list of names, not %r" % exclude)
        self.exclude: FrozenSet[str] = frozenset(exclude)

    def compute_key(
        self, task_ctx: Any, inputs: Mapping[str, Any], flow_parameters: Mapping[str, Any], **kwargs: Any
    ) -> Optional[str]:
        strange = sorted(self.exclude - inputs.keys())
        if strange:
            raise ConfigurationError(
                "the cache policy leaves out the argument %r, but the task %r has: %s"
                % (strange[0], task_ctx.task.name, ", ".join(inputs) or "none")
            )
        kept = {name: value for name, value in inputs.items() if name not in self.exclude}
        return hashing.digest_inputs(kept, task_ctx.task.name).hex()

    def __sub__(self, name: Any) -> CachePolicy:
        if not isinstance(name, str):
            return super().__sub__(name)
        return Inputs(self.exclude | {name})

    def __repr__(self) -> str:
        return "Inputs(exclude=%r)" % sorted(self.exclude) if self.exclude else "INPUTS"


class TaskSource(CachePolicy):
    """The same code: of the task, and of all in the user's own files that it names, closes over or has as defaults."""

    per_task = True

    def compute_key(
        self, task_ctx: Any, inputs: Mapping[str, Any], flow_parameters: Mapping[str, Any], **kwargs: Any
    ) -> Optional[str]:
        return fingerprints.fingerprint_of(task_ctx.task).digest.hex()

    def __repr__(self) -> str:
        return "TASK_SOURCE"


class FlowParameters(CachePolicy):
    """The same parameters of the flow; outside a flow it says nothing."""

    per_task = True

    def compute_key(
        self, task_ctx: Any, inputs: Mapping[str, Any], flow_parameters: Mapping[str, Any], **kwargs: Any
    ) -> Optional[str]:
        return hashing.digest(dict(flow_parameters)).hex() if flow_parameters else None

    def __repr__(self) -> str:
        return "FLOW_PARAMETERS"


class RunId(CachePolicy):
    """The same run, over all its attempts."""

    per_task = True

    def compute_key(
        self, task_ctx: Any, inputs: Mapping[str, Any], flow_parameters: Mapping[str, Any], **kwargs: Any
    ) -> Optional[str]:
        return str(task_ctx.run.id)

    def __repr__(self) -> str:
        return "RUN_ID"


class _None(CachePolicy):
    def compute_key(
        self, task_ctx: Any, inputs: Mapping[str, Any], flow_parameters: Mapping[str, Any], **kwargs: Any
    ) -> Optional[str]:
        return None

    def __add__(self, other: Any) -> CachePolicy:
        return other if isinstance(other, CachePolicy) else NotImplemented

    def __repr__(self) -> str:
        return "NO_CACHE"


class CacheKeyFnPolicy(CachePolicy):
    """The key is what ``cache_key_fn(context, parameters)`` returns; None: this call is not cached."""

    def __init__(self, cache_key_fn: Callable[[Any, Mapping[str, Any]], Optional[str]]) -> None:
        if not callable(cache_key_fn):
            raise ConfigurationError("cache_key_fn is a function of (context, parameters), not %r" % (cache_key_fn,))
        self.cache_key_fn = cache_key_fn

    def compute_key(
        self, task_ctx: Any, inputs: Mapping[str, Any], flow_parameters: Mapping[str, Any], **kwargs: Any
    ) -> Optional[str]:
        key = self.cache_key_fn(task_ctx, inputs)
        if key is not None and not isinstance(key, str):
            raise ConfigurationError(
                "the cache_key_fn of task %r must return a string or None, not %.100r" % (task_ctx.task.name, key)
            )
        return key

    def __repr__(self) -> str:
        return "CacheKeyFnPolicy(%r)" % (self.cache_key_fn,)


INPUTS = Inputs()
TASK_SOURCE = TaskSource()
FLOW_PARAMETERS = FlowParameters()
RUN_ID = RunId()
NONE = _None()
NO_CACHE = NONE
DEFAULT = INPUTS + TASK_SOURCE + RUN_ID
