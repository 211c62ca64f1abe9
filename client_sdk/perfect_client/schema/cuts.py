"""What a cut through a string left of a secret: its beginning before the cut, its end behind it.

Pure. Texts are cut in many places of this package and in the standard library's ``reprlib``; all of them mark the cut
by an ellipsis, so that it is found here, and nobody else has to think of it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Iterable, List, NamedTuple, Sequence, Tuple

# The mark, with the quotes around it, the bytes of half a character before it and how much was left out.
_CUT = re.compile(
    r"(?:\\x[0-9a-f]{2}){0,3}[\s'\"]*(?:\u2026(?: \(\d+ bytes (?:more\)|left out\) \u2026))?|\.{3,})[\s'\"]*"
)
# A character of which not all escapes are there, or not all of its name in markup.
_HALF = re.compile(r"(?:\\+[xuU]?[0-9a-fA-F]{0,8}){0,4}|&#?\w{0,5}")
_TORN = 24  # characters of half a character's escapes, at most
_LEAST = 4  # characters of an escaped secret: what is shorter stands in many texts

Spans = List[Tuple[int, int]]


class Edge(NamedTuple):
    """A form of a secret; ``first`` and ``last`` are the least that is worth a mask."""

    first: str
    last: str
    form: str


def at_cuts(edges: Iterable[Edge], escaped: Sequence[Tuple[str, ...]], text: str) -> Spans:
    """Where in the text beginnings and ends of secrets stand at a cut. ``escaped``: the patterns of each secret's
    characters, as ``spellings.escaped`` makes them."""
    near = [edge for edge in edges if edge.first in text or edge.last in text]
    deep = [parts for parts in escaped if len(parts) > _LEAST] if "\\" in text else []
    spans: Spans = []
    for cut in _CUT.finditer(text) if near or deep else ():
        for edge in near:
            spans += _beginning(edge, text, cut.start())
            spans += _end(edge, text, cut.end())
        for parts in deep:
            spans += _escaped_beginning(parts, text, cut.start())
            spans += _escaped_end(parts, text, cut.end())
    return spans


def _beginning(edge: Edge, text: str, end: int) -> Spans:
    at = text.find(edge.first, max(0, end - len(edge.form) + 1), end)
    while at >= 0:
        if edge.form.startswith(text[at:end]):
            return [(at, end)]
        at = text.find(edge.first, at + 1, end)
    return []


def _end(edge: Edge, text: str, start: int) -> Spans:
    at = text.rfind(edge.last, start, start + len(edge.form) - 1)
    while at >= 0:
        until = at + len(edge.last)
        if edge.form.endswith(text[start:until]):
            return [(start, until)]
        at = text.rfind(edge.last, start, until - 1)
    return []


def _escaped_beginning(parts: Sequence[str], text: str, end: int) -> Spans:
    for match in _pattern("".join(parts[:_LEAST])).finditer(text, 0, end):
        at, _ = _follow(parts[_LEAST:], text, match.end(), end)
        if _HALF.fullmatch(text, at, end):
            return [(match.start(), end)]
    return []


def _escaped_end(parts: Sequence[str], text: str, start: int) -> Spans:
    if _pattern("".join(parts[-_LEAST:])).search(text, start) is None:
        return []
    for torn in range(_TORN):
        for first in range(1, len(parts) - _LEAST + 1):
            at, whole = _follow(parts[first:], text, start + torn, len(text))
            if whole:
                return [(start, at)]
    return []


def _follow(parts: Sequence[str], text: str, at: int, end: int) -> Tuple[int, bool]:
    """How far the parts match from ``at`` on, and whether all of them do."""
    for part in parts:
        following = _pattern(part).match(text, at, end)
        if following is None:
            return at, False
        at = following.end()
    return at, True


@lru_cache(maxsize=4096)
def _pattern(text: str) -> Any:
    return re.compile(text)
