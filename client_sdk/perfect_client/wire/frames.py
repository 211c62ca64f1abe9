"""The client side of a WebSocket, pure: bytes in, bytes and events out.

No socket, no clock, no thread: whoever owns the socket feeds what it reads and writes what it gets.
The law is RFC 6455; a bare § below is a section of it. No extension and no subprotocol is ever asked for,
so any that the server announces, and every reserved bit, is refused.
"""

from __future__ import annotations

import base64
import codecs
import hashlib
import os
import re
import struct
from dataclasses import dataclass
from typing import Callable, Mapping, Union

_ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # §1.3
_HEADER_LIMIT = 16 * 1024  # bytes of an answer's status line and headers, the blank line included
_BODY_LIMIT = 4 * 1024  # bytes kept of the page that comes with a refusal

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA  # §11.8
_KNOWN = frozenset({_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG})
_CONTROL_LIMIT = 125  # bytes of a control frame's payload, §5.5
_STRIDE = 16 * 1024  # bytes masked at once, a multiple of four

NORMAL, PROTOCOL_ERROR, NO_CODE, INVALID_DATA, TOO_BIG = 1000, 1002, 1005, 1007, 1009  # §7.4.1


class ProtocolFault(Exception):
    """The server broke the protocol; the connection must be failed (§7.1.7).

    `code` is the close code to send (1002, 1007 or 1009), `str()` one sentence that fits a close reason.
    `events` holds what the same `feed` had completed before the violation, in order: it was received and is valid.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.events: list[Event] = []


class HandshakeFailed(Exception):
    """The server did not open a WebSocket (§4.1).

    `status` is its HTTP status, None when it did not answer in HTTP; `headers` have lower-cased names;
    `body` is at most 4 KiB of what came with a refusal.
    """

    def __init__(
        self, message: str, status: int | None = None, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = body[:_BODY_LIMIT].decode("utf-8", "backslashreplace")
        self.headers: dict[str, str] = dict(headers or {})


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Binary:
    data: bytes


@dataclass(frozen=True)
class Ping:
    data: bytes


@dataclass(frozen=True)
class Pong:
    data: bytes


@dataclass(frozen=True)
class Closed:
    """The server's close frame; `code` is 1005 when it carried none (§7.1.5)."""

    code: int
    reason: str


Event = Union[Text, Binary, Ping, Pong, Closed]


# --- The opening handshake, §4 ---

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")  # RFC 9110 §5.6.2
_TARGET = re.compile(r"/[!-~]*\Z")  # RFC 9112 §3.2.1, origin-form
_VALUE = re.compile(r"[\t -~]*\Z")  # RFC 9110 §5.5, without obs-text
_STATUS_LINE = re.compile(rb"HTTP/([0-9]\.[0-9]) ([0-9]{3})(?: [^\0\r\n]*)?\Z")  # RFC 9112 §4
_OWN_HEADERS = re.compile(r"(host|upgrade|connection|sec-websocket-.*)\Z", re.IGNORECASE)


def new_key(random: Callable[[int], bytes] = os.urandom) -> str:
    """A fresh Sec-WebSocket-Key: 16 random bytes in base64 (§4.1 item 7)."""
    return base64.b64encode(random(16)).decode("ascii")


