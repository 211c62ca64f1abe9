"""A call of a flow: as a worker's run, as a sub-flow of another run, or directly, with facts that go nowhere."""

from __future__ import annotations

import os
from typing import Any, Collection, Dict, List, Optional, Tuple

from perfect_client.core import context, listeners, outcomes, states
from perfect_client.core.annotations import BaseAnnotation
from perfect_client.core.deadlines import Limit, calls_user_code, is_own
from perfect_client.core.middleware import bind_arguments
from perfect_client.core.previews import is_interruption
from perfect_client.core.runs import Run, SubRun, TaskRun, discard, new_id
from perfect_client.core.states import State, StateType
from perfect_client.engine import arguments, hooks, interrupts, task_calls
from perfect_client.engine.steps import Call, Sleep, Steps, Wait, drive, drive_later
from perfect_client.engine.task_calls import next_delay, tell_retry
from perfect_client.errors import BadParameter, Cancelled, FlowRunTimeoutError, TimedOut, UpstreamTaskError
from perfect_client.output import log_prints
from perfect_client.wire.messages import RunEnded, RunStarted

__tracebackhide__ = True  # pytest does not show our frames


def call_flow(flow: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    """Call a flow from user code; a coroutine for an asynchronous one."""
    return_state, wait_for = kwargs.pop("return_state", False), kwargs.pop("wait_for", None)
    if flow.is_async:
        return _later(flow, args, kwargs, return_state, wait_for)
    return _answer(drive(_begin(flow, args, kwargs, wait_for)), return_state)


async def _later(flow: Any, args: Any, kwargs: Any, return_state: bool, wait_for: Any) -> Any:
    return _answer(await drive_later(_begin(flow, args, kwargs, wait_for)), return_state)


def _answer(state: State, return_state: bool) -> Any:
    if return_state:
        context.stand_ins = True
        return state
    return state.value() if not states.is_state_iterable(state.data) else state.data


def make_run(flow: Any) -> Tuple[Run, Optional[TaskRun]]:
    """The run of a call, and its task run in the run around it, if there is one."""
    above = context.current_run()
    if above is None:
        made = Run(
            id=new_id(),
            flow_name=flow.name,
            emit=discard,
            tags=flow.tags,
            configuration=flow.configuration(),
            flow=flow,
        )
        made.began = made.clock()
        emit = listeners.find_listener(made)
        if emit is not None:
            made.hear(emit)
            made.tell(RunStarted(made.clock(), os.getpid()))
        return made, None
    call = above.open(flow, context.current_task())
    made = SubRun(above, call, flow)
    made.began = made.clock()
    return made, call


def _begin(flow: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any], wait_for: Any) -> Steps[State]:
    """The steps of a call from user code."""
    run, call = make_run(flow)
    steps = call_steps(run, args, kwargs, wait_for)
    if call is not None:
        return _told_above(run, call, steps)
    return _heard(run, steps) if run.heard else steps


def _heard(run: Run, steps: Steps[State]) -> Steps[State]:
    """The steps of a direct call that somebody listens to."""
    try:
        state = yield from steps
    except BaseException as error:
        end_direct_call(run, outcomes.failed_outcome(run, error))
        raise
    end_direct_call(run, outcomes.outcome_of_state(run, state))
    return state


def end_direct_call(run: Run, ended: RunEnded) -> None:
    """A direct call that somebody listens to is over."""
    run.end_open(LEFT_OPEN)
    run.tell(ended)
    run.closed = True


LEFT_OPEN = "The flow ended before this task."


def _told_above(run: Run, call: TaskRun, steps: Steps[State]) -> Steps[State]:
    """A sub-flow's steps, with its begin and end as facts of the run around it."""
    above = context.task.get()
    call.run.begin(call, run.flow_name)
    context.task.set(call)
    try:
        state = yield from steps
    except BaseException as error:
        run.end_open(LEFT_OPEN)
        call.run.fail(call, error)
        raise
    finally:
        context.task.set(above)
    run.end_open(LEFT_OPEN)
    outcomes.emit_task_end(call, state)
    return state


def tell_start(run: Run) -> None:
    """A sub-flow begins: its server makes it a run of its own."""
    if isinstance(run, SubRun) and run.is_told:
        from perfect_client.engine import subflow_parameters  # heavy: only a worker's runs tell it

        run.told(subflow_parameters.preview_parameters(run.flow, run.parameters))


def call_steps(run: Run, args: Tuple[Any, ...], kwargs: Dict[str, Any], wait_for: Any = None) -> Steps[State]:
    """From the call to the final state; what the flow submitted has ended then. A stop is raised."""
    here = context.innermost.get()
    context.innermost.set(run)
    prints = run.flow.log_prints and log_prints.begin(run.flow)
    try:
        state = yield from _to_its_end(run, args, kwargs, wait_for)
    except BaseException as error:
        if run.runner is not None:
            run.runner.stop()
        below = interrupts.interruption_of(run, error)
        if below is not None:
            below.tell()
        yield from hooks.run_hooks(run.flow, run, _stopped(error))
        if below is not None:
            below.wait()
        raise
    finally:
        context.innermost.set(here)
        if prints:
            log_prints.end()
        if run.runner is not None:
            run.root.runners.pop(run.id, None)
            run.runner.shut()
    yield from hooks.run_hooks(run.flow, run, state)
    return state


