"""What the options of ``@flow`` and ``@task`` may be; nonsense is refused where it is written, in one sentence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional

if TYPE_CHECKING:
    from perfect_client.engine.retries import Retries

EVENTS = ("on_running", "on_completion", "on_failure", "on_cancellation", "on_crashed")
MAX_RETRIES = 1_000_000

# Every option and its default. Those without a check below are kept as they are, for the part that knows them.
SHARED: Dict[str, Any] = {
    "name": None,
    "description": None,
    "tags": (),
    "version": None,
    "retries": None,
    "retry_delay_seconds": None,
    "timeout_seconds": None,
    "log_prints": None,
    "persist_result": None,
    "result_storage": None,
    "result_serializer": None,
    "cache_result_in_memory": True,
    **dict.fromkeys(EVENTS),
}
OF_TASKS: Dict[str, Any] = {
    **SHARED,
    "weight": None,
    "estimated_time": None,
    "crucial": True,
    "task_run_name": None,
    "retry_jitter_factor": None,
    "retry_condition_fn": None,
    "cache_policy": None,
    "cache_key_fn": None,
    "cache_expiration": None,
    "refresh_cache": None,
    "result_storage_key": None,
    "viz_return_value": None,
}
OF_RESULTS = (  # what a task says of them; without any of these words they are kept for resuming only
    "cache_policy",
    "cache_key_fn",
    "cache_expiration",
    "refresh_cache",
    "persist_result",
    "result_storage",
    "result_storage_key",
    "result_serializer",
)
OF_FLOWS: Dict[str, Any] = {
    **SHARED,
    "schedule": None,
    "configurations": None,
    "flow_run_name": None,
    "task_runner": None,
    "validate_parameters": True,
    "start": None,
}
STARTS = ("auto", "fork", "fresh")  # how the process of a run begins


def _number_above_zero(what: str) -> Callable[[Any], Optional[float]]:
    def check(value: Any) -> Optional[float]:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
            raise ValueError("must be a finite number%s above 0, not %r" % (what, value))
        return float(value)

    return check


def _truth(value: Any) -> Any:
    if value is not None and not isinstance(value, bool):
        raise ValueError("must be True or False, not %r" % (value,))
    return value


def _text(value: Any) -> Any:
    if value is not None and not isinstance(value, str):
        raise ValueError("must be a string, not %r" % (value,))
    return value


def _function(value: Any) -> Any:
    if value is not None and not callable(value):
        raise ValueError("must be a function, not %r" % (value,))
    return value


def _name_template(value: Any) -> Any:
    if value is not None and not callable(value) and not (isinstance(value, str) and value.strip()):
        raise ValueError("must be a string or a function that makes one, not %r" % (value,))
    return value


def _retries(value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_RETRIES:
        raise ValueError("must be a whole number, 0 or more, not %r" % (value,))
    return value


def _jitter(value: Any) -> float:
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError("must be a number, 0 or more, not %r" % (value,))
    return float(value)


def _task_runner(value: Any) -> Any:
    made = value() if isinstance(value, type) else value
    if made is not None and not all(hasattr(made, name) for name in ("duplicate", "submit", "wait_for_all")):
        raise ValueError("must be a task runner, as ThreadPoolTaskRunner(), not %r" % (value,))
    return made


def _storage(value: Any) -> Any:
    if value is not None:
        from perfect_client.storage.results import store_of  # heavy: few say where results are kept

        store_of(value)
    return value


def _serializer(value: Any) -> Any:
    if value is not None:
        from perfect_client.storage.serializers import serializer_of  # heavy, as above

        serializer_of(value)
    return value


def _start(value: Any) -> str:
    if value is not None and value not in STARTS:
        raise ValueError("must be 'auto', 'fork' or 'fresh', not %r" % (value,))
    return value or "auto"


CHECKS: Dict[str, Callable[[Any], Any]] = {
    "weight": _number_above_zero(""),
    "estimated_time": _number_above_zero(" of milliseconds"),
    "timeout_seconds": _number_above_zero(" of seconds"),
    "retries": _retries,
    "retry_jitter_factor": _jitter,
    "retry_condition_fn": _function,
    "cache_key_fn": _function,
    "crucial": _truth,
    "log_prints": _truth,
    "persist_result": _truth,
    "cache_result_in_memory": _truth,
    "refresh_cache": _truth,
    "validate_parameters": _truth,
    "version": _text,
    "start": _start,
    "result_storage_key": _text,
    "task_run_name": _name_template,
    "flow_run_name": _name_template,
    "task_runner": _task_runner,
    "result_storage": _storage,
    "result_serializer": _serializer,
}


def refusal(name: str, known: Dict[str, Any]) -> str:
    """What to say of an option that does not exist."""
    from difflib import get_close_matches  # heavy: nobody sees it who spells right

    near = get_close_matches(name, known, 1)
    return "there is no option %r%s" % (name, ": did you mean %r?" % near[0] if near else "")


def hooks_of(given: Dict[str, Any]) -> Dict[str, List[Any]]:
    """The hooks by their event; an event without hooks is left out. Raises ``ValueError``."""
    found: Dict[str, List[Any]] = {}
    for event in EVENTS:
        hooks = given.get(event)
        if hooks is None:
            continue
        if isinstance(hooks, (str, bytes)) or not hasattr(hooks, "__iter__"):
            raise ValueError("Expected iterable for '%s'; got %s instead." % (event, type(hooks).__name__))
        for hook in hooks:
            if not callable(hook):
                raise ValueError("Expected callables in '%s'; got %s instead." % (event, type(hook).__name__))
        if list(hooks):
            found[event] = list(hooks)
    return found


def retries_of(given: Dict[str, Any]) -> Optional[Retries]:
    """When to try again; None: never. Raises ``ValueError``."""
    if not given["retries"] and given["retry_delay_seconds"] is None:
        return None
    from perfect_client.engine.retries import Retries, delays_of  # heavy: most tasks have no retries

    delays = delays_of(given["retries"], given["retry_delay_seconds"])
    if not given["retries"]:
        return None
    return Retries(given["retries"], delays, given.get("retry_jitter_factor") or 0.0, given.get("retry_condition_fn"))
