"""Run one program in this fresh process, with no server: ``direct.py engine|plain NAME``; prints what it said as JSON.

``engine``: as a run's process would, with a recorder for its facts. ``plain``: as the function that it stays.
"""

from __future__ import annotations

import asyncio
import inspect
import io
import json
import logging
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, List

sys.path.insert(0, str(Path(__file__).parent / "programs"))

import failing  # noqa: F401 - each notes its programs
import sharing  # noqa: F401
import telling  # noqa: F401
import together  # noqa: F401
import values  # noqa: F401
from facts import Told, line, told  # noqa: F401 - the suite takes them from here
from perfect_client.core import previews, states
from perfect_client.execution import executor
from perfect_client.schema.secrets import fact_without_secrets
from perfect_client.wire import messages
from saying import PROGRAMS, Program


def engine_run(program: Program) -> Told:
    order = messages.OfferRun(
        fence=1,
        run="0123456789abcdef",
        flow=program.flow.name,
        parameters=program.parameters,
        configuration=program.configuration,
    )
    facts: List[Any] = []
    executor.execute(program.flow, order, lambda fact: facts.append(fact_without_secrets(fact)))
    return told(facts)


class _Messages(logging.Handler):
    """Shows of each record only its message, as a line of a run does in its first line."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage())


def plain_call(program: Program) -> Told:
    """Of a plain call only what its caller and the terminal see: outcome, result or exception, lines."""
    logging.getLogger().addHandler(_Messages())
    terminal = io.StringIO()
    with redirect_stdout(terminal), redirect_stderr(terminal):
        state = program.flow(**program.parameters, return_state=True)
        if inspect.iscoroutine(state):
            state = asyncio.run(state)
    outcome = state.type.value if state.is_completed() or state.is_cancelled() else "FAILED"
    error = "" if state.is_completed() else previews.error_text(states.exception_of(state))
    result = "" if error or state.data is None else previews.preview(state.data)
    lines = [messages.clean_text(text) for text in terminal.getvalue().splitlines()]
    return {"outcome": outcome, "error": error, "result": result, "lines": lines}


if __name__ == "__main__":
    how, name = sys.argv[1:]
    said = (engine_run if how == "engine" else plain_call)(PROGRAMS[name])
    sys.__stdout__.write(json.dumps(said) + "\n")
