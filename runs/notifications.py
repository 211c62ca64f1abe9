"""What one process has committed, the others hear of: by PostgreSQL's LISTEN and NOTIFY, on a connection of its own.

A notification is sent after the commit, never in its transaction: a NOTIFY makes commits wait for one another. What
changes while one is under way goes out together with the next. It may be lost without harm: it says which topics
changed and no more, and every process looks by itself every few seconds. (On SQLite ``runs.db.threads`` sees foreign
commits by itself.)

The same connection holds a lock for each server as long as it lives, so that the others know at once when it is gone.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import select
import socket
import threading
import time
from typing import Any

from django.db import connection

from runs import events

SERVER = secrets.randbits(31) or 1  # this process, among all of the database
LOCKS = 0x50455246  # the class of our advisory locks: "PERF"
CHANNEL = events.CHANNEL
LAZY = 0.2  # seconds that a change may wait which only pages show
RECONNECT = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # seconds
READY_WITHIN = 5.0
# A connection that rests for hours must notice by itself that the other end, or the way to it, is gone.
KEPT_ALIVE = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}

logger = logging.getLogger(__name__)


class Notifier(threading.Thread):
    """One thread with one connection, which it opens again as often as it is cut."""

    def __init__(self, hear: events.Listener, serves: bool) -> None:
        super().__init__(name="perfect-notifier", daemon=True)
        self._hear, self._serves = hear, serves
        self._lock = threading.Lock()
        self._waiting: set[str] = set()
        self._send_at = float("inf")  # monotonic
        self._woken, self._bell = socket.socketpair()
        for end in (self._woken, self._bell):
            end.setblocking(False)
        self._over = threading.Event()
        self.listens = threading.Event()

    def tell(self, topics: frozenset[str]) -> None:
        """Have the other processes hear of these topics; from any thread."""
        now = time.monotonic()
        with self._lock:
            self._waiting |= topics
            before = self._send_at
            self._send_at = min(before, now if topics & events.URGENT else now + LAZY)
            if self._send_at < before:
                self._wake()

    def stop(self) -> None:
        self._over.set()
        self._wake()
        self.join(timeout=10)
        self._woken.close()
        self._bell.close()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it has enough to wake up for
            self._bell.send(b".")

    def run(self) -> None:
        failures = 0
        while not self._over.is_set():
            try:
                with _connect() as own:
                    failures = 0
                    self._serve(own)
            except Exception as error:  # psycopg's own errors, of a connection that Django does not know
                if failures == 0 and not self._over.is_set():
                    logger.warning("other processes are not heard, the connection is opened anew: %s", error)
                self.listens.clear()
                self._over.wait(RECONNECT[min(failures, len(RECONNECT) - 1)])
                failures += 1

    def _serve(self, own: Any) -> None:
        if self._serves:
            own.execute("SELECT pg_try_advisory_lock(%s, %s)", [LOCKS, SERVER])
        own.execute(f"LISTEN {CHANNEL}")
        self.listens.set()
        self._hear(events.EVERYTHING)  # what was told before
        news = select.poll()  # select() refuses descriptors from 1024 on, which a busy server has
        for end in (own.fileno(), self._woken.fileno()):
            news.register(end, select.POLLIN)
        while not self._over.is_set():
            pause = self._send_at - time.monotonic()
            news.poll(None if pause == float("inf") else max(0.0, pause) * 1000)
            with contextlib.suppress(BlockingIOError):
                while self._woken.recv(4096):
                    pass
            self._send(own)
            self._receive(own)
        self._send_at = 0.0  # the last words
        self._send(own)

    def _send(self, own: Any) -> None:
        with self._lock:
            if self._send_at > time.monotonic():
                return
            topics, self._waiting, self._send_at = frozenset(self._waiting), set(), float("inf")
        if not topics:
            return
        try:
            own.execute("SELECT pg_notify(%s, %s)", [CHANNEL, events.encode(topics)])
        except Exception:
            self.tell(topics)
            raise

    def _receive(self, own: Any) -> None:
        mine = own.info.backend_pid
        heard = [events.decode(told.payload) for told in own.notifies(timeout=0) if told.pid != mine]
        if heard:
            self._hear(frozenset().union(*heard))


def _connect() -> Any:
    import psycopg  # heavy: an extra, for those who use PostgreSQL

    options = {**connection.get_connection_params(), **KEPT_ALIVE}  # type: ignore[attr-defined]
    own = psycopg.connect(**options, autocommit=True)
    own.execute("SET synchronous_commit = off")  # a notification is nothing that has to reach the disk
    return own


_notifier: Notifier | None = None


def start(hear: events.Listener, serves: bool = True) -> None:
    """Tell the other processes, and hear them: ``hear`` is called on a thread of its own. Only on PostgreSQL.
    ``serves``: workers connect to this process.

    Returns when this process is heard and known, at the latest after ``READY_WITHIN`` seconds.
    """
    global _notifier
    if connection.vendor == "postgresql" and _notifier is None:
        _notifier = Notifier(hear, serves)
        events.set_notifier(_notifier.tell)
        _notifier.start()
        _notifier.listens.wait(READY_WITHIN)


def stop() -> None:
    global _notifier
    if _notifier is not None:
        events.set_notifier(None)
        _notifier.stop()
        _notifier = None


def living() -> set[int]:
    """The servers of this database that live, as ``SERVER`` names them. PostgreSQL only."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objsubid = 2 AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            [LOCKS],
        )
        return {int(key) for (key,) in cursor.fetchall()}
