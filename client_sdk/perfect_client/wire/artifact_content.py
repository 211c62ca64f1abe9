"""What an artifact may hold, read alike by who makes and by who keeps it: kinds, limits, which bytes are a picture."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Optional
from urllib.parse import unquote_to_bytes

LINK, MARKDOWN, TABLE, PROGRESS, IMAGE, PLOT = "link", "markdown", "table", "progress", "image", "plot"
KINDS = frozenset({LINK, MARKDOWN, TABLE, PROGRESS, IMAGE, PLOT})
MAX_BYTES = 2 << 20  # of one artifact, before base64
MAX_RUN_BYTES = 64 << 20
MAX_RUN_COUNT = 1_000
MAX_KEY = 200  # characters
MAX_DESCRIPTION_BYTES = 4 * 1024
MAX_COLUMNS = 1_000
SVG = "image/svg+xml"

_KEY = re.compile(r"[a-z0-9-]{1,%d}" % MAX_KEY)
_CONTROLS = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n\r"}
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
_BEFORE_SVG = (("<?", "?>"), ("<!--", "-->"), ("<!doctype", ">"))


def is_key(text: str) -> bool:
    """Lowercase letters, numbers and dashes."""
    return _KEY.fullmatch(text) is not None


def legible(text: str) -> str:
    """Control characters as the pictures of them: JSON would need six bytes for each, and nobody could see it."""
    return text.translate(_CONTROLS)


def picture_type(content: bytes) -> Optional[str]:
    """The media type by what the bytes are, whatever anybody says of them; None if they are no picture we show.

    An SVG that declares entities is none: a few of them could unfold to gigabytes.
    """
    for magic, kind in _MAGIC:
        if content.startswith(magic):
            return kind
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    try:
        return SVG if _is_svg(content.decode("utf-8")) else None
    except UnicodeDecodeError:
        return None


def _is_svg(text: str) -> bool:
    at, space = 0, "\ufeff \t\r\n"
    while True:
        while text[at : at + 1] in space and at < len(text):
            at += 1
        if text.startswith("<svg", at):
            return text[at + 4 : at + 5] in ("/", ">", " ", "\t", "\r", "\n") and at + 4 < len(text)
        close = next((end for begin, end in _BEFORE_SVG if text[at : at + len(begin)].lower() == begin), None)
        end = -1 if close is None else text.find(close, at)
        if close is None or end < 0 or (close == ">" and "[" in text[at:end]):
            return False
        at = end + len(close)


def decode_data_url(url: str) -> bytes:
    """The bytes in a ``data:`` URL (RFC 2397). Raises ``ValueError``."""
    head, comma, body = url.partition(",")
    if not comma:
        raise ValueError("it has no comma")
    content = unquote_to_bytes(body)
    if not head.rstrip().lower().endswith(";base64"):
        return content
    try:
        return base64.b64decode(b"".join(content.split()), validate=True)
    except binascii.Error as wrong:
        raise ValueError("its base64 is damaged: %s" % wrong) from None
