"""A server for the worker's tests: the protocol over a real socket, with everything it was told kept to look at."""

from __future__ import annotations

import base64
import hashlib
import itertools
import socket
import struct
import threading
import time

from perfect_client.wire import messages

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
DEADLINE_S = 15.0


class Attempt:
    def __init__(self, fence, flow):
        self.fence, self.run, self.flow = fence, f"run-{fence}", flow
        self.streams = {messages.FACTS: [], messages.OUTPUT: []}
        self.open_lines = []  # what it has written of lines that have not ended
        self.seen_at = []  # when each fact came, monotonic
        self.claimed = self.started = False
        self.connection = None  # of the process that claimed it last
        self.declined = None

    @property
    def facts(self):
        return self.streams[messages.FACTS]

    @property
    def lines(self):
        """The messages of everything printed or logged, each stream in its order."""
        return [f["message"] for s in messages.STREAMS for f in self.streams[s] if f["type"] == "Logged"]

    @property
    def end(self):
        ends = [fact for fact in self.facts if fact["type"] in ("RunEnded", "ProcessExited")]
        assert len(ends) <= 1, ends
        return ends[0] if ends else None


class FakeServer:
    """Accepts what real servers accept, offers when told to, acknowledges and asks again by the rules."""

    def __init__(self, token="t0ken", refuse=None, auto_start=True):
        self.token, self.refuse, self.auto_start = token, refuse, auto_start
        self.changed = threading.Condition()
        self.attempts = {}
        self.flows, self.problems, self.announced = [], [], 0
        self.joined, self.left, self.beats, self.free = [], [], 0, 0
        self.draining, self.lets_drain = [], True
        self.faults = []
        self._fences = itertools.count(1)
        self._connections = []
        self._listener = None
        self.port = 0
        self.open()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def open(self):
        """Listen, on the same port as before."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self):
        """Be away: no new connections, the old ones cut."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._connections):
            connection.cut()

    # ------------------------------------------------------------------------------------------------ what tests do

    def wait(self, what, seconds=DEADLINE_S):
        """Until ``what()`` is true; its value."""
        until = time.monotonic() + seconds
        with self.changed:
            while not what():
                left = until - time.monotonic()
                assert left > 0, f"waited {seconds:g} s in vain; {self.told()}"
                self.changed.wait(min(left, 0.05))
            return what()

    def told(self):
        return {fence: (attempt.declined, attempt.streams) for fence, attempt in self.attempts.items()}, self.faults

    def offer(self, flow, **parameters):
        """Offer a run when a worker with that flow is there."""
        self.wait(lambda: flow in self.names())
        return self.offer_unseen(flow, **parameters)

    def offer_unseen(self, flow, lineage=(), **parameters):
        self.wait(lambda: self._connections and self.announced)
        fence = next(self._fences)
        attempt = self.attempts[fence] = Attempt(fence, flow)
        self.send(
            messages.OfferRun(fence=fence, run=attempt.run, flow=flow, parameters=parameters, lineage=list(lineage))
        )
        return attempt

    def resume(self, *earlier, before=0, **parameters):
        """Run again what ``earlier`` ran, nearest first, answered by its results; wait for the end."""
        lineage = [messages.Ancestor(attempt.run, before) for attempt in earlier]
        attempt = self.offer(earlier[0].flow, lineage=lineage, **parameters)
        self.wait(lambda: attempt.end)
        return attempt

    def run(self, flow, **parameters):
        """Offer, and wait for the end."""
        attempt = self.offer(flow, **parameters)
        return attempt, self.wait(lambda: attempt.end)

    def until_line(self, attempt, line):
        self.wait(lambda: line in attempt.lines)

    def cancel(self, attempt, grace_s=10.0, reason="cancelled by ana"):
        """As the real server: every process of the worker is told."""
        for connection in list(self._connections):
            connection.send(messages.encode(messages.CancelRun(attempt.fence, reason, grace_s)))

    def drop(self, attempt):
        self.send(messages.DropRun(attempt.fence, "given to another worker"))

    def names(self):
        return {spec["name"] for spec in self.flows}

    def send(self, message):
        self._connections[-1].send(messages.encode(message))

    # --------------------------------------------------------------------------------------------- what workers say

    def _accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        connection = _Connection(sock)
        try:
            if not connection.handshake(self.token):
                return
            self._connections.append(connection)
            for text in connection.texts():
                message = messages.decode(text)
                with self.changed:
                    getattr(self, "_on_" + type(message).__name__)(connection, message)
                    self.changed.notify_all()
        except OSError:
            pass
        except Exception as wrong:
            self.faults.append(repr(wrong))
            raise
        finally:
            if connection in self._connections:
                self._connections.remove(connection)
            connection.cut()
            connection.file.close()

    def _on_Joined(self, connection, joined):
        self.joined.append(joined)
        if self.refuse is not None:
            connection.send(messages.encode(messages.Refuse(self.refuse, messages.FORBIDDEN)))
            connection.close(messages.FORBIDDEN, self.refuse)
            return
        verdicts = []
        for held in joined.held:
            known = self.attempts.get(held.fence)
            verdicts.append(
                messages.Verdict(held.fence, "unknown")
                if known is None
                else messages.Verdict(held.fence, "current", len(known.facts), len(known.streams[messages.OUTPUT]))
            )
        connection.send(messages.encode(messages.Accept(time.time(), verdicts, draining=self.lets_drain)))

    def _on_FlowsAnnounced(self, connection, announced):
        self.flows, self.problems = [vars(spec) for spec in announced.flows], announced.problems
        self.announced += 1

    def _on_SlotsFreed(self, connection, message):
        self.free = message.free

    def _on_Draining(self, connection, message):
        self.draining.append(message.running)

    def _on_Beaten(self, connection, message):
        self.beats += 1
        connection.send(messages.encode(messages.Echo(time.time())))

    def _on_LinesOpen(self, connection, message):
        self.attempts[message.fence].open_lines = [(line.message, line.level) for line in message.lines]

    def _on_Left(self, connection, message):
        self.left.append(message.reason)

    def _on_OfferClaimed(self, connection, message):
        attempt = self.attempts[message.fence]
        attempt.claimed, attempt.connection = True, connection
        if self.auto_start:
            self.start(attempt)

    def start(self, attempt):
        attempt.started = True
        attempt.started_at = time.monotonic()
        attempt.connection.send(messages.encode(messages.StartRun(attempt.fence)))

    def _on_OfferDeclined(self, connection, message):
        self.attempts[message.fence].declined = message.reason

    def _on_FactsRecorded(self, connection, batch):
        stream = self.attempts[batch.fence].streams[batch.stream]
        expected = len(stream) + 1
        if batch.first > expected:
            connection.send(messages.encode(messages.Resend(batch.fence, expected, batch.stream)))
            return
        stream.extend(batch.facts[expected - batch.first :])
        if batch.stream == messages.FACTS:
            seen = self.attempts[batch.fence].seen_at
            seen.extend([time.monotonic()] * (len(stream) - len(seen)))
        connection.send(messages.encode(messages.Acknowledge(batch.fence, len(stream), batch.stream)))


