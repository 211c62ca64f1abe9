"""The doorbell: after a commit, tell who listens in this process which topics changed.

A bell carries no data and may be lost without harm: who hears it reads the rows, and a slow sweep finds what every
bell missed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from django.db import transaction

WORK = "work"  # a run waits
CANCELS = "cancels"  # a running run is to be stopped
OVERVIEW = "overview"
WORKERS = "workers"
SCHEDULES = "schedules"

Listener = Callable[[frozenset[str]], None]

logger = logging.getLogger(__name__)
_listeners: list[Listener] = []


def run_topic(run_id: object) -> str:
    return f"run:{run_id}"


def log_topic(run_id: object) -> str:
    return f"run:{run_id}:log"


def flow_topic(slug: str) -> str:
    return f"flow:{slug}"


def touch(*topics: str) -> None:
    """Ring for ``topics`` once the current transaction is on disk (at once if there is none)."""
    transaction.on_commit(partial(ring, frozenset(topics)), robust=True)


def ring(topics: frozenset[str]) -> None:
    """Call every listener; one that fails is logged and harms no other."""
    for listener in tuple(_listeners):
        try:
            listener(topics)
        except Exception:
            logger.exception("a listener failed on %s", ", ".join(sorted(topics)))


def listen(callback: Listener) -> Callable[[], None]:
    """Have ``callback`` called, from whatever thread committed, after each change. Returns how to stop."""
    _listeners.append(callback)
    return lambda: _listeners.remove(callback) if callback in _listeners else None
