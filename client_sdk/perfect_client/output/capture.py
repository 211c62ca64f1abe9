"""While a run executes: what is printed and logged becomes its lines.

Each thread has its own unfinished line in each stream, so that threads do not tear each other's lines. What a
progress bar draws over with carriage returns is not kept, only what stands at the end of its line. In a worker's run
an unfinished line also stands in a mapped file (``unfinished_lines``): the supervisor finds it when this process dies.
"""

from __future__ import annotations

import builtins
import codecs
import contextlib
import io
import logging
import os
import sys
import threading
from typing import Any, Iterable, List, Optional, Tuple, Union

from perfect_client.core import context, other_loggers, run_logger
from perfect_client.core.runs import Run
from perfect_client.journal.unfinished_lines import OpenLines
from perfect_client.schema import secrets
from perfect_client.wire.messages import _CUT_BYTES, MAX_LINE_BYTES, clean_text

STDOUT_LEVEL, STDERR_LEVEL = logging.INFO, logging.WARNING
_HANDLER_EMIT = logging.StreamHandler.emit.__code__
_MARK = "_perfect_line"
_SWEEP_EVERY = 256  # threads that printed, before those are forgotten that ended
_PLAIN = logging.Formatter("%(message)s")


class _Line:
    """An unfinished line: its text while it is short, else the bytes that are kept and how many more there were."""

    __slots__ = ("decoder", "head", "held", "more", "returned", "slot", "task", "text")

    def __init__(self) -> None:
        self.decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self.slot = 0  # where it stands in the ``OpenLines``, once it has stood there
        self.held = False
        self.task: Optional[int] = None  # the number of the task run that began it, while it is held
        self.clear()

    def clear(self) -> None:
        self.text, self.head, self.more, self.returned = "", b"", 0, False

    def add(self, piece: str) -> None:
        """Append text without a line feed. A carriage return at the very end waits: a line feed may follow."""
        if not piece:
            return
        if not piece.strip("\r"):
            self.returned = True
            return
        if self.returned:
            self.clear()
        if piece.endswith("\r"):
            piece, self.returned = piece.rstrip("\r"), True
        start = piece.rfind("\r")
        if start >= 0:
            returned = self.returned
            self.clear()
            self.returned, piece = returned, piece[start + 1 :]
        if self.head:
            self.more += _size(piece)
            return
        self.text += piece
        if len(self.text) > MAX_LINE_BYTES:
            raw = _raw(self.text)
            self.text, self.head, self.more = "", raw[:MAX_LINE_BYTES], len(raw) - MAX_LINE_BYTES

    def take(self) -> str:
        """The line as ``messages.clean_text`` would give it, and an empty one in its place."""
        text = self.so_far()
        self.clear()
        return text

    def so_far(self) -> str:
        """The line as ``messages.clean_text`` would give it."""
        if not self.head:
            return clean_text(self.text)
        kept = self.head[: MAX_LINE_BYTES - _CUT_BYTES].decode("utf-8", "ignore")
        return kept + "… (%d bytes more)" % (len(self.head) + self.more - len(kept.encode("utf-8")))

    @property
    def empty(self) -> bool:
        return not self.text and not self.head


def _raw(text: str) -> bytes:
    return text.replace("\x00", "\u2400").encode("utf-8", "backslashreplace")


def _size(text: str) -> int:
    return len(text) + 2 * text.count("\x00") if text.isascii() else len(_raw(text))


class _Binary(io.BufferedIOBase):
    """``sys.stdout.buffer``: bytes become text of the same lines."""

    def __init__(self, stream: LineStream) -> None:
        self._stream = stream
        self.name, self.mode = stream.name, "wb"

    def write(self, data: Any) -> int:
        raw = bytes(data)
        self._stream.write(self._stream.line().decoder.decode(raw))
        return len(raw)

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def raw(self) -> Any:
        return self

    def close(self) -> None:
        """The run's output cannot be closed by a wrapper around it."""


