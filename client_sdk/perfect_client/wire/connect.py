"""How a link comes about, in a thread that may block: address, proxy, TCP, TLS, the opening handshake.

What can go wrong here is what people get wrong (address, token, certificate, firewall), so each failure is a sentence
that says what to do. A token is never part of one.
"""

from __future__ import annotations

import base64
import errno
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Dict, NamedTuple, Optional, Tuple, Union
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from perfect_client.wire.frames import Handshake, HandshakeFailed, new_key, upgrade_request
from perfect_client.wire.messages import FORBIDDEN, NO_ROUTE, OVERLOADED, REPLACED, RESTARTING, TOO_OLD, UNAUTHORISED

Socket = Union[socket.socket, ssl.SSLSocket]

PATH = "/ws/worker/"
GONE = 1006
DEAD_AFTER_MS = 30_000  # sent data that nobody acknowledges: the peer or the way to it is gone
_TCP_OPTIONS = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", DEAD_AFTER_MS))
_SCHEMES = {"http": False, "ws": False, "https": True, "wss": True}
_MAX_ANSWER = 64 * 1024


class Failure(Exception):
    """No link: ``str()`` is a sentence, ``code`` what a close frame would have said."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True)
class Target:
    url: str  # as people know it, for sentences
    host: str
    port: int
    tls: bool
    path: str
    request: bytes
    key: str
    ca_file: Optional[str]

    @property
    def authority(self) -> str:
        return _authority(self.host, self.port)


class Proxy(NamedTuple):
    host: str
    port: int
    authorisation: str


# ---------------------------------------------------------------------------------------------------------- sentences

_TOKEN_HINT = "make one with: manage.py createtoken NAME --scope worker"
_REFUSALS: Dict[int, Tuple[int, str]] = {
    401: (UNAUTHORISED, "the server refused the token (401): it is missing, wrong, expired or revoked; " + _TOKEN_HINT),
    403: (FORBIDDEN, "the server forbids this (403): the token's scope must be worker; " + _TOKEN_HINT),
    404: (NO_ROUTE, "no Perfect server answers at {url} (404): is the address right, with its path?"),
    407: (GONE, "the proxy wants a name and a password (407): HTTPS_PROXY=http://name:password@host:port"),
    426: (TOO_OLD, "the server wants a newer perfect-client (426): pip install --upgrade perfect-client"),
    429: (OVERLOADED, "the server has too many connections (429)"),
    502: (GONE, "the proxy before the server cannot reach it (502)"),
    503: (RESTARTING, "the server at {url} is starting or stopping (503)"),
    504: (GONE, "the proxy before the server gets no answer from it (504)"),
}
_CLOSINGS = {
    1001: "the server is going away",
    1009: "a message was too big for the server",
    RESTARTING: "the server is restarting",
    OVERLOADED: "the server is overloaded",
    UNAUTHORISED: "the server refused the token: it is missing, wrong, expired or revoked; " + _TOKEN_HINT,
    FORBIDDEN: "the server forbids this token to work here; " + _TOKEN_HINT,
    NO_ROUTE: "the server has no worker's door at this address",
    REPLACED: "another worker with this identity has taken this one's place",
    TOO_OLD: "the server wants a newer perfect-client: pip install --upgrade perfect-client",
}
_CAUSES = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection reset",
    errno.ETIMEDOUT: "no answer",
    errno.EHOSTUNREACH: "no route to the host",
    errno.ENETUNREACH: "no network",
}


def explain(code: int, reason: str) -> str:
    """Why the server closed an open link, as a sentence."""
    sentence = _CLOSINGS.get(code, "the server closed the connection")
    return "%s (%d%s)" % (sentence, code, ": " + reason if reason else "")


def cause(wrong: OSError) -> str:
    """An operating system's error in a few words."""
    if isinstance(wrong, socket.timeout):
        return "no answer in time"
    return _CAUSES.get(wrong.errno or 0, wrong.strerror or str(wrong) or type(wrong).__name__)


# ------------------------------------------------------------------------------------------------------------ address


