"""Real servers whose database cannot be written to: they say so, go on reading, and recover by themselves."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from perfect_client.wire import messages as p

from runs.access import PREFIX, digest_of

from .test_serving import Home, ask, until

# The same server with shorter patience, for quick tests.
IMPATIENT = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "perfect_site.settings"
import django
django.setup()
from runs.db import threads as lanes
lanes.WRITE_WITHIN, lanes.PROBE_EVERY, lanes.PROBE_WITHIN, lanes.RETRY_EVERY = 2.0, 0.5, 1.0, 0.2
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", *sys.argv[1:]])
"""


class Impatient(Home):
    def command(self, *words: str) -> list[str]:
        if words[0] == "serve":
            return [sys.executable, "-c", IMPATIENT, *words]
        return super().command(*words)


class Site:
    """A running server, and what its clients need."""

    def __init__(self, home: Home, port: int) -> None:
        self.home, self.port = home, port
        self.token, self.worker_token = self.make_token("admin"), self.make_token("worker")

    def make_token(self, scope: str, revoked: bool = False) -> str:
        """As ``manage.py createtoken`` does, without the time that a command takes."""
        secret = PREFIX + secrets.token_urlsafe(32)
        row = (scope, scope, secret[:12], digest_of(secret), "2026-01-01", "2026-01-01" if revoked else None)
        with contextlib.closing(sqlite3.connect(self.home.path / "flows.db", timeout=20)) as other, other:
            names = "name, scope, prefix, digest, created_at, revoked_at"
            other.execute(f"INSERT INTO runs_token ({names}) VALUES (?, ?, ?, ?, ?, ?)", row)
        return secret

    def api(self, method: str, path: str, body: Any = None, token: str = "") -> Any:
        headers = {"Authorization": f"Bearer {token or self.token}", "Content-Type": "application/json"}
        response, content = ask(self.port, method, path, json.dumps(body) if body is not None else None, headers)
        return response, json.loads(content)

    def trigger(self, key: str, text: str = "") -> Any:
        return self.api("POST", "/api/flows/plain/runs", {"idempotency_key": key, "parameters": {"text": text}})

    def ready(self) -> tuple[int, str]:
        response, content = ask(self.port, "GET", "/readyz")
        return response.status, content.decode()

    def runs(self) -> int:
        with contextlib.closing(sqlite3.connect(self.home.path / "flows.db", timeout=20)) as other:
            return int(other.execute("SELECT COUNT(*) FROM runs_run").fetchone()[0])

    def says(self, *messages: object, headers: str = "") -> bytes:
        """All that the workers' socket answers to a client that says all this as soon as the handshake ends."""
        handshake = (
            f"GET /ws/worker/ HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
        )
        answer = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as raw:
            raw.sendall(handshake.encode())
            while b"\r\n\r\n" not in answer:
                answer += raw.recv(1)
            raw.sendall(b"".join(frame(message) for message in messages))
            with contextlib.suppress(TimeoutError, ConnectionError):
                while more := raw.recv(65536):
                    answer += more
                    if b'"Echo"' in answer:
                        break
        return answer


def frame(message: object) -> bytes:
    """One text frame of a client, with a mask of zeros (RFC 6455 §5.2)."""
    payload = p.encode(message).encode()
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return b"\x81" + size + bytes(4) + payload


PLAIN = p.FlowSpec(
    "Plain", parameters={"type": "object", "properties": {"text": {"type": "string"}}, "additionalProperties": False}
)


@contextlib.contextmanager
def site(home: Home) -> Iterator[Site]:
    with home.serving() as (_, port):
        here = Site(home, port)
        worker = [p.Joined(str(uuid.uuid4()), "b-1", name="w"), p.FlowsAnnounced([PLAIN]), p.Beaten()]
        assert b'"Echo"' in here.says(*worker, headers=f"Authorization: Bearer {here.worker_token}\r\n")
        until(lambda: here.api("GET", "/api/flows")[1]["items"])
        yield here


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(Impatient(tmp_path_factory.mktemp("home"))) as here:
        yield here


def sign_in(here: Site) -> str:
    """The cookies of a person, who is an administrator."""
    link = here.home.log.read_text().rpartition("/welcome/")[2].split()[0]
    page, _ = ask(here.port, "GET", "/welcome/")
    csrf = page.headers["Set-Cookie"].partition(";")[0]
    body = f"t={link.partition('?t=')[2]}&csrfmiddlewaretoken={csrf.partition('=')[2]}"
    form = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": csrf}
    response, content = ask(here.port, "POST", "/welcome/", body, form)
    assert response.status == 302, content
    cookies = [value.partition(";")[0] for name, value in response.getheaders() if name == "Set-Cookie"]
    return "; ".join(dict.fromkeys([*cookies, *([] if any("csrf" in each for each in cookies) else [csrf])]))


def press_run(here: Site, cookies: str) -> Any:
    csrf = cookies.partition("perfect_csrf=")[2].partition(";")[0]
    headers = {"Cookie": cookies, "X-CSRFToken": csrf, "Content-Type": "application/x-www-form-urlencoded"}
    return ask(here.port, "POST", "/flows/plain/run/", "text=", headers)


def tracebacks(here: Site) -> int:
    return here.home.log.read_text().count("Traceback")


