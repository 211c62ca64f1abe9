"""Whether a string lets a secret out: everything that may be encoded is decoded, and eight characters are too many."""

from __future__ import annotations

import base64
import html
import json
import re
import urllib.parse

WINDOW = 8  # characters of a secret that no text may show


def unlike_words(text):
    """A drawn text as a secret that stands in no program: what is drawn may be a word of ours."""
    return "~".join(text[at : at + 5] for at in range(0, len(text), 5))


def texts_in(value):
    """Every text in a JSON value, names too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from texts_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_in(item)


def readings(text, depth=2):
    """The text, and what one may read in it who knows how programs write."""
    found = {text, urllib.parse.unquote(text), urllib.parse.unquote_plus(text), html.unescape(text)}
    found |= {unescaped(text), text.replace("\\'", "'").replace('\\"', '"')}
    for run in re.findall(r"[A-Za-z0-9+/_-]{8,}", text):
        found |= {decoded(run[at:]) for at in range(4)}
    if depth:
        found |= {deeper for one in list(found - {text}) for deeper in readings(one, depth - 1)}
    return found


def decoded(run):
    run = run[: len(run) // 4 * 4].replace("-", "+").replace("_", "/")
    return base64.b64decode(run).decode("utf-8", "replace")


def unescaped(text):
    """As Python and JSON escape; UTF-8 that was escaped byte by byte too."""

    def plain(found):
        kind, digits = found.group(0)[1], found.group(1)
        return chr(int(digits, 16)) if digits else {"n": "\n", "t": "\t", "r": "\r"}.get(kind, kind)

    shown = re.sub(r"\\(?:x([0-9a-f]{2})|.)", plain, re.sub(r"\\u([0-9a-f]{4})", plain, text), flags=re.S)
    try:
        return shown.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return shown


def leaks_of(secret, values):
    """The texts in which so much of the secret can be read."""
    windows = {secret[at : at + WINDOW] for at in range(max(1, len(secret) - WINDOW + 1))}
    return [
        text
        for text in texts_in(json.loads(json.dumps(values)))
        for reading in readings(text)
        if any(window in reading for window in windows)
    ]
