"""Who gets a place when connections are scarce; whom a request is from."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfect_site import addresses
from perfect_site.server import connection_slots
from perfect_site.server.connection_slots import Phase, Seats

PROXY = (ipaddress.ip_network("10.0.0.0/8"),)


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_slots, "MAX_CONNECTIONS", 10)
    monkeypatch.setattr(connection_slots, "RESERVE", 2)
    monkeypatch.setattr(connection_slots, "PER_ADDRESS", 4)


def fill(places: Seats, count: int, cut: list[int], address: str = "") -> list[connection_slots.Seat]:
    found = [places.take(address or f"10.0.0.{n}", lambda n=n: cut.append(n), float(n)) for n in range(count)]
    return [seat for seat in found if seat is not None]


def test_who_waits_longest_for_a_request_makes_room_for_who_is_new() -> None:
    places, cut = Seats(), list[int]()
    first, second, *_ = fill(places, 10, cut)
    places.move(first, Phase.IDLE, 20.0)  # of use just now, so it comes after the others

    assert places.take("10.0.1.1", lambda: None, 21.0) is not None

    assert cut == [1] and second not in list(places) and len(places) == 10


def test_pages_and_answers_leave_places_for_workers() -> None:
    places, cut = Seats(), list[int]()
    held = [
        places.admit(seat, Phase.PAGE if n % 2 else Phase.ANSWER, 1.0) for n, seat in enumerate(fill(places, 10, cut))
    ]
    worker = places.take("10.0.1.1", lambda: None, 2.0)

    assert held == [True] * 8 + [False] * 2
    assert worker is not None and places.admit(worker, Phase.WORKER, 2.0, reserved=True)
    assert cut == [8]


def test_nobody_is_cut_in_the_middle_of_something() -> None:
    places, cut = Seats(), list[int]()
    for seat in fill(places, 10, cut):
        places.admit(seat, Phase.WORKER, 1.0, reserved=True)

    assert places.take("10.0.1.1", lambda: None, 2.0) is None and cut == []


def test_an_address_has_its_share_and_what_it_holds_back_it_takes_from_itself() -> None:
    places, cut = Seats(), list[int]()
    others = fill(places, 3, cut)
    mine = fill(places, 5, cut, address="192.0.2.1")

    assert cut == [0] and mine[0] not in list(places) and all(seat in list(places) for seat in others)
    for seat in mine[1:]:
        places.admit(seat, Phase.PAGE, 6.0)
    assert places.take("192.0.2.1", lambda: None, 7.0) is None


def test_a_proxy_may_have_more_and_its_sockets_count_for_whom_it_speaks() -> None:
    places, cut = Seats(lambda address: address == "proxy"), list[int]()
    mine = fill(places, 6, cut, address="proxy")

    assert cut == []
    assert [places.belongs(seat, "192.0.2.1") for seat in mine] == [True] * 4 + [False] * 2
    places.leave(mine[0])
    assert places.belongs(mine[4], "192.0.2.1")


@pytest.mark.parametrize(("phase", "overdue"), [(Phase.HEADERS, 10), (Phase.BODY, 60), (Phase.IDLE, 75)])
def test_each_thing_has_its_time(phase: Phase, overdue: float) -> None:
    places = Seats()
    (seat,) = fill(places, 1, [])
    places.move(seat, phase, 5.0)

    assert places.overdue(5.0 + overdue) == []
    assert places.overdue(5.1 + overdue) == [seat]


@pytest.mark.parametrize("phase", [Phase.ANSWER, Phase.PAGE, Phase.WORKER])
def test_work_and_sockets_have_no_end_here(phase: Phase) -> None:
    places = Seats()
    (seat,) = fill(places, 1, [])
    places.move(seat, phase, 5.0)

    assert places.overdue(1e9) == []


ACTIONS = st.tuples(st.sampled_from(["take", "leave", *Phase]), st.integers(0, 20), st.sampled_from("abc"))


@given(st.lists(ACTIONS, max_size=80))
def test_counts_stay_right_whatever_happens(actions: list[tuple[str | Phase, int, str]]) -> None:
    places, taken = Seats(), list[connection_slots.Seat]()
    for action, number, address in actions:
        if action == "take":
            seat = places.take(address, lambda: None, 0.0)
            taken += [seat] if seat is not None else []
        elif taken:
            seat = taken[number % len(taken)]
            places.leave(seat) if action == "leave" else places.move(seat, Phase(action), 0.0)

    here = list(places)
    assert len(places) <= 10
    assert places._held == sum(seat.phase.is_held for seat in here)
    assert dict(places._of) == {a: n for a in "abc" if (n := sum(seat.address == a for seat in here))}
    assert all(count <= 4 for count in places._of.values())


# ----------------------------------------------------------------------------------------------------- whom it is from


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "203.0.113.7, 10.1.1.1", "203.0.113.7"),
        ("10.0.0.1", "1.1.1.1, 203.0.113.7, 10.1.1.1", "203.0.113.7"),  # the first one the client wrote itself
        ("192.0.2.1", "203.0.113.7", "192.0.2.1"),  # not a proxy that is trusted
        ("127.0.0.1", "203.0.113.7", "127.0.0.1"),
        ("10.0.0.1", "nonsense, 10.1.1.1", "10.1.1.1"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "203.0.113.7", "203.0.113.7"),
    ],
)
def test_only_trusted_proxies_are_believed(peer: str, forwarded: str, client: str) -> None:
    assert addresses.client_of(peer, forwarded, PROXY) == client


@given(st.text(max_size=60))
def test_what_a_client_writes_changes_nothing_about_it(written: str) -> None:
    assert addresses.client_of("10.0.0.1", f"{written},203.0.113.7", PROXY) == "203.0.113.7"


def test_a_connection_of_ipv6_is_a_network() -> None:
    one, other = addresses.shared_by("2001:db8:1:2::9", PROXY), addresses.shared_by("2001:db8:1:2:ffff::1", PROXY)
    assert one == other == "2001:db8:1:2::/64"
    assert addresses.shared_by("192.0.2.1", PROXY) == "192.0.2.1"


@pytest.mark.parametrize("address", ["::1", "127.0.0.1", "::ffff:127.0.0.1", "fd00::5", "10.0.0.9"])
def test_who_speaks_for_many_is_known_after_it_was_counted_as_one(address: str) -> None:
    proxies = (*PROXY, ipaddress.ip_network("fd00::5"))
    assert addresses.speaks_for_many(addresses.shared_by(address, proxies), proxies)
    assert not addresses.speaks_for_many(addresses.shared_by("fd00::6", proxies), proxies)


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("127.evil.example", False),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
    ],
)
def test_what_means_this_machine_alone(host: str, is_own: bool) -> None:
    assert addresses.is_loopback(host) is is_own
