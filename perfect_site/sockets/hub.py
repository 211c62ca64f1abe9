"""Who watches what in this process: bells become drawings, each read and drawn once, and fanned out to all who watch.

Coalescing is per topic: at most ``FASTEST`` a second, and never more than a quarter of the time is spent drawing one
topic. A topic that nobody watches does not exist. Time makes running bars move without any fact, so what runs is read
again once a second while somebody looks; a sweep every few seconds finds what a lost bell missed.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from perfect_site.dashboard.topics import Rendering, is_known, render
from runs import events
from runs.db import threads

FASTEST = 0.2  # seconds between two drawings of a topic
SLOWEST = 2.0  # the longest that an expensive drawing delays the next one
SHARE = 4.0  # of the time a drawing took, for everybody else
TICK = 1.0
SWEEP_EVERY = 5  # ticks

logger = logging.getLogger(__name__)


class Socket(Protocol):
    """One browser. ``put`` keeps the last message of each key; ``room`` says whether lines can be added now."""

    def put(self, key: str, text: str) -> None: ...
    def room(self) -> bool: ...
    async def close(self, code: int) -> None: ...


class Pace:
    """When to draw: pure, so that a test can be its clock. At most one drawing is due or under way."""

    def __init__(self) -> None:
        self.not_before = 0.0
        self.waiting = False
        self.drawing = False

    def ask(self, now: float) -> float | None:
        """Somebody wants a drawing. Returns when to begin it, or None if one is due already or under way."""
        if self.waiting:
            return None
        self.waiting = True
        return None if self.drawing else max(now, self.not_before)

    def begin(self) -> None:
        self.waiting, self.drawing = False, True

    def end(self, now: float, took: float) -> float | None:
        """A drawing that took ``took`` seconds is done. Returns when to begin the next one, if one is wanted."""
        self.drawing = False
        self.not_before = now + min(SLOWEST, max(FASTEST - took, took * SHARE))
        return self.not_before if self.waiting else None


@dataclass
class Topic:
    name: str
    pace: Pace = field(default_factory=Pace)
    since: dict[Socket, int] = field(default_factory=dict)  # per socket: the last version or line that it has
    fresh: set[Socket] = field(default_factory=set)
    sent: dict[str, str] = field(default_factory=dict)  # per key: what everybody who is not fresh has
    memory: Any = None
    whole: bool = True  # the next drawing is of everything, not only of what time moves
    moving: bool = False


class Hub:
    """All sockets of this process, on one event loop."""

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}
        self.sockets: set[Socket] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticking: asyncio.TimerHandle | None = None
        self._ticks = 0
        self._unlisten: Callable[[], None] = lambda: None

    # ------------------------------------------------------------------------------------------- coming and going

    def enter(self, socket: Socket) -> None:
        if not self.sockets:
            self._wind_up()
        self.sockets.add(socket)

    def leave(self, socket: Socket) -> None:
        self.sockets.discard(socket)
        for name in list(self.topics):
            self.unsubscribe(socket, name)
        if not self.sockets:
            self._run_down()

    def subscribe(self, socket: Socket, name: str, since: int) -> bool:
        """Watch a topic from what the page has on; False if there is no such topic."""
        if not is_known(name):
            return False
        topic = self.topics.setdefault(name, Topic(name))
        topic.since[socket] = since
        topic.fresh.add(socket)
        self.want(name)
        return True

    def unsubscribe(self, socket: Socket, name: str) -> None:
        topic = self.topics.get(name)
        if topic is not None:
            topic.since.pop(socket, None)
            topic.fresh.discard(socket)
            if not topic.since:
                del self.topics[name]

    async def close_all(self, code: int) -> None:
        """Send every page away, as a server that stops does."""
        await asyncio.gather(*[socket.close(code) for socket in list(self.sockets)], return_exceptions=True)

    def _wind_up(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._unlisten = events.subscribe(self._bell)
        self._ticking = self._loop.call_later(TICK, self._tick)

    def _run_down(self) -> None:
        self._unlisten()
        if self._ticking is not None:
            self._ticking.cancel()
        self._ticking = None

    # ------------------------------------------------------------------------------------------------------ bells

    def _bell(self, topics: frozenset[str]) -> None:
        """From whatever thread committed."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self.ring, topics)

    def ring(self, topics: Iterable[str]) -> None:
        """These changed: what is watched of them, and the lists they stand in, is drawn soon."""
        lists = {"runs"} if events.OVERVIEW in topics else set()
        numbers = False
        for name in {*topics, *lists}:
            self.want(name)
            numbers = numbers or name.startswith("run:")
        for name in list(self.topics):
            if name.startswith("flow:") or (numbers and name in {"overview", "runs"}):
                self.want(name, whole=events.OVERVIEW in topics)

    def want(self, name: str, *, whole: bool = True) -> None:
        topic = self.topics.get(name)
        if topic is None or self._loop is None:
            return
        topic.whole = topic.whole or whole
        self._begin_at(topic, topic.pace.ask(self._loop.time()))

    def _tick(self) -> None:
        assert self._loop is not None
        self._ticks += 1
        sweep = self._ticks % SWEEP_EVERY == 0
        for topic in list(self.topics.values()):
            if sweep or topic.moving:
                self.want(topic.name, whole=sweep)
        self._ticking = self._loop.call_later(TICK, self._tick)

    # --------------------------------------------------------------------------------------------------- drawing

    def _begin_at(self, topic: Topic, when: float | None) -> None:
        if when is not None and self._loop is not None:
            self._loop.call_at(when, self._begin, topic)

    def _begin(self, topic: Topic) -> None:
        if self.topics.get(topic.name) is not topic or self._loop is None:
            return
        topic.pace.begin()
        task = self._loop.create_task(self._draw(topic))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _draw(self, topic: Topic) -> None:
        assert self._loop is not None
        began = self._loop.time()
        fresh, whole = set(topic.fresh), topic.whole or bool(topic.fresh)
        topic.fresh, topic.whole = set(), False
        behind = [at for socket, at in topic.since.items() if socket.room()]
        try:
            if behind:
                drawing = await threads.read(render, topic.name, topic.memory, whole=whole, since=min(behind))
                self._fan_out(topic, drawing, fresh)
        except Exception:
            logger.exception("drawing %s failed", topic.name)
        finally:
            now = self._loop.time()
            self._begin_at(topic, topic.pace.end(now, now - began))

    def _fan_out(self, topic: Topic, drawing: Rendering, fresh: set[Socket]) -> None:
        topic.memory, topic.moving = drawing.memory, drawing.moving
        drawn = {key for key, _ in drawing.messages}
        self._catch_up(topic, fresh, drawing.version, drawn)
        if drawing.version is not None:
            topic.since = dict.fromkeys(topic.since, drawing.version)
        for key, message in drawing.messages:
            text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
            changed = topic.sent.get(key) != text
            topic.sent[key] = text
            for socket in topic.since if changed else fresh & topic.since.keys():
                socket.put(key, text)
        for key in [key for key in topic.sent if key.startswith("p:") and key not in drawn]:
            del topic.sent[key]  # a run that is over
        if drawing.lines is not None:
            self._pass_on(topic, drawing)

    def _catch_up(self, topic: Topic, fresh: set[Socket], version: int | None, drawn: set[str]) -> None:
        """What changed after a page was made and before it subscribed went to the others only: give it to it now."""
        for socket in fresh & topic.since.keys():
            if version is None or topic.since[socket] < version:
                for key, text in topic.sent.items():
                    if key not in drawn and not key.startswith("p:"):
                        socket.put(key, text)

    def _pass_on(self, topic: Topic, drawing: Rendering) -> None:
        """Log lines: each socket gets those that it does not have, while it has room."""
        lines = drawing.lines or []
        texts: dict[int, str] = {}
        for socket, since in topic.since.items():
            if not lines or since >= lines[-1][0] or not socket.room():
                continue
            if since not in texts:
                rest = [line for line in lines if line[0] > since]
                message = {"t": "log", "run": drawing.run, "after": since, "lines": rest}
                texts[since] = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
            socket.put(f"log:{lines[-1][0]}", texts[since])
            topic.since[socket] = lines[-1][0]
        if drawing.more:
            self.want(topic.name)


hub = Hub()
