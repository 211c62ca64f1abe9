"""The console: Django's admin under Perfect's name, on the same deeds as the pages."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import AdminSite, ModelAdmin, ShowFacets
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IS_FACETS_VAR
from django.contrib.admin.utils import get_fields_from_path
from django.contrib.admin.views.main import ALL_VAR, ERROR_FLAG, ORDER_VAR, PAGE_VAR, SEARCH_VAR
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseForbidden
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from perfect_client.wire.messages import MAX_NAME, clean_text

from perfect_site import __version__

# What is used most comes first; what is not named follows by name.
ORDER = ["Run", "Flow", "Schedule", "Worker", "Limit", "Variable", "Token", "Event", "TaskRun", "LogLine", "Quarantine"]


class OfferedQueries(ModelAdmin):  # type: ignore[type-arg]
    """A list that answers the queries that it offers, and no others.

    Django takes any lookup on any column of the row: with it a viewer would read what is masked letter by letter
    (``?parameters__token__startswith=``), and stop the server with a regular expression, which SQLite has Python run.
    """

    lookups: tuple[str, ...]  # those that other pages link to, beside the list's own filters, where there are any

    def offered(self, request: HttpRequest) -> set[str]:
        """The names that a query of this list may have."""
        found = {PAGE_VAR, ALL_VAR, ERROR_FLAG, *getattr(self, "lookups", ())}
        found |= {SEARCH_VAR} if self.get_search_fields(request) else set()
        found |= {ORDER_VAR} if self.get_sortable_by(request) else set()
        found |= {IS_FACETS_VAR} if self.show_facets is ShowFacets.ALLOW else set()
        for item in self.get_list_filter(request):
            if isinstance(item, type):  # a SimpleListFilter, which reads its own parameter alone
                found.add(item.parameter_name)  # type: ignore[attr-defined]
                continue
            path: Any = item[0] if isinstance(item, (tuple, list)) else item
            field: Any = get_fields_from_path(self.model, path)[-1]
            target = f"__{field.target_field.name}" if field.is_relation else ""
            found |= {f"{path}{target}__exact", f"{path}__isnull"}
        return found

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        return lookup in self.offered(request)

    def to_field_allowed(self, request: HttpRequest, to_field: str) -> bool:
        """A row is found by its key alone; Django looks at relations backwards, too, and fails at them."""
        return to_field == self.opts.pk.name  # type: ignore[union-attr]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        refusal = self._refusal(request) if self.has_view_or_change_permission(request) else ""
        if refusal:
            return HttpResponseBadRequest(refusal, content_type="text/plain; charset=utf-8")
        return super().changelist_view(request, extra_context)

    def _refusal(self, request: HttpRequest) -> str:
        offered = self.offered(request)
        for name, values in request.GET.lists():
            if name not in offered:
                return f"This list is not narrowed by {name[:100]!r}. Known: {', '.join(sorted(offered))}."
            if any("\0" in value or len(value) > MAX_NAME for value in values):
                return f"{name} must be a string of at most {MAX_NAME} characters without NUL."
        for key in request.POST.getlist(ACTION_CHECKBOX_NAME):
            try:
                self.opts.pk.clean(key, None)  # type: ignore[union-attr]
            except ValidationError:
                return f"There is no row {key[:100]!r} to act on."
        return ""

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Each word is a condition on each column searched: a long text would be more of them than a database takes."""
        return super().get_search_results(request, queryset, clean_text(search_term, MAX_NAME))


class Console(AdminSite):
    site_title = "Perfect console"
    site_header = "Perfect"
    index_title = "Console"
    site_url = "/"

    def register(self, model_or_iterable: Any, admin_class: Any = None, **options: Any) -> None:
        """No list of the console can be registered without ``OfferedQueries``, whoever wrote it."""
        base = admin_class or ModelAdmin
        guarded = type(base.__name__, (OfferedQueries, base), {"__module__": base.__module__, "__doc__": base.__doc__})
        super().register(model_or_iterable, guarded, **options)

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

    def autocomplete_view(self, request: HttpRequest) -> HttpResponse:
        """Suggest rows for the fields of forms that ask for it, and for no other relation of any model."""
        names = [request.GET.get(name) for name in ("app_label", "model_name", "field_name")]
        for model, model_admin in self._registry.items():
            for field in model_admin.get_autocomplete_fields(request):
                if names == [model._meta.app_label, model._meta.model_name, field]:
                    return super().autocomplete_view(request)
        raise PermissionDenied

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        return {**super().each_context(request), "perfect_version": __version__}

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        apps: list[Any] = super().get_app_list(request, app_label)
        for app in apps:
            app["models"].sort(key=lambda model: (_place(model["object_name"]), model["name"]))
        return sorted(apps, key=lambda app: (app["app_label"] != "runs", app["app_label"] != "flows", app["name"]))


def _place(name: str) -> int:
    return ORDER.index(name) if name in ORDER else len(ORDER)
