"""A real server process: how it starts, what it refuses below Django, how it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHUNK = b"x" * 65536


class Home:
    def __init__(self, path: Path) -> None:
        self.path = path
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PERFECT_", "DJANGO_"))}
        self.env = {**kept, "PERFECT_HOME": str(path), "PYTHONPATH": str(ROOT / "client_sdk"), "PYTHONUNBUFFERED": "1"}
        self.log = path / "log"

    def command(self, *words: str) -> list[str]:
        return [sys.executable, str(ROOT / "manage.py"), *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*words), env=self.env, capture_output=True, text=True, timeout=60, cwd=ROOT)

    @contextlib.contextmanager
    def serving(self, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
        self.path.joinpath("server.json").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self.command("serve", "--port", "0", *words), env=self.env, stdout=log, stderr=log, cwd=ROOT
            )
        try:
            known = until(lambda: process.poll() is not None or self._known(process.pid), what=self.log.read_text)
            assert isinstance(known, dict), self.log.read_text()
            yield process, int(known["url"].rsplit(":", 1)[1])
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(timeout=20)

    def _known(self, pid: int) -> dict[str, Any] | None:
        with contextlib.suppress(OSError, ValueError):
            known: dict[str, Any] = json.loads((self.path / "server.json").read_text())
            return known if known["pid"] == pid else None
        return None


def until(look: Callable[[], Any], within: float = 30, what: Callable[[], str] = lambda: "") -> Any:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {within} s: {what()}")


def resident(pid: int) -> int:
    """Bytes of memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def server(home: Home) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    with home.serving() as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def dribbler(server: tuple[subprocess.Popen[bytes], int]) -> Future[float]:
    """Sends headers that never end, from the first test on; the result is after how many seconds it was cut."""

    def dribble() -> float:
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", server[1]), timeout=0.5) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\n")
            while time.monotonic() - began < 30:
                try:
                    raw.sendall(b"A: b\r\n")
                    if raw.recv(1) == b"":
                        break
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
        return time.monotonic() - began

    return ThreadPoolExecutor(1).submit(dribble)


@pytest.fixture(scope="module")
def token(home: Home, server: Any) -> str:
    return home.run("createtoken", "t", "--scope", "admin").stdout.split()[-1]


def ask(port: int, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, **more: Any) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        with contextlib.suppress(ConnectionError):  # a refused body is not read to its end
            connection.request(method, path, body, headers or {}, **more)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def test_the_first_start_prepares_everything(home: Home, server: Any) -> None:
    text = home.log.read_text()
    modes = {name: (home.path / name).stat().st_mode & 0o777 for name in ("flows.db", "secret_key", "worker-token")}
    assert set(modes.values()) == {0o600}
    assert "/welcome/?t=" in text
    assert len(text.splitlines()) <= 12
    assert home.run("loginurl").stdout.startswith(f"http://127.0.0.1:{server[1]}/welcome/?t=")


def test_its_own_endpoints_answer(server: Any) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/login/", "/static/admin/css/base.css"):
        response, body = ask(server[1], "GET", path)
        assert (response.status, bool(body)) == (200, True), path


