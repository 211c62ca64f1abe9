"""One attempt at a run, as its worker sees it: offered, started, gone, final, delivered."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set

from perfect_client.journal import spool, unread
from perfect_client.journal.journal import Entry, Folder
from perfect_client.journal.merge import OUTCOMES, Merged
from perfect_client.journal.unfinished_lines import OpenLine
from perfect_client.schema.redaction import Hidden
from perfect_client.schema.secrets import fact_without
from perfect_client.system import procs
from perfect_client.system.loop import Loop, Timer
from perfect_client.wire import messages
from perfect_client.wire.session import Session
from perfect_client.worker import last_lines
from perfect_client.worker.last_lines import Unfinished
from perfect_client.worker.pipes import STDERR_LEVEL, STDOUT_LEVEL, Output
from perfect_client.worker.secret_pipe import SecretReceiver

GROUP_AFTER_S = 1.0  # a cancelled run's own process is asked first, what it started a second later
HANGING_EXIT_S = 5.0  # from the outcome to the end of the process
CATCH_UP_S = 0.005  # until raw lines that have just come are numbered
FULL_DISK_S = 5.0  # until the end of a run is written again
DRAIN_S = 0.8  # from the end of the process to the end of its output

OFFERED, STARTING, RUNNING, GONE, FINAL = "offered", "starting", "running", "gone", "final"


class AttemptContext(NamedTuple):
    """What every attempt shares."""

    loop: Loop
    folder: Folder
    session: Session
    worker: str
    others: Callable[[], Set[int]]  # pids that are nobody's orphans: the zygotes and the leaders of living runs
    changed: Callable[["Attempt"], None]  # a slot came free or an attempt is final
    over: Callable[["AttemptContext", "Attempt"], None]  # its end is written
    secrets: Callable[[messages.OfferRun], Hidden]  # what must not stand in the output of a run
    buffer: unread.Buffer  # what their pipes give is read there first


class Attempt:
    """``zygote`` is whatever started it. All methods are called from the supervisor's loop."""

    def __init__(self, shared: AttemptContext, entry: Entry) -> None:
        self._shared, self.entry = shared, entry
        self.fence, self.run = entry.order.fence, entry.order.run
        self.stage = OFFERED
        self.zygote: Any = None
        self.dropped = self.forgotten = False
        self._hidden, self._confided = shared.secrets(entry.order), SecretReceiver()
        self._clean = self._hidden.without
        self._output = Output(
            self._beside("raw"),
            clean=self._clean,
            learn=self._learn,
            on_first=self._expect_raw,
            buffer=shared.buffer,
        )
        self._catching_up = False
        self.kept = False  # until the hooks of its end were called
        self._facts: Optional[spool.Reader] = None
        self._lines: Optional[spool.Reader] = None
        self._merged: Optional[Merged] = None  # what is sent: both of them
        self._old_output: Optional[spool.Reader] = None  # an earlier version's
        self._unfinished = Unfinished(
            shared.loop,
            self._open_lines,
            lambda: self._output.hold(self._beside("rawopen")),
            lambda lines: shared.session.show_open(self.fence, self.run, lines),
            self._clean,
        )
        self._lifeline = self._answers = -1
        self._stands_still = False
        self._unsent = b""  # of the answers to its questions
        self._timers: List[Timer] = []
        self._stop_reason: Optional[str] = None  # why the worker ends it, when no cancel was asked for
        self._stopping_since: Optional[float] = None
        self._killed_after: Optional[float] = None  # the grace that ran out
        self._gone: Optional[procs.Exited] = None
        self._oom_kills = 0
        self._trouble = ""
        self._swept = False
        self._watched: Dict[int, Timer] = {}
        self._missed = ""  # the deadline for which it is killed

    @property
    def busy(self) -> bool:
        """Whether it takes a slot."""
        return self.stage != FINAL

    @property
    def alive(self) -> bool:
        return self.stage == RUNNING

    def held(self) -> messages.Held:
        return messages.Held(
            self.fence,
            self.run,
            facts=self._merged.count if self._merged else 0,
            output=self._old_output.count if self._old_output else 0,
            started=self.entry.started,
        )

    # --------------------------------------------------------------------------------------------------------- begin

    def write(self) -> None:
        self._shared.folder.write(self.entry)

    def offered(self) -> None:
        """Note the offer down, as one that may have been started: who finds it after this worker's death cannot know,
        and the start itself has no time to lose. Raises ``OSError``."""
        self._shared.folder.write(replace(self.entry, started=True))

    def _note_down(self) -> None:
        """For what the journal should know, but nothing must fail for."""
        with contextlib.suppress(OSError):
            self.write()

    def go(self) -> None:
        """The server committed the claim. From here on the attempt counts as started, whatever happens."""
        self._watch_facts()
        self.entry.started = True
        self.stage = STARTING

    def _beside(self, kind: str) -> Path:
        return self._shared.folder.beside(self.fence, kind)

    def _watch_facts(self) -> None:
        self._facts = spool.Reader(self._beside("facts"))
        self._merged = Merged(self._facts, self._beside("order"))
        if self._beside("raw").exists():
            self._lines = spool.Reader(self._beside("raw"))
        self._merged.restore(self._lines)
        self._shared.session.watch(self.fence, self.run, messages.FACTS, self._merged)

    def open_pipes(self) -> Optional[List[int]]:
        """The child's stdout, stderr, lifeline, answers and the pipe for its secrets, and its zygote's reading ends of
        the first two; made in the moment in which they are handed over."""
        if self.stage not in (OFFERED, STARTING):
            return None
        self._close_pipes()  # of a child that was prepared and died
        self._oom_kills = procs.oom_kills()
        return self._make_pipes(self._drain)

    def open_pipes_again(self, drained: Callable[[], None]) -> List[int]:
        """The same for a process that speaks after the end; ``drained`` is called whenever it has."""

        def drain() -> None:
            self._gather()
            drained()

        return self._make_pipes(drain)

    def _make_pipes(self, drain: Callable[[], None]) -> List[int]:
        fds = [self._output.pipe(STDOUT_LEVEL), self._output.pipe(STDERR_LEVEL)]
        lifeline, self._lifeline = os.pipe()
        answers, self._answers = os.pipe()
        os.set_blocking(self._answers, False)
        reading = self._output.open_pipes
        for fd in reading:
            self._shared.loop.on_read(fd, drain)
        confide = self._confided.open()
        self._shared.loop.on_read(self._confided.fd, self._learn)
        return [*fds, lifeline, answers, confide, *map(os.dup, reading)]

    def _learn(self) -> None:
        """The run's processes have told their secrets, before they could print them."""
        fd = self._confided.fd
        told = self._confided.hear()
        if told:
            self._hidden.add(told)
        if self._confided.fd != fd:
            self._shared.loop.forget(fd)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing can come through its pipes any more."""
        return not self._output.open_pipes

    def add_line(self, text: str, level: int) -> None:
        """A line of the supervisor's in the run's log."""
        self._output.add(text, level)
        self._gather()

    def close_pipes_again(self) -> None:
        """The process that spoke after the end is gone."""
        self._close_pipes()
        self._gather()
        self._unfinished.end()

    def _close_pipes(self) -> None:
        """Our ends of them; a child that is prepared but not started ends with its lifeline."""
        for fd in self._output.open_pipes:
            self._shared.loop.forget(fd)
        self._output.close()
        self.close_lifeline()
        if self._confided.fd >= 0:
            self._shared.loop.forget(self._confided.fd)
            self._confided.close()

    def close_lifeline(self) -> None:
        """End the process that has the other end of it."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._shared.loop.forget(self._answers)
            os.close(self._answers)
            self._lifeline = self._answers = -1

    def answer(self, ask: int, body: Dict[str, Any]) -> None:
        """The server's answer to a question of the code, for the process that asked."""
        if self._answers >= 0:
            self._unsent += messages.dumps([ask, body]).encode("utf-8", "backslashreplace") + b"\n"
            self._send_answers()

    def _send_answers(self) -> None:
        """What the pipe does not take now goes when there is room: nobody waits here for a run to read."""
        try:
            self._unsent = self._unsent[os.write(self._answers, self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:  # it reads no more
            self._unsent = b""
        if self._unsent:
            self._shared.loop.on_write(self._answers, self._send_answers)
        else:
            self._shared.loop.forget(self._answers)

    def forked(self, pid: int, born: int) -> None:
        self.entry.pid, self.entry.born = pid, born
        self.stage = RUNNING
        self._note_down()
        if self.dropped:
            self.kill()
        elif self._stopping_since is not None:
            procs.send(pid, signal.SIGTERM)
        elif self._stands_still:
            self._signal_group(signal.SIGSTOP)

    def adopt(self, reason: str) -> None:
        """Found in the journal after the worker's restart: its process is dead, say so unless it had finished."""
        self.stage = GONE
        self._trouble, self._swept = reason, True
        self._watch_facts()
        if self._beside("output").exists():
            self._old_output = spool.Reader(self._beside("output"))
            self._shared.session.watch(self.fence, self.run, messages.OUTPUT, self._old_output)
        self._output.recover(self._beside, self._lines, self._shared.folder.reading(self.entry.boot))
        self._finish()

    # ---------------------------------------------------------------------------------------------------------- facts

    def look(self) -> None:
        """The bell rang: read what the child has written."""
        if self._facts is None:
            return
        known = self._facts.count
        self._gather()
        if self._facts.count > known and self.stage == RUNNING and self.has_outcome:
            self._later(HANGING_EXIT_S, self.kill)

    @property
    def has_outcome(self) -> bool:
        last = self._facts.last() if self._facts else None
        return last is not None and last.startswith(OUTCOMES)

    @property
    def has_begun(self) -> bool:
        """Whether its process was started, as far as this worker knows."""
        return self.zygote is not None or (self._facts is not None and self._facts.count > 1)

    @property
    def exit(self) -> Optional[messages.ProcessExited]:
        """The end that a supervisor wrote; None if the run told its outcome, or has not ended."""
        last = self._facts.last() if self._facts else None
        fact = messages.decode(last) if last is not None and last.startswith(OUTCOMES[1]) else None
        return fact if isinstance(fact, messages.ProcessExited) else None

    @property
    def began_at(self) -> float:
        """When its code began, in seconds since the epoch; now, if that is not known."""
        first = self._facts.read(1, 1, 1) if self._facts else []
        fact = messages.decode(first[0]) if first else None
        return fact.time if isinstance(fact, messages.RunStarted) else time.time()

    def _drain(self) -> None:
        if self._facts is not None:
            self.look()
        else:  # a child that is prepared and has said something already
            self._gather()
        self._shared.changed(self)
        if self.stage == GONE:
            self._finish_when_quiet()

    def _gather(self) -> None:
        """Take what has been told and what came raw, in their order. Whatever was written to a pipe before a fact is in
        that pipe when the fact can be read: so facts first, and then the pipes."""
        self._attach()
        facts, merged = self._facts, self._merged
        told = facts.refresh() if facts is not None else 0
        for fd in self._output.drain(all_told=self.has_outcome):
            self._shared.loop.forget(fd)
        if facts is not None and merged is not None:
            self._number(told, facts, merged)
        if self._output.is_behind and not self._catching_up:
            self._catching_up = True
            self._shared.loop.after(CATCH_UP_S, self._catch_up)
        self._unfinished.look()

    def _catch_up(self) -> None:
        self._catching_up = False
        if not self.forgotten:
            self._drain()

    def _expect_raw(self) -> None:
        if self._merged is not None:
            self._merged.expect_raw()

    def _number(self, told: int, facts: spool.Reader, merged: Merged) -> None:
        if self._lines is None and self._output.has_recorded:
            self._lines = spool.Reader(self._beside("raw"))
        if self._lines is None:
            merged.take(told)
            return
        self._lines.refresh()
        facts.refresh()
        merged.merge(told, self._lines)

    def _attach(self) -> None:
        if self._output.told is None and self.stage in (STARTING, RUNNING):
            self._output.listen(self._beside("open"))
        if self._output.told is not None:
            self._output.told.looked()

    def _open_lines(self) -> List[OpenLine]:
        told = [line for line in self._output.told.lines() if not line.being_told] if self._output.told else []
        return [*told, *self._output.unfinished()]

    # ----------------------------------------------------------------------------------------------------------- stop

    def cancel(self, reason: str, grace_s: float) -> None:
        """The server wants it ended. Once is enough; a second word changes nothing."""
        if self.entry.cancel is not None or self.stage in (GONE, FINAL):
            return
        self.entry.cancel = reason or "cancelled"
        self._end(grace_s, "cancelled before it started")

    def stop(self, reason: str, grace_s: float) -> None:
        """The worker ends."""
        if self.stage in (GONE, FINAL):
            return
        self._stop_reason = self.entry.stop = reason
        self._end(grace_s, reason)

    def _end(self, grace_s: float, unstarted: str) -> None:
        started = self.zygote is not None
        self.entry.started = True
        self._note_down()
        if self._facts is None:
            self._watch_facts()
        if not started:
            self._trouble, self._swept = unstarted, True
            self._finish()
        elif self._stopping_since is None:
            self._stopping_since = self._shared.loop.now
            if self.stage == RUNNING:
                procs.send(self.entry.pid, signal.SIGTERM)
                self._signal_group(signal.SIGCONT)  # who stands still hears nothing
            self._later(min(GROUP_AFTER_S, grace_s / 4), lambda: self._signal_group(signal.SIGTERM))
            self._later(grace_s, lambda: self._grace_over(grace_s))

    def hold(self, on: bool) -> None:
        """Have the run's processes stand still, or go on; what the code has left of its time goes on meanwhile."""
        if on != self._stands_still and self._stopping_since is None:
            self._stands_still = on
            self._signal_group(signal.SIGSTOP if on else signal.SIGCONT)

    def watch(self, key: int, seconds: Optional[float], sentence: str, grace_s: float) -> None:
        """The code is to come to the end of something in ``seconds``, and then gets the grace; None: it has."""
        timer = self._watched.pop(key, None)
        if timer is not None:
            timer.cancel()
        if seconds is not None and self.stage in (STARTING, RUNNING):
            self._watched[key] = self._shared.loop.after(seconds + grace_s, lambda: self._miss(sentence, grace_s))

    def _miss(self, sentence: str, grace_s: float) -> None:
        if self.stage == RUNNING and self._killed_after is None and not self.has_outcome:
            self._missed, self._killed_after = sentence, grace_s
            self.kill()

    def _signal_group(self, number: int) -> None:
        if self.stage == RUNNING:
            procs.send_group(self.entry.pid, number)

    def _grace_over(self, grace_s: float) -> None:
        if self.stage == RUNNING and self._killed_after is None:
            self._killed_after = grace_s
            self.kill()

    def kill(self) -> None:
        """At once and for sure: the group, and the process itself should it not have its own group yet."""
        if self.stage == RUNNING:
            procs.send_group(self.entry.pid, signal.SIGKILL)
            procs.send(self.entry.pid, signal.SIGKILL)

    def drop(self) -> None:
        """The server does not want it any more: nothing is kept."""
        self.dropped = True
        if self.stage == RUNNING:
            self.kill()
        elif (self.stage == FINAL or self.zygote is None) and not self.kept:
            self._forget()

    def release(self) -> None:
        """The hooks of its end were called, as far as they can be."""
        self.kept = False
        if self.dropped:
            self._forget()
        self._shared.changed(self)

    # ------------------------------------------------------------------------------------------------------------ end

    def exited(self, gone: Optional[procs.Exited], trouble: str = "") -> None:
        """The process is gone; ``gone`` is None when nobody knows how."""
        if self.stage in (GONE, FINAL):
            return
        self.stage, self._gone, self._trouble = GONE, gone, trouble
        self._cancel_timers()
        self.close_lifeline()
        self._later(DRAIN_S, self._finish)
        self.sweep()

    def sweep(self) -> None:
        """Kill what the run has left behind; again after each death of an orphan, until nothing is found."""
        if self.stage != GONE or self._swept:
            return
        me, others, pid = os.getpid(), self._shared.others(), self.entry.pid
        orphans = [
            orphan
            for orphan in procs.orphans(me, others)
            if procs.belongs_to(orphan, pid, self.fence, self._shared.worker)
        ]
        for orphan in orphans:
            procs.send(orphan, signal.SIGKILL)
        self._swept = not orphans
        self._finish_when_quiet()

    def _finish_when_quiet(self) -> None:
        if self._swept and not self._output.open_pipes:
            self._finish()

    def _finish(self) -> None:
        """Everything that will ever be known is in the spools: write the end if the run did not."""
        if self.stage == FINAL or (self.stage != GONE and self.zygote is not None):
            return
        self._cancel_timers()
        last_words = self._output.last_words
        self._close_pipes()
        self.stage = FINAL
        if self.dropped:
            self._forget()
            return
        self._gather()
        if self._facts is not None:
            if self.has_outcome:
                self._shared.over(self._shared, self)
            else:
                self._write_end(last_words)
        self._unfinished.end()
        self._shared.changed(self)

    def _write_end(self, last_words: str) -> None:
        path = self._shared.folder.facts(self.fence)
        status = self._gone.status if self._gone else None
        fact = messages.ProcessExited(
            time.time(),
            self._reason(),
            code=os.WEXITSTATUS(status) if status is not None and os.WIFEXITED(status) else None,
            signal=os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None,
            cancelled=self.entry.cancel is not None,
            last_output=last_words,
            timed_out=bool(self._missed),
        )
        try:
            writer = spool.Writer(path)  # cuts a torn tail
            with contextlib.closing(writer):
                writer.append_many([*self._last_words(), messages.encode_fact(fact_without(self._hidden, fact))])
                writer.sync()
        except OSError:  # the disk is full
            self._later(FULL_DISK_S, lambda: self._write_end(last_words))
        self._gather()
        if self.has_outcome:
            self._shared.over(self._shared, self)

    def _last_words(self) -> List[bytes]:
        return last_lines.unrecorded_facts(
            self._facts, self._beside("tail"), self._beside("open"), self._clean, time.time()
        )

    def _reason(self) -> str:
        if self._missed:
            return "timed_out: %s, killed after the grace of %g s" % (self._missed, self._killed_after or 0.0)
        if self._killed_after is not None:
            killed = "killed after the grace of %g s" % self._killed_after
            return killed if self._stop_reason is None else "%s, %s" % (self._stop_reason, killed)
        if self._stop_reason is not None:
            return self._stop_reason
        if self._trouble:
            return self._trouble
        if self._stopping_since is not None:
            return "stopped after %.1f s" % (self._shared.loop.now - self._stopping_since)
        status = self._gone.status if self._gone else None
        if status is not None and os.WIFEXITED(status) and os.WEXITSTATUS(status) in procs.WITHHELD:
            return procs.WITHHELD[os.WEXITSTATUS(status)]
        peak = self._gone.peak_kb if self._gone else 0
        return procs.describe_death(status, peak, procs.oom_kills() > self._oom_kills)

    # ---------------------------------------------------------------------------------------------------------- forget

    def forget_if_delivered(self) -> bool:
        """Whether nothing is kept of it any more."""
        if self.stage == FINAL and self.has_outcome and not self.kept and self._shared.session.delivered(self.fence):
            self._forget()
        return self.forgotten

    def _forget(self) -> None:
        self.forgotten, self.stage = True, FINAL
        self._close_pipes()
        self._shared.session.forget(self.fence)
        for reader in (self._facts, self._lines, self._old_output):
            if reader is not None:
                reader.close()
        self._facts = self._lines = self._old_output = self._merged = None
        self._shared.folder.remove(self.fence)
        self._shared.changed(self)

    def _later(self, seconds: float, callback: Callable[[], None]) -> None:
        self._timers.append(self._shared.loop.after(seconds, callback))

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._unfinished.cancel()
        for timer in self._watched.values():
            timer.cancel()
        self._watched.clear()