def parse(url: str, token: str, ca_file: Optional[str] = None) -> Target:
    """Raises ``ValueError`` with a sentence for an address or a token that cannot be right."""
    token = token.strip()
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as wrong:
        raise ValueError("%r is not an address: %s" % (url, wrong)) from None
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise ValueError("%r is not an address of a server: write it like http://host:8700" % url)
    if parts.username or parts.query or parts.fragment:
        raise ValueError("the server's address holds more than scheme, host, port and path: write http://host:8700")
    tls = _SCHEMES[parts.scheme]
    host = parts.hostname
    path = parts.path.rstrip("/") + PATH
    default = 443 if tls else 80
    host_header = _authority(host, None if port in (None, default) else port)
    key = new_key()
    headers = {"Authorization": "Bearer " + token} if token else {}
    headers["User-Agent"] = "perfect-client"
    try:
        request = upgrade_request(host_header, path, headers, key)
    except ValueError as wrong:
        raise ValueError("the server's address or the token cannot be sent: %s" % wrong) from None
    shown = "%s://%s%s" % (parts.scheme, host_header, parts.path.rstrip("/"))
    return Target(shown, host, port or default, tls, path, request, key, ca_file)


def _authority(host: str, port: Optional[int]) -> str:
    name = "[%s]" % host if ":" in host else host
    return name if port is None else "%s:%d" % (name, port)


def proxy_for(target: Target) -> Optional[Proxy]:
    """The proxy that the environment names for this address (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY), if any."""
    proxies = getproxies_environment()
    address = proxies.get("https" if target.tls else "http") or proxies.get("all")
    if not address or _is_loopback(target.host) or proxy_bypass_environment(target.authority, proxies):
        return None
    parts = urlsplit(address if "://" in address else "http://" + address)
    if parts.scheme != "http" or not parts.hostname:
        raise Failure(GONE, "the proxy %s://… cannot be used: only http:// proxies are supported" % parts.scheme)
    authorisation = ""
    if parts.username:
        secret = "%s:%s" % (unquote(parts.username), unquote(parts.password or ""))
        authorisation = "Basic " + base64.b64encode(secret.encode()).decode()
    return Proxy(parts.hostname, parts.port or 80, authorisation)


def _is_loopback(host: str) -> bool:
    """A proxy on another machine can never reach this one's loopback; a variable set for the whole company must not
    come between a worker and the server next to it."""
    return host in ("localhost", "::1") or host.startswith("127.")


# ------------------------------------------------------------------------------------------------------------ dialing


class Deadline:
    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def arm(self, sock: socket.socket) -> None:
        """The next operation of the socket may take what is left. Raises ``socket.timeout`` when nothing is."""
        sock.settimeout(self.left())

    def left(self) -> float:
        left = self._at - time.monotonic()
        if left <= 0:
            raise socket.timeout()
        return left


def dial(target: Target, connect_timeout_s: float, handshake_timeout_s: float) -> Tuple[Socket, bytes]:
    """An open WebSocket, no longer blocking, and the bytes that came right behind the handshake. Raises ``Failure``."""
    sock: Optional[Socket] = None
    try:
        sock = _reach(target, Deadline(connect_timeout_s))
        deadline = Deadline(handshake_timeout_s)
        if target.tls:
            sock = _secure(sock, target, deadline)
        early = _shake_hands(sock, target, deadline)
        sock.setblocking(False)
        return sock, early
    except Exception as wrong:
        if sock is not None:
            sock.close()
        raise _failure(wrong, target) from None


def _failure(wrong: Exception, target: Target) -> Failure:
    if isinstance(wrong, Failure):
        return wrong
    if isinstance(wrong, HandshakeFailed):
        return _refusal(wrong, target)
    if isinstance(wrong, socket.gaierror):
        return Failure(GONE, "the name %s cannot be found (%s)" % (target.host, wrong.strerror))
    if isinstance(wrong, ssl.SSLCertVerificationError):
        hint = "name its authority with --ca-file or SSL_CERT_FILE"
        return Failure(GONE, "the certificate of %s is not trusted: %s; %s" % (target.url, wrong.verify_message, hint))
    if isinstance(wrong, ssl.SSLError):
        return Failure(GONE, "no TLS with %s (%s): is it http:// there?" % (target.url, wrong.reason or wrong))
    if isinstance(wrong, OSError):
        return Failure(GONE, "no Perfect server answers at %s (%s)" % (target.url, cause(wrong)))
    return Failure(GONE, "the connection to %s failed: %s: %s" % (target.url, type(wrong).__name__, wrong))


