"""The monkey carries out a plan, and undoes what lasts; in between everything that ended is started again."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from perfect_client.system.procs import send

from tests.journeys.checker import Database

from .installation import Installation, Service, children_of
from .ledger import Deeds
from .plan import KINDS, Fault

LOOK_S = 0.1
FULL_GRACE_S = 5.0  # after there is space again, a server may still end for the want of it


def possible(made: Installation) -> dict[str, str]:
    """Each kind of fault, with the reason why it cannot be had here, or an empty text."""
    postgres = isinstance(made.database, str)
    reasons = {
        "fill the disk": ""
        if made.disk
        else "the database is elsewhere"
        if postgres
        else "no small disk may be mounted",
        "jump the clock": "" if made.clocks else "libfaketime is not installed",
        "cut the database": "" if postgres else "SQLite has no connections to cut",
    }
    return {kind: reasons.get(kind, "") for kind in KINDS}


class Monkey:
    def __init__(self, made: Installation, deeds: Deeds, faults: list[Fault], say: Callable[[str], None]) -> None:
        self._made, self._deeds, self._say = made, deeds, say
        self._count = itertools.count()
        self._todo: list[tuple[float, int, Callable[[], None]]] = []
        self._acts: dict[str, Callable[[Fault], None]] = {
            "kill the server": lambda f: self._server(f).signal(signal.SIGKILL),
            "end the server": lambda f: self._server(f).signal(signal.SIGTERM),
            "stop the server": lambda f: self._stop(self._server(f), f.seconds),
            "kill the worker": lambda f: self._kill_worker(f),
            "end the worker": lambda f: self._end_worker(f),
            "stop the worker": lambda f: self._stop(self._worker(f), f.seconds),
            "kill the zygote": self._kill_zygote,
            "kill a run": self._kill_run,
            "stop a run": self._stop_run,
            "kill worker and server": self._kill_both,
            "stop the worker, kill the server": self._stop_and_kill,
            "cut the network": lambda f: self._made.lines[f.target].cut(),
            "delay the network": lambda f: self._set_line(f, "delay_s", f.size, 0.0),
            "stall the network": lambda f: self._set_line(f, "stalled", True, False),
            "half-open the network": lambda f: self._made.lines[f.target].half_open(f.seconds),
            "lock the database": lambda f: _in_background(_hold_lock, made.database, f.seconds),
            "fill the disk": self._fill_disk,
            "jump the clock": self._jump,
            "cut the database": lambda f: _in_background(_cut_connections, made.database),
        }
        self._full_until = 0.0
        begun = time.monotonic()
        for fault in faults:
            self._at(begun + fault.at, lambda fault=fault: self._do(fault))

    def _at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._todo, (when, next(self._count), act))

    def _do(self, fault: Fault) -> None:
        self._say(str(fault))
        self._acts[fault.kind](fault)

    def run(self, until: Callable[[], bool]) -> None:
        """Carry out what is due, until that is true."""
        pause = threading.Event()
        while not until():
            while self._todo and self._todo[0][0] <= time.monotonic():
                heapq.heappop(self._todo)[2]()
            self.keep()
            pause.wait(LOOK_S)

    def keep(self) -> None:
        for service in self._made.services:
            sentence = service.keep()
            for_space = service in self._made.servers and time.monotonic() < self._full_until
            if sentence and for_space:
                self._say(f"           {sentence} (the disk is full)")
            elif sentence:
                self._say(f"         ! {sentence}")
                self._deeds.wrong.append(sentence)

    def heal(self) -> None:
        """Undo everything that lasts."""
        while self._todo:
            heapq.heappop(self._todo)[2]()
        for clock in self._made.clocks:
            clock.write_text("+0")

    # ---------------------------------------------------------------------------------------------------------- faults

    def _server(self, fault: Fault) -> Service:
        return self._made.servers[fault.target]

    def _worker(self, fault: Fault) -> Service:
        return self._made.workers[fault.target]

    def _stop(self, service: Service, seconds: float) -> None:
        pid = service.pid
        service.signal(signal.SIGSTOP)
        self._at(time.monotonic() + seconds, lambda: self._go_on(pid))

    def _go_on(self, pid: int) -> None:
        if pid and self._made.owns(pid):
            send(pid, signal.SIGCONT)

    def _kill_worker(self, fault: Fault) -> None:
        self._deeds.ended.append((time.monotonic(), self._worker(fault).name))
        self._worker(fault).signal(signal.SIGKILL)

    def _end_worker(self, fault: Fault) -> None:
        """The first SIGTERM lets a worker that drains finish its runs; the second stops them, and so does the first
        where ``--drain 0`` was given."""
        worker = self._worker(fault)
        if worker.ends or worker.command[-1] == "0":
            self._deeds.ended.append((time.monotonic(), worker.name))
        worker.signal(signal.SIGTERM)

    def _kill_zygote(self, fault: Fault) -> None:
        for pid in children_of(self._worker(fault).pid)[:1]:
            if pid not in self._made.runs():
                self._deeds.zygotes.append((time.monotonic(), self._worker(fault).name))
                send(pid, signal.SIGKILL)

    def _a_run(self) -> int:
        """The pid of a run that goes on; 0 if there is none."""
        return next(iter(self._made.runs()), 0)

    def _kill_run(self, fault: Fault) -> None:
        if pid := self._a_run():
            self._deeds.killed.add(pid)
            send(pid, signal.SIGKILL)

    def _stop_run(self, fault: Fault) -> None:
        if pid := self._a_run():
            send(pid, signal.SIGSTOP)
            self._at(time.monotonic() + fault.seconds, lambda: self._go_on(pid))

    def _kill_both(self, fault: Fault) -> None:
        self._kill_worker(fault)
        for server in self._made.servers:
            server.signal(signal.SIGKILL)

    def _stop_and_kill(self, fault: Fault) -> None:
        """What the server said last, and the end of the connection, are read in one go."""
        self._stop(self._worker(fault), fault.seconds + 1.0)
        self._at(time.monotonic() + fault.seconds, lambda: [s.signal(signal.SIGKILL) for s in self._made.servers])

    def _set_line(self, fault: Fault, name: str, value: Any, after: Any) -> None:
        line = self._made.lines[fault.target]
        setattr(line, name, value)
        self._at(time.monotonic() + fault.seconds, lambda: setattr(line, name, after))

    def _jump(self, fault: Fault) -> None:
        clock = self._made.clocks[fault.target]
        self._deeds.jumped = True
        clock.write_text(f"{float(clock.read_text()) + fault.size:+g}")

    def _fill_disk(self, fault: Fault) -> None:
        assert self._made.disk is not None
        full = self._made.disk / "full"
        self._full_until = time.monotonic() + fault.seconds + FULL_GRACE_S
        with contextlib.suppress(OSError), full.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 65536)
        self._at(time.monotonic() + fault.seconds, lambda: full.unlink(missing_ok=True))


def _in_background(act: Callable[..., None], *words: Any) -> None:
    threading.Thread(target=act, args=words, daemon=True).start()


def _hold_lock(database: Database, seconds: float) -> None:
    """What a long backup or a stranger's transaction does."""
    pause = threading.Event()
    if isinstance(database, Path):
        connection = sqlite3.connect(database, timeout=5, isolation_level=None)
        with contextlib.closing(connection), contextlib.suppress(sqlite3.OperationalError):  # full, or locked itself
            connection.execute("BEGIN IMMEDIATE")
            pause.wait(seconds)
            connection.execute("ROLLBACK")
        return
    import psycopg

    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(database) as connection:  # cut by the monkey
        connection.execute("LOCK TABLE runs_run IN EXCLUSIVE MODE")
        pause.wait(seconds)


def _cut_connections(database: Database) -> None:
    import psycopg

    assert isinstance(database, str)
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(database) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
