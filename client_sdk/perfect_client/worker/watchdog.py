"""Deadlines that a run's process tells its supervisor, which keeps them whatever the code is doing.

They travel on the bell's pipe: a byte ``!`` rings, a line says of which attempt which deadline comes or goes. A line
is shorter than ``PIPE_BUF``, so that lines of several processes never mix (pipe(7)).
"""

from __future__ import annotations

import itertools
import json
import os
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from perfect_client.wire.messages import clean_text

_MAX_SENTENCE_BYTES = 512
_FULL_PIPE_S = 1.0  # a supervisor that has not read 64 KiB by then has other troubles


class Deadline(NamedTuple):
    """Attempt ``fence`` must come to the end of its deadline ``key`` in ``seconds``; None: it has."""

    fence: int
    key: int
    seconds: Optional[float]
    sentence: str


class Watchdog:
    """The run's side. ``watch`` and ``rest`` take any object as the key."""

    def __init__(self, bell: int, fence: int) -> None:
        self._bell, self._fence = bell, fence
        self._numbers = itertools.count(1)
        self._keys: Dict[int, Tuple[Any, int]] = {}  # the object is kept, so that its id stays its own

    def watch(self, key: Any, seconds: float, sentence: str) -> None:
        """Whoever is asked to rest before ``seconds`` have passed, and the grace, is left in peace."""
        number = next(self._numbers)
        self._keys[id(key)] = key, number
        self._say([self._fence, number, seconds, clean_text(sentence, _MAX_SENTENCE_BYTES)])

    def rest(self, key: Any) -> None:
        """What was watched has come to its end."""
        _, number = self._keys.pop(id(key), (None, 0))
        if number:
            self._say([self._fence, number, None, ""])

    def _say(self, word: List[Any]) -> None:
        line = b"\n%s\n" % json.dumps(word).encode()
        give_up = time.monotonic() + _FULL_PIPE_S
        while time.monotonic() < give_up:
            try:
                os.write(self._bell, line)
                return
            except BlockingIOError:
                time.sleep(0.005)
            except OSError:
                return


class DeadlineReader:
    """The supervisor's side: words out of what was read from the bell's pipe."""

    def __init__(self) -> None:
        self._rest = b""

    def hear(self, data: bytes) -> List[Deadline]:
        """The words that are complete; what is no word is the bell."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest.strip(b"!")
        words = []
        for line in lines:
            text = line.strip(b"!")
            if not text:
                continue
            try:
                fence, key, seconds, sentence = json.loads(text)
                words.append(Deadline(int(fence), int(key), None if seconds is None else float(seconds), str(sentence)))
            except (ValueError, TypeError):
                continue
        return words
