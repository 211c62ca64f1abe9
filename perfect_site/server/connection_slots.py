"""How many connections there may be, from whom and for how long. Pure: ``request_limits`` cuts them.

A new connection always gets in while another one waits for a request, so nobody can hold the door shut; who is in
the middle of something keeps its place. Some places are neither for pages' sockets nor for requests without a token,
so a worker gets in when all else is full.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

MAX_CONNECTIONS = 2_000
RESERVE = 200  # of them for workers, scripts with a token, and who has not said yet what it wants
PER_ADDRESS = 500  # of them; an office behind one address has a few for each browser


class Phase(Enum):
    """What a connection is at, and for how many seconds at most."""

    HEADERS = 10.0  # of a request, however they dribble
    BODY = 60.0
    ANSWER = None
    IDLE = 75.0  # kept alive between two requests
    CLOSING = 5.0
    PAGE = -1.0  # a browser's socket
    WORKER = -2.0  # a worker's socket

    @property
    def is_held(self) -> bool:
        """Whether the connection keeps its place when somebody new wants one."""
        return self in _HELD


_HELD = frozenset({Phase.ANSWER, Phase.PAGE, Phase.WORKER})


@dataclass(eq=False)
class Seat:
    address: str
    cut: Callable[[], None]
    since: float
    phase: Phase = Phase.HEADERS


class Seats:
    """All connections of this process, the one that was useless for longest first."""

    def __init__(self, is_exempt: Callable[[str], bool] = lambda address: False) -> None:
        self._seats: OrderedDict[Seat, None] = OrderedDict()
        self._of: Counter[str] = Counter()
        self._held = 0
        self._is_exempt = is_exempt  # who may have more than its share: this machine, proxies

    def __len__(self) -> int:
        return len(self._seats)

    def __iter__(self) -> Iterator[Seat]:
        return iter(list(self._seats))

    def take(self, address: str, cut: Callable[[], None], now: float) -> Seat | None:
        """A place for a new connection, whose ``cut`` ends it; None if there is none."""
        if self._has_its_share(address) and not self._free_one(address):
            return None
        if len(self._seats) >= MAX_CONNECTIONS and not self._free_one():
            return None
        seat = Seat(address, cut, now)
        self._seats[seat] = None
        self._of[address] += 1
        return seat

    def leave(self, seat: Seat) -> None:
        if seat in self._seats:
            del self._seats[seat]
            self._forget(seat.address)
            self._held -= seat.phase.is_held

    def move(self, seat: Seat, phase: Phase, now: float) -> None:
        """The connection is at something else now. One that was of use goes to the end of the line."""
        if seat not in self._seats:
            return
        self._held += phase.is_held - seat.phase.is_held
        seat.phase, seat.since = phase, now
        if phase is Phase.IDLE:
            self._seats.move_to_end(seat)

    def admit(self, seat: Seat, phase: Phase, now: float, *, reserved: bool = False) -> bool:
        """Let the connection hold its place, for an answer or as a socket; ``reserved`` places are for tokens."""
        if not reserved and self._held >= MAX_CONNECTIONS - RESERVE:
            return False
        self.move(seat, phase, now)
        return True

    def belongs(self, seat: Seat, address: str) -> bool:
        """The connection, a proxy's, turns out to be of ``address``; False if that one has its share already."""
        if address != seat.address:
            if self._has_its_share(address):
                return False
            self._forget(seat.address)
            seat.address = address
            self._of[address] += 1
        return True

    def overdue(self, now: float) -> list[Seat]:
        return [
            seat
            for seat in self._seats
            if seat.phase.value is not None and seat.phase.value > 0 and now - seat.since > seat.phase.value
        ]

    def _has_its_share(self, address: str) -> bool:
        return self._of[address] >= PER_ADDRESS and not self._is_exempt(address)

    def _free_one(self, address: str | None = None) -> bool:
        for seat in self._seats:
            if not seat.phase.is_held and address in (None, seat.address):
                self.leave(seat)
                seat.cut()
                return True
        return False

    def _forget(self, address: str) -> None:
        self._of[address] -= 1
        if not self._of[address]:
            del self._of[address]
