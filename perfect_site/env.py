"""The ``PERFECT_*`` environment: read once, checked, refused with a sentence.

Reading is pure but for the places that say so: ``make_home``, ``secret_key_of`` and ``encryption_keys_of``.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from perfect_site.addresses import Network

T = TypeVar("T")

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
DATABASE_FILE = "flows.db"
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")

KNOWN = frozenset(
    {
        "PERFECT_ALLOWED_HOSTS",
        "PERFECT_CONSOLE",  # of a flow file that is run by itself, as is PERFECT_TRACEBACK
        "PERFECT_DATABASE_URL",
        "PERFECT_DEBUG",
        "PERFECT_ENCRYPTION_KEY",
        "PERFECT_HOME",
        "PERFECT_LOG_LEVEL",
        "PERFECT_IMPORT_AGE",
        "PERFECT_RESULTS_DAYS",  # a worker's own, as is the next one
        "PERFECT_RESULTS_MB",
        "PERFECT_RETENTION_DAYS",
        "PERFECT_RUN",  # the mark that a worker puts on a run's processes
        "PERFECT_SECRET_KEY",
        "PERFECT_TOKEN",
        "PERFECT_TRACEBACK",
        "PERFECT_TRUSTED_PROXIES",
        "PERFECT_URL",
    }
)


class BadSetting(ValueError):
    """An environment variable that cannot be used; the text is a sentence for the person who set it."""


@dataclass(frozen=True)
class Env:
    home: Path
    database: dict[str, Any]
    secret_key: str | None
    encryption_keys: tuple[str, ...]  # the first encrypts, each decrypts
    database_given: bool  # this machine is one of a server, wherever PERFECT_URL leads
    token: str  # of whoever asks another server
    url: str  # where people reach the server, without a slash at the end; empty if only on loopback
    allowed_hosts: tuple[str, ...]
    trusted_proxies: tuple[Network, ...]  # whose X-Forwarded-For is believed
    debug: bool
    retention_days: float
    log_level: str

    @property
    def https(self) -> bool:
        return self.url.startswith("https://")


def read(environ: Mapping[str, str]) -> Env:
    """All settings, or ``BadSetting`` for the first that is wrong."""
    home = Path(environ.get("PERFECT_HOME") or "~/.perfect").expanduser().absolute()

    def value(name: str, parse: Callable[[str], T], default: str) -> T:
        return parse(environ.get(name) or default)

    url = value("PERFECT_URL", _url, "")
    return Env(
        home=home,
        database=database_of(environ.get("PERFECT_DATABASE_URL") or f"sqlite:///{home / DATABASE_FILE}", home),
        database_given=bool(environ.get("PERFECT_DATABASE_URL")),
        token=(environ.get("PERFECT_TOKEN") or "").strip(),
        secret_key=value("PERFECT_SECRET_KEY", _secret, "") or None,
        encryption_keys=value("PERFECT_ENCRYPTION_KEY", _encryption_keys, ""),
        url=url,
        allowed_hosts=_hosts(environ.get("PERFECT_ALLOWED_HOSTS") or "", url),
        trusted_proxies=value("PERFECT_TRUSTED_PROXIES", _networks, ""),
        debug=value("PERFECT_DEBUG", _flag, "0"),
        retention_days=value("PERFECT_RETENTION_DAYS", _days, "30"),
        log_level=value("PERFECT_LOG_LEVEL", _level, "INFO"),
    )


def unknown(environ: Mapping[str, str]) -> list[str]:
    """A sentence for each ``PERFECT_*`` name that nobody reads, and for Prefect's names set in their place."""
    found = []
    for name in sorted(environ):
        # PERFECT__RUNTIME__… answers for ``perfect_client.core.runtime`` in tests.
        if name.startswith("PERFECT_") and not name.startswith("PERFECT__") and name not in KNOWN:
            if name == "PERFECT_REDIS_URL":
                found.append("PERFECT_REDIS_URL is not used: several servers need nothing but PostgreSQL.")
                continue
            close = difflib.get_close_matches(name, KNOWN, n=1)
            found.append(f"{name} is not a setting of Perfect." + (f" Did you mean {close[0]}?" if close else ""))
    if "PREFECT_API_URL" in environ and "PERFECT_URL" not in environ:
        found.append("PREFECT_API_URL is set and PERFECT_URL is not. Perfect reads PERFECT_URL.")
    return found


