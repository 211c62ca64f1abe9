"""The server's side of the wire for the tests of `frames`: written from RFC 6455 §5 alone, byte by byte."""

from __future__ import annotations

from typing import NamedTuple

from perfect_client.wire.frames import Event, Frames, ProtocolFault

MORE, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(opcode: int, payload: bytes = b"", fin: bool = True, rsv: int = 0) -> bytes:
    """One unmasked frame; any opcode, any reserved bits (0 to 7), however unlawful."""
    size = len(payload)
    if size < 126:
        length = bytes([size])
    elif size < 65536:
        length = b"\x7e" + size.to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    return bytes([fin << 7 | rsv << 4 | opcode]) + length + payload


def fragments(opcode: int, *parts: bytes) -> bytes:
    """One message in as many frames as there are parts."""
    last = len(parts) - 1
    return b"".join(frame(opcode if n == 0 else MORE, part, fin=n == last) for n, part in enumerate(parts))


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)] or [b""]


class Outcome(NamedTuple):
    """All that a stream led to: the events, and the close code of the fault that ended it, if any."""

    events: list[Event]
    fault: int | None


def read(*chunks: bytes, max_message: int = 1 << 20) -> Outcome:
    frames, events = Frames(max_message=max_message), []
    for chunk in chunks:
        try:
            events += frames.feed(chunk)
        except ProtocolFault as fault:
            return Outcome(events + fault.events, fault.code)
    return Outcome(events, None)


class ClientFrame(NamedTuple):
    fin: bool
    rsv: int
    opcode: int
    mask: bytes
    payload: bytes
    length_form: int  # 7, 16 or 64 bits


def decode_client(data: bytes) -> list[ClientFrame]:
    """What a server makes of a client's bytes. AssertionError when they are not whole, masked frames."""
    found, at = [], 0
    while at < len(data):
        fin, rsv, opcode = data[at] >> 7, data[at] >> 4 & 7, data[at] & 15
        assert data[at + 1] & 0x80, "a client masks every frame"
        form, size, at = 7, data[at + 1] & 0x7F, at + 2
        if size > 125:
            form = 16 if size == 126 else 64
            size, at = int.from_bytes(data[at : at + form // 8], "big"), at + form // 8
        mask, at = data[at : at + 4], at + 4
        assert len(data) - at >= size, "the payload is whole"
        payload = bytes(byte ^ mask[n % 4] for n, byte in enumerate(data[at : at + size]))
        found.append(ClientFrame(bool(fin), rsv, opcode, mask, payload, form))
        at += size
    return found
