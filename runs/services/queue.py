"""The memory of runs that this process has just queued, so that dispatching them reads no row again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from runs.models import Run
from runs.rules.states import RunState

REMEMBERED = 2_000

_queue: OrderedDict[UUID, Run] = OrderedDict()


def remember(runs: Sequence[Run]) -> None:
    """These runs were just written: they need not be read again when they are offered, at best in the same transaction.

    A run that resumes another one is: what it resumes may be gone by then.
    """
    _queue.update((run.pk, run) for run in runs if run.state == RunState.PENDING and run.resume_of_id is None)
    while len(_queue) > REMEMBERED:
        _queue.popitem(last=False)


def take(keys: Iterable[UUID]) -> dict[UUID, Run]:
    """Remove the remembered runs among ``keys`` from the memory and return them."""
    return {key: _queue.pop(key) for key in keys if key in _queue}


def put_back(runs: Mapping[UUID, Run]) -> None:
    """Remember runs again that ``take`` returned and nobody was offered."""
    _queue.update(runs)


def forget_all() -> None:
    """For tests, whose databases come and go."""
    _queue.clear()
