"""The engine's core is written once: generators that yield steps, and two drivers, for threads and for loops.

A step does what may take time: it calls a function of the user, sleeps, waits. Everything between two steps is the
same for synchronous and asynchronous code.
"""

from __future__ import annotations

import sys
import threading
import time
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Callable, Dict, Generator, Iterable, Optional, Tuple, TypeVar

from perfect_client.core.deadlines import Limit, bounded, bounded_later, calls_user_code, run_coroutine, waits
from perfect_client.core.previews import is_clean_exit

__tracebackhide__ = True  # pytest does not show our frames

V = TypeVar("V")
Steps = Generator[Any, Any, V]


class Call:
    """Call a function of the user; what it generates is consumed into a list."""

    __slots__ = ("args", "fn", "is_async", "kwargs", "limit")

    def __init__(
        self,
        fn: Callable[..., Any],
        args: Tuple[Any, ...],
        kwargs: Dict[str, Any],
        is_async: bool = False,
        limit: Optional[Limit] = None,
    ) -> None:
        self.fn, self.args, self.kwargs, self.is_async, self.limit = fn, args, kwargs, is_async, limit

    @calls_user_code
    def now(self) -> Any:
        if self.is_async:
            return run_coroutine(self.limit, self._coroutine)
        return self._plain() if self.limit is None else bounded(self.limit, self._plain, (), {})

    @calls_user_code
    def _plain(self) -> Any:
        try:
            value = self.fn(*self.args, **self.kwargs)
            return list(value) if type(value) is GeneratorType else value
        except SystemExit as leaving:
            return raise_unless_clean(leaving)

    async def later(self) -> Any:
        if not self.is_async:
            return self.now()
        if self.limit is not None:
            return await bounded_later(self.limit, self._coroutine())
        return await self._coroutine()

    @calls_user_code
    async def _coroutine(self) -> Any:
        try:
            value = self.fn(*self.args, **self.kwargs)
            if type(value) is AsyncGeneratorType:
                return [item async for item in value]
            value = await value
            return list(value) if type(value) is GeneratorType else value
        except SystemExit as leaving:
            return raise_unless_clean(leaving)


def raise_unless_clean(leaving: SystemExit) -> None:
    """``sys.exit()`` and ``sys.exit(0)`` end a function as a return does. Raises what says that something is wrong."""
    if not is_clean_exit(leaving):
        raise leaving


class Invoke:
    """Call something small of the user, as a hook: a plain function or a coroutine function."""

    __slots__ = ("args", "fn")

    def __init__(self, fn: Callable[..., Any], *args: Any) -> None:
        self.fn, self.args = fn, args

    @calls_user_code
    def now(self) -> Any:
        value = self.fn(*self.args)
        return run_apart(value) if hasattr(value, "__await__") else value

    @calls_user_code
    async def later(self) -> Any:
        value = self.fn(*self.args)
        return await value if hasattr(value, "__await__") else value


sleep: Callable[[float], None] = time.sleep  # how time passes; tests have another that does not wait


class Sleep:
    """Let time pass."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    @waits
    def now(self) -> None:
        sleep(self.seconds)

    async def later(self) -> None:
        import asyncio  # heavy: whoever comes here has loaded it

        if sleep is not time.sleep:
            return sleep(self.seconds)
        await asyncio.sleep(self.seconds)


class Wait:
    """Wait until all futures are done."""

    __slots__ = ("futures",)

    def __init__(self, futures: Iterable[Any]) -> None:
        self.futures = list(futures)

    def now(self) -> None:
        for future in self.futures:
            future.wait()

    async def later(self) -> None:
        for future in self.futures:
            await future.wait_async()


def run_apart(coroutine: Any) -> Any:
    """Run a coroutine from synchronous code, also where a loop is running in this thread already."""
    import asyncio  # heavy: whoever has a coroutine has loaded it

    if sys.modules["asyncio.events"]._get_running_loop() is None:
        return asyncio.run(coroutine)
    box: Dict[str, Any] = {}

    def run() -> None:
        try:
            box["value"] = asyncio.run(coroutine)
        except BaseException as error:
            box["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if "error" in box:
        raise box["error"]
    return box["value"]


def drive(steps: Steps[V], perform: Optional[Callable[[Any], Any]] = None) -> V:
    """Go through all steps in this thread; ``perform`` does a step in place of its own ``now``."""
    given: Any = None
    send = steps.send
    try:
        while True:
            step = send(given)
            try:
                given = step.now() if perform is None else perform(step)
                send = steps.send
            except BaseException as error:
                given = error
                send = steps.throw
    except StopIteration as done:
        result: V = done.value
        return result


async def drive_later(steps: Steps[V]) -> V:
    """Go through all steps in the running loop."""
    given: Any = None
    send = steps.send
    try:
        while True:
            step = send(given)
            try:
                given = await step.later()
                send = steps.send
            except BaseException as error:
                given = error
                send = steps.throw
    except StopIteration as done:
        result: V = done.value
        return result
