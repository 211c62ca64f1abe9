"""What all tests share: people in their roles, tokens, and no memory of the test before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.utils import timezone
from perfect_client.schema import secrets

from perfect_site.api.auth import tokens
from runs.access import Token

UserMaker = Callable[..., Any]
TokenMaker = Callable[..., str]


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """No memory of tokens, and of what became a secret of this process, from the test before."""
    yield
    tokens.clear()
    secrets.of_this_process.__init__()  # type: ignore[misc]  # in place: many modules have it by name


@pytest.fixture
def make_user(db: None) -> UserMaker:
    """``make_user("viewer")``: a person in the group of that name, with the password ``secret-enough``."""

    def make(role: str = "", name: str = "", **values: Any) -> User:
        user = User.objects.create_user(name or role or "nobody", password="secret-enough", **values)
        if role:
            user.groups.add(Group.objects.get(name=role))
        return user

    return make


@pytest.fixture
def viewer(make_user: UserMaker) -> Any:
    return make_user("viewer")


@pytest.fixture
def operator(make_user: UserMaker) -> Any:
    return make_user("operator")


@pytest.fixture
def administrator(make_user: UserMaker) -> Any:
    return make_user("admin")


@pytest.fixture
def make_token(db: None) -> TokenMaker:
    """``make_token("read")``: the secret of a token of that scope."""

    def make(scope: str = "admin", name: str = "", *, now: datetime | None = None, days: float | None = None) -> str:
        return Token.objects.issue(name=name or scope, scope=scope, now=now or timezone.now(), days=days)[1]

    return make
