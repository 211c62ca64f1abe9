"""A terminal for tests: a program runs on a real pseudo-terminal, and its screen can be looked at."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import perfect_client

_PIECES = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Screen:
    """What stands on the terminal after what was written to it; lines that scrolled out stay."""

    def __init__(self) -> None:
        self.lines: List[str] = [""]
        self.row = self.column = 0

    def feed(self, text: str) -> None:
        for numbers, letter, control, words in _PIECES.findall(text):
            if words:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + words + line[self.column + len(words) :]
                self.column += len(words)
            elif control == "\r":
                self.column = 0
            elif control == "\n":
                self.row += 1
                if self.row == len(self.lines):
                    self.lines.append("")
            elif letter == "A":
                self.row = max(0, self.row - int(numbers or 1))
            elif letter == "K":
                self.lines[self.row] = self.lines[self.row][: self.column]
            elif letter == "J":
                self.lines[self.row] = self.lines[self.row][: self.column]
                del self.lines[self.row + 1 :]

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines)


def _take_terminal() -> None:
    """In the program's process: the terminal is its own, and Ctrl-C reaches it even where we ignore it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A Python program on a terminal of 80 columns and 24 lines."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._fd, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.screen, self.raw = Screen(), ""
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=other,
            stdout=other,
            stderr=other,
            env=program_environment(environment),
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(other)

    def until(self, seen: Callable[[str], Any], seconds: float = 20) -> None:
        """Read on until the screen shows it."""
        until = time.monotonic() + seconds
        while not seen(self.screen.text):
            assert time.monotonic() < until, self.screen.text
            if not self._read():
                assert seen(self.screen.text), self.screen.text
                return

    def read_for(self, seconds: float) -> None:
        """Whatever comes in this time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._read(seconds)

    def _read(self, patience: float = 0.5) -> bool:
        if not select.select([self._fd], [], [], patience)[0]:
            return True
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # the other side is closed
            return False
        text = data.decode("utf-8", "replace")
        self.raw += text
        self.screen.feed(text)
        return bool(data)

    def press_control_c(self) -> None:
        self.type("\x03")

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def end(self) -> int:
        """Read to the end; the exit code."""
        until = time.monotonic() + 60
        while self._read():
            assert time.monotonic() < until, self.screen.text
        return self._process.wait(20)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        os.close(self._fd)


def program_environment(changes: Dict[str, str]) -> Dict[str, str]:
    """This process's environment, in which no setting of the display and the terminal is left over."""
    left_out = {"PERFECT_CONSOLE", "PERFECT_TRACEBACK", "NO_COLOR", "TERM", "PYTHONDEVMODE"}
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return {**kept, "TERM": "xterm", "PYTHONPATH": str(Path(perfect_client.__file__).parents[1]), **changes}


def piped(*arguments: str, **environment: str) -> Tuple[str, str, int]:
    """Run a Python program without a terminal: its standard output, its standard error, its exit code."""
    done = subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env=program_environment(environment),
        check=False,
    )
    return done.stdout.decode(), done.stderr.decode(), done.returncode
