"""What an artifact's content says, and how much of it a page shows at once. Pure: texts and bytes to values."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from perfect_client.wire import artifact_content
from perfect_client.wire.artifact_content import IMAGE, LINK, PLOT, PROGRESS, TABLE

M = TypeVar("M")
Cell = str | int | float | bool | None
HEAD_BYTES, TABLE_BYTES = 16 * 1024, 32 * 1024  # of a string and of a table on its run's page
HEAD_ROWS, HEAD_COLUMNS = 100, 50
CELL_COSTS = 16  # bytes of markup for each cell
OPENED = ("http://", "https://", "mailto:")


class Table(msgspec.Struct, frozen=True):
    """Rows of cells; ``columns`` is None where they have no names."""

    columns: list[str] | None
    rows: list[list[Cell]]


class Link(msgspec.Struct, frozen=True):
    link: str
    text: str = ""

    @property
    def opens(self) -> bool:
        return opens(self.link)


@dataclass(frozen=True)
class Content:
    """What is kept of an artifact: its text or, of a picture, its bytes and what they are; the ``head`` that its run's
    page shows; how many rows a table has."""

    data: str = ""
    content: bytes | None = None
    media_type: str = ""
    head: str = ""
    rows: int = 0


def opens(address: str) -> bool:
    """Whether it is an address that a page may link to: ``http:``, ``https:`` or ``mailto:``."""
    return address.lower().startswith(OPENED) and not any(ord(letter) <= 32 for letter in address)


def content_of(kind: str, text: str, *, coded: bool) -> Content:
    """Read what came over the wire. Raises ``ValueError`` with what is wrong."""
    if coded:
        return _picture(kind, _decoded(text))
    if kind == PLOT or (kind == IMAGE and artifact_content.picture_type(text.encode()) is not None):
        return _picture(kind, text.encode())
    if kind == TABLE:
        table = table_of(text)
        return Content(text, head=msgspec.json.encode(head_of(table)).decode(), rows=len(table.rows))
    if kind == LINK:
        link_of(text)
    if kind == PROGRESS:
        percent_of(text)
    return Content(text, head=beginning(text))


def table_of(text: str) -> Table:
    return _read(text, Table, "a table")


def link_of(text: str) -> Link:
    return _read(text, Link, "a link")


def percent_of(text: str) -> float:
    """0–100."""
    percent = _read(text, float, "a progress")
    if not 0 <= percent <= 100:
        raise ValueError(f"{percent} is not a progress between 0 and 100")
    return percent


def head_of(table: Table, *, rows: int = HEAD_ROWS, most: int = TABLE_BYTES) -> Table:
    """The first rows and columns: at most so many rows, of at most so many bytes, but always one."""
    columns = [name[:200] for name in table.columns[:HEAD_COLUMNS]] if table.columns is not None else None
    kept: list[list[Cell]] = []
    left = most
    for row in table.rows[:rows]:
        left -= sum(CELL_COSTS + (len(cell.encode()) if isinstance(cell, str) else 0) for cell in row[:HEAD_COLUMNS])
        if left < 0 and kept:
            break
        kept.append(row[:HEAD_COLUMNS])
    return Table(columns, kept)


def beginning(text: str, most: int = HEAD_BYTES) -> str:
    """At most so many bytes, up to the end of a line if there is one in what would be shown."""
    raw = text.encode()
    if len(raw) <= most:
        return text
    begun = raw[:most].decode("utf-8", "ignore")
    end = begun.rfind("\n", len(begun) // 2)
    return begun[:end] if end > 0 else begun


def _read(text: str, kind: type[M], what: str) -> M:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError) as wrong:
        raise ValueError(f"this is not {what}: {str(wrong)[:200]}") from None


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as wrong:
        raise ValueError(f"the base64 of a picture is damaged: {wrong}") from None


def _picture(kind: str, content: bytes) -> Content:
    found = artifact_content.picture_type(content)
    if kind not in (IMAGE, PLOT) or found is None:
        raise ValueError(f"the {kind} artifact is not a PNG, JPEG, GIF, WebP or SVG")
    return Content(content=content, media_type=found)
