"""A link over real sockets: what it does with every way in which a connection can begin, go on and end."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

import pytest
from perfect_client.wire.connection import CLOSED, OPEN, Backoff, Link
from perfect_client.wire.frames import Closed, Text

from tests.wire.frames_server_side import BINARY, CLOSE, PING, PONG, TEXT, close, fragments, frame
from tests.wire.transport_server_side import Driver, Peer, RawServer, Script, drive

GOODBYE = close(1000)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def says(*data: bytes, size: int = 1 << 20) -> Script:
    """A server that says this, waits for the client's end and is gone."""

    def script(peer: Peer) -> None:
        peer.upgrade()
        for piece in data:
            peer.trickle(piece, size)
        peer.wait_for_end()

    return script


# ---------------------------------------------------------------------------------------------------------- opening


def test_it_knocks_at_the_workers_door_with_its_token_and_no_origin() -> None:
    seen = []

    def script(peer: Peer) -> None:
        peer.upgrade(behind=GOODBYE)
        seen.append(peer.request.decode())

    with RawServer(script) as server:
        drive(server.url + "/perfect/").until_closed()

    assert seen[0].startswith("GET /perfect/ws/worker/ HTTP/1.1\r\n")
    assert f"\r\nHost: 127.0.0.1:{server.port}\r\n" in seen[0]
    assert "\r\nAuthorization: Bearer pft_secret\r\n" in seen[0]
    assert "origin" not in seen[0].lower()


def test_the_loop_owns_a_socket_that_never_blocks_and_sends_small_messages_at_once() -> None:
    with RawServer(says(GOODBYE)) as server:
        link = Link(server.url, "t")
        assert (link.fileno(), link.wants_write, link.on_readable()) == (-1, False, [])
        awake = threading.Event()
        link.start(awake.set)
        assert awake.wait(10)

        assert link.state == OPEN
        sock = link._sock
        assert sock is not None and link.fileno() == sock.fileno()
        assert sock.gettimeout() == 0.0
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        link.abort()


def test_what_comes_right_behind_the_handshake_is_not_lost() -> None:
    with RawServer(lambda peer: peer.upgrade(behind=frame(TEXT, b"at once") + GOODBYE)) as server:
        driver = drive(server.url)
        driver.until_closed()

    assert driver.events[0] == Text("at once")


def test_a_handshake_and_messages_byte_by_byte_read_the_same() -> None:
    def script(peer: Peer) -> None:
        behind = frame(TEXT, "añadido ✓".encode()) + fragments(TEXT, b"in ", b"two") + frame(TEXT, b"x" * 300)
        peer.upgrade(behind=behind + GOODBYE, size=1)
        peer.wait_for_end()

    with RawServer(script) as server:
        driver = drive(server.url)
        driver.until_closed()

    assert driver.events[:3] == [Text("añadido ✓"), Text("in two"), Text("x" * 300)]
    assert driver.events[3].code == 1000


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        ("401 Unauthorized", 4401, "refused the token (401)"),
        ("401 Unauthorized", 4401, "manage.py createtoken"),
        ("403 Forbidden", 4403, "403"),
        ("404 Not Found", 4404, "no Perfect server answers at"),
        ("426 Upgrade Required", 4426, "newer perfect-client"),
        ("429 Too Many Requests", 4013, "too many"),
        ("500 Internal Server Error", 1006, "HTTP 500"),
        ("502 Bad Gateway", 1006, "cannot reach it"),
        ("503 Service Unavailable", 4012, "starting or stopping"),
        ("200 OK", 1006, "HTTP 200"),
    ],
)
def test_a_refusal_in_http_is_a_sentence_and_a_code(status: str, code: int, words: str) -> None:
    with RawServer(lambda peer: peer.answer(status, "<html>a page</html>")) as server:
        driver = drive(server.url)
        closed = driver.until_closed()

    assert closed.code == code
    assert words in driver.link.error
    assert "pft_secret" not in driver.link.error
    assert (driver.link.state, driver.link.fileno(), driver.link.on_readable()) == (CLOSED, -1, [])


