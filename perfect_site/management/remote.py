"""The server at ``PERFECT_URL``, where that is not this home's own: a command asks it by its API."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from django.conf import settings

from perfect_site.server import local

ANSWER_WITHIN = 30.0  # seconds
OUTAGE = 60.0  # seconds that whoever follows a run waits for a server that is gone or restarts
PAGE = 1_000  # log lines
AGAIN = (502, 503, 504)


class Failed(Exception):
    """It did not do what was asked; the text is a sentence."""


class Server:
    """Raises ``Failed`` without a token."""

    def __init__(self, url: str, token: str) -> None:
        if not token:
            raise Failed(
                f"PERFECT_URL is {url}, which is not the server of this home: give a token of it as PERFECT_TOKEN; "
                "make one there with: manage.py createtoken NAME --scope run"
            )
        self.url, self._token = url, token

    def trigger(self, **wish: Any) -> dict[str, Any]:
        """``flow``, ``parameters``, ``configuration``, ``run_at`` → ``{id, state, state_reason, url}``."""
        found: dict[str, Any] = self._ask("POST", "/api/runs", {"items": [wish]})["items"][0]
        return found

    def resume(self, run: str, from_task: str | None) -> dict[str, Any]:
        found: dict[str, Any] = self._ask("POST", f"/api/runs/{run}/resume", {"from_task": from_task})
        return found

    def look(self, run: str, after: int | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The run as it stands, and its log lines after the number ``after``; an outage is waited out."""
        shown: dict[str, Any] = self._patiently(f"/api/runs/{run}")
        lines: list[dict[str, Any]] = []
        while after is not None:
            page = self._patiently(f"/api/runs/{run}/logs?after={after}&limit={PAGE}")["items"]
            if not page:
                break
            lines += page
            after = page[-1]["seq"]
        return shown, lines

    def _patiently(self, path: str) -> Any:
        until = time.monotonic() + OUTAGE
        while True:
            try:
                return self._ask("GET", path)
            except _Away:
                if time.monotonic() > until:
                    raise
                time.sleep(1.0)

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        try:
            with urlopen(Request(self.url + path, data, headers, method=method), timeout=ANSWER_WITHIN) as answer:
                return json.load(answer)
        except HTTPError as error:
            sentence = _sentence(error)
            raise (_Away if error.code in AGAIN else Failed)(f"{self.url} says: {sentence}") from None
        except (URLError, OSError, http.client.HTTPException) as error:
            raise _Away(f"No server answers at {self.url}: {getattr(error, 'reason', error)}") from None
        except ValueError:
            raise Failed(f"{self.url} is not the address of a Perfect server.") from None


class _Away(Failed):
    """Perhaps it is back in a moment."""


def _sentence(error: HTTPError) -> str:
    try:
        return str(json.load(error)["detail"])
    except (ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}"


def server() -> Server | None:
    """The server that ``PERFECT_URL`` means, unless it is one of this machine, whose database can be reached here."""
    url = settings.PERFECT_URL
    if not url or settings.PERFECT_DATABASE_GIVEN or local.is_own(settings.PERFECT_HOME, url):
        return None
    return Server(url, settings.PERFECT_TOKEN)
