"""Run one flow in this process and say what happens, as facts, to ``emit``."""

from __future__ import annotations

import logging
import os
import time
from difflib import get_close_matches
from typing import Any, Callable, Dict, Optional

from perfect_client import caching, capture, context, discovery, flow_calls, lineage, outcomes, parts, signature, states
from perfect_client.context import Configuration
from perfect_client.decorators import Flow
from perfect_client.errors import BadParameter, TimedOut
from perfect_client.failures import error_text, is_interruption, preview, traceback_text
from perfect_client.protocol import OfferRun, RunEnded, RunStarted
from perfect_client.recorder import Emit, Run
from perfect_client.states import State, StateType

COMPLETED, FAILED, CANCELLED = "COMPLETED", "FAILED", "CANCELLED"
_OUTCOMES: Dict[StateType, str] = {StateType.COMPLETED: COMPLETED, StateType.CANCELLED: CANCELLED}
_WITH_EXCEPTION = frozenset({StateType.FAILED, StateType.CRASHED, StateType.CANCELLED})


def execute(
    flow: Flow[Any, Any], order: OfferRun, emit: Emit, *, clock: Callable[[], float] = time.time, guard: Any = None
) -> str:
    """Execute the flow as ordered; returns the outcome: COMPLETED, FAILED or CANCELLED.

    ``guard`` is told of deadlines (``watch(key, seconds, sentence)``, ``rest(key)``) and ends this process when one
    of them is missed by far.

    The first fact is ``RunStarted``, the last ``RunEnded``. No exception of the flow leaves this function, only those
    of ``emit``. Raises ``RuntimeError`` when this process executes a run already.
    """
    run = Run(
        id=order.run, flow_name=flow.name, emit=emit, clock=clock, attempt=order.attempt,
        tags=tuple(dict.fromkeys((*flow.tags, *order.tags))), keys=discovery.plan(flow).keys, flow=flow, guard=guard,
    )  # fmt: skip
    context.activate(run)
    parts.keeper = caching.kept_for if lineage.current is not None else None
    try:
        return _execute(run, flow, order)
    finally:
        parts.keeper = None
        run.closed = True
        context.deactivate()


def _execute(run: Run, flow: Flow[Any, Any], order: OfferRun) -> str:
    ended: Optional[RunEnded] = None
    try:
        run.tell(RunStarted(run.clock(), os.getpid()))
        ended = _outcome(run, flow, order)
    except KeyboardInterrupt as stopped:  # it came while no user code was running
        ended = ended or _failure(run, stopped)
    open_because = "The run was stopped." if ended.outcome == CANCELLED else "The flow ended before this task."
    while True:
        try:
            run.end_open(open_because)
            run.tell(ended)
            return ended.outcome
        except KeyboardInterrupt:
            pass  # too late: the outcome is known, and must be told


def _outcome(run: Run, flow: Flow[Any, Any], order: OfferRun) -> RunEnded:
    try:
        run.configuration = _configuration(flow, order.configuration)
        with capture.Capture(run, _log_level(run.configuration)):
            run.parameters = signature.bind(flow.fn, order.parameters, run.configuration)
            args, kwargs = signature.split(flow.fn, run.parameters)
            state = flow_calls.run_state(run, tuple(args), kwargs)
    except BadParameter as wrong:
        return RunEnded(run.clock(), FAILED, reason=wrong.sentence, error="BadParameter: " + wrong.sentence)
    except BaseException as error:
        return _failure(run, error)
    return _ended(run, state)


def _failure(run: Run, error: BaseException) -> RunEnded:
    if is_interruption(error):
        by_code = not isinstance(error, KeyboardInterrupt)  # which may come from outside; a coroutine cancels itself
        reason = str(error) or ("The flow ended with %s." % type(error).__name__ if by_code else "The run was stopped.")
        return RunEnded(run.clock(), CANCELLED, reason=reason, by_code=by_code)
    return RunEnded(run.clock(), FAILED, error=error_text(error), traceback=traceback_text(error))


def _ended(run: Run, state: State) -> RunEnded:
    """The outcome by the flow's final state: what it returned, or the exception that it raised."""
    outcome, message = _OUTCOMES.get(state.type, FAILED), state.message or ""
    if outcome == COMPLETED:
        return RunEnded(run.clock(), outcome, reason=message, result="" if state.data is None else preview(state.data))
    error = states.exception_of(state) if state.type in _WITH_EXCEPTION else None
    told = outcomes.traceback_of(error) if error is state.data or (error and error.__traceback__) else ""
    reason = "timed_out: %s" % error if isinstance(error, TimedOut) else "" if error is state.data else message
    return RunEnded(
        run.clock(), outcome, reason=reason, error=error_text(error) if error else outcomes.error_of(state),
        traceback=told, by_code=True,
    )  # fmt: skip


def _configuration(flow: Flow[Any, Any], name: str) -> Configuration:
    try:
        return flow.configuration(name)
    except KeyError:
        near = get_close_matches(name, flow.configurations, 1)
        known = "did you mean %r?" % near[0] if near else "there is %s" % (", ".join(flow.configurations) or "none")
        raise BadParameter("configuration", "The flow has no configuration %r: %s" % (name, known)) from None


def _log_level(configuration: Configuration) -> int:
    """``log_level`` of the configuration, else the root logger's if that is not Python's default, else INFO."""
    wanted = configuration.get("log_level")
    level = logging.getLevelName(wanted.upper()) if isinstance(wanted, str) else wanted
    if isinstance(level, int) and not isinstance(level, bool):
        return level
    root = logging.getLogger().level
    return root if root not in (logging.NOTSET, logging.WARNING) else logging.INFO
