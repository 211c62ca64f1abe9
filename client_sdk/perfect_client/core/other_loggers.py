"""The lines of loguru and structlog: their own levels, and each record once.

Neither is imported here. What loguru writes is a string that carries its record; structlog's lines say their level.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

_HANDLE = logging.Handler.handle.__code__
_FRAMES = 40  # from a write of loguru's to the handler that passed a record of ``logging`` on to it
_STEPS = (50, 40, 30, 20, 10)
_DATED = r"(?:\d{4}-\d\d-\d\d[T ][\d:.,+-]+Z?\s+)?"
_CONSOLE = re.compile(_DATED + r"\[(debug|info|warning|warn|error|critical|exception|notset)\s*\] ")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_LEVELS = {
    "debug": 10,
    "info": 20,
    "warning": 30,
    "warn": 30,
    "error": 40,
    "exception": 40,
    "critical": 50,
    "fatal": 50,
}


class Said(NamedTuple):
    """A record of loguru: its level as in ``logging``, seconds since the epoch."""

    message: str
    level: int
    time: float


def loguru_record(text: str) -> Optional[Said]:
    """The record that a string carries; None for any other text. A format that the program chose is kept."""
    record = getattr(text, "record", None)
    if not isinstance(record, dict) or "level" not in record:
        return None
    number = int(record["level"].no)
    level = next((step for step in _STEPS if number >= step), 10)
    return Said(_without_head(str(text), record).rstrip("\n"), level, record["time"].timestamp())


def _without_head(text: str, record: Dict[str, Any]) -> str:
    """The default format begins with what a line of the log has anyway: time and level."""
    at, level = record["time"], record["level"].name
    head = "%s.%03d | %-8s | %s:%s:%s - " % (
        at.strftime("%Y-%m-%d %H:%M:%S"),
        at.microsecond // 1000,
        level,
        record["name"],
        record["function"],
        record["line"],
    )
    return text[len(head) :] if text.startswith(head) else text


def record_for_loguru() -> Optional[logging.LogRecord]:
    """The record of ``logging`` that a handler is giving to loguru right now, in this thread."""
    frame = sys._getframe(1)
    for _ in range(_FRAMES):
        if frame.f_code is _HANDLE:
            record = frame.f_locals.get("record")
            return record if isinstance(record, logging.LogRecord) else None
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return None


def loguru_sinks() -> List[Tuple[Any, Any]]:
    """What loguru writes to streams by, and the stream of each; empty if it is not imported, or is built otherwise."""
    loguru = sys.modules.get("loguru")
    try:
        handlers = loguru.logger._core.handlers.values() if loguru is not None else ()
        sinks = [handler._sink for handler in handlers]
        return [(sink, sink._stream) for sink in sinks if hasattr(sink, "_stream")]
    except Exception:  # these are loguru's own parts, which it may change
        return []


def level_of_structlog(line: str, otherwise: int) -> int:
    """What a line of structlog says of its level, as its console or JSON renderer writes it."""
    if "structlog" not in sys.modules:
        return otherwise
    if line.startswith("{") and '"level"' in line:
        try:
            return _LEVELS.get(str(json.loads(line).get("level")).lower(), otherwise)
        except (ValueError, AttributeError):
            return otherwise
    found = _CONSOLE.match(_COLOURS.sub("", line[:200]) if "\x1b" in line else line)
    return _LEVELS.get(found[1], otherwise) if found else otherwise
