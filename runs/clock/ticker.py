"""Wind the clock: call its step when it wants to be called, or when a bell says that a wish has come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from django.utils import timezone

from runs import events
from runs.clock.steps import SWEEP, Clock
from runs.db import threads
from runs.db.outages import log_failure

logger = logging.getLogger(__name__)


class Ticker:
    """The clock's task on the server's event loop; it sleeps until something is due."""

    def __init__(self, served: Callable[[], bool] = lambda: True) -> None:
        self._served = served  # as in ``Clock``
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._deaf: Callable[[], None] = lambda: None

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._deaf = events.subscribe(lambda topics: self._heard(loop, topics))
        self._task = loop.create_task(self._run())

    def _heard(self, loop: asyncio.AbstractEventLoop, topics: frozenset[str]) -> None:
        if events.SCHEDULES in topics or events.RATES in topics:
            loop.call_soon_threadsafe(self._wake.set)

    async def stop(self) -> None:
        self._deaf()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        clock = Clock(served=self._served)
        while True:
            try:
                again = await threads.write(clock.step, timezone.now())
                pause = min((again - timezone.now()).total_seconds(), SWEEP.total_seconds())
            except Exception as error:
                log_failure(logger, "the clock's step failed; it is tried again", error)
                pause = SWEEP.total_seconds()
            try:
                await asyncio.wait_for(self._wake.wait(), timeout=max(pause, 0.05))
            except TimeoutError:
                pass
            self._wake.clear()
