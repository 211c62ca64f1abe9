"""Where the server is and with which token: from options, the environment, or what a server on this machine wrote.

``manage.py serve`` writes ``server.json`` (while it runs), ``worker-token`` and ``worker-token-for``, the addresses
that it has had, into ``PERFECT_HOME``. That token is the server's whose home it is, so it is sent to no other address.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit

from perfect_client.system import procs

DEFAULT_URL = "http://127.0.0.1:8700"
_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_LOOPBACK = "loopback"
_CLOCK_STEP_S = 60.0  # what the wall clock may have been set by since the server wrote its file


class NoToken(ValueError):
    """There is no token that may be sent; the text is a sentence that says what would be right."""


class Server(NamedTuple):
    """``note`` is a sentence on what was found and not used, or empty."""

    url: str
    note: str = ""


class Owner(NamedTuple):
    """The server of this home: its addresses, or those that it had, and whether it runs."""

    urls: List[str]
    runs: bool


def home(environ: Mapping[str, str]) -> Path:
    """``PERFECT_HOME``, by default ``~/.perfect``."""
    return Path(environ.get("PERFECT_HOME") or "~/.perfect").expanduser()


def find_server(given: Optional[str], environ: Mapping[str, str]) -> Server:
    """The option, else ``PERFECT_URL``, else the server of ``PERFECT_HOME`` if it runs, else the default address."""
    explicit = given or environ.get("PERFECT_URL")
    if explicit:
        return Server(explicit)
    known = _written(environ)
    if known is None:
        return Server(DEFAULT_URL)
    if not _runs(known):
        note = "%s names a server that does not run any more (process %s); using %s"
        return Server(DEFAULT_URL, note % (_file(environ), known["pid"], DEFAULT_URL))
    return Server(str(known["url"]))


def running_server(environ: Mapping[str, str]) -> Optional[str]:
    """The address of the server of ``PERFECT_HOME``; None while it does not run."""
    known = _written(environ)
    return str(known["url"]) if known is not None and _runs(known) else None


def find_token(given: Optional[str], environ: Mapping[str, str], url: str) -> str:
    """The option, else ``PERFECT_TOKEN``, else what the server on this machine wrote, if it is the one at ``url``.

    Raises ``NoToken``.
    """
    token = (given or environ.get("PERFECT_TOKEN") or "").strip()
    return token or _local_token(environ, url)


def _local_token(environ: Mapping[str, str], url: str) -> str:
    file = home(environ) / "worker-token"
    how = "set PERFECT_TOKEN to one that `manage.py createtoken NAME --scope worker` prints"
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError):
        token = ""
    if not token:
        raise NoToken("there is no token: %s (a server on this machine leaves one in %s)" % (how, file))
    owner = _owner(environ)
    if not _may_have(url, owner):
        whose = "the server at %s" % owner.urls[0] if owner.urls else "a server on this machine"
        raise NoToken(
            "there is no token for %s: the one in %s belongs to %s and is sent to no other; %s there"
            % (url, file, whose, how)
        )
    return token


def _may_have(url: str, owner: Owner) -> bool:
    """While the server of this home does not run, nobody knows its port: any address of this machine may be its."""
    place = _place(url)
    return place is not None and (place in [_place(known) for known in owner.urls] or _is_possible(place, owner))


def _is_possible(place: Tuple[str, int], owner: Owner) -> bool:
    return not owner.runs and place[0] == _LOOPBACK


def _owner(environ: Mapping[str, str]) -> Owner:
    """Whose the token of this home is."""
    known = _written(environ)
    if known is not None and _runs(known):
        return Owner([str(known[name]) for name in ("url", "public") if known.get(name)], True)
    try:
        return Owner((home(environ) / "worker-token-for").read_text().split(), False)
    except (OSError, UnicodeDecodeError):
        return Owner([], False)


def _place(url: str) -> Optional[Tuple[str, int]]:
    """Host and port of an address; all names of this machine's own loopback are one."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return None
    loopback = host in ("localhost", "::1") or host.startswith("127.")
    return (_LOOPBACK if loopback else host.rstrip(".")), port


# --------------------------------------------------------------------------------------------------- server.json


def _file(environ: Mapping[str, str]) -> Path:
    return home(environ) / "server.json"


def _written(environ: Mapping[str, str]) -> Optional[Dict[str, Any]]:
    """What ``server.json`` says, None when it is not there or says nothing of use."""
    try:
        known: Dict[str, Any] = json.loads(_file(environ).read_bytes())
        usable = int(known["pid"]) > 0 and isinstance(known["url"], str)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return known if usable else None


def _runs(known: Mapping[str, Any]) -> bool:
    """Whether the process that wrote the file lives: its number may be another's by now, who was born later."""
    pid, started = int(known["pid"]), known.get("started_at")
    try:
        os.kill(pid, 0)
    except PermissionError:  # it is another user's
        pass
    except (OSError, OverflowError):
        return False
    born = procs.born_at(pid)
    return born is None or not isinstance(started, (int, float)) or born <= started + _CLOCK_STEP_S
