"""Call the hooks of a flow whose run's process is gone, in a small process of their own; and know why a run is to stop.

A run's process calls its hooks itself where it can. Where it was killed or died, the supervisor starts another one
(``aftermath``) that only calls those that hear of this end.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Any, Dict, Optional

from perfect_client import capture, context, hooks, journal, procs, protocol, signature
from perfect_client.recorder import Run
from perfect_client.states import State
from perfect_client.steps import drive

WARNING = 30


class Witness:
    """What a run's process knows of its own end. ``files`` is the path of the run's files without their endings, and
    ``stop`` says whether the process was told to stop (``seen``)."""

    def __init__(self, files: str, stop: Any) -> None:
        self._files, self._stop = files, stop

    def crash_reason(self) -> Optional[str]:
        """Why the run was told to stop, in a sentence; None when somebody has cancelled it, or nobody told it."""
        if not self._stop.seen:
            return None
        entry = journal.load(Path(self._files + ".json"))
        if entry is not None and entry.cancel is not None:
            return None
        return (entry.stop if entry is not None else None) or procs.WITHHELD[procs.EXIT_STOPPED]

    def begins(self, state: State) -> None:
        """The flow's hooks are about to hear of this end: whatever becomes of them, they are not called again."""
        with contextlib.suppress(OSError):
            Path(self._files + ".hooks").write_text(state.type.value)


def call(flow: Any, order: protocol.OfferRun, ended: Dict[str, Any], guard: Any) -> None:
    """Call the hooks of ``flow`` that hear of how its run ended: ``{"state", "name", "reason"}``.

    They get what hooks get in the run's own process: the flow, the run and its state. What they print and log goes to
    the standard streams, which are the run's.
    """
    state = State(ended["state"], ended["name"] or None, ended["reason"])
    if not hooks.hooks_for(flow, state):
        return
    run = Run(
        id=order.run, flow_name=flow.name, emit=_write_lines, attempt=order.attempt, flow=flow, guard=guard,
        tags=tuple(dict.fromkeys((*flow.tags, *order.tags))), scheduled_for=order.scheduled_for,
    )  # fmt: skip
    run.began = float(ended["began"])
    context.activate(run)
    try:
        _describe(run, flow, order)
        with capture.Capture(run, logging.INFO):
            drive(hooks.told(flow, run, state))
    finally:
        run.closed = True
        context.deactivate()


def _describe(run: Run, flow: Any, order: protocol.OfferRun) -> None:
    """What hooks may ask of the run. Reading its parameters may be what had killed it: they stay as they were given."""
    run.parameters = dict(order.parameters)
    with contextlib.suppress(Exception):
        run.configuration = flow.configuration(order.configuration)
        run.parameters = signature.bind(flow.fn, order.parameters, run.configuration)
    with contextlib.suppress(Exception):
        if flow.flow_run_name:
            run.given_name = hooks.name_from(flow.flow_run_name, lambda: dict(run.parameters))


def _write_lines(fact: Any) -> None:
    """The run has ended: of all that can be told only lines still count."""
    if isinstance(fact, protocol.Logged):
        text = fact.message.encode("utf-8", "backslashreplace") + b"\n"
        with contextlib.suppress(OSError):
            os.write(2 if fact.level >= WARNING else 1, text)
