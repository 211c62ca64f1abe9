"""What a run's process leaves that its spool does not have: lines that have not ended, and the end of a full log."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Callable, List, Optional

from perfect_client.journal import spool, tail, unfinished_lines
from perfect_client.journal.merge import time_in
from perfect_client.journal.unfinished_lines import OpenLine, OpenLines
from perfect_client.wire import messages

if TYPE_CHECKING:
    from perfect_client.system.loop import Loop, Timer

OPEN_S = 0.3  # so long a line must have stood unfinished before it is shown
OPEN_LINES, OPEN_BYTES = 20, 2000  # of those that are shown, and of each of them
LOOKED_BACK = 256  # records, for a line that was being told when its process died


class Unfinished:
    """Shows the server what stands unfinished: after a moment, and when it has changed, but not more often.

    ``find`` gives the lines, ``keep`` is called before they are shown, ``show`` tells them.
    """

    def __init__(
        self,
        loop: Loop,
        find: Callable[[], List[OpenLine]],
        keep: Callable[[], None],
        show: Callable[[List[messages.LineOpen]], None],
        clean: Callable[[str], str],
    ) -> None:
        self._loop, self._find, self._keep, self._show, self._clean = loop, find, keep, show, clean
        self._shown: List[messages.LineOpen] = []
        self._timer: Optional[Timer] = None

    def look(self) -> None:
        """Something was written or told."""
        if self._shown:
            self._tell()
        elif self._timer is None and self._find():
            self._timer = self._loop.after(OPEN_S, self._after_a_moment)

    def end(self) -> None:
        """The process is gone: nothing is open any more."""
        self.cancel()
        if self._shown:
            self._shown = []
            self._show([])

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _after_a_moment(self) -> None:
        self._timer = None
        self._keep()
        self._tell()

    def _tell(self) -> None:
        lines = [
            messages.LineOpen(line.time, messages.clean_text(self._clean(line.text), OPEN_BYTES), line.level, line.task)
            for line in self._find()[:OPEN_LINES]
        ]
        same = [line.message for line in lines] == [line.message for line in self._shown]
        if same or (lines and self._timer is not None):
            return
        self._shown = lines
        self._show(lines)
        if lines:
            self._timer = self._loop.after(OPEN_S, self._after_a_moment)


def unrecorded_facts(
    facts: Optional[spool.Reader], tail_path: Path, open_path: Path, clean: Callable[[str], str], now: float
) -> List[bytes]:
    """What a process that is gone had told or begun to tell, and not put into its spool: records for the spool."""
    records = behind(facts, left_out(tail.read_tail(tail_path), "log", now))
    told = unfinished_lines.attach(str(open_path))
    if told is not None:
        lines = left_open(told, facts)
        told.close()
        records += [messages.encode_fact(messages.Logged(at, clean(text), level, n)) for at, text, level, n, _ in lines]
    return records


def left_open(held: OpenLines, recorded: Optional[spool.Reader]) -> List[OpenLine]:
    """What stands open in a file whose writer is gone, but for what it had told already: a line of the same time."""
    lines = held.lines()
    if not any(line.being_told for line in lines) or recorded is None:
        return lines
    last = recorded.read(max(1, recorded.count - LOOKED_BACK), LOOKED_BACK + 1, messages.MAX_BATCH_BYTES)
    told = {time_in(record) for record in last}
    return [line for line in lines if not (line.being_told and line.time in told)]


def behind(recorded: Optional[spool.Reader], records: List[bytes]) -> List[bytes]:
    """Those of ``records`` that are not in the spool yet, if its writer died while it wrote them."""
    last = recorded.last() if recorded is not None else None
    return records[records.index(last) + 1 :] if last is not None and last in records else records


def left_out(kept: tail.Kept, what: str, now: float) -> List[bytes]:
    """The records of a ring, behind a line that says how many are missing before them."""
    if not kept.left:
        return kept.records
    text = "%d lines were not kept: the %s of this run is full" % (kept.left, what)
    at = time_in(kept.records[0]) if kept.records else now
    return [messages.encode_fact(messages.Logged(at, text, logging.WARNING, None, kept.left)), *kept.records]
