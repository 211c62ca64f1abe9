"""Signing in, links, limits on guessing, headers, tokens."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.utils import timezone

from perfect_site import accounts
from perfect_site.api import auth
from runs.access import SignInAttempts, SignInAttemptsQuerySet, SignInLink, Token
from runs.db import threads


@pytest.fixture
def link(db: None) -> str:
    return accounts.sign_in_url(accounts.first_admin(), "", timezone.now())


def secret_of(link: str) -> str:
    return link.partition("?t=")[2]


def test_the_first_account_is_an_admin_without_a_password(db: None) -> None:
    user = accounts.first_admin()
    assert (user.username, user.is_superuser, user.has_usable_password()) == ("admin", True, False)
    assert accounts.first_admin() == user
    assert not accounts.has_password_account()


def test_no_account_is_made_where_there_are_people(make_user: Any) -> None:
    make_user("viewer")
    assert accounts.first_admin() is None


def test_looking_at_a_link_does_not_use_it_up(client: Client, link: str) -> None:
    response = client.get(link)
    assert response.status_code == 200
    assert response.headers["Referrer-Policy"] == "same-origin"
    assert SignInLink.objects.get().used_at is None


def test_a_link_signs_in_once(client: Client, link: str) -> None:
    first = client.post("/welcome/", {"t": secret_of(link)})
    second = Client().post("/welcome/", {"t": secret_of(link)})

    assert (first.status_code, first.headers["Location"]) == (302, "/")
    assert client.get("/").status_code == 200
    assert second.status_code == 403
    assert b"loginurl" in second.content


def test_a_link_ends_after_its_time(client: Client, link: str) -> None:
    with time_machine.travel(timezone.now() + timedelta(minutes=15, seconds=1)):
        assert client.post("/welcome/", {"t": secret_of(link)}).status_code == 403


def test_a_newer_link_ends_the_older(client: Client, link: str) -> None:
    accounts.sign_in_url(accounts.first_admin(), "", timezone.now())
    assert client.post("/welcome/", {"t": secret_of(link)}).status_code == 403


def test_a_link_of_a_deactivated_account_does_nothing(client: Client, link: str) -> None:
    User.objects.update(is_active=False)
    assert client.post("/welcome/", {"t": secret_of(link)}).status_code == 403


def test_only_a_digest_of_a_link_is_stored(link: str) -> None:
    assert secret_of(link) not in str(SignInLink.objects.values())


def sign_in(client: Client, name: str, password: str, **more: Any) -> Any:
    return client.post("/login/", {"username": name, "password": password}, **more)


def test_a_password_signs_in(client: Client, viewer: User) -> None:
    response = sign_in(client, "viewer", "secret-enough")
    assert (response.status_code, response.headers["Location"]) == (302, "/")


def test_a_redirect_after_signing_in_stays_here(client: Client, viewer: User) -> None:
    data = {"username": "viewer", "password": "secret-enough", "next": "https://evil.example.org/"}
    assert client.post("/login/", data).headers["Location"] == "/"


def elsewhere(number: int = 1) -> dict[str, Any]:
    return {"REMOTE_ADDR": f"203.0.113.{number}"}


def guess(count: int, name: str = "viewer", **more: Any) -> None:
    for _ in range(count):
        assert sign_in(Client(), name, "wrong", **more).status_code == 200


def test_who_guesses_waits_longer_each_time(viewer: User) -> None:
    guess(5, **elsewhere())
    at, waits = timezone.now(), []
    for _ in range(8):
        with time_machine.travel(at, tick=False):
            refused = sign_in(Client(), "viewer", "wrong", **elsewhere())
        assert refused.status_code == 429
        waits.append(int(refused.headers["Retry-After"]))
        at += timedelta(seconds=waits[-1] + 1)
        with time_machine.travel(at, tick=False):
            guess(1, **elsewhere())

    assert waits[0] <= 15 and waits[1:] == [30, 60, 120, 240, 480, 900, 900]


def test_even_the_right_password_waits_where_somebody_guessed(client: Client, viewer: User) -> None:
    guess(5, **elsewhere())
    assert sign_in(client, "viewer", "secret-enough", **elsewhere()).status_code == 429
    with time_machine.travel(timezone.now() + timedelta(seconds=61)):
        assert sign_in(client, "viewer", "secret-enough", **elsewhere()).status_code == 302


def test_nobody_else_waits_for_who_guesses(viewer: User, operator: User) -> None:
    guess(5, **elsewhere())
    guess(5, "viewer", **elsewhere(2))

    assert sign_in(Client(), "viewer", "secret-enough", **elsewhere(3)).status_code == 302  # another client
    assert sign_in(Client(), "operator", "secret-enough", **elsewhere()).status_code == 302  # another account


def test_a_browser_that_was_signed_in_passes_where_somebody_guesses(client: Client, viewer: User) -> None:
    sign_in(client, "viewer", "secret-enough", **elsewhere())
    cookie = client.cookies[accounts.DEVICE_COOKIE]
    client.post("/logout/")
    guess(5, **elsewhere())

    assert cookie["httponly"] and cookie["samesite"] == "Lax" and cookie["path"] == "/login/"
    assert "viewer" not in cookie.value
    assert sign_in(client, "viewer", "secret-enough", **elsewhere()).status_code == 302


def test_a_link_makes_the_browser_known_too(client: Client, link: str, viewer: User) -> None:
    client.post("/welcome/", {"t": secret_of(link)})
    assert accounts.DEVICE_COOKIE in client.cookies


def test_a_known_browser_guesses_no_better(client: Client, viewer: User, operator: User) -> None:
    sign_in(client, "viewer", "secret-enough")
    client.post("/logout/")
    for n in range(5):
        assert sign_in(client, "viewer", "wrong", **elsewhere(n)).status_code == 200
    assert sign_in(client, "viewer", "secret-enough", **elsewhere(9)).status_code == 429
    guess(5, "operator", **elsewhere())
    assert sign_in(client, "operator", "secret-enough", **elsewhere()).status_code == 429  # known for another account


@pytest.mark.parametrize("value", ["", "x", "x:y:z", "WyJ2aWV3ZXIiLCJ4Il0:1:2"])
def test_a_cookie_that_was_not_given_makes_nobody_known(client: Client, viewer: User, value: str) -> None:
    guess(5, **elsewhere())
    client.cookies[accounts.DEVICE_COOKIE] = value
    assert sign_in(client, "viewer", "secret-enough", **elsewhere()).status_code == 429


def test_one_address_that_tries_all_accounts_waits_and_this_machine_does_not(db: None, viewer: User) -> None:
    for n in range(100):
        assert sign_in(Client(), f"somebody-{n}", "wrong", **elsewhere()).status_code == 200
        assert sign_in(Client(), f"somebody-{n}", "wrong").status_code == 200  # a proxy that was not set as trusted
    refused = sign_in(Client(), "viewer", "secret-enough", **elsewhere())

    assert refused.status_code == 429 and int(refused.headers["Retry-After"]) <= 15
    assert sign_in(Client(), "viewer", "secret-enough").status_code == 302


def test_a_right_password_takes_back_its_own_attempt_alone(viewer: User) -> None:
    guess(3, "somebody", **elsewhere())
    sign_in(Client(), "viewer", "secret-enough", **elsewhere())
    assert sorted(SignInAttempts.objects.values_list("count", flat=True)) == [3, 3]


def test_a_client_cannot_choose_its_address(client: Client, viewer: User) -> None:
    for n in range(5):
        sign_in(client, "viewer", "wrong", headers={"X-Forwarded-For": f"10.0.0.{n}"})
    assert sign_in(client, "viewer", "secret-enough", headers={"X-Forwarded-For": "10.9.9.9"}).status_code == 429


def test_a_trusted_proxy_says_whom_it_speaks_for(viewer: User, settings: Any) -> None:
    settings.PERFECT_TRUSTED_PROXIES = (ipaddress.ip_network("127.0.0.1"),)
    guess(5, headers={"X-Forwarded-For": "1.2.3.4, 203.0.113.1"})

    refused = sign_in(Client(), "viewer", "secret-enough", headers={"X-Forwarded-For": "4.3.2.1, 203.0.113.1"})
    welcome = sign_in(Client(), "viewer", "secret-enough", headers={"X-Forwarded-For": "203.0.113.2"})

    assert (refused.status_code, welcome.status_code) == (429, 302)


@pytest.mark.parametrize("address", ["::1", "127.0.0.1", "203.0.113.9"])
def test_only_one_client_is_kept_from_trying_all_accounts(
    viewer: User, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a proxy on this machine that does not say for whom it speaks, it would keep out everybody."""
    monkeypatch.setattr(accounts, "TRYING_ALL", replace(accounts.TRYING_ALL, free=5))
    for n in range(5):
        sign_in(Client(), f"somebody-{n}", "wrong", REMOTE_ADDR=address)

    status = sign_in(Client(), "viewer", "secret-enough", REMOTE_ADDR=address).status_code

    assert status == (429 if address == "203.0.113.9" else 302)


