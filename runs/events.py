"""The doorbell: after a commit, tell who listens in this process, and the other processes, which topics changed.

A bell carries no data and may be lost without harm: who hears it reads the rows, and a slow sweep finds what every
bell missed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from django.db import connection, transaction

WORK = "work"  # a run waits
CANCELS = "cancels"  # a running run is to be stopped
ANSWERS = "answers"  # a question of a run's code has its answer
HOLDS = "holds"  # a running run is to stand still, or to go on
RATES = "rates"  # something waits until the rate of a limit lets it pass
OVERVIEW = "overview"
WORKERS = "workers"
SCHEDULES = "schedules"
EVERYTHING = frozenset({WORK, CANCELS, ANSWERS, HOLDS, RATES, OVERVIEW, WORKERS, SCHEDULES})
URGENT = EVERYTHING - {OVERVIEW, WORKERS}  # somebody waits; the others only change what pages show

CHANNEL = "perfect"  # of PostgreSQL's notifications
MOST_BYTES = 7_900  # PostgreSQL takes less than 8,000

Listener = Callable[[frozenset[str]], None]

logger = logging.getLogger(__name__)
_listeners: list[Listener] = []
_early: list[Listener] = []
_notifier: Listener | None = None


def run_topic(run_id: object) -> str:
    return f"run:{run_id}"


def log_topic(run_id: object) -> str:
    return f"run:{run_id}:log"


def flow_topic(slug: str) -> str:
    return f"flow:{slug}"


def joined_topic(worker: object, boot: str) -> str:
    """A process of the worker has connected, or is dead, so no connection of it to another server is of use."""
    return f"joined:{worker}:{boot}"


def publish(*topics: str) -> None:
    """Ring for ``topics`` once the current transaction is on disk (at once if there is none)."""
    changed = frozenset(topics)
    _call(_early, changed)
    transaction.on_commit(lambda: _committed(changed), robust=True)  # Django asks for its __qualname__ when it fails


def deliver(topics: frozenset[str]) -> None:
    """Call every listener of this process; one that fails is logged and harms no other."""
    _call(_listeners, topics)


def _committed(topics: frozenset[str]) -> None:
    deliver(topics)
    (_notifier or _tell_at_once)(topics)


def _tell_at_once(topics: frozenset[str]) -> None:
    """From a command, which has no thread for this."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, encode(topics)])


def set_notifier(tell: Listener | None) -> None:
    """From here on ``tell`` brings what this process has committed to the others; None: a statement does, at once."""
    global _notifier
    _notifier = tell


def encode(topics: Iterable[str]) -> str:
    """What a notification says: the topics, or nothing if they are too many, which means all."""
    text = " ".join(topics)
    return text if len(text.encode()) <= MOST_BYTES else ""


def decode(text: str) -> frozenset[str]:
    return frozenset(text.split()) or EVERYTHING


def _call(listeners: list[Listener], topics: frozenset[str]) -> None:
    for listener in tuple(listeners):
        try:
            listener(topics)
        except Exception:
            logger.exception("a listener failed on %s", ", ".join(sorted(topics)))


def subscribe(callback: Listener, *, early: bool = False) -> Callable[[], None]:
    """Have ``callback`` called, from whatever thread committed, after each change. Returns how to stop.

    ``early``: called within the transaction that makes the change, so that what follows from it can join in.
    """
    listeners = _early if early else _listeners
    listeners.append(callback)
    return lambda: listeners.remove(callback) if callback in listeners else None
