"""What beats in a server process: the database threads, the bell to the workers and to other processes, the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from django.db import connection

from perfect_site.sockets.workers import fleet
from runs import events, notifications
from runs.clock.ticker import Ticker
from runs.db import threads
from runs.ingest import reports

SWEEP_EVERY = 4.0  # seconds: what every bell missed is found this soon

_stops: list[Callable[[], None]] = []
_sweeps: asyncio.Task[None] | None = None
_ticker: Ticker | None = None


async def start(*, clock: bool = True, serve: bool = True, served: Callable[[], bool] = lambda: True) -> None:
    """Start on the running event loop. ``serve``: workers connect here; ``served``: whether they can connect at all."""
    global _sweeps, _ticker
    loop = asyncio.get_running_loop()
    threads.start(on_foreign_commit=lambda: _others_wrote(events.EVERYTHING))
    await asyncio.to_thread(notifications.start, _others_wrote, serve)
    if serve:
        threads.write_soon(reports.begin)  # before any worker can join
        fleet.begin(loop)
        _stops.append(events.subscribe(fleet.notice, early=True))
        _sweeps = loop.create_task(_sweep())
    if clock:
        _ticker = Ticker(served)
        _ticker.start()


def _others_wrote(topics: frozenset[str]) -> None:
    events.deliver(topics)
    fleet.hear(topics)


async def _sweep() -> None:
    while True:
        await asyncio.sleep(SWEEP_EVERY)
        fleet.hear(events.EVERYTHING)
        if connection.vendor != "sqlite":  # with it there is no other server
            threads.write_soon(reports.sweep)


async def stop() -> None:
    """Stop the clock and the bell; what waits to be written is written first."""
    global _sweeps, _ticker
    if _ticker is not None:
        await _ticker.stop()
        _ticker = None
    if _sweeps is not None:
        _sweeps.cancel()
        _sweeps = None
    while _stops:
        _stops.pop()()
    await asyncio.to_thread(threads.stop)
    await asyncio.to_thread(notifications.stop)