def test_a_redirect_names_the_other_address() -> None:
    with RawServer(lambda peer: peer.answer("301 Moved", Location="https://perfect.example/")) as server:
        driver = drive(server.url)

    assert driver.until_closed().code == 4404
    assert "https://perfect.example/" in driver.link.error


def test_a_refusal_whose_page_never_comes_is_a_refusal_still() -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.sock.sendall(b"HTTP/1.1 401 No\r\nContent-Length: 100\r\n\r\nhalf")
        peer.wait_for_end()

    with RawServer(script) as server:
        driver = drive(server.url, handshake_timeout_s=0.3)

    assert driver.until_closed().code == 4401


def test_a_wrong_accept_key_is_refused() -> None:
    with RawServer(lambda peer: peer.upgrade(accept="d3Jvbmc=")) as server:
        driver = drive(server.url)

    assert driver.until_closed().code == 1006
    assert "Sec-WebSocket-Accept" in driver.link.error


def test_a_server_that_speaks_something_else_is_refused() -> None:
    with RawServer(lambda peer: peer.sock.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")) as server:
        driver = drive(server.url)

    assert "does not speak HTTP" in driver.link.error


def test_a_server_that_hangs_up_in_the_handshake_is_a_sentence() -> None:
    with RawServer(lambda peer: peer.read_request() and None) as server:
        driver = drive(server.url)

    assert driver.until_closed().code == 1006
    assert "no Perfect server answers at" in driver.link.error


def test_a_silent_server_is_given_up_in_time() -> None:
    with RawServer(lambda peer: peer.wait_for_end() and None) as server:
        driver = drive(server.url, handshake_timeout_s=0.2)

    assert driver.until_closed().code == 1006
    assert "no answer in time" in driver.link.error


def test_a_server_that_drips_is_given_up_in_time() -> None:
    def script(peer: Peer) -> None:
        pause = threading.Event()
        peer.sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nX: ")
        with contextlib.suppress(OSError):
            while not pause.wait(0.02):
                peer.sock.sendall(b"x")

    with RawServer(script) as server:
        driver = drive(server.url, handshake_timeout_s=0.3)

    assert "no answer in time" in driver.link.error


def test_a_port_where_nobody_listens_is_a_sentence() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        driver = drive(url)

    assert driver.link.error == f"no Perfect server answers at {url} (connection refused)"
    assert driver.events == [Closed(1006, driver.link.error)]


def test_a_name_that_nobody_knows_is_a_sentence() -> None:
    driver = drive("http://nowhere.invalid:8700")

    assert "the name nowhere.invalid cannot be found" in driver.link.error


@pytest.mark.parametrize(
    ("url", "token", "words"),
    [
        ("localhost:8700", "t", "write it like http://host:8700"),
        ("ftp://host", "t", "write it like http://host:8700"),
        ("http://", "t", "write it like http://host:8700"),
        ("http://host:port", "t", "is not an address"),
        ("http://host:99999", "t", "is not an address"),
        ("http://ana:pw@host", "t", "more than scheme"),
        ("http://host/?q", "t", "more than scheme"),
        ("http://host", "pft_one\r\nHost: evil", "cannot be sent"),
        ("http://host", "pft_ñ", "cannot be sent"),
    ],
)
def test_an_address_or_token_that_cannot_be_right_is_refused_at_once(url: str, token: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        Link(url, token)

    assert "pft_" not in str(refused.value)


# ------------------------------------------------------------------------------------------------------------ going on


def test_messages_go_out_in_order_as_they_were_given() -> None:
    got: list[Any] = []

    def script(peer: Peer) -> None:
        peer.upgrade()
        got.extend(peer.read_frames(3))
        peer.sock.sendall(GOODBYE)
        peer.wait_for_end()

    with RawServer(script) as server:
        driver = drive(server.url)
        for text in ("one", "zwölf", "x" * 70_000):
            driver.link.send_text(text.encode())
        driver.until_closed()

    assert [(f.opcode, f.payload.decode()) for f in got] == [(TEXT, "one"), (TEXT, "zwölf"), (TEXT, "x" * 70_000)]


def test_a_ping_is_answered_at_once_even_behind_megabytes_that_wait() -> None:
    asked, got = threading.Event(), []

    def script(peer: Peer) -> None:
        peer.upgrade()
        peer.sock.sendall(frame(PING, b"old") + frame(PING, b"now") + frame(TEXT, b"read"))
        asked.wait(10)
        got.extend(peer.read_frames(13))
        peer.sock.sendall(GOODBYE)
        peer.wait_for_end()

    with RawServer(script) as server:
        driver = drive(server.url)
        for _ in range(12):
            driver.link.send_text(b"x" * 1_000_000)
        assert driver.link.wants_write
        assert driver.link.queued_bytes > 4 << 20
        driver.until(lambda: driver.events)
        waiting = driver.link.queued_bytes
        asked.set()
        driver.until_closed()

    opcodes = [f.opcode for f in got]
    assert sorted(opcodes) == [TEXT] * 12 + [PONG]
    assert all(f.payload == b"x" * 1_000_000 for f in got if f.opcode == TEXT)
    assert got[opcodes.index(PONG)].payload == b"now"
    assert opcodes.index(PONG) < 12 - waiting // 1_000_050 + 1  # before every frame that had not begun
    assert driver.longest < 2.0


def test_a_flood_of_pings_takes_no_memory() -> None:
    def script(peer: Peer) -> None:
        peer.upgrade()
        peer.sock.sendall(b"".join(frame(PING, b"%d" % n) for n in range(5000)) + GOODBYE)
        peer.wait_for_end()

    with RawServer(script) as server:
        driver = drive(server.url)
        driver.link.send_text(b"x" * 8_000_000)
        before = driver.link.queued_bytes
        driver.turn()

        assert driver.link.queued_bytes <= before + 200
        driver.until_closed()


def test_an_own_ping_goes_out_and_pongs_are_no_events() -> None:
    got: list[Any] = []

    def script(peer: Peer) -> None:
        peer.upgrade()
        got.extend(peer.read_frames(1))
        peer.sock.sendall(frame(PONG, b"hi") + frame(BINARY, b"?") + GOODBYE)
        peer.wait_for_end()

    with RawServer(script) as server:
        driver = drive(server.url)
        driver.link.ping(b"hi")
        driver.until_closed()

    assert (got[0].opcode, got[0].payload) == (PING, b"hi")
    assert [type(event) for event in driver.events] == [Closed]


# ---------------------------------------------------------------------------------------------------------- the ends


def test_the_servers_close_frame_is_answered_and_its_reason_told() -> None:
    answer = []

    def script(peer: Peer) -> None:
        peer.upgrade()
        peer.sock.sendall(close(4401, b"revoked"))
        answer.extend(peer.read_frames(1))

    with RawServer(script) as server:
        driver = drive(server.url)
        closed = driver.until_closed()

    assert closed == Closed(4401, "revoked")
    assert "createtoken" in driver.link.error and "revoked" in driver.link.error
    assert (answer[0].opcode, answer[0].payload[:2]) == (CLOSE, (4401).to_bytes(2, "big"))
    assert (driver.link.state, driver.link.fileno(), driver.link.wants_write) == (CLOSED, -1, False)
    driver.link.send_text(b"too late")
    driver.link.close()
    driver.link.abort()


def test_an_own_close_goes_out_behind_what_is_queued_and_nothing_follows_it() -> None:
    got: list[Any] = []

    def script(peer: Peer) -> None:
        peer.upgrade()
        got.extend(peer.read_frames(2))
        peer.sock.sendall(frame(PING, b"still there?") + GOODBYE)
        got.append(peer.wait_for_end())

    with RawServer(script) as server:
        driver = drive(server.url)
        driver.link.send_text(b"last word")
        driver.link.close(1000, "done")
        driver.link.close(1001)
        driver.link.send_text(b"never")
        closed = driver.until_closed()

    assert closed.code == 1000
    assert [(f.opcode, f.payload) for f in got[:2]] == [(TEXT, b"last word"), (CLOSE, b"\x03\xe8done")]
    assert got[2] == b""


ENDS = [Peer.reset, lambda peer: peer.sock.close(), lambda peer: peer.sock.shutdown(socket.SHUT_WR)]


@pytest.mark.parametrize("end", ENDS, ids=["reset", "end", "half-close"])
def test_a_server_that_vanishes_is_1006_after_its_last_words(end: Any) -> None:
    heard = threading.Event()

    def script(peer: Peer) -> None:
        peer.upgrade(behind=frame(TEXT, b"last"))
        assert heard.wait(10)
        end(peer)

    with RawServer(script) as server:
        driver = drive(server.url).until(lambda: True)
        driver.until(lambda: driver.events)
        heard.set()
        closed = driver.until_closed()

    assert driver.events[0] == Text("last")
    assert closed.code == 1006
    assert driver.link.error


def test_a_server_that_resets_while_we_write_is_1006() -> None:
    def script(peer: Peer) -> None:
        peer.upgrade()
        peer.sock.recv(1000)
        peer.reset()

    with RawServer(script) as server:
        driver = drive(server.url)
        for _ in range(20):
            driver.link.send_text(b"x" * 1_000_000)
        closed = driver.until_closed()

    assert closed.code == 1006
    assert driver.link.queued_bytes == 0
    assert not driver.link.wants_write


def test_the_servers_reason_is_heard_although_writing_failed_first() -> None:
    def script(peer: Peer) -> None:
        peer.upgrade()
        peer.sock.sendall(close(4409, b"replaced"))
        peer.sock.close()

    with RawServer(script) as server:
        driver = Driver(Link(server.url, "t")).connected()
        server.close()
        driver.link.send_text(b"a")
        driver.link.send_text(b"b")
        closed = driver.until_closed()

    assert closed.code in (4409, 1006)  # a reset may overtake the words; never anything else, and never an exception


@pytest.mark.parametrize("bad", [frame(TEXT, b"\xff"), frame(3, b""), frame(TEXT, b"x", rsv=4), b"\x81\x85abcd12345"])
def test_a_server_that_breaks_the_protocol_is_told_and_left(bad: bytes) -> None:
    answer = []

    def script(peer: Peer) -> None:
        peer.upgrade(behind=frame(TEXT, b"good") + bad)
        answer.extend(peer.read_frames(1))

    with RawServer(script) as server:
        driver = drive(server.url)
        closed = driver.until_closed()

    assert driver.events[0] == Text("good")
    assert closed.code == 1002
    assert answer[0].opcode == CLOSE
    assert "broke the WebSocket protocol" in driver.link.error


def test_aborting_ends_at_once_and_without_an_event() -> None:
    with RawServer(says()) as server:
        driver = drive(server.url)
        driver.link.abort()

        assert (driver.link.state, driver.link.fileno()) == (CLOSED, -1)
        assert driver.link.on_readable() == []


def test_aborting_while_it_connects_leaves_no_socket_behind() -> None:
    ended = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        go.wait(10)
        peer.upgrade()
        assert peer.wait_for_end() == b""
        ended.set()

    go = threading.Event()
    with RawServer(script) as server:
        awake = threading.Event()
        link = Link(server.url, "t")
        link.start(awake.set)
        link.close()
        assert link.state == CLOSED
        go.set()
        assert awake.wait(10) and ended.wait(10)

    assert (link.state, link.fileno(), link.on_readable()) == (CLOSED, -1, [])


# ----------------------------------------------------------------------------------------------------------- back-off


@pytest.mark.parametrize("code", [4401, 4403, 4409, 4426])
def test_it_does_not_come_back_where_that_will_not_help(code: int) -> None:
    assert Backoff().next(code) is None


def test_it_waits_longer_and_longer_up_to_half_a_minute() -> None:
    most = Backoff(random=lambda: 1.0)
    least = Backoff(random=lambda: 0.0)

    assert [most.next(1006) for _ in range(7)] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert {least.next(4012) for _ in range(7)} == {0.5}


def test_after_a_success_it_begins_anew() -> None:
    backoff = Backoff(random=lambda: 1.0)
    for _ in range(9):
        backoff.next(1006)

    backoff.reset()

    assert backoff.next(1000) == 1.0
