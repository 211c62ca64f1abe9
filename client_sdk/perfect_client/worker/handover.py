"""Older processes of this worker that drain: while one lives, its attempts are its own; then they are taken over.

One that was killed may leave a connection that the server takes for alive, since its end was lost on the way. Its lock
tells that it is dead, and the server is told.
"""

from __future__ import annotations

from typing import Callable, List, Set

from perfect_client.journal.journal import Entry, Folder
from perfect_client.system.loop import Loop
from perfect_client.wire.session import Session
from perfect_client.worker import reaper

LOOK_EVERY_S = 0.5
KILL_EVERY_S = 0.05


class Predecessors:
    """Watches them by the locks that they hold. ``inherit`` gets the entries of one that has ended, when nothing of
    its runs is left: usually none, since it has delivered what it had."""

    def __init__(
        self, loop: Loop, folder: Folder, worker: str, session: Session, inherit: Callable[[List[Entry]], None]
    ) -> None:
        self._loop, self._folder, self._worker, self._session = loop, folder, worker, session
        self._inherit = inherit
        self.living: Set[str] = set()  # boots
        self._dead: List[str] = []

    def begin(self) -> List[Entry]:
        """End what a killed process of this worker has left running; the entries of its attempts."""
        self.living = self._folder.living()
        entries = self._folder.entries(self.living)
        self._dead = self._folder.dead()
        self._session.outlive(self._dead)
        reaper.end_what_was_left(self._worker, entries)
        self._watch()
        return entries

    def accepted(self) -> None:
        """The server has let this process in, so it counts none before it as connected."""
        self._folder.bury(self._dead)
        self._dead = []
        self._session.outlive(())

    def _watch(self) -> None:
        if self.living:  # first: a disk that cannot be read now is looked at again
            self._loop.after(LOOK_EVERY_S, self._look)
        self._session.stand_beside(self.living, self._folder.fences_of(self.living))

    def _look(self) -> None:
        try:
            living = self._folder.living()
            gone = self.living - living
            left = [entry for entry in self._folder.entries(living) if entry.boot in gone] if gone else []
            self.living = living
            self._take_over(left, self._loop.now + reaper.LEFT_BEHIND_S)
        finally:
            self._watch()

    def _take_over(self, entries: List[Entry], give_up: float) -> None:
        """This process serves its own runs meanwhile, so it never waits."""
        if entries and self._loop.now < give_up and reaper.kill_what_was_left(self._worker, entries):
            self._loop.after(KILL_EVERY_S, lambda: self._take_over(entries, give_up))
        elif entries:
            self._inherit(entries)
