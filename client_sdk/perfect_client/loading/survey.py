"""Import all flow files once and tell what is in them: flows, problems, and what the imports left in the process.

The report is JSON: ``units`` (each with its flows as the server knows them, its problem, and why its runs cannot be
forks), ``problems`` of no unit, ``files`` and ``folders`` to be watched, and the file with the ``sources`` as they were
imported.
"""

from __future__ import annotations

import gc
import marshal
import os
import sys
from contextlib import suppress
from typing import Any, Callable, Dict, List, Optional, Sequence, Set

from perfect_client.analysis import describe
from perfect_client.core import importing
from perfect_client.loading import sources
from perfect_client.loading.importer import OwnModules, Statement, Trace, Watch
from perfect_client.loading.leftovers import Left, in_words
from perfect_client.loading.loader import Imported, Loader, folders_of, same_name
from perfect_client.loading.process_state import apply
from perfect_client.loading.sources import Unit
from perfect_client.schema.secrets import of_this_process
from perfect_client.wire import messages

MAX_SOURCES_BYTES = 50 * 1024 * 1024  # of all files; without them there is no last good code
_MAX_PLACES = 3


class Survey:
    """The flows of all units, as objects, and the report of them."""

    def __init__(self, targets: Sequence[str], script: str, skip: Sequence[Unit], say: Callable[[Unit], None]) -> None:
        self.flows: Dict[str, Any] = {}
        self.homes: Dict[str, Unit] = {}  # flow → whose folder has the modules that its code imports
        self.targets = list(targets)
        self.watch = Watch()
        folders = [os.path.realpath(target) for target in targets if os.path.isdir(target)]
        self.modules = OwnModules(folders, watch=self.watch)
        self._loader = Loader(self.modules, skip)
        self._script, self._say = script, say
        self._specs: Dict[str, List[Any]] = {}
        self._states: Dict[str, Dict[Any, Any]] = {}  # flow → of its process
        self._units: List[Imported] = []
        self._skipped: List[str] = []

    def make(self) -> None:
        """Import everything. What does not import is a problem."""
        self.modules.install()
        importing.current = importing.Import()
        self.watch.begin()
        try:
            for imported in self._loader.load(self.targets, self._begin, self._script):
                self._take(imported)
            self.watch.state.become()
        finally:
            self.watch.end()
            self._skipped, importing.current = importing.current.skipped, None
        for folders in sorted({folders_of(imported.unit) for imported in self._units}):
            self.modules.enter(*folders)  # what is found in each is known before the forks need it
        self._states = {name: self._state_of(unit) for name, unit in self.homes.items()}

    def _state_of(self, unit: Unit) -> Dict[Any, Any]:
        return self.watch.state.of(self._reached(unit) if self.watch.state.differs else ())

    def _begin(self, unit: Unit) -> None:
        """Each unit begins as if it was the first."""
        self.watch.state.become()
        self._say(unit)

    def enter(self, name: str) -> None:
        """Let names lead to what the file of this flow would find, and the process be as its import has left it."""
        unit = self.homes[name]
        self.modules.enter(*folders_of(unit))
        apply(self._states[name])
        sys.argv = [unit.name]

    def _take(self, imported: Imported) -> None:
        """Describe the flows while the modules of their folder are the ones that names lead to."""
        self._units.append(imported)
        self.watch.look(thorough=True)
        specs = self._specs.setdefault(imported.unit.name, [])
        for flow in imported.flows:
            known = self.flows.setdefault(flow.name, flow)
            if known.identity != flow.identity:
                self._loader.problems.append(same_name(known, flow))
            elif known is flow:
                self._describe(flow, specs)
                self.homes[flow.name] = imported.unit

    def _describe(self, flow: Any, specs: List[Any]) -> None:
        try:
            specs.append(messages.to_dict(describe.flow_spec(flow)))
        except Exception as wrong:
            del self.flows[flow.name]
            text = "the flow '%s' cannot be described: %s: %s" % (flow.name, type(wrong).__name__, wrong)
            self._loader.problems.append(text)

    # --------------------------------------------------------------------------------------------------------- report

    def report(self, sources_path: str) -> Dict[str, Any]:
        traces = self._lasting()
        failed = {imported.problem for imported in self._units if imported.problem}
        return {
            "units": [
                {
                    "unit": list(imported.unit),
                    "flows": self._specs[imported.unit.name],
                    "problem": of_this_process.without(imported.problem),
                    "left": reason(self._traces_of(imported.unit, traces)),
                }
                for imported in self._units
            ],
            "problems": [
                of_this_process.without(p) for p in [*self._loader.problems, *self._skipped] if p not in failed
            ],
            "files": sources.stamps({*self.modules.tried, *self.watch.data_files, *sources.named_files(self.targets)}),
            "folders": sources.folders(self.targets),
            "data": sorted(self.watch.data_files),
            "sources": self._keep_sources(sources_path),
        }

    def _lasting(self) -> List[Trace]:
        """What is still there after all imports, without what was only waiting to be collected."""
        if not self.watch.traces:
            return []
        gc.collect()
        there = {(left.kind, left.key) for left in self.watch.process.still_there([t.left for t in self.watch.traces])}
        return [t for t in self.watch.traces if (t.left.kind, t.left.key) in there or t.left.kind == "made"]

    def _traces_of(self, unit: Unit, traces: List[Trace]) -> List[Trace]:
        """Those of the modules that the unit's import has reached, and those of nobody known."""
        if not traces:
            return []
        reached = self._reached(unit)
        return [t for t in traces if not t.file or t.file in reached]

    def _reached(self, unit: Unit) -> Set[str]:
        """The files of the user's modules that a unit imports, directly or not."""
        home, files = folders_of(unit)[0] + os.sep, self._files_by_name()
        reached: Set[str] = set()
        left = [unit.name] if unit.name in self.watch.names else files.get(unit.name, [])
        while left:
            file = left.pop()
            if file not in reached:
                reached.add(file)
                package = self.watch.names[file].rpartition(".")[0]  # it is imported before what is in it
                for name in {package, *self.watch.imports.get(file, ())}:
                    found = files.get(name, [])
                    left += [one for one in found if one.startswith(home)] or found
        return reached

    def _files_by_name(self) -> Dict[str, List[str]]:
        found: Dict[str, List[str]] = {}
        for file, name in self.watch.names.items():
            found.setdefault(name, []).append(file)
        return found

    def _keep_sources(self, path: str) -> str:
        """Write the sources down, for runs that are to use them when the files have become worse; its path."""
        found = self.modules.sources
        if sum(map(len, found.values())) > MAX_SOURCES_BYTES:
            return ""
        with suppress(OSError):
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                marshal.dump(found, file)
            return path
        return ""


