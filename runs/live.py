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
ANSWERS = "answers"  # a question of a run's code has its answer
HOLDS = "holds"  # a running run is to stand still, or to go on
RATES = "rates"  # something waits until the rate of a limit lets it pass
OVERVIEW = "overview"
WORKERS = "workers"
SCHEDULES = "schedules"

Listener = Callable[[frozenset[str]], None]

logger = logging.getLogger(__name__)
_listeners: list[Listener] = []
_early: list[Listener] = []


def run_topic(run_id: object) -> str:
    return f"run:{run_id}"


def log_topic(run_id: object) -> str:
    return f"run:{run_id}:log"


def flow_topic(slug: str) -> str:
    return f"flow:{slug}"


def touch(*topics: str) -> None:
    """Ring for ``topics`` once the current transaction is on disk (at once if there is none)."""
    changed = frozenset(topics)
    _call(_early, changed)
    transaction.on_commit(partial(ring, changed), robust=True)


def ring(topics: frozenset[str]) -> None:
    """Call every listener; one that fails is logged and harms no other."""
    _call(_listeners, topics)


def _call(listeners: list[Listener], topics: frozenset[str]) -> None:
    for listener in tuple(listeners):
        try:
            listener(topics)
        except Exception:
            logger.exception("a listener failed on %s", ", ".join(sorted(topics)))


def listen(callback: Listener, *, early: bool = False) -> Callable[[], None]:
    """Have ``callback`` called, from whatever thread committed, after each change. Returns how to stop.

    ``early``: called within the transaction that makes the change, so that what follows from it can join in.
    """
    listeners = _early if early else _listeners
    listeners.append(callback)
    return lambda: listeners.remove(callback) if callback in listeners else None