def make_home(home: Path) -> None:
    """Create the home folder for its owner alone. Raises ``BadSetting``."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BadSetting(f"PERFECT_HOME={home} cannot be created: {error.strerror}.") from None
    if not os.access(home, os.W_OK | os.X_OK):
        raise BadSetting(f"PERFECT_HOME={home} cannot be written to by this user.")


def secret_key_of(home: Path) -> str:
    """The key in ``home/secret_key``; made at first use, readable by its owner alone."""
    path = home / "secret_key"
    key = _kept_key(path, make=True)
    if len(key) < 32:
        raise BadSetting(f"{path} does not hold a key of 32 or more characters. Remove it to have a new one made.")
    return key


def encryption_keys_of(home: Path, given: tuple[str, ...]) -> list[str]:
    """The keys that are ``given``, then those in ``home/encryption_key``, which is made if none is given: values that
    were encrypted before a key was given stay readable."""
    path = home / "encryption_key"
    kept = _kept_key(path, make=not given).split()
    if (not kept and not given) or any(len(key) < 32 for key in kept):
        raise BadSetting(
            f"{path} does not hold keys of 32 or more characters, a line each. Restore it from a backup; without it"
            " the secret parameters in the database cannot be read. Remove it to have a new one made."
        )
    return [*given, *kept]


def _kept_key(path: Path, make: bool) -> str:
    """What the file holds; empty if there is none and none is to be made.

    Two first starts race for the file: ``O_EXCL`` lets one write it, and the other reads what that one wrote.
    """
    if make:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            pass
        else:
            try:
                with os.fdopen(descriptor, "w") as file:
                    file.write(secrets.token_urlsafe(48))
            except OSError as error:
                path.unlink()  # or the next start would find a part of a key
                raise BadSetting(f"{path} cannot be written: {error.strerror}. Make room on its disk.") from None
    return path.read_text().strip() if path.exists() else ""


def database_of(url: str, home: Path) -> dict[str, Any]:
    """Django's ``DATABASES["default"]`` for ``sqlite:////path`` or ``postgres://user:password@host:port/name``."""
    parts = _split("PERFECT_DATABASE_URL", url)
    make = {"sqlite": _sqlite, "postgres": _postgres, "postgresql": _postgres}.get(parts.scheme)
    if make is None:
        raise BadSetting(
            f"PERFECT_DATABASE_URL starts with {parts.scheme or url[:20]!r}. "
            "Give sqlite:////path/to/flows.db or postgres://user:password@host:5432/name."
        )
    return make(parts, home)


def _sqlite(parts: SplitResult, home: Path) -> dict[str, Any]:
    path = home / unquote(parts.path[1:])
    if parts.netloc or not parts.path[1:]:
        raise BadSetting("PERFECT_DATABASE_URL for SQLite is sqlite:// + / + path: sqlite:////srv/perfect/flows.db.")
    if path.parent != home and not path.parent.is_dir():
        raise BadSetting(
            f"PERFECT_DATABASE_URL names {path}, but the folder {path.parent} does not exist. "
            "(An absolute path takes four slashes: sqlite:////srv/flows.db; a relative one starts in PERFECT_HOME.)"
        )
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "CONN_MAX_AGE": 0,  # under ASGI a kept connection is never closed; runs.db.threads keeps its own
        "OPTIONS": {
            # A deferred transaction that reads, then writes, fails at once with SQLITE_BUSY_SNAPSHOT, timeout or not.
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            # FULL: an acknowledged fact survives a power cut. Only runs.db.maintenance makes checkpoints, never
            # SQLite by itself, because of the WAL-reset bug of SQLite before 3.51.3 (sqlite.org/wal.html#walresetbug).
            "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=FULL;PRAGMA foreign_keys=ON;"
            "PRAGMA wal_autocheckpoint=0;PRAGMA journal_size_limit=67108864;",
        },
        "TEST": {"NAME": str(home / "test-flows.db")},
    }


