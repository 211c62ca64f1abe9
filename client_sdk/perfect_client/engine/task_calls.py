"""A call of a task with all that it may ask for: futures as arguments, parts, hooks, a name, attempts, a deadline."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

from perfect_client.core import context, outcomes, states
from perfect_client.core.deadlines import Limit, is_own
from perfect_client.core.middleware import TaskCall
from perfect_client.core.run_logger import get_run_logger
from perfect_client.core.runs import Run, TaskRun, discard, new_id
from perfect_client.core.states import State, StateType
from perfect_client.engine import arguments, hooks
from perfect_client.engine.steps import Call, Invoke, Sleep, Steps, Wait, drive, drive_later
from perfect_client.errors import TaskRunTimeoutError, UpstreamTaskError
from perfect_client.output import log_prints

__tracebackhide__ = True  # pytest does not show our frames


def make_detached_run() -> Run:
    """The run of a task that is called outside of any flow."""
    return Run(id=new_id(), flow_name="", emit=discard)


def make_call(task: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> TaskCall:
    """The call; ``return_state`` and ``wait_for`` are not for the function."""
    return_state, wait_for = kwargs.pop("return_state", False), kwargs.pop("wait_for", None)
    return TaskCall(task, context.current_run() or make_detached_run(), args, kwargs, bool(return_state), wait_for)


def call_task(task: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    """Call a task that asks for more than ``fast_path`` gives; a coroutine for an asynchronous one."""
    call = make_call(task, args, kwargs)
    if task.is_async:
        return _later(call)
    return return_or_raise(call, drive(call_steps(call, context.task.get())))


async def _later(call: TaskCall) -> Any:
    return return_or_raise(call, await drive_later(call_steps(call, context.task.get())))


def return_or_raise(call: TaskCall, state: State) -> Any:
    """What the caller gets. Raises the exception of a state that is not COMPLETED, unless the task may fail."""
    if call.return_state:
        context.stand_ins = True
        return state
    return None if state.tolerated else state.value()


def call_steps(call: TaskCall, above: Optional[TaskRun], opened: Optional[TaskRun] = None) -> Steps[State]:
    """From the call to its final state. What is no failure of the task (a stop, ``sys.exit()``) is raised."""
    current = opened or call.run.open(call.task, above)
    call.task_run, current.details = current, call
    here = context.task.get()
    context.task.set(current)
    prints = call.task.log_prints and log_prints.begin(call.task)
    try:
        state = yield from _to_its_end(call, current)
    except BaseException as error:
        call.run.fail(current, error)
        raise
    finally:
        for part in call.parts:
            part.over(call)
        context.task.set(here)
        if prints:
            log_prints.end()
    return state


def _to_its_end(call: TaskCall, current: TaskRun) -> Steps[State]:
    state = yield from _ready(call)
    if state is None:
        yield from hooks.run_hooks(call.task, current, State(StateType.RUNNING))
        state = yield from _attempts(call, current)
    outcome = "CACHED" if state.name == "Cached" and state.is_completed() else ""
    state.task_run_id = current.id
    state.tolerated = not call.task.crucial and not state.is_completed()
    if outcome:
        call.run.end_with(current, state.data, outcome)
    else:
        outcomes.emit_task_end(current, state)
    yield from hooks.run_hooks(call.task, current, state)
    return state


def _ready(call: TaskCall) -> Steps[Optional[State]]:
    """Everything before the function is called; a state if it need not or must not be called."""
    given = (*call.args, *call.kwargs.values(), call.wait_for)
    waiting = arguments.futures_in(*given) if context.stand_ins else []
    if waiting:
        yield Wait(waiting)
    try:
        if context.stand_ins:
            call.args, call.kwargs = arguments.resolve_futures(call.args, call.kwargs, call.wait_for)
    except UpstreamTaskError as missing:
        call.run.begin(call.task_run, call.task.name)
        return states.NotReady(message=str(missing))
    template = call.task.task_run_name
    call.name = hooks.name_from(template, lambda: call.parameters) if template else None
    call.run.begin(call.task_run, call.name or call.task.name)
    for part in call.parts:
        hit = part.before(call)
        if hit is not None:
            return State(StateType.COMPLETED, "Cached", None, hit.value)
    return None


def _attempts(call: TaskCall, current: TaskRun) -> Steps[State]:
    task, attempt = call.task, 0
    limit = limit_of(task, call.run, TaskRunTimeoutError)
    while True:
        attempt += 1
        state = yield from _attempt(call, limit)
        delay = None if state.is_completed() else (yield from next_delay(task, current, state, attempt))
        if delay is None:
            return state
        failed = state.data if isinstance(state.data, BaseException) else None
        call.run.retry(current, outcomes.error_of(state), outcomes.traceback_of(failed), delay)
        tell_retry(task, state, attempt, delay)
        yield Sleep(delay)
        call.run.restart(current)


def _attempt(call: TaskCall, limit: Optional[Limit]) -> Steps[State]:
    task = call.task
    try:
        value = yield Call(task.fn, call.args, call.kwargs, task.is_async, limit)
        state = states.of_value(value)
        if state.is_completed():
            for part in call.parts:
                part.after(call, state.data)
    except Exception as error:
        if not is_own(error):
            raise
        return states.of_exception(error)
    return state


def next_delay(owner: Any, run: Any, state: State, attempt: int) -> Steps[Optional[float]]:
    """Seconds until the next attempt, None when there is none."""
    retries = owner.retry
    delay = retries.delay(attempt) if retries is not None else None
    if delay is None or retries.condition is None:
        return delay
    try:
        wanted = yield Invoke(retries.condition, owner, run, state)
    except Exception as error:
        told = "retry_condition_fn of %s %r failed, so there is no retry: %r"
        get_run_logger().error(told, owner.kind, owner.name, error)
        return None
    return delay if wanted else None


def tell_retry(owner: Any, state: State, attempt: int, delay: float) -> None:
    """A line in the log for each attempt that failed."""
    get_run_logger().warning(
        "%s %r failed (%s); retry %d of %d %s",
        owner.kind.capitalize(),
        owner.name,
        outcomes.error_of(state),
        attempt,
        owner.retry.most,
        "in %.3g s" % delay if delay else "now",
    )


def limit_of(owner: Any, run: Run, error: Any) -> Optional[Limit]:
    """The deadline that the owner asks for."""
    seconds = owner.timeout_seconds
    if seconds is None:
        return None
    sentence = "%s '%s' exceeded its timeout of %g second(s)" % (owner.kind.capitalize(), owner.name, seconds)
    return Limit(seconds, error, sentence, run.guard)
