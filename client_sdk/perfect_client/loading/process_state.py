"""What imports change of their process's own state: each flow file has its own, as if no other had been imported.

An import may change the current folder, the environment, signal handlers, the level of the root logger and the like.
A process that imports several files notes which file did it, goes back to the *common* state before the next file, and
lets a run begin with what its own file has made of it. What an import of somebody else's package changes is common: the
package is imported once for all.
"""

from __future__ import annotations

import gc
import locale
import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from contextlib import suppress
from typing import Any, Callable, Collection, Dict, Iterator, List, NamedTuple, Tuple

Key = Tuple[str, Any]
_OURS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGKILL, signal.SIGSTOP})  # a worker's own
_SIGNALS = [number for number in range(1, 32) if number not in _OURS]
_CATEGORIES = (
    locale.LC_CTYPE,
    locale.LC_COLLATE,
    locale.LC_TIME,
    locale.LC_MONETARY,
    locale.LC_NUMERIC,
    locale.LC_MESSAGES,
)
# Attributes of modules that may not be loaded yet: until then they are None.
_ATTRIBUTES = (
    ("sys", "stdout"),
    ("sys", "stderr"),
    ("sys", "excepthook"),
    ("threading", "excepthook"),
    ("asyncio.events", "_event_loop_policy"),
)


class _Change(NamedTuple):
    """``file`` made this of it; an empty one stands for what is common to all."""

    file: str
    key: Key
    value: Any


class ProcessState:
    """``note`` says who made what is new, ``become`` lets the process be as certain files have made it."""

    def __init__(self) -> None:
        self._initial = dict(_read())
        self._last = dict(self._initial)
        self._changes: List[_Change] = []

    def note(self, file: str) -> None:
        """What has changed since the last look was done by this file, or by somebody else's package (empty)."""
        now = dict(_read())
        if now != self._last:
            for key in {**now, **self._last}:
                if now.get(key) != self._last.get(key):
                    self._changes.append(_Change(file, key, now.get(key)))
            self._last = now

    @property
    def differs(self) -> bool:
        """Whether some file has made something of it that is not common."""
        return any(change.file for change in self._changes)

    def of(self, files: Collection[str]) -> Dict[Key, Any]:
        """What these files, together with what is common, have made of all that was ever changed."""
        made = {change.key: self._initial.get(change.key) for change in self._changes}
        made.update((change.key, change.value) for change in self._changes if not change.file or change.file in files)
        return made

    def become(self, files: Collection[str] = ()) -> None:
        """Let the process be as these files have made it."""
        apply(self.of(files))
        self._last = dict(_read())


def apply(state: Dict[Key, Any]) -> None:
    """Make it so. What the system does not allow stays as it is."""
    for (kind, name), value in state.items():
        with suppress(Exception):
            _WRITERS[kind](name, value)


def _read() -> Iterator[Tuple[Key, Any]]:
    for name, value in os.environ.items():
        yield ("environment", name), value
    with suppress(OSError):  # the folder is gone
        yield ("folder", ""), os.getcwd()
    mask = os.umask(0o077)
    os.umask(mask)
    yield ("mask", ""), mask
    for number in _SIGNALS:
        yield ("signal", number), signal.getsignal(number)
    for category in _CATEGORIES:
        yield ("locale", category), locale.setlocale(category)
    yield ("recursion", ""), sys.getrecursionlimit()
    yield ("timeout", ""), socket.getdefaulttimeout()
    yield ("collection", ""), gc.get_threshold()
    yield ("stack", ""), threading.stack_size()
    yield ("warnings", ""), tuple(warnings.filters)
    yield ("log", "level"), logging.root.level
    yield ("log", "handlers"), tuple(logging.root.handlers)
    yield ("log", "disabled"), logging.root.manager.disable
    yield ("decimal", ""), _decimal_context()
    yield ("processes", ""), getattr(_default_context(), "_actual_context", None)
    for place in _ATTRIBUTES:
        yield ("attribute", place), getattr(sys.modules.get(place[0]), place[1], None)


def _decimal_context() -> Any:
    """As something that can be compared; None where it is as it was, or nobody has loaded the module."""
    decimal = sys.modules.get("decimal")
    if decimal is None:
        return None
    now = decimal.getcontext().__reduce__()
    return now if now != decimal.DefaultContext.__reduce__() else None


def _default_context() -> Any:
    return getattr(sys.modules.get("multiprocessing.context"), "_default_context", None)


def _write_environment(name: str, value: Any) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
    if name == "TZ":
        time.tzset()


def _write_signal(number: int, handler: Any) -> None:
    if handler is not None:  # None: it was not set from Python
        signal.signal(number, handler)


def _write_warnings(_: str, filters: Any) -> None:
    warnings.filters[:] = filters  # type: ignore[index]
    getattr(warnings, "_filters_mutated", lambda: None)()


def _write_log(what: str, value: Any) -> None:
    if what == "level":
        logging.root.setLevel(value)
    elif what == "handlers":
        logging.root.handlers[:] = value
    else:
        logging.disable(value)


def _write_decimal(_: str, context: Any) -> None:
    decimal = sys.modules.get("decimal")
    if decimal is not None:
        make, arguments = context or decimal.DefaultContext.__reduce__()
        decimal.setcontext(make(*arguments))


def _write_attribute(place: Tuple[str, str], value: Any) -> None:
    module = sys.modules.get(place[0])
    if module is not None:
        setattr(module, place[1], value)


_WRITERS: Dict[str, Callable[[Any, Any], Any]] = {
    "environment": _write_environment,
    "folder": lambda _, path: os.chdir(path),
    "mask": lambda _, mask: os.umask(mask),
    "signal": _write_signal,
    "locale": lambda category, name: locale.setlocale(category, name),
    "recursion": lambda _, limit: sys.setrecursionlimit(limit),
    "timeout": lambda _, seconds: socket.setdefaulttimeout(seconds),
    "collection": lambda _, thresholds: gc.set_threshold(*thresholds),
    "stack": lambda _, size: threading.stack_size(size),
    "warnings": _write_warnings,
    "log": _write_log,
    "decimal": _write_decimal,
    "processes": lambda _, context: setattr(_default_context(), "_actual_context", context),
    "attribute": _write_attribute,
}
