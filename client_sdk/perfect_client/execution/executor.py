"""Run one flow in this process and say what happens, as facts, to ``emit``."""

from __future__ import annotations

import logging
import os
import time
from difflib import get_close_matches
from functools import partial
from types import CoroutineType
from typing import Any, Callable, Optional

from perfect_client.analysis import planner
from perfect_client.caching import caching, lineage
from perfect_client.core import context, middleware, outcomes
from perfect_client.core.context import Configuration
from perfect_client.core.run_logger import get_run_logger
from perfect_client.core.runs import Emit, Run
from perfect_client.engine import flow_calls
from perfect_client.engine.decorators import Flow
from perfect_client.errors import BadParameter
from perfect_client.journal.unfinished_lines import OpenLines
from perfect_client.output import capture
from perfect_client.schema import signature
from perfect_client.wire.messages import OfferRun, RunEnded, RunStarted

COMPLETED, FAILED, CANCELLED = "COMPLETED", "FAILED", "CANCELLED"


def execute(
    flow: Flow[Any, Any],
    order: OfferRun,
    emit: Emit,
    *,
    clock: Callable[[], float] = time.time,
    guard: Any = None,
    answers: Optional[int] = None,
    open_lines: Optional[OpenLines] = None,
) -> str:
    """Execute the flow as ordered; returns the outcome: COMPLETED, FAILED or CANCELLED.

    ``guard`` is told of deadlines (``watch(key, seconds, sentence)``, ``rest(key)``) and ends this process when one
    of them is missed by far. ``answers`` is the pipe on which the server's answers to the code's questions come in;
    without it the questions are answered here. ``open_lines`` is where unfinished lines outlive this process.

    The first fact is ``RunStarted``, the last ``RunEnded``. No exception of the flow leaves this function, only those
    of ``emit``. Raises ``RuntimeError`` when this process executes a run already.
    """
    run = Run(
        id=order.run,
        flow_name=flow.name,
        emit=emit,
        clock=clock,
        attempt=order.attempt,
        tags=tuple(dict.fromkeys((*flow.tags, *order.tags))),
        keys=planner.plan(flow).keys,
        flow=flow,
        guard=guard,
        keys_of=planner.keys_of,
        scheduled_for=order.scheduled_for,
    )
    run.answers = answers
    if open_lines is not None:
        run.line_time = partial(open_lines.moment, clock)
    context.activate(run)
    middleware.keeper = caching.kept_for if lineage.current is not None else None
    try:
        return _execute(run, flow, order, open_lines)
    finally:
        middleware.keeper = None
        run.closed = True
        context.deactivate()


def _execute(run: Run, flow: Flow[Any, Any], order: OfferRun, open_lines: Optional[OpenLines]) -> str:
    ended: Optional[RunEnded] = None
    try:
        run.began = run.clock()
        run.tell(RunStarted(run.began, os.getpid()))
        ended = _outcome(run, flow, order, open_lines)
    except KeyboardInterrupt as stopped:  # it came while no user code was running
        ended = ended or outcomes.failed_outcome(run, stopped)
    open_because = "The run was stopped." if ended.outcome == CANCELLED else flow_calls.LEFT_OPEN
    while True:
        try:
            run.end_open(open_because)
            run.tell(ended)
            return ended.outcome
        except KeyboardInterrupt:
            pass  # too late: the outcome is known, and must be told


def _outcome(run: Run, flow: Flow[Any, Any], order: OfferRun, open_lines: Optional[OpenLines]) -> RunEnded:
    try:
        run.configuration = _configuration(flow, order.configuration)
        with capture.Capture(run, _log_level(run.configuration), open_lines):
            run.parameters = signature.bind(flow.fn, order.parameters, run.configuration)
            args, kwargs = signature.split(flow.fn, run.parameters)
            state = flow_calls.run_to_state(run, tuple(args), kwargs)
            _warn_of_unawaited(state.data)
    except BadParameter as wrong:
        run.log_failure(None, None, wrong.sentence, "")
        return RunEnded(run.clock(), FAILED, reason=wrong.sentence, error="BadParameter: " + wrong.sentence)
    except BaseException as error:
        return outcomes.failed_outcome(run, error)
    return outcomes.outcome_of_state(run, state)


def _warn_of_unawaited(result: Any) -> None:
    """A flow that returns what calling a coroutine task gave it has not run that task."""
    if type(result) is CoroutineType and result.cr_frame is not None and result.cr_await is None:
        get_run_logger().warning("%r was called and never awaited, so it did not run", result.__qualname__)
        result.close()


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