def test_guesses_from_everywhere_do_not_fill_the_table(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SignInAttemptsQuerySet, "MAX_ROWS", 20)
    for n in range(60):
        sign_in(Client(), f"somebody-{n}", "wrong", REMOTE_ADDR=f"2001:db8:{n}::1")
        assert SignInAttempts.objects.count() <= 22
    with time_machine.travel(timezone.now() + timedelta(hours=2)):
        sign_in(Client(), "late", "wrong", **elsewhere())
    assert SignInAttempts.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_attempts_at_the_same_moment_are_all_counted() -> None:
    """As several processes make them: each thread has a connection of its own."""
    barrier = threading.Barrier(8)

    def attempt() -> float:
        barrier.wait(timeout=30)
        try:
            return SignInAttempts.objects.begin({"somebody": accounts.GUESSING}, timezone.now())
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        waits = [each.result() for each in [pool.submit(attempt) for _ in range(8)]]

    assert waits.count(0.0) == 5
    assert SignInAttempts.objects.get().count == 5


def test_a_clock_that_is_set_back_locks_nobody_out(viewer: User) -> None:
    guess(5, **elsewhere())
    with time_machine.travel(timezone.now() - timedelta(days=30)):
        assert int(sign_in(Client(), "viewer", "wrong", **elsewhere()).headers["Retry-After"]) <= 15