class _Forked:
    """A process's own: the pieces that each of its threads has written of a line that has not ended."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self._own = threading.local()

    @property
    def pieces(self) -> List[str]:
        found: List[str] = self._own.__dict__.setdefault("pieces", [])
        return found


def _print(*values: Any, **options: Any) -> None:
    """``print`` inside a run: with one write, so that a line is whole however many values it has."""
    if options.keys() - _OF_PRINT:
        return _REAL_PRINT(*values, **options)
    stream, sep, end = options.get("file"), options.get("sep"), options.get("end")
    stream = sys.stdout if stream is None else stream
    sep, end = " " if sep is None else sep, "\n" if end is None else end
    if not (type(stream) is LineStream and isinstance(sep, str) and isinstance(end, str)):
        return _REAL_PRINT(*values, **options)
    texts: List[str] = []
    try:
        for value in values:
            texts.append(value if type(value) is str else str(value))
    except BaseException:
        stream.write(sep.join([*texts, ""]))
        raise
    stream.write(sep.join(texts) + end)
    if options.get("flush"):
        stream.flush()


_OF_PRINT = frozenset({"sep", "end", "file", "flush"})
_REAL_PRINT = builtins.print


class LineStream(io.TextIOBase):
    """Stands in for ``sys.stdout`` or ``sys.stderr``; a forked child writes to the real one."""

    encoding = "utf-8"
    errors = "backslashreplace"
    newlines = None
    line_buffering = True
    mode = "w"

    def __init__(self, run: Run, real: Any, fd: int, level: int, open_lines: Optional[OpenLines] = None) -> None:
        super().__init__()
        self._run, self.real, self._fd, self._level = run, real, fd, level
        self._open_lines = open_lines
        self.name = "<stdout>" if fd == 1 else "<stderr>"
        self._own = threading.local()
        self._lines: List[Tuple[threading.Thread, _Line]] = []
        self._lock = threading.RLock()
        self._forked = _Forked()
        self.buffer = _Binary(self)

    def line(self) -> _Line:
        """The calling thread's unfinished line."""
        try:
            found: _Line = self._own.line
        except AttributeError:
            found = self._own.line = _Line()
            with self._lock:
                self._lines.append((threading.current_thread(), found))
                if len(self._lines) % _SWEEP_EVERY == 0:
                    self._sweep()
        return found

    def _sweep(self) -> None:
        """Forget the lines of threads that have ended, but those that nobody has told yet."""
        gone = [line for thread, line in self._lines if not thread.is_alive() and line.empty]
        self._lines = [(thread, line) for thread, line in self._lines if thread.is_alive() or not line.empty]
        for line in gone:
            if line.slot and self._open_lines is not None:
                self._open_lines.give_back(line.slot)

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError("write() argument must be str, not %s" % type(text).__name__)
        record = sys._getframe(1).f_locals.get("record") if sys._getframe(1).f_code is _HANDLER_EMIT else None
        if context.active is not self._run:
            return self._write_real(text, record)
        if record is not None:
            return self._write_record(text, record)
        if type(text) is not str and self._write_loguru(text):
            return len(text)
        line = self.line()
        if "\n" not in text:
            self._grow(line, text)
            return len(text)
        pieces = text.split("\n")
        for piece in pieces[:-1]:
            line.add(piece)
            self._tell(line)
        if pieces[-1]:
            self._grow(line, pieces[-1])
        return len(text)

    def _grow(self, line: _Line, piece: str) -> None:
        """The line has not ended yet. It passes the mask also where it stands until then."""
        line.add(piece)
        if self._open_lines is None or not (line.slot or self._has_slot(line)):
            return
        if not line.held:
            line.held, line.task = True, self._run.number_here()
        text = line.so_far() if line.head else line.text
        if secrets.of_this_process:
            text = secrets.of_this_process.without(text)
        self._open_lines.hold(line.slot, text, self._level, line.task, self._run.clock())

    def _has_slot(self, line: _Line) -> bool:
        assert self._open_lines is not None
        line.slot = self._open_lines.take_slot()
        if not line.slot:
            with self._lock:
                self._sweep()
            line.slot = self._open_lines.take_slot()
        return line.slot > 0

    def _tell(self, line: _Line) -> None:
        """The line has ended."""
        held, level = self._open_lines, self._level
        if "structlog" in sys.modules:
            level = other_loggers.level_of_structlog(line.text, level)
        if held is None:
            return self._run.log(line.take(), level)
        at = held.moment(self._run.clock)
        if line.held:
            held.telling(line.slot, level, line.task, at)
        self._run.log(line.take(), level, at)
        if line.held:
            line.held = False
            held.clear(line.slot)

    def _write_real(self, text: str, record: Optional[logging.LogRecord]) -> int:
        if record is not None:
            record.__dict__[_MARK] = True
        pieces = self._in_child().pieces
        whole, end, rest = text.rpartition("\n")
        if end:
            self._write_whole("".join([*pieces, whole, end]))
            del pieces[:]
        if rest:
            pieces.append(rest)
        return len(text)

    def _in_child(self) -> _Forked:
        """What belongs to the calling process, a forked child: what its parent had begun is not its to tell."""
        if self._forked.pid != os.getpid():
            self._forked = _Forked()
        return self._forked

    def _write_whole(self, text: str) -> None:
        """With one write, and not into the middle of another child's."""
        shared = self._open_lines
        with self._in_child().lock, shared.writing(self._fd) if shared is not None else contextlib.nullcontext():
            try:
                self.real.write(text)
                self.real.flush()
            except (AttributeError, ValueError, OSError):  # closed, or there was none
                pass

    def _write_record(self, text: str, record: logging.LogRecord) -> int:
        """A logging handler writes here: keep the record's level, and let it not come again through the root."""
        if _MARK not in record.__dict__:
            record.__dict__[_MARK] = True
            # Lines have a time and a level of their own; only what is no text yet needs the handler's formatting.
            message = _PLAIN.format(record) if isinstance(record.msg, str) else text.rstrip("\n")
            at = _time_of(self._open_lines, self._run, record.created)
            self._run.log(clean_text(message), record.levelno, at, _task_of(record))
        return len(text)

    def _write_loguru(self, text: str) -> bool:
        """Whether it is a record of loguru's. One that came from ``logging`` is told once, by whoever is first."""
        said = other_loggers.loguru_record(text)
        if said is None:
            return False
        origin = other_loggers.record_for_loguru()
        if origin is None or _MARK not in origin.__dict__:
            if origin is not None:
                origin.__dict__[_MARK] = True
            at = _time_of(self._open_lines, self._run, said.time)
            self._run.log(clean_text(said.message), said.level, at)
        return True

    def writelines(self, lines: Iterable[Any]) -> None:
        for line in lines:
            self.write(line)

    def finish(self) -> None:
        """Unfinished lines become lines."""
        with self._lock:
            lines = [line for _, line in self._lines]
        for line in lines:
            line.add(line.decoder.decode(b"", True))
            if not line.empty:
                self._tell(line)
            if line.slot and self._open_lines is not None:
                self._open_lines.clear(line.slot)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        try:
            return int(self.real.fileno())
        except (AttributeError, ValueError, OSError):
            return self._fd

    def flush(self) -> None:
        """Show what there is of a line that has not ended."""
        if context.active is not self._run:
            pieces = self._in_child().pieces
            if pieces:
                self._write_whole("".join(pieces))
                del pieces[:]
        elif self._open_lines is not None and self.line().held:
            self._open_lines.ring()

    def close(self) -> None:
        """Nothing to do: the stream belongs to the run."""

    def detach(self) -> Any:
        return self.buffer

    def reconfigure(self, **options: Any) -> None:
        """Accepted and without effect: lines are UTF-8, and told when they end."""


