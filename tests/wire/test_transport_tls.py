"""A link over TLS and through a proxy, with a certificate made on the spot."""

from __future__ import annotations

import base64
import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from perfect_client.wire import connect
from perfect_client.wire.connection import Link
from perfect_client.wire.frames import Text

from tests.wire.frames_server_side import PING, PONG, TEXT, close, frame
from tests.wire.transport_server_side import PATIENCE_S, Peer, RawServer, drive

OPENSSL = shutil.which("openssl")
GOODBYE = close(1000)
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="the openssl command makes the certificate")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and self-signed certificate, in one file, for localhost and perfect.test."""
    folder = tmp_path_factory.mktemp("tls")
    file = folder / "both.pem"
    config = folder / "openssl.cnf"
    config.write_text(
        "[req]\nprompt=no\ndistinguished_name=dn\nx509_extensions=ext\n[dn]\nCN=Perfect test\n"
        "[ext]\nsubjectAltName=DNS:localhost,DNS:perfect.test\nbasicConstraints=critical,CA:TRUE\n"
    )
    subprocess.run(
        [
            str(OPENSSL),
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-config",
            str(config),
            "-keyout",
            str(folder / "key"),
            "-out",
            str(folder / "certificate"),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    file.write_text((folder / "key").read_text() + (folder / "certificate").read_text())
    return file


class TlsServer(RawServer):
    def __init__(self, certificate: Path, *scripts: Any) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        super().__init__(*scripts, wrap=lambda sock: context.wrap_socket(sock, server_side=True))
        self.url = f"https://localhost:{self.port}"


def refused_handshake(server: TlsServer) -> None:
    with contextlib.suppress(ssl.SSLError, OSError):
        server.close()


# -------------------------------------------------------------------------------------------------------------- TLS


@needs_openssl
def test_messages_cross_tls_both_ways_whatever_their_size(certificate: Path) -> None:
    got: list[Any] = []

    def script(peer: Peer) -> None:
        peer.upgrade(behind=frame(TEXT, b"early"))
        got.extend(peer.read_frames(3))
        peer.sock.sendall(frame(TEXT, b"y" * 900_000) + frame(PING, b"p"))
        got.extend(peer.read_frames(1))
        peer.sock.sendall(GOODBYE)
        peer.wait_for_end()

    with TlsServer(certificate, script) as server:
        driver = drive(server.url, ca_file=str(certificate))
        for size in (10, 900_000, 100):
            driver.link.send_text(b"x" * size)
        driver.until_closed()

    assert [len(f.payload) for f in got[:3]] == [10, 900_000, 100]
    assert (got[3].opcode, got[3].payload) == (PONG, b"p")
    assert driver.events[:2] == [Text("early"), Text("y" * 900_000)]


@needs_openssl
def test_many_records_in_one_read_leave_nothing_behind_in_tls(certificate: Path) -> None:
    """What TLS has deciphered no selector tells of: it must be read before the loop waits."""
    messages = [b"%d" % n * 500 for n in range(400)]

    def script(peer: Peer) -> None:
        peer.upgrade()
        for message in messages:
            peer.sock.sendall(frame(TEXT, message))
        peer.wait_for_end()

    with TlsServer(certificate, script) as server:
        driver = drive(server.url, ca_file=str(certificate))
        driver.until(lambda: len(driver.events) == len(messages))
        driver.link.abort()

    assert [event.text.encode() for event in driver.events] == messages


@needs_openssl
def test_a_large_send_over_tls_survives_a_slow_reader(certificate: Path) -> None:
    got: list[Any] = []
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.upgrade()
        peer.sock.sendall(frame(PING, b"1"))
        go.wait(PATIENCE_S)
        got.extend(peer.read_frames(9))
        peer.sock.sendall(GOODBYE)
        peer.wait_for_end()

    with TlsServer(certificate, script) as server:
        driver = drive(server.url, ca_file=str(certificate))
        for n in range(8):
            driver.link.send_text(b"%d" % n * 1_000_000)
        for _ in range(5):
            driver.turn(0.02)
        go.set()
        driver.until_closed()

    assert [f.payload[:1] for f in got if f.opcode == TEXT] == [b"%d" % n for n in range(8)]
    assert all(len(set(f.payload)) == 1 for f in got)


@needs_openssl
def test_a_certificate_that_nobody_vouches_for_is_refused(certificate: Path) -> None:
    server = TlsServer(certificate, lambda peer: peer.upgrade())
    driver = drive(server.url)
    refused_handshake(server)

    assert driver.until_closed().code == 1006
    assert "is not trusted" in driver.link.error
    assert "SSL_CERT_FILE" in driver.link.error


@needs_openssl
def test_the_environments_certificate_file_is_honoured(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    with TlsServer(certificate, lambda peer: peer.upgrade(behind=GOODBYE)) as server:
        assert drive(server.url).until_closed().code == 1000


@needs_openssl
def test_a_certificate_for_another_name_is_refused(certificate: Path) -> None:
    server = TlsServer(certificate, lambda peer: peer.upgrade())
    driver = drive(f"https://127.0.0.1:{server.port}", ca_file=str(certificate))
    refused_handshake(server)

    assert "is not trusted" in driver.link.error
    assert "127.0.0.1" in driver.link.error


@needs_openssl
def test_https_to_a_server_without_tls_says_so() -> None:
    with RawServer(lambda peer: peer.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        driver = drive(f"https://127.0.0.1:{server.port}")

    assert "is it http:// there?" in driver.link.error


@needs_openssl
def test_http_to_a_server_with_tls_says_so(certificate: Path) -> None:
    server = TlsServer(certificate, lambda peer: peer.upgrade())
    driver = drive(f"http://localhost:{server.port}")
    refused_handshake(server)

    assert "no Perfect server answers at" in driver.link.error


def test_a_ca_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with RawServer(lambda peer: peer.wait_for_end() and None) as server:
        driver = drive(f"https://127.0.0.1:{server.port}", ca_file=str(tmp_path / "none.pem"))

    assert "none.pem cannot be read" in driver.link.error


# ------------------------------------------------------------------------------------------------------------ proxies


def proxy_to(port: int, seen: list[str], answer: str = "200 Connection established") -> Any:
    """A proxy's script: it lets every CONNECT through to this port of this machine, or answers otherwise."""

    def copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def script(peer: Peer) -> None:
        seen.append(peer.read_request().decode())
        peer.sock.sendall(f"HTTP/1.1 {answer}\r\nX-By: proxy\r\n\r\n".encode())
        if not answer.startswith("200"):
            return
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as upstream:
            back = threading.Thread(target=copy, args=(upstream, peer.sock), daemon=True)
            back.start()
            copy(peer.sock, upstream)
            back.join(PATIENCE_S)

    return script