def test_while_a_stranger_holds_the_lock_reads_go_on_and_writes_are_refused_with_a_sentence(here: Site) -> None:
    cookies = sign_in(here)
    fresh = here.make_token("read")  # its use was never noted
    before = here.runs()
    with contextlib.closing(sqlite3.connect(here.home.path / "flows.db", isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")

        assert here.api("GET", "/api/runs", token=fresh)[0].status == 200
        assert ask(here.port, "GET", "/", headers={"Cookie": cookies})[0].status == 200
        refused, problem = here.trigger("locked")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
        assert problem["detail"].startswith("The database takes no writes")
        page, content = press_run(here, cookies)
        assert (page.status, page.headers["Retry-After"]) == (503, "5")
        assert b"The database takes no writes" in content
        assert here.ready() == (503, "Writes to the database do not come back: it is locked, or its disk is slow.\n")
        assert ask(here.port, "GET", "/healthz")[0].status == 200

    until(lambda: here.ready()[0] == 200)
    assert here.runs() == before  # what was refused has not happened, nor does it happen later
    assert here.trigger("locked")[0].status == 201
    assert here.runs() == before + 1
    assert tracebacks(here) == 0


@pytest.mark.parametrize("who", ["nobody", "a wrong token", "a token for reading", "a revoked token", "a browser"])
def test_nothing_of_a_socket_is_heard_before_its_token_was_accepted(here: Site, who: str) -> None:
    bearer = "Authorization: Bearer {}\r\n"
    headers = {
        "nobody": "",
        "a wrong token": bearer.format("pft_wrong"),
        "a token for reading": bearer.format(here.token),
        "a revoked token": bearer.format(here.make_token("worker", revoked=True)),
        "a browser": bearer.format(here.worker_token) + f"Origin: http://127.0.0.1:{here.port}\r\n",
    }[who]

    said = p.Joined(str(uuid.uuid4()), "b-1", name="intruder"), p.FlowsAnnounced([p.FlowSpec("Theirs")]), p.Beaten()
    answer = here.says(*said, headers=headers)

    assert b'"Refuse"' in answer and b'"Accept"' not in answer and b'"Echo"' not in answer
    assert here.api("GET", "/api/flows")[1]["items"][0]["name"] == "Plain"
    names = [worker["name"] for worker in here.api("GET", "/api/workers")[1]["items"]]
    assert "intruder" not in names
    assert tracebacks(here) == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 12 MB."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m,mode=700", "none", tmp_path], capture_output=True)
    if mounted.returncode:
        if os.environ.get("CI") and os.geteuid() == 0:
            pytest.fail(f"no tmpfs can be mounted: {mounted.stderr.decode()}")
        pytest.skip("no tmpfs can be mounted here")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def fill(disk: Path) -> Path:
    """Leave no room on it."""
    with (disk / "filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(b"x" * 4096):
            pass
    return disk / "filler"


def test_a_full_disk_is_said_and_all_goes_on_when_there_is_room(small_disk: Path, tmp_path_factory: Any) -> None:
    home = Impatient(small_disk)
    home.log = tmp_path_factory.mktemp("log") / "log"
    with site(home) as here:
        cookies = sign_in(here)
        accepted = 0
        filler = fill(small_disk)

        def refused(send: Callable[[], Any]) -> Any:
            nonlocal accepted  # the database's files have room left for a few
            response, content = send()
            accepted += response.status < 400
            return (response, content) if response.status >= 400 else None

        response, problem = until(lambda: refused(lambda: here.trigger(f"k{accepted}", "x" * 200_000)))
        assert (response.status, response.headers["Retry-After"]) == (507, "30"), problem
        assert problem["detail"].startswith("The disk of the database is full")
        assert here.api("GET", "/api/runs")[0].status == 200
        assert ask(here.port, "GET", "/", headers={"Cookie": cookies})[0].status == 200
        assert ask(here.port, "GET", "/healthz")[0].status == 200
        until(lambda: refused(lambda: here.trigger(f"k{accepted}")))
        response, content = until(lambda: refused(lambda: press_run(here, cookies)))
        assert (response.status, response.headers["Retry-After"]) == (507, "30"), content
        assert problem["detail"].encode() in content
        assert until(lambda: here.ready()[0] == 503 and here.ready()) == (503, f"{problem['detail']}\n")
        assert here.runs() == accepted

        filler.unlink()
        until(lambda: here.ready()[0] == 200)
        assert here.trigger(f"k{accepted}", "x" * 200_000)[0].status == 201
        assert here.runs() == accepted + 1
        assert tracebacks(here) == 0
        assert len(home.log.read_text().splitlines()) < 40

    filler = fill(small_disk)
    ended = home.run("serve", "--port", "0")
    assert (ended.returncode, "Traceback" in ended.stderr) == (1, False)
    assert "Make room" in ended.stderr


def test_a_first_start_on_a_full_disk_leaves_nothing_that_harms_the_next(small_disk: Path) -> None:
    filler = fill(small_disk)
    home = Home(small_disk)
    ended = home.run("serve", "--port", "0")
    assert (ended.returncode, "Traceback" in ended.stderr) == (1, False)
    assert "Make room" in ended.stderr, ended.stderr

    filler.unlink()
    with home.serving() as (_, port):
        assert ask(port, "GET", "/readyz")[0].status == 200
