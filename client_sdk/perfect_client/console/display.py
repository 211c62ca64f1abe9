"""What a flow file that is run by itself shows of its flow, on standard error: live lines, or one line after another.

The flow's own threads only append to a queue; one thread counts, and draws ten times a second.
"""

from __future__ import annotations

import atexit
import math
import os
import sys
import threading
import time
from collections import deque
from typing import Any, Deque, Dict, List, Optional, Tuple

from perfect_client.console.run_progress import Call, RunProgress, describe_counts, span
from perfect_client.console.terminal import Block, fitted, width_of
from perfect_client.core import listeners
from perfect_client.core.runs import Emit, Run
from perfect_client.wire.messages import RunEnded, TaskEnded, TaskStarted

EVERY_S = 0.1
SHOWN_CALLS = 5  # of those that run
BURST, PER_SECOND = 40, 4  # plain lines about tasks: so many at once, and so many each second after that
SUMMARY_S = 2.0  # what was not told line by line is told together, this often

_WORDS = {"COMPLETED": "completed", "CACHED": "was cached", "SKIPPED": "was skipped"}
_COLOURS = {"COMPLETED": 32, "FAILED": 31, "CRASHED": 31, "CANCELLED": 33, "dim": 2}


class Show:
    """One run: the facts that nobody has counted yet, and the run_progress of the others."""

    def __init__(self, run: Run) -> None:
        self.run, self.run_progress = run, RunProgress()
        self.queue: Deque[Any] = deque()
        self.planned = False

    @property
    def name(self) -> str:
        return self.run.given_name or self.run.flow_name

    def plan(self) -> None:
        """Read the flow's code, once."""
        if not self.planned:
            self.planned = True
            from perfect_client.analysis import planner  # heavy: only for a terminal, and by the thread that draws

            self.run_progress.expect(planner.plan(self.run.flow).tasks)

    def verdict(self) -> str:
        """How the run ended, in one line."""
        run_progress = self.run_progress
        took = span((run_progress.ended or 0.0) - (run_progress.began or 0.0))
        how = {"COMPLETED": "completed in", "CANCELLED": "was stopped after"}.get(run_progress.outcome, "failed after")
        told = [", ".join(describe_counts(run_progress.counts))] if run_progress.counts else []
        wrong = (
            run_progress.error.splitlines()[0]
            if run_progress.error and run_progress.outcome not in ("COMPLETED", "CANCELLED")
            else ""
        )
        return " · ".join(["%s %s %s" % (self.name, how, took), *told, *([wrong] if wrong else [])])