def _postgres(parts: SplitResult, home: Path) -> dict[str, Any]:
    try:
        port = parts.port
    except ValueError:
        raise BadSetting("PERFECT_DATABASE_URL has a port that is not a number from 1 to 65535.") from None
    if not parts.path.strip("/"):
        raise BadSetting("PERFECT_DATABASE_URL names no database: postgres://user:password@host:5432/name.")
    if find_spec("psycopg") is None:
        raise BadSetting(
            "PERFECT_DATABASE_URL asks for PostgreSQL, whose driver is not installed: "
            f"{sys.executable} -m pip install -r requirements-postgres.txt"
        )
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    if find_spec("psycopg_pool") is not None:
        options["pool"] = {"min_size": 2, "max_size": 10, "timeout": 10, "max_lifetime": 1800}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path[1:]),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": unquote(parts.hostname or ""),
        "PORT": port or "",
        "CONN_MAX_AGE": 0,
        "CONN_HEALTH_CHECKS": True,  # asked when it is taken from the pool: it may have been cut there
        "OPTIONS": options,
    }


def _split(name: str, text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError as error:
        raise BadSetting(f"{name} is not an address: {error}.") from None


def _url(text: str) -> str:
    if not text:
        return ""
    parts = _split("PERFECT_URL", text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise BadSetting(
            f"PERFECT_URL={text} is not usable. Give http:// or https://, a host, perhaps a port, and no path."
        )
    return text.rstrip("/")


def _hosts(text: str, url: str) -> tuple[str, ...]:
    hosts = [host.strip() for host in text.split(",") if host.strip()] or list(LOOPBACK_HOSTS)
    for host in hosts:
        if "/" in host or " " in host:
            raise BadSetting(f"PERFECT_ALLOWED_HOSTS has {host!r}. Give names and addresses with commas between them.")
    if url:
        own = urlsplit(url).hostname or ""
        hosts.append(f"[{own}]" if ":" in own else own)
    return tuple(dict.fromkeys(hosts))


def _networks(text: str) -> tuple[Network, ...]:
    found = []
    for each in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(ipaddress.ip_network(each))
        except ValueError:
            raise BadSetting(
                f"PERFECT_TRUSTED_PROXIES has {each!r}. Give addresses or networks with commas between them: "
                "127.0.0.1, 10.0.0.0/8."
            ) from None
    return tuple(found)


def _secret(text: str) -> str:
    if text and len(text) < 32:
        raise BadSetting("PERFECT_SECRET_KEY is too short: give 32 or more random characters.")
    return text


def _encryption_keys(text: str) -> tuple[str, ...]:
    keys = tuple(text.replace(",", " ").split())
    if any(len(key) < 32 for key in keys):
        raise BadSetting(
            "PERFECT_ENCRYPTION_KEY is too short: give 32 or more random characters; several keys with commas between"
            " them, the newest first."
        )
    return keys


def _flag(text: str) -> bool:
    if text.lower() not in YES + NO:
        raise BadSetting(f"PERFECT_DEBUG={text} is neither yes nor no. Give 1 or 0.")
    return text.lower() in YES


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days <= 36_500:
        raise BadSetting(f"PERFECT_RETENTION_DAYS={text} is not a number of days from 0 (keep all) to 36500.")
    return days


def _level(text: str) -> str:
    if text.upper() not in LOG_LEVELS:
        raise BadSetting(f"PERFECT_LOG_LEVEL={text} is not a level. Give {', '.join(LOG_LEVELS)}.")
    return text.upper()
