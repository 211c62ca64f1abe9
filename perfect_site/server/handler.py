"""How HTTP requests reach Django: scripts with a token by the short way, everybody else through the middleware.

The short way has no session, no CSRF and no thread: a token is no cookie, so neither protects anything there. The
long way is one hop to a thread for the whole synchronous chain and view; Django's own handler would hop back for the
view.
"""

from __future__ import annotations

import logging
from inspect import iscoroutinefunction
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import DisallowedHost, RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve, set_script_prefix, set_urlconf

from perfect_site.api.problems import as_problem, problem, problem_of
from runs.db import outages

logger = logging.getLogger("perfect.http")


def has_token(scope: dict[str, Any]) -> bool:
    """Whether the request is for the API and carries a bearer token (RFC 6750 §2.1)."""
    return scope.get("path", "").startswith("/api/") and any(
        name == b"authorization" and value[:7].lower() == b"bearer " for name, value in scope["headers"]
    )


class Handler(ASGIHandler):
    def load_middleware(self, is_async: bool = False) -> None:
        super().load_middleware(is_async=False)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and has_token(scope):
            await self._by_token(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase = await sync_to_async(self._respond, thread_sensitive=True)(request)
        return response

    def _respond(self, request: HttpRequest) -> HttpResponseBase:
        set_urlconf(settings.ROOT_URLCONF)
        response: HttpResponseBase = self._middleware_chain(request)  # type: ignore[attr-defined]
        response._resource_closers.append(request.close)  # type: ignore[attr-defined]
        return response

    async def _by_token(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        try:
            set_script_prefix(get_script_prefix(scope))
            request, refused = self.create_request(scope, body)
            response = as_problem(request, await _answer(request)) if request else refused or problem(400)
            response.headers["X-Content-Type-Options"] = "nosniff"
            response.headers.setdefault("Cache-Control", "no-store")
            await self.send_response(response, send)
        finally:
            body.close()


async def _answer(request: HttpRequest) -> HttpResponseBase:
    """The long way looks at the Host header in its middleware; here nothing else does."""
    try:
        request.get_host()
    except DisallowedHost as wrong:
        logging.getLogger("django.security.DisallowedHost").warning("%s", wrong)
        return problem(
            400, "The server is not known by the name in the Host header. PERFECT_ALLOWED_HOSTS lists its names."
        )
    return await _view(request)


async def _view(request: HttpRequest) -> HttpResponseBase:
    try:
        match = resolve(request.path_info, settings.ROOT_URLCONF)
    except Resolver404:
        return problem(404)
    request.resolver_match = match
    view = match.func if iscoroutinefunction(match.func) else sync_to_async(match.func, thread_sensitive=True)
    try:
        response: HttpResponseBase = await view(request, *match.args, **match.kwargs)
    except Http404:
        return problem(404)
    except Exception as error:
        outages.log_failure(logger, f"{request.method} {request.path} failed", error)
        outage = outages.of(error)
        return problem_of(outage) if outage else problem(500)
    return response
