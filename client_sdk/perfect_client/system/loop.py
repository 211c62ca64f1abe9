"""The supervisor's loop: readable and writable descriptors, deadlines, signals. One thread, no polling."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
import signal
import time
from typing import Callable, Dict, Iterable, List, Optional, Tuple

Callback = Callable[[], None]
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.25  # between turns in which something failed


class Timer:
    """A deadline that can be called off."""

    def __init__(self, callback: Callback) -> None:
        self.callback: Optional[Callback] = callback

    def cancel(self) -> None:
        self.callback = None


class Loop:
    """``turn`` waits for the next thing to do and does it. ``now`` is the monotonic time of the current turn.

    An exception of a callback goes to ``on_error``, and the loop goes on. While turn after turn something fails, each
    waits longer (at most 0.25 s) before it begins: what is still readable would otherwise make the loop spin.
    """

    def __init__(self, on_error: Callable[[Exception], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._on_error = clock, on_error
        self._failed, self._pause = False, 0.0
        self._selector = selectors.DefaultSelector()
        self._readers: Dict[int, Callback] = {}
        self._writers: Dict[int, Callback] = {}
        self._timers: List[Tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._on_signal: Dict[int, Callback] = {}
        self._on_wake: List[Callback] = []
        self._wake_out, self._wake_in = os.pipe()
        for fd in (self._wake_out, self._wake_in):
            os.set_blocking(fd, False)
        self.now = clock()
        self.on_read(self._wake_out, self._awake)

    # ----------------------------------------------------------------------------------------------------- interests

    def on_read(self, fd: int, callback: Callback) -> None:
        self._readers[fd] = callback
        self._register(fd)

    def on_write(self, fd: int, callback: Callback) -> None:
        self._writers[fd] = callback
        self._register(fd)

    def no_write(self, fd: int) -> None:
        if self._writers.pop(fd, None):
            self._register(fd)

    def forget(self, fd: int) -> None:
        """Before the descriptor is closed."""
        self._readers.pop(fd, None)
        self._writers.pop(fd, None)
        self._register(fd)

    def _register(self, fd: int) -> None:
        events = selectors.EVENT_READ * (fd in self._readers) | selectors.EVENT_WRITE * (fd in self._writers)
        known = fd in self._selector.get_map()
        if events and known:
            self._selector.modify(fd, events)
        elif events:
            self._selector.register(fd, events)
        elif known:
            self._selector.unregister(fd)

    # ------------------------------------------------------------------------------------------------------ deadlines

    def at(self, when: float, callback: Callback) -> Timer:
        timer = Timer(callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def after(self, seconds: float, callback: Callback) -> Timer:
        return self.at(self._clock() + seconds, callback)

    # -------------------------------------------------------------------------------------------------------- signals

    def listen(self, handlers: Dict[int, Callback]) -> None:
        """Call a handler, in a turn of the loop, for each of these signals. From the main thread.

        A signal that the parent had ignored stays so: nohup(1), and the jobs of a shell's background.
        """
        self._on_signal.update(handlers)
        for number in handlers:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda number, frame: None)
        signal.set_wakeup_fd(self._wake_in, warn_on_full_buffer=False)

    def wake(self) -> None:
        """Make the loop turn; from any thread."""
        with contextlib.suppress(OSError):
            os.write(self._wake_in, b"\0")

    def on_wake(self, callback: Callback) -> None:
        self._on_wake.append(callback)

    def _awake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in set(os.read(self._wake_out, 4096)):
                for callback in self._on_wake if number == 0 else filter(None, [self._on_signal.get(number)]):
                    self.guarded(callback)

    # ----------------------------------------------------------------------------------------------------------- turn

    def turn(self, longest: Optional[float] = None) -> None:
        """Wait (at most ``longest`` seconds) until something is due, then do all that is due once."""
        if self._failed:
            self._failed = False
            self._pause = min(_LONGEST_PAUSE_S, 2 * self._pause or _SHORTEST_PAUSE_S)
            time.sleep(self._pause)
            longest = 0.0  # what failed is to be tried again
        else:
            self._pause = 0.0
        self.guarded(lambda: self._turn(longest))

    def _turn(self, longest: Optional[float]) -> None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        wait = longest
        if self._timers:
            until = max(0.0, self._timers[0][0] - self._clock())
            wait = until if longest is None else min(until, longest)
        ready = self._selector.select(wait)
        self.now = self._clock()
        for key, events in ready:
            if events & selectors.EVENT_READ:
                self._call(self._readers, key.fd)
            if events & selectors.EVENT_WRITE:
                self._call(self._writers, key.fd)
        self._run_timers()

    def _call(self, callbacks: Dict[int, Callback], fd: int) -> None:
        callback = callbacks.get(fd)  # an earlier callback of this turn may have forgotten it
        if callback is not None:
            self.guarded(callback)

    def guarded(self, callback: Callback) -> None:
        """Call it; if it fails, say so and begin the next turn without waiting for anything but a pause."""
        try:
            callback()
        except Exception as wrong:
            self._failed = True
            self._on_error(wrong)

    def _run_timers(self) -> None:
        due: List[Timer] = []
        while self._timers and self._timers[0][0] <= self.now:
            due.append(heapq.heappop(self._timers)[2])
        for timer in due:
            callback, timer.callback = timer.callback, None
            if callback is not None:
                self.guarded(callback)

    def close(self) -> None:
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(-1)
        self._selector.close()
        self._close_all((self._wake_out, self._wake_in))

    @staticmethod
    def _close_all(fds: Iterable[int]) -> None:
        for fd in fds:
            os.close(fd)
