"""Which files a zygote's flows were made of, and whether they changed since. Sizes and times, never contents."""

from __future__ import annotations

import os
import sys
from typing import Dict, Iterable, List, Set, Tuple

Stamp = Tuple[int, int]  # modification time in ns, size in bytes; (0, 0) = no such file

_FOREIGN = ("site-packages", "dist-packages", "__pycache__", "node_modules")


def stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)


def _is_own(folder: str) -> bool:
    return not folder.startswith(".") and folder not in _FOREIGN


def files_in(folder: str) -> List[str]:
    """The Python files under a folder; hidden folders, virtual environments and installed packages are left out."""
    found: List[str] = []
    for place, folders, files in os.walk(folder):
        folders[:] = [
            name for name in folders if _is_own(name) and not os.path.exists(os.path.join(place, name, "pyvenv.cfg"))
        ]
        found.extend(os.path.join(place, name) for name in files if name.endswith(".py"))
    return found


def roots_of(targets: Iterable[str]) -> Set[str]:
    """The folders whose modules count as the flows' own source."""
    roots = set()
    for target in targets:
        if os.path.isdir(target):
            roots.add(os.path.realpath(target))
        elif os.path.exists(target):
            roots.add(os.path.realpath(os.path.dirname(target) or "."))
        else:
            file = getattr(sys.modules.get(target), "__file__", None)
            if file:
                roots.add(os.path.dirname(os.path.realpath(file)))
    return roots


def watched(targets: Iterable[str]) -> Dict[str, Stamp]:
    """The targets' files and every imported module under the targets' folders, with their stamps."""
    targets = list(targets)
    paths = {os.path.realpath(target) for target in targets if os.path.isfile(target)}
    for target in targets:
        if os.path.isdir(target):
            paths.update(files_in(os.path.realpath(target)))
    roots = tuple(root.rstrip(os.sep) + os.sep for root in roots_of(targets))
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(".py"):
            real = os.path.realpath(file)
            if real.startswith(roots) and not any("%s%s%s" % (os.sep, name, os.sep) in real for name in _FOREIGN):
                paths.add(real)
    return {path: stamp(path) for path in paths}


def changed(known: Dict[str, Stamp]) -> bool:
    """Whether one of the files is not as it was."""
    return any(stamp(path) != tuple(then) for path, then in known.items())


def appeared(targets: Iterable[str], known: Dict[str, Stamp]) -> bool:
    """Whether a folder among the targets has a Python file that was not there."""
    return any(
        path not in known for target in targets if os.path.isdir(target) for path in files_in(os.path.realpath(target))
    )
