"""The opening handshake: the request that is written, and the answers that do or do not open a connection."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from perfect_client.wire.frames import Handshake, HandshakeFailed, new_key, upgrade_request

from tests.wire.frames_server_side import pieces

steady = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no bug
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # the example of RFC 6455 §1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
GOOD = [
    "HTTP/1.1 101 Switching Protocols",
    "Upgrade: websocket",
    "Connection: Upgrade",
    f"Sec-WebSocket-Accept: {ACCEPT}",
]


def answer(*lines: str, body: bytes = b"") -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def refusal(data: bytes, *more: bytes) -> HandshakeFailed:
    """What the handshake makes of an answer that must fail."""
    handshake = Handshake(KEY)
    for chunk in (data, *more):
        try:
            assert handshake.feed(chunk) is None
        except HandshakeFailed as failed:
            return failed
    raise AssertionError("the handshake did not fail")


# --- The request ---


def test_the_request_is_written_line_by_line_as_the_standard_asks() -> None:
    request = upgrade_request("perfect.example:8700", "/ws/worker/?v=1", {"Authorization": "Bearer pft_x"}, KEY)

    assert request == (
        b"GET /ws/worker/?v=1 HTTP/1.1\r\nHost: perfect.example:8700\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Authorization: Bearer pft_x\r\n\r\n"
    )


def test_a_key_is_sixteen_random_bytes_in_base64() -> None:
    assert len(base64.b64decode(new_key(), validate=True)) == 16
    assert new_key() != new_key()
    assert new_key(lambda size: b"the sample nonce"[:size]) == KEY


@pytest.mark.parametrize("bad", ["a\r\nEvil: 1", "a\nb", "a\rb", "a\n", "\0", "a\x7f", "ü", "\u2028"])
def test_no_value_can_break_out_of_its_line(bad: str) -> None:
    with pytest.raises(ValueError, match="the header Host holds"):
        upgrade_request(bad, "/", {}, KEY)
    with pytest.raises(ValueError, match="the header Authorization holds"):
        upgrade_request("host", "/", {"Authorization": bad}, KEY)
    with pytest.raises(ValueError, match="the header Sec-WebSocket-Key holds"):
        upgrade_request("host", "/", {}, bad)
    with pytest.raises(ValueError, match="the path must"):
        upgrade_request("host", "/" + bad, {}, KEY)
    with pytest.raises(ValueError, match="is not a header"):
        upgrade_request("host", "/", {"X" + bad: "1"}, KEY)


@pytest.mark.parametrize("path", ["", "ws/", "http://host/", "/a b", "*"])
def test_the_path_must_be_absolute_and_without_spaces(path: str) -> None:
    with pytest.raises(ValueError, match="the path must"):
        upgrade_request("host", path, {}, KEY)


@pytest.mark.parametrize(
    "name", ["Host", "UPGRADE", "connection", "Sec-WebSocket-Protocol", "sec-websocket-key", "", "a b", "a:"]
)
def test_headers_of_the_handshake_itself_cannot_be_added(name: str) -> None:
    with pytest.raises(ValueError, match="is not a header"):
        upgrade_request("host", "/", {name: "x"}, KEY)


def test_a_refused_value_is_not_repeated_because_it_may_be_a_token() -> None:
    with pytest.raises(ValueError, match="the header Authorization") as caught:
        upgrade_request("host", "/", {"Authorization": "Bearer pft_secret\n"}, KEY)

    assert "pft_secret" not in str(caught.value)


# --- The answer ---


def test_a_lawful_answer_opens_the_connection_and_hands_over_the_first_frames() -> None:
    assert Handshake(KEY).feed(answer(*GOOD, body=b"\x81\x02hi")) == b"\x81\x02hi"


def test_an_answer_may_arrive_byte_by_byte() -> None:
    handshake = Handshake(KEY)
    data = answer(*GOOD)

    results = [handshake.feed(byte) for byte in pieces(data, 1)]

    assert results == [None] * (len(data) - 1) + [b""]


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(["HTTP/1.1 101", *GOOD[1:]], id="no reason phrase"),
        pytest.param([GOOD[0], "UPGRADE: WebSocket", "connection: keep-alive,  UPGRADE", GOOD[3]], id="letter case"),
        pytest.param([GOOD[0], "Upgrade:websocket", "Connection:\tUpgrade \t", GOOD[3]], id="blanks"),
        pytest.param([*GOOD, "Set-Cookie: a=1", "Set-Cookie: b=2"], id="a header twice"),
        pytest.param([*GOOD, "Sec-WebSocket-Extensions:", "Sec-WebSocket-Protocol: "], id="empty lists"),
        pytest.param([*GOOD, "Server: caf\xe9"], id="bytes outside ASCII"),
        pytest.param([*GOOD, "Connection: keep-alive"], id="Connection twice"),
    ],
)
def test_lawful_variations_are_accepted(lines: list[str]) -> None:
    assert Handshake(KEY).feed(answer(*lines)) == b""


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        pytest.param([GOOD[0], *GOOD[2:]], "does not upgrade", id="no Upgrade"),
        pytest.param([GOOD[0], "Upgrade: h2c", *GOOD[2:]], "does not upgrade", id="another Upgrade"),
        pytest.param([GOOD[0], GOOD[1], GOOD[3]], "lacks 'Connection: Upgrade'", id="no Connection"),
        pytest.param(
            [GOOD[0], GOOD[1], "Connection: not-upgrade", GOOD[3]], "lacks 'Connection", id="other Connection"
        ),
        pytest.param(GOOD[:3], "does not fit our key", id="no Accept"),
        pytest.param([*GOOD[:3], "Sec-WebSocket-Accept: " + ACCEPT.lower()], "does not fit", id="wrong Accept"),
        pytest.param([*GOOD, GOOD[3]], "does not fit our key", id="Accept twice"),
        pytest.param([*GOOD, "Sec-WebSocket-Extensions: permessage-deflate"], "an extension", id="an extension"),
        pytest.param([*GOOD, "Sec-WebSocket-Protocol: chat"], "a subprotocol", id="a subprotocol"),
        pytest.param(["HTTP/1.0 101 Switching Protocols", *GOOD[1:]], "HTTP/1.0 only", id="HTTP/1.0"),
        pytest.param([*GOOD, "no colon"], "malformed header", id="no colon"),
        pytest.param([*GOOD, "Name : x"], "malformed header", id="a blank before the colon"),
        pytest.param([*GOOD, "X: a", " folded"], "malformed header", id="a folded line"),
        pytest.param([*GOOD, "X: a\nUpgrade: b"], "malformed header", id="a bare line feed"),
        pytest.param([*GOOD, "X: a\0"], "malformed header", id="a NUL"),
    ],
)
def test_an_unlawful_101_is_refused(lines: list[str], sentence: str) -> None:
    failed = refusal(answer(*lines))

    assert sentence in str(failed)
    assert failed.status == 101


def test_a_refusal_tells_status_headers_and_body() -> None:
    head = answer("HTTP/1.1 403 Forbidden", "Content-Length: 9", "X-Why: Token", "X-why: expired")

    failed = refusal(head + b"forbidden")

    assert (failed.status, failed.body) == (403, "forbidden")
    assert failed.headers == {"content-length": "9", "x-why": "Token, expired"}
    assert str(failed) == "The server answered HTTP 403 instead of opening a WebSocket."


def test_a_refusal_waits_for_the_rest_of_its_body() -> None:
    failed = refusal(answer("HTTP/1.0 503 Busy", "Content-Length: 9"), b"try", b" later")

    assert (failed.status, failed.body) == (503, "try later")


@pytest.mark.parametrize("length", ["", "many", "-1", "9" * 30, "²"])
def test_a_refusal_without_a_usable_length_is_told_at_once(length: str) -> None:
    failed = refusal(answer("HTTP/1.1 400 Bad Request", f"Content-Length: {length}", body=b"so far"))

    assert (failed.status, failed.body) == (400, "so far")


def test_a_long_or_undecodable_body_is_cut_and_escaped() -> None:
    failed = refusal(answer("HTTP/1.1 502 Bad Gateway", "Content-Length: 1000000"), b"\xff" + b"." * 5000)

    assert failed.body == "\\xff" + "." * 4095


def test_a_connection_that_ends_early_still_tells_what_was_known() -> None:
    handshake = Handshake(KEY)
    assert handshake.eof().status is None
    assert handshake.feed(answer("HTTP/1.1 401 Unauthorized", "Content-Length: 100", body=b"no tok")) is None

    failed = handshake.eof()

    assert (failed.status, failed.body, failed.headers) == (401, "no tok", {"content-length": "100"})


@pytest.mark.parametrize(
    "data", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x01\x00\x02\x02\x16", b"HTCPCP/1.0", b"h", b"\r"]
)
def test_a_server_that_does_not_speak_http_is_found_at_once(data: bytes) -> None:
    failed = refusal(data)

    assert (str(failed), failed.status) == ("The server does not speak HTTP.", None)
    assert failed.body


@pytest.mark.parametrize(
    "line", ["HTTP/1.1", "HTTP/1.1 101x", "HTTP/1.1 1010 OK", "HTTP/2 101 OK", "HTTP/1.1  101 OK", "HTTP/1.1 abc"]
)
def test_a_malformed_status_line_is_refused(line: str) -> None:
    assert refusal(answer(line, *GOOD[1:])).status is None


def test_sixteen_kib_of_headers_are_allowed_and_not_one_byte_more() -> None:
    room = 16 * 1024 - len(answer(*GOOD, "X: "))

    fits, too_long = answer(*GOOD, "X: " + "." * room), answer(*GOOD, "X: " + "." * (room + 1))

    assert Handshake(KEY).feed(fits + b"surplus") == b"surplus"
    assert "more than 16384 bytes" in str(refusal(too_long))
    assert "more than 16384 bytes" in str(refusal(*pieces(too_long, 1000)))


def test_headers_without_an_end_are_refused_at_the_limit() -> None:
    assert "more than 16384 bytes" in str(refusal(*[b"HTTP/1.1 101 OK\r\n"] + [b"X: " + b"." * 1000] * 17))


@steady
@given(st.lists(st.integers(0, 200), max_size=6).map(sorted))
def test_how_the_answer_is_cut_does_not_matter(places: list[int]) -> None:
    data, handshake = answer(*GOOD, body=b"\x81\x02hi"), Handshake(KEY)
    opened, frames = False, b""

    for start, end in zip([0, *places], [*places, len(data)]):
        chunk = data[start:end]
        result = chunk if opened else handshake.feed(chunk)
        opened, frames = result is not None, frames + (result or b"")

    assert (opened, frames) == (True, b"\x81\x02hi")


@steady
@given(st.binary(max_size=100).map(lambda tail: b"HTTP/1.1 " + tail + b"\r\n\r\n"))
def test_no_answer_makes_it_fail_in_any_other_way(data: bytes) -> None:
    with contextlib.suppress(HandshakeFailed):
        assert Handshake(KEY).feed(data) is None