def upgrade_request(host_header: str, path: str, headers: Mapping[str, str], key: str) -> bytes:
    """The client's opening request (§4.1). `path` is the path with its query, already percent-encoded.

    Raises ValueError for anything that could end a line early or is not ASCII, and for headers that belong to
    the handshake itself. The message names the header and never shows its value, which may be a token.
    """
    if not _TARGET.match(path):
        raise ValueError("the path must begin with / and hold visible ASCII characters only")
    lines = [f"GET {path} HTTP/1.1", f"Host: {_safe('Host', host_header)}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Key: {_safe('Sec-WebSocket-Key', key)}", "Sec-WebSocket-Version: 13"]
    for name, value in headers.items():
        if not _TOKEN.match(name) or _OWN_HEADERS.match(name):
            raise ValueError(f"{name!r} is not a header that can be added to the opening request")
        lines.append(f"{name}: {_safe(name, value)}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _safe(name: str, value: str) -> str:
    if not _VALUE.match(value):
        raise ValueError(f"the header {name} holds a line break, a control character or a character outside ASCII")
    return value


class Handshake:
    """Reads the server's answer to `upgrade_request(…, key)`; one instance per connection."""

    def __init__(self, key: str) -> None:
        # §4.2.2 item 5.4 prescribes SHA-1; it proves that a WebSocket server answered, not who it is.
        self._accept = base64.b64encode(hashlib.sha1(key.encode("ascii") + _ACCEPT_GUID).digest()).decode("ascii")
        self._buffer = bytearray()  # the header; after a refusal, its body
        self._status: int | None = None  # known once the header is complete
        self._headers: dict[str, str] = {}

    def feed(self, data: bytes) -> bytes | None:
        """None: more is needed. Bytes: the connection is open and these are the first bytes of frames.

        Raises HandshakeFailed. A refusal with a Content-Length is raised once its body (at most 4 KiB) is there.
        """
        searched = max(0, len(self._buffer) - 3)
        self._buffer += data
        if self._status is None and not self._take_header(searched):
            return None
        if self._status == 101:
            self._verify(self._headers)
            return bytes(self._buffer)
        # §4.1: any other status is plain HTTP, and the caller decides what it means. Without a length
        # the end of the body cannot be told from here: what has arrived must do.
        if len(self._buffer) >= min(_content_length(self._headers), _BODY_LIMIT):
            raise self._failure(f"The server answered HTTP {self._status} instead of opening a WebSocket.")
        return None

    def eof(self) -> HandshakeFailed:
        """What to report when the server hung up, or took too long, before the handshake was over."""
        answered = "nothing complete" if self._status is None else f"HTTP {self._status}"
        return self._failure(f"The server answered {answered}, then the connection ended.")

    def _failure(self, message: str) -> HandshakeFailed:
        return HandshakeFailed(message, self._status, bytes(self._buffer), self._headers)

    def _take_header(self, searched: int) -> bool:
        if not b"HTTP/".startswith(bytes(self._buffer[:5])):
            raise self._failure("The server does not speak HTTP.")
        end = self._buffer.find(b"\r\n\r\n", searched)
        if end > _HEADER_LIMIT - 4 or (end < 0 and len(self._buffer) >= _HEADER_LIMIT):
            raise HandshakeFailed(f"The server's answer has more than {_HEADER_LIMIT} bytes of headers.")
        if end < 0:
            return False
        status_line, *lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        self._status = _read_status(status_line)
        self._headers = _read_headers(lines, self._status)
        return True

    def _verify(self, headers: dict[str, str]) -> None:
        """The checks that §4.1 numbers 2 to 6; the status was the first."""
        if headers.get("upgrade", "").lower() != "websocket":
            raise HandshakeFailed("The server's answer does not upgrade to websocket.", 101, headers=headers)
        if "upgrade" not in [token.strip(" \t") for token in headers.get("connection", "").lower().split(",")]:
            raise HandshakeFailed("The server's answer lacks 'Connection: Upgrade'.", 101, headers=headers)
        # Sent twice it was joined with a comma, and so it fails as §11.3.3 asks.
        if headers.get("sec-websocket-accept") != self._accept:
            raise HandshakeFailed("The server's Sec-WebSocket-Accept does not fit our key.", 101, headers=headers)
        if headers.get("sec-websocket-extensions"):
            raise HandshakeFailed("The server uses an extension that was not asked for.", 101, headers=headers)
        if headers.get("sec-websocket-protocol"):
            raise HandshakeFailed("The server uses a subprotocol that was not asked for.", 101, headers=headers)


def _read_status(line: bytes) -> int:
    match = _STATUS_LINE.match(line)
    if match is None:
        raise HandshakeFailed("The server's status line is not HTTP.", body=line)
    status = int(match.group(2))
    if status == 101 and match.group(1) < b"1.1":  # §4.1; a proxy may well refuse in HTTP/1.0
        raise HandshakeFailed("The server, or a proxy before it, speaks HTTP/1.0 only.", status)
    return status


def _read_headers(lines: list[bytes], status: int) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        # RFC 9112 §5.1 and §5.2: no space before the colon, no folded lines.
        if not colon or not _TOKEN.match(name) or re.search(r"[\0\r\n]", value):
            raise HandshakeFailed("The server's answer holds a malformed header line.", status, headers=headers)
        name, value = name.lower(), value.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value  # RFC 9110 §5.3
    return headers


def _content_length(headers: dict[str, str]) -> int:
    """In bytes; 0 when it is absent or not a plain number."""
    length = headers.get("content-length", "")
    return int(length) if re.match(r"[0-9]{1,18}\Z", length) else 0


# --- Frames, §5 ---


def _fresh_mask() -> bytes:
    """Four bytes the server's side cannot foresee, new for every frame (§5.3, §10.3)."""
    return os.urandom(4)


def _masked(payload: bytes, key: bytes) -> bytes:
    """§5.3: XOR with the repeated key, as big integers.

    In strides that stay in the processor's cache: one integer over 512 KiB takes about twice as long.
    """
    whole = len(payload) - len(payload) % _STRIDE
    if not whole:
        return _xor(payload, key)
    pad = int.from_bytes(key * (_STRIDE // 4), "little")
    strides = (payload[at : at + _STRIDE] for at in range(0, whole, _STRIDE))
    pieces = [(int.from_bytes(stride, "little") ^ pad).to_bytes(_STRIDE, "little") for stride in strides]
    pieces.append(_xor(payload[whole:], key))
    return b"".join(pieces)


def _xor(payload: bytes, key: bytes) -> bytes:
    size = len(payload)
    pad = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(pad, "little")).to_bytes(size, "little")


def _may_travel(code: int) -> bool:
    """Whether a close frame may carry this code: §7.4.1, §7.4.2 and the registry of §11.7 (1012 to 1014)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


@dataclass(frozen=True)
class _Header:
    final: bool
    opcode: int
    length: int
    size: int  # of the header itself, in bytes

    @property
    def is_control(self) -> bool:
        return self.opcode >= _CLOSE  # §5.5


_LONG_LENGTHS = {126: (struct.Struct("!H"), 125), 127: (struct.Struct("!Q"), 0xFFFF)}  # and what fits a shorter form


def _read_header(buffer: bytearray) -> _Header | None:
    """The header at the start of `buffer`, None while it is incomplete (§5.2)."""
    if len(buffer) < 2:
        return None
    first, second = buffer[0], buffer[1]
    opcode, final, length = first & 0x0F, bool(first & 0x80), second & 0x7F
    if first & 0x70:
        raise ProtocolFault(PROTOCOL_ERROR, "A reserved bit is set, and no extension was agreed on.")
    if opcode not in _KNOWN:
        raise ProtocolFault(PROTOCOL_ERROR, f"The opcode {opcode} is reserved.")
    if second & 0x80:  # §5.1
        raise ProtocolFault(PROTOCOL_ERROR, "The server masked a frame.")
    if opcode >= _CLOSE and not final:  # §5.5
        raise ProtocolFault(PROTOCOL_ERROR, "A control frame is fragmented.")
    if opcode >= _CLOSE and length > _CONTROL_LIMIT:  # §5.5
        raise ProtocolFault(PROTOCOL_ERROR, "A control frame is longer than 125 bytes.")
    if length not in _LONG_LENGTHS:
        return _Header(final, opcode, length, 2)
    return _read_long_header(buffer, final, opcode, length)


def _read_long_header(buffer: bytearray, final: bool, opcode: int, form: int) -> _Header | None:
    layout, too_short = _LONG_LENGTHS[form]
    if len(buffer) < 2 + layout.size:
        return None
    (length,) = layout.unpack_from(buffer, 2)
    if length >> 63:
        raise ProtocolFault(PROTOCOL_ERROR, "The highest bit of a 64-bit length is set.")
    if length <= too_short:
        raise ProtocolFault(PROTOCOL_ERROR, "A length is not written in its shortest form.")
    return _Header(final, opcode, length, 2 + layout.size)


class _Message:
    """A data message while its fragments arrive (§5.4); text is checked as it comes (§8.1)."""

    def __init__(self, opcode: int) -> None:
        self._is_text = opcode == _TEXT
        self._data = bytearray()
        self._checked = 0  # bytes known to be whole UTF-8 characters
        self.announced = 0  # bytes of payload promised by the headers so far

    def add(self, chunk: bytearray) -> None:
        self._data += chunk
        if self._is_text and chunk:
            self._check(final=False)

    def finish(self) -> Event:
        if not self._is_text:
            return Binary(bytes(self._data))
        self._check(final=True)
        return Text(self._data.decode("utf-8"))

    def _check(self, final: bool) -> None:
        with memoryview(self._data) as view, view[self._checked :] as fresh:
            try:
                _, consumed = codecs.utf_8_decode(fresh, "strict", final)
            except UnicodeDecodeError:
                raise ProtocolFault(INVALID_DATA, "A text message is not UTF-8.") from None
        self._checked += consumed
        # Half a surrogate can become nothing valid, but CPython waits for its third byte before it says so.
        rest = self._data[self._checked :]
        if len(rest) == 2 and rest[0] == 0xED and rest[1] >= 0xA0:
            raise ProtocolFault(INVALID_DATA, "A text message is not UTF-8.")


def _read_close(payload: bytes) -> Closed:
    """§5.5.1: nothing, or a code and a reason in UTF-8."""
    if not payload:
        return Closed(NO_CODE, "")
    if len(payload) == 1:
        raise ProtocolFault(PROTOCOL_ERROR, "A close frame holds half a code.")
    code = int.from_bytes(payload[:2], "big")
    if not _may_travel(code):
        raise ProtocolFault(PROTOCOL_ERROR, f"A close frame holds the code {code}, which must not be sent.")
    try:
        return Closed(code, payload[2:].decode("utf-8"))
    except UnicodeDecodeError:
        raise ProtocolFault(INVALID_DATA, "The reason in a close frame is not UTF-8.") from None


_CONTROLS: dict[int, Callable[[bytes], Event]]
_CONTROLS = {_CLOSE: _read_close, _PING: Ping, _PONG: Pong}


class Frames:
    """Both directions of an open connection.

    `feed` belongs to one reader. The writing methods keep no state and may be called from any thread;
    that nothing is sent after `close` (§5.5.1) is the socket owner's promise.
    `max_message` is in bytes of payload, all fragments together. `mask` returns four bytes per frame.
    """

    def __init__(self, max_message: int = 1 << 20, mask: Callable[[], bytes] = _fresh_mask) -> None:
        self._max_message = max_message
        self._mask = mask
        self._buffer = bytearray()  # at most a header, a control frame's payload or what one `feed` brought
        self._header: _Header | None = None  # of the frame whose payload is arriving
        self._missing = 0  # bytes of that payload still to come
        self._message: _Message | None = None
        self._closed = False
        self._fault: ProtocolFault | None = None

    # Reading

    def feed(self, data: bytes) -> list[Event]:
        """What these bytes complete, in order. The result does not depend on how the stream is cut.

        Raises ProtocolFault at the first byte that cannot be part of a lawful stream, and again ever after.
        """
        if self._fault is not None:
            raise ProtocolFault(self._fault.code, str(self._fault))
        events: list[Event] = []
        self._buffer += data
        try:
            while self._advance(events):
                pass
        except ProtocolFault as fault:
            fault.events = events
            self._fault = ProtocolFault(fault.code, str(fault))
            self._buffer.clear()
            raise
        return events

    def _advance(self, events: list[Event]) -> bool:
        """Take one header or the payload that is there; False when more bytes are needed."""
        if self._closed and self._buffer:  # §1.4, §5.5.1
            raise ProtocolFault(PROTOCOL_ERROR, "The server sent data after its close frame.")
        if self._header is None:
            return self._take_header()
        if self._header.is_control:
            return self._take_control(self._header.opcode, events)
        return self._take_data(self._header.final, events)

    def _take_header(self) -> bool:
        header = _read_header(self._buffer)
        if header is None:
            return False
        if not header.is_control:  # §5.4: control frames may come between fragments
            self._join_message(header)
        self._take(header.size)
        self._header, self._missing = header, header.length
        return True

    def _join_message(self, header: _Header) -> None:
        """§5.4: a first fragment opens a message, only a continuation may follow it."""
        if header.opcode == _CONTINUATION and self._message is None:
            raise ProtocolFault(PROTOCOL_ERROR, "A continuation frame has no message to continue.")
        if header.opcode != _CONTINUATION and self._message is not None:
            raise ProtocolFault(PROTOCOL_ERROR, "A new message begins inside a fragmented one.")
        message = self._message = self._message or _Message(header.opcode)
        message.announced += header.length
        if message.announced > self._max_message:  # §10.4: refused by its header, before it takes memory
            raise ProtocolFault(TOO_BIG, f"A message is longer than {self._max_message} bytes.")

    def _take_control(self, opcode: int, events: list[Event]) -> bool:
        if len(self._buffer) < self._missing:
            return False
        event = _CONTROLS[opcode](bytes(self._take(self._missing)))
        events.append(event)
        self._header = None
        self._closed = isinstance(event, Closed)
        return True

    def _take_data(self, final: bool, events: list[Event]) -> bool:
        assert self._message is not None  # `_join_message` made it
        chunk = self._take(min(self._missing, len(self._buffer)))
        self._message.add(chunk)
        self._missing -= len(chunk)
        if self._missing:
            return False
        self._header = None
        if final:
            events.append(self._message.finish())
            self._message = None
        return True

    def _take(self, size: int) -> bytearray:
        taken = self._buffer[:size]
        del self._buffer[:size]  # a bytearray forgets its front without moving the rest
        return taken

    # Writing

    def text(self, text: str) -> bytes:
        """Raises UnicodeEncodeError, a ValueError, when the text holds a lone surrogate (§8.1)."""
        return self.text_bytes(text.encode("utf-8"))

    def text_bytes(self, utf8: bytes) -> bytes:
        """A text message whose payload is UTF-8 already; it is not checked again."""
        return self._frame(_TEXT, utf8)

    def binary(self, data: bytes) -> bytes:
        return self._frame(_BINARY, data)

    def ping(self, data: bytes = b"") -> bytes:
        return self._control(_PING, data)

    def pong(self, data: bytes) -> bytes:
        """The answer to a ping, with the ping's own data (§5.5.3)."""
        return self._control(_PONG, data)

    def close(self, code: int = NORMAL, reason: str = "") -> bytes:
        """A close frame. 1005 is written as an empty one, so the code of `Closed` can be echoed (§7.4.1).

        The reason is for people only: what exceeds the 123 bytes of room is cut off at a character's end.
        Raises ValueError for a code that must not travel.
        """
        if code == NO_CODE:
            return self._control(_CLOSE, b"")
        if not _may_travel(code):
            raise ValueError(f"the close code {code} must not be sent")
        room = reason.encode("utf-8", "backslashreplace")[: _CONTROL_LIMIT - 2]
        return self._control(_CLOSE, struct.pack("!H", code) + room.decode("utf-8", "ignore").encode("utf-8"))

    def _control(self, opcode: int, payload: bytes) -> bytes:
        if len(payload) > _CONTROL_LIMIT:  # §5.5
            raise ValueError(f"a control frame holds at most {_CONTROL_LIMIT} bytes, not {len(payload)}")
        return self._frame(opcode, payload)

    def _frame(self, opcode: int, payload: bytes) -> bytes:
        """One final, masked frame with the shortest form of its length (§5.2, §5.3)."""
        size, first, key = len(payload), 0x80 | opcode, self._mask()
        if len(key) != 4:
            raise ValueError("a mask is four bytes")
        if size <= 125:
            head = struct.pack("!BB", first, 0x80 | size)
        elif size <= 0xFFFF:
            head = struct.pack("!BBH", first, 0x80 | 126, size)
        else:
            head = struct.pack("!BBQ", first, 0x80 | 127, size)
        return head + key + _masked(payload, key)
