"""Signing in and out: one-use links, passwords, and a limit on guessing them."""

from __future__ import annotations

import math
import secrets
import unicodedata
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model, login
from django.contrib.auth import views as auth_views
from django.contrib.auth.decorators import login_not_required
from django.core import signing
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from perfect_site import addresses
from runs.access import Patience, SignInAttempts, SignInLink

# For one account from one client, or from a browser that it was signed in with before. Nobody else waits for it.
GUESSING = Patience(free=5, longest=900)
# For all accounts from one client, which may be a whole office behind one address.
TRYING_ALL = Patience(free=100, longest=60)
DEVICE_COOKIE, DEVICE_SALT = "perfect_device", "perfect.device"
DEVICE_LASTS = 365 * 24 * 3600  # seconds
TOO_MANY = "Too many failed attempts. Wait {seconds} seconds, or ask an administrator for a sign-in link."
SPENT = "This link was used already, has expired, or was replaced by a newer one. Ask for another: manage.py loginurl"


def first_admin() -> Any:
    """The account that links sign in to: the oldest active superuser, made now if there is no user at all."""
    users = get_user_model()._default_manager
    found = users.filter(is_superuser=True, is_active=True).order_by("pk").first()
    if found is None and not users.exists():
        found = get_user_model().objects.create_superuser("admin", password=None)  # type: ignore[attr-defined]
    return found


def has_password_account() -> bool:
    """Whether anybody can sign in with a password: the condition for being reachable from other machines."""
    people = get_user_model()._default_manager.filter(is_active=True)
    return people.exclude(password="").exclude(password__startswith="!").exists()


def sign_in_url(user: Any, base: str, now: datetime) -> str:
    """A one-use link for ``user``; ``base`` is the server's address without a slash at the end."""
    with transaction.atomic():
        secret = SignInLink.objects.issue(user=user, now=now)
    return f"{base}{reverse('welcome')}?t={secret}"


@login_not_required
@never_cache
@sensitive_post_parameters("t")
@require_http_methods(["GET", "HEAD", "POST"])
def welcome(request: HttpRequest) -> HttpResponseBase:
    """A page with one button, whose POST signs in: what fetches links ahead of a person cannot use them up."""
    response: HttpResponse
    if request.method != "POST":
        response = render(request, "welcome.html", {"token": request.GET.get("t", "")[:200]})
    else:
        with transaction.atomic():
            link = SignInLink.objects.redeem(request.POST.get("t", "")[:200], timezone.now())
            if link is not None and link.user.is_active:
                login(request, link.user, backend="django.contrib.auth.backends.ModelBackend")
                response = HttpResponseRedirect("/")
                remember_device(response, link.user)
                return response
        response = render(request, "welcome.html", {"token": "", "error": SPENT}, status=403)
    # Not "no-referrer": under it a browser posts the form with "Origin: null", which the CSRF check must refuse.
    response.headers["Referrer-Policy"] = "same-origin"
    return response


class Attempt:
    """One attempt to sign in with a password, counted for who makes it, not for whose account it is.

    A browser that the account was signed in with before is counted by itself: who guesses elsewhere, even behind the
    same address, does not lock it out.
    """

    def __init__(self, request: HttpRequest) -> None:
        account = account_of(request.POST.get("username", ""))
        client = client_of(request)
        device = _device_of(request, account)
        self._shared = None
        if device:
            self._mine = _key("device", account, device)
        else:
            self._mine = _key("client", account, client)
            many = addresses.speaks_for_many(client, settings.PERFECT_TRUSTED_PROXIES)
            self._shared = None if many else _key("client", client)

    def begin(self, now: datetime) -> float:
        """0, or the seconds until the next one may be made."""
        keys = {self._mine: GUESSING, **({self._shared: TRYING_ALL} if self._shared else {})}
        return SignInAttempts.objects.begin(keys, now)

    def succeeded(self) -> None:
        SignInAttempts.objects.succeeded(self._mine, self._shared)


def client_of(request: HttpRequest) -> str:
    """Whom the request is from; of IPv6 the network."""
    peer, forwarded = request.META.get("REMOTE_ADDR") or "?", request.META.get("HTTP_X_FORWARDED_FOR", "")
    trusted = settings.PERFECT_TRUSTED_PROXIES
    return addresses.shared_by(addresses.client_of(peer, forwarded, trusted), trusted)


def account_of(name: str) -> str:
    return unicodedata.normalize("NFKC", name[:200]).casefold()


def remember_device(response: HttpResponseBase, user: Any) -> None:
    """Let the browser be known as one that the user was signed in with."""
    value = signing.dumps([account_of(user.get_username()), secrets.token_urlsafe(12)], salt=DEVICE_SALT)
    response.set_cookie(
        DEVICE_COOKIE,
        value,
        max_age=DEVICE_LASTS,
        path=reverse("login"),
        httponly=True,
        secure=settings.SESSION_COOKIE_SECURE,
        samesite="Lax",
    )


def _device_of(request: HttpRequest, account: str) -> str:
    """The device's name, if it is known for this account."""
    try:
        known, device = signing.loads(request.COOKIES.get(DEVICE_COOKIE, ""), salt=DEVICE_SALT, max_age=DEVICE_LASTS)
    except (signing.BadSignature, ValueError, TypeError):
        return ""
    return str(device) if known == account else ""


def _key(*parts: str) -> str:
    return salted_hmac("perfect.attempts", "\0".join(parts), algorithm="sha256").hexdigest()


@method_decorator([login_not_required, never_cache], name="dispatch")
class Login(auth_views.LoginView):
    template_name = "registration/login.html"
    redirect_authenticated_user = True

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        attempt = Attempt(request)
        seconds = math.ceil(attempt.begin(timezone.now()))
        if seconds:
            context = self.get_context_data(form=self.form_class(request), error=TOO_MANY.format(seconds=seconds))
            return self.render_to_response(context, status=429, headers={"Retry-After": str(seconds)})
        response: HttpResponse = super().post(request, *args, **kwargs)
        if request.user.is_authenticated:
            attempt.succeeded()
            remember_device(response, request.user)
        return response


class Logout(auth_views.LogoutView):
    """By POST alone."""