def _refusal(wrong: HandshakeFailed, target: Target) -> Failure:
    code, sentence = _REFUSALS.get(wrong.status or 0, (GONE, ""))
    if sentence:
        return Failure(code, sentence.format(url=target.url))
    if wrong.status is not None and 300 <= wrong.status < 400:
        return Failure(
            NO_ROUTE,
            "%s answers that it is at %s now: use that address"
            % (target.url, wrong.headers.get("location", "another address")),
        )
    hint = "" if wrong.status is not None or target.tls else " Is it https:// there?"
    return Failure(GONE, "no Perfect server answers at %s: %s%s" % (target.url, wrong, hint))


def _reach(target: Target, deadline: Deadline) -> socket.socket:
    """TCP to the server, or through the proxy's CONNECT (RFC 9110 §9.3.6)."""
    proxy = proxy_for(target)
    if proxy is None:
        return _tune(_connect(target.host, target.port, deadline))
    try:
        sock = _connect(proxy.host, proxy.port, deadline)
    except OSError as wrong:
        where = _authority(proxy.host, proxy.port)
        raise Failure(GONE, "the proxy at %s does not answer (%s)" % (where, cause(wrong))) from None
    try:
        _tunnel(sock, target, proxy, deadline)
    except BaseException:
        sock.close()
        raise
    return _tune(sock)


def _connect(host: str, port: int, deadline: Deadline) -> socket.socket:
    """Each address of the name in turn, each with its share of the time that is left."""
    addresses = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    refused: OSError = OSError("no address")
    for tried, (family, kind, number, _, address) in enumerate(addresses):
        sock = socket.socket(family, kind, number)
        try:
            sock.settimeout(deadline.left() / (len(addresses) - tried))
            sock.connect(address)
            return sock
        except OSError as wrong:
            sock.close()
            refused = wrong
    raise refused


def _tunnel(sock: socket.socket, target: Target, proxy: Proxy, deadline: Deadline) -> None:
    lines = ["CONNECT %s HTTP/1.1" % target.authority, "Host: " + target.authority]
    if proxy.authorisation:
        lines.append("Proxy-Authorization: " + proxy.authorisation)
    deadline.arm(sock)
    sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
    answer = b""
    while b"\r\n\r\n" not in answer and len(answer) < _MAX_ANSWER:
        deadline.arm(sock)
        data = sock.recv(1)  # not a byte more: what follows belongs to the tunnel
        if not data:
            break
        answer += data
    words = answer.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].startswith("2"):
        code, sentence = _REFUSALS[407] if words[1:2] == ["407"] else (GONE, "")
        heard = " ".join(words)[:100] or "nothing"
        raise Failure(
            code,
            sentence
            or "the proxy at %s does not let us through to %s (it said: %s)"
            % (_authority(proxy.host, proxy.port), target.authority, heard),
        )


def _tune(sock: socket.socket) -> socket.socket:
    """Small messages leave at once; a peer that vanished is noticed by the kernel too, where it can."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TCP_OPTIONS:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return sock


def _secure(sock: socket.socket, target: Target, deadline: Deadline) -> ssl.SSLSocket:
    """TLS with the certificate and its name checked, always. Without ``ca_file`` the default context also honours
    SSL_CERT_FILE and SSL_CERT_DIR."""
    try:
        context = ssl.create_default_context(cafile=target.ca_file)
    except OSError as wrong:
        sock.close()
        sentence = "the file of trusted certificates %s cannot be read (%s)" % (target.ca_file, cause(wrong))
        raise Failure(GONE, sentence) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    deadline.arm(sock)
    return context.wrap_socket(sock, server_hostname=target.host)


def _shake_hands(sock: Socket, target: Target, deadline: Deadline) -> bytes:
    shake = Handshake(target.key)
    deadline.arm(sock)
    sock.sendall(target.request)
    while True:
        try:
            deadline.arm(sock)
            data = sock.recv(_MAX_ANSWER)
        except OSError:
            ended = shake.eof()
            if ended.status is None:
                raise
            raise ended from None  # a refusal whose page did not come is a refusal still
        if not data:
            raise shake.eof()
        rest = shake.feed(data)
        if rest is not None:
            return rest
