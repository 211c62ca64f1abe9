"""Where the examples keep their things, and how they ask for packages that are not installed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent
DATA = EXAMPLES / "data"
REQUIREMENTS = EXAMPLES / "requirements.txt"


def perfect_home() -> Path:
    """The folder of the Perfect server on this machine: `PERFECT_HOME`, else `~/.perfect`."""
    return Path(os.environ.get("PERFECT_HOME") or "~/.perfect").expanduser()


def examples_home() -> Path:
    """The folder of all that the examples write: `EXAMPLES_HOME`, else `PERFECT_HOME/examples`; created if missing."""
    chosen = os.environ.get("EXAMPLES_HOME")
    home = Path(chosen).expanduser() if chosen else perfect_home() / "examples"
    home.mkdir(parents=True, exist_ok=True)
    return home


def folder(name: str) -> Path:
    """A folder of that name (`models`, `outbox`, `staging`) under `examples_home()`."""
    path = examples_home() / name
    path.mkdir(exist_ok=True)
    return path


def server_url() -> str:
    """The Perfect server: `PERFECT_URL`, else this machine on the usual port."""
    return (os.environ.get("PERFECT_URL") or "http://127.0.0.1:8700").rstrip("/")


def warehouse_path() -> Path:
    """The SQLite file that chains the four flows."""
    return examples_home() / "warehouse.db"


def source_path(source: str) -> Path:
    """A file named by a parameter; a relative name is looked up in `examples/data/`, then in the current folder."""
    bundled = DATA / source
    return bundled if bundled.exists() else Path(source).expanduser()


def part_of(path: Path) -> Path:
    """The name to write a file under before it is put in its place with `os.replace`; unique to this process."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


@contextmanager
def extra_packages() -> Iterator[None]:
    """Turns the ImportError of a package from requirements.txt into a sentence that says what to do."""
    try:
        yield
    except ImportError as error:
        raise RuntimeError(
            f"{error.name or 'A package'} is not installed: install examples/requirements.txt"
            f" (python -m pip install -r {REQUIREMENTS})"
        ) from error
