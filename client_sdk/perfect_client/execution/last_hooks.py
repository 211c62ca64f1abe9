"""Call the hooks of a flow whose run's process is gone, in a small process of their own; and know why a run is to stop.

A run's process calls its hooks itself where it can. Where it was killed or died, the supervisor starts another one
(``crash_hooks``) that only calls those that hear of this end.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from perfect_client.core import context
from perfect_client.core.runs import Run
from perfect_client.core.states import State
from perfect_client.engine import hooks
from perfect_client.engine.steps import drive
from perfect_client.journal import journal, spool
from perfect_client.output import capture
from perfect_client.schema import signature
from perfect_client.system import procs
from perfect_client.wire import messages

WARNING = 30
_ABOUT_SUB_RUNS = (b'{"type":"SubRunStarted"', b'{"type":"TaskEnded"')  # how encode_fact begins them


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

    def begins(self, run: str, state: State) -> None:
        """A flow's hooks are about to hear of this end: whatever becomes of them, they are not called again."""
        with contextlib.suppress(OSError), open(self._files + ".hooks", "a") as file:
            file.write(journal.hook_state(run, state.type.value) + "\n")


def call_hooks(
    find: Callable[[str], Any], order: messages.OfferRun, files: str, ended: Dict[str, Any], guard: Any
) -> None:
    """Call the hooks that hear of how a run ended: ``{"state", "name", "reason", "began"}``; of the sub-flows that it
    was in first, as far as ``find`` knows them. Raises ``LookupError`` when it does not know the run's own flow.

    They get what hooks get in the run's own process: the flow, the run and its state. What they print and log goes to
    the standard streams, which are the run's.
    """
    told = journal.read_hook_states(Path(files + ".hooks"))
    state = State(ended["state"], ended["name"] or None, ended["reason"])
    for sub in reversed(open_sub_runs(files + ".facts")):
        if journal.hook_state(sub.run, ended["state"]) not in told:
            with contextlib.suppress(LookupError):
                _call(find(sub.flow), _order_of(sub, order), state, sub.time, guard)
    _call(find(order.flow), order, state, float(ended["began"]), guard)


def open_sub_runs(path: str) -> List[messages.SubRunStarted]:
    """The sub-runs that had not ended, by what stands in the spool; callers before the called."""
    found: Dict[int, messages.SubRunStarted] = {}
    with contextlib.closing(spool.Reader(Path(path))) as reader:
        for number in range(1, reader.refresh() + 1):
            (record,) = reader.read(number, 1, 1) or (b"",)
            if record.startswith(_ABOUT_SUB_RUNS):
                fact = messages.decode(record)
                if isinstance(fact, messages.SubRunStarted):
                    found[fact.task] = fact
                else:
                    found.pop(fact.task, None)
    return list(found.values())


def _order_of(sub: messages.SubRunStarted, order: messages.OfferRun) -> messages.OfferRun:
    """A sub-run as if it had been ordered."""
    return replace(
        order, run=sub.run, flow=sub.flow, parameters=sub.parameters, configuration=sub.configuration, tags=sub.tags
    )


def _call(flow: Any, order: messages.OfferRun, state: State, began: float, guard: Any) -> None:
    if not hooks.hooks_for(flow, state):
        return
    run = Run(
        id=order.run,
        flow_name=flow.name,
        emit=_write_lines,
        attempt=order.attempt,
        flow=flow,
        guard=guard,
        tags=tuple(dict.fromkeys((*flow.tags, *order.tags))),
        scheduled_for=order.scheduled_for,
    )
    run.began = began
    context.activate(run)
    try:
        _describe(run, flow, order)
        with capture.Capture(run, logging.INFO):
            drive(hooks.run_hooks(flow, run, state))
    finally:
        run.closed = True
        context.deactivate()


def _describe(run: Run, flow: Any, order: messages.OfferRun) -> None:
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
    if isinstance(fact, messages.Logged):
        text = fact.message.encode("utf-8", "backslashreplace") + b"\n"
        with contextlib.suppress(OSError):
            os.write(2 if fact.level >= WARNING else 1, text)
