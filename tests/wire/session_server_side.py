"""A small honest server for the tests of `session`, and the spools and the wire around it.

Honest: it applies records in order and once, asks for what is missing, acknowledges only what it has committed, and
tells at each join what it has. What happens to it (crashes, cuts, restores) is up to the test.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from perfect_client.wire import messages
from perfect_client.wire.messages import Accept, Acknowledge, FactsRecorded, Held, Joined, Resend, Verdict
from perfect_client.wire.session import Session

Key = Any  # (fence, stream)
FENCES = (1, 2)


class Shelf:
    """A spool in memory."""

    def __init__(self) -> None:
        self.records: list[bytes] = []

    @property
    def count(self) -> int:
        return len(self.records)

    def read(self, first: int, max_count: int, max_bytes: int) -> list[bytes]:
        found: list[bytes] = []
        for record in self.records[first - 1 : first - 1 + max_count] if first >= 1 else []:
            max_bytes -= len(record)
            if found and max_bytes < 0:
                break
            found.append(record)
        return found


class Server:
    def __init__(self, in_flight: int = 4, batch: int = 3) -> None:
        self.limits = {"max_in_flight": in_flight, "max_batch_facts": batch, "max_batch_bytes": 2000}
        self.disk: dict[Key, list[Any]] = {}
        self.open: dict[Key, list[Any]] = {}  # applied in a transaction that is not committed
        self.replies: list[Any] = []  # what is said once it is
        self.verdicts: dict[int, str] = {}
        self.refuse = 0  # so many batches find the server unable
        self.batches: list[FactsRecorded] = []

    def has(self, key: Key) -> list[Any]:
        return self.disk.get(key, []) + self.open.get(key, [])

    def take(self, frame: bytes) -> list[Any]:
        """What it says at once; the rest waits for the commit."""
        message = messages.decode(frame)
        if isinstance(message, Joined):
            return [Accept(0.0, [self.verdict(held) for held in message.held], **self.limits)]  # type: ignore[arg-type]
        if isinstance(message, FactsRecorded):
            self.batches.append(message)
            self.apply(message)
        return []

    def verdict(self, held: Held) -> Verdict:
        facts, output = (len(self.disk.get((held.fence, stream), [])) for stream in messages.STREAMS)
        return Verdict(held.fence, self.verdicts.get(held.fence, "current"), facts, output)

    def apply(self, batch: FactsRecorded) -> None:
        key = (batch.fence, batch.stream)
        last = len(self.has(key))
        if self.verdicts.get(batch.fence) == "stale":
            self.replies.append(messages.DropRun(batch.fence, "stale"))
        elif self.refuse:  # it failed before it could look what it has: it asks for this very batch again
            self.refuse -= 1
            self.replies.append(Resend(batch.fence, batch.first, batch.stream))
        elif batch.first > last + 1:
            self.replies.append(Resend(batch.fence, last + 1, batch.stream))
        else:
            self.open.setdefault(key, []).extend(batch.facts[last + 1 - batch.first :])
            self.replies.append(Acknowledge(batch.fence, len(self.has(key)), batch.stream))

    def commit(self) -> list[Any]:
        for key, facts in self.open.items():
            self.disk.setdefault(key, []).extend(facts)
        self.open = {}
        said, self.replies = self.replies, []
        return said

    def crash(self) -> None:
        self.open, self.replies = {}, []


class World:
    """A session, its spools, a server, and a wire between them that can be cut."""

    def __init__(self, **limits: int) -> None:
        self.now = 0.0
        self.server = Server(**limits)
        self.session = Session(Joined("w", "b"))
        self.shelves: dict[Key, Shelf] = {}
        self.up: deque[bytes] = deque()
        self.down: deque[Any] = deque()
        self.connected = False
        self.orders: list[Any] = []
        self.dropped: set[int] = set()
        for fence in FENCES:
            for stream in messages.STREAMS:
                self.shelves[fence, stream] = Shelf()
                self.session.watch(fence, f"r{fence}", stream, self.shelves[fence, stream])

    def held(self) -> list[Held]:
        counts = {key: shelf.count for key, shelf in self.shelves.items()}
        return [
            Held(fence, f"r{fence}", counts[fence, "facts"], counts[fence, "output"], True)
            for fence in FENCES
            if fence not in self.dropped
        ]

    def connect(self) -> None:
        if not self.connected:
            self.connected = True
            self.session.open(self.now, self.held())

    def cut(self, code: int = 1006) -> None:
        """What is on the wire is lost, both ways."""
        if self.connected:
            self.session.closed(code)
        self.up.clear()
        self.down.clear()
        self.server.replies = []
        self.connected = False

    def write(self, key: Key, records: int, size: int = 10) -> None:
        shelf = self.shelves[key]
        for _ in range(records):
            shelf.records.append(messages.dumps({"n": shelf.count + 1, "pad": "x" * size}).encode())

    def send(self) -> bytes | None:
        frame = self.session.next_frame(self.now) if self.connected else None
        if frame is not None:
            self.up.append(frame)
        return frame

    def arrive(self) -> None:
        if self.up:
            self.down.extend(self.server.take(self.up.popleft()))

    def commit(self) -> None:
        self.down.extend(self.server.commit())

    def hear(self) -> None:
        if self.down:
            orders = self.session.receive(self.down.popleft(), self.now)
            self.orders += orders
            for order in orders:
                if isinstance(order, messages.DropRun):
                    self.session.forget(order.fence)
                    self.dropped.add(order.fence)

    def settle(self, turns: int = 400) -> None:
        """Everybody does his work until nobody has any."""
        for _ in range(turns):
            self.connect()
            self.now += 40.0  # longer than any pause; the server is heard meanwhile
            self.session.heard(self.now)
            busy = self.send() is not None
            while self.up or self.down or self.server.replies:
                self.arrive()
                self.commit()
                self.hear()
                busy = True
            if not busy:
                return

    def written(self, key: Key) -> list[Any]:
        return [messages.json.loads(record) for record in self.shelves[key].records]
