"""What code prints and logs in a run that somebody listens to becomes its lines, and is still printed.

For processes in which other code runs beside: a test, a worker of Dask. ``capture`` is for a process that is a run's
own. A line without an end is kept by nobody.
"""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any, List, Optional, Set, Tuple

from perfect_client.core import context
from perfect_client.core.run_logger import get_run_logger
from perfect_client.core.runs import Run
from perfect_client.output.capture import _HANDLER_EMIT, STDERR_LEVEL, STDOUT_LEVEL, LineStream
from perfect_client.wire.messages import clean_text

_lock = threading.Lock()
_open: List[Tee] = []  # one for all who want it at the same time
_users = 0
_silent: Set[Run] = set()  # runs whose lines are told alone


def _heard() -> Optional[Run]:
    run = context.current_run()
    return run if run is not None and run.root.heard else None


class _TeeStream(LineStream):
    """Writes to the real stream, and tells each whole line."""

    def __init__(self, real: Any, fd: int, level: int) -> None:
        super().__init__(None, real, fd, level)  # type: ignore[arg-type]

    def write(self, text: str) -> int:
        run = _heard()
        if run not in _silent:
            self.real.write(text)
        if run is not None and sys._getframe(1).f_code is not _HANDLER_EMIT:  # a record comes through the handler
            line, (*whole, rest) = self.line(), text.split("\n")
            for piece in whole:
                line.add(piece)
                run.log(line.take(), self._level)
            line.add(rest)
        return len(text)

    def flush(self) -> None:
        self.real.flush()

    def finish(self) -> None:
        """Nothing to do: whose the line was is not known any more."""


class _TeeHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        run = _heard()
        if run is not None:
            run.log(clean_text(self.format(record)), record.levelno, record.created)


class Tee:
    """The streams and the handler; ``tee_output()`` sees to it that there is one at most."""

    def __init__(self) -> None:
        self._streams: List[Tuple[str, Any, Any]] = []
        for name, fd, level in (("stdout", 1, STDOUT_LEVEL), ("stderr", 2, STDERR_LEVEL)):
            real = getattr(sys, name)
            if real is not None:
                stream = _TeeStream(real, fd, level)
                self._streams.append((name, real, stream))
                setattr(sys, name, stream)
        self._handler, self._root = _TeeHandler(), logging.getLogger()
        self._level = self._root.level
        self._root.addHandler(self._handler)
        if self._level in (logging.NOTSET, logging.WARNING):  # nobody has chosen one
            self._root.setLevel(logging.INFO)
        get_run_logger()

    def close(self) -> None:
        """Give everything back that is still ours."""
        for name, real, stream in self._streams:
            if getattr(sys, name) is stream:
                setattr(sys, name, real)
        self._root.removeHandler(self._handler)
        self._root.setLevel(self._level)


class tee_output:
    """Context manager: lines are told inside it, and those of ``silent`` are not printed. For any number of threads."""

    def __init__(self, silent: Optional[Run] = None) -> None:
        self._silences = {silent} if silent is not None else set()

    def __enter__(self) -> None:
        global _users
        with _lock:
            _users += 1
            _silent.update(self._silences)
            if not _open:
                _open.append(Tee())

    def __exit__(self, *exc: object) -> None:
        global _users
        with _lock:
            _users -= 1
            _silent.difference_update(self._silences)
            if not _users:
                _open.pop().close()
