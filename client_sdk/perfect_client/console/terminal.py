"""A few lines at the bottom of a terminal that are drawn again and again, while all other output scrolls above them.

The cursor always stands below the lines, at the start of a line: whoever ends the program, even by SIGKILL, leaves a
terminal that can be used. While a line of output is unfinished, nothing is drawn.
"""

from __future__ import annotations

import builtins
import logging
import os
import sys
import threading
import unicodedata
from typing import Any, List, Tuple

UP, CLEAR_LINE, CLEAR_BELOW = "\x1b[%dA", "\x1b[K", "\x1b[J"
_WIDEST = 120  # columns that the lines use
_input = builtins.input


class _Above:
    """Stands in for ``sys.stdout`` or ``sys.stderr`` on the terminal: what is written scrolls above the lines."""

    def __init__(self, block: Block, real: Any) -> None:
        self._block, self.real = block, real

    def write(self, text: str) -> int:
        self._block.write(self.real, text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class Block:
    """The lines. ``draw`` them, ``write`` above them, ``close`` at the end. For any thread."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.lock = threading.RLock()  # reentrant: a signal handler may print
        self._height = 0
        self._open_line = self._broken = self._asking = False
        self._undo: List[Tuple[Any, str, Any, Any]] = []

    def open(self) -> None:
        """Take over the streams that show on this terminal, the logging handlers that hold them, and ``input``."""
        for name in ("stdout", "stderr"):
            real = getattr(sys, name)
            if real is not None and real.isatty():
                above = _Above(self, real)
                for handler in _handlers_of(real):
                    self._put(handler, "stream", above)
                self._put(sys, name, above)
        self._put(builtins, "input", self._ask)

    def _ask(self, *prompt: Any) -> str:
        """``input``, also a debugger's: it writes to the terminal past the streams, so nothing is drawn meanwhile."""
        with self.lock:
            self._send(self._cleared())
            self._asking = True
        try:
            return _input(*prompt)
        finally:
            self._asking = False

    def _put(self, owner: Any, name: str, value: Any) -> None:
        self._undo.append((owner, name, getattr(owner, name), value))
        setattr(owner, name, value)

    def close(self) -> None:
        """Take the lines away and give the streams back, where nobody else has taken them since."""
        self.draw([])
        with self.lock:
            self._give_back()

    def _give_back(self) -> None:
        while self._undo:
            owner, name, before, mine = self._undo.pop()
            if getattr(owner, name) is mine:
                setattr(owner, name, before)

    def abandon(self) -> None:
        """In a forked child: the terminal's lines belong to the parent."""
        self._give_back()
        self._height, self._broken = 0, True

    @property
    def size(self) -> Tuple[int, int]:
        """Columns and lines that may be used."""
        try:
            columns, lines = os.get_terminal_size(self.stream.fileno())
        except (OSError, ValueError):
            columns, lines = 80, 24
        return max(20, min((columns or 80) - 1, _WIDEST)), max(1, (lines or 24) - 2)

    def write(self, real: Any, text: str) -> None:
        """Text of the program, for one of its streams."""
        with self.lock:
            if text:
                self._send(self._cleared())
                self._open_line = not text.endswith("\n")
            real.write(text)
            if real is not self.stream:
                real.flush()  # before the lines come again

    def draw(self, lines: List[str]) -> None:
        """Show these lines in place of those before."""
        with self.lock:
            if (self._open_line or self._asking) and lines:
                return
            above = self._height
            self._height = len(lines)
            body = "".join(line + CLEAR_LINE + "\n" for line in lines)
            self._send((UP % above + "\r" if above else "") + body + (CLEAR_BELOW if above else ""))

    def say(self, line: str) -> None:
        """A line that stays."""
        with self.lock:
            self._send(self._cleared() + ("\n" if self._open_line else "") + line + "\n")
            self._open_line = False

    def _cleared(self) -> str:
        above, self._height = self._height, 0
        return UP % above + "\r" + CLEAR_BELOW if above else ""

    def _send(self, text: str) -> None:
        """A terminal that is gone must not end the program."""
        if text and not self._broken:
            try:
                self.stream.write(text)
                self.stream.flush()
            except (OSError, ValueError):
                self._broken = True


def _handlers_of(stream: Any) -> List[Any]:
    loggers: List[Any] = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    handlers = [handler for logger in loggers for handler in getattr(logger, "handlers", ())]
    return [handler for handler in dict.fromkeys(handlers) if getattr(handler, "stream", None) is stream]


def width_of(text: str) -> int:
    """The columns that a string takes: East Asian characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def fitted(text: str, columns: int) -> str:
    """The text in one line of at most so many columns, without anything that would move the cursor."""
    text = "".join(c if c.isprintable() else " " for c in text[: columns * 4])
    if width_of(text) <= columns:
        return text
    while text and width_of(text) > columns - 1:
        text = text[:-1]
    return text + ("…" if columns > 1 else "")
