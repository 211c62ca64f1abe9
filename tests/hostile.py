"""Clients that mean harm, against a real server process: what each costs it in memory, and whether others get in.

``python tests/hostile.py [--seconds 60] [NAME …]`` prints a table: PSS before, at the peak and after each client, and
the slowest answer that an honest client got meanwhile. ``tests/server/test_hostile.py`` runs the same clients for a
few seconds.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import json
import os
import re
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

Client = Callable[["Site", float], object]
ROOT = Path(__file__).resolve().parents[1]
MASK = b"\0\0\0\0"  # RFC 6455 §5.3 asks for a mask, not for a good one; with zeros the payload is itself


def frame(text: bytes) -> bytes:
    """A masked text frame of a client (RFC 6455 §5.2)."""
    if len(text) < 126:
        return b"\x81" + bytes([0x80 | len(text)]) + MASK + text
    if len(text) < 1 << 16:
        return b"\x81\xfe" + len(text).to_bytes(2, "big") + MASK + text
    return b"\x81\xff" + len(text).to_bytes(8, "big") + MASK + text


@dataclass
class Site:
    """A server in a home of its own, as its clients see it."""

    home: Path
    process: subprocess.Popen[bytes]
    port: int
    cookie: str = ""

    @property
    def token(self) -> str:
        return (self.home / "worker-token").read_text().strip()

    def memory(self) -> float:
        """MB that would be free if the process ended."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return int(text.split("\nPss:")[1].split()[0]) / 1024

    def spooled(self) -> float:
        """MB in files without a name that the process holds open."""
        total = 0
        for each in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                status = each.stat()
                total += status.st_size if status.st_nlink == 0 and each.readlink().is_absolute() else 0
        return total / (1 << 20)

    def connect(self, timeout: float = 20.0) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, str]:
        """Status, body and cookies of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            cookies = "; ".join(each.split(";")[0] for each in answer.headers.get_all("Set-Cookie", []))
            return answer.status, answer.read(), cookies
        finally:
            connection.close()

    def sign_in(self) -> None:
        """By the link that the server printed."""
        secret = re.search(r"/welcome/\?t=(\S+)", (self.home / "log").read_text())
        assert secret is not None
        _, page, cookies = self.ask("GET", f"/welcome/?t={secret[1]}")
        form = re.search(rb'name="csrfmiddlewaretoken" value="(\w+)"', page)
        assert form is not None
        body = b"t=%b&csrfmiddlewaretoken=%b" % (secret[1].encode(), form[1])
        kind = "application/x-www-form-urlencoded"
        origin = f"http://127.0.0.1:{self.port}"
        status, _, self.cookie = self.ask("POST", "/welcome/", body, Cookie=cookies, Content_Type=kind, Origin=origin)
        assert status == 302

    def socket(self, path: str, *headers: str) -> socket.socket:
        """An upgraded connection."""
        raw = self.connect()
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: 127.0.0.1:{self.port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            *headers,
            "",
            "",
        ]
        raw.sendall("\r\n".join(lines).encode())
        answer = b""
        while b"\r\n\r\n" not in answer and (more := raw.recv(1)):
            answer += more
        if not answer.startswith(b"HTTP/1.1 101"):
            raw.close()
            raise AssertionError(answer)
        return raw

    def page(self) -> socket.socket:
        """A signed-in page's socket."""
        return self.socket("/ws/live/", f"Cookie: {self.cookie}", f"Origin: http://127.0.0.1:{self.port}")

    def worker(self, name: str) -> socket.socket:
        """A socket of a worker that has joined."""
        raw = self.socket("/ws/worker/", f"Authorization: Bearer {self.token}")
        joined = {"type": "Joined", "worker": str(uuid.uuid4()), "boot": "b", "name": name}
        raw.sendall(frame(json.dumps(joined).encode()))
        return raw


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PERFECT_", "DJANGO_"))}
    return {**kept, "PERFECT_HOME": str(home), "PYTHONPATH": str(ROOT / "client_sdk"), "PYTHONUNBUFFERED": "1"}


@contextlib.contextmanager
def serving(home: Path, prelude: str = "") -> Iterator[Site]:
    """A server process; ``prelude`` is Python that it runs first."""
    env = environment(home)
    start = f"{prelude}\nfrom manage import main\nmain()"
    command = [sys.executable, "-c", start, "serve", "--port", "0"]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=ROOT)
    try:
        known = home / "server.json"
        until(lambda: known.exists() or process.poll() is not None, 60, "a server")
        assert process.poll() is None, (home / "log").read_text()
        site = Site(home, process, int(json.loads(known.read_text())["url"].rsplit(":", 1)[1]))
        until(lambda: (home / "log").exists() and "/welcome/?t=" in (home / "log").read_text(), 60, "a sign-in link")
        site.sign_in()
        yield site
    finally:
        process.terminate()
        process.wait(timeout=30)