def test_the_environments_proxy_is_used_for_http(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    with RawServer(lambda peer: peer.upgrade(behind=frame(TEXT, b"hi") + GOODBYE)) as server:
        with RawServer(proxy_to(server.port, seen)) as proxy:
            monkeypatch.setenv("HTTP_PROXY", f"http://ana:p%40ss@127.0.0.1:{proxy.port}")
            driver = drive("http://perfect.test:8700")
            driver.until_closed()

    assert driver.events[0] == Text("hi")
    assert seen[0].startswith("CONNECT perfect.test:8700 HTTP/1.1\r\nHost: perfect.test:8700\r\n")
    assert "Proxy-Authorization: Basic " + base64.b64encode(b"ana:p@ss").decode() in seen[0]
    assert "pft_secret" not in seen[0]


@needs_openssl
def test_tls_goes_through_a_proxy_to_the_servers_own_certificate(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    with TlsServer(certificate, lambda peer: peer.upgrade(behind=frame(TEXT, b"hi") + GOODBYE)) as server:
        with RawServer(proxy_to(server.port, seen)) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            driver = drive("https://perfect.test", ca_file=str(certificate))
            driver.until_closed()

    assert driver.events[0] == Text("hi")
    assert seen[0].startswith("CONNECT perfect.test:443 ")


@pytest.mark.parametrize(
    ("answer", "words"), [("403 Forbidden", "does not let us through"), ("407 Who Are You", "a name and a password")]
)
def test_a_proxy_that_refuses_is_a_sentence(answer: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(proxy_to(1, [], answer)) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"127.0.0.1:{proxy.port}")
        driver = drive("http://perfect.test")

    assert driver.until_closed().code == 1006
    assert words in driver.link.error


def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused.getsockname()[1]}")
        driver = drive("http://perfect.test")

    assert "the proxy at 127.0.0.1:" in driver.link.error
    assert "connection refused" in driver.link.error


@pytest.mark.parametrize(
    ("url", "environment", "used"),
    [
        ("http://perfect.test", {"HTTP_PROXY": "http://p:3128"}, True),
        ("https://perfect.test", {"HTTP_PROXY": "http://p:3128"}, False),
        ("wss://perfect.test", {"HTTPS_PROXY": "p:3128"}, True),
        ("https://perfect.test", {"HTTPS_PROXY": "http://p:3128", "NO_PROXY": ".test"}, False),
        ("https://perfect.test", {"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "*"}, False),
        ("https://perfect.test", {"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "other.test"}, True),
        ("http://localhost:8700", {"HTTP_PROXY": "http://p:3128"}, False),
        ("http://127.0.0.1:8700", {"ALL_PROXY": "http://p:3128"}, False),
        ("http://[::1]:8700", {"HTTP_PROXY": "http://p:3128"}, False),
        ("http://perfect.test", {}, False),
    ],
)
def test_which_addresses_go_through_a_proxy(
    url: str, environment: dict[str, str], used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    proxy = connect.proxy_for(connect.parse(url, "t"))

    assert (proxy is not None) == used
    assert proxy is None or (proxy.host, proxy.port) == ("p", 3128)


def test_a_kind_of_proxy_that_cannot_be_used_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://p:1080")

    driver = drive("https://perfect.test")

    assert "only http:// proxies" in driver.link.error


def test_a_link_is_made_without_touching_the_network() -> None:
    assert Link("https://nowhere.invalid", "t").state == "connecting"