def test_names_and_addresses_are_not_stored(viewer: User) -> None:
    guess(1, "viewer", **elsewhere())
    assert not any("viewer" in key or key[:3] == "203" for key in SignInAttempts.objects.values_list("key", flat=True))


def test_an_unknown_name_and_a_wrong_password_read_alike(client: Client, viewer: User) -> None:
    known, unknown = sign_in(client, "viewer", "wrong"), sign_in(client, "nobody", "wrong")
    assert known.content.count(b"viewer") == unknown.content.count(b"nobody")
    assert known.status_code == unknown.status_code == 200


def test_signing_out_is_a_post(client: Client, viewer: User) -> None:
    client.force_login(viewer)
    assert client.get("/logout/").status_code == 405
    client.post("/logout/")
    assert client.get("/").status_code == 302


def test_the_console_has_no_door_of_its_own(client: Client, db: None) -> None:
    response = client.post("/admin/login/", {"username": "x", "password": "y"})
    assert response.headers["Location"] == "/login/?next=/admin/"


def test_somebody_without_a_role_sees_nothing(client: Client, make_user: Any) -> None:
    client.force_login(make_user())
    assert client.get("/runs/").status_code == 403
    assert client.get("/api/runs").status_code == 403
    assert client.get("/admin/", follow=True).status_code == 403


def test_each_page_carries_the_headers(client: Client, viewer: User) -> None:
    client.force_login(viewer)
    for path in ("/", "/login/", "/api/runs", "/nothing", "/admin/"):
        headers = client.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "same-origin"


def test_cookies_have_their_own_names_and_are_not_for_scripts(client: Client, link: str) -> None:
    client.post("/welcome/", {"t": secret_of(link)})
    client.get("/login/?x")
    cookie = client.cookies["perfect_session"]
    assert cookie["httponly"] and cookie["samesite"] == "Lax"


def test_a_foreign_host_name_is_refused(client: Client, viewer: User) -> None:
    client.force_login(viewer)
    assert client.get("/", headers={"Host": "evil.example.org"}).status_code == 400


def test_metrics_are_for_this_machine_or_a_token(client: Client, make_token: Callable[..., str]) -> None:
    elsewhere: dict[str, Any] = {"REMOTE_ADDR": "10.0.0.1"}
    assert b"perfect_info" in client.get("/metrics").content
    assert client.get("/metrics", **elsewhere).status_code == 401
    assert client.get("/metrics", headers={"X-Forwarded-For": "10.0.0.1"}).status_code == 401
    for scope, status in (("read", 200), ("admin", 200), ("worker", 401)):
        headers = {"Authorization": f"Bearer {make_token(scope)}"}
        assert client.get("/metrics", headers=headers, **elsewhere).status_code == status


