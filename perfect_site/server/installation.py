"""A home and its database before they are used: prepared, not vanished, and with SQLite served by one process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from perfect_site import accounts
from runs import notifications
from runs.db import outages
from runs.notifications import LOCKS

MARKER = "installation.json"
DAMAGED = ("malformed", "not a database", "disk image")
PREPARING = 0  # among our advisory locks on PostgreSQL


def database_file() -> Path | None:
    """The file of the SQLite database; None where it is none."""
    name = str(connection.settings_dict["NAME"])
    return Path(name) if connection.vendor == "sqlite" and name.startswith("/") else None


def prepare(home: Path, *, new: bool = False, say: Callable[[str], Any] = lambda line: None) -> None:
    """Make the tables that are missing, and the first account. Raises ``CommandError`` with what to do.

    ``new``: a database that was there, and is gone, may begin empty.
    """
    file = database_file()
    used = not new and file is not None and _facts(home).get("database") == str(file)
    if used and not (file and file.exists()):
        raise CommandError(_vanished(file))
    try:
        with _alone(home):
            executor = MigrationExecutor(connection)
            if used and not executor.loader.applied_migrations:
                raise CommandError(_vanished(file))
            if executor.migration_plan(executor.loader.graph.leaf_nodes()):
                say("Preparing the database …")
                call_command("migrate", interactive=False, verbosity=0)
            accounts.first_admin()
            if file is not None and not used:
                _note(home, database=str(file))
    except DatabaseError as error:
        raise CommandError(_explain(error, file)) from None
    except OSError as error:
        raise CommandError(_unwritable(error)) from None


def refuse_if_absent() -> None:
    """For commands that make no database: raises ``CommandError`` where there is none yet."""
    file = database_file()
    if file is not None and not file.exists():
        raise CommandError(f"There is no database at {file}. Start the server first: manage.py serve")


def identity(home: Path) -> str:
    """What tells this home from every other one, however it is moved or mounted."""
    known = _facts(home).get("id")
    return str(known) if known else str(_note(home, id=secrets.token_hex(4))["id"])


@contextlib.contextmanager
def held(home: Path) -> Iterator[None]:
    """Be the only server of an SQLite database, until the block or the process ends. Raises ``CommandError``."""
    file = database_file()
    if file is None:
        yield
        return
    try:
        lock = open(f"{file}.lock", "a+", opener=partial(os.open, mode=0o600))  # noqa: SIM115 - closed below
    except OSError as error:
        raise CommandError(_unwritable(error)) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.truncate(0)
            lock.write(f"{os.getpid()} {home}")
            lock.flush()
        except BlockingIOError:
            lock.seek(0)
            raise CommandError(_served(file, lock.read(5000))) from None
        except OSError as error:
            raise CommandError(_unwritable(error)) from None
        yield


def _unwritable(error: OSError) -> str:
    return f"{error.filename or 'The home'} cannot be written: {error.strerror}."


def is_served() -> bool:
    """Whether a server of this database lives, as far as can be told."""
    file = database_file()
    if file is None:
        return connection.vendor != "postgresql" or bool(notifications.living())
    try:
        os.kill(int(Path(f"{file}.lock").read_text().partition(" ")[0]), 0)
    except PermissionError:  # somebody else's process
        return True
    except (OSError, ValueError):
        return False
    return True


def _served(file: Path, holder: str) -> str:
    pid, _, home = holder.partition(" ")
    try:
        url = f" at {json.loads((Path(home) / 'server.json').read_text())['url']}"
    except (OSError, ValueError, KeyError):
        url = ""
    return (
        f"{file} is served already, by process {pid}{url}. "
        "An SQLite database has one server: stop that one first, or give this one another PERFECT_HOME. "
        "Several servers share a PostgreSQL database."
    )


def _vanished(file: Path | None) -> str:
    return (
        f"The database {file} of this home is gone. Put it back (from a backup, with the server stopped), "
        "or start with an empty one: manage.py serve --new"
    )


def _explain(error: DatabaseError, file: Path | None) -> str:
    if file is None or not any(word in str(error) for word in DAMAGED):
        return outages.advice(error)
    return (
        f"The database {file} is damaged: {error}. Stop all that uses it and move it away, with its -wal file. "
        "Then put a backup in its place, or start with an empty one: manage.py serve --new"
    )


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Two first starts at once: the second waits, and finds all done."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s, %s)", [LOCKS, PREPARING])
        try:
            yield
        finally:
            with contextlib.suppress(DatabaseError), connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s, %s)", [LOCKS, PREPARING])
        return
    descriptor = os.open(home, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _facts(home: Path) -> dict[str, Any]:
    try:
        found = json.loads((home / MARKER).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _note(home: Path, **facts: str) -> dict[str, Any]:
    known = {**_facts(home), **facts}
    write_private(home / MARKER, json.dumps(known))
    return known


def write_private(path: Path, text: str) -> None:
    """Replace the file at once, readable by its owner alone: nobody sees half of it or a wider mode."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.replace(draft, path)
