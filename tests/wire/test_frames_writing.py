"""What the client writes, as a server reads it."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from perfect_client.wire.frames import Frames

from tests.wire.frames_server_side import BINARY, CLOSE, PING, PONG, TEXT, ClientFrame, decode_client

steady = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no bug
KEY = b"\x37\xfa\x21\x3d"
fixed = Frames(mask=lambda: KEY)


def only(data: bytes) -> ClientFrame:
    (found,) = decode_client(data)
    return found


def test_it_writes_the_masked_example_of_the_standard() -> None:
    assert fixed.text("Hello") == b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"


@pytest.mark.parametrize(
    ("size", "form"), [(0, 7), (1, 7), (125, 7), (126, 16), (127, 16), (65535, 16), (65536, 64), (70001, 64)]
)
def test_it_writes_each_length_in_its_shortest_form(size: int, form: int) -> None:
    payload = bytes(n % 251 for n in range(size))

    found = only(fixed.binary(payload))

    assert found == ClientFrame(fin=True, rsv=0, opcode=BINARY, mask=KEY, payload=payload, length_form=form)


# Around the 16 KiB that are masked at once, with every remainder of four.
@pytest.mark.parametrize("size", [*range(9), *range(16380, 16390), *range(32766, 32771), 49152, 100003])
def test_masking_is_right_at_every_length(size: int) -> None:
    payload = bytes(n * 7 % 256 for n in range(size))

    assert only(fixed.binary(payload)).payload == payload


@steady
@given(st.text(), st.binary(min_size=4, max_size=4))
def test_a_server_reads_the_text_that_was_written(text: str, key: bytes) -> None:
    frames = Frames(mask=lambda: key)

    found = only(frames.text(text))

    assert (found.opcode, found.mask, found.payload.decode("utf-8")) == (TEXT, key, text)
    assert frames.text_bytes(text.encode("utf-8")) == frames.text(text)


@steady
@given(st.binary(max_size=125))
def test_a_server_reads_pings_and_pongs(data: bytes) -> None:
    found = decode_client(fixed.ping(data) + fixed.pong(data))

    assert [(f.opcode, f.payload) for f in found] == [(PING, data), (PONG, data)]


def test_every_frame_has_a_fresh_mask() -> None:
    frames = Frames()

    masks = {only(frames.text("same")).mask for _ in range(100)}

    assert len(masks) == 100


def test_a_mask_must_be_four_bytes() -> None:
    with pytest.raises(ValueError, match="four bytes"):
        Frames(mask=lambda: b"123").text("x")


@pytest.mark.parametrize("write", [fixed.ping, fixed.pong])
def test_it_refuses_to_write_a_control_frame_over_125_bytes(write: object) -> None:
    assert callable(write)
    with pytest.raises(ValueError, match="at most 125 bytes"):
        write(b"." * 126)


def test_it_refuses_text_that_has_no_utf8() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        fixed.text("\ud800")


@pytest.mark.parametrize(
    ("written", "payload"),
    [
        (fixed.close(), b"\x03\xe8"),
        (fixed.close(1002, "A reserved bit is set."), b"\x03\xeaA reserved bit is set."),
        (fixed.close(4409), b"\x11\x39"),
        (fixed.close(1005, "ignored"), b""),
        (fixed.close(1000, "." * 200), b"\x03\xe8" + b"." * 123),
        (fixed.close(1000, "ü" * 100), b"\x03\xe8" + "ü".encode() * 61),
        (fixed.close(1000, "\ud800"), b"\x03\xe8\\ud800"),
    ],
)
def test_it_writes_close_frames_that_fit(written: bytes, payload: bytes) -> None:
    assert only(written) == ClientFrame(True, 0, CLOSE, KEY, payload, 7)


@pytest.mark.parametrize("code", [0, 999, 1004, 1006, 1015, 1016, 2999, 5000, 65536, -1])
def test_it_refuses_close_codes_that_must_not_travel(code: int) -> None:
    with pytest.raises(ValueError, match="must not be sent"):
        fixed.close(code)


def test_half_a_mebibyte_is_masked_in_milliseconds() -> None:
    payload, best = b"x" * (1 << 19), float("inf")

    for _ in range(20):
        started = time.process_time()
        fixed.text_bytes(payload)
        best = min(best, time.process_time() - started)

    # About 0.002 s on an ordinary machine; a loop over the bytes takes thirty times as long.
    assert best < 0.04