@pytest.mark.parametrize("name", ["Via", "X-Real-IP", "Forwarded", "X-Forwarded-Proto", "X-Forwarded-Host"])
def test_metrics_are_not_for_whom_a_proxy_passes_on(client: Client, db: None, name: str) -> None:
    assert client.get("/metrics", headers={name: "x"}).status_code == 401


def test_metrics_ask_everybody_for_a_token_where_people_come_through_a_proxy(
    client: Client, db: None, settings: Any
) -> None:
    settings.PERFECT_URL = "http://127.0.0.1:8700"
    assert client.get("/metrics").status_code == 200
    settings.PERFECT_URL = "http://perfect.example.org"
    assert client.get("/metrics").status_code == 401
    settings.PERFECT_URL, settings.PERFECT_TRUSTED_PROXIES = "", (ipaddress.ip_network("10.0.0.0/8"),)
    assert client.get("/metrics").status_code == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_health_is_only_looked_at(client: Client, path: str, method: str) -> None:
    response = client.generic(method, path)
    assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD")


def test_metrics_count_the_runs(client: Client, run: Any) -> None:
    text = client.get("/metrics").content.decode()
    assert 'perfect_runs{state="PENDING"} 1.0' in text
    assert 'perfect_worker_slots{use="free",worker="w1"} 2.0' in text


def test_ready_means_migrated(client: Client, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/readyz").status_code == 200
    monkeypatch.setattr("perfect_site.server.health.pending_migrations", lambda: 2)
    response = client.get("/readyz")
    assert (response.status_code, response.content) == (503, b"2 migrations are not applied\n")


def test_alive_asks_no_database(client: Client) -> None:
    assert client.get("/healthz").content == b"ok\n"  # without the db fixture a query would fail


def ask(client: Client, secret: str, path: str = "/api/runs") -> Any:
    return client.get(path, headers={"Authorization": f"Bearer {secret}"})


def test_a_token_is_revoked_within_five_seconds(
    client: Client, make_token: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(auth.time, "monotonic", lambda: clock[0])
    secret = make_token("read")
    assert ask(client, secret).status_code == 200

    Token.objects.update(revoked_at=timezone.now())
    clock[0] += 5.1

    assert ask(client, secret).status_code == 401


def test_a_token_ends_at_its_time_even_while_it_is_remembered(client: Client, make_token: Callable[..., str]) -> None:
    secret = make_token("read", days=1)
    assert ask(client, secret).status_code == 200
    with time_machine.travel(timezone.now() + timedelta(days=1, seconds=1)):
        assert ask(client, secret).status_code == 401


def test_a_token_of_a_deactivated_person_is_refused(client: Client, viewer: User) -> None:
    secret = Token.objects.issue(name="x", scope="read", now=timezone.now(), user=viewer)[1]
    User.objects.update(is_active=False)
    assert ask(client, secret).status_code == 401


@pytest.mark.django_db(transaction=True)
def test_the_last_use_of_a_token_is_noted_once_a_minute(client: Client, make_token: Callable[..., str]) -> None:
    secret = make_token("read")

    def used() -> Any:
        threads.start()
        assert ask(client, secret).status_code == 200
        threads.stop()  # what nobody waits for is written now
        return Token.objects.get().last_used_at

    first = used()
    assert first is not None and used() == first
    with time_machine.travel(timezone.now() + timedelta(seconds=61)):
        assert used() > first


def test_a_token_in_the_address_is_no_token(client: Client, make_token: Callable[..., str]) -> None:
    response = client.get(f"/api/runs?token={make_token('read')}")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic eDp5", "Bearer \x00", "bearer pft_" + "x" * 5000])
def test_a_strange_authorization_is_refused(client: Client, db: None, value: str) -> None:
    assert client.get("/api/runs", headers={"Authorization": value}).status_code == 401


def test_guessed_tokens_do_not_fill_the_memory(client: Client, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "REMEMBER_COUNT", 5)
    for n in range(12):
        ask(client, f"pft_{n}")
    assert len(auth.tokens._known) <= 5