def until(look: Callable[[], object], within: float, what: str) -> None:
    deadline = time.monotonic() + within
    while not look():
        assert time.monotonic() < deadline, f"no {what} within {within} s"
        time.sleep(0.05)


def pump(sockets: list[socket.socket], data: bytes, seconds: float) -> None:
    """Send ``data`` on each socket as fast as it goes, read nothing, until the time is over or all are closed."""
    chooser = selectors.DefaultSelector()
    rest: dict[socket.socket, memoryview] = {}
    for each in sockets:
        each.setblocking(False)
        chooser.register(each, selectors.EVENT_WRITE)
        rest[each] = memoryview(data)
    deadline = time.monotonic() + seconds
    while rest and time.monotonic() < deadline:
        for key, _ in chooser.select(timeout=0.2):
            raw = key.fileobj
            assert isinstance(raw, socket.socket)
            try:
                sent = raw.send(rest[raw])
            except BlockingIOError:
                continue
            except OSError:
                chooser.unregister(raw)
                del rest[raw]
                continue
            rest[raw] = rest[raw][sent:] or memoryview(data)
    chooser.close()


# -------------------------------------------------------------------------------------------------------- the clients


def page_flood(site: Site, seconds: float) -> None:
    """Three pages of a signed-in person send small messages, padded, as fast as it goes."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(site.page()) for _ in range(3)]
        pump(sockets, frame(b'{"hidden":false}' + b" " * 3_980) * 16, seconds)


def tiny_flood(site: Site, seconds: float) -> None:
    """The same with the smallest messages: the cost is in their number."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(site.page()) for _ in range(3)]
        pump(sockets, frame(b"{}") * 1_000, seconds)


def worker_flood(site: Site, seconds: float) -> None:
    """A worker sends heartbeats of 100 KB and reads no answer."""
    with site.worker("flood") as raw:
        beat = json.dumps({"type": "Beaten", "padding": "x" * 100_000}).encode()
        pump([raw], frame(beat), seconds)


def worker_echoes(site: Site, seconds: float) -> None:
    """A worker sends the smallest heartbeats and reads no answer: the answers are longer."""
    with site.worker("echoes") as raw:
        pump([raw], frame(b'{"type":"Beaten"}') * 500, seconds)


def halves(site: Site, seconds: float) -> None:
    """Sockets of workers that send the beginning of a long message and nothing more."""
    with contextlib.ExitStack() as stack:
        for number in range(60):
            raw = stack.enter_context(site.worker(f"half-{number % 5}"))
            with contextlib.suppress(ConnectionError):  # the server may cut it off at once
                raw.sendall(frame(b"x" * 1_000_000)[:900_000])
        time.sleep(seconds)


