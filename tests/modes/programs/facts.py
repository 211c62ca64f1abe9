"""What a run said, as the facts of its engine have it: the same picture that the suite makes of the API's answers."""

from __future__ import annotations

import logging
from typing import Any, Dict, Iterable, List, Optional

from perfect_client.wire import messages

Told = Dict[str, Any]


def line(level: str, task: Optional[str], message: str) -> str:
    """``[task] LEVEL text``: the task is left out outside of tasks, the level if it is INFO."""
    first = message.split("\n", 1)[0]
    return ("[%s] " % task if task else "") + (level + " " if level != "INFO" else "") + first


def told(facts: Iterable[Any]) -> Told:
    """``tasks`` in the order of their calls, each with ``key``, ``name``, ``call``, ``state``, ``tries``, …"""
    tasks: Dict[int, Dict[str, Any]] = {}
    lines: List[str] = []
    said: Told = {"tasks": [], "lines": lines}
    for fact in facts:
        if isinstance(fact, messages.TaskStarted):
            tasks[fact.task] = {
                "key": fact.key,
                "name": fact.name,
                "call": fact.call,
                "state": "RUNNING",
                "tries": 1,
                "error": "",
                "note": "",
            }
        elif isinstance(fact, messages.TaskRestarted):
            tasks[fact.task]["tries"] = fact.tries
        elif isinstance(fact, messages.TaskProgressed):
            tasks[fact.task]["note"] = fact.text
        elif isinstance(fact, messages.TaskEnded):
            tasks[fact.task].update(state=fact.outcome, error=fact.error)
        elif isinstance(fact, messages.Logged):
            task = tasks[fact.task]["name"] if fact.task is not None else None
            lines.append(line(logging.getLevelName(fact.level), task, fact.message))
        elif isinstance(fact, messages.RunEnded):
            said.update(_ended(fact))
    said["tasks"] = [tasks[number] for number in sorted(tasks)]
    return said


def _ended(fact: messages.RunEnded) -> Told:
    if fact.outcome == "CANCELLED" and not fact.by_code:  # nobody asked for it: a worker says what ended the code
        interrupted = "the flow ended with KeyboardInterrupt"
        return {"outcome": "CRASHED", "reason": interrupted, "error": interrupted, "result": ""}
    reason = fact.reason or fact.error
    return {"outcome": fact.outcome, "reason": reason, "error": fact.error, "result": fact.result}
