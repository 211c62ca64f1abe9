"""What a program is expected to say, and where it stops so that the suite can kill the server there."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

_GATES = os.environ.get("MODES_GATES")


class Program(NamedTuple):
    """A flow, the parameters that it is run with, and its one expectation.

    ``tasks``: (name, state, tries) in the order of the calls. ``lines``: ``[task] LEVEL text``, of which the task is
    left out outside of tasks, and the level if it is INFO; of several lines only the first. ``error`` and ``result``
    as people see them. ``refused``: the one sentence that says no before the flow begins. ``plain``: whether a plain
    call of the function, which takes Python values, comes to the same.
    """

    flow: Any
    parameters: Dict[str, Any]
    outcome: str
    tasks: List[Tuple[str, str, int]]
    lines: List[str]
    result: str
    error: str
    reason: str
    refused: str
    configuration: str
    plain: bool


PROGRAMS: Dict[str, Program] = {}


def says(
    *lines: str,
    outcome: str = "",
    tasks: Any = (),
    result: str = "",
    error: str = "",
    reason: str = "",
    given: Optional[Dict[str, Any]] = None,
    refused: str = "",
    configuration: str = "",
    plain: bool = True,
) -> Callable[[Any], Any]:
    """Above ``@flow``: what this program is to come to, in every mode; COMPLETED, or FAILED with an ``error``."""

    def note(flow: Any) -> Any:
        came_to = outcome or ("FAILED" if error else "COMPLETED")
        PROGRAMS[flow.name] = Program(
            flow,
            given or {},
            came_to,
            [_task(one) for one in tasks],
            list(lines),
            result,
            error,
            reason or error,
            refused,
            configuration,
            plain,
        )
        return flow

    return note


def _task(said: Any) -> Tuple[str, str, int]:
    """``"name"``, ``("name", "FAILED")`` or ``("name", "FAILED", 3)``."""
    name, state, tries = (said, "COMPLETED", 1) if isinstance(said, str) else (*said, 1)[:3]
    return name, state, tries


def halt(number: int) -> None:
    """Here the suite may kill the server: say so and wait until the program may go on; twice in each program."""
    if _GATES is None:
        return
    from perfect_client import runtime

    name = runtime.flow_run.flow_name or ""
    Path(_GATES, "%s-%d" % (name, number)).touch()
    while not Path(_GATES, "go-%d" % number).exists():
        time.sleep(0.02)
