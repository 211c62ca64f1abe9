"""A database that cannot be reached or written to: what to answer, when to ask again, and one short line in the log."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from django.db import Error, InterfaceError, OperationalError

LOG_EVERY = 10.0  # seconds between lines about outages: the log may lie on the disk that is full


@dataclass(frozen=True)
class Outage:
    """``status`` is HTTP's: 507 for a full disk, else 503. ``retry_after`` is in seconds."""

    status: int
    sentence: str
    retry_after: int = 5


LOCKED = Outage(503, "The database is locked by another process. Nothing was changed; try again.")
FULL = Outage(507, "The disk of the database is full. Nothing was changed; make room on it and try again.", 30)
FAILING = Outage(503, "The disk of the database fails. Nothing was changed; the server's log says more.", 30)
READ_ONLY = Outage(503, "The database cannot be written to: it is read-only. Nothing was changed.", 30)
AWAY = Outage(503, "The database does not answer, or has cut the connection. Try again in a moment.")
WAITED = Outage(503, "The database takes no writes at present. Nothing was changed; try again.")
UNSURE = Outage(503, "The database has not confirmed the write. It may still happen: look before you ask again.", 30)
ROLLED_BACK = Outage(503, "The database took the write back; its disk may be full. Nothing was changed; try again.")


class NotWritten(OperationalError):
    """A write that was not done, or of which it is not known."""

    def __init__(self, outage: Outage) -> None:
        super().__init__(outage.sentence)
        self.outage = outage


# Primary result codes (sqlite.org/rescode.html).
_SQLITE = {
    sqlite3.SQLITE_BUSY: LOCKED,
    sqlite3.SQLITE_LOCKED: LOCKED,
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_IOERR: FAILING,
    sqlite3.SQLITE_CANTOPEN: FAILING,
    sqlite3.SQLITE_READONLY: READ_ONLY,
}
# SQLSTATEs, whole or by their class (PostgreSQL's manual, appendix A).
_POSTGRES = {
    "53100": FULL,
    "53": AWAY,  # out of connections or memory
    "08": AWAY,
    "57P": AWAY,  # shut down, or starting
    "57014": WAITED,  # cancelled, by a time limit or by an administrator
    "55P03": LOCKED,
    "40": LOCKED,  # deadlock, serialization
    "25006": READ_ONLY,
    "58": FAILING,
}


def of(error: BaseException) -> Outage | None:
    """The outage that ``error`` tells of; None if it is a fault of ours, or no error of the database."""
    if isinstance(error, NotWritten):
        return error.outage
    if isinstance(error, OSError) and isinstance(error.__context__, Exception):  # it broke into being connected anew
        return of(error.__context__)
    if not isinstance(error, (OperationalError, InterfaceError)):
        return None
    cause = error.__cause__
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", None)
        return FULL if code == sqlite3.SQLITE_IOERR_SHMSIZE else _SQLITE.get((code or 0) & 0xFF)
    state = getattr(cause, "sqlstate", None)
    if state is None:  # no answer of a server: the connection is gone, or there was none
        return AWAY
    return next((_POSTGRES[state[:length]] for length in (5, 3, 2) if state[:length] in _POSTGRES), None)


class Sparing:
    """Lets one line through every ``LOG_EVERY`` seconds, and counts those that it held back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._next, self._held_back = float("-inf"), 0

    def ask(self) -> str | None:
        """What to add to this line: how many were held back since the last one; None if this one is held back."""
        with self._lock:
            if self._clock() < self._next:
                self._held_back += 1
                return None
            self._next, held_back, self._held_back = self._clock() + LOG_EVERY, self._held_back, 0
            return f" ({held_back:,} more of this kind)" if held_back else ""


_sparing = Sparing()


def log_failure(logger: logging.Logger, what: str, error: BaseException) -> None:
    """Log that ``what`` failed: with the traceback; of an outage a line at most, and not each time."""
    outage = of(error)
    if outage is None:
        logger.error("%s", what, exc_info=error)
    elif (more := _sparing.ask()) is not None:
        logger.warning("%s: %s [%s]%s", what, outage.sentence, str(error).strip().replace("\n", " ")[:200], more)


ADVICE = {
    FULL: "The disk of the database is full. Make room on it, then start again.",
    LOCKED: "The database is locked by another process. End that one (a backup, a shell), then start again.",
    READ_ONLY: "The database is read-only. Give this user the right to write its file, then start again.",
}


def advice(error: Error) -> str:
    """The error as a command says it: what is wrong, and what to do."""
    outage = of(error)
    return (ADVICE.get(outage) if outage else None) or f"The database does not answer: {error}"