class Plain:
    """Lines for a file, a pipe or a log. Many short tasks are told together."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.lock = threading.RLock()
        self._allowed, self._asked = {"": float(BURST), "FAILED": float(BURST)}, time.monotonic()
        self._together: Dict[Tuple[str, str], int] = {}
        self._summary_at = 0.0

    def open(self) -> None:
        """Nothing to prepare."""

    def close(self) -> None:
        """Nothing to give back."""

    def abandon(self) -> None:
        """Nothing to do in a forked child, which tells nothing."""

    def begin(self, show: Show) -> None:
        self._line(time.time(), "run", show.name + " started")

    def end(self, show: Show) -> None:
        self._tell_together()
        self._line(show.run_progress.ended or time.time(), "run", show.verdict())

    def draw(self, shows: List[Show], news: List[Tuple[Any, Call]]) -> None:
        """What has happened since the last time."""
        now = time.monotonic()
        for kind in self._allowed:
            self._allowed[kind] = min(float(BURST), self._allowed[kind] + (now - self._asked) * PER_SECOND)
        self._asked = now
        short = {id(call) for fact, call in news if type(fact) is TaskEnded}
        for fact, call in news:
            if type(fact) is TaskStarted and id(call) not in short:
                self._tell(fact.time, call, "started", "")
            elif type(fact) is TaskEnded:
                self._tell(fact.time, call, _ending(call), "" if call.outcome in _WORDS else "FAILED")
        if self._together and now >= self._summary_at:
            self._tell_together()

    def _tell(self, at: float, call: Call, said: str, kind: str) -> None:
        if self._allowed[kind] >= 1:
            self._allowed[kind] -= 1
            self._line(at, "task", "%s %s" % (call.label, said))
            return
        if not self._together:
            self._summary_at = time.monotonic() + SUMMARY_S
        name, word = call.fact.name or call.fact.key, call.outcome.lower() or said
        self._together[name, word] = self._together.get((name, word), 0) + 1

    def _tell_together(self) -> None:
        together, self._together = self._together, {}
        by_name: Dict[str, List[str]] = {}
        for (name, word), number in together.items():
            by_name.setdefault(name, []).append("%s %s" % (format(number, ","), word))
        for name, words in list(by_name.items())[:BURST]:
            self._line(time.time(), "task", "%s: %s" % (name, ", ".join(words)))

    def _line(self, at: float, kind: str, text: str) -> None:
        try:
            stamp = time.strftime("%H:%M:%S", time.localtime(at))
            self._stream.write("%s %-7s %s\n" % (stamp, kind, encodable(fitted(text, 500), self._stream)))
            self._stream.flush()
        except (OSError, ValueError):  # nobody reads it any more: no reason to fail
            pass


class Live:
    """Lines that redraw at the bottom of a terminal."""

    def __init__(self, stream: Any) -> None:
        self._block = Block(stream)
        self.lock, self.abandon = self._block.lock, self._block.abandon
        self.open, self.close = self._block.open, self._block.close
        self._fancy = encodable("━▸✓", stream) == "━▸✓"
        self._colours = not os.environ.get("NO_COLOR")
        self._rich: Any = None

    def begin(self, show: Show) -> None:
        """The lines come by themselves, if the run is not over before."""

    def end(self, show: Show) -> None:
        outcome = show.run_progress.outcome
        mark = {"COMPLETED": "✓", "CANCELLED": "■"}.get(outcome, "✗") if self._fancy else "*"
        line = self._paint(mark, _COLOURS.get(outcome, 0)) + " " + fitted(show.verdict(), self._block.size[0] - 2)
        self._block.say(encodable(line, self._block.stream))

    def draw(self, shows: List[Show], news: List[Tuple[Any, Call]]) -> None:
        """The picture as it is now."""
        columns, most = self._block.size
        lines: List[str] = []
        for show in shows:
            show.plan()
            lines.extend(self._lines(show, columns))
        self._block.draw([encodable(line, self._block.stream) for line in lines[:most]])

    def _lines(self, show: Show, columns: int) -> List[str]:
        now, run_progress, opened = time.time(), show.run_progress, show.run.opened()
        left = run_progress.seconds_left(opened, now)
        said = "%3d %%  %s" % (run_progress.progress(opened), clock(now - (run_progress.began or now)))
        said += "  about %s left" % clock(math.ceil(left), "%d s") if left is not None else ""
        name = fitted(show.name, columns // 3)
        room = columns - width_of(name) - len(said) - 4
        lines = [
            name + "  " + (self._bar(run_progress.progress(opened), min(40, room)) + "  " if room >= 5 else "") + said
        ]
        running = list(run_progress.running.values())
        lines.extend(self._call_line(call, now, columns) for call in running[:SHOWN_CALLS])
        counts = describe_counts(run_progress.counts)
        if len(running) > SHOWN_CALLS:
            counts.append("%s running" % format(len(running), ","))
        coming = run_progress.coming(opened)
        if coming:
            counts.append("%s to come" % format(coming, ","))
        if counts:
            lines.append(self._paint(fitted("  " + " · ".join(counts), columns), _COLOURS["dim"]))
        return lines

    def _call_line(self, call: Call, now: float, columns: int) -> str:
        said = [clock(call.seconds(now))]
        if call.waits:
            said.append("waits for attempt %d: %s" % (call.tries + 1, first_line(call.error)))
        elif call.share or call.text:
            said.append(("%d %% %s" % (100 * call.share, call.text)).strip())
        inner = "    " if call.fact.parent is not None else "  "
        return fitted("%s%s %s  %s" % (inner, "▸" if self._fancy else ">", call.label, "  ".join(said)), columns)

    def _bar(self, percent: float, columns: int) -> str:
        bar = self._rich_bar(percent, columns) if self._colours and self._fancy else ""
        if bar:
            return bar
        full = int(columns * percent / 100)
        done, rest = ("━", "─") if self._fancy else ("#", "-")
        return self._paint(done * full, _COLOURS["COMPLETED"]) + self._paint(rest * (columns - full), _COLOURS["dim"])

    def _rich_bar(self, percent: float, columns: int) -> str:
        """The bar as ``rich`` draws it, where that is installed."""
        if self._rich is None:
            try:
                from rich.console import Console  # heavy: only on a terminal, and by the thread that draws
                from rich.progress_bar import ProgressBar  # heavy, too

                self._rich = Console(file=self._block.stream, force_terminal=True), ProgressBar
            except Exception:  # not there, or not as it should be: the bar is drawn here
                self._rich = ()
        if not self._rich:
            return ""
        console, bar = self._rich
        with console.capture() as drawn:
            console.print(bar(total=100, completed=percent, width=columns, complete_style="green"), end="")
        return str(drawn.get()).strip("\n")

    def _paint(self, text: str, colour: int) -> str:
        return "\x1b[%dm%s\x1b[0m" % (colour, text) if self._colours and colour and text else text


class Board:
    """The runs that are shown, and the thread that does it."""

    def __init__(self, painter: Any) -> None:
        self._painter, self._lock = painter, painter.lock
        self._shows: List[Show] = []
        self._thread: Optional[threading.Thread] = None
        self._over = threading.Event()
        if hasattr(os, "register_at_fork"):  # no line is half written when a process forks
            os.register_at_fork(
                before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._abandon
            )

    def _abandon(self) -> None:
        """In a forked child: the display belongs to the parent."""
        self._shows = []
        self._painter.abandon()
        self._lock.release()

    def listen(self, run: Run) -> Emit:
        """A run begins; where its facts go."""
        show = Show(run)
        with self._lock:
            if not self._shows:
                self._painter.open()
            self._shows.append(show)
            self._painter.begin(show)
            if self._thread is None:
                self._thread = threading.Thread(target=self._paint, name="perfect-display", daemon=True)
                self._start(self._thread)

        def emit(fact: Any) -> None:
            show.queue.append(fact)
            if type(fact) is RunEnded:
                self._end(show)

        return emit

    def _start(self, thread: threading.Thread) -> None:
        try:
            thread.start()
        except RuntimeError:  # no more threads can be had: the end is shown at least
            pass

    def _paint(self) -> None:
        while not self._over.wait(EVERY_S):
            with self._lock:
                if not self._shows:
                    self._thread = None
                    return
                self._step()

    def _step(self) -> None:
        news: List[Tuple[Any, Call]] = []
        for show in self._shows:
            while show.queue:
                fact = show.queue.popleft()
                call = show.run_progress.take(fact)
                if call is not None:
                    news.append((fact, call))
        self._draw(news)

    def _draw(self, news: List[Tuple[Any, Call]]) -> None:
        try:
            self._painter.draw(self._shows, news)
        except Exception:  # what is wrong with the picture must not matter to the run
            pass

    def _end(self, show: Show) -> None:
        with self._lock:
            self._step()
            self._shows.remove(show)
            self._draw([])
            self._painter.end(show)
            if not self._shows:
                self._painter.close()

    def stop(self) -> None:
        """The program ends."""
        self._over.set()
        with self._lock:
            if self._shows:
                self._painter.close()


_board: Optional[Board] = None
_mode = ""


def listen(run: Run) -> Emit:
    """Show a run of a flow that was called directly."""
    global _board, _mode
    mode = listeners.display_mode()
    if _board is None or mode != _mode:
        if _board is not None:
            _board.stop()
        _board, _mode = Board((Live if mode == "live" else Plain)(sys.stderr)), mode
        atexit.register(_board.stop)
    return _board.listen(run)


def _ending(call: Call) -> str:
    took = span(call.seconds(call.began))
    word = _WORDS.get(call.outcome, "")
    if call.outcome in ("CACHED", "SKIPPED"):
        return word
    if word:
        return "%s in %s%s" % (word, took, " at attempt %d" % call.tries if call.tries > 1 else "")
    return "%s after %s: %s" % (call.outcome.lower(), took, first_line(call.error))


def clock(seconds: float, short: str = "%.1f s") -> str:
    """A duration that is drawn again and again, so that it does not jump between units."""
    return short % seconds if seconds < 59.95 else span(seconds)


def first_line(text: str) -> str:
    return text.splitlines()[0] if text else "no reason given"


def encodable(text: str, stream: Any) -> str:
    """The text with a question mark for what the stream cannot show."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding, "replace")
