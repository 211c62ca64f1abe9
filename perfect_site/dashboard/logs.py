"""A run's log as pages show it: windows by key, terminal colours as classes, downloads that stream from the rows."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import QuerySet

from runs.db import threads
from runs.models import LogLine, Run
from runs.services import queries

WINDOW = 500
DOWNLOADED_AT_ONCE = 1000
DOWNLOADED_CHARACTERS = 500_000  # at once, and one line
Piece = tuple[str, str]  # classes, text
Writer = Callable[[LogLine, dict[tuple[int, int], str]], str]
LEVELS: dict[str, tuple[int, int]] = {"debug": (0, 20), "info": (20, 30), "warning": (30, 40), "error": (40, 1000)}

_SGR = re.compile(r"\x1b\[([0-9;]*)m")
_OTHER = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-ln-~]"
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"
    r"|\x1b[PX^_][^\x1b]*(?:\x1b\\)?"
    r"|\x1b(?!\[)[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]"
)
_STYLES = {"1": "ab", "2": "ad", "3": "ai", "4": "au"}
_ENDS = {"22": ("ab", "ad"), "23": ("ai",), "24": ("au",)}


def pieces(message: str) -> list[Piece]:
    """The text with its terminal colours (ECMA-48 SGR) as class names; every other escape sequence is dropped.

    What a carriage return would overwrite on a terminal is left out, as a terminal leaves it out.
    """
    if "\r" in message:
        message = next((part for part in reversed(message.rstrip("\r\n").split("\r")) if part), "")
    text = _OTHER.sub("", message)
    if "\x1b" not in text:
        return [("", text)]
    found: list[Piece] = []
    style: dict[str, None] = {}
    end = 0
    for match in _SGR.finditer(text):
        found.append((" ".join(style), text[end : match.start()].replace("\x1b", "")))
        style = _restyled(style, match[1].split(";"))
        end = match.end()
    found.append((" ".join(style), text[end:].replace("\x1b", "")))
    return [piece for piece in found if piece[1]] or [("", "")]


def _restyled(style: dict[str, None], codes: list[str]) -> dict[str, None]:
    style = dict(style)
    rest = iter(codes)
    for code in rest:
        if code in ("", "0"):
            style = {}
        elif code == "38" or code == "48":  # 256 or true colours: not among the theme's, so only skipped
            for _ in range({"5": 1, "2": 3}.get(next(rest, ""), 0)):
                next(rest, None)
        elif code in _STYLES:
            style[_STYLES[code]] = None
        elif code in _ENDS:
            style = {name: None for name in style if name not in _ENDS[code]}
        elif re.fullmatch(r"[39][0-79]", code):
            style = {name: None for name in style if not name[1:].isdigit()}
            if code != "39":
                style[f"a{code}"] = None
    return style


@dataclass(frozen=True)
class LineShown:
    seq: int
    time: datetime
    level: str
    task: str
    pieces: list[Piece]
    dropped: int
    attempt: int
    opens_attempt: bool

    def as_row(self) -> list[Any]:
        """``[seq, time, level, task, message]`` for the live socket; a message with colours is a list of pieces."""
        plain = len(self.pieces) == 1 and not self.pieces[0][0]
        message: Any = self.pieces[0][1] if plain else self.pieces
        if self.dropped:
            message = f"{self.dropped:,} lines were not kept here"
        return [self.seq, queries.iso(self.time), self.level, self.task, message]


def shown(run: Run, lines: Sequence[LogLine]) -> list[LineShown]:
    names = _names(run, lines)
    result = []
    attempt = None
    for line in lines:
        opens = attempt is not None and line.attempt != attempt
        attempt = line.attempt
        task = names.get((line.attempt, line.task), "") if line.task is not None else ""
        level = queries.level_name(line.level)
        result.append(LineShown(line.seq, line.time, level, task, pieces(line.message), line.dropped, attempt, opens))
    return result


def _names(run: Run, lines: Sequence[LogLine]) -> dict[tuple[int, int], str]:
    return queries.task_names(run, {line.task for line in lines if line.task is not None})


@dataclass(frozen=True)
class Window:
    lines: list[LineShown]
    older: int | None  # the seq before which there is more
    newer: int | None  # the seq after which there is more
    last: int
    found: int | None  # how many lines match, where something is searched


def narrowed(run: Run, level: str, q: str) -> QuerySet[LogLine]:
    rows = queries.log_of(run)
    if level in LEVELS:
        low, high = LEVELS[level]
        rows = rows.filter(level__gte=low, level__lt=high)
    return rows.filter(message__icontains=q) if q else rows


def window(
    run: Run,
    *,
    before: int | None = None,
    after: int | None = None,
    around: int | None = None,
    level: str = "",
    q: str = "",
) -> Window:
    """At most ``WINDOW`` lines in order: the last ones, or those next to a line."""
    rows = narrowed(run, level, q)
    if around is not None:
        before, after = None, max(0, around - WINDOW // 2)
    if after is not None:
        picked = list(rows.filter(seq__gt=after).order_by("seq")[: WINDOW + 1])
        newer = picked[WINDOW - 1].seq if len(picked) > WINDOW else None
        picked = picked[:WINDOW]
        older = picked[0].seq if picked and rows.filter(seq__lt=picked[0].seq).exists() else None
    else:
        rows_before = rows if before is None else rows.filter(seq__lt=before)
        picked = list(rows_before.order_by("-seq")[: WINDOW + 1])
        older = picked[WINDOW - 1].seq if len(picked) > WINDOW else None
        picked, newer = picked[:WINDOW][::-1], None
    found = rows.count() if (q or level) and before is None else None
    return Window(shown(run, picked), older, newer, last_of(run), found)


def last_of(run: Run) -> int:
    """The number of the run's last line; a sub-run's are numbered in the log of the run around it."""
    if run.root_id is None or not run.log_count:
        return run.log_count
    return queries.log_of(run).order_by("-seq").values_list("seq", flat=True).first() or 0


def since(run: Run, seq: int, limit: int) -> list[LineShown]:
    """The lines after ``seq``, oldest first."""
    return shown(run, list(queries.log_of(run).filter(seq__gt=seq).order_by("seq")[:limit]))


def unfinished(run: Run) -> list[tuple[queries.OpenLine, list[Piece]]]:
    """Lines that have begun and not ended, with their pieces: shown below the log, without a number."""
    return [(line, pieces(line.message)) for line in queries.open_lines(run)]


async def download(run: Run, form: str) -> AsyncIterator[bytes]:
    """All lines as plain text (``log``) or one JSON object a line (``jsonl``), read in windows by key.

    Asynchronous, because Django would first gather all of a synchronous iterator in memory.
    """
    seq = 0
    while True:
        chunk, seq = await threads.read(_chunk, run, seq, _WRITERS[form])
        if not chunk:
            return
        yield chunk


def _chunk(run: Run, seq: int, write: Writer) -> tuple[bytes, int]:
    lines, size = list[LogLine](), 0
    window = queries.log_of(run).filter(seq__gt=seq).order_by("seq")[:DOWNLOADED_AT_ONCE]
    for line in window.iterator(chunk_size=100):
        lines.append(line)
        size += len(line.message)
        if size > DOWNLOADED_CHARACTERS:
            break
    names = _names(run, lines)
    text = "".join(write(line, names) for line in lines)
    return text.encode("utf-8", "backslashreplace"), lines[-1].seq if lines else seq


def _as_text(line: LogLine, names: dict[tuple[int, int], str]) -> str:
    data = queries.log_json(line, names)
    message = "".join(text for _, text in pieces(line.message))
    if line.dropped:
        message = f"[{line.dropped} lines were not kept here]"
    return f"{data['time']} {data['level']:<8} {data['task'] or '-'}  {message}\n"


def _as_jsonl(line: LogLine, names: dict[tuple[int, int], str]) -> str:
    return json.dumps(queries.log_json(line, names), ensure_ascii=False) + "\n"


_WRITERS: dict[str, Writer] = {"log": _as_text, "jsonl": _as_jsonl}
