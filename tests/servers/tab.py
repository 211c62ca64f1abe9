"""A browser's tab without a browser: signs in by a link, and listens on the live socket."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

from perfect_client.wire.frames import Frames, Handshake, Text, new_key, upgrade_request

from tests.journeys.house import House


def sign_in(house: House) -> str:
    """The session's cookies, for a header."""
    link = urlsplit(house.manage("loginurl", check=True).stdout.strip())
    server, cookies = http.client.HTTPConnection("127.0.0.1", house.port, timeout=30), dict[str, str]()

    def ask(method: str, path: str, body: str | None = None, **headers: str) -> None:
        headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        server.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = server.getresponse()
        answer.read()
        assert answer.status in (200, 302), answer.status
        for text in answer.headers.get_all("Set-Cookie") or []:
            name, _, rest = text.partition("=")
            cookies[name] = rest.partition(";")[0]

    ask("GET", f"{link.path}?{link.query}")
    body = urlencode({"t": link.query.partition("=")[2], "csrfmiddlewaretoken": cookies["perfect_csrf"]})
    ask("POST", link.path, body, Content_Type="application/x-www-form-urlencoded")
    server.close()
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


class Tab:
    def __init__(self, house: House, cookies: str, *topics: str) -> None:
        authority = f"127.0.0.1:{house.port}"
        self._socket = socket.create_connection(("127.0.0.1", house.port), timeout=30)
        key = new_key()
        headers = {"Cookie": cookies, "Origin": f"http://{authority}"}
        self._socket.sendall(upgrade_request(authority, "/ws/live/", headers, key))
        handshake, self._frames = Handshake(key), Frames()
        rest = None
        while rest is None:
            rest = handshake.feed(self._socket.recv(65536))
        self._early = rest
        self._send({"sub": dict.fromkeys(topics, 0)})

    def _send(self, message: dict[str, Any]) -> None:
        self._socket.sendall(self._frames.text(json.dumps(message)))

    def until(self, wanted: Callable[[dict[str, Any]], bool], within: float = 30.0) -> dict[str, Any]:
        """The first message that is wanted."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            data, self._early = self._early or self._socket.recv(65536), b""
            assert data, "the socket was closed"
            for event in self._frames.feed(data):
                assert isinstance(event, Text), event
                frame = json.loads(event.text)
                self._send({"ack": frame["n"]})
                for message in frame["m"]:
                    if wanted(message):
                        found: dict[str, Any] = message
                        return found
        raise AssertionError("no such message came")

    def close(self) -> None:
        self._socket.close()
