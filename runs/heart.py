"""What beats in a server process: the database threads, the bell to the workers, the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runs import ingest, lanes, live
from runs.consumers import fleet
from runs.ticker import Ticker

EVERYTHING = frozenset({live.WORK, live.CANCELS, live.OVERVIEW, live.WORKERS, live.SCHEDULES})

_stops: list[Callable[[], None]] = []
_ticker: Ticker | None = None


async def start(*, clock: bool = True) -> None:
    """Start on the running event loop. What another process wrote rings every general bell."""
    global _ticker
    loop = asyncio.get_running_loop()
    lanes.start(on_foreign_commit=_others_wrote)
    lanes.write_soon(ingest.begin)  # before any worker can join
    fleet.begin(loop)
    _stops.append(live.listen(fleet.notice, early=True))
    if clock:
        _ticker = Ticker()
        _ticker.start()


def _others_wrote() -> None:
    live.ring(EVERYTHING)
    fleet.wake(everything=True)


async def stop() -> None:
    """Stop the clock and the bell; what waits to be written is written first."""
    global _ticker
    if _ticker is not None:
        await _ticker.stop()
        _ticker = None
    while _stops:
        _stops.pop()()
    await asyncio.to_thread(lanes.stop)