class _Connection:
    """The server's side of RFC 6455, as little of it as the worker can make use of."""

    def __init__(self, sock):
        self._sock, self.file = sock, sock.makefile("rb")
        self._lock = threading.Lock()

    def handshake(self, token):
        head = {}
        line = self.file.readline()
        while line not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            head[name.strip().lower()] = value.strip()
            line = self.file.readline()
        if head.get("authorization") != "Bearer " + token:
            self._sock.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return False
        accept = base64.b64encode(hashlib.sha1(head["sec-websocket-key"].encode() + _GUID).digest())
        self._sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        return True

    def texts(self):
        while True:
            opcode, payload = self._frame()
            if opcode == 8:
                self._send(8, payload)
                return
            if opcode == 9:
                self._send(10, payload)
            elif opcode == 1:
                yield payload

    def _frame(self):
        first, second = self._exactly(2)
        size = second & 127
        if size > 125:
            size = int.from_bytes(self._exactly(2 if size == 126 else 8), "big")
        mask = self._exactly(4)
        masked = self._exactly(size)
        key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        return first & 15, (int.from_bytes(masked, "big") ^ key).to_bytes(size, "big")

    def _exactly(self, count):
        data = self.file.read(count)
        if len(data) < count:
            raise ConnectionResetError
        return data

    def send(self, text):
        self._send(1, text.encode())

    def close(self, code, reason):
        self._send(8, struct.pack(">H", code) + reason.encode())

    def _send(self, opcode, payload):
        size = len(payload)
        head = bytes([128 | opcode])
        if size < 126:
            head += bytes([size])
        else:
            head += struct.pack(">BH", 126, size) if size < 1 << 16 else struct.pack(">BQ", 127, size)
        with self._lock:
            self._sock.sendall(head + payload)

    def cut(self):
        for close in (lambda: self._sock.shutdown(socket.SHUT_RDWR), self._sock.close):
            try:
                close()
            except OSError:
                pass
