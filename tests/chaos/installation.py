"""An installation to break: servers behind one address, workers behind a network line each, all kept running."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from perfect_client.system.procs import name_of

from tests.journeys.checker import Database
from tests.journeys.house import ROOT, House, alive

from .ledger import Ledger
from .network import Line, Network, free_port

FLOWS = Path(__file__).parent / "flows" / "chaos_flows.py"
FAKED = Path(__file__).parent / "faked"
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
POSTGRES = os.environ.get("TESTS_POSTGRES_URL", f"postgres://{getpass.getuser()}@127.0.0.1:5432/postgres")
DISK_MB, RUN_KB = 96, 60  # what a history of runs takes of the small disk must not fill it
SHARED_KEYS = dict.fromkeys(("PERFECT_SECRET_KEY", "PERFECT_ENCRYPTION_KEY"), "chaos-" + "x" * 50)
SLOTS = 4
REST_S = 0.5  # between the end of a process and its next start
ENDING_S = 30.0  # what a process gets to end by itself


@dataclass
class Service:
    """A process that is started again whenever it has ended, as systemd would."""

    name: str
    command: list[str]
    env: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    hit: bool = False  # by a signal of ours that ends it
    ends: int = 0  # how often this process was asked to end
    _ended_at: float = 0.0

    def start(self) -> None:
        self.hit, self.ends = False, 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.env, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self.process.pid if self.process is not None and self.process.poll() is None else 0

    def signal(self, number: int) -> None:
        if self.pid:
            self.hit |= number in (signal.SIGKILL, signal.SIGTERM)
            self.ends += number == signal.SIGTERM
            os.kill(self.pid, number)

    def keep(self) -> str:
        """Start it again if it has ended; the sentence if nobody had ended it."""
        if self.pid or self.process is None:
            return ""
        if not self._ended_at:
            self._ended_at = time.monotonic()
            code = self.process.returncode
            return "" if self.hit else f"{self.name} ended by itself with {code}: see {self.log}"
        if time.monotonic() - self._ended_at > REST_S:
            self._ended_at = 0.0
            self.start()
        return ""

    def end(self) -> str:
        """Stop it for good; the sentence if it did not end as asked, in time and with 0."""
        if not self.pid:
            return ""
        assert self.process is not None
        self.process.terminate()
        try:
            code = self.process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return f"{self.name} did not end within {ENDING_S:g} s of SIGTERM: see {self.log}"
        return f"{self.name} ended with {code} after SIGTERM: see {self.log}" if code else ""


@dataclass
class Installation:
    """``folder`` holds everything; ``mark`` stands in the environment of every process that comes of it."""

    folder: Path
    database: Database
    disk: Path | None  # a small file system of its own, if it could be mounted
    servers: list[Service] = field(default_factory=list)
    workers: list[Service] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)  # one a worker
    clocks: list[Path] = field(default_factory=list)  # one a server: how far its wall clock is ahead
    ports: list[int] = field(default_factory=list)
    token: str = ""
    front: Line | None = None  # where clients call
    callers: list[House] = field(default_factory=list)
    mark: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def services(self) -> list[Service]:
        return [*self.servers, *self.workers]

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder / "ledger")

    def caller(self, port: int = 0) -> House:
        """A client of the API through the front, or of the server at that port; one a thread. ``stop`` closes it."""
        assert self.front is not None
        self.callers.append(House(self.folder, prepared=False))
        self.callers[-1].port = port or self.front.port
        return self.callers[-1]

    def ask(self, house: House, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return house.request(method, path, body, token=self.token)

    def marked(self) -> list[int]:
        """The processes of this installation that are there."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and self.owns(int(entry.name)):
                found.append(int(entry.name))
        return found

    def runs(self) -> list[int]:
        """The processes of runs that go on. The ledger alone does not tell: a number may have another owner by now."""
        return [pid for pid in self.ledger.running() if is_run(pid) and self.owns(pid)]

    def owns(self, pid: int) -> bool:
        try:
            return self.mark.encode() in Path(f"/proc/{pid}/environ").read_bytes() and alive(pid)
        except OSError:
            return False


def is_run(pid: int) -> bool:
    """By its name, which only a run's process has: numbers are used again."""
    return name_of(pid).startswith("pf")


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


