"""Which files a worker's flows were made of, and whether they changed since. Sizes and times, never contents."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Dict, Iterable, List, Mapping, NamedTuple, Sequence, Set, Tuple

Stamp = Tuple[int, int]  # modification time in ns, size in bytes; (0, 0) = no such file

DATA_WAIT_S, LONGEST_DATA_WAIT_S = 2.0, 600.0  # between two imports for a data file that keeps changing
FOREIGN = frozenset({"site-packages", "dist-packages", "__pycache__", "node_modules"})
FILE, MEMBER, MODULE, SCRIPT = "file", "member", "module", "script"


class Unit(NamedTuple):
    """What is imported as one: a file that was named, a ``member`` of a folder, a dotted module, or a ``script``, which
    is executed as ``__main__`` until it calls ``serve``."""

    kind: str
    name: str  # the file's real path, or the module's dotted name


def stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)


def stamps(paths: Iterable[str]) -> Dict[str, Stamp]:
    return {path: stamp(path) for path in paths}


def places(targets: Iterable[str]) -> List[Tuple[str, bool, bool]]:
    """Where each target leads and what is there: links are set to another folder, and what is gone comes back."""
    return [(os.path.realpath(target), os.path.isdir(target), os.path.isfile(target)) for target in targets]


def _is_own(folder: str) -> bool:
    return not folder.startswith(".") and folder not in FOREIGN


def _walk(folder: str) -> Iterable[Tuple[str, List[str]]]:
    """Each folder with its Python files; hidden folders, virtual environments and installed packages are left out."""
    for place, folders, files in os.walk(folder):
        folders[:] = [
            name for name in folders if _is_own(name) and not os.path.exists(os.path.join(place, name, "pyvenv.cfg"))
        ]
        yield place, [os.path.join(place, name) for name in files if name.endswith(".py")]


def named_files(targets: Iterable[str]) -> Set[str]:
    """The files that the targets name, and all Python files in the folders among them."""
    found: Set[str] = set()
    for target in targets:
        if os.path.isdir(target):
            for _, files in _walk(os.path.realpath(target)):
                found.update(files)
        elif os.path.isfile(target):
            found.add(os.path.realpath(target))
    return found


def folders(targets: Iterable[str]) -> Dict[str, int]:
    """The folders in which new files are flows, each with the time of its last change in ns."""
    places = [place for target in targets if os.path.isdir(target) for place, _ in _walk(os.path.realpath(target))]
    return {place: stamp(place)[0] for place in places}


def changed_files(known: Mapping[str, Sequence[int]]) -> List[str]:
    """The files that are not as they were."""
    return [path for path, then in known.items() if stamp(path) != tuple(then)]


def find_new_files(targets: Iterable[str], known_folders: Dict[str, int], known: Mapping[str, object]) -> bool:
    """Whether a folder among the targets has a Python file that was not there.

    A new file changes the time of its folder, so that only the folders are asked while nothing happens. Updates
    ``known_folders``.
    """
    if all(stamp(place)[0] == then for place, then in known_folders.items()):
        return False
    targets = list(targets)
    known_folders.update(folders(targets))
    return any(path not in known for path in named_files(targets))


def _beside(files: Iterable[str]) -> Set[str]:
    """The Python files in the folders of these files."""
    found: Set[str] = set()
    for folder in {os.path.dirname(file) for file in files if os.path.isabs(file)}:
        with suppress(OSError):
            found.update(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".py"))
    return found


class Watched:
    """The files of which a worker's flows were made: its modules, and the data that their imports read."""

    def __init__(self, targets: Sequence[str]) -> None:
        self._targets = list(targets)
        self._files: Dict[str, Stamp] = {}
        self._folders: Dict[str, int] = {}
        self._data: Set[str] = set()
        self._places = places(self._targets)
        self._learned_at = 0.0
        self._data_wait_s = 0.0

    def look_again(self) -> None:
        """An import begins: what changes from now on, while it goes on, counts as changed after it."""
        self._files, self._places = stamps(self._files), places(self._targets)

    def learn(
        self,
        files: Mapping[str, Sequence[int]],
        folders: Mapping[str, int],
        data: Iterable[str],
        now: float,
        skipped: Sequence[str] = (),
    ) -> None:
        """An import has read these ``files``, the ``data`` among them; new files in ``folders`` are flows. What the
        ``skipped`` files import is not known: what was watched before, and what lies beside them, may be part of it.
        """
        before = self._files
        self._files = {**stamps(_beside(skipped)), **before} if skipped else {}
        self._files.update((path, before.get(path) or (then[0], then[1])) for path, then in files.items())
        self._folders, self._data, self._learned_at = dict(folders), set(data), now

    def have_changed(self, now: float) -> bool:
        """Whether one is not as it was, or there is a new one. ``now``: seconds, of a clock that only goes on."""
        if places(self._targets) != self._places:
            return True
        found = set(changed_files(self._files))
        if found and found <= self._data:
            return self._may_follow_data(now)
        return bool(found) or find_new_files(self._targets, self._folders, self._files)

    def _may_follow_data(self, now: float) -> bool:
        """A file of data that changes all the time must not keep the worker importing."""
        quiet = now - self._learned_at
        if quiet < self._data_wait_s:
            return False
        often = quiet < 10 * max(self._data_wait_s, DATA_WAIT_S)
        self._data_wait_s = min(max(DATA_WAIT_S, 2 * self._data_wait_s), LONGEST_DATA_WAIT_S) if often else 0.0
        return True
