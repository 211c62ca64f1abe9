"""A network that can be broken: a TCP proxy on 127.0.0.1 that cuts, delays, stalls, swallows and half-opens."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import Callable, Sequence

PIECE = 64 * 1024
LOOK_S = 0.02  # how often a stalled connection looks whether it may go on


class Network:
    """Proxies in a loop of their own, in a thread of its own; the methods of a ``Line`` are called from any thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="network", daemon=True)
        self._thread.start()
        self._lines: list[Line] = []

    def line(self, ports: Sequence[int]) -> Line:
        """A new address that leads to the first of ``ports`` that answers, each connection beginning with the next."""
        self._lines.append(asyncio.run_coroutine_threadsafe(Line(ports).open(), self.loop).result(10))
        return self._lines[-1]

    def close(self) -> None:
        async def end() -> None:
            for line in self._lines:
                line.server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)  # what was aborted is told so

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


class Line:
    """One address, and every connection through it."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports, self._turn = list(ports), itertools.count()
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._swallowed: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self.delay_s = 0.0
        self.stalled = False
        self.port = 0

    async def open(self) -> Line:
        self.loop = asyncio.get_running_loop()
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    def cut(self) -> None:
        """Reset every connection, on both sides."""
        self._call(lambda: [_abort(side) for pair in self._pairs for side in pair])

    def half_open(self, seconds: float) -> None:
        """Reset the caller's side of every connection; for that long the server hears neither an end nor a byte."""

        def act() -> None:
            for pair in list(self._pairs):
                self._pairs.discard(pair)
                _abort(pair[0])
                self.loop.call_later(seconds, _abort, pair[1])

        self._call(act)

    def swallow(self) -> None:
        """Of the connections that are open now nothing passes any more, not even their end; new ones pass."""

        async def act() -> None:
            self._swallowed.update(self._pairs)

        asyncio.run_coroutine_threadsafe(act(), self.loop).result(10)

    def _call(self, act: Callable[[], object]) -> None:
        self.loop.call_soon_threadsafe(act)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await self._dial()
        if upstream is None:
            _abort(writer)
            return
        pair = (writer, upstream[1])
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._pump(pair, reader, upstream[1]), self._pump(pair, upstream[0], writer))
        except asyncio.CancelledError:
            pass  # the network closes
        finally:
            if pair in self._pairs:  # else it is half open: the server's side ends later
                self._pairs.discard(pair)
                _abort(pair[1])
            _abort(writer)

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        first = next(self._turn)
        for port in (self._ports[(first + n) % len(self._ports)] for n in range(len(self._ports))):
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                continue
        return None

    async def _pump(
        self,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        try:
            while piece := await reader.read(PIECE):
                await asyncio.sleep(self.delay_s)
                while self.stalled:
                    await asyncio.sleep(LOOK_S)
                if pair not in self._swallowed:
                    writer.write(piece)
                    await writer.drain()
        except OSError:
            pass
        if pair in self._pairs - self._swallowed and not writer.transport.is_closing():
            try:
                writer.write_eof()
            except OSError:
                pass


def _abort(writer: asyncio.StreamWriter) -> None:
    if not writer.transport.is_closing():
        writer.transport.abort()


def free_port() -> int:
    """A port that nobody has now; the next one who asks gets another."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
