"""Run one flow in this process and say what happens, as facts, to ``emit``."""

from __future__ import annotations

import logging
import os
import time
from difflib import get_close_matches
from typing import Any, Callable, Optional

from perfect_client import caching, capture, context, discovery, parts, signature
from perfect_client.context import Configuration
from perfect_client.decorators import Flow
from perfect_client.errors import BadParameter
from perfect_client.failures import error_text, is_interruption, preview, traceback_text
from perfect_client.protocol import OfferRun, RunEnded, RunStarted
from perfect_client.recorder import Emit, Run

COMPLETED, FAILED, CANCELLED = "COMPLETED", "FAILED", "CANCELLED"

parts.FACTORIES.append(caching.part_for)


def execute(flow: Flow[Any, Any], order: OfferRun, emit: Emit, *, clock: Callable[[], float] = time.time) -> str:
    """Execute the flow as ordered; returns the outcome: COMPLETED, FAILED or CANCELLED.

    The first fact is ``RunStarted``, the last ``RunEnded``. No exception of the flow leaves this function, only those
    of ``emit``. Raises ``RuntimeError`` when this process executes a run already.
    """
    run = Run(
        id=order.run, flow_name=flow.name, emit=emit, clock=clock, attempt=order.attempt,
        tags=tuple(dict.fromkeys((*flow.tags, *order.tags))), keys=discovery.plan(flow).keys,
    )  # fmt: skip
    context.activate(run)
    try:
        return _execute(run, flow, order)
    finally:
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
            value = _call(flow, run)
    except BadParameter as wrong:
        return RunEnded(run.clock(), FAILED, reason=wrong.sentence, error="BadParameter: " + wrong.sentence)
    except BaseException as error:
        return _failure(run, error)
    return RunEnded(run.clock(), COMPLETED, result="" if value is None else preview(value))


def _failure(run: Run, error: BaseException) -> RunEnded:
    if is_interruption(error):
        return RunEnded(run.clock(), CANCELLED, reason=str(error) or "The run was stopped.")
    return RunEnded(run.clock(), FAILED, error=error_text(error), traceback=traceback_text(error))


def _call(flow: Flow[Any, Any], run: Run) -> Any:
    args, kwargs = signature.split(flow.fn, run.parameters)
    value = flow.fn(*args, **kwargs)
    if not flow.is_async:
        return value
    import asyncio  # heavy, and most flows are not coroutines

    return asyncio.run(value)


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
