"""A real server and real workers as processes, in a home of their own, driven as a user's script would.

With ``TESTS_DATABASE_URL`` each house has a database of its own on that PostgreSQL server instead of an SQLite file.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import http.client
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
FLOWS = ROOT / "tests" / "journeys" / "flows" / "ledger_flows.py"
POSTGRES = os.environ.get("TESTS_DATABASE_URL", "")
RESTED_S = 5.0  # a connection that rested so long may be closed by the server while it is used again
T = TypeVar("T")


def until(look: Callable[[], T], within: float = 20.0, what: str = "", every: float = 0.01) -> T:
    """Look until it is true; the only way a journey waits."""
    end = time.monotonic() + within
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {within} s: {what or look}")
        time.sleep(every)


def alive(pid: int) -> bool:
    """Whether the process is there and not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@functools.cache
def _prepared() -> tuple[House, str]:
    """A house with its tables and a token, made once for all of this process: each begins with a copy."""
    home = tempfile.mkdtemp(prefix="perfect-house-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    house = House(Path(home), prepared=False)
    if POSTGRES:
        house.use(_create_database())
        atexit.register(_drop_database, str(house.database))
    house.manage("migrate", check=True)
    return house, house.manage("createtoken", "journey", "--scope", "admin", check=True).stdout.split()[-1]


def _create_database(template: str = "template1") -> str:
    """The address of a new database at ``POSTGRES``, a copy of ``template``."""
    url = f"{POSTGRES.rpartition('/')[0]}/perfect_{secrets.token_hex(6)}"
    _postgres(f"CREATE DATABASE {_name(url)} TEMPLATE {template}")
    return url


def _drop_database(url: str) -> None:
    _postgres(f"DROP DATABASE {_name(url)} WITH (FORCE)")


def _name(url: str) -> str:
    return url.rpartition("/")[2]


def _postgres(statement: str) -> None:
    import psycopg

    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute(statement.encode())


class House:
    """One installation: a home folder, a port, a server process, worker processes, and a client of its API."""

    def __init__(self, home: Path, *, prepared: bool = True) -> None:
        self.home = home
        self.ledger, self.gate = home / "ledger", home / "gate"
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("PERFECT_", "DJANGO_", "PYTEST_"))},
            "PERFECT_HOME": str(home),
            "PYTHONPATH": str(ROOT / "client_sdk"),
            "JOURNEY_LEDGER": str(self.ledger),
            "JOURNEY_GATE": str(self.gate),
        }
        self.processes: list[subprocess.Popen[bytes]] = []
        self.server: subprocess.Popen[bytes] | None = None
        self.port = 0
        self._connection: http.client.HTTPConnection | None = None
        self._used = 0.0
        self._token = ""
        self.database: Path | str = home / "flows.db"
        if prepared:
            made, self._token = _prepared()
            shutil.copytree(made.home, home, dirs_exist_ok=True)
            if POSTGRES:
                self.use(_create_database(_name(str(made.database))))

    def use(self, url: str) -> None:
        """Have the database at ``url`` instead of a file in the home."""
        self.database = self.env["PERFECT_DATABASE_URL"] = url

    # ------------------------------------------------------------------------------------------------------ processes

    def manage(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "manage.py"), *words]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=180, **options)

    def _spawn(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, env=self.env, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        self.processes.append(process)
        return process

    def start_server(self, *options: str) -> None:
        (self.home / "server.json").unlink(missing_ok=True)
        words = ["serve", "--port", str(self.port), *options]
        self.server = self._spawn("server", [sys.executable, str(ROOT / "manage.py"), *words])
        facts = until(self._server_facts, within=180, what=f"server up; {self.log('server')[-2000:]}")
        self.port = int(facts["url"].rsplit(":", 1)[1].strip("/"))
        self.env["PERFECT_URL"] = f"http://127.0.0.1:{self.port}"
        self._hang_up()
        until(self.healthy, what="server healthy")

    def _server_facts(self) -> dict[str, Any] | None:
        assert self.server is not None
        if self.server.poll() is not None:
            raise AssertionError(f"the server ended with {self.server.returncode}: {self.log('server')[-2000:]}")
        try:
            facts: dict[str, Any] = json.loads((self.home / "server.json").read_text())
        except (OSError, ValueError):
            return None
        return facts if facts.get("pid") == self.server.pid else None

    def healthy(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.request("GET", "/healthz")[0] == 200
        return False

    def start_worker(
        self, target: Path = FLOWS, *options: str, name: str = "w1", slots: int = 4
    ) -> subprocess.Popen[bytes]:
        words = ["-m", "perfect_client", "worker", str(target), "--name", name, "--slots", str(slots), *options]
        if "--drain" not in options:
            words += ["--drain", "0"]
        return self._spawn(name, [sys.executable, *words])

    def log(self, name: str) -> str:
        path = self.home / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def kill(self, process: subprocess.Popen[bytes] | None, number: int = signal.SIGKILL) -> None:
        assert process is not None
        process.send_signal(number)
        process.wait(timeout=30)

    def stop(self) -> None:
        self._hang_up()
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=5)

    # ------------------------------------------------------------------------------------------------------------ API

    def request(self, method: str, path: str, body: Any = None, token: str | None = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token or self._token}"} if path.startswith("/api") else {}
        payload = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        if self._connection is not None and time.monotonic() - self._used > RESTED_S:
            self._connection.close()
            self._connection = None
        self._used = time.monotonic()
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            self._connection.request(method, path, payload, headers)
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self._hang_up()
            raise
        if answer.getheader("connection", "").lower() == "close":
            self._connection.close()
        kind = answer.getheader("content-type") or ""
        return answer.status, json.loads(text) if "json" in kind else text.decode()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, path: str) -> Any:
        status, answer = self.request("GET", path)
        assert status == 200, (status, answer)
        return answer

    def trigger(self, flow: str, **wish: Any) -> str:
        status, answer = self.request("POST", f"/api/flows/{flow}/runs", wish)
        assert status == 201, (status, answer)
        return str(answer["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.get(f"/api/runs/{run_id}")
        return answer

    def ready(self, flow: str, within: float = 20) -> None:
        """Until a connected worker has the flow."""

        def there() -> bool:
            status, _ = self.request("GET", f"/api/flows/{flow}")
            workers = self.get("/api/workers")["items"]
            return status == 200 and any(worker["connected"] for worker in workers)

        until(there, within, f"a worker with {flow}; {self.log('w1')[-2000:]}")

    def wait(self, run_id: str, *states: str, within: float = 20) -> dict[str, Any]:
        wanted = states or ("COMPLETED", "FAILED", "CRASHED", "CANCELLED", "SKIPPED")

        def there() -> dict[str, Any] | None:
            run = self.run(run_id)
            return run if run["state"] in wanted else None

        return until(there, within, f"run {run_id} {wanted}; it is {self.run(run_id)}")

    def lines(self, run_id: str) -> list[str]:
        found: list[str] = []
        after = 0
        while True:
            page = self.get(f"/api/runs/{run_id}/logs?after={after}&limit=1000")["items"]
            if not page:
                return found
            found += [line["message"] for line in page]
            after = page[-1]["seq"]

    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.ledger.read_text().splitlines()] if self.ledger.exists() else []


@contextlib.contextmanager
def opened(home: Path, *, worker: bool = True) -> Iterator[House]:
    """A house with a server and, if wanted, the worker ``w1``; all processes end with the block."""
    house = House(home)
    try:
        house.start_server()
        if worker:
            house.start_worker()
            house.ready("steady")
        yield house
    finally:
        house.stop()
        if POSTGRES:
            _drop_database(str(house.database))
