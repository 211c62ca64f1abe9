"""All addresses. Everything needs a login but the views that carry ``login_not_required``, each by its exact route."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.urls import include, path

from perfect_site import accounts
from perfect_site.api.routes import api
from perfect_site.server import health


def own_guard(included: tuple[list[Any], str, str]) -> tuple[list[Any], str, str]:
    """The API's views check the caller themselves (``perfect_site.api.auth``), and answer 401, not a login page."""
    for pattern in included[0]:
        login_not_required(pattern.callback)
    return included


handler500 = "perfect_site.server.middleware.failed"
urlpatterns = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", health.metrics, name="metrics"),
    path("welcome/", accounts.welcome, name="welcome"),
    path("login/", accounts.Login.as_view(), name="login"),
    path("logout/", accounts.Logout.as_view(), name="logout"),
    path("api/", own_guard(api.urls)),
    path("admin/", admin.site.urls),
    path("", include("perfect_site.dashboard.flow_urls")),
    path("", include("perfect_site.dashboard.run_urls")),
]
