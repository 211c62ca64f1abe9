"""Keep an SQLite database small and whole; on other databases every step is a no-op.

Automatic checkpoints are off everywhere (``wal_autocheckpoint=0``): SQLite before 3.51.3 can corrupt a database when
a commit races a checkpoint that resets the log (sqlite.org/wal.html#walresetbug). Here one thread checkpoints on a
second connection while the first holds ``BEGIN IMMEDIATE``, so that no commit, of any process, can race it.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from django.db import connection

CHECKPOINT_AFTER_WRITES = 2_000
CHECKPOINT_EVERY = 30.0  # seconds, if anything was written


class Upkeep:
    """Belongs to one thread: the writer's."""

    def __init__(self) -> None:
        self._second: sqlite3.Connection | None = None
        self._seen: int | None = None
        self._writes = 0
        self._checked = 0.0

    def wrote(self) -> None:
        self._writes += 1

    def others_committed(self) -> bool:
        """Whether another connection has committed since the last call (``PRAGMA data_version``); on PostgreSQL
        ``runs.notifications`` tells."""
        if connection.vendor != "sqlite":
            return False
        with connection.cursor() as cursor:
            (version,) = cursor.execute("PRAGMA data_version").fetchone()
        before, self._seen = self._seen, version
        return before is not None and before != version

    def step(self, monotonic: float) -> None:
        """Checkpoint if enough was written, or if something was and it is time."""
        due = self._writes >= CHECKPOINT_AFTER_WRITES or (
            self._writes > 0 and monotonic - self._checked >= CHECKPOINT_EVERY
        )
        if due and connection.vendor == "sqlite":
            self._checked, self._writes = monotonic, 0
            self.checkpoint()

    def checkpoint(self) -> None:
        """Move the log into the database file, as far as no reader needs it."""
        if self._second is None:
            self._second = self._open()
        with connection.cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            try:
                with connection.wrap_database_errors:
                    self._second.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            finally:
                cursor.execute("ROLLBACK")

    @staticmethod
    def _open() -> sqlite3.Connection:
        name: Any = connection.settings_dict["NAME"]
        second = sqlite3.connect(str(name), isolation_level=None, timeout=5, uri=str(name).startswith("file:"))
        second.execute("PRAGMA wal_autocheckpoint=0")
        return second

    def close(self) -> None:
        if self._second is not None:
            self._second.close()
            self._second = None
