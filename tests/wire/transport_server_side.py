"""A raw socket server for the tests of `transport`: what it says, byte by byte, is up to the test."""

from __future__ import annotations

import base64
import hashlib
import selectors
import socket
import struct
import threading
import time
from typing import Any, Callable

from perfect_client.wire.connection import CONNECTING, OPEN, Link
from perfect_client.wire.frames import Closed

from tests.wire.frames_server_side import ClientFrame

PATIENCE_S = 15.0  # a deadline for what takes milliseconds
Script = Callable[["Peer"], None]


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE_S)
        self.request = b""

    def read_request(self) -> bytes:
        while b"\r\n\r\n" not in self.request:
            data = self.sock.recv(4096)
            if not data:
                break
            self.request += data
        return self.request

    def upgrade(self, *, accept: str | None = None, behind: bytes = b"", size: int = 1 << 20) -> None:
        """Answer the opening handshake, in pieces of ``size`` bytes, with frames right ``behind`` it."""
        request = self.read_request().decode()
        key = request.split("Sec-WebSocket-Key: ")[1].split("\r\n")[0]
        guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = accept or base64.b64encode(hashlib.sha1((key + guid).encode()).digest()).decode()
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Accept: {accept}", "", ""]
        self.trickle("\r\n".join(lines).encode() + behind, size)

    def trickle(self, data: bytes, size: int = 1) -> None:
        for at in range(0, len(data), size):
            self.sock.sendall(data[at : at + size])

    def answer(self, status: str, body: str = "", **headers: str) -> None:
        self.read_request()
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *(f"{k}: {v}" for k, v in headers.items())]
        self.sock.sendall(("\r\n".join([*lines, "", ""]) + body).encode())

    def read_frames(self, count: int) -> list[ClientFrame]:
        """The next frames of the client; fewer when it ends before."""
        return [found for found in (self._read_frame() for _ in range(count)) if found is not None]

    def _read_frame(self) -> ClientFrame | None:
        head = self._exactly(2)
        if len(head) < 2:
            return None
        assert head[1] & 0x80, "a client masks every frame"
        size, form = head[1] & 0x7F, 7
        if size > 125:
            form = 16 if size == 126 else 64
            size = int.from_bytes(self._exactly(form // 8), "big")
        mask, payload = self._exactly(4), self._exactly(size)
        assert len(payload) == size, "the client never ends inside a frame"
        pad = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        payload = (int.from_bytes(payload, "big") ^ pad).to_bytes(size, "big")
        return ClientFrame(bool(head[0] >> 7), head[0] >> 4 & 7, head[0] & 15, mask, payload, form)

    def _exactly(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            data = self.sock.recv(size - len(found))
            if not data:
                break
            found += data
        return bytes(found)

    def wait_for_end(self) -> bytes:
        rest = b""
        try:
            while True:
                data = self.sock.recv(65536)
                if not data:
                    return rest
                rest += data
        except OSError:
            return rest

    def reset(self) -> None:
        """RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class RawServer:
    """Runs one script a connection, in a thread; what a script raises is raised again by ``close``."""

    def __init__(self, *scripts: Script, wrap: Callable[[socket.socket], Any] | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE_S)
        self._scripts, self._wrap = scripts, wrap
        self.failure: BaseException | None = None
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            for script in self._scripts:
                sock, _ = self._listener.accept()
                with sock:
                    if self._wrap is None:
                        script(Peer(sock))
                    else:
                        with self._wrap(sock) as wrapped:
                            script(Peer(wrapped))
        except BaseException as failure:
            self.failure = failure

    def close(self) -> None:
        self._thread.join(PATIENCE_S)
        self._listener.close()
        assert not self._thread.is_alive(), "the script never ended"
        if self.failure is not None:
            raise self.failure

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if kind is None:
            self.close()
        else:
            self._listener.close()


class Driver:
    """The worker's loop around one link."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.events: list[Any] = []
        self.longest = 0.0  # seconds spent in one call of the link
        self._awake = threading.Event()
        link.start(self._awake.set)

    def connected(self) -> Driver:
        assert self._awake.wait(PATIENCE_S)
        assert self.link.state != CONNECTING
        return self

    def turn(self, seconds: float = 0.2) -> None:
        link = self.link
        if link.state != OPEN:
            return
        with selectors.DefaultSelector() as selector:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.wants_write else 0)
            selector.register(link.fileno(), wanted)
            for _, ready in selector.select(seconds):
                if ready & selectors.EVENT_READ:
                    self._note(link.on_readable)
                if ready & selectors.EVENT_WRITE:
                    self._note(link.on_writable)

    def until(self, done: Callable[[], Any]) -> Driver:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < deadline, (self.link.state, self.link.error, self.events)
            self.turn()
        return self

    def until_closed(self) -> Closed:
        self.until(lambda: self.events and isinstance(self.events[-1], Closed))
        closed: Closed = self.events[-1]
        return closed

    def _note(self, call: Callable[[], Any]) -> None:
        began = time.monotonic()
        self.events += call()
        self.longest = max(self.longest, time.monotonic() - began)


def drive(url: str, token: str = "pft_secret", **options: Any) -> Driver:
    """A link that is connected, or failed to be, and was read once."""
    driver = Driver(Link(url, token, **options)).connected()
    driver.events += driver.link.on_readable()
    return driver
