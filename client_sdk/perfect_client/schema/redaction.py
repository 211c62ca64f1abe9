"""Known secrets taken out of texts, however they are written there, and also where a string was cut within one.

Pure: a process keeps its secrets out of its facts by it, the supervisor keeps them out of a run's output, and the
server out of its sentences.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Tuple

from perfect_client.schema.cuts import Edge, Spans, at_cuts
from perfect_client.schema.masking import MASK, leaves
from perfect_client.schema.spellings import Written, encoded, escaped, lowered, plain, spellings

MIN_HIDDEN = 4  # characters: a shorter value stands in too many innocent texts
MAX_HIDDEN = 1000  # secrets that are kept out of the lines of one process; the oldest step aside
# A supervisor may learn of so many before it has read the first line with one of them: two pipes hold 64 KiB each.
MAX_CONFIDED = 2 * 65_536 // (MIN_HIDDEN + 1)

# Of these characters at least one stands in each text that was escaped or quoted: most lines have none of them.
_SIGNS = "\\%&+"
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_")
_SHORT = 1000  # characters of a secret whose forms are remembered: they take a hundred times as much
_MANY = 30  # forms, which take as long to look for as one search for a pattern


class _Index(NamedTuple):
    """What is looked for: always, beside a sign, with backslashes, in base64; the beginnings and ends of all that."""

    age: object
    bare: Tuple[str, ...]
    signed: Tuple[Tuple[str, Tuple[str, ...]], ...]
    escaped: Tuple[Tuple[str, ...], ...]
    encoded: Tuple[str, ...]
    run: Any  # a pattern of what base64 can be; None where to look for it would cost more than it saves
    edges: Tuple[Edge, ...]


class _Forms(NamedTuple):
    """How one secret is written; ``escaped`` are patterns, one after the other."""

    written: Tuple[str, ...]
    escaped: Tuple[str, ...]
    encoded: Tuple[str, ...]


class Hidden:
    """Secrets that stand in no text: those of a process, or of one run as its supervisor knows them.

    Any thread may use it, and a signal handler: it has no lock.
    """

    def __init__(self, values: Iterable[Any] = (), limit: int = MAX_HIDDEN) -> None:
        self._limit = limit
        self._known: Dict[Written, _Forms] = {}
        self._age = object()  # another one after each change
        self._index: Optional[_Index] = None
        for value in values:
            self.add(value)

    def __bool__(self) -> bool:
        return bool(self._known)

    @property
    def all(self) -> List[Written]:
        """The secrets, in the order in which they came."""
        return list(self._known)

    def new_in(self, value: Any) -> List[Written]:
        """The secrets in the value, however deep, that are not known and long enough to be told from other text."""
        found = [secret for secret in map(_written, leaves(value)) if secret is not None and secret not in self._known]
        return [secret for secret in dict.fromkeys(found) if len(plain(secret)) >= MIN_HIDDEN]

    def add(self, value: Any) -> None:
        """From now on ``without`` takes out what is secret in the value."""
        new = self.new_in(value)
        for secret in new:
            self._known[secret] = _known_forms_of(secret) if len(secret) <= _SHORT else _forms_of(secret)
        if new:
            while len(self._known) > self._limit:
                del self._known[next(iter(self._known))]
            self._age = object()

    def without(self, text: str) -> str:
        """The text with ``***`` in place of each secret, and of what a cut left of one."""
        if not self._known or len(text) < MIN_HIDDEN:
            return text
        index = self._index
        if index is None or index.age is not self._age:
            index = self._index = self._indexed()
        found = [form for form in index.bare if form in text]
        for sign, forms in index.signed:
            if sign in text:
                found += [form for form in forms if form in text]
        look = index.run is None or index.run.search(text) is not None
        coded = [form for form in index.encoded if form in text] if look else []
        cut = "\u2026" in text or "..." in text
        changed = index.escaped and ("\\" in text or "&" in text)
        if not found and not coded and not cut and not changed:
            return text
        spans = [span for form in found for span in _places(form, text)]
        if changed:
            spans += [match.span() for parts in index.escaped for match in _whole_of(parts).finditer(text)]
        spans += [_whole(span, text) for form in coded for span in _places(form, text)]
        return _masked(text, spans + (at_cuts(index.edges, index.escaped, text) if cut else []))

    def clean(self, value: Any) -> Any:
        """A JSON value without secrets, in its names too."""
        if isinstance(value, str):
            return self.without(value)
        if isinstance(value, dict):
            return {self.clean(name): self.clean(item) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.clean(item) for item in value]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value if self.without(repr(value)) == repr(value) else MASK
        return value

    def _indexed(self) -> _Index:
        age = self._age
        known = list(self._known.values())
        written = list(dict.fromkeys(form for forms in known for form in forms.written))
        coded = list(dict.fromkeys(form for forms in known for form in forms.encoded))
        patterns = tuple(filter(None, [forms.escaped for forms in known]))
        by_sign: Dict[str, List[str]] = {}
        for form in written:
            by_sign.setdefault(next((sign for sign in _SIGNS if sign in form), ""), []).append(form)
        bare = tuple(by_sign.pop("", ()))
        edges = [Edge(form[:MIN_HIDDEN], form[-MIN_HIDDEN:], form) for form in (*written, *coded)]
        signed = tuple((sign, tuple(by_sign[sign])) for sign in by_sign)
        return _Index(age, bare, signed, patterns, tuple(coded), _run(coded), tuple(edges))


def _run(coded: List[str]) -> Any:
    if len(coded) < _MANY:
        return None
    return re.compile("[A-Za-z0-9+/_%%-]{%d}" % min(map(len, coded)))


def _written(leaf: Any) -> Optional[Written]:
    """A leaf as it may be written; None for an object of which nothing is known."""
    if isinstance(leaf, str):
        return str.__str__(leaf)
    if isinstance(leaf, (bytes, bytearray, memoryview)):
        return bytes(leaf)
    if isinstance(leaf, (int, float)) or type(leaf).__name__ in _TOLD_BY_STR:
        return str(leaf)
    return None


_TOLD_BY_STR = frozenset(
    {"UUID", "Decimal", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath", "datetime", "date", "Fraction"}
)


def _forms_of(secret: Written) -> _Forms:
    return _Forms(_long(spellings(secret)), escaped(secret), _long(encoded(secret)))


_known_forms_of = lru_cache(maxsize=50)(_forms_of)  # a supervisor hears of the same secrets in each run of a file


@lru_cache(maxsize=MAX_HIDDEN)
def _whole_of(parts: Tuple[str, ...]) -> Any:
    return re.compile("".join(parts))


def _long(found: Iterable[str]) -> Tuple[str, ...]:
    every = (one for form in found for one in (form, lowered(form) if "%" in form else form))
    return tuple(dict.fromkeys(form for form in every if len(form) >= MIN_HIDDEN))


def _places(form: str, text: str) -> Iterable[Tuple[int, int]]:
    at = text.find(form)
    while at >= 0:
        yield at, at + len(form)
        at = text.find(form, at + 1)


def _whole(span: Tuple[int, int], text: str) -> Tuple[int, int]:
    """A place in base64 with the characters at its sides, which hold bits of it too."""
    start, end = span
    start -= start > 0 and text[start - 1] in _BASE64
    end += end < len(text) and text[end] in _BASE64
    while text.startswith("=", end) and end < span[1] + 3:
        end += 1
    return start, end


def _masked(text: str, spans: Spans) -> str:
    """With one mask in place of what overlaps."""
    parts: List[str] = []
    done = 0
    for start, end in sorted(spans):
        if start < done:
            if end > done:
                done = end
            continue
        parts += [text[done:start], MASK]
        done = end
    return "".join(parts) + text[done:]
