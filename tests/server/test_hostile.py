"""Clients that mean harm, against a real server process: memory, files and the door stay within their budgets."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests import hostile
from tests.hostile import Site, frame, measure, serving, until

GROWTH = 45.0  # MB above what the server needs anyway: what all sockets may hold, and a little
REST = 20.0  # MB that may be left of it
PLACES = 300
SCARCE = (
    f"from perfect_site.server import connection_slots as seats; seats.MAX_CONNECTIONS, seats.RESERVE = {PLACES}, 50"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving(tmp_path_factory.mktemp("hostile"), SCARCE) as site:
        yield site


@pytest.fixture(scope="module", autouse=True)
def dribbling(site: Site) -> list[int]:
    """Clients whose second request never ends, from the first test on; the result is how many were not cut."""
    left: list[int] = []
    threading.Thread(target=lambda: left.append(hostile.dribblers(site, 40)), daemon=True).start()
    return left


@pytest.mark.parametrize(
    ("client", "growth"),
    [
        (hostile.page_flood, 12),
        (hostile.tiny_flood, 12),
        (hostile.worker_flood, 12),
        (hostile.worker_echoes, 12),
        (hostile.halves, GROWTH),
        (hostile.deaf_pages, 15),
        (hostile.deaf_readers, 20),
        (hostile.deaf_downloads, 25),
    ],
)
def test_what_a_client_sends_or_does_not_read_costs_a_fixed_amount(
    site: Site, client: hostile.Client, growth: float
) -> None:
    cost = measure(site, client, 2.0, rest=20, enough=REST * 0.9)

    assert cost.peak - cost.before < growth, cost
    assert cost.after - cost.before < REST, cost
    assert cost.unanswered == 0


def test_bodies_that_never_end_fill_neither_memory_nor_disk(site: Site) -> None:
    cost = measure(site, hostile.uploads, 1.0)

    assert cost.peak - cost.before < GROWTH and cost.spooled <= 24.1, cost
    assert cost.unanswered == 0


def test_who_comes_when_large_bodies_fill_the_budget_is_told_to_come_again(site: Site) -> None:
    size = (4 << 20) - 1
    head = f"POST /login/ HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\nContent-Length: {size}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(site.connect()) for _ in range(7)]
        answers = []
        for raw in slow:
            with contextlib.suppress(OSError):
                raw.sendall(head + b"x" * (size - 1))
            raw.settimeout(0.5)
            with contextlib.suppress(OSError):
                answers.append(raw.recv(4096))
        assert site.ask("POST", "/login/", b"small", Content_Type="text/plain")[0] == 403  # small ones have room
    assert any(answer.startswith(b"HTTP/1.1 503") and b"Retry-After: 5" in answer for answer in answers)
    until(lambda: site.spooled() == 0, 20, "end of the spooled bodies")


def test_an_honest_socket_goes_on_beside_a_flood(site: Site) -> None:
    with site.worker("honest") as raw:
        raw.settimeout(20)
        measure(site, hostile.page_flood, 1.0, rest=0)
        raw.sendall(frame(b'{"type":"Beaten"}'))
        heard = b""
        while b"Echo" not in heard:
            heard += raw.recv(65536)


def test_a_socket_that_is_closed_gives_its_place_back(site: Site) -> None:
    """More than there are places, one after another: each page that is looked at opens one."""
    for _ in range(PLACES + 20):
        _upgrade_and_leave(site)
    assert site.ask("GET", "/healthz")[0] == 200


def test_nobody_can_hold_the_door_shut(site: Site) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(PLACES + 100):  # each with half a request
            stack.enter_context(site.connect()).sendall(b"GET / HTTP/1.1\r\nA: b\r\n")
        assert site.ask("GET", "/healthz")[0] == 200
        stack.enter_context(site.worker("late"))


def test_pages_leave_places_for_workers(site: Site) -> None:
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(AssertionError):  # refused with 503
            for _ in range(PLACES):
                stack.enter_context(site.page())
        with pytest.raises(AssertionError, match="503 Service Unavailable"):
            site.page()
        stack.enter_context(site.worker("late"))
    until(lambda: site.ask("GET", "/login/")[0] == 200, 20, "place for pages again")


def _upgrade_and_leave(site: Site) -> None:
    with site.connect() as raw:
        raw.sendall(
            f"GET /ws/nowhere/ HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert raw.recv(12) == b"HTTP/1.1 101"


def test_a_message_longer_than_a_page_ever_sends_ends_the_connection(site: Site) -> None:
    with site.page() as raw:
        raw.settimeout(20)
        with contextlib.suppress(ConnectionError):
            raw.sendall(frame(b"x" * 100_000))
            while raw.recv(65536):
                pass


def test_headers_that_dribble_are_cut_in_every_request_of_a_connection(site: Site, dribbling: list[int]) -> None:
    until(lambda: dribbling, 60, "end of the dribblers")
    assert dribbling == [0]


def test_a_socket_opened_before_the_answer_is_heard_costs_little(site: Site) -> None:
    """A client that sends on before its socket is accepted is cut, not kept."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=20) as raw, contextlib.suppress(OSError):
        raw.sendall(
            f"GET /ws/live/ HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
            + frame(b"{}") * 20_000
        )
        raw.recv(4096)
    assert site.ask("GET", "/healthz")[0] == 200
