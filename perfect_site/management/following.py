"""Watch a run from a shell, by its rows or through an API: its log as it comes, its progress, its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from django.core.management.base import OutputWrapper
from django.utils import timezone

from perfect_site.api import pagination
from runs.models import Run
from runs.rules.states import FINAL, SHOWN, RunState
from runs.services.queries import run_json

Moment = tuple[dict[str, Any], list[Any]]
Look = Callable[[str, int | None], Moment]

LOOK_EVERY = 0.1  # seconds
LAST_LOOKS = 3
BAR_WIDTH = 24
PAGE = 1_000
CLEAR = "\r\x1b[2K"  # to the line's start, and erase it (ECMA-48 EL)

EXIT_CODES = {RunState.COMPLETED: 0, RunState.CANCELLED: 3, RunState.SKIPPED: 3}
FAILED_EXIT = 1


def exit_code(run: dict[str, Any]) -> int:
    """0 completed, 3 cancelled or skipped, 1 failed or crashed."""
    return EXIT_CODES.get(RunState(run["state"]), FAILED_EXIT)


def look(run_id: str, after: int | None) -> Moment:
    """The run as it stands in the database here, and its log lines after the number ``after``; None: no lines."""
    run = Run.objects.select_related("flow", "worker").get(pk=run_id)
    lines: list[Any] = []
    while after is not None and (fresh := pagination.log_lines(run, after=after, limit=PAGE)[0]):
        lines += fresh
        after = fresh[-1]["seq"]
    return run_json(run, timezone.now()), lines


def moments(
    run_id: str,
    look: Look = look,
    *,
    log: bool,
    every: float = LOOK_EVERY,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[Moment]:
    """``(run's JSON, new log lines)`` again and again until the run is over.

    Output is a stream of its own and may come a moment after the outcome: with ``log`` the end is looked at again.
    """
    after, looks_left = 0, LAST_LOOKS if log else 0
    while True:
        run, lines = look(run_id, after if log else None)
        after = lines[-1]["seq"] if lines else after
        yield run, lines
        if run["state"] in FINAL:
            if not looks_left:
                return
            looks_left -= 1
        pause(every)


def plain(text: str) -> str:
    """Not every line of the error stream is an error: no red."""
    return text


class Screen:
    """A log with a progress line under it on a terminal; elsewhere the log alone, and each change of state."""

    def __init__(self, out: OutputWrapper, err: OutputWrapper) -> None:
        self._out, self._err = out, err
        self._live = err.isatty()
        self._state = ""

    def show(self, run: dict[str, Any], lines: list[dict[str, Any]]) -> None:
        if lines:
            self._clear()
            for line in lines:
                self._out.write(log_text(line))
            self._out.flush()
        if self._live:
            self._err.write(CLEAR + bar_text(run), plain, ending="")
            self._err.flush()
        elif run["state"] != self._state:
            reason = f": {run['state_reason']}" if run["state_reason"] else ""
            self._err.write(f"{SHOWN[run['state']][1]}{reason}", plain)
            self._err.flush()
        self._state = run["state"]

    def close(self) -> None:
        self._clear()

    def _clear(self) -> None:
        if self._live:
            self._err.write(CLEAR, plain, ending="")


def log_text(line: dict[str, Any]) -> str:
    task = f" {line['task']}:" if line["task"] else ""
    return f"{line['time'][11:23]} {line['level']:7}{task} {line['message']}"


def bar_text(run: dict[str, Any]) -> str:
    """``Running ████████░░░░ 41 % · about 12 s left``, or why it waits."""
    glyph, word = SHOWN[run["state"]]
    full = int(run["progress"] / 100 * BAR_WIDTH)
    left = f" · about {run['eta_seconds']:.0f} s left" if run["eta_seconds"] is not None else ""
    why = f" · {run['state_reason']}" if run["state_reason"] and run["state"] != RunState.RUNNING else ""
    return f"{glyph} {word} {'█' * full}{'░' * (BAR_WIDTH - full)} {run['progress']:.0f} %{left}{why}"[:160]
