"""Workers in processes of their own, and ways to look at processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.worker.fakeserver import DEADLINE_S

HERE = Path(__file__).parent
SDK = HERE.parent.parent / "client_sdk"
FLOWS = HERE / "sample_flows.py"


class Worker:
    """A worker in a process of its own, with its own home."""

    def __init__(
        self, home, server, targets, *options, token="t0ken", name="w1", url="its", drain="0", program=(), **environment
    ):
        self.home, self.name = home, name
        self.log = home / "worker.log"
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("PERFECT_", "PREFECT_"))}
        environ.update(environment, PERFECT_HOME=str(home), PYTHONPATH=str(SDK), PYTHONDONTWRITEBYTECODE="1")
        if token:
            environ["PERFECT_TOKEN"] = token
        options = ["--name", name, "--slots", "4", *options]
        if url:
            options += ["--url", server.url]
        if drain and "--drain" not in options:
            options += ["--drain", drain]
        command = [sys.executable, *(program or ["-m", "perfect_client", "worker", *map(str, targets), *options])]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=environ, stdout=log, stderr=log, cwd=str(home), start_new_session=True
            )

    @property
    def pid(self):
        return self.process.pid

    @property
    def zygotes(self):
        """The pids of the processes that fork runs."""
        return [
            pid for pid in children_of(self.pid) if b"perfect_client.execution.zygote" in _read(f"/proc/{pid}/cmdline")
        ]

    @property
    def zygote(self):
        """The pid of the process that forks the runs."""
        return self.zygotes[0]

    @property
    def runs(self):
        return sorted(path.name for path in (self.home / "worker" / self.name / "runs").iterdir())

    def said(self):
        return self.log.read_text()

    def stop(self):
        """As a person would; its exit code."""
        self.process.terminate()
        return self.process.wait(DEADLINE_S)

    def kill(self):
        self.process.kill()
        self.process.wait(DEADLINE_S)


class Program(Worker):
    """A program that makes itself a worker by ``serve``."""

    def __init__(self, home, server, file):
        super().__init__(home, server, [], program=[str(file)], PERFECT_URL=server.url)


def _read(path):
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def children_of(pid):
    return [int(child) for child in _read(f"/proc/{pid}/task/{pid}/children").split()]


def tree_of(pid):
    """The process and all that it has started, also in sessions of their own."""
    return [pid, *(below for child in children_of(pid) for below in tree_of(child))]


def name_of(pid):
    return _read(f"/proc/{pid}/comm").decode().strip()


def is_alive(pid):
    state = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return bool(state) and state[0] not in (b"Z", b"X")


def eventually(what, seconds=DEADLINE_S):
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, f"waited {seconds:g} s in vain"
        time.sleep(0.005)