def kept_sources(path: str) -> Dict[str, bytes]:
    """What ``Survey`` has written; empty without a path. Raises ``OSError``, ``ValueError``."""
    if not path:
        return {}
    with open(path, "rb") as file:
        found: Dict[str, bytes] = marshal.load(file)
    return found


def reason(traces: Sequence[Trace]) -> str:
    """Why forks will not do: "importing polars left 2 native threads, etl.py line 3 an open connection to db:5432"."""
    by_place: Dict[Any, List[Left]] = {}
    for trace in traces:
        by_place.setdefault((trace.file, trace.statement), []).append(trace.left)
    told: List[str] = []
    for (file, statement), lefts in list(by_place.items())[:_MAX_PLACES]:
        told.append(_told(file, statement, lefts, not told))
    more = len(by_place) - _MAX_PLACES
    return ", ".join(told) + (", and %d more places something" % more if more > 0 else "")


def _told(file: str, statement: Optional[Statement], lefts: List[Left], first: bool) -> str:
    verb = " left" if first else ""
    if not file or statement is None:
        return "the imports%s %s" % (verb, in_words(lefts))
    if statement.imports:
        return "importing %s%s %s" % (statement.imports, verb, in_words(lefts))
    place = " line %d" % statement.line if statement.line else ""
    return "%s%s%s %s" % (os.path.basename(file), place, verb, in_words(lefts))
