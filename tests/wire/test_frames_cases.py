"""Literal streams from a server, each with what must come of them.

Sections 1 to 7, 9 and 10 follow the numbering of the Autobahn test suite's cases; 20 and later are our own.
Every stream is read in one piece and in small ones: how TCP cuts it must not matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from perfect_client.wire.frames import Binary, Closed, Event, Ping, Pong, Text

from tests.wire.frames_server_side import (
    BINARY,
    CLOSE,
    MORE,
    PING,
    PONG,
    TEXT,
    Outcome,
    close,
    fragments,
    frame,
    pieces,
    read,
)

BROKEN, NOT_UTF8, TOO_BIG = 1002, 1007, 1009
HELLO = frame(TEXT, b"Hello")


class Case(NamedTuple):
    name: str
    stream: bytes
    events: list[Event]
    fault: int | None = None
    chop: int = 1  # bytes a read, for the second reading


def framing() -> Iterator[Case]:
    """1: every form of the length, for text and for binary."""
    for n, size in enumerate([0, 125, 126, 127, 128, 65535, 65536, 65536], 1):
        chop = 997 if size > 1000 else 1
        yield Case(f"1.1.{n}", frame(TEXT, b"*" * size), [Text("*" * size)], chop=chop)
        yield Case(f"1.2.{n}", frame(BINARY, b"\xfe" * size), [Binary(b"\xfe" * size)], chop=chop)
    # The examples of RFC 6455 §5.7, byte for byte.
    yield Case("1.3.1", b"\x81\x05\x48\x65\x6c\x6c\x6f", [Text("Hello")])
    yield Case("1.3.2", b"\x01\x03\x48\x65\x6c\x80\x02\x6c\x6f", [Text("Hello")])
    yield Case("1.3.3", b"\x89\x05\x48\x65\x6c\x6c\x6f", [Ping(b"Hello")])
    yield Case("1.3.4", b"\x82\x7e\x01\x00" + b"\x07" * 256, [Binary(b"\x07" * 256)])
    yield Case(
        "1.3.5", b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00" + b"\x07" * 65536, [Binary(b"\x07" * 65536)], chop=997
    )


def pings() -> Iterator[Case]:
    """2: pings and pongs, asked for or not."""
    odd, full = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125
    yield Case("2.1", frame(PING), [Ping(b"")])
    yield Case("2.2", frame(PING, b"Hello, world!"), [Ping(b"Hello, world!")])
    yield Case("2.3", frame(PING, odd), [Ping(odd)])
    yield Case("2.4", frame(PING, full), [Ping(full)])
    yield Case("2.5", frame(PING, b"\xfe" * 126), [], BROKEN)
    yield Case("2.6", frame(PING, full), [Ping(full)], chop=3)
    yield Case("2.7", frame(PONG), [Pong(b"")])
    yield Case("2.8", frame(PONG, b"unsolicited"), [Pong(b"unsolicited")])
    yield Case("2.9", frame(PONG, b"unsolicited") + frame(PING, b"now"), [Pong(b"unsolicited"), Ping(b"now")])
    ten = [b"payload-%d" % n for n in range(10)]
    yield Case("2.10", b"".join(frame(PING, data) for data in ten), [Ping(data) for data in ten])
    yield Case("2.11", b"".join(frame(PING, data) for data in ten), [Ping(data) for data in ten], chop=7)
    yield Case("2.12", frame(PONG, b"\xfe" * 126), [], BROKEN)
    yield Case("2.13", b"\x89\x7f\x00\x00\x00\x00\x00\x00\x00\x05Hello", [], BROKEN)


def reserved_bits() -> Iterator[Case]:
    """3: no extension was agreed on, so no reserved bit may be set."""
    yield Case("3.1", frame(TEXT, b"Hello", rsv=1), [], BROKEN)
    yield Case("3.2", HELLO + frame(TEXT, b"Hello", rsv=2) + frame(PING), [Text("Hello")], BROKEN)
    yield Case("3.3", HELLO + frame(TEXT, b"Hello", rsv=3) + frame(PING), [Text("Hello")], BROKEN)
    yield Case("3.4", HELLO + frame(TEXT, b"Hello", rsv=4) + frame(PING), [Text("Hello")], BROKEN, chop=2)
    yield Case("3.5", frame(BINARY, b"\xff" * 8, rsv=5), [], BROKEN)
    yield Case("3.6", frame(PING, b"Hello", rsv=6), [], BROKEN)
    yield Case("3.7", frame(CLOSE, rsv=7), [], BROKEN)
    yield Case("3.8", frame(TEXT, b"He", fin=False) + frame(MORE, b"llo", rsv=4), [], BROKEN)


def opcodes() -> Iterator[Case]:
    """4: reserved opcodes, alone and between lawful frames."""
    for n, opcode in enumerate([3, 4, 5, 6, 7], 1):
        yield Case(f"4.1.{n}", frame(opcode), [], BROKEN)
        yield Case(f"4.1.{n}b", HELLO + frame(opcode, b"reserved") + frame(PING), [Text("Hello")], BROKEN)
    for n, opcode in enumerate([11, 12, 13, 14, 15], 1):
        yield Case(f"4.2.{n}", frame(opcode), [], BROKEN)
        yield Case(f"4.2.{n}b", HELLO + frame(opcode, b"reserved") + frame(PING), [Text("Hello")], BROKEN)


def fragmentation() -> Iterator[Case]:
    """5: messages in parts, with control frames between them, and parts that belong to nothing."""
    first, second = frame(TEXT, b"frag1", fin=False), frame(MORE, b"frag2")
    both, ping = Text("frag1frag2"), frame(PING, b"ping")
    yield Case("5.1", frame(PING, b"frag1", fin=False) + frame(MORE, b"frag2"), [], BROKEN)
    yield Case("5.2", frame(PONG, b"frag1", fin=False) + frame(MORE, b"frag2"), [], BROKEN)
    yield Case("5.3", first + second, [both])
    yield Case("5.4", first + second, [both], chop=2)
    yield Case("5.5", first + second, [both], chop=5)
    yield Case("5.6", first + ping + second, [Ping(b"ping"), both])
    yield Case("5.7", first + ping + second, [Ping(b"ping"), both], chop=2)
    yield Case("5.8", first + ping + second, [Ping(b"ping"), both], chop=9)
    nothing_to_continue = frame(MORE, b"non-continuation payload")
    yield Case("5.9", nothing_to_continue + HELLO, [], BROKEN)
    yield Case("5.10", nothing_to_continue + HELLO, [], BROKEN, chop=6)
    yield Case("5.11", nothing_to_continue + HELLO, [], BROKEN, chop=26)
    unfinished = frame(MORE, b"non-continuation payload", fin=False)
    yield Case("5.12", unfinished + HELLO, [], BROKEN)
    yield Case("5.13", unfinished + HELLO, [], BROKEN, chop=6)
    yield Case("5.14", unfinished + HELLO, [], BROKEN, chop=26)
    yield Case("5.15", first + second + frame(MORE, b"frag3", fin=False) + frame(TEXT, b"frag4"), [both], BROKEN)
    thrice = frame(MORE, b"frag1", fin=False) + frame(TEXT, b"frag2", fin=False) + frame(MORE, b"frag3")
    yield Case("5.16", thrice * 2, [], BROKEN)
    yield Case("5.17", frame(MORE, b"frag1") + frame(TEXT, b"frag2", fin=False) + frame(MORE, b"frag3"), [], BROKEN)
    yield Case("5.18", first + frame(TEXT, b"frag2"), [], BROKEN)
    five = [frame(TEXT, b"f1", fin=False), frame(MORE, b"f2", fin=False), frame(PING, b"p1")]
    five += [frame(MORE, b"f3", fin=False), frame(MORE, b"f4", fin=False), frame(PING, b"p2"), frame(MORE, b"f5")]
    yield Case("5.19", b"".join(five), [Ping(b"p1"), Ping(b"p2"), Text("f1f2f3f4f5")])
    yield Case("5.20", b"".join(five), [Ping(b"p1"), Ping(b"p2"), Text("f1f2f3f4f5")], chop=4)
    yield Case("5.21", first + frame(BINARY, b"frag2"), [], BROKEN)
    yield Case("5.22", first + frame(PONG, b"p") + second, [Pong(b"p"), both])
    yield Case("5.23", frame(CLOSE, fin=False), [], BROKEN)


GREEK = b"\xce\xba\xcf\x8c\xcf\x83\xce\xbc\xce\xb5"  # κόσμε
VALID_UTF8 = [
    b"hello\x24world",
    b"hello\xc2\xa2world",
    b"hello\xe2\x82\xacworld",
    b"hello\xf0\xa4\xad\xa2world",
    GREEK,
    *(GREEK[:n] for n in range(2, 11, 2)),
    b"\x00",  # the first sequence of each length
    b"\xc2\x80",
    b"\xe0\xa0\x80",
    b"\xf0\x90\x80\x80",
    b"\x7f",  # the last of each length
    b"\xdf\xbf",
    b"\xef\xbf\xbf",
    b"\xf4\x8f\xbf\xbf",
    b"\xed\x9f\xbf",  # either side of the surrogates
    b"\xee\x80\x80",
    b"\xef\xbf\xb9",  # specials and non-characters are lawful UTF-8
    b"\xef\xbf\xbd",
    b"\xef\xbf\xbe",
    *(chr(plane << 16 | low).encode("utf-8") for plane in range(1, 17) for low in (0xFFFE, 0xFFFF)),
]
INVALID_UTF8 = [
    *(GREEK[:n] for n in range(1, 10, 2)),  # cut inside a character
    b"\xf8\x88\x80\x80\x80",  # five and six bytes
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xf7\xbf\xbf\xbf",
    b"\xfb\xbf\xbf\xbf\xbf",
    b"\xfd\xbf\xbf\xbf\xbf\xbf",
    b"\xf4\x90\x80\x80",  # beyond U+10FFFF
    *((b"\x80\xbf" * 3)[:n] for n in range(1, 7)),  # continuation bytes that continue nothing
    b"\xbf",
    bytes(range(0x80, 0xC0)),
    *(bytes([start]) + b" " for start in (0xC0, 0xDF, 0xE0, 0xEF, 0xF0, 0xF7, 0xF8, 0xFB, 0xFC, 0xFD)),
    b"\xe0\x80",  # the last byte missing
    b"\xf0\x80\x80",
    b"\xef\xbf",
    b"\xf7\xbf\xbf",
    b"\xfb\xbf\xbf\xbf",
    b"\xfd\xbf\xbf\xbf\xbf",
    b"\xfe",  # bytes that never occur
    b"\xff",
    b"\xfe\xfe\xff\xff",
    b"\xc0\xaf",  # written longer than needed: "/", the largest, NUL
    b"\xe0\x80\xaf",
    b"\xf0\x80\x80\xaf",
    b"\xf8\x80\x80\x80\xaf",
    b"\xfc\x80\x80\x80\x80\xaf",
    b"\xc1\xbf",
    b"\xe0\x9f\xbf",
    b"\xf0\x8f\xbf\xbf",
    b"\xf8\x87\xbf\xbf\xbf",
    b"\xfc\x83\xbf\xbf\xbf\xbf",
    b"\xc0\x80",
    b"\xe0\x80\x80",
    b"\xf0\x80\x80\x80",
    *(
        b"\xed" + low
        for low in (b"\xa0\x80", b"\xad\xbf", b"\xae\x80", b"\xaf\xbf", b"\xb0\x80", b"\xbe\x80", b"\xbf\xbf")
    ),
    b"\xed\xa0\x80\xed\xb0\x80",  # paired surrogates
    b"\xed\xa0\x80\xed\xbf\xbf",
    b"\xed\xad\xbf\xed\xb0\x80",
    b"\xed\xae\x80\xed\xbf\xbf",
    b"\xed\xaf\xbf\xed\xbf\xbf",
]


def utf8() -> Iterator[Case]:
    """6: text is UTF-8, wherever the frames cut it; anything else ends the connection."""
    yield Case("6.1.1", frame(TEXT), [Text("")])
    yield Case("6.1.2", fragments(TEXT, b"", b"", b""), [Text("")])
    yield Case("6.1.3", fragments(TEXT, b"", b"middle frame payload", b""), [Text("middle frame payload")])
    text = "Hello-µ@ßöäüàá-UTF-8!!"
    raw = text.encode("utf-8")
    yield Case("6.2.1", frame(TEXT, raw), [Text(text)])
    yield Case("6.2.2", fragments(TEXT, raw[:12], raw[12:]), [Text(text)])
    yield Case("6.2.3", fragments(TEXT, *pieces(raw, 1)), [Text(text)])
    yield Case("6.2.4", fragments(TEXT, *pieces(GREEK, 1)), [Text("κόσμε")])
    bad = GREEK + b"\xed\xa0\x80" + b"edited"
    yield Case("6.3.1", frame(TEXT, bad), [], NOT_UTF8)
    yield Case("6.3.2", fragments(TEXT, *pieces(bad, 1)), [], NOT_UTF8)
    for n, payload in enumerate(VALID_UTF8, 1):
        yield Case(f"6.5.{n}", frame(TEXT, payload), [Text(payload.decode("utf-8"))])
    for n, payload in enumerate(INVALID_UTF8, 1):
        yield Case(f"6.6.{n}", frame(TEXT, payload), [], NOT_UTF8)
        yield Case(f"6.7.{n}", fragments(TEXT, *pieces(payload, 1), b""), [], NOT_UTF8)
    yield Case("6.8.1", frame(BINARY, b"\xed\xa0\x80\xff"), [Binary(b"\xed\xa0\x80\xff")])
    yield Case("6.8.2", frame(PING, b"\xff") + frame(PONG, b"\xc0"), [Ping(b"\xff"), Pong(b"\xc0")])


LAWFUL_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4409, 4999]
UNLAWFUL_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]


def closing() -> Iterator[Case]:
    """7: the close frame, its code, its reason, and that nothing comes after it."""
    done = Closed(1000, "")
    yield Case("7.1.1", HELLO + close(1000), [Text("Hello"), done])
    yield Case("7.1.2", close(1000) + close(1000), [done], BROKEN)
    yield Case("7.1.3", close(1000) + frame(PING), [done], BROKEN)
    yield Case("7.1.4", close(1000) + HELLO, [done], BROKEN)
    yield Case("7.1.5", frame(TEXT, b"f1", fin=False) + close(1000) + frame(MORE, b"f2"), [done], BROKEN)
    big = "BAsd7&jh23" * 26214
    many = frame(TEXT, big.encode("ascii")) + HELLO + close(1000) + frame(PING)
    yield Case("7.1.6", many, [Text(big), Text("Hello"), done], BROKEN, chop=4096)
    yield Case("7.3.1", frame(CLOSE), [Closed(1005, "")])
    yield Case("7.3.2", frame(CLOSE, b"a"), [], BROKEN)
    yield Case("7.3.3", close(1000), [done])
    yield Case("7.3.4", close(1000, b"Hello World!"), [Closed(1000, "Hello World!")])
    yield Case("7.3.5", close(1000, b"*" * 123), [Closed(1000, "*" * 123)])
    yield Case("7.3.6", close(1000, b"*" * 124), [], BROKEN)
    yield Case("7.5.1", close(1000, GREEK + b"\xed\xa0\x80edited"), [], NOT_UTF8)
    yield Case("7.5.2", close(1000, GREEK[:3]), [], NOT_UTF8)
    yield Case("7.5.3", close(4401, GREEK), [Closed(4401, "κόσμε")])
    for n, code in enumerate(LAWFUL_CODES, 1):
        yield Case(f"7.7.{n}", close(code), [Closed(code, "")])
    for n, code in enumerate(UNLAWFUL_CODES, 1):
        yield Case(f"7.9.{n}", close(code), [], BROKEN)
    yield Case("7.13.1", close(999, b"\xff"), [], BROKEN)
    yield Case("7.13.2", frame(TEXT, b"f1", fin=False) + close(4012, b"restart"), [Closed(4012, "restart")])


def sizes() -> Iterator[Case]:
    """9: large messages, whole, in many fragments, and in many small reads."""
    for n, size in enumerate([1 << 16, 1 << 18, 1 << 20], 1):
        yield Case(f"9.1.{n}", frame(TEXT, b"*" * size), [Text("*" * size)], chop=1 << 14)
        yield Case(f"9.2.{n}", frame(BINARY, b"\xfe" * size), [Binary(b"\xfe" * size)], chop=1 << 14)
    payload = b"\xc3\xbc" * (1 << 17)
    for n, size in enumerate([63, 256, 1021, 4096, 16384, 65536, 262144], 1):
        parts = pieces(payload, size)
        yield Case(f"9.3.{n}", fragments(TEXT, *parts), [Text("ü" * (1 << 17))], chop=1460)
        yield Case(f"9.4.{n}", fragments(BINARY, *parts), [Binary(payload)], chop=1460)
    for n, chop in enumerate([64, 127, 256, 512, 1024, 2048], 1):
        yield Case(f"9.5.{n}", frame(TEXT, payload), [Text("ü" * (1 << 17))], chop=chop)
        yield Case(f"9.6.{n}", frame(BINARY, payload), [Binary(payload)], chop=chop)
    for n, size in enumerate([0, 16, 64, 256, 1024], 1):
        yield Case(f"9.7.{n}", frame(TEXT, b"*" * size) * 100, [Text("*" * size)] * 100, chop=61)


def misc() -> Iterator[Case]:
    """10: a message cut into fragments of 1300 bytes."""
    yield Case("10.1.1", fragments(TEXT, *pieces(b"*" * 65536, 1300)), [Text("*" * 65536)], chop=997)


def beyond() -> Iterator[Case]:
    """20: masked frames and lengths in the wrong form. 21: over the limit of one MiB."""
    yield Case("20.1", b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", [], BROKEN)
    yield Case("20.2", b"\x81\x80\x00\x00\x00\x00", [], BROKEN)
    yield Case("20.3", b"\x8a\x80\x37\xfa\x21\x3d", [], BROKEN)
    yield Case("20.4", b"\x81\x7e\x00\x05Hello", [], BROKEN)
    yield Case("20.5", b"\x82\x7e\x00\x7d" + b"." * 125, [], BROKEN)
    yield Case("20.6", b"\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff", [], BROKEN)
    yield Case("20.7", b"\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x00", [], BROKEN)
    yield Case("20.8", b"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", [], BROKEN)
    yield Case("20.9", b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", [], BROKEN)
    yield Case("21.1", b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", [], TOO_BIG)
    yield Case("21.2", b"\x81\x7f\x00\x00\x00\x00\x00\x10\x00\x01", [], TOO_BIG)
    half = frame(BINARY, b"." * (1 << 19), fin=False)
    yield Case("21.3", half + frame(MORE, b"." * (1 << 19)), [Binary(b"." * (1 << 20))], chop=1 << 15)
    yield Case("21.4", half + frame(PING, b"p") + frame(MORE, b"." * ((1 << 19) + 1)), [Ping(b"p")], TOO_BIG, 1 << 15)
    yield Case("22.1", b"", [])
    yield Case("22.2", b"\x81", [])
    yield Case("22.3", b"\x81\x05Hell", [])
    yield Case("22.4", b"\x81\x7e\x00", [])
    yield Case("22.5", fragments(TEXT, *[b""] * 200, b"end"), [Text("end")])


SECTIONS = [framing, pings, reserved_bits, opcodes, fragmentation, utf8, closing, sizes, misc, beyond]
CASES = [case for section in SECTIONS for case in section()]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_it_reads_the_stream_as_the_standard_says(case: Case) -> None:
    expected = Outcome(case.events, case.fault)

    assert read(case.stream) == expected
    assert read(*pieces(case.stream, case.chop)) == expected


def test_every_case_has_its_own_name() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
