"""The console: Django's admin under Perfect's name, on the same deeds as the pages."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import AdminSite
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseForbidden
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache

from perfect_site import __version__

# What is used most comes first; what is not named follows by name.
ORDER = ["Run", "Flow", "Schedule", "Worker", "Limit", "Variable", "Token", "Event", "TaskRun", "LogLine", "Quarantine"]


class Console(AdminSite):
    site_title = "Perfect console"
    site_header = "Perfect"
    index_title = "Console"
    site_url = "/"

    def has_permission(self, request: HttpRequest) -> bool:
        """Roles are groups, not the staff flag: who may see any model may come in and finds what the role allows."""
        user = request.user
        return user.is_active and user.is_authenticated and (user.is_superuser or bool(user.get_all_permissions()))

    @method_decorator([login_not_required, never_cache])
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """One door for all: the site's own sign-in, which counts failed attempts."""
        if request.user.is_authenticated and not self.has_permission(request):
            return HttpResponseForbidden("Your account has no role yet. Ask an administrator for one.")
        wanted = request.GET.get("next", "")
        return redirect_to_login(wanted if wanted.startswith("/admin/") else reverse("admin:index"))

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        return {**super().each_context(request), "perfect_version": __version__}

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        apps: list[Any] = super().get_app_list(request, app_label)
        for app in apps:
            app["models"].sort(key=lambda model: (_place(model["object_name"]), model["name"]))
        return sorted(apps, key=lambda app: (app["app_label"] != "runs", app["app_label"] != "flows", app["name"]))


def _place(name: str) -> int:
    return ORDER.index(name) if name in ORDER else len(ORDER)