def _time_of(open_lines: Optional[OpenLines], run: Run, created: float) -> float:
    """Of a record that is told now: what was written to the run's pipes so far comes before it."""
    return created if open_lines is None else open_lines.moment(run.clock, created)


def _task_of(record: logging.LogRecord) -> str:
    """The id of the task run whose logger was used, in a thread that is in no task itself."""
    return str(record.__dict__.get("task_run_id", ""))


class RunHandler(logging.Handler):
    """On the root logger: every record that reaches it becomes a line."""

    def __init__(self, run: Run, level: int, open_lines: Optional[OpenLines] = None) -> None:
        super().__init__(level)
        self._run, self._open_lines = run, open_lines
        self.setFormatter(_PLAIN)

    def emit(self, record: logging.LogRecord) -> None:
        if _MARK in record.__dict__:
            return
        try:
            record.__dict__[_MARK] = True
            if context.active is self._run:
                at = _time_of(self._open_lines, self._run, record.created)
                self._run.log(clean_text(self.format(record)), record.levelno, at, _task_of(record))
            else:  # in a forked child
                sys.stderr.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


class Capture:
    """Context manager: standard streams and logging belong to ``run`` inside it, from ``level`` upwards."""

    def __init__(self, run: Run, level: int, open_lines: Optional[OpenLines] = None) -> None:
        self._run, self._level, self._open_lines = run, level, open_lines
        self._undo: List[Tuple[Any, str, Any]] = []

    def _set(self, owner: Any, name: str, value: Any) -> None:
        self._undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def __enter__(self) -> Capture:
        self.streams = [
            LineStream(self._run, sys.stdout, 1, STDOUT_LEVEL, self._open_lines),
            LineStream(self._run, sys.stderr, 2, STDERR_LEVEL, self._open_lines),
        ]
        if self._open_lines is not None:
            self._open_lines.watch_pipes()
        self._point_handlers_here()
        self._set(sys, "stdout", self.streams[0])
        self._set(sys, "stderr", self.streams[1])
        if self._open_lines is not None and builtins.print is _REAL_PRINT:  # a program's own stays
            self._set(builtins, "print", _print)
        self._handler = RunHandler(self._run, self._level, self._open_lines)
        root = logging.getLogger()
        self._levels = [(logger, logger.level) for logger in (root, *run_logger.loggers())]
        for logger, _ in self._levels:
            logger.setLevel(self._level)
        self._wake_loggers()
        root.addHandler(self._handler)
        root.removeHandler = self._remove_handler  # type: ignore[method-assign]
        self._sink, run_logger.sink = run_logger.sink, self._handler.handle
        return self

    def _wake_loggers(self) -> None:
        """``dictConfig`` and ``fileConfig`` disable the loggers that were there before, unless they are told not to;
        what a program says by them belongs in its run's log all the same."""
        config = sys.modules.get("logging.config")
        if config is None:
            return
        for logger in list(logging.getLogger().manager.loggerDict.values()):
            if isinstance(logger, logging.Logger) and logger.disabled:
                self._set(logger, "disabled", False)
        tidy = getattr(config, "_handle_existing_loggers", None)
        if callable(tidy):
            self._set(config, "_handle_existing_loggers", lambda found, below, _: tidy(found, below, False))

    def _remove_handler(self, hdlr: logging.Handler) -> None:
        """The root's, inside: a flow that sets up logging anew, by ``dictConfig``, does not leave its run's log."""
        if hdlr is not self._handler:
            logging.Logger.removeHandler(logging.getLogger(), hdlr)

    def _point_handlers_here(self) -> None:
        """Handlers that were made before the run write to the real streams: theirs become lines like all others."""
        here = {id(stream.real): stream for stream in self.streams if stream.real is not None}
        for handler in _stream_handlers():
            stream = here.get(id(handler.stream))
            if stream is not None:
                self._set(handler, "stream", stream)
        for sink, real in other_loggers.loguru_sinks():
            stream = here.get(id(real))
            if stream is not None:
                self._set(sink, "_stream", stream)

    def __exit__(self, *exc: object) -> None:
        for stream in self.streams:
            stream.finish()
        root = logging.getLogger()
        root.__dict__.pop("removeHandler", None)
        root.removeHandler(self._handler)
        run_logger.sink = self._sink
        for logger, level in self._levels:
            logger.setLevel(level)
        while self._undo:
            owner, name, value = self._undo.pop()
            setattr(owner, name, value)


def _stream_handlers() -> List[Any]:
    loggers: List[Union[logging.Logger, logging.PlaceHolder]] = [logging.getLogger()]
    loggers.extend(logging.getLogger().manager.loggerDict.values())
    return [
        handler
        for logger in loggers
        if isinstance(logger, logging.Logger)
        for handler in logger.handlers
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)
    ]
