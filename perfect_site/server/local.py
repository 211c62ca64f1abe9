"""What ``serve`` keeps on its own machine: the worker's token, ``server.json``, local workers; who holds a port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings
from django.db import transaction

from perfect_site import addresses
from perfect_site.server import installation
from runs.access import Token

LOCAL = "local"
STOP_WITHIN = 17.0  # seconds a worker gets to end its runs: their own grace of 10, 5 for hooks, and a little
BACKOFF = (0.5, 1, 2, 5, 10, 30)
SETTLED = 60.0  # seconds after which a worker's death counts as its first

logger = logging.getLogger("perfect.server")


def ensure_worker_token(home: Path, now: datetime) -> None:
    """``home/worker-token`` holds a token that is valid; if not, a new one is issued in place of this home's last.

    Other homes may use the same database, each with a token of its own.
    """
    path = home / "worker-token"
    with contextlib.suppress(OSError):
        token = Token.objects.valid(path.read_text().strip(), now)
        if token is not None and token.allows(Token.Scope.WORKER):
            path.chmod(0o600)
            return
    name = f"{LOCAL} {installation.identity(home)}"
    with transaction.atomic():
        Token.objects.filter(name=name, scope=Token.Scope.WORKER, revoked_at=None).update(revoked_at=now)
        _, secret = Token.objects.issue(name=name, scope=Token.Scope.WORKER, now=now)
    installation.write_private(path, secret + "\n")


def announce_server(home: Path, url: str, public: str = "") -> None:
    """For who looks for the server on its own machine. ``public`` is the address by which others reach it.

    The addresses outlive the server, so that a worker that begins before it knows whose the token is.
    """
    installation.write_private(home / "worker-token-for", "\n".join(filter(None, [url, public])) + "\n")
    facts = {"pid": os.getpid(), "url": url, "public": public, "started_at": time.time()}
    installation.write_private(home / "server.json", json.dumps(facts))


def forget_server(home: Path) -> None:
    known = running_server(home)
    if known and known["pid"] == os.getpid():
        (home / "server.json").unlink(missing_ok=True)


def running_server(home: Path) -> dict[str, object] | None:
    """``{"pid", "url", "public", "started_at"}`` of the server of this home, if it lives."""
    try:
        known: dict[str, object] = json.loads((home / "server.json").read_text())
        os.kill(int(str(known["pid"])), 0)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return known


def server_url(home: Path, public: str) -> str:
    """Where the server of this home is reached: its public address, else the running one's, else the default."""
    known = running_server(home)
    return public or (str(known["url"]) if known else "http://127.0.0.1:8700")


def is_own(home: Path, url: str) -> bool:
    """Whether ``url`` is an address of this home's server, which runs or has run here."""
    try:
        known = (home / "worker-token-for").read_text().split()
    except OSError:
        return False
    return _place(url) in map(_place, known)


def _place(url: str) -> tuple[str, int]:
    """Host and port of an address; all names of this machine's loopback are one."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return "127.0.0.1" if addresses.is_loopback(host) else host, parts.port or {"https": 443}.get(parts.scheme, 80)


def why_not_bind(host: str, port: int) -> str:
    """A sentence if the server cannot listen there, else nothing."""
    name = host.strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        return f"--host {host} is not an address of this machine: {error.strerror}."
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except PermissionError:
            return f"Port {port} may not be used by this user; ports from 1024 may."
        except OSError as error:
            if error.errno != 98:  # EADDRINUSE
                return f"{host}:{port} cannot be used: {error.strerror}."
            return f"Port {port} is in use{holder_of(port)}. Choose another with --port."
    return ""


def holder_of(port: int) -> str:
    """`` by NAME (process PID)`` from /proc where it is readable, else nothing."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        with contextlib.suppress(OSError):
            if any(os.readlink(link) in inodes for link in (process / "fd").iterdir()):
                return f" by {(process / 'comm').read_text().strip()} (process {process.name})"
    return ""


class LocalWorkers:
    """One worker process for the targets given; started again with back-off when it dies, ended with the server."""

    def __init__(self, targets: Sequence[str], *, home: Path, url: str) -> None:
        self._command = [sys.executable, "-m", "perfect_client", "worker", *targets, "--name", LOCAL, "--drain", "0"]
        sdk = str(settings.BASE_DIR / "client_sdk")
        path = os.pathsep.join(filter(None, [sdk, os.environ.get("PYTHONPATH", "")]))
        self._environ = {**os.environ, "PERFECT_HOME": str(home), "PERFECT_URL": url, "PYTHONPATH": path}
        self._environ.pop("DJANGO_SETTINGS_MODULE", None)
        self._process: subprocess.Popen[bytes] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        deaths = 0
        while True:
            began = time.monotonic()
            # Its own group: Ctrl-C in the terminal is for the server, which then ends its worker in good order.
            process = subprocess.Popen(self._command, env=self._environ, start_new_session=True)
            self._process = process
            code = await asyncio.to_thread(process.wait)
            deaths = 0 if time.monotonic() - began > SETTLED else deaths
            pause = BACKOFF[min(deaths, len(BACKOFF) - 1)]
            deaths += 1
            logger.warning("the local worker ended with %s; it is started again in %s s", code, pause)
            await asyncio.sleep(pause)

    async def stop(self) -> None:
        """Ask it to end its runs and itself; what is left of its process group after that is killed.

        It does not drain: who stops the server waits for it, and a run cannot tell a server that is gone of its end.
        """
        if self._task is not None:
            self._task.cancel()
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_WITHIN
        while process.poll() is None and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
