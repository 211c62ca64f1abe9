"""Which files are the user's own, and where an own module is found without importing it."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Iterator, List, NamedTuple, Optional

from perfect_client.errors import PACKAGE

_STANDARD_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_INSTALLED = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)
_here = threading.local()


class OwnModule(NamedTuple):
    """A module of the user's: its file, and the package that its relative imports start from."""

    name: str
    file: str
    package: str


def is_installed(file: str) -> bool:
    """Whether the file belongs to an installed package."""
    return any(folder in file for folder in _INSTALLED)


def is_own(file: str) -> bool:
    """False for the standard library, for Perfect itself, and for installed packages but the one ``with own_package``
    is about."""
    package = getattr(_here, "package", "")
    return _is_own(file) or bool(package and file.startswith(package))


def package_of(file: str) -> str:
    """The folder of the installed package, or the installed module, that a file belongs to; empty for all others."""
    for folder in _INSTALLED:
        before, found, within = file.rpartition(folder)
        if found and not file.startswith(PACKAGE):
            top, *below = within.split(os.sep)
            return before + found + top + (os.sep if below else "")
    return ""


@contextlib.contextmanager
def own_package(package: str) -> Iterator[None]:
    """Within it, what ``package_of`` returned is own: flows may be installed, too."""
    before, _here.package = getattr(_here, "package", ""), package
    try:
        yield
    finally:
        _here.package = before


@functools.lru_cache(maxsize=4096)
def _is_own(file: str) -> bool:
    return not file.startswith((_STANDARD_LIBRARY, PACKAGE, "<frozen")) and not is_installed(file)


def is_own_module(module: Any) -> bool:
    """Whether a loaded module is the user's own; ``__main__`` is, with or without a file."""
    space = vars(module)
    file = space.get("__file__")
    if isinstance(file, str):
        return is_own(file)
    return space.get("__name__") == "__main__" or (file is None and _is_own_namespace(space.get("__path__")))


def _is_own_namespace(path: Any) -> bool:
    """Of a folder without ``__init__.py``; the built-in modules have no path."""
    folders = list(path) if type(path).__name__ in ("_NamespacePath", "list") else []
    return bool(folders) and all(isinstance(one, str) and is_own(one + os.sep) for one in folders)


def find(name: str) -> Optional[OwnModule]:
    """The own module of this dotted name, whether it is loaded or not; None for all others."""
    loaded = sys.modules.get(name)
    if isinstance(loaded, ModuleType):
        file, package = vars(loaded).get("__file__"), vars(loaded).get("__package__")
        return _own(name, file, package if isinstance(package, str) else name.rpartition(".")[0])
    spec = _spec(name)
    if spec is None:
        return None
    return _own(name, spec.origin, name if spec.submodule_search_locations is not None else name.rpartition(".")[0])


def _own(name: str, file: Any, package: str) -> Optional[OwnModule]:
    is_source = isinstance(file, str) and file.endswith(".py") and is_own(file)
    return OwnModule(name, file, package) if is_source else None


def _spec(name: str) -> Optional[ModuleSpec]:
    """As ``importlib.util.find_spec``, which imports the packages around a module."""
    path: Optional[List[str]] = None
    spec, parts = None, name.split(".")
    for number in range(len(parts)):
        loaded = sys.modules.get(".".join(parts[: number + 1]))
        spec = loaded.__spec__ if loaded is not None else PathFinder.find_spec(".".join(parts[: number + 1]), path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    return spec


def absolute(name: str, level: int, package: str) -> str:
    """The whole name of ``from ..name import …`` in a module of the package; empty where there is none."""
    if not level:
        return name
    parts = package.split(".") if package else []
    if level > len(parts):
        return ""
    return ".".join([*parts[: len(parts) - level + 1], *([name] if name else [])])