def test_static_files_may_be_kept_and_carry_their_version(server: Any) -> None:
    response, _ = ask(server[1], "GET", "/static/admin/css/base.css")
    assert "max-age=86400" in response.headers["Cache-Control"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    _, page = ask(server[1], "GET", "/login/")
    assert b".css?v=" in page


def test_a_token_goes_the_short_way_with_the_same_answers(server: Any, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    for path, status in (("/api/runs", 200), ("/api/nothing", 404), ("/api/", 404), ("/api/openapi.json", 200)):
        response, body = ask(server[1], "GET", path, headers=headers)
        assert response.status == status, body
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert json.loads(body)
    response, body = ask(server[1], "PUT", "/api/runs", headers=headers)
    assert (response.status, json.loads(body)["status"]) == (405, 405)


def test_a_wrong_token_opens_nothing_on_the_short_way(server: Any) -> None:
    for path in ("/api/runs", "/api/openapi.json", "/api/docs", "/api/flows"):
        response, _ = ask(server[1], "GET", path, headers={"Authorization": "Bearer pft_wrong"})
        assert response.status == 401


def test_a_foreign_host_name_is_refused_with_and_without_a_token_and_costs_one_line(
    home: Home, server: Any, token: str
) -> None:
    before = len(home.log.read_text().splitlines())
    foreign = {"Host": "evil.invalid"}
    for _ in range(5):
        response, body = ask(server[1], "GET", "/api/runs", headers={**foreign, "Authorization": f"Bearer {token}"})
        assert (response.status, json.loads(body)["status"]) == (400, 400)
        assert response.headers["Content-Type"] == "application/problem+json"
        assert ask(server[1], "GET", "/login/", headers=foreign)[0].status == 400
    lines = home.log.read_text().splitlines()[before:]
    assert len(lines) == 1 and "evil.invalid" in lines[0]


def test_the_short_way_leads_nowhere_but_to_the_api(server: Any, token: str) -> None:
    for path in ("/", "/admin/", "/runs/", "/api/../admin/", "/api%2F..%2Fruns/"):
        response, _ = ask(server[1], "GET", path, headers={"Authorization": f"Bearer {token}"})
        assert response.status in (302, 404), path


def test_a_body_that_declares_too_much_is_refused_before_it_is_read(server: Any) -> None:
    process, port = server
    before = resident(process.pid)
    response, body = ask(port, "POST", "/nowhere", b"", {"Content-Length": str(200 << 20)})
    assert (response.status, json.loads(body)["status"]) == (413, 413)
    assert resident(process.pid) - before < 20 << 20


def test_a_body_that_grows_too_large_is_cut(server: Any) -> None:
    process, port = server
    before = resident(process.pid)
    response, _ = ask(port, "POST", "/nowhere", iter([CHUNK] * 1_600), encode_chunked=True)
    assert response.status == 413
    assert resident(process.pid) - before < 20 << 20


def test_a_body_within_the_limit_is_read(server: Any, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    response, body = ask(server[1], "POST", "/api/runs", json.dumps({"items": [{"flow": "x" * (3 << 20)}]}), headers)
    assert response.status == 422, body[:200]  # read, and its name of a flow is too long


@pytest.mark.parametrize(
    "request_text",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 40_000 + b"\r\n\r\n",
        b"GARBAGE\r\n\r\n",
        b"GET /%00\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_a_malformed_request_costs_one_connection(server: Any, request_text: bytes) -> None:
    process, port = server
    with socket.create_connection(("127.0.0.1", port), timeout=20) as raw:
        raw.sendall(request_text)
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = raw.recv(1000)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert process.poll() is None
    assert ask(port, "GET", "/healthz")[0].status == 200


def test_a_port_in_use_is_told_with_who_uses_it(tmp_path: Path, server: Any) -> None:
    ended = Home(tmp_path).run("serve", "--port", str(server[1]))
    assert ended.returncode == 1
    assert f"Port {server[1]} is in use by " in ended.stderr and "--port" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_bad_setting_ends_every_command_with_a_sentence(home: Home) -> None:
    home.env["PERFECT_DEBUG"] = "maybe"
    try:
        ended = home.run("serve")
    finally:
        del home.env["PERFECT_DEBUG"]
    assert ended.returncode == 1
    assert ended.stderr == "perfect: PERFECT_DEBUG=maybe is neither yes nor no. Give 1 or 0.\n"


def test_it_ends_in_good_order_and_starts_again_quickly(tmp_path: Path) -> None:
    home = Home(tmp_path)
    took: list[float] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        began = time.monotonic()
        with home.serving() as (process, port):
            until(lambda: ask(port, "GET", "/healthz")[0].status == 200)
            took.append(time.monotonic() - began)
            with socket.create_connection(("127.0.0.1", port)):
                process.send_signal(number)
                assert process.wait(timeout=10) == 0
        assert not (home.path / "server.json").exists()
        assert "Traceback" not in home.log.read_text()
    assert took[1] < took[0]  # the first makes the database, 4 s on an idle machine; the second takes 1 s


def test_headers_that_dribble_are_cut(dribbler: Future[float]) -> None:
    assert 8 < dribbler.result(timeout=40) < 20