def deaf_pages(site: Site, seconds: float) -> None:
    """Thirty pages that subscribe to everything and read nothing."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(site.page()) for _ in range(30)]
        for raw in sockets:
            raw.sendall(frame(b'{"sub":{"overview":0,"runs":0,"workers":0,"schedules":0}}'))
        time.sleep(seconds)


def deaf_readers(site: Site, seconds: float) -> None:
    """Twenty connections that ask for a large file a hundred times each and read nothing."""
    assert len(site.ask("GET", "/static/admin/js/vendor/jquery/jquery.js")[1]) > 200_000
    ask = f"GET /static/admin/js/vendor/jquery/jquery.js HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(site.connect()).sendall(ask * 100)
        time.sleep(seconds)


def deaf_downloads(site: Site, seconds: float) -> None:
    """Three downloads of a log of 19 MB that nobody reads."""
    run = make_log(site)
    head = f"Host: 127.0.0.1:{site.port}\r\nCookie: {site.cookie}\r\n\r\n"
    ask = f"GET /runs/{run}/download.log HTTP/1.1\r\n{head}".encode()
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            raw = stack.enter_context(site.connect())
            raw.sendall(ask)
            assert raw.recv(12) == b"HTTP/1.1 200"
        time.sleep(seconds)


def make_log(site: Site) -> str:
    """A run with 1,200 lines of 16 KB; its id."""
    write = (
        "from django.utils import timezone; from tests.server.pages import *;"
        "run = make_run(make_flow(timezone.now()), timezone.now()); make_lines(run, 1200, 'x' * 16000); print(run.pk)"
    )
    command = [sys.executable, str(ROOT / "manage.py"), "shell", "--no-imports", "-v0", "-c", write]
    env = {**environment(site.home), "PYTHONPATH": f"{ROOT}:{ROOT / 'client_sdk'}"}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()[-1]


def uploads(site: Site, seconds: float) -> None:
    """Without a login: 150 bodies just below the limit, each without its last byte."""
    size = (4 << 20) - 1
    head = f"POST /login/ HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\nContent-Length: {size}\r\n\r\n".encode()
    deadline = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        for _ in range(150):
            raw = stack.enter_context(site.connect())
            with contextlib.suppress(OSError):
                raw.sendall(head + b"x" * (size - 1))
        time.sleep(max(0.0, deadline - time.monotonic()))


def large_bodies(site: Site, seconds: float) -> None:
    """Bodies of 200 MB, declared and in chunks, to an address that is not there."""
    deadline = time.monotonic() + seconds
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    heads = (f"Content-Length: {200 << 20}", "Transfer-Encoding: chunked")
    while time.monotonic() < deadline:
        for head in heads:
            with site.connect() as raw, contextlib.suppress(OSError):
                raw.sendall(f"POST /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}\r\n\r\n".encode())
                for _ in range(3_200):
                    raw.sendall(chunk)


def connections(site: Site, seconds: float, count: int = 10_000) -> None:
    """As many connections as the machine allows, each with the beginning of a request."""
    deadline = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            try:
                raw = stack.enter_context(site.connect(timeout=2))
                raw.sendall(b"GET / HTTP/1.1\r\nA: b\r\n")
            except OSError:
                continue
        time.sleep(max(0.0, deadline - time.monotonic()))


def dribblers(site: Site, seconds: float) -> int:
    """Sixty connections with one whole request each; the header of the second comes byte by byte. How many are left."""
    deadline = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        alive = [stack.enter_context(site.connect()) for _ in range(60)]
        for raw in alive:
            raw.sendall(f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\n\r\n".encode())
            assert raw.recv(4096).startswith(b"HTTP/1.1 200")
            raw.sendall(b"GET / HTTP/1.1\r\nA: ")
        while alive and time.monotonic() < deadline:
            time.sleep(0.5)
            for raw in list(alive):
                try:
                    raw.sendall(b"b")
                except OSError:
                    alive.remove(raw)
        return len(alive)


CLIENTS: dict[str, Client] = {
    each.__name__: each
    for each in (
        page_flood,
        tiny_flood,
        worker_flood,
        worker_echoes,
        halves,
        deaf_pages,
        deaf_readers,
        deaf_downloads,
        uploads,
        large_bodies,
        connections,
        dribblers,
    )
}


# -------------------------------------------------------------------------------------------------------- measurement


@dataclass
class Cost:
    """MB of the server's memory and of its nameless files; seconds of the slowest answer to somebody honest."""

    before: float
    peak: float
    after: float
    spooled: float
    slowest: float
    unanswered: int


def measure(site: Site, client: Client, seconds: float, rest: float = 3.0, enough: float = 0.0) -> Cost:
    """Let the client do its harm in a thread of its own, watch the server, and give it ``rest`` seconds after, or
    until all but ``enough`` MB are given back."""
    before = peak = site.memory()
    spooled = slowest = 0.0
    unanswered = 0
    failure: list[BaseException] = []

    def act() -> None:
        try:
            client(site, seconds)
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    while thread.is_alive():
        peak, spooled = max(peak, site.memory()), max(spooled, site.spooled())
        begun = time.monotonic()
        try:
            site.ask("GET", "/healthz")
        except (OSError, http.client.HTTPException):
            unanswered += 1
        slowest = max(slowest, time.monotonic() - begun)
        thread.join(0.25)
    if failure:
        raise failure[0]
    deadline = time.monotonic() + rest
    after = site.memory()
    while time.monotonic() < deadline and after > before + enough:
        time.sleep(0.25)
        after = min(after, site.memory())
    return Cost(before, max(peak, after), after, spooled, slowest, unanswered)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each client is at it (default 60)")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CLIENTS)} (default all)")
    options = parser.parse_args()
    print(f"{'client':<16}{'before':>9}{'peak':>9}{'after':>9}{'spooled':>9}   slowest answer, unanswered")
    with tempfile.TemporaryDirectory(prefix="perfect-hostile-") as folder, serving(Path(folder)) as site:
        for name in options.names or CLIENTS:
            cost = measure(site, CLIENTS[name], options.seconds, rest=15.0)
            print(
                f"{name:<16}{cost.before:>6.0f} MB{cost.peak:>6.0f} MB{cost.after:>6.0f} MB{cost.spooled:>6.0f} MB"
                f"   {cost.slowest * 1e3:.0f} ms, {cost.unanswered}",
                flush=True,
            )


if __name__ == "__main__":
    main()