@contextlib.contextmanager
def installed(
    folder: Path, *, servers: int, workers: int, postgres: bool, faults: bool = True, runs: int = 0
) -> Iterator[Installation]:
    """Prepare and start it; every process ends with the block. ``faults``: with a small disk, which holds so many
    ``runs``, and clocks that jump."""
    with contextlib.ExitStack() as stack:
        database: Database = folder / "server0" / "flows.db"
        if postgres:
            database = stack.enter_context(_postgres(folder))
        size_mb = DISK_MB + runs * RUN_KB // 1024
        disk = stack.enter_context(_disk(folder / "server0", size_mb)) if faults and not postgres else None
        made = Installation(folder, database, disk)
        network = Network()
        stack.callback(network.close)
        stack.callback(_end_all, made)
        _prepare(made, network, servers, workers, faults)
        for service in made.services:
            service.start()
        yield made


def _prepare(made: Installation, network: Network, servers: int, workers: int, faults: bool) -> None:
    shared = {"CHAOS_MARK": made.mark, "CHAOS_LEDGER": str(made.folder / "ledger")}
    made.ports = [free_port() for _ in range(servers)]
    made.front = network.line(made.ports)
    for number, port in enumerate(made.ports):
        home = made.folder / f"server{number}"
        home.mkdir(exist_ok=True)
        house = House(home, prepared=False)
        house.env.update(shared)
        if isinstance(made.database, str):
            house.env |= {"PERFECT_DATABASE_URL": made.database, **SHARED_KEYS}
        if number == 0:
            house.manage("migrate", check=True)
            made.token = house.manage("createtoken", "chaos", "--scope", "admin", check=True).stdout.split()[-1]
            workers_token = house.manage("createtoken", "workers", "--scope", "worker", check=True).stdout.split()[-1]
        if faults and FAKETIME.exists():
            made.clocks.append(made.folder / f"clock{number}")
            made.clocks[-1].write_text("+0")
            house.env |= {  # with the "fix", waits for Python's interpreter lock end at once, and threads spin
                "FAKETIME_FORCE_MONOTONIC_FIX": "0",
                "LD_PRELOAD": str(FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(made.clocks[-1]),
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_CACHE_DURATION": "1",
                "PYTHONPATH": f"{house.env['PYTHONPATH']}:{FAKED}",
            }
        command = [sys.executable, str(ROOT / "manage.py"), "serve", "--port", str(port)]
        made.servers.append(Service(f"server{number}", command, house.env, made.folder / f"server{number}.log"))
    for number in range(workers):
        name = f"w{number}"
        made.lines.append(network.line(made.ports))
        env = House(made.folder / name, prepared=False).env | shared
        env |= {"PERFECT_TOKEN": workers_token, "PERFECT_URL": f"http://127.0.0.1:{made.lines[-1].port}"}
        words = ["worker", str(FLOWS), "--name", name, "--slots", str(SLOTS), "--drain", "0" if number == 0 else "600"]
        command = [sys.executable, "-m", "perfect_client", *words]
        made.workers.append(Service(name, command, env, made.folder / f"{name}.log"))


def _end_all(made: Installation) -> None:
    """Whatever happened: nothing of this installation stays behind."""
    for _ in range(3):  # a process may have forked while the list was made
        for pid in made.marked():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    for service in made.services:
        if service.process is not None:
            service.process.wait(ENDING_S)
    for house in made.callers:
        house.stop()


@contextlib.contextmanager
def _disk(home: Path, size_mb: int) -> Iterator[Path | None]:
    """Mount a small file system there, if this user may; else None."""
    home.mkdir()
    mount = shutil.which("mount")
    words = ["-t", "tmpfs", "-o", f"size={size_mb}M,mode=700", "perfect-chaos", str(home)]
    mounted = mount is not None and subprocess.run([mount, *words], capture_output=True).returncode == 0
    try:
        yield home if mounted else None
    finally:
        if mounted:
            kept = shutil.copytree(home, home.with_name("kept"))
            subprocess.run(["umount", "-l", str(home)], check=True, capture_output=True)
            home.rmdir()
            kept.rename(home)


@contextlib.contextmanager
def _postgres(folder: Path) -> Iterator[str]:
    """A database of its own, dropped at the end; ``database.sql`` in the folder keeps what was in it."""
    import psycopg

    name = f"perfect_chaos_{os.getpid()}"
    url = urlunsplit(urlsplit(POSTGRES)._replace(path=f"/{name}"))
    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    try:
        yield url
    finally:
        if shutil.which("pg_dump"):
            subprocess.run(["pg_dump", "-f", str(folder / "database.sql"), url], check=False, capture_output=True)
        with psycopg.connect(POSTGRES, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())
