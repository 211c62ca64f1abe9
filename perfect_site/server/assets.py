"""Static files without a build step: served from where they lie, addressed by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.staticfiles import finders
from django.contrib.staticfiles.storage import StaticFilesStorage
from servestatic.asgi import ServeStaticASGI
from servestatic.utils import stat_files

MAX_AGE = 24 * 3600  # seconds; a changed file gets a new address through its version


# ES modules that import each other by relative addresses. They are addressed through a folder that is named after the
# content of all of them, so that a module never meets one of another version.
MODULES = "perfect/js/"


@cache
def version_of(name: str) -> str:
    """The first characters of the content's digest; empty if there is no such file."""
    path = finders.find(name)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:10] if path else ""


@cache
def version_of_modules() -> str:
    """The first characters of a digest over the names and contents of all modules."""
    folder = finders.find(MODULES.rstrip("/"))
    digest = hashlib.sha256()
    for path in sorted(Path(folder).iterdir()) if folder else []:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:10]


def placed(name: str) -> str:
    """Where a file is served: under its name, and a module in the folder of its version."""
    if settings.DEBUG or not name.startswith(MODULES):
        return name
    return f"{MODULES}{version_of_modules()}/{name.removeprefix(MODULES)}"


class VersionedStorage(StaticFilesStorage):
    """``{% static "icon.svg" %}`` → ``/static/icon.svg?v=1f3a…``: kept by browsers, and new at once."""

    def url(self, name: str | None, *args: Any, **kwargs: Any) -> str:
        name = name or ""
        plain: str = super().url(placed(name), *args, **kwargs)
        version = "" if settings.DEBUG or name.startswith(MODULES) else version_of(name)
        return f"{plain}?v={version}" if version else plain


def serve_static(application: Callable[..., Any]) -> ServeStaticASGI:
    """``application`` behind all static files of all installed apps, without ``collectstatic``."""
    server = ServeStaticASGI(
        application,
        max_age=0 if settings.DEBUG else MAX_AGE,
        allow_all_origins=False,
        add_headers_function=_headers,
    )
    files: dict[str, tuple[str, str]] = {}
    for finder in finders.get_finders():
        for name, storage in finder.list([]):
            if not name.endswith(".map"):
                files.setdefault(settings.STATIC_URL + placed(name), (storage.path(name), storage.location))
    stats = stat_files([path for path, _ in files.values()])
    for url, (path, root) in files.items():
        server.add_file_to_dictionary(url, path, root=root, stat_cache=stats)
    return server


def _headers(headers: Any, path: str, url: str) -> None:
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "same-origin"
