"""Signing in and out: one-use links, passwords, and a limit on guessing them."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model, login
from django.contrib.auth import views as auth_views
from django.contrib.auth.decorators import login_not_required
from django.core.cache import cache
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from runs.access import SignInLink

PER_ADDRESS = (5, 60)  # failed attempts, seconds
PER_ACCOUNT = (10, 3600)
TOO_MANY = "Too many failed attempts. Wait a minute, or ask an administrator for a sign-in link."
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
    if request.method != "POST":
        response = render(request, "welcome.html", {"token": request.GET.get("t", "")[:200]})
    else:
        with transaction.atomic():
            link = SignInLink.objects.redeem(request.POST.get("t", "")[:200], timezone.now())
            if link is not None and link.user.is_active:
                login(request, link.user, backend="django.contrib.auth.backends.ModelBackend")
                return HttpResponseRedirect("/")
        response = render(request, "welcome.html", {"token": "", "error": SPENT}, status=403)
    # Not "no-referrer": under it a browser posts the form with "Origin: null", which the CSRF check must refuse.
    response.headers["Referrer-Policy"] = "same-origin"
    return response


class Attempts:
    """Failed attempts to sign in from one address and for one account, counted in the cache."""

    def __init__(self, request: HttpRequest) -> None:
        # The socket's peer, not X-Forwarded-For, which a client may write itself.
        address = request.META.get("REMOTE_ADDR") or "?"
        name = request.POST.get("username", "")[:200].casefold()
        account = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:32]
        self._counts = [(f"login:ip:{address}", *PER_ADDRESS), (f"login:name:{account}", *PER_ACCOUNT)]

    def exhausted(self) -> bool:
        return any(cache.get(key, 0) >= limit for key, limit, _ in self._counts)

    def failed(self) -> None:
        for key, _, seconds in self._counts:
            if not cache.add(key, 1, seconds):
                cache.incr(key)

    def succeeded(self) -> None:
        cache.delete_many([key for key, _, _ in self._counts])


@method_decorator([login_not_required, never_cache], name="dispatch")
class Login(auth_views.LoginView):
    template_name = "registration/login.html"
    redirect_authenticated_user = True

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        attempts = Attempts(request)
        if attempts.exhausted():
            context = self.get_context_data(form=self.form_class(request), error=TOO_MANY)
            return self.render_to_response(context, status=429, headers={"Retry-After": str(PER_ADDRESS[1])})
        response: HttpResponse = super().post(request, *args, **kwargs)
        if response.status_code == 302:
            attempts.succeeded()
        else:
            attempts.failed()
        return response


class Logout(auth_views.LogoutView):
    """By POST alone."""