def _stopped(error: BaseException) -> State:
    """The state of a flow that was ended from outside, for its hooks.

    CANCELLED is what a person or the code itself asked for; a run that its worker or the system ends has crashed.
    """
    crashed = hooks.witness.crash_reason() if hooks.witness is not None else None
    if crashed is not None and is_interruption(error):
        return states.Crashed(message=crashed, data=error)
    if isinstance(error, Cancelled) or (is_interruption(error) and not isinstance(error, KeyboardInterrupt)):
        return states.Cancelled(message=str(error) or "The run was stopped.", data=error)
    if isinstance(error, KeyboardInterrupt):
        return states.Crashed(message="Execution was aborted by an interrupt signal.", data=error)
    return states.of_exception(error)


def _to_its_end(run: Run, args: Tuple[Any, ...], kwargs: Dict[str, Any], wait_for: Any) -> Steps[State]:
    flow = run.flow
    untouched: Collection[str] = ()
    if context.stand_ins:
        untouched = annotated_names(flow, args, kwargs)
        yield Wait(arguments.futures_in(*args, *kwargs.values(), wait_for))
        try:
            args, kwargs = arguments.resolve_futures(args, kwargs, wait_for)
        except UpstreamTaskError as missing:
            return states.NotReady(message=str(missing))
    if not run.parameters:  # a worker has read them already
        try:
            args, kwargs, run.parameters = read_arguments(flow, args, kwargs, untouched)
        except BadParameter as wrong:
            return State(StateType.FAILED, None, wrong.sentence, wrong)
    if flow.flow_run_name:
        run.given_name = hooks.name_from(flow.flow_run_name, lambda: dict(run.parameters))
        run.tell_name()
    tell_start(run)
    limit = task_calls.limit_of(flow, run, FlowRunTimeoutError)
    while True:
        yield from hooks.run_hooks(flow, run, State(StateType.RUNNING))
        state = yield from _attempt(run, args, kwargs, limit)
        delay = None if state.is_completed() else (yield from next_delay(flow, run, state, run.run_count))
        if delay is None:
            return state
        tell_retry(flow, state, run.run_count, delay)
        yield Sleep(delay)
        run.run_count += 1


class _Body(Call):
    """The flow's function, and then all that it submitted: the deadline is for both."""

    __slots__ = ("run",)

    def __init__(self, run: Run, args: Tuple[Any, ...], kwargs: Dict[str, Any], limit: Optional[Limit]) -> None:
        super().__init__(run.flow.fn, args, kwargs, run.flow.is_async, limit)
        self.run = run

    @calls_user_code
    def _plain(self) -> Any:
        value = super()._plain()
        while self._unfinished():  # again: what ran may have submitted more
            Wait(self._unfinished()).now()
        return value

    def _unfinished(self) -> List[Any]:
        return self.run.runner.unfinished() if self.run.runner is not None else []

    @calls_user_code
    async def _coroutine(self) -> Any:
        value = await super()._coroutine()
        while self._unfinished():
            await Wait(self._unfinished()).later()
        return value


def _attempt(run: Run, args: Tuple[Any, ...], kwargs: Dict[str, Any], limit: Optional[Limit]) -> Steps[State]:
    try:
        value = yield _Body(run, args, kwargs, limit)
    except Exception as error:
        if not is_own(error):
            raise
        if run.runner is not None:
            run.runner.stop()
            if not isinstance(error, TimedOut):  # what runs is let run, unless the time is over
                yield run.runner.wait_for_all()
            run.runner.shut()
            run.runner = None
        return states.of_exception(error)
    return states.of_value(arguments.to_states(value) if context.stand_ins else value)


def read_arguments(
    flow: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any], untouched: Collection[str] = ()
) -> Tuple[Tuple[Any, ...], Dict[str, Any], Dict[str, Any]]:
    """The arguments as the hints read them, and all by name, defaults included. Raises ``BadParameter``.

    Those that the signature has no place for are left to the call itself, whose error names them.
    """
    try:
        bound = bind_arguments(flow, args, kwargs)
    except (TypeError, ValueError):
        return args, kwargs, {}
    reader = _reader_of(flow)
    changes = reader.changes(bound.arguments, untouched) if reader else None
    if changes:
        bound.arguments.update(changes)
        args, kwargs = bound.args, bound.kwargs
    bound.apply_defaults()
    return args, kwargs, dict(bound.arguments)


def _reader_of(flow: Any) -> Any:
    """What reads the arguments of direct calls; None for a flow without hints, or that does not want it."""
    known = flow.__dict__
    if "_reader" not in known:
        known["_reader"] = _make_reader(flow)
    return known["_reader"]


def _make_reader(flow: Any) -> Any:
    hints = getattr(flow.fn, "__annotations__", None)
    if not flow.validate_parameters or (hints is not None and not hints.keys() - {"return"}):
        return None
    from perfect_client.schema.signature import Reader  # heavy: for flows with hints only

    return Reader(flow.fn) or None


def annotated_names(flow: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Collection[str]:
    """The names of the arguments that come with a word on how to treat them, as ``quote(x)``."""
    if not any(isinstance(value, BaseAnnotation) for value in (*args, *kwargs.values())):
        return ()
    try:
        arguments = bind_arguments(flow, args, kwargs).arguments
    except (TypeError, ValueError):
        return ()
    return [name for name, value in arguments.items() if isinstance(value, BaseAnnotation)]


def run_to_state(run: Run, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> State:
    """Execute the run of a worker in this thread; its final state. A stop is raised."""
    return drive(call_steps(run, args, kwargs))
