"""The files that a run's process writes, made before it is known for which run.

A new file costs tenths of a millisecond, to rename one costs hundredths. So a process in reserve makes them, in a
folder beside that of the runs.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Optional

from perfect_client.journal import spool, unfinished_lines
from perfect_client.journal.unfinished_lines import OpenLines

FOLDER = "ahead"  # beside the folder of the runs


class RunFiles:
    """The spool of the facts, and the lines that have not ended; None of the latter where they cannot be had.

    ``path`` is theirs without the endings. Raises ``OSError`` when the spool cannot be made.
    """

    def __init__(self, path: str) -> None:
        self._path, self._is_ahead = path, True
        self.open_lines: Optional[OpenLines] = unfinished_lines.create(path + ".open")
        self.facts = spool.Writer(path + ".facts")

    def belong_to(self, path: str) -> None:
        """Be those of the run whose files are there. Raises ``OSError``."""
        if self.open_lines is not None:
            os.rename(self._path + ".open", path + ".open")
        self.facts.rename(path + ".facts")
        self._is_ahead = False

    def remove(self) -> None:
        """No run has come. Those of a run stay: another process may have started it, and have its files by now."""
        for ending in (".open", ".facts") if self._is_ahead else ():
            with contextlib.suppress(OSError):
                os.unlink(self._path + ending)


def make_ahead(runs: str) -> Optional[RunFiles]:
    """For the next run whose files will be in the folder ``runs``; None while that cannot be."""
    with contextlib.suppress(OSError):
        name = "%d-%d" % (os.getpid(), time.monotonic_ns())
        return RunFiles(os.path.join(os.path.dirname(runs), FOLDER, name))
    return None
