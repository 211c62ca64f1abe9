"""One stream of an attempt on its way to the server: which records are sent, which are there, how large a batch may be.

Pure like the session that owns it. A record's number is its place in the spool, from 1.
"""

from __future__ import annotations

from collections import deque
from typing import Deque, List, NamedTuple, Optional, Protocol

from perfect_client.wire.messages import FACTS, MAX_BATCH_BYTES, MAX_BATCH_FACTS, Accept, encode_batch

STUBBORN = 3  # a batch refused or lost so many times in a row is halved
LONGEST_PAUSE_S = 30.0
_OUTCOMES = (b'{"type":"RunEnded"', b'{"type":"ProcessExited"')  # how encode_fact begins them


class Source(Protocol):
    """Where a stream's records are; `spool.Reader` has this shape."""

    @property
    def count(self) -> int:
        raise NotImplementedError

    def read(self, first: int, max_count: int, max_bytes: int) -> List[bytes]:
        raise NotImplementedError


class Batch(NamedTuple):
    """Numbers of the first and the last record of an unacknowledged batch."""

    first: int
    last: int


class Stream:
    def __init__(self, fence: int, run: str, name: str, source: Source) -> None:
        self.fence, self.run, self.name = fence, run, name
        self.acked = 0  # the server has everything up to this number
        self.sent = 0  # everything up to this number went out on this connection
        self.in_flight: Deque[Batch] = deque()
        self.paused_until = 0.0  # 0 = not paused
        self._source = source
        self._shift = 0  # number = place in the spool + shift; not 0 only after the spool lost what the server has
        self._limit = MAX_BATCH_FACTS  # records in a batch
        self._refused = 0  # where the batch began that did not get through
        self._refusals = 0  # how many times in a row
        self._hopeless = 0  # how many times a single record was refused
        self._echoes = 0  # Resends that batches sent behind a refused one will still cause

    @property
    def last(self) -> int:
        """The number of the newest record that the spool holds."""
        return int(self._source.count) + self._shift

    @property
    def delivered(self) -> bool:
        return self.acked >= self.last

    def resume(self, number: int) -> Optional[str]:
        """Go on behind the server's last number. A note when one of the two had lost something."""
        note = None
        if number > self.last:
            note = "%s: the server has %d records, this worker's spool only %d; it was cut short"
            note %= (self._what, number, self.last)
            # What is new from here on gets new numbers, or the server would skip it as seen. Of what the spool holds
            # only the outcome can be new: it was written when the worker found the run's process gone.
            self._shift = number - int(self._source.count) + self._ends_with_outcome()
        elif number < self.acked:
            note = "%s: the server went back from record %d to %d; sending again"
            note %= (self._what, self.acked, number)
        self._rewind(number)
        return note

    def disconnect(self) -> None:
        """What is unacknowledged now has to be sent again."""
        self._rewind(self.acked)
        self._echoes = 0

    def suspect(self, times: int) -> None:
        """The connection ended, maybe because of the batch that was first in flight: count that."""
        for _ in range(times if self.in_flight else 0):
            self._insist(*self.in_flight[0])

    def acknowledge(self, upto: int) -> None:
        upto = min(upto, self.sent)
        if upto <= self.acked:
            return
        self.acked = upto
        self._refusals = self._echoes = self._hopeless = 0
        self.paused_until = 0.0
        self._limit = min(self._limit * 2, MAX_BATCH_FACTS)
        while self.in_flight and self.in_flight[0].last <= upto:
            self.in_flight.popleft()

    def resend(self, first: int, now: float) -> None:
        """The server did not take the batch that begins with ``first``, or misses what comes before a later one.

        That is no acknowledgement of what stands before ``first``: that may have been refused as well. Batches in
        flight behind a refused one are refused with it: those echoes are not counted.
        """
        first = max(1, min(first, self.acked + 1))
        if self._echoes and first == self._refused:
            self._echoes -= 1
        else:
            whole = Batch(first, first + self._limit - 1)
            if self._limit == 1:  # nothing left to halve: give the server time
                self._hopeless += 1
                self.paused_until = now + min(LONGEST_PAUSE_S, 0.1 * 2 ** min(self._hopeless, 12))
            self._insist(*next((batch for batch in self.in_flight if batch.first == first), whole))
            self._echoes = sum(1 for batch in self.in_flight if batch.first > first)
        self._rewind(first - 1)

    def take(self, limits: Accept, now: float) -> Optional[bytes]:
        """The next batch as a frame, None when there is none to send now."""
        if self.sent >= self.last or now < self.paused_until:
            return None
        if self._refusals and self.in_flight:  # after a refusal one batch at a time, until one gets through
            return None
        most = max(1, min(self._limit, limits.max_batch_facts, MAX_BATCH_FACTS))
        room = max(1, min(limits.max_batch_bytes, MAX_BATCH_BYTES))
        first = self.sent + 1
        records = self._source.read(first - self._shift, most, room)
        if not records:
            return None
        self.sent += len(records)
        self.in_flight.append(Batch(first, self.sent))
        return encode_batch(self.fence, self.run, self.name, first, records)

    @property
    def _what(self) -> str:
        return "run %s (attempt %d), %s" % (self.run, self.fence, self.name)

    def _rewind(self, acked: int) -> None:
        self.acked = self.sent = acked
        self._shift = min(self._shift, acked)
        self.in_flight.clear()

    def _insist(self, first: int, last: int) -> None:
        self._refusals = self._refusals + 1 if first == self._refused else 1
        self._refused = first
        if self._refusals % STUBBORN == 0:
            self._limit = max(1, min(self._limit, last - first + 1) // 2)

    def _ends_with_outcome(self) -> int:
        newest = self._source.read(self._source.count, 1, 1)
        return int(self.name == FACTS and bool(newest) and newest[0].startswith(_OUTCOMES))
