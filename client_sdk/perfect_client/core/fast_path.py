"""Calls of a task that asks for nothing but to be recorded: the short way, which must cost next to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Optional, Tuple

from perfect_client.core import context

if TYPE_CHECKING:
    from perfect_client.core.middleware import ResultMiddleware
    from perfect_client.core.runs import Run, TaskRun  # heavy at run time: every program loads this module

__tracebackhide__ = True  # pytest does not show our frames


def call(run: Run, called: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    """Call a task's function, and say so."""
    above = context.task.get()
    current = run.start(called, above)
    context.task.set(current)
    try:
        value = called.fn(*args, **kwargs)
        if type(value) in context.special:
            value = resolve_value(current, value)
    except BaseException as error:
        if not exited_cleanly(error):
            run.fail(current, error)
            raise
        value = None
    finally:
        context.task.set(above)
    run.end_with(current, value)
    return value


def call_kept(run: Run, called: Any, keeper: ResultMiddleware, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    """The same in a run that may be resumed: what a call returns is kept, or an earlier run has left it."""
    above = context.task.get()
    current = run.start(called, above)
    context.task.set(current)
    slot = hit = None
    try:
        slot, hit = keeper.take(run, current, args, kwargs)
        value = called.fn(*args, **kwargs) if hit is None else hit.value
        if type(value) in context.special:
            value = resolve_value(current, value)
        if hit is None and slot is not None:
            keeper.leave(run, current, slot, value)
    except BaseException as error:
        if not exited_cleanly(error):
            run.fail(current, error)
            raise
        value = None
    finally:
        context.task.set(above)
    run.end_with(current, value, "COMPLETED" if hit is None else "CACHED")
    return value


async def call_async(run: Run, called: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    """The same for a coroutine function; it starts when it is first awaited."""
    above = context.task.get()
    current = run.start(called, above)
    context.task.set(current)
    try:
        value = await called.fn(*args, **kwargs)
        if type(value) in context.special:
            value = resolve_value(current, value)
    except BaseException as error:
        if not exited_cleanly(error):
            run.fail(current, error)
            raise
        value = None
    finally:
        context.task.set(above)
    run.end_with(current, value)
    return value


def exited_cleanly(error: BaseException) -> bool:
    """Whether the code ended by ``sys.exit()`` or ``sys.exit(0)``, which is no failure."""
    if not isinstance(error, SystemExit):
        return False
    from perfect_client.core import previews  # heavy: hardly any code ends so

    return previews.is_clean_exit(error)


def resolve_value(current: Optional[TaskRun], value: Any) -> Any:
    """The value of a call that returned more than a value."""
    from perfect_client.core import outcomes  # heavy: most values are no more than values

    return outcomes.resolve_value(current, value)
