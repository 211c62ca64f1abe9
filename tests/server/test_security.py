"""Signing in, links, limits on guessing, headers, tokens."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from perfect_site import accounts
from runs import gate
from runs.access import SignInLink, Token


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


def test_five_failures_from_an_address_close_the_door_for_a_minute(client: Client, viewer: User) -> None:
    for n in range(5):
        assert sign_in(client, f"somebody-{n}", "wrong").status_code == 200
    response = sign_in(client, "viewer", "secret-enough")

    assert response.status_code == 429
    assert response.headers["Retry-After"] == "60"
    assert sign_in(client, "viewer", "secret-enough", REMOTE_ADDR="10.0.0.9").status_code == 302
    with time_machine.travel(timezone.now() + timedelta(seconds=61)):
        assert sign_in(Client(), "viewer", "secret-enough").status_code == 302


def test_ten_failures_for_an_account_close_it_for_an_hour(client: Client, viewer: User) -> None:
    for n in range(10):
        sign_in(client, "Viewer", "wrong", REMOTE_ADDR=f"10.0.0.{n}")
    assert sign_in(client, "viewer", "secret-enough", REMOTE_ADDR="10.0.1.1").status_code == 429


def test_a_client_cannot_choose_its_address(client: Client, viewer: User) -> None:
    for n in range(5):
        sign_in(client, "x", "wrong", headers={"X-Forwarded-For": f"10.0.0.{n}"})
    assert sign_in(client, "viewer", "secret-enough", headers={"X-Forwarded-For": "10.9.9.9"}).status_code == 429


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


def test_metrics_count_the_runs(client: Client, run: Any) -> None:
    text = client.get("/metrics").content.decode()
    assert 'perfect_runs{state="PENDING"} 1.0' in text
    assert 'perfect_worker_slots{use="free",worker="w1"} 2.0' in text


def test_ready_means_migrated(client: Client, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/readyz").status_code == 200
    monkeypatch.setattr("perfect_site.health.pending_migrations", lambda: 2)
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
    monkeypatch.setattr(gate.time, "monotonic", lambda: clock[0])
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


def test_the_last_use_of_a_token_is_noted_once_a_minute(client: Client, make_token: Callable[..., str]) -> None:
    secret = make_token("read")
    ask(client, secret)
    first = Token.objects.get().last_used_at
    ask(client, secret)
    assert first is not None and Token.objects.get().last_used_at == first

    with time_machine.travel(timezone.now() + timedelta(seconds=61)):
        ask(client, secret)
        assert Token.objects.get().last_used_at > first


def test_a_token_in_the_address_is_no_token(client: Client, make_token: Callable[..., str]) -> None:
    response = client.get(f"/api/runs?token={make_token('read')}")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic eDp5", "Bearer \x00", "bearer pft_" + "x" * 5000])
def test_a_strange_authorization_is_refused(client: Client, db: None, value: str) -> None:
    assert client.get("/api/runs", headers={"Authorization": value}).status_code == 401


def test_guessed_tokens_do_not_fill_the_memory(client: Client, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "REMEMBER_COUNT", 5)
    for n in range(12):
        ask(client, f"pft_{n}")
    assert len(gate.tokens._known) <= 5
