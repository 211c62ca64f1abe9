"""The ways in which programs write a string: escaped, quoted for an address, in base64, line by line.

Pure. ``redaction`` looks for all of them, so that a secret is found in whatever way it was printed.
"""

from __future__ import annotations

import binascii
import json
import re
import string
from typing import Dict, FrozenSet, Iterable, Iterator, List, Tuple, Union

from perfect_client.wire import artifact_content

Written = Union[str, bytes]  # a secret as it is: a string, or bytes

_UNRESERVED = string.ascii_letters + string.digits + "_.-~"
# What is left as it is: by quote(), by quote(safe=""), by encodeURIComponent(), in a whole address.
_SAFE = tuple(
    frozenset((_UNRESERVED + more).encode()) for more in ("/", "", "!'()*", "!#$%&'()*+,/:;=?@[]", "/!$&'()*+,;=:@")
)
_QUOTED = re.compile("%[0-9A-F]{2}")
_URLSAFE = str.maketrans("+/", "-_")
_LETTERS = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f", "\v": "v", "\a": "a"}
_LONGEST_PATTERN = 4096  # characters: a longer one takes too long to compile
_LINE = 76  # characters of base64 in a line, as MIME has it (RFC 2045 §6.8)
_MARKUP = {
    "&": ("&amp;",),
    "<": ("&lt;",),
    ">": ("&gt;",),
    '"': ("&quot;", "&#34;"),
    "'": ("&#x27;", "&#39;", "&apos;"),
}


def plain(value: Written) -> str:
    """Bytes as a string: what is not UTF-8 as escapes, as in a line of a log."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def spellings(value: Written) -> List[str]:
    """How the value may stand in a string, but for base64; the value itself is the first."""
    text = plain(value)
    found = [text, *_escaped(text)]
    for raw in _raw(value):
        found += _python(repr(raw)[2:-1])
        found += _quoted(raw)
    # As ``messages.clean_text`` leaves it, and as artifacts show it.
    for way in (text, *_markup(text), *_shell(text)):
        legible = way.replace("\x00", "\u2400").encode("utf-8", "backslashreplace").decode("utf-8")
        for shown in (way, legible, artifact_content.legible(legible)):
            found += [shown, " ".join(shown.split()), shown.strip(), *(line.strip() for line in shown.splitlines())]
    return list(dict.fromkeys(found))


def encoded(value: Written) -> List[str]:
    """How the value stands inside of base64, whatever is before and behind it: 4 characters take 3 bytes, so there
    are three alignments. The first and the last character of each may depend on the neighbours and are left out."""
    found: Dict[str, None] = {}
    for raw in _raw(value):
        for before in range(3):
            told = _base64(b"\0" * before + raw)[(0, 2, 3)[before] : (before + len(raw)) * 8 // 6]
            lines = [told[at : at + _LINE] for at in range(0, len(told), _LINE)] if len(told) > _LINE else []
            for form in (told, *(lines if not before else ())):
                quoted = _percent(form.encode(), _SAFE[1])
                found.update(dict.fromkeys((form, form.translate(_URLSAFE), quoted)))
    return list(found)


def escaped(value: Written) -> Tuple[str, ...]:
    """Regular expressions, one after the other, for the value with backslashes, however often it was escaped: in
    Python, in JSON, in JSON within JSON, as bytes. Nothing for what is never escaped, or too long for a pattern."""
    text = plain(value)
    if (text.isalnum() and text.isascii()) or len(text) > _LONGEST_PATTERN:
        return ()
    parts, slashes = [], 0
    for char in text:
        if char == "\\":
            slashes += 1
        else:
            parts.append(_character(char, slashes))
            slashes = 0
    return (*parts, "\\\\{%d,}" % slashes) if slashes else tuple(parts)


def _character(char: str, slashes: int) -> str:
    """A character after so many backslashes, which may be more by now. A run of backslashes can match in one way
    only: a pattern that could share it out in several would take for ever."""
    more = "\\\\{%d,}" % slashes
    if char.isalnum() and char.isascii():
        return (more if slashes else "") + char
    utf_8, utf_16 = char.encode("utf-8", "backslashreplace"), char.encode("utf-16-be", "surrogatepass")
    codes = [
        "\\\\+".join("x%02x" % byte for byte in utf_8),
        "\\\\+".join("u%02x%02x" % pair for pair in zip(utf_16[::2], utf_16[1::2])),
        "U%08x" % ord(char),
        "x%02x" % ord(char),
    ]
    named = _LETTERS.get(char, "")
    picture = chr(0x2400 + ord(char)) if char < " " else artifact_content.legible(char)
    # The longest first: whoever follows a secret character by character does not come back to a shorter one.
    plainly = "|".join(map(re.escape, dict.fromkeys((*_MARKUP.get(char, ()), char, picture))))
    return "(?:%s(?:%s)|\\\\{%d,}(?i:%s))" % (more, plainly, slashes + 1, "|".join(filter(None, [*codes, named])))


def _raw(value: Written) -> Tuple[bytes, ...]:
    """The bytes of a string: in UTF-8, and in Latin-1, in which many programs write Basic headers."""
    if isinstance(value, bytes):
        return (value,)
    raw = value.encode("utf-8", "backslashreplace")
    try:
        return tuple(dict.fromkeys((raw, value.encode("latin-1"))))
    except UnicodeEncodeError:
        return (raw,)


def _base64(raw: bytes) -> str:
    return binascii.b2a_base64(raw, newline=False).decode().rstrip("=")


def _escaped(text: str) -> Iterator[str]:
    """As Python and JSON write it, with and without what is not ASCII."""
    for way in (repr, ascii):
        yield from _python(way("\"'" + text)[4:-1])  # with both quotes before it, only the single ones are escaped
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield json.dumps(text)[1:-1].replace("/", "\\/")  # as PHP and JavaScript in a page


def _python(escaped: str) -> Tuple[str, ...]:
    """Which quotes are escaped depends on the rest of the text."""
    bare = escaped.replace("\\'", "'")
    return (
        (escaped, bare, bare.replace("'", "\\'"), bare.replace('"', '\\"')) if "'" in bare or '"' in bare else (bare,)
    )


def _quoted(raw: bytes) -> Iterator[str]:
    for safe in _SAFE:
        yield _percent(raw, safe)
    for safe in _SAFE[:2]:
        yield _percent(raw, safe | {0x20}).replace(" ", "+")


def _percent(raw: bytes, safe: FrozenSet[int]) -> str:
    return "".join([chr(byte) if byte in safe else "%%%02X" % byte for byte in raw])


def _markup(text: str) -> Iterable[str]:
    """As XML and HTML write it, in text and in attributes."""
    shown = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    yield shown
    for double in _MARKUP['"']:
        yield shown.replace('"', double)
        for single in _MARKUP["'"]:
            yield shown.replace('"', double).replace("'", single)


def _shell(text: str) -> Tuple[str, ...]:
    return (text.replace("'", "'\"'\"'"), text.replace("'", "'\\''")) if "'" in text else ()


def lowered(form: str) -> str:
    """Quoted in lower case: ``%c3`` is ``%C3``."""
    return _QUOTED.sub(lambda found: found.group().lower(), form)
