"""Interpreters that have imported a flow's file ahead of its next run, while the worker rests."""

from __future__ import annotations

import contextlib
from typing import Callable, Dict, Iterable, List, Optional, Sequence, Tuple

from perfect_client.catalogue import Entry
from perfect_client.loop import Loop, Timer
from perfect_client.sources import Unit
from perfect_client.starters import Fresh, Place, Reserve, Starter

REFILL_S = 0.05  # without a start: a run that begins shall have the processor
MAX_UNITS = 2  # of which an interpreter is kept: those that ran last
BUSY_S = 60.0  # so long after a start that found none, two are kept
_Key = Tuple[Unit, str]


class Reserves:
    """``end`` is called with an interpreter that was told to end."""

    def __init__(
        self, loop: Loop, place: Place, folders: Sequence[str], age_s: float, starters: Dict[int, Starter],
        end: Callable[[Starter], None],
    ) -> None:  # fmt: skip
        self._loop, self._place, self._folders, self._age_s = loop, place, list(folders), age_s
        self._starters, self._end = starters, end
        self._ready: Dict[_Key, List[Fresh]] = {}
        self._wanted: List[_Key] = []  # the one that ran last is the first
        self._missed_at: Dict[_Key, float] = {}
        self._timer: Optional[Timer] = None

    def renew(self, entries: Iterable[Entry]) -> None:
        """The code is another: what was imported ahead is of no use."""
        self.dismiss()
        keys = [_key(entry) for entry in entries if not entry.is_forked]
        known = [key for key in self._wanted if key in keys]
        self._wanted = (known + [key for key in dict.fromkeys(keys) if key not in known])[: max(MAX_UNITS, len(known))]

    def take(self, entry: Entry) -> Optional[Reserve]:
        """An interpreter that has imported the flow's file, or is about to; None where there is none."""
        key = _key(entry)
        self._wanted = [key, *(other for other in self._wanted if other != key)]
        waiting = self._ready.get(key, [])
        while waiting:
            fresh = waiting.pop(0)
            if fresh.alive and not self._is_too_old(fresh):
                return fresh.reserve
            self._dismiss(fresh)
        self._missed_at[key] = self._loop.now
        return None

    def make(self, entry: Entry, output: Optional[int] = None) -> Fresh:
        """Another one; what its imports print goes to ``output``. Raises ``OSError``."""
        fresh = Fresh(self._place, entry.unit, entry.sources, self._folders, output)
        self._starters[fresh.pid] = fresh
        return fresh

    def look(self) -> None:
        """Replace those that have become too old."""
        for fresh in [one for waiting in self._ready.values() for one in waiting]:
            if self._is_too_old(fresh):
                self.forget(fresh)
                self._dismiss(fresh)
                self.refill_soon()

    def _is_too_old(self, fresh: Fresh) -> bool:
        return fresh.begun.is_older(self._age_s)

    def refill_soon(self) -> None:
        """Import ahead as soon as nothing has started for a moment."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.after(REFILL_S, self._refill)

    def _refill(self) -> None:
        self._timer = None
        for key in self._wanted[:MAX_UNITS]:
            waiting = self._ready.setdefault(key, [])
            busy = self._loop.now - self._missed_at.get(key, -BUSY_S) < BUSY_S
            while len(waiting) < (2 if busy else 1):
                fresh = Fresh(self._place, key[0], key[1], self._folders)
                self._starters[fresh.pid] = fresh
                waiting.append(fresh)

    def forget(self, starter: Starter) -> None:
        """It is dead, or of no use."""
        for waiting in self._ready.values():
            waiting[:] = [one for one in waiting if one is not starter]

    def dismiss(self) -> None:
        """End all that wait."""
        for waiting in self._ready.values():
            for fresh in waiting:
                self._dismiss(fresh)
        self._ready.clear()

    def _dismiss(self, fresh: Fresh) -> None:
        fresh.retired = True
        with contextlib.suppress(OSError):
            fresh.channel.close()
        self._end(fresh)


def _key(entry: Entry) -> _Key:
    return entry.unit, entry.sources
