"""Processes that have imported one flow's file ahead of its next run, while the worker rests.

They are forks of a *bare* zygote, a process that has imported the SDK and nothing of the user: as good as an
interpreter of their own, and there in a tenth of the time.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
from collections import Counter
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

from perfect_client.loading.sources import Unit
from perfect_client.system import procs
from perfect_client.system.channel import Channel, Message
from perfect_client.system.loop import Loop, Timer
from perfect_client.worker.catalogue import Entry
from perfect_client.worker.zygotes import Moment, Reserve, Zygote, moment

RETIRE_S = 5.0
REFILL_S = 0.05  # without a start: a run that begins shall have the processor
MAX_UNITS = 2  # of which a process is kept ready: those that ran last
BUSY_S = 60.0  # so long after a start that found none, two are kept
Key = Tuple[Unit, str]


class _Ordered:
    """A process that was asked for, until its end. ``lifeline`` ends it while it imports."""

    def __init__(self, key: Key, channel: Channel, lifeline: int) -> None:
        self.key, self.channel, self.lifeline = key, channel, lifeline
        self.begun: Moment = moment()
        self.pid = 0
        self.taken = False


class StandbyPool:
    """``bare`` gives the process to fork, and starts it first where it must. ``folders`` gives the worker's,
    which may be links."""

    def __init__(self, loop: Loop, folders: Callable[[], List[str]], age_s: float, bare: Callable[[], Zygote]) -> None:
        self._loop, self._folders, self._age_s, self._bare = loop, folders, age_s, bare
        self._all: Dict[int, _Ordered] = {}  # by number
        self._ready: Dict[Key, List[Tuple[_Ordered, Reserve]]] = {}
        self._wanted: List[Key] = []  # the one that ran last is the first
        self._missed_at: Dict[Key, float] = {}
        self._timer: Optional[Timer] = None
        self._numbers = itertools.count(1)

    # ---------------------------------------------------------------------------------------------------------- orders

    def take(self, entry: Entry) -> Optional[Reserve]:
        """A process that has imported the flow's file, or does so now; None where there is none."""
        key = _key(entry)
        self._wanted = [key, *(other for other in self._wanted if other != key)]
        waiting = self._ready.get(key, [])
        while waiting:
            ordered, reserve = waiting.pop(0)
            if not ordered.begun.is_older(self._age_s):
                ordered.taken = True
                return reserve
            self._dismiss(ordered)
        self._missed_at[key] = self._loop.now
        return None

    def is_ready(self, entry: Entry) -> bool:
        return any(not ordered.begun.is_older(self._age_s) for ordered, _ in self._ready.get(_key(entry), ()))

    def have(self, entries: Iterable[Entry]) -> None:
        """See to it that one for each of these is ready or on its way."""
        for key, count in Counter(map(_key, entries)).items():
            self._have(key, count)

    def _have(self, key: Key, count: int) -> None:
        coming = sum(ordered.key == key and not ordered.taken for ordered in self._all.values())
        for _ in range(count - coming):
            self._order(key)

    def _order(self, key: Key) -> None:
        ours, theirs = socket.socketpair()
        lifeline, our_lifeline = os.pipe()
        output = _memory_file()
        number = next(self._numbers)
        code = {"unit": list(key[0]), "sources": key[1], "folders": self._folders()}
        ours.setblocking(False)
        self._all[number] = _Ordered(key, Channel(ours), our_lifeline)
        with theirs:
            with contextlib.suppress(OSError):  # the bare zygote is dead, which is told by itself
                self._bare().channel.send({"import": number, "code": code}, [theirs.fileno(), lifeline, output])
        os.close(lifeline)
        os.close(output)

    # ---------------------------------------------------------------------------------------------------------- events

    def arrived(self, zygote: Zygote, message: Message) -> None:
        """The bare zygote has forked a process that was asked for."""
        ordered = self._all.get(message["import"])
        if ordered is None:
            return
        ordered.pid = message["pid"]
        reserve = Reserve(ordered.pid, message["born"], ordered.channel, zygote, ordered.begun)
        if ordered.taken:  # dismissed meanwhile
            self._dismiss(ordered)
        else:
            self._ready.setdefault(ordered.key, []).append((ordered, reserve))

    def ended(self, pid: int) -> None:
        """A process has ended, maybe one of these."""
        for number, ordered in list(self._all.items()):
            if ordered.pid == pid:
                self._forget(number)

    def bare_ended(self) -> None:
        """What it was to fork will not come. What it has forked goes on, but is not waited for any more."""
        for number, ordered in list(self._all.items()):
            if not ordered.taken:
                self._forget(number)

    def _forget(self, number: int) -> None:
        ordered = self._all.pop(number)
        waiting = self._ready.get(ordered.key, [])
        waiting[:] = [pair for pair in waiting if pair[0] is not ordered]
        ordered.channel.close()
        os.close(ordered.lifeline)

    # ----------------------------------------------------------------------------------------------------------- ahead

    def renew(self, entries: Iterable[Entry]) -> None:
        """The code is another: what was imported ahead is of no use."""
        for ordered in self._all.values():
            if not ordered.taken:
                self._dismiss(ordered)
        self._ready.clear()
        keys = [_key(entry) for entry in entries if not entry.is_forked]
        known = [key for key in self._wanted if key in keys]
        self._wanted = known + [key for key in dict.fromkeys(keys) if key not in known]

    def look(self) -> None:
        """Replace those that have become too old."""
        for key, waiting in self._ready.items():
            old = [pair for pair in waiting if pair[0].begun.is_older(self._age_s)]
            self._ready[key] = [pair for pair in waiting if pair not in old]
            for ordered, _ in old:
                self._dismiss(ordered)
                self.refill_soon()

    def _dismiss(self, ordered: _Ordered) -> None:
        """No run for it: it cleans up after its imports and ends; what does not end is killed."""
        ordered.taken = True
        ordered.channel.close()
        self._loop.after(RETIRE_S, lambda: self._kill(ordered))

    def _kill(self, ordered: _Ordered) -> None:
        if ordered.pid and ordered in self._all.values():
            procs.send_group(ordered.pid, signal.SIGKILL)

    def refill_soon(self) -> None:
        """Import ahead as soon as nothing has started for a moment."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.after(REFILL_S, self._refill) if self._wanted else None

    def _refill(self) -> None:
        self._timer = None
        for key in self._wanted[:MAX_UNITS]:
            busy = self._loop.now - self._missed_at.get(key, -BUSY_S) < BUSY_S
            self._have(key, 2 if busy else 1)


def _key(entry: Entry) -> Key:
    return entry.unit, entry.sources


def _memory_file() -> int:
    """A file for what an import prints: without a place on disk where the system has such a thing, else nowhere."""
    make: Any = getattr(os, "memfd_create", None)
    return int(make(procs.IMPORT_OUTPUT)) if make is not None else os.open(os.devnull, os.O_WRONLY)
