"""A call of a flow: as a worker's run, as a sub-flow of another run, or directly, with facts that go nowhere."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional, Tuple

from perfect_client import arguments, audience, calls, context, hooks, outcomes, states
from perfect_client.calls import next_delay, tell_retry
from perfect_client.deadlines import Limit, calls_user_code, is_own
from perfect_client.errors import Cancelled, FlowRunTimeoutError, TimedOut, UpstreamTaskError
from perfect_client.failures import is_interruption
from perfect_client.parts import bound
from perfect_client.protocol import RunEnded, RunStarted
from perfect_client.recorder import Run, SubRun, TaskRun, new_id
from perfect_client.states import State, StateType
from perfect_client.steps import Call, Sleep, Steps, Wait, drive, drive_later

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


def run_of(flow: Any) -> Tuple[Run, Optional[TaskRun]]:
    """The run of a call, and its task run in the run around it, if there is one."""
    above = context.current_run()
    if above is None:
        made = Run(
            id=new_id(), flow_name=flow.name, emit=calls.nowhere, tags=flow.tags, configuration=flow.configuration(),
            flow=flow,
        )  # fmt: skip
        emit = audience.hearer(made)
        if emit is not None:
            made.hear(emit)
            made.tell(RunStarted(made.clock(), os.getpid()))
        return made, None
    call = above.open(flow, context.current_task())
    return SubRun(above, call, flow), call


def _begin(flow: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any], wait_for: Any) -> Steps[State]:
    """The steps of a call from user code."""
    run, call = run_of(flow)
    steps = steps_of(run, args, kwargs, wait_for)
    if call is not None:
        return _told_above(run, call, steps)
    return _heard(run, steps) if run.heard else steps


def _heard(run: Run, steps: Steps[State]) -> Steps[State]:
    """The steps of a direct call that somebody listens to."""
    try:
        state = yield from steps
    except BaseException as error:
        end(run, outcomes.run_failed(run, error))
        raise
    end(run, outcomes.run_ended(run, state))
    return state


def end(run: Run, ended: RunEnded) -> None:
    """A direct call that somebody listens to is over."""
    run.end_open("The flow ended before this task.")
    run.tell(ended)
    run.closed = True


def _told_above(run: Run, call: TaskRun, steps: Steps[State]) -> Steps[State]:
    """A sub-flow's steps, with its begin and end as facts of the run around it."""
    above = context.task.get()
    run.root.begin(call, run.flow_name)
    context.task.set(call)
    try:
        state = yield from steps
    except BaseException as error:
        run.root.fail(call, error)
        raise
    finally:
        context.task.set(above)
    outcomes.tell(call, state)
    return state


def steps_of(run: Run, args: Tuple[Any, ...], kwargs: Dict[str, Any], wait_for: Any = None) -> Steps[State]:
    """From the call to the final state; what the flow submitted has ended then. A stop is raised."""
    here = context.innermost.get()
    context.innermost.set(run)
    try:
        state = yield from _to_its_end(run, args, kwargs, wait_for)
    except BaseException as error:
        if run.runner is not None:
            run.runner.stop()
        yield from hooks.told(run.flow, run, _stopped(error))
        raise
    finally:
        context.innermost.set(here)
        if run.runner is not None:
            run.runner.shut()
    yield from hooks.told(run.flow, run, state)
    return state


def _stopped(error: BaseException) -> State:
    """The state of a flow that was ended from outside, for its hooks."""
    if isinstance(error, Cancelled) or (is_interruption(error) and not isinstance(error, KeyboardInterrupt)):
        return states.Cancelled(message=str(error) or "The run was stopped.", data=error)
    if isinstance(error, KeyboardInterrupt):
        return states.Crashed(message="Execution was aborted by an interrupt signal.", data=error)
    return states.of_exception(error)


def _to_its_end(run: Run, args: Tuple[Any, ...], kwargs: Dict[str, Any], wait_for: Any) -> Steps[State]:
    flow = run.flow
    if context.stand_ins:
        yield Wait(arguments.futures_in(*args, *kwargs.values(), wait_for))
        try:
            args, kwargs = arguments.resolved(args, kwargs, wait_for)
        except UpstreamTaskError as missing:
            return states.NotReady(message=str(missing))
    if not run.parameters:
        run.parameters = _parameters(flow, args, kwargs)
    if flow.flow_run_name:
        run.given_name = hooks.name_from(flow.flow_run_name, lambda: dict(run.parameters))
    limit = calls.limit_of(flow, run, FlowRunTimeoutError)
    while True:
        yield from hooks.told(flow, run, State(StateType.RUNNING))
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


def _parameters(flow: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Dict[str, Any]:
    """The arguments by name; what does not fit is left to the call itself, whose error names it."""
    try:
        return bound(flow, args, kwargs)
    except (TypeError, ValueError):
        return {}


def run_state(run: Run, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> State:
    """Execute the run of a worker in this thread; its final state. A stop is raised."""
    return drive(steps_of(run, args, kwargs))
