"""What a worker has to tell its server and what the server has confirmed: no socket, no clock, no file.

The supervisor feeds decoded messages (`receive`) and takes text frames (`next_frame`). Laws:

- A record's number is its place in its spool, from 1, so the server's last number says where to go on.
- Sent is not delivered: only ``Acknowledge`` (or the server's number in ``Accept``) moves what counts as delivered.
- What is unacknowledged is sent again after a reconnect or a ``Resend``, and at no other time.
- Silence never ends a run: only the server's word *stale*, *unknown* or *cancel* does.

``now`` is any clock in seconds that never goes back.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any, Callable, Deque, Dict, Iterable, List, Optional, Sequence, Tuple

from perfect_client.wire import messages
from perfect_client.wire.messages import (
    FACTS,
    MAX_FRAME_BYTES,
    Accept,
    Acknowledge,
    Answer,
    Beaten,
    CancelRun,
    Draining,
    DropRun,
    FlowsAnnounced,
    FlowsRefused,
    Held,
    HoldRun,
    Joined,
    LineOpen,
    LinesOpen,
    Message,
    OfferClaimed,
    OfferDeclined,
    OfferRun,
    Refuse,
    Resend,
    SlotsFreed,
    StartRun,
    Verdict,
)
from perfect_client.wire.streams import STUBBORN, Source, Stream

GONE, TOO_BIG = 1006, 1009  # RFC 6455 §7.4.1


class Session:
    """One worker's side of the conversation; it lives as long as the worker, over any number of connections.

    ``notes`` collects sentences for the worker's log; the supervisor takes and clears them.
    """

    def __init__(self, me: Joined) -> None:
        self._me = me
        self._streams: Dict[Tuple[int, str], Stream] = {}
        self._turn: Deque[Stream] = deque()  # whose batch goes next
        self._queue: Deque[Message] = deque()  # what goes before any batch
        self._flows: Optional[FlowsAnnounced] = None
        self._free: Optional[int] = None
        self._free_told: Optional[int] = None
        self._open_lines: Dict[int, LinesOpen] = {}  # of each attempt, as last shown
        self._draining: Optional[List[int]] = None
        self._draining_told: Optional[List[int]] = None
        self._held: Dict[int, Held] = {}
        self._verdicts: Dict[int, Verdict] = {}
        self._limits = Accept(server_time=0.0)
        self._heard = self._next_beat = 0.0
        self._open = False
        self.accepted = False
        self.notes: List[str] = []

    # ------------------------------------------------------------------------------------------ what the worker says

    def open(self, now: float, held: Sequence[Held]) -> None:
        """A connection is open: join with the attempts that the worker holds. Watch their spools before this."""
        self._hang_up()
        self._open = True
        self._heard = self._next_beat = now
        self._held = {h.fence: self._counted(h) for h in held}
        self._queue.append(replace(self._me, held=list(self._held.values())))

    def closed(self, code: int = GONE) -> None:
        """The connection is gone. A batch that took several connections with it is halved, at once after 1009."""
        for stream in self._turn:
            stream.suspect(STUBBORN if code == TOO_BIG else 1)
        self._hang_up()

    def announce(self, flows: FlowsAnnounced) -> None:
        """All flows of the worker. Kept, and told again on each connection."""
        size = len(_on_the_wire(flows))
        if size > MAX_FRAME_BYTES:
            sentence = "the flows take %d bytes to describe, more than %d: give them to several workers"
            sentence %= (size, MAX_FRAME_BYTES)
            self.notes.append(sentence)
            flows = FlowsAnnounced(flows=[], problems=[sentence])
        if self._draining is not None:  # a newer process of this worker says what there is
            return
        self._flows = flows
        if self.accepted:
            self._queue.append(flows)

    def free(self, slots: int) -> None:
        """How many more runs the worker would take now. Told when it changed, after an offer, after Accept."""
        self._free = max(0, slots)

    def drain(self, running: Sequence[int]) -> None:
        """This process takes nothing new and waits for these attempts. Told when they changed, and after Accept."""
        self._draining, self._flows = sorted(running), None
        self._me = replace(self._me, draining=True)

    def stand_beside(self, older: Iterable[str], fences: Iterable[int]) -> None:
        """These older processes of this worker drain, and hold these attempts. Told at each join."""
        self._me = replace(self._me, older=sorted(older), beside=sorted(fences))

    def outlive(self, dead: Iterable[str]) -> None:
        """These processes of this worker are surely gone. Told at each join."""
        self._me = replace(self._me, dead=list(dead))

    @property
    def lets_drain(self) -> bool:
        """Whether the server, as it was when it was last there, lets a newer process join while this one drains."""
        return self._limits.draining

    def claim(self, fence: int, run: str) -> None:
        """The offer is in the journal. Not kept over a reconnect: then the server's verdict decides."""
        self._say(OfferClaimed(fence, run))

    def decline(self, fence: int, run: str, reason: str) -> None:
        self._say(OfferDeclined(fence, run, reason))

    def show_open(self, fence: int, run: str, lines: Sequence[LineOpen]) -> None:
        """What a run has written of lines that have not ended. Only the last word counts; told again on reconnect."""
        said = self._open_lines[fence] = LinesOpen(fence, run, list(lines))
        self._queue = deque(m for m in self._queue if not (isinstance(m, LinesOpen) and m.fence == fence))
        self._say(said)
        if not lines:
            del self._open_lines[fence]

    def leave(self, reason: str) -> None:
        """The worker stops on purpose and holds no started run."""
        self._say(messages.Left(reason))

    def watch(self, fence: int, run: str, stream: str, source: Source) -> None:
        """Deliver a stream of an attempt, over reconnects too, until `forget`. ``source`` has the shape of `Source`."""
        new = Stream(fence, run, stream, source)
        self.unwatch(fence, stream)
        self._streams[fence, stream] = new
        self._turn.append(new)
        if fence in self._verdicts:
            self._resume(new, self._verdicts[fence])

    def unwatch(self, fence: int, stream: str) -> None:
        old = self._streams.pop((fence, stream), None)
        if old is not None:
            self._turn.remove(old)

    def forget(self, fence: int) -> None:
        """The attempt is delivered or dropped: nothing more is sent about it."""
        for name in messages.STREAMS:
            self.unwatch(fence, name)
        self._held.pop(fence, None)
        self._open_lines.pop(fence, None)
        self._verdicts.pop(fence, None)
        self._queue = deque(said for said in self._queue if getattr(said, "fence", None) != fence)

    # ------------------------------------------------------------------------------------------- what the server says

    def heard(self, now: float) -> None:
        """Any bytes from the server count as life, a pong too."""
        self._heard = now

    def receive(self, message: Message, now: float) -> List[Message]:
        """The orders in a message that the supervisor must carry out, before it asks for the next frame.

        ``Accept``, ``Refuse``, ``FlowsRefused``, ``OfferRun``, ``StartRun``, ``DropRun``, ``CancelRun``, ``HoldRun``,
        ``Answer``; the rest is consumed here.
        """
        self._heard = now
        handle = _HANDLERS.get(type(message))
        if handle is None or not (self.accepted or type(message) in _BEFORE_ACCEPT):
            return []
        return list(handle(self, message, now))

    def _on_accept(self, message: Accept, now: float) -> Iterable[Message]:
        self.accepted = True
        self._limits = message
        self._next_beat = now + self._beat_every
        self._free_told = self._draining_told = None
        self._verdicts = {verdict.fence: verdict for verdict in message.attempts}
        if self._flows is not None:
            self._queue.append(self._flows)
        orders: List[Message] = [message]
        for verdict in message.attempts:
            orders.extend(self._judge(verdict))
        self._queue.extend(self._open_lines.values())
        return orders

    def _judge(self, verdict: Verdict) -> Iterable[Message]:
        held = self._held.get(verdict.fence)
        if verdict.verdict in _NOT_OURS:
            self.forget(verdict.fence)
            return [DropRun(verdict.fence, _NOT_OURS[verdict.verdict])]
        for name in messages.STREAMS:
            stream = self._streams.get((verdict.fence, name))
            if stream is not None:
                self._resume(stream, verdict)
        if verdict.cancel:
            return [CancelRun(verdict.fence, "cancelled while this worker was away")]
        if held is not None and not held.started:
            self._queue.append(OfferClaimed(held.fence, held.run))
        return []

    def _resume(self, stream: Stream, verdict: Verdict) -> None:
        note = stream.resume(max(0, verdict.facts if stream.name == FACTS else verdict.output))
        if note is not None:
            self.notes.append(note)

    def _on_acknowledge(self, message: Acknowledge, now: float) -> Iterable[Message]:
        stream = self._streams.get((message.fence, message.stream))
        if stream is not None:
            stream.acknowledge(message.upto)
        return []

    def _on_resend(self, message: Resend, now: float) -> Iterable[Message]:
        stream = self._streams.get((message.fence, message.stream))
        if stream is not None:
            stream.resend(message.first, now)
        return []

    def _on_drop(self, message: DropRun, now: float) -> Iterable[Message]:
        self.forget(message.fence)
        return [message]

    def _on_offer(self, message: OfferRun, now: float) -> Iterable[Message]:
        self._free_told = None  # the server counts the offer as a slot: tell it again what is free
        return [message]

    def _pass_on(self, message: Message, now: float) -> Iterable[Message]:
        return [message]

    # ------------------------------------------------------------------------------------------ what goes on the wire

    def next_frame(self, now: float) -> Optional[bytes]:
        """The next text frame to send, None when there is nothing to say or no credit left."""
        if not self._open:
            return None
        if self._queue:
            return _on_the_wire(self._queue.popleft())
        if not self.accepted:
            return None
        if self._free is not None and self._free != self._free_told:
            self._free_told = self._free
            return _on_the_wire(SlotsFreed(self._free))
        if self._draining is not None and self._draining != self._draining_told:
            self._draining_told = self._draining
            return _on_the_wire(Draining(self._draining))
        return self._next_batch(now)

    def _next_batch(self, now: float) -> Optional[bytes]:
        """By turns: a run with an hour of output must not keep the others waiting."""
        if sum(len(stream.in_flight) for stream in self._turn) >= max(1, self._limits.max_in_flight):
            return None
        for _ in range(len(self._turn)):
            self._turn.rotate(-1)
            frame = self._turn[-1].take(self._limits, now)
            if frame is not None:
                return frame
        return None

    def delivered(self, fence: int) -> bool:
        """Whether the server has everything that all streams of the attempt hold now."""
        streams = [self._streams.get((fence, name)) for name in messages.STREAMS]
        return all(stream.delivered for stream in streams if stream is not None)

    # ----------------------------------------------------------------------------------------------------------- time

    def tick(self, now: float, time: float = 0.0, running: Optional[Sequence[Any]] = None) -> bool:
        """Beat when it is time to. False: the server was silent too long, close the connection and come back.

        ``time`` is the wall clock and ``running`` the fences told in the heartbeat (else all that are watched).
        """
        if self._open and now - self._heard >= self._limits.silence_s:
            return False
        for stream in self._turn:
            if stream.paused_until <= now:
                stream.paused_until = 0.0
        if self.accepted and now >= self._next_beat:
            self._next_beat = now + self._beat_every
            fences = sorted({stream.fence for stream in self._streams.values()}) if running is None else list(running)
            self._queue.append(Beaten(running=fences, time=time))
        return True

    @property
    def wakes_at(self) -> float:
        """When `tick` and `next_frame` want to be called although nothing happened; infinity without a connection."""
        if not self._open:
            return float("inf")
        times = [self._heard + self._limits.silence_s]
        if self.accepted:
            times.append(self._next_beat)
            times.extend(stream.paused_until for stream in self._turn if stream.paused_until)
        return min(times)

    @property
    def _beat_every(self) -> float:
        return max(0.1, self._limits.heartbeat_s)

    # -------------------------------------------------------------------------------------------------------- helpers

    def _hang_up(self) -> None:
        """Forget what belongs to one connection: credit, queued words, verdicts."""
        self._open = self.accepted = False
        self._queue.clear()
        self._verdicts = {}
        self._free_told = self._draining_told = None
        for stream in self._streams.values():
            stream.disconnect()

    def _say(self, message: Message) -> None:
        if self.accepted:
            self._queue.append(message)

    def _counted(self, held: Held) -> Held:
        return replace(
            held,
            facts=self._last(held.fence, FACTS, held.facts),
            output=self._last(held.fence, messages.OUTPUT, held.output),
        )

    def _last(self, fence: int, name: str, otherwise: int) -> int:
        stream = self._streams.get((fence, name))
        return otherwise if stream is None else stream.last


def _on_the_wire(message: Message) -> bytes:
    """UTF-8; a lone surrogate (a file name that is no UTF-8, in a sentence) becomes its JSON escape."""
    return messages.encode(message).encode("utf-8", "backslashreplace")


_NOT_OURS = {
    "stale": "the server gave this run to another attempt, or it is over",
    "unknown": "the server does not know this attempt",
}
_BEFORE_ACCEPT = (Accept, Refuse)
_HANDLERS: Dict[type, Callable[[Session, Any, float], Iterable[Message]]] = {
    Accept: Session._on_accept,
    Refuse: Session._pass_on,
    FlowsRefused: Session._pass_on,
    OfferRun: Session._on_offer,
    StartRun: Session._pass_on,
    CancelRun: Session._pass_on,
    HoldRun: Session._pass_on,
    Answer: Session._pass_on,
    DropRun: Session._on_drop,
    Acknowledge: Session._on_acknowledge,
    Resend: Session._on_resend,
}
